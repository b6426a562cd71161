"""Write vectors: .npy, .jsonl or stdout. A file appears whole or not at all."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from mlx_stella.errors import InputError, OutputError

if TYPE_CHECKING:
    import numpy as np


def check_output(path: Path | None) -> None:
    """Refuse a file that could not be written later, before any work is done.

    Raises:
        InputError: the ending is unknown, or the folder is missing or not writable.
    """
    if path is None:
        return
    if path.suffix not in (".npy", ".jsonl"):
        raise InputError(f"{path}: output is .npy or .jsonl; remedy: change the ending")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; remedy: create it")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"{path}: cannot be written; remedy: choose another place")


def write_vectors(path: Path | None, texts: Sequence[str], vectors: "np.ndarray") -> None:
    """Write vectors (N, dim) float32 to a file by its ending, or as JSON Lines to stdout.

    Raises:
        OutputError: the disk is full, say; then nothing is left behind.
    """
    if path is None:
        _write_lines(sys.stdout, texts, vectors)
        sys.stdout.flush()
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if path.suffix == ".npy":
            import numpy as np

            with temporary.open("wb") as file:
                np.save(file, vectors)
        else:
            with temporary.open("w", encoding="utf-8") as file:
                _write_lines(file, texts, vectors)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path}: could not be written ({error.strerror or error}); remedy: free some space "
            "or choose another place"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def _write_lines(file: TextIO, texts: Sequence[str], vectors: "np.ndarray") -> None:
    for text, vector in zip(texts, vectors.tolist(), strict=True):
        numbers = ", ".join(f"{number:.9g}" for number in vector)  # nine digits keep a float32
        file.write(f'{{"text": {json.dumps(text)}, "embedding": [{numbers}]}}\n')
