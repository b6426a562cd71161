"""Bring an index up to date with files: what is unchanged stays, the rest is embedded and stored.

Rows are committed batch after batch, in the order of files and chunks. A run that was killed is
taken up after the last batch it committed; what it stores in the end does not depend on that.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlx_stella.errors import (
    CheckpointError,
    InputError,
    StellaError,
    VectorError,
    kept_if_interrupted,
)
from mlx_stella.retrieval import reading
from mlx_stella.retrieval.chunking import Chunk, Chunker
from mlx_stella.retrieval.notes import REPORT, read_report
from mlx_stella.retrieval.scanning import Key, Note, Scan, SourceFile
from mlx_stella.retrieval.store import State, Store, StoredChunk

FIRST_BATCH, LEAST_BATCH, LARGEST_BATCH = 64, 16, 4096
BAD_ROWS = 10
"""Of a file, so many rows that cannot be read are told; the others are counted."""

COMMIT_SECONDS = (1.5, 6.0)
"""Batches grow while one takes less than the first, and shrink above the second."""


@dataclass
class UpdateReport:
    """What a run did.

    Attributes:
        found: files that were looked at.
        files: that are in the index now; unchanged: that were before.
        embedded, reused: chunks given a vector by the model, or that of the same text.
        removed: files taken out of the index.
        skipped: left out on purpose; failed: to be mended; empty: without words, by their hash.
        bad_rows: rows to be mended, of files whose other rows are in the index.
    """

    found: int = 0
    files: int = 0
    unchanged: int = 0
    embedded: int = 0
    reused: int = 0
    removed: int = 0
    skipped: list[Note] = field(default_factory=list)
    failed: list[Note] = field(default_factory=list)
    bad_rows: list[Note] = field(default_factory=list)
    empty: dict[Key, str] = field(default_factory=dict)


Embed = Callable[[list[str]], np.ndarray]
Tell = Callable[[int, int], None]


def update_rows(
    store: Store,
    found: Scan,
    fields: Sequence[str],
    chunker: Chunker,
    embed: Embed,
    tell: Tell = lambda files, chunks: None,
) -> UpdateReport:
    """Bring a store up to date with what a scan found.

    Args:
        fields: of files of rows, see :func:`reading.read`.
        embed: n texts to unit vectors (n, dim) float32.
        tell: called after each commit with the numbers of files and chunks done.
    """
    with kept_if_interrupted("what the index holds by now is kept; run it again to go on"):
        return _Run(store, found, fields, chunker, embed, tell).run()


class _Run:
    def __init__(
        self,
        store: Store,
        found: Scan,
        fields: Sequence[str],
        chunker: Chunker,
        embed: Embed,
        tell: Tell,
    ):
        self._store, self._found, self._fields = store, found, fields
        self._chunker, self._embed, self._tell = chunker, embed, tell
        self._states = stored_versions(store)
        self._old_report = read_report(store)
        self._empty = read_empty(self._old_report)
        self._bad_rows: dict[Key, list[Note]] = {}  # of the versions that are stored
        for note in read_notes(self._old_report, "bad_rows"):
            self._bad_rows.setdefault(note.key, []).append(note)
        self._batch: list[StoredChunk] = []
        self._batch_size = FIRST_BATCH
        self._chunks = 0
        self._partial: dict[Key, str] = {}  # versions of which not all rows are stored yet
        self._given_up: set[Key] = set()
        self.report = UpdateReport(
            found=len(found.files), skipped=list(found.skipped), failed=list(found.failed)
        )

    def run(self) -> UpdateReport:
        for file in self._found.files:
            try:
                self._index_file(file)
            except reading.NotText as reason:
                self.report.skipped.append(Note(file.key, str(reason)))
            except OSError as error:
                self._give_up(file.key, error.strerror or str(error))
            except InputError as error:
                self._give_up(file.key, str(error))
        self._flush()
        self.report.bad_rows = [n for n in self._known_bad_rows() if n.key not in self._given_up]
        self._remove_missing()
        self.report.files = len(stored_versions(self._store)) + len(self.report.empty)
        self._store.finish()  # even if nothing changed: the run before may have been killed
        self._write_report()
        return self.report

    def _index_file(self, file: SourceFile) -> None:
        before = _last_change(file)
        content_hash = reading.content_hash(file, self._fields)
        versions = self._states.get(file.key, {})
        known = versions.get(content_hash)
        if known and known.is_complete:
            self._remove(file.key, [name for name in versions if name != content_hash])
            self.report.unchanged += 1
            return
        is_known_empty = self._empty.get(file.key) == content_hash
        chunks = iter(()) if is_known_empty else self._chunks_of(file)
        stored = known.chunks if known else 0
        is_empty = True
        for number, (chunk, is_last) in enumerate(_mark_last(chunks)):
            is_empty = False
            if is_last:
                _check_unchanged(file, before)
            if number >= stored:
                self._batch.append(StoredChunk(file.key, content_hash, number, is_last, chunk))
            if len(self._batch) >= self._batch_size:
                self._flush()
            if file.key in self._given_up:
                return
        if is_empty:
            _check_unchanged(file, before)
            self.report.empty[file.key] = content_hash
            self._remove(file.key, list(versions))

    def _chunks_of(self, file: SourceFile) -> Iterator[Chunk]:
        """The chunks of a file, once all of it was read without a fault."""
        with _its_own_fault():
            if reading.kind_of(file.path) == "rows":  # too large to keep, so it is read twice
                self._note_bad_rows(file)
                passages = reading.read(file, self._fields, lambda error: None)
            else:
                passages = iter(list(reading.read(file, self._fields)))
            for passage in passages:
                yield from self._chunker.chunks(passage)

    def _flush(self) -> None:
        """Embed what was collected, commit it, and remove what it takes the place of."""
        started = time.perf_counter()
        rows, self._batch = self._batch, []
        texts = {row.chunk.text_hash: row.chunk.text for row in rows}
        vectors = self._store.vectors(sorted(texts))
        new = [name for name in texts if name not in vectors]
        faults: dict[str, str] = {}
        self._embed_into(vectors, faults, {name: texts[name] for name in new})
        for row in rows:
            if (fault := faults.get(row.chunk.text_hash)) and row.key not in self._given_up:
                self._give_up(row.key, f"line {row.chunk.start_line}: {fault}")
        rows = [row for row in rows if row.key not in self._given_up]
        if not rows:
            return
        self._store.add(rows, np.stack([vectors[row.chunk.text_hash] for row in rows]))
        embedded = len({row.chunk.text_hash for row in rows} & set(new))
        self.report.embedded += embedded
        self.report.reused += len(rows) - embedded
        for row in rows:
            self._partial[row.key] = row.content_hash
            if row.is_last:
                del self._partial[row.key]
                versions = self._states.get(row.key, {})
                self._remove(row.key, [name for name in versions if name != row.content_hash])
        self._chunks += len(rows)
        self._tell(sum(row.is_last for row in rows), self._chunks)
        self._set_pace(time.perf_counter() - started)

    def _embed_into(
        self, vectors: dict[str, np.ndarray], faults: dict[str, str], texts: dict[str, str]
    ) -> None:
        """Add a vector for each text, or what kept the model from embedding it."""
        if not texts:
            return
        try:
            found = self._embed(list(texts.values()))
        except (VectorError, InputError, CheckpointError) as error:
            for name, text in texts.items():
                if len(texts) > 1:
                    self._embed_into(vectors, faults, {name: text})
                else:
                    is_vector = isinstance(error, VectorError)
                    faults[name] = "the model gave no vector" if is_vector else error.fault
            return
        vectors.update(zip(texts, found, strict=True))

    def _set_pace(self, seconds: float) -> None:
        if seconds < COMMIT_SECONDS[0]:
            self._batch_size = min(2 * self._batch_size, LARGEST_BATCH)
        elif seconds > COMMIT_SECONDS[1]:
            self._batch_size = max(self._batch_size // 2, LEAST_BATCH)

    def _give_up(self, key: Key, reason: str) -> None:
        """Leave a file as the index had it before, and say why."""
        self._given_up.add(key)
        self.report.failed.append(Note(key, reason))
        self._batch = [row for row in self._batch if row.key != key]
        versions = self._states.get(key, {}).values()
        partial = {state.content_hash for state in versions if not state.is_complete}
        if key in self._partial:
            partial.add(self._partial.pop(key))
        self._remove(key, sorted(partial))

    def _remove_missing(self) -> None:
        """Take out files that are there no more, and those that are to be left out now."""
        kept = {file.key for file in self._found.files}
        kept -= {note.key for note in self.report.skipped}
        for key, versions in self._states.items():
            if key not in kept and self._found.covers(key):
                self._remove(key, list(versions))
                self.report.removed += 1

    def _remove(self, key: Key, content_hashes: list[str]) -> None:
        if content_hashes:
            self._store.delete(key, content_hashes)

    def _note_bad_rows(self, file: SourceFile) -> None:
        """Before the rest of the file is stored, for it is not read again then."""
        self._bad_rows[file.key] = _bad_rows(file, self._fields)
        if self._bad_rows[file.key]:
            notes = [note for notes in self._bad_rows.values() for note in notes]
            self._store.write_note(REPORT, self._old_report | {"bad_rows": _entries(notes)})

    def _known_bad_rows(self) -> list[Note]:
        return [note for file in self._found.files for note in self._bad_rows.get(file.key, ())]

    def _write_report(self) -> None:
        """Keep reasons for `status`, and those of files that this run did not look at."""
        note: dict[str, Any] = {}
        lists = {
            "skipped": self.report.skipped,
            "failed": self.report.failed,
            "bad_rows": self._known_bad_rows(),
        }
        for name, entries in lists.items():
            old = [
                note
                for note in read_notes(self._old_report, name)
                if not self._found.covers(note.key)
            ]
            note[name] = _entries(dict.fromkeys([*old, *entries]))
        old_empty = {key: h for key, h in self._empty.items() if not self._found.covers(key)}
        empty = old_empty | self.report.empty
        note["empty"] = [[key.root, key.name, value] for key, value in empty.items()]
        self._store.write_note(REPORT, note)


def stored_versions(store: Store) -> dict[Key, dict[str, State]]:
    """Of each file in a store, the versions that rows are there of."""
    found: dict[Key, dict[str, State]] = {}
    for state in store.states():
        found.setdefault(state.key, {})[state.content_hash] = state
    return found


def read_notes(report: dict[str, list[list[str]]], name: str) -> list[Note]:
    """What a run left out: "skipped", "failed" or "bad_rows" of its report."""
    return [Note(Key(root, file), reason) for root, file, reason in report.get(name, [])]


def _entries(notes: Iterable[Note]) -> list[list[str]]:
    return [[note.key.root, note.key.name, note.reason] for note in notes]


def read_empty(report: dict[str, list[list[str]]]) -> dict[Key, str]:
    """Files that hold no words, and the hash they had then."""
    return {Key(root, file): value for root, file, value in report.get("empty", [])}


def _bad_rows(file: SourceFile, fields: Sequence[str]) -> list[Note]:
    """Read a file of rows, and say of the first that have no text what is wrong with them.

    Raises:
        InputError: not one has a text.
    """
    bad, good, errors = 0, 0, list[InputError]()

    def fail(error: InputError) -> None:
        nonlocal bad
        bad += 1
        if len(errors) < BAD_ROWS:
            errors.append(error)

    for _ in reading.read(file, fields, fail):
        good += 1
    if errors and not good:
        raise errors[0]
    reasons = [str(error) for error in errors]
    if bad > len(errors):
        reasons.append(f"{bad - len(errors)} more rows cannot be read")
    return [Note(file.key, reason) for reason in reasons]


@contextmanager
def _its_own_fault() -> Iterator[None]:
    """Whatever reading and cutting a file makes a library raise is that file's fault.

    Raises:
        InputError: in place of it, also of a panic of Rust, which is no Exception.
    """
    try:
        yield
    except CheckpointError as error:  # a text that its tokenizer cannot take
        raise InputError(error.fault, remedy="leave it out") from error
    except (reading.NotText, StellaError, OSError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"cannot be read ({what:.200})", remedy="leave it out") from error


def _mark_last(chunks: Iterator[Chunk]) -> Iterator[tuple[Chunk, bool]]:
    previous = None
    for chunk in chunks:
        if previous is not None:
            yield previous, False
        previous = chunk
    if previous is not None:
        yield previous, True


def _check_unchanged(file: SourceFile, before: tuple[int, int]) -> None:
    if _last_change(file) != before:
        raise InputError("changed while it was read", remedy="run it again")


def _last_change(file: SourceFile) -> tuple[int, int]:
    state = file.path.stat()
    return state.st_size, state.st_mtime_ns
