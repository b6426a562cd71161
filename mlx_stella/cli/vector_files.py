"""Write vectors: .npy, .jsonl or stdout. A file appears whole or not at all."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from mlx_stella.cli.texts import Record
from mlx_stella.errors import InputError, OutputError

if TYPE_CHECKING:
    import numpy as np


def check_output(path: Path | None, source: str | None) -> None:
    """Refuse a file that could not be written later, or is the input, before any work is done.

    Raises:
        InputError: the ending is unknown, the folder is missing or not writable, and so on.
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
        if not path.parent.is_dir():
            raise InputError(f"{path.parent} is no folder", where=path, remedy="create it")
        if source is not None and path.exists() and path.samefile(source):
            raise InputError("is the input, too", where=path, remedy="another name for the output")
    except OSError as error:
        raise InputError(error.strerror, where=path, remedy="another name") from None
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path.parent} cannot be written to", where=path, remedy="another place")


def write_vectors(
    path: Path | None, records: Sequence[Record], blocks: Iterable["np.ndarray"], dim: int
) -> None:
    """Write blocks of vectors (n, dim) float32 to a file by its ending, or as lines to stdout.

    Lines on stdout come block by block; a file is put in place when all of it is written.

    Raises:
        OutputError: the disk is full, say; then nothing is left behind.
    """
    if path is None:
        _write_lines(sys.stdout, records, blocks)
        return
    target = Path(os.path.realpath(path))  # a link keeps pointing to the file
    temporary = target.with_name(f".mlx-stella-{os.getpid()}.part")
    try:
        if path.suffix == ".npy":
            import numpy as np

            vectors = np.concatenate([np.empty((0, dim), np.float32), *blocks])
            with temporary.open("wb") as file:
                np.save(file, vectors)
        else:
            with temporary.open("w", encoding="utf-8") as file:
                _write_lines(file, records, blocks)
        temporary.replace(target)
    except OSError as error:
        raise OutputError(
            f"could not be written ({error.strerror or error})",
            where=path,
            remedy="free some space or choose another place",
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def _write_lines(file: TextIO, records: Iterable[Record], blocks: Iterable["np.ndarray"]) -> None:
    """A line a vector: the object its text came in, and the vector as "embedding"."""
    record = iter(records)
    for block in blocks:
        for vector in block.tolist():
            fields = {k: v for k, v in next(record).fields.items() if k != "embedding"}
            start = json.dumps(fields)[:-1] + (", " if fields else "")
            numbers = ", ".join(f"{number:.9g}" for number in vector)  # nine digits: a float32
            file.write(f'{start}"embedding": [{numbers}]}}\n')
        file.flush()
