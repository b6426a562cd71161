"""The one thread that owns MLX: it loads models, computes batches and frees what is not needed.

Whenever it is free it takes the next batch from the backlog. Whoever waits for a request does so
in an event loop, which is told of all requests that a batch has finished at once.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from mlx_stella.encoding import pipeline
from mlx_stella.encoding.batching import plan
from mlx_stella.encoding.encoder import Encoder
from mlx_stella.encoding.prepared import Prepared
from mlx_stella.encoding.settings import Settings
from mlx_stella.errors import StellaError, VectorError
from mlx_stella.server.backlog import Backlog, BacklogFullError, Waiting
from mlx_stella.server.call_thread import Ended, called, settle
from mlx_stella.server.metrics import Metrics

T = TypeVar("T")

MOST_TOKENS = 4_000_000
MOST_BYTES = 1_000_000_000
"""What may wait: minutes of work. A client that is refused loses what it was about to store."""

_MOST_WAIT_MS = 120_000
_PATIENCE_S = 10.0


class StoppingError(StellaError):
    """The server is about to end."""


class GoneError(StellaError):
    """The client did not wait for its answer."""


@dataclass(eq=False, kw_only=True)
class Job(Waiting):
    """A request on its way through the model.

    Attributes:
        vectors: width -> (N, width) float32; rows are filled as batches are done.
        done: has this job, or the error it met.
        started: when its first batch began, and ``finished``, by ``time.perf_counter``.
    """

    encoder: Encoder
    settings: Settings
    prepared: Prepared
    done: "asyncio.Future[Job]"
    vectors: dict[int, np.ndarray] = field(init=False)
    left: int = field(init=False)
    arrived: float = field(default_factory=time.perf_counter)
    started: float = 0.0
    finished: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.left = len(self.lengths)
        widths = self.settings.widths
        self.vectors = {width: np.empty((self.left, width), np.float32) for width in widths}


_Done = list[Ended]


class Worker:
    """The thread, and the way in for the event loop that started it."""

    def __init__(
        self,
        metrics: Metrics,
        most_tokens: int = MOST_TOKENS,
        most_bytes: int = MOST_BYTES,
    ):
        self._metrics = metrics
        self._backlog: Backlog[Job] = Backlog(most_tokens, most_bytes)
        self._calls: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._tokens_per_second = 0.0

    @property
    def is_alive(self) -> bool:
        """Whether it still works."""
        return self._thread.is_alive() and not self._is_stopping

    def start(self) -> None:
        """Start the thread; called in the event loop that is to be told of results."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """End, once all that waits is computed; a model that is still loaded, or even downloaded,
        is not waited for any longer than that.
        """
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, _PATIENCE_S)

    async def call(self, function: Callable[[], T]) -> T:
        """Have the thread call a function between two batches, before all that waits."""
        future: asyncio.Future[T] = self._loop.create_future()
        with self._changed:
            self._refuse_if_stopping()
            self._calls.append((function, future))
            self._changed.notify()
        return await future

    def submit(self, job: Job) -> None:
        """Let a job wait for the model; its future tells the end.

        Raises:
            BacklogFullError: there is no room, with the time after which there will be some.
            StoppingError: the server is about to end.
        """
        with self._changed:
            self._refuse_if_stopping()
            try:
                self._backlog.add(job)
            except BacklogFullError as error:
                self._metrics.rejected.labels("backlog_full").inc()
                waiting_ms = 1000 * self._backlog.tokens / max(self._tokens_per_second, 1.0)
                error.retry_after_ms = int(min(max(waiting_ms / 2, 1000), _MOST_WAIT_MS))
                raise
            self._metrics.queue_tokens.set(self._backlog.tokens)
            self._changed.notify()

    def drop(self, job: Job) -> None:
        """Forget a job that nobody waits for any more."""
        with self._changed:
            self._backlog.drop(job)
            self._metrics.queue_tokens.set(self._backlog.tokens)

    def _refuse_if_stopping(self) -> None:
        if self._is_stopping:
            raise StoppingError("the server is about to end", remedy="try again later")

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._calls or self._backlog or self._is_stopping):
                    self._changed.wait()
                call = self._calls.popleft() if self._calls else None
                taken = [] if call else self._backlog.take(pipeline.width())
                self._metrics.queue_tokens.set(self._backlog.tokens)
            if call:
                self._tell([called(*call)])
            elif taken:
                self._tell(self._compute(taken))
            else:
                return
            del call, taken  # what they hold may be freed while this waits

    def _compute(self, taken: list[tuple[Job, list[int]]]) -> _Done:
        """Compute rows of jobs; what is done, or has failed, to be told."""
        start = time.perf_counter()
        for job, _ in taken:
            job.started = job.started or start
        ended: _Done = []
        while taken:
            try:
                found = _run(taken)
            except VectorError as error:  # one text's: its job fails, the others are computed
                failed, row = _row_of(taken, error.row or 0)
                fault = VectorError(error.fault, row=row, remedy=error.remedy)
                ended.append(self._failed(failed, fault))
                taken = [(job, rows) for job, rows in taken if job is not failed]
            except BaseException as error:
                return [*ended, *(self._failed(job, error) for job, _ in taken)]
            else:
                now = time.perf_counter()
                self._measure(taken, now - start)
                ended += _hand_out(taken, found, now)
                break
        return ended

    def _failed(self, job: Job, error: BaseException) -> Ended:
        with self._changed:
            self._backlog.drop(job)
        return job.done, None, error

    def _measure(self, taken: list[tuple[Job, list[int]]], seconds: float) -> None:
        lengths = [job.lengths[row] for job, rows in taken for row in rows]
        tokens, metrics = sum(lengths), self._metrics
        batches = plan(lengths, taken[0][0].budget)
        padded = sum(lengths[batch[0]] * len(batch) for batch in batches)
        metrics.batch_texts.observe(len(lengths))
        metrics.batch_tokens.observe(tokens)
        metrics.padding_tokens.inc(padded - tokens)
        metrics.forward_seconds.observe(seconds)
        speed = tokens / max(seconds, 1e-6)
        self._tokens_per_second += (speed - self._tokens_per_second) * 0.1

    def _tell(self, ended: _Done) -> None:
        if ended:
            with contextlib.suppress(RuntimeError):  # the loop is closed, nobody waits
                self._loop.call_soon_threadsafe(settle, ended)


def _run(taken: Sequence[tuple[Job, list[int]]]) -> dict[int, np.ndarray]:
    """The vectors of all rows in one pass, for each size that one of the jobs wants."""
    first = taken[0][0]
    ids = [job.prepared.ids[row] for job, rows in taken for row in rows]
    lengths = [job.lengths[row] for job, rows in taken for row in rows]
    sizes = tuple(sorted({size for job, _ in taken for size in job.settings.sizes}))
    joined = Prepared(ids, lengths, first.prepared.masked)
    return first.encoder.run(joined, replace(first.settings, sizes=sizes))


def _hand_out(
    taken: Sequence[tuple[Job, list[int]]], found: dict[int, np.ndarray], now: float
) -> _Done:
    start = 0
    ended: _Done = []
    for job, rows in taken:
        end = start + len(rows)
        for width, vectors in job.vectors.items():
            vectors[rows] = found[width][start:end]
        start = end
        job.left -= len(rows)
        if not job.left:
            job.finished = now
            ended.append((job.done, job, None))
    return ended


def _row_of(taken: Sequence[tuple[Job, list[int]]], position: int) -> tuple[Job, int]:
    """Whose row stands at a position of what was run together."""
    for job, rows in taken:
        if position < len(rows):
            return job, rows[position]
        position -= len(rows)
    raise IndexError(position)
