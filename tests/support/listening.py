"""A server in a thread of this process, on a Unix socket and on TCP; and requests to it."""

import contextlib
import http.client
import json
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from mlx_stella.server.app import create_app
from mlx_stella.server.embedding import Served


def short_folder() -> tempfile.TemporaryDirectory:
    """The name of a Unix socket has 104 bytes at most on macOS; pytest's folders are longer."""
    return tempfile.TemporaryDirectory(dir="/tmp", prefix="stella")


def listening(path: Path) -> socket.socket:
    """A socket that only its owner may use."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    channel.bind(str(path))
    path.chmod(0o600)
    channel.listen()
    return channel


@contextlib.contextmanager
def serving(served: Served, path: Path) -> Iterator[int]:
    """The port of a server that is ready, and listens on the path, too."""
    tcp = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(served), log_level="error"))
    sockets = [listening(path), tcp]
    thread = threading.Thread(target=server.run, kwargs={"sockets": sockets}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not (server.started and served.models.is_ready):
        assert thread.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    try:
        yield tcp.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(60)
        path.unlink(missing_ok=True)


def ask(port: int, method: str, path: str, request: object = None) -> tuple[int, dict, str]:
    """Status, JSON and the text of it, over TCP; a request is JSON, or bytes as they are."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = request if isinstance(request, bytes | None) else json.dumps(request).encode()
    connection.request(method, path, body, {"content-type": "application/json"})
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, json.loads(text), text
