"""A running server of this user, asked over its Unix socket. Needs nothing but Python.

The command line comes here before it loads a model: a question's way through a server takes some
milliseconds, its own start some seconds. Only a socket that this user owns, and nobody else may
use, is believed; and what comes over it is checked, since another version may be behind it.
"""

import base64
import binascii
import contextlib
import hashlib
import http.client
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_stella.machine.runtime import socket_path

PATIENCE_S = 2.0
"""For what a server knows without its model; one that is stopped or hangs is left after that."""

WORK_S = 30.0
"""For what its model has to do, behind others and perhaps after loading."""

MOST_BYTES = 2**28
"""Of an answer."""


class ServerFault(Exception):
    """The server gave no answer that is of use; the text says why, for people."""

    def __init__(self, fault: str, status: int = 0):
        super().__init__(fault)
        self.status = status


@dataclass(frozen=True)
class Passage:
    """A passage that was found, with the names and the meanings of :class:`mlx_stella.Hit`."""

    score: float
    root: str
    file: str
    lines: tuple[int, int]
    heading: str
    record: str
    text: str


@dataclass(frozen=True)
class Answer:
    """The JSON of an answer, and how many of the texts were cut, which a header tells."""

    content: Mapping[str, Any]
    cut: int


def uri_hash(uri: str) -> str:
    """By this a client and a server know that they mean one index, though neither tells its path.

    Args:
        uri: as the user gave it; a folder is followed to where it lies.
    """
    canonical = uri.rstrip("/") if "://" in uri else os.path.realpath(uri)
    return hashlib.blake2b(os.fsencode(canonical), digest_size=16).hexdigest()


def find() -> "RunningServer | None":
    """This user's server; None where none runs.

    Raises:
        ServerFault: there is a socket, which is not to be trusted.
    """
    try:
        path = socket_path()
        link, folder = path.lstat(), path.parent.stat()
    except (OSError, RuntimeError):  # there is none, or this user has no home
        return None
    if not stat.S_ISSOCK(link.st_mode) or link.st_uid != os.getuid():
        raise ServerFault("is no socket of yours")
    is_shared = folder.st_mode & 0o022 and not folder.st_mode & stat.S_ISVTX
    if link.st_mode & 0o077 or is_shared or folder.st_uid not in (os.getuid(), 0):
        raise ServerFault("can be used or replaced by others")
    server = RunningServer(path)
    return server if server.lives() else None


class RunningServer:
    """A server behind a Unix socket.

    Attributes:
        path: of the socket.
    """

    def __init__(self, path: Path):
        self.path = path

    def lives(self) -> bool:
        """Whether somebody listens; a server that was killed leaves its socket behind."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(PATIENCE_S)
            try:
                probe.connect(os.fspath(self.path))
            except OSError:
                return False
            return True

    def status(self) -> Mapping[str, Any]:
        """What it serves: /v1/index/status.

        Raises:
            ServerFault: as :meth:`ask`, or the answer is not understood.
        """
        return self.ask("GET", "/v1/index/status", None, PATIENCE_S).content

    def search(
        self, label: str, questions: Sequence[str], options: Mapping[str, Any]
    ) -> tuple[list[list[Passage]], int]:
        """The passages of an index that answer each question, best first: /v1/search.

        Returns:
            Them, and how many of the questions were too long and cut.

        Raises:
            ServerFault: as :meth:`ask`, or the answer is not understood.
        """
        request = {**options, "index": label, "query": list(questions)}
        answer = self.ask("POST", "/v1/search", request, WORK_S)
        results = _list(answer.content.get("results"))
        if len(results) != len(questions):
            raise ServerFault("answered other questions")
        hits = [[_passage(hit) for hit in _list(_mapping(r).get("hits"))] for r in results]
        return hits, answer.cut

    def embed(
        self, texts: Sequence[str], request: Mapping[str, Any]
    ) -> tuple["memoryview[float]", int]:
        """Vectors of texts: /v1/embeddings.

        Args:
            request: what stands in it beside the texts: model, dimensions, prompt and so on.

        Returns:
            (N, dim) float32, and how many of the texts were too long and cut.

        Raises:
            ServerFault: as :meth:`ask`, or the answer is not understood.
        """
        whole = {**request, "input": list(texts), "encoding_format": "base64"}
        answer = self.ask("POST", "/v1/embeddings", whole, WORK_S)
        rows = sorted(map(_mapping, _list(answer.content.get("data"))), key=_number)
        try:
            found = [base64.b64decode(row["embedding"], validate=True) for row in rows]
        except (KeyError, TypeError, ValueError, binascii.Error):
            raise ServerFault("gave vectors that are not understood") from None
        dim = len(found[0]) // 4 if found else 0
        if [_number(row) for row in rows] != list(range(len(texts))) or not dim:
            raise ServerFault("gave vectors of other texts")
        sizes = {len(row) for row in found}
        if sizes != {4 * (request.get("truncate_dim") or request.get("dimensions") or dim)}:
            raise ServerFault("gave vectors of other sizes")
        view = memoryview(b"".join(found))
        return view.cast("f", (len(texts), dim)), answer.cut

    def ask(self, method: str, path: str, request: object, patience: float) -> "Answer":
        """One request, one answer.

        Raises:
            ServerFault: there is none within ``patience`` seconds, it is none, or it is an error.
        """
        deadline = time.monotonic() + patience
        why, answer = "", b""
        try:
            with self._connection(patience) as connection:
                body = None if request is None else json.dumps(request).encode()
                headers = {"content-type": "application/json"} if body else {}
                connection.request(method, path, body, headers)
                response = connection.getresponse()
                answer = response.read(MOST_BYTES + 1)
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = str(error) or type(error).__name__
        if time.monotonic() >= deadline:
            why = f"not within {patience:g} s"
        if why:
            raise ServerFault(f"gave no answer ({why})")
        if response.status != 200:
            raise ServerFault(f"answered {response.status}", response.status)
        try:
            content = json.loads(answer) if len(answer) <= MOST_BYTES else None
            cut = int(response.getheader("x-truncated-inputs") or 0)
        except (ValueError, RecursionError):
            content, cut = None, 0
        return Answer(_mapping(content), cut)

    @contextlib.contextmanager
    def _connection(self, patience: float) -> Iterator[http.client.HTTPConnection]:
        """A connection that is cut when the time is up, however slowly bytes come."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.settimeout(patience)
            channel.connect(os.fspath(self.path))
            connection = http.client.HTTPConnection("localhost")
            connection.sock = channel
            late = threading.Timer(patience, _cut, (channel,))
            late.daemon = True
            late.start()
            try:
                yield connection
            finally:
                late.cancel()
                connection.close()


def _cut(channel: socket.socket) -> None:
    with contextlib.suppress(OSError):
        channel.shutdown(socket.SHUT_RDWR)


def _passage(found: object) -> Passage:
    fields = _mapping(found)
    try:
        first, last = fields["lines"]
        names = ("root", "file", "heading", "record", "text")
        root, file, heading, record, text = (fields[name] for name in names)
        score = fields["score"]
    except (KeyError, TypeError, ValueError):
        raise ServerFault("gave hits that are not understood") from None
    words = (root, file, heading, record, text)
    if not all(isinstance(word, str) for word in words) or type(score) is not float:
        raise ServerFault("gave hits that are not understood")
    if type(first) is not int or type(last) is not int:
        raise ServerFault("gave hits that are not understood")
    return Passage(score, root, file, (first, last), heading, record, text)


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ServerFault("gave an answer that is not understood")
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ServerFault("gave an answer that is not understood")
    return value


def _number(row: Mapping[str, Any]) -> int:
    number = row.get("index")
    if type(number) is not int:
        raise ServerFault("gave vectors that are not understood")
    return number
