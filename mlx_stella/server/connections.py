"""Connections that do not wait for ever: uvicorn's own has no limit to how long headers may take.

A client that opens connections and sends nothing, or a header a minute, would take all that the
system lets a process have; on macOS those are 256.
"""

import asyncio
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.auto import AutoHTTPProtocol

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as Protocol
else:
    Protocol = AutoHTTPProtocol

HEADER_TIMEOUT_S = 10.0
MAX_HEADER_BYTES = 64 * 2**10

_TOGETHER_BYTES = 64 * 2**10


class _Together:
    """A transport that sends what is written to it in one turn of the event loop at once.

    Head and body of an answer are written one by one: that were two calls of the system, and a
    client that is woken twice. All else is the transport's own.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop):
        self._transport, self._loop = transport, loop
        self._waiting: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if len(data) > _TOGETHER_BYTES:
            self._flush()
            self._transport.write(data)
            return
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._waiting:
            self._transport.write(b"".join(self._waiting))
            self._waiting.clear()


class Connection(Protocol):
    """A connection that ends where the headers of a request are late, or too long.

    Before the first byte of a request it may be idle: clients keep some open for what comes.
    """

    _deadline: asyncio.TimerHandle | None = None
    _header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, _Together(transport, self.loop)))
        self._end_in(self.timeout_keep_alive)  # between requests uvicorn sees to that

    def data_received(self, data: bytes) -> None:
        is_first = not self._header_bytes
        if self._awaits_headers():
            self._header_bytes += len(data)
        super().data_received(data)
        if not self._awaits_headers():
            self._end_in(None)
            self._header_bytes = 0
        elif self._header_bytes > MAX_HEADER_BYTES:
            self.transport.close()
        elif is_first:
            self._end_in(HEADER_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._end_in(None)

    def _awaits_headers(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _end_in(self, seconds: float | None) -> None:
        """End the connection after this time, if nothing sets another; None for no end."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._end)

    def _end(self) -> None:
        self.transport.close()
