"""Write vectors: .npy, or with the rows of their texts .jsonl or stdout."""

import base64
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from mlx_stella.cli.texts import Record
from mlx_stella.errors import InputError, kept_if_interrupted
from mlx_stella.files import output

if TYPE_CHECKING:
    import numpy as np

    Block = np.ndarray | memoryview[float]
    """Vectors (n, dim) float32: computed here, or as a server sent them."""


def check_output(path: Path | None, source: str | None, overwrite: bool) -> None:
    """Refuse a file that could not be written later, or is the input, before any work is done.

    Raises:
        InputError: the ending is unknown, or as :func:`output.check`.
    """
    if path is None:
        if sys.stdout is None:
            raise InputError("stdout is closed", remedy="open it, or name a file with --output")
        return
    if path.suffix not in (".npy", ".jsonl"):
        raise InputError(
            "output is .npy, .jsonl or a folder",
            where=path,
            remedy="change the ending, to / for a folder",
        )
    try:
        if source is not None and path.exists() and path.samefile(source):
            raise InputError("is the input, too", where=path, remedy="another name for the output")
    except OSError as error:
        raise InputError(error.strerror, where=path, remedy="another name") from None
    output.check(path, overwrite=overwrite)


def write_vectors(
    path: Path | None,
    records: Sequence[Record],
    blocks: Iterable["Block"],
    dim: int,
    overwrite: bool,
) -> None:
    """Write blocks of vectors (n, dim) float32 to a file by its ending, or as lines to stdout.

    Lines on stdout come block by block; a file is put in place when all of it is written.

    Raises:
        OutputError: the disk is full, say; then nothing is left behind.
    """
    lines = _lines(records, blocks)
    if path is None:
        for block in lines:
            sys.stdout.writelines(block)
            sys.stdout.flush()
        return
    with (
        kept_if_interrupted(f"{path} is as it was before"),
        output.writing(path, overwrite=overwrite) as (file,),
    ):
        if path.suffix == ".npy":
            from mlx_stella.files import npy

            npy.begin(file, len(records), dim)
            for vectors in blocks:
                npy.add(file, vectors)
        else:
            for block in lines:
                file.writelines(line.encode() for line in block)


def _lines(records: Iterable[Record], blocks: Iterable["Block"]) -> Iterator[Iterator[str]]:
    """A line a vector: the object its text came in, and the vector as "embedding"."""
    record = iter(records)
    for block in blocks:
        vectors: Any = block.tolist()
        yield (_line(next(record), vector) for vector in vectors)


def _line(record: Record, vector: list[float]) -> str:
    fields = {k: _plain(v) for k, v in record.fields.items() if k != "embedding"}
    start = json.dumps(fields)[:-1] + (", " if fields else "")
    numbers = ", ".join(f"{number:.9g}" for number in vector)  # nine digits: a float32
    return f'{start}"embedding": [{numbers}]}}\n'


def _plain(value: Any) -> Any:
    """A value of a row as JSON has it.

    Dates and times are ISO 8601, durations seconds, decimals their digits, bytes base64; what is
    no number (NaN) or infinite is null.
    """
    match value:
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case float():
            return value if math.isfinite(value) else None
        case bytes():
            return base64.b64encode(value).decode()
        case date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal() | UUID():
            return str(value)
    return value
