"""Keep the device busy: prepare the next batch while one is computed, read results back late.

A GPU takes batches one after another on its own. MLX's CPU backend runs one operation at a time
on a stream, and only matrix products use more than one core, so there several batches run side by
side, each on a stream of its own with its share of BLAS threads. They are evaluated together:
MLX hands out operations in the order of the whole graph, and a batch submitted alone would be
nearly done before the next one started.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import mlx.core as mx
import numpy as np

from mlx_stella.machine import blas, process_end
from mlx_stella.models import cpu

T = TypeVar("T")
U = TypeVar("U")

_CORES = os.cpu_count() or 1
_MOST_STREAMS = 8  # two were measured; more are expected to be short of memory bandwidth

_device = threading.RLock()
"""Held while batches are computed: streams and the number of BLAS threads are the process's.

A thread may take it twice, since whoever is told of the progress may embed something, too.
"""


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

    with _device, process_end.awaited():
        streams = _streams(mx.default_device().type, width())
        try:
            for start in range(0, len(batches), len(streams)):
                process_end.stop_if_ending()
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
