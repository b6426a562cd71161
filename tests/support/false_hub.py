"""A server on this machine that answers as the Hub does, or as no Hub would."""

import gzip
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from pathlib import Path
from typing import ClassVar

TOKEN = "hf_secret"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FalseHub:
    """What it serves, what it was asked, and where it answers in its own way.

    ``ways`` maps a part of a path to a function of the handler that answers such requests.
    """

    directory: Path
    ways: dict[str, Callable[["Handler"], None]] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    address: str = ""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: ClassVar[FalseHub]

    def do_GET(self) -> None:
        self.hub.asked.append((self.command, self.path, self.headers.get("authorization")))
        for part, way in self.hub.ways.items():
            if part in f"{self.command} {self.path}":
                way(self)
                return
        self.serve()

    do_HEAD = do_GET

    def serve(self) -> None:
        """What the Hub answers."""
        path = self.path.partition("?")[0]
        if "/tree/" in path:
            files = [path for path in sorted(self.hub.directory.rglob("*")) if path.is_file()]
            entries = [
                {
                    "type": "file",
                    "path": file.relative_to(self.hub.directory).as_posix(),
                    "size": file.stat().st_size,
                    "oid": "1",
                }
                for file in files
            ]
            self.answer(json.dumps(entries).encode())
        elif path.startswith("/api/models/"):
            self.answer(json.dumps({"id": "o/n", "sha": COMMIT, "siblings": []}).encode())
        else:
            file = self.hub.directory / path.partition(f"/resolve/{COMMIT}/")[2]
            if file.is_file():
                self.answer(file.read_bytes(), kind="application/octet-stream")
            else:
                self.answer(b"", 404, **{"X-Error-Code": "EntryNotFound"})

    def answer(
        self, body: bytes, status: int = 200, kind: str = "application/json", **headers: str
    ) -> None:
        self.send_response(status)
        usual = {
            "Content-Length": str(len(body)),
            "Content-Type": kind,
            "ETag": f'"{sha1(body).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
        }
        for name, value in (usual | headers).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *arguments) -> None:
        pass


@contextmanager
def serving(directory: Path) -> Iterator[FalseHub]:
    """A false Hub that serves the files of a folder as the only repository it has."""
    hub = FalseHub(directory)
    handler = type("Bound", (Handler,), {"hub": hub})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield hub
    finally:
        hub.over.set()
        server.shutdown()
        server.server_close()


def body(content: bytes, status: int = 200, **headers: str) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(content, status, **headers)


def silence(handler: Handler) -> None:
    handler.hub.over.wait(30)
    handler.close_connection = True


def closed(handler: Handler) -> None:
    handler.close_connection = True


def broken_off(handler: Handler) -> None:
    """Half of what it announced."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.send_header("ETag", '"1"')
    handler.send_header("X-Repo-Commit", COMMIT)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(b"x" * 500)
    handler.close_connection = True


def garbage(handler: Handler) -> None:
    handler.wfile.write(b"\x00\x1b[2J no HTTP at all \xff\r\n\r\n")
    handler.close_connection = True


def endless(handler: Handler) -> None:
    """A body without a length that does not end, a little at a time."""
    handler.send_response(200)
    handler.end_headers()
    handler.close_connection = True
    while not handler.hub.over.wait(0.05):
        handler.wfile.write(b" " * 8)


def vast(handler: Handler) -> None:
    """A body without a length that does not end, as fast as it is read."""
    handler.send_response(200)
    handler.end_headers()
    handler.close_connection = True
    while not handler.hub.over.is_set():
        handler.wfile.write(b" " * 2**20)


def to(location: str) -> Callable[[Handler], None]:
    return lambda handler: handler.answer(b"", 302, Location=location)


def damaged_gzip(handler: Handler) -> None:
    content = gzip.compress(b'{"sha": "1"}' * 100)
    handler.answer(content[:30] + b"\0" * 20, **{"Content-Encoding": "gzip"})
