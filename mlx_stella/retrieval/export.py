"""An index as files for other programs: Parquet, or .npy with a .rows.jsonl beside it."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from mlx_stella.errors import InputError, OutputError
from mlx_stella.files import atomic, npy
from mlx_stella.retrieval.store import Store, StoredChunk

ENDINGS = (".parquet", ".npy")


def export(store: Store, dim: int, output: Path) -> int:
    """Write all rows, in constant memory; the file appears whole or not at all.

    A .npy file holds (rows, dim) float32, and NAME.rows.jsonl beside NAME.npy a line a row.

    Returns:
        The number of rows.

    Raises:
        InputError: the ending is unknown, or the file would lie in the index.
        OutputError: the file cannot be written.
    """
    if output.suffix not in ENDINGS:
        raise InputError("export is .parquet or .npy", where=output, remedy="change the ending")
    target = Path(os.path.realpath(output))
    if "://" not in store.uri and target.is_relative_to(os.path.realpath(store.uri)):
        raise InputError("lies in the index", where=output, remedy="another place")
    write = _write_parquet if output.suffix == ".parquet" else _write_npy
    return write(store, dim, output)


def describe(row: StoredChunk) -> dict[str, Any]:
    """A row as an object of JSON, without its vector."""
    return {
        "root": row.key.root,
        "file": row.key.name,
        "lines": [row.chunk.start_line, row.chunk.end_line],
        "heading": row.chunk.heading,
        "record": row.chunk.record,
        "text": row.chunk.text,
    }


def _write_parquet(store: Store, dim: int, output: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    columns = [
        ("root", pa.string()),
        ("file", pa.string()),
        ("lines", pa.list_(pa.int64(), 2)),
        ("heading", pa.string()),
        ("record", pa.string()),
        ("text", pa.string()),
    ]
    schema = pa.schema([*columns, ("embedding", pa.list_(pa.float32(), dim))])
    written = 0
    with atomic.whole(output) as (file,), parquet.ParquetWriter(file, schema) as writer:
        for rows, vectors in store.blocks():
            table = pa.Table.from_pylist([describe(row) for row in rows], pa.schema(columns))
            flat = pa.array(np.ascontiguousarray(vectors).ravel())
            embedding = pa.FixedSizeListArray.from_arrays(flat, dim)
            writer.write_table(table.append_column(schema.field("embedding"), embedding))
            written += len(rows)
    return written


def _write_npy(store: Store, dim: int, output: Path) -> int:
    target = Path(os.path.realpath(output))  # the rows lie beside the file, not beside its link
    count, written = store.count(), 0
    with atomic.whole(target, target.with_suffix(".rows.jsonl")) as (vectors_file, rows_file):
        npy.begin(vectors_file, count, dim)
        for rows, vectors in store.blocks():
            npy.add(vectors_file, vectors)
            rows_file.writelines(f"{json.dumps(describe(row))}\n".encode() for row in rows)
            written += len(rows)
        if written != count:
            raise OutputError("the index changed meanwhile", where=output, remedy="run it again")
    return written
