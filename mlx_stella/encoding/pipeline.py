"""Keep the device busy: prepare the next batch while one is computed, read results back late.

A GPU takes batches one after another on its own. MLX's CPU backend runs one operation at a time
on a stream, and only matrix products use more than one core, so there several batches run side by
side, each on a stream of its own with its share of BLAS threads. They are evaluated together:
MLX hands out operations in the order of the whole graph, and a batch submitted alone would be
nearly done before the next one started.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import islice
from typing import TypeVar

import mlx.core as mx
import numpy as np

from mlx_stella.machine import blas
from mlx_stella.models import cpu

T = TypeVar("T")
U = TypeVar("U")

_CORES = os.cpu_count() or 1
_MOST_STREAMS = 8  # two were measured; more are expected to be short of memory bandwidth


def run(
    batches: Iterable[T], forward: Callable[[T], Sequence[mx.array]]
) -> Iterator[tuple[T, list[np.ndarray]]]:
    """Evaluate ``forward(batch)`` for each batch; yields (batch, arrays) in order.

    One group of batches is computed while the one before it is read back.
    """
    batches = iter(batches)
    in_flight: deque = deque()
    streams = _streams()
    while group := list(islice(batches, len(streams))):
        if cpu.is_needed():
            blas.set_threads(max(1, _CORES // len(group)))
        outputs = []
        for stream, batch in zip(streams, group, strict=False):
            with mx.stream(stream):
                outputs.append(forward(batch))
        mx.async_eval(outputs)
        in_flight.append((group, outputs))
        if len(in_flight) > 1:
            yield from _read(*in_flight.popleft())
    while in_flight:
        yield from _read(*in_flight.popleft())


def width() -> int:
    """How many batches are computed side by side."""
    return len(_streams())


def _streams() -> Sequence:
    """What to build graphs on: streams of the CPU, or the device's one and only."""
    return _cpu_streams() if cpu.is_needed() else [mx.default_device()]


@cache
def _cpu_streams() -> Sequence:
    """Made once a process: MLX keeps a thread for each stream in each thread that uses it."""
    return [mx.new_thread_local_stream(mx.cpu) for _ in range(min(_CORES, _MOST_STREAMS))]


def _read(
    group: Sequence[T], outputs: Sequence[Sequence[mx.array]]
) -> Iterator[tuple[T, list[np.ndarray]]]:
    for batch, arrays in zip(group, outputs, strict=True):
        yield batch, [np.array(array) for array in arrays]


def ahead(function: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """``map(function, items)``, each result computed in a thread while the last one is used."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = None
        for item in items:
            following = pool.submit(function, item)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()
