"""Connections of clients that take their time, against uvicorn itself."""

import asyncio
import time

import pytest

pytest.importorskip("uvicorn")

import uvicorn

from mlx_stella.server import connections

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


async def app(scope, receive, send):
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
    )
    await send({"type": "http.response.body", "body": b""})


async def talk(port: int, *parts: bytes) -> tuple[bytes, float]:
    """All that comes back, and the seconds after which the connection was closed.

    A part of no bytes is a while in which nothing is sent.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    start = time.perf_counter()
    found = b""
    for part in parts:
        writer.write(part)
        await asyncio.sleep(0.02 if part else 0.6)
    try:
        found = await asyncio.wait_for(reader.read(), 5)
    except ConnectionError:  # it was still being written to
        pass
    finally:
        writer.close()
    return found, time.perf_counter() - start


async def with_server(*clients: tuple[bytes, ...]) -> list[tuple[bytes, float]]:
    config = uvicorn.Config(
        app,
        port=0,
        http=connections.Connection,
        lifespan="off",
        log_level="error",
        timeout_keep_alive=1,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        return await asyncio.gather(*(talk(port, *parts) for parts in clients))
    finally:
        server.should_exit = True
        await task


def test_a_connection_that_says_nothing_or_says_it_slowly_ends(monkeypatch):
    monkeypatch.setattr(connections, "HEADER_TIMEOUT_S", 0.3)
    monkeypatch.setattr(connections, "MAX_HEADER_BYTES", 1000)
    silent, late, slow, second, endless, whole = asyncio.run(
        with_server(
            (),
            (b"", REQUEST + b"Connection: close\r\n\r\n"),  # a pool opens it before it is needed
            (REQUEST, b"x: y\r\n", b"z: "),
            (REQUEST + b"\r\n", REQUEST),  # a second request on the same connection
            (REQUEST, *[b"x: " + b"a" * 400 + b"\r\n"] * 8),
            (REQUEST + b"Connection: close\r\n\r\n",),
        )
    )
    assert silent[0] == slow[0] == endless[0] == b""
    assert silent[1] > 0.6 and max(silent[1], slow[1], second[1], endless[1]) < 3
    assert [one[0].count(b"200 OK") for one in (late, second, whole)] == [1, 1, 1]
