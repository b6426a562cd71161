"""Numbered Parquet files, each of a fixed range of rows, that appear whole or not at all.

``part-00003.parquet`` has a row for each text that has a vector: ``row`` int64 (its number in the
input, counted from 0), ``id`` string (null where the input has none) and ``embedding``
fixed_size_list<float32>. ``failed-00003.jsonl``, if there is one, has a line for each of the
others. It is in place before the part is, so a part that is there is done.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from mlx_stella.bulk import manifest as manifests
from mlx_stella.bulk.manifest import Manifest
from mlx_stella.errors import StoreError
from mlx_stella.files import atomic
from mlx_stella.files.tables import Fault, TableRow

Numbered = tuple[int, TableRow]
"""A row and its number in the input."""

_NOTE = b"mlx_stella"


class Part:
    """A part that is being written."""

    def __init__(self, writer: parquet.ParquetWriter, schema: pa.Schema):
        self._writer, self._schema = writer, schema
        self.written = 0
        self.failed: list[tuple[int, Fault]] = []

    def add(self, rows: Sequence[Numbered], vectors: np.ndarray) -> None:
        """Write rows and their vectors (n, dim) float32."""
        flat = pa.array(np.ascontiguousarray(vectors).ravel())
        columns = [
            pa.array([number for number, _ in rows], pa.int64()),
            pa.array([row.record or None for _, row in rows], pa.string()),
            pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        ]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self.written += len(rows)

    def fail(self, number: int, fault: Fault) -> None:
        """Note a row that has no vector."""
        self.failed.append((number, fault))


@contextmanager
def writing(folder: Path, number: int, manifest: Manifest) -> Iterator[Part]:
    """Write a part, which is put in place if all went well and all its rows were given.

    Raises:
        OutputError: the disk is full, say; nothing of the part is left then.
    """
    schema = pa.schema(
        [
            ("row", pa.int64()),
            ("id", pa.string()),
            ("embedding", pa.list_(pa.float32(), manifest.width)),
        ]
    )
    with atomic.whole(_part(folder, number)) as (file,):
        # Vectors do not get smaller by a dictionary or compression, only slower to write.
        with parquet.ParquetWriter(
            file,
            schema,
            compression="none",
            use_dictionary=False,
            write_statistics=["row"],
        ) as writer:
            part = Part(writer, schema)
            yield part
            note = {"manifest": manifest.identity, "failed": len(part.failed)}
            writer.add_key_value_metadata({_NOTE: json.dumps(note)})
        if part.failed:
            _write_failed(_failed(folder, number), part.failed)
        else:
            _failed(folder, number).unlink(missing_ok=True)  # of an earlier part of this number


def failures(folder: Path, number: int, manifest: Manifest) -> int | None:
    """How many rows of a part have no vector; None for a part that is not done, or is damaged."""
    path = _part(folder, number)
    try:
        with parquet.ParquetFile(path) as file:
            note = json.loads((file.metadata.metadata or {})[_NOTE])
            failed, stored = int(note["failed"]), file.metadata.num_rows
            is_ours = note["manifest"] == manifest.identity
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
        return None
    is_whole = stored + failed == len(manifest.rows_of(number))
    return failed if is_ours and is_whole else None


def read_failed(folder: Path) -> Iterator[dict[str, Any]]:
    """What failed and why: objects with ``row`` (counted from 0), ``line``, ``id``, ``reason``."""
    for path in sorted(folder.glob("failed-*.jsonl")):
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)


def read_vectors(folder: str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers and vectors; see :func:`mlx_stella.bulk.read_vectors`, which is public."""
    folder = Path(folder)
    manifest = manifests.read(folder)
    if manifest is None:
        raise StoreError("no folder of parts", where=folder, remedy="mlx-stella embed --output")
    rows, vectors = [], []
    for number in range(manifest.parts):
        if failures(folder, number, manifest) is None:
            raise StoreError("missing", where=_part(folder, number), remedy="run `embed` again")
        table = parquet.read_table(_part(folder, number), columns=["row", "embedding"])
        rows.append(table["row"].to_numpy())
        flat = table["embedding"].combine_chunks().flatten().to_numpy()
        vectors.append(flat.reshape(-1, manifest.width))
    return np.concatenate(rows), np.concatenate(vectors)


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05}.parquet"


def _failed(folder: Path, number: int) -> Path:
    return folder / f"failed-{number:05}.jsonl"


def _write_failed(path: Path, failed: Sequence[tuple[int, Fault]]) -> None:
    lines = []
    for number, fault in sorted(failed, key=lambda pair: pair[0]):
        row = {"row": number, "line": fault.line, "id": fault.record or None}
        lines.append(json.dumps(row | {"reason": fault.error.reason}) + "\n")
    atomic.write_text(path, "".join(lines))
