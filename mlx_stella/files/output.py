"""Files that a user names to be written: what is there is replaced only where they say so.

The rule of every verb and script that writes a file. A file that is replaced keeps its mode; one
that is read-only, and a link, which leads to a file that was not named, are refused.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mlx_stella.errors import InputError
from mlx_stella.files import atomic


def check(*paths: Path, overwrite: bool) -> None:
    """Refuse files that could not be written later, or must not be, before any work is done.

    Raises:
        InputError: one exists, unless ``overwrite``; is a link or read-only; lies in no folder.
    """
    for path in paths:
        check_parent(path)
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            continue
        except OSError as error:
            raise InputError(error.strerror, where=path, remedy="another name") from None
        if stat.S_ISLNK(mode):
            raise InputError("is a link", where=path, remedy="name the file it points to")
        if not stat.S_ISREG(mode):
            raise InputError("is no file", where=path, remedy="another name")
        if not overwrite:
            raise InputError("exists", where=path, remedy="another name, or --overwrite")
        if not mode & 0o222 or not os.access(path, os.W_OK):
            raise InputError("is read-only", where=path, remedy="another name, or chmod +w")


def check_parent(path: Path) -> None:
    """Refuse what lies in no folder that can be written to.

    Raises:
        InputError: naming it.
    """
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is no folder", where=path, remedy="create it")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path.parent} cannot be written to", where=path, remedy="another place")


@contextmanager
def writing(*paths: Path, overwrite: bool) -> Iterator[tuple[BinaryIO, ...]]:
    """Files to write, which appear together, whole or not at all; see :func:`atomic.whole`.

    Raises:
        InputError: as :func:`check`, also where a file came while these were written.
        OutputError: one cannot be written; nothing of any is left behind.
    """
    check(*paths, overwrite=overwrite)
    with atomic.whole(*paths) as files:
        yield files
        check(*paths, overwrite=overwrite)
