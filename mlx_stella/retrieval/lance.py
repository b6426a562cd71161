"""Rows and vectors in LanceDB: embedded, a folder; each call that writes is one commit.

A commit is a new manifest that is put in place at once, so a process that dies leaves the table as
it was before or as it is after. Values become SQL literals in one function only.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from mlx_stella.errors import StoreError
from mlx_stella.machine.process_memory import trimming_freed_memory
from mlx_stella.retrieval.scanning import Key
from mlx_stella.retrieval.store import Filter, Hit, State, StoredChunk, version_of

os.environ.setdefault("LANCEDB_LOG", "error")  # its warnings are for programmers

import lancedb
import pyarrow as pa
from lancedb.index import FTS, BTree, IvfSq
from lancedb.query import MatchQuery

INDEX_ROWS = 20_000
"""From here on an index for approximate search pays; fewer rows are looked at one by one."""

UNINDEXED_PART = 0.2
"""With more rows beyond the index than this part of all, it is trained anew."""

HASHED_COMMITS = 64
"""So many commits of rows are looked through for a text that is known; the rest is indexed."""

METADATA_CACHE = 2**22
"""Bytes. LanceDB's default is 1 GiB, which it fills: every commit leaves a list of all fragments
there, so 800 commits took 180 MB more in memory, and the next 800 would take three times that."""

CONSISTENCY = timedelta(0)
"""How old what an open table shows may be: each call looks whether another process has committed.
Without it a table stays as it was when opened, and after KEEP_VERSIONS its files may be gone."""

KEEP_VERSIONS = timedelta(minutes=10)
"""Older versions of the tables are removed; a search of that age has ended."""

_ROWS, _NOTES = "chunks", "notes"
_COLUMNS = (
    ("root", pa.string()),
    ("file", pa.string()),
    ("content_hash", pa.string()),
    ("number", pa.int64()),
    ("is_last", pa.bool_()),
    ("text", pa.string()),
    ("text_hash", pa.string()),
    ("start_line", pa.int64()),
    ("end_line", pa.int64()),
    ("heading", pa.string()),
    ("record", pa.string()),
)
_NAMES = [name for name, _ in _COLUMNS]
_NOTE_SCHEMA = pa.schema([("name", pa.string()), ("value", pa.string())])
CELL_ROWS, NPROBES, REFINE = 400, 200, 4
"""Rows in a cell of the index, and cells that are looked at; so many times the hits asked for are
compared exactly. With 100 cells recall@10 was 0.983, see :func:`_approximate`."""

_BLOCK_ROWS = 4096


class LanceStore:
    """A store in a LanceDB database; see :class:`mlx_stella.retrieval.store.Store`.

    Raises:
        StoreError: the folder holds something else, or cannot be opened.
    """

    def __init__(self, uri: str):
        self.uri = uri
        if "://" not in uri:
            self._check_folder(Path(uri))
        self._connection: Any = None  # made when first needed: it would create the folder
        self._tables: dict[str, Any] = {}
        self._commits = 0  # of rows, since their texts' hashes were indexed

    def _check_folder(self, folder: Path) -> None:
        try:
            strangers = [p.name for p in folder.iterdir() if not p.name.startswith(".")]
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(
                f"no folder that can be read ({error.strerror})",
                where=self.uri,
                remedy="another one",
            ) from None
        for name in strangers:
            if name not in (f"{_ROWS}.lance", f"{_NOTES}.lance"):
                raise StoreError(
                    f"no index, it holds {name!r}",
                    where=self.uri,
                    remedy="one that `mlx-stella index` made, or for a new one an empty folder",
                )

    def read_note(self, name: str) -> dict[str, Any] | None:
        table = self._open(_NOTES)
        if table is None:
            return None
        with self._faults():
            found = table.search().where(f"name = {_literal(name)}").to_arrow().to_pylist()
            return json.loads(found[0]["value"]) if found else None

    def write_note(self, name: str, value: dict[str, Any]) -> None:
        row = pa.table({"name": [name], "value": [json.dumps(value)]}, schema=_NOTE_SCHEMA)
        with self._faults():
            table = self._open(_NOTES) or self._create(_NOTES, _NOTE_SCHEMA)
            merge = table.merge_insert("name")
            merge.when_matched_update_all().when_not_matched_insert_all().execute(row)

    def states(self) -> Iterator[State]:
        table = self._open(_ROWS)
        if table is None:
            return
        merged: dict[tuple[str, str, str], tuple[int, bool]] = {}
        group = ["root", "file", "content_hash"]
        with self._faults():
            query = table.search().select([*group, "is_last"])
            for batch in query.to_batches(batch_size=65536):
                counts = pa.Table.from_batches([batch]).group_by(group)
                counts = counts.aggregate([("is_last", "count"), ("is_last", "any")])
                for part in counts.to_pylist():
                    key = (part["root"], part["file"], part["content_hash"])
                    chunks, is_complete = merged.get(key, (0, False))
                    chunks += part["is_last_count"]
                    merged[key] = (chunks, is_complete or part["is_last_any"])
        for (root, name, content_hash), (chunks, is_complete) in merged.items():
            yield State(Key(root, name), content_hash, chunks, is_complete)

    def add(self, rows: Sequence[StoredChunk], vectors: np.ndarray) -> None:
        fields = [row.to_fields() for row in rows]
        arrays = [pa.array([row[name] for row in fields], kind) for name, kind in _COLUMNS]
        flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
        arrays.append(pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]))
        schema = pa.schema([*_COLUMNS, ("vector", pa.list_(pa.float32(), vectors.shape[1]))])
        with self._faults():
            table = self._open(_ROWS) or self._create(_ROWS, schema)
            table.add(pa.Table.from_arrays(arrays, schema=schema))
            self._commits += 1
            if self._commits >= HASHED_COMMITS:
                self._index_hashes(table)

    def delete(self, key: Key, content_hashes: Sequence[str]) -> None:
        if (table := self._open(_ROWS)) is not None and content_hashes:
            conditions = (
                f"root = {_literal(key.root)}",
                f"file = {_literal(key.name)}",
                f"content_hash IN ({', '.join(map(_literal, content_hashes))})",
            )
            with self._faults():
                table.delete(" AND ".join(conditions))

    def vectors(self, text_hashes: Sequence[str]) -> dict[str, np.ndarray]:
        if (table := self._open(_ROWS)) is None or not text_hashes:
            return {}
        with self._faults():
            where = f"text_hash IN ({', '.join(map(_literal, text_hashes))})"
            query = table.search().where(where).select(["text_hash"]).with_row_id(True)
            first: dict[str, int] = {}  # of the rows of a text, which may be as many as there are
            for batch in query.to_batches(_BLOCK_ROWS):
                hashes, rows = batch["text_hash"].to_pylist(), batch["_rowid"].to_pylist()
                for name, row in zip(hashes, rows, strict=True):
                    first.setdefault(name, row)
            if not first:
                return {}
            columns = ["text_hash", "vector"]
            found = table.take_row_ids(list(first.values())).select(columns).to_arrow()
            return dict(zip(found["text_hash"].to_pylist(), _matrix(found["vector"]), strict=True))

    def row(self, ref: str) -> StoredChunk | None:
        content_hash, number = version_of(ref)
        copies = self._select(f"content_hash = {_literal(content_hash)} AND number = {number}")
        return next((row for row in copies if row.ref == ref), None)

    def rows_of(
        self, name: str, root: str | None = None, lines: tuple[int, int] | None = None
    ) -> list[StoredChunk]:
        conditions = [f"file = {_literal(name)}"]
        if root is not None:
            conditions.append(f"root = {_literal(root)}")
        if lines is not None:
            conditions.append(f"start_line <= {lines[1]} AND end_line >= {lines[0]}")
        return self._select(" AND ".join(conditions))

    def _select(self, where: str) -> list[StoredChunk]:
        """The rows that meet a condition. 10 ms among 100,000 rows, with no index for it."""
        if (table := self._open(_ROWS)) is None:
            return []
        with self._faults():
            found = table.search().where(where).select(_NAMES).to_arrow()
            return [StoredChunk.from_fields(fields) for fields in found.to_pylist()]

    def count(self) -> int:
        table = self._open(_ROWS)
        with self._faults():
            return 0 if table is None else table.count_rows()

    def finish(self) -> None:
        if (table := self._open(_ROWS)) is None:
            return
        with self._faults():
            existing = {index.columns[0]: index for index in table.list_indices()}
            if "text" not in existing:
                table.create_index("text", config=FTS())
            rows = table.count_rows()
            if rows >= INDEX_ROWS:
                if "text_hash" not in existing:
                    table.create_index("text_hash", config=BTree())
                old = existing.get("vector")
                if old is None or old.num_unindexed_rows > UNINDEXED_PART * rows:
                    _index_vectors(table)
            table.optimize(cleanup_older_than=KEEP_VERSIONS)

    def _index_hashes(self, table: Any) -> None:
        """So that `vectors` need not open every fragment: each commit is one.

        Of 123,000 rows in 480 commits it found none in 0.18 s and 36 MB, with the index in 0.01 s
        and 1.5 MB; the index takes 0.24 s. The caches of the connection hold what it replaces.
        """
        table.create_index("text_hash", config=BTree())
        self._connection, self._tables, self._commits = None, {}, 0

    def search(
        self, vector: np.ndarray, top: int, filters: Sequence[Filter], exact: bool
    ) -> list[Hit]:
        if (table := self._open(_ROWS)) is None:
            return []
        with self._faults():
            query = table.search(np.asarray(vector, np.float32)).distance_type("cosine")
            query = query.limit(top).select([*_NAMES, "_distance"])
            if exact:
                query = query.bypass_vector_index()
            else:
                # 0: in as many cells as it takes, where a filter leaves too few in these
                query = query.minimum_nprobes(NPROBES).maximum_nprobes(0).refine_factor(REFINE)
            if filters:
                query = query.where(_condition(filters), prefilter=True)
            return [
                Hit(1 - row["_distance"], StoredChunk.from_fields(row))
                for row in query.to_arrow().to_pylist()
            ]

    def search_words(self, words: str, top: int, filters: Sequence[Filter]) -> list[Hit]:
        if (table := self._open(_ROWS)) is None or not words.strip():
            return []
        with self._faults():
            wanted = MatchQuery(words, "text")
            query = table.search(wanted).limit(top).select([*_NAMES, "_score"])
            if filters:
                query = query.where(_condition(filters), prefilter=True)
            return [
                Hit(row["_score"], StoredChunk.from_fields(row))
                for row in query.to_arrow().to_pylist()
            ]

    def blocks(self) -> Iterator[tuple[list[StoredChunk], np.ndarray]]:
        if (table := self._open(_ROWS)) is None:
            return
        with self._faults():
            for batch in table.search().select([*_NAMES, "vector"]).to_batches(_BLOCK_ROWS):
                rows = [StoredChunk.from_fields(row) for row in batch.select(_NAMES).to_pylist()]
                yield rows, _matrix(batch["vector"])

    def _open(self, name: str) -> Any:
        """A table, or None where there is none."""
        if name not in self._tables:
            folder = None if "://" in self.uri else Path(self.uri) / f"{name}.lance"
            if folder and not any(folder.glob("_versions/*.manifest")):
                if any(folder.glob("data/*")):
                    raise _fault(self.uri, f"{folder.name} has lost its manifests")
                return None  # or it was killed when it was about to create the table
            with self._faults():
                if name not in self._database.list_tables().tables:
                    return None
                self._tables[name] = self._database.open_table(name)
        return self._tables[name]

    @property
    def _database(self) -> Any:
        if self._connection is None:
            session = lancedb.Session(metadata_cache_size_bytes=METADATA_CACHE)
            self._connection = lancedb.connect(
                self.uri, session=session, read_consistency_interval=CONSISTENCY
            )
        return self._connection

    def _create(self, name: str, schema: pa.Schema) -> Any:
        # One that is there has no rows (and is falsy): it was emptied, or whoever made it was ended
        # before it had any, and may have meant vectors of another size. To overwrite what is not
        # there would be told on stderr by a library that somebody imported before.
        mode = "create" if self._open(name) is None else "overwrite"
        self._tables[name] = self._database.create_table(name, schema=schema, mode=mode)
        return self._tables[name]

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """LanceDB's errors, which are of many types, as one that says what to do."""
        try:
            with trimming_freed_memory():
                yield
        except (OSError, RuntimeError, ValueError, KeyError, pa.ArrowException) as error:
            raise _fault(self.uri, str(error)) from None
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # of Rust; it cannot be imported
                raise
            raise _fault(self.uri, str(error)) from None


_INNER = re.compile(r"^lance error: |LanceError\([^)]*\): |,?\s*[^\s,]*\.rs\b.*", re.DOTALL)
"""What LanceDB's messages say of its own sources, and all behind it."""


def _fault(uri: str, message: str) -> StoreError:
    low = message.lower()
    start = " ".join(_INNER.sub("", message).split())[:160]
    if "no space left" in low or "quota exceeded" in low or "file too large" in low:
        fault, remedy = "the disk is full", "free some space and run it again, nothing is lost"
    elif "permission denied" in low or "read-only file system" in low:
        fault, remedy = "it cannot be written to", "another place, or its permissions"
    elif "object store provider" in low or "lancedb cloud" in low:
        fault, remedy = "no address of an index", "a folder, s3://... or qdrant+http://..."
    elif "://" in uri:
        fault, remedy = f"cannot be read ({start})", "its name, the network, or the keys for it"
    else:
        fault, remedy = f"cannot be used ({start})", "if it is damaged, index into a new folder"
    return StoreError(fault, where=uri, remedy=remedy)


def _index_vectors(table: Any) -> None:
    """Make the index for approximate search, or leave it where there are no cells to be made."""
    try:
        table.create_index("vector", config=_approximate())
    except RuntimeError as error:
        if "k-means" not in str(error):  # too few of the vectors differ
            raise


def _approximate() -> IvfSq:
    """Cells of some CELL_ROWS rows whose vectors are stored in a byte a number.

    Of 100,000 real vectors of 384 dimensions it was built in 5 s, IVF_PQ in 27 s and HNSW_SQ in
    21 s, and found 1.00 of the exact ten, 0.89 and 0.99 (scripts/bench_search.py).
    The size of cells is given and not their number, or `optimize` would join nearly all of them,
    towards LanceDB's own 8192 rows.
    """
    return IvfSq(
        distance_type="cosine",
        target_partition_size=CELL_ROWS,
        sample_rate=64,
        max_iterations=20,
    )


def _literal(value: str) -> str:
    """A string as an SQL literal; doubling quotes is all that standard SQL has to escape."""
    return "'" + value.replace("'", "''") + "'"


def _condition(filters: Sequence[Filter]) -> str:
    return " AND ".join(f"{f.field} LIKE {_literal(_like(f.pattern))} ESCAPE '\\'" for f in filters)


def _like(pattern: str) -> str:
    """A pattern with * and ? as SQL's LIKE has it, with what LIKE would take for a sign escaped."""
    for sign in ("\\", "%", "_"):
        pattern = pattern.replace(sign, "\\" + sign)
    return pattern.replace("*", "%").replace("?", "_")


def _matrix(column: Any) -> np.ndarray:
    """A column of lists as (rows, dim) float32."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    values = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), -1) if len(column) else np.empty((0, 0), np.float32)
