"""A thread that an event loop hands work to, and hears from, once a turn.

Handing over one thing wakes a thread, and its result wakes the loop: of a short text that takes
more than tokenizing it. So what one turn of the loop asks for is handed over together.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

Ended = tuple["asyncio.Future[Any]", Any, BaseException | None]
"""Who waits; the result, or the error in its place."""


class CallThread:
    """One thread; calls are done in their order."""

    def __init__(self, name: str):
        self._pool = ThreadPoolExecutor(1, name)
        self._waiting: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []

    async def call(self, function: Callable[[], T]) -> T:
        """What the function returns, or raises, in the thread."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._hand_over, loop)
        self._waiting.append((function, future))
        return await future

    def stop(self) -> None:
        """End, once all calls are done."""
        self._pool.shutdown()

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        calls, self._waiting = self._waiting, []
        self._pool.submit(lambda: loop.call_soon_threadsafe(settle, [called(*c) for c in calls]))


def called(function: Callable[[], Any], future: "asyncio.Future[Any]") -> Ended:
    """How a call ends, to be told in the event loop."""
    try:
        return future, function(), None
    except BaseException as error:
        return future, None, error


def settle(ended: Sequence[Ended]) -> None:
    """In the event loop: tell those who still wait."""
    for future, result, error in ended:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
