"""Files that appear whole or not at all.

A file is written beside its place, under a hidden name of its own that tells the file and the
process, and is renamed when all of it is on the disk. Whatever had the name before stays until
then. A process that is killed leaves the hidden file, which nobody reads: the folders that this
package keeps clear them away (:func:`clear_leftovers`), elsewhere they may be deleted by hand.
"""

import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from mlx_stella.errors import OutputError

_LEFTOVER = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.unfinished")


@contextmanager
def whole(*paths: Path) -> Iterator[tuple[BinaryIO, ...]]:
    """Files to write, which are put in place together, in their order, if nothing is raised.

    A file that is replaced keeps its mode. A link is refused: it leads to a file that nobody named.
    A loss of power leaves no empty file, as each is on the disk before it gets its name.

    Args:
        paths: of the files, in folders that exist.

    Raises:
        OutputError: one is a link or cannot be written; nothing of any is left behind.
    """
    for path in paths:
        if os.path.islink(path):
            raise OutputError("is a link", where=path, remedy="remove it, and run it again")
    temporaries: list[Path] = []
    try:
        with ExitStack() as stack:
            files = []
            for path in paths:
                temporary = _beside(path)
                files.append(stack.enter_context(temporary.open("xb")))
                temporaries.append(temporary)
            yield tuple(files)
            for file, path in zip(files, paths, strict=True):
                with suppress(FileNotFoundError):
                    os.fchmod(file.fileno(), stat.S_IMODE(path.lstat().st_mode))
                file.flush()
                os.fsync(file.fileno())
        for temporary, path in zip(temporaries, paths, strict=True):
            temporary.replace(path)
    except OSError as error:
        raise unwritable(error, paths[0]) from None
    finally:
        for temporary in temporaries:
            with suppress(OSError):  # it is in place, or the folder is gone
                temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a file of UTF-8. Raises as :func:`whole`."""
    with whole(path) as (file,):
        file.write(text.encode())


def unwritable(error: OSError, where: object) -> OutputError:
    """What a failed write is told as."""
    return OutputError(
        f"could not be written ({error.strerror or error})",
        where=where,
        remedy="free some space or choose another place, and run it again",
    )


def clear_leftovers(folder: Path) -> None:
    """Remove what killed processes left in a folder that holds nothing but this package's files.

    The caller holds its lock, so nobody is writing there.
    """
    for path in folder.iterdir():
        if _LEFTOVER.fullmatch(path.name):
            path.unlink()


def _beside(path: Path) -> Path:
    """A name that no file has, and no longer than names may be."""
    token = f"{os.getpid()}-{secrets.token_hex(4)}"
    return path.with_name(f".{path.name[:40]}.{token}.unfinished")
