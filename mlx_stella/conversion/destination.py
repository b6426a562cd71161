"""A folder that appears whole or not at all.

It is written beside its place under a hidden name, with a file in it that says so and that no
loader passes; the last steps are a rename and the removal of that file. So at whatever moment a
conversion is killed, nothing that loads is left of it, and the next one clears it away.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mlx_stella.checkpoint.hub import UNFINISHED
from mlx_stella.errors import InputError, OutputError

PROOF = "conversion.json"


def check(output: Path, source: Path, overwrite: bool) -> None:
    """Refuse a folder that could not be written later, before any work is done.

    Raises:
        InputError: it exists, lies in no folder, is the source, and so on.
    """
    if source.resolve().is_relative_to(output.resolve()):
        raise InputError("holds the source itself", where=output, remedy="another name")
    if not output.parent.is_dir():
        raise InputError(f"{output.parent} is no folder", where=output, remedy="create it")
    if not os.access(output.parent, os.W_OK):
        raise InputError(
            f"{output.parent} cannot be written to", where=output, remedy="another place"
        )
    if not output.exists() or (output / UNFINISHED).exists():
        return
    if not overwrite:
        raise InputError("exists", where=output, remedy="another name, or --overwrite")
    if not (output / PROOF).exists():
        raise InputError(
            f"holds no conversion ({PROOF}) that could be replaced",
            where=output,
            remedy="another name",
        )


def check_space(output: Path, needed_bytes: int) -> None:
    """Raises OutputError if the disk has less room than that."""
    free = shutil.disk_usage(output.parent).free
    if free < needed_bytes:
        raise OutputError(
            f"needs {needed_bytes / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free",
            where=output,
            remedy="free some space or choose another place",
        )


@contextmanager
def unfinished(output: Path) -> Iterator[Path]:
    """A folder to write into, which becomes ``output`` when all went well, and else vanishes.

    Raises:
        InputError: another process writes the same output.
        OutputError: the disk is full, say; then nothing is left behind.
    """
    output = Path(os.path.abspath(output))
    folder = output.with_name(f".{output.name}.unfinished")
    folder.mkdir(exist_ok=True)
    with (folder / UNFINISHED).open("a") as marker:
        try:
            fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process
        except OSError:
            raise InputError("is being written by another process", where=output) from None
        try:
            _clear(folder)
            yield folder
            _put_in_place(folder, output)
        except OSError as error:
            raise OutputError(
                f"could not be written ({error.strerror or error})",
                where=output,
                remedy="free some space or choose another place",
            ) from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _clear(folder: Path) -> None:
    """Remove what an interrupted conversion left."""
    for entry in folder.iterdir():
        if entry.name != UNFINISHED:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _put_in_place(folder: Path, output: Path) -> None:
    replaced = output.with_name(f".{output.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    with suppress(FileNotFoundError):
        output.rename(replaced)
    folder.rename(output)
    (output / UNFINISHED).unlink()
    shutil.rmtree(replaced, ignore_errors=True)
