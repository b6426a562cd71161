"""How time grows with size."""

import gc
import time
from collections.abc import Callable
from math import ceil


def growth(work: Callable[[int], object], size: int) -> float:
    """How many times longer `work` takes for four times the size: 4 where it is linear, 16 where it
    grows with the square. What is done in less than 20 ms of the processor is done several times,
    at the same size: larger ones would show how large the caches are. What looks worse than linear
    is measured again, up to nine times, as other programs empty caches, too."""
    work(1)
    times = ceil(0.02 / max(_seconds(work, size, 1), 1e-5))
    ratios: list[float] = []
    while not ratios or (min(ratios) > 6 and len(ratios) < 9):
        if len(ratios) % 3 == 0:
            once = min(_seconds(work, size, times) for _ in range(3))
        ratios.append(_seconds(work, 4 * size, times) / once)
    return min(ratios)


def _seconds(work: Callable[[int], object], size: int, times: int) -> float:
    gc.disable()  # as timeit does: it walks what other tests left
    try:
        start = time.process_time()
        for _ in range(times):
            work(size)
        return time.process_time() - start
    finally:
        gc.enable()
