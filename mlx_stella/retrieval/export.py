"""An index as files for other programs: Parquet, or .npy with a .rows.jsonl beside it."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from mlx_stella.errors import InputError, OutputError
from mlx_stella.files import npy, output
from mlx_stella.retrieval.store import Store, StoredChunk

ENDINGS = (".parquet", ".npy")


def export(store: Store, dim: int, path: Path, overwrite: bool) -> int:
    """Write all rows, in constant memory; the file appears whole or not at all.

    A .npy file holds (rows, dim) float32, and NAME.rows.jsonl beside NAME.npy a line a row.

    Returns:
        The number of rows.

    Raises:
        InputError: the ending is unknown, the file would lie in the index, or as `output.check`.
        OutputError: the file cannot be written.
    """
    if path.suffix not in ENDINGS:
        raise InputError("export is .parquet or .npy", where=path, remedy="change the ending")
    target = Path(os.path.realpath(path))
    if "://" not in store.uri and target.is_relative_to(os.path.realpath(store.uri)):
        raise InputError("lies in the index", where=path, remedy="another place")
    write = _write_parquet if path.suffix == ".parquet" else _write_npy
    return write(store, dim, path, overwrite)


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


def _write_parquet(store: Store, dim: int, path: Path, overwrite: bool) -> int:
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
    with (
        output.writing(path, overwrite=overwrite) as (file,),
        parquet.ParquetWriter(file, schema) as writer,
    ):
        for rows, vectors in store.blocks():
            table = pa.Table.from_pylist([describe(row) for row in rows], pa.schema(columns))
            flat = pa.array(np.ascontiguousarray(vectors).ravel())
            embedding = pa.FixedSizeListArray.from_arrays(flat, dim)
            writer.write_table(table.append_column(schema.field("embedding"), embedding))
            written += len(rows)
    return written


def _write_npy(store: Store, dim: int, path: Path, overwrite: bool) -> int:
    count, written = store.count(), 0
    both = (path, path.with_suffix(".rows.jsonl"))
    with output.writing(*both, overwrite=overwrite) as (vectors_file, rows_file):
        npy.begin(vectors_file, count, dim)
        for rows, vectors in store.blocks():
            npy.add(vectors_file, vectors)
            rows_file.writelines(f"{json.dumps(describe(row))}\n".encode() for row in rows)
            written += len(rows)
        if written != count:
            raise OutputError("the index changed meanwhile", where=path, remedy="run it again")
    return written
