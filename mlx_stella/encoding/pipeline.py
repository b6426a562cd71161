"""Keep the device busy: prepare the next batch while one is computed, read results back late.

A GPU takes batches one after another on its own. MLX's CPU backend runs one operation at a time
on a stream, and only matrix products use more than one core, so there several batches run side by
side, each on a stream of its own with its share of BLAS threads. They are evaluated together:
MLX hands out operations in the order of the whole graph, and a batch submitted alone would be
nearly done before the next one started.

MLX's threads belong to the process that started them. A child of it has none, and would wait for
them for ever; at the end of the process they must not be in the middle of a batch.
"""

import atexit
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import mlx.core as mx
import numpy as np

from mlx_stella.errors import StellaError
from mlx_stella.machine import blas
from mlx_stella.models import cpu

T = TypeVar("T")
U = TypeVar("U")

_CORES = os.cpu_count() or 1
_MOST_STREAMS = 8  # two were measured; more are expected to be short of memory bandwidth

_device = threading.RLock()
"""Held while batches are computed: streams and the number of BLAS threads are the process's.

A thread may take it twice, since whoever is told of the progress may embed something, too.
"""

_PATIENCE_S = 10.0
"""How long the end of the process waits for a batch of a daemon thread."""

_process: int | None = None
_is_ending = False


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


def _end() -> None:
    """Wait until no thread is in the middle of a batch: Python ends daemon threads where they are,
    and one that is ended in MLX takes the process with it."""
    global _is_ending
    if _process == os.getpid():
        _is_ending = True
        _device.acquire(timeout=_PATIENCE_S)


def run(
    batches: Sequence[T],
    forward: Callable[[T], Sequence[mx.array]],
    take: Callable[[T, list[np.ndarray]], None],
) -> None:
    """Evaluate ``forward(batch)`` for each batch and pass (batch, arrays) on, in order.

    One group of batches is computed while the one before it is read back. Other threads that call
    this wait for their turn. Nothing is in flight any more when it returns or raises.
    """
    in_flight: deque[tuple[Sequence[T], list[Sequence[mx.array]]]] = deque()

    def read() -> None:
        for batch, arrays in zip(*in_flight.popleft(), strict=True):
            take(batch, [np.array(array) for array in arrays])

    with _device:
        streams = _streams(mx.default_device().type, width())
        try:
            for start in range(0, len(batches), len(streams)):
                if _is_ending and threading.current_thread().daemon:
                    raise SystemExit
                group = batches[start : start + len(streams)]
                if cpu.is_needed():
                    blas.set_threads(max(1, _CORES // len(group)))
                outputs = []
                for stream, batch in zip(streams, group, strict=False):
                    with mx.stream(stream):
                        outputs.append(forward(batch))
                mx.async_eval(outputs)
                in_flight.append((group, outputs))
                if len(in_flight) > 1:
                    read()
            while in_flight:
                read()
        except BaseException:
            for stream in streams:
                mx.synchronize(stream)
            raise


def width() -> int:
    """How many batches are computed side by side."""
    return min(_CORES, _MOST_STREAMS) if cpu.is_needed() else 1


@cache
def _streams(device: mx.DeviceType, count: int) -> Sequence[mx.Stream]:
    """What to build graphs on, made once a process and shared by its threads, one at a time.

    MLX's other streams belong to the thread that made them: what one thread has left lazy, no
    other could evaluate, and on a CPU each would leave a thread of its own behind.
    """
    return [mx.new_thread_unsafe_stream(device) for _ in range(count)]


def ahead(function: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """``map(function, items)``, each result computed in a thread while the last one is used."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = None
        for item in items:
            try:
                following = pool.submit(function, item)
            except RuntimeError:  # the process ends
                if threading.current_thread().daemon:
                    raise SystemExit from None
                raise
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()
