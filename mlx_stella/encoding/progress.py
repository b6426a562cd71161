"""How far an embedding run is."""

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """What a progress callback is told.

    Attributes:
        texts: embedded so far, out of ``total`` (None where it is not known).
        tokens: of these texts, without padding; ``seconds``: since the start.
        cut: texts that were longer than the limit.
    """

    texts: int
    total: int | None
    tokens: int
    seconds: float
    cut: int = 0

    @property
    def texts_per_second(self) -> float:
        return self.texts / max(self.seconds, 1e-9)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / max(self.seconds, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """What the rest takes at this speed; None where that is not known."""
        if self.total is None or not self.texts:
            return None
        return self.seconds * (self.total - self.texts) / self.texts


class Reporter:
    """Counts what is done and tells the caller.

    Attributes:
        texts, tokens: embedded so far.
        cut: texts that were longer than the limit.
    """

    def __init__(self, callback: Callable[[Progress], None] | None, total: int | None):
        self._callback, self._total = callback, total
        self._start = time.perf_counter()
        self.texts = self.tokens = self.cut = 0

    def add(self, texts: int, tokens: int) -> None:
        self.texts += texts
        self.tokens += tokens
        if self._callback is not None:
            seconds = time.perf_counter() - self._start
            self._callback(Progress(self.texts, self._total, self.tokens, seconds, self.cut))
