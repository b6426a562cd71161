"""How time grows with size."""

import gc
import time
from collections.abc import Callable


def growth(work: Callable[[int], object], size: int) -> float:
    """How many times longer `work` takes for four times the size: 4 where it is linear, 16 where it
    grows with the square. The size is doubled until the work takes 20 ms of the processor, or is a
    million. What looks worse than linear is measured again: other programs empty caches."""
    work(1)
    while _seconds(work, size) < 0.02 and size < 2**20:
        size *= 2
    ratios: list[float] = []
    while not ratios or (min(ratios) > 6 and len(ratios) < 3):
        once, four = (min(_seconds(work, n) for _ in range(3)) for n in (size, 4 * size))
        ratios.append(four / once)
    return min(ratios)


def _seconds(work: Callable[[int], object], size: int) -> float:
    gc.disable()  # as timeit does: it walks what other tests left
    try:
        start = time.process_time()
        work(size)
        return time.process_time() - start
    finally:
        gc.enable()
