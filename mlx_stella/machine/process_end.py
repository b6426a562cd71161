"""MLX and the life of a process: a forked child has no device, and an end waits for what runs.

MLX's threads belong to the process that started them. A child of it has none, and would wait for
them for ever. At the end of the process Python ends daemon threads where they next ask for its
lock. MLX asks for it in C++ that cannot be left there (a destructor that is noexcept): the process
would be aborted. So its end waits for them, and they stop at the next opportunity.
"""

import atexit
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mlx_stella.errors import StellaError

_PATIENCE_S = 10.0
"""How long the end waits."""

_process: int | None = None
_is_ending = False
_computing = 0
_changed = threading.Condition()
_last_steps: set[Callable[[], None]] = set()


def claim() -> None:
    """Make the device this process's, which is then the only one to use it.

    Raises:
        StellaError: it is that of a process from which this one was forked.
    """
    global _process
    if _process is None:
        _process = os.getpid()
        atexit.register(_end)
    if _process != os.getpid():
        raise StellaError(
            f"this process was forked after process {_process} had loaded a model, and MLX cannot "
            "compute in it",
            remedy='load after the fork only, or start processes by "spawn"',
        )


@contextmanager
def awaited() -> Iterator[None]:
    """Use MLX: the end of the process waits until this is left. Threads do so side by side.

    Raises:
        SystemExit: as :func:`stop_if_ending`.
    """
    global _computing
    with _changed:
        stop_if_ending()
        _computing += 1
    try:
        yield
    finally:
        with _changed:
            _computing -= 1
            _changed.notify_all()


def stop_if_ending() -> None:
    """To be called between steps of some seconds.

    Raises:
        SystemExit: the process ends, and this is a daemon thread, which nobody waits for.
    """
    if _is_ending and threading.current_thread().daemon:
        raise SystemExit


def before(step: Callable[[], None]) -> None:
    """Have a function called at the end of the process, once nothing computes any more."""
    _last_steps.add(step)


def _end() -> None:
    global _is_ending
    if _process == os.getpid():
        with _changed:
            _is_ending = True
            is_over = _changed.wait_for(lambda: not _computing, _PATIENCE_S)
        if is_over:
            for step in _last_steps:
                step()
