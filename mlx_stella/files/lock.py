"""One writer at a time: a lock that the system lets go of when its holder dies."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from mlx_stella.errors import StoreError

NAME = ".lock"
"""Of the file in a folder that is written to."""


class HeldError(StoreError):
    """Another process holds the lock."""


@contextlib.contextmanager
def writing(uri: str, *, together: bool = False) -> Iterator[Callable[[], None]]:
    """Hold the lock of an index, a folder of parts or a conversion while writing to it.

    A folder holds its own lock; for an address elsewhere the lock is of this machine only.

    Args:
        together: hold it beside a process that shares it.

    Yields:
        A function that shares it from then on with those who ask for it ``together``.

    Raises:
        HeldError: another process holds it, which is named.
        StoreError: the folder is not writable.
    """
    if "://" in uri:
        name = hashlib.blake2b(uri.encode(), digest_size=8).hexdigest()
        path = Path(tempfile.gettempdir()) / f"mlx-stella-{os.getuid()}-{name}.lock"
    else:
        path = Path(uri) / NAME
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StoreError(
            f"cannot be written to ({error.strerror})", where=uri, remedy="another place"
        ) from None
    try:
        _take(descriptor, fcntl.LOCK_SH if together else fcntl.LOCK_EX, uri)
        if not together:
            holder = json.dumps({"process": os.getpid(), "machine": socket.gethostname()})
            with contextlib.suppress(OSError):  # the disk is full: the lock is held all the same
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, holder.encode(), 0)
        yield lambda: _take(descriptor, fcntl.LOCK_SH, uri)
    finally:
        os.close(descriptor)


def _take(descriptor: int, how: int, uri: str) -> None:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise StoreError(
                f"cannot be locked ({error.strerror})", where=uri, remedy="a local disk"
            ) from None
        raise HeldError(
            f"{_holder(descriptor)} is writing to it", where=uri, remedy="wait until it is done"
        ) from None


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {int(holder['process'])} on {holder['machine']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
