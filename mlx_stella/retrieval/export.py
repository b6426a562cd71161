"""An index as files for other programs: Parquet, or .npy with a .rows.jsonl beside it."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from mlx_stella.errors import InputError, OutputError
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
    target = Path(os.path.realpath(output))  # a link keeps pointing to the file
    if "://" not in store.uri and target.is_relative_to(os.path.realpath(store.uri)):
        raise InputError("lies in the index", where=output, remedy="another place")
    write = _write_parquet if output.suffix == ".parquet" else _write_npy
    temporary = target.with_name(f".mlx-stella-{os.getpid()}.part")
    try:
        return write(store, dim, target, temporary)
    except OSError as error:
        raise OutputError(
            f"could not be written ({error.strerror or error})",
            where=output,
            remedy="free some space or choose another place",
        ) from None
    finally:
        for path in (temporary, _beside(temporary)):
            with contextlib.suppress(OSError):  # of a folder that cannot be written to
                path.unlink()


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


def _write_parquet(store: Store, dim: int, output: Path, temporary: Path) -> int:
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
    with parquet.ParquetWriter(temporary, schema) as writer:
        for rows, vectors in store.blocks():
            table = pa.Table.from_pylist([describe(row) for row in rows], pa.schema(columns))
            flat = pa.array(np.ascontiguousarray(vectors).ravel())
            embedding = pa.FixedSizeListArray.from_arrays(flat, dim)
            writer.write_table(table.append_column(schema.field("embedding"), embedding))
            written += len(rows)
    temporary.replace(output)
    return written


def _write_npy(store: Store, dim: int, output: Path, temporary: Path) -> int:
    count, written = store.count(), 0
    with temporary.open("wb") as vectors_file, _beside(temporary).open("w") as rows_file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (count, dim)}
        np.lib.format.write_array_header_1_0(vectors_file, header)
        for rows, vectors in store.blocks():
            vectors_file.write(np.ascontiguousarray(vectors, "<f4").tobytes())
            rows_file.writelines(json.dumps(describe(row)) + "\n" for row in rows)
            written += len(rows)
    if written != count:
        raise OutputError("the index changed meanwhile", where=output, remedy="run it again")
    temporary.replace(output)
    _beside(temporary).replace(_beside(output))
    return written


def _beside(path: Path) -> Path:
    return path.with_suffix(".rows.jsonl")
