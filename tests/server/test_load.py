"""A server process under more than it is made for: bodies without end, requests without number."""

import asyncio
import contextlib
import json
import select
import socket

import pytest

pytest.importorskip("uvicorn")

GIGABYTE, PIECE = 2**30, b"100000\r\n" + b" " * 2**20 + b"\r\n"
HEAD = "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def answer_to(port: int, head: str, piece: bytes, pieces: int) -> tuple[bytes, int]:
    """What comes back, and the bytes of the body that were sent by then."""
    with socket.create_connection(("127.0.0.1", port), 30) as channel:
        channel.sendall(head.encode())
        sent, answer = 0, b""
        with contextlib.suppress(ConnectionError):  # what it would not read, it cuts off
            for _ in range(pieces):
                if select.select([channel], [], [], 0)[0]:
                    break
                channel.sendall(piece)
                sent += len(piece)
        with contextlib.suppress(ConnectionError):
            while data := channel.recv(2**16):
                answer += data
        return answer, sent


def test_a_gigabyte_is_not_read(running):
    head = f"{HEAD}Content-Length: {GIGABYTE}\r\n\r\n"
    answer, sent = answer_to(running.port, head, b" ", 0)
    assert answer.startswith(b"HTTP/1.1 413") and b"remedy: fewer texts at once" in answer
    head = f"{HEAD}Transfer-Encoding: chunked\r\n\r\n"
    answer, sent = answer_to(running.port, head, PIECE, GIGABYTE // 2**20)
    assert 2**26 < sent < 2**28 and answer[:12] in (b"HTTP/1.1 413", b"")
    assert asyncio.run(answered(running, 1)) == 1


async def answered(running, count: int, connections: int = 16) -> int:
    """How many of so many tiny requests get a vector."""
    numbers = iter(range(count))

    async def ask() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=2**20)
        good = 0
        for number in numbers:
            body = json.dumps({"model": running.model, "input": f"{number}"}).encode()
            writer.write(f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            answer = json.loads(await reader.readexactly(size))
            good += head.startswith(b"HTTP/1.1 200") and len(answer["data"][0]["embedding"]) > 0
        writer.close()
        return good

    return sum(await asyncio.gather(*(ask() for _ in range(connections))))


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_tiny_requests_are_all_answered(running, count):
    assert asyncio.run(answered(running, count)) == count
