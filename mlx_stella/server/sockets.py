"""What the server listens on: both loopback addresses, and a Unix socket for its user alone.

All are opened before a model is: of two servers that start at once, the second learns at once that
it is one too many.
"""

import contextlib
import errno
import http.client
import json
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mlx_stella.errors import InputError, StellaError
from mlx_stella.files import lock

_LOOPBACK = ("127.0.0.1", "::1")
_BACKLOG = 2048
_PATIENCE_S = 10.0
"""How long another process that holds the port may take to say what it is: it may be starting."""


class PortTakenError(StellaError):
    """Somebody else listens there.

    Attributes:
        is_ours: it is a server of this package's, and it is well.
    """

    def __init__(self, fault: str, *, is_ours: bool, where: str, remedy: str | None = None):
        super().__init__(fault, where=where, remedy=remedy)
        self.is_ours = is_ours


def listen(host: str, port: int) -> list[socket.socket]:
    """Listen at a host's addresses; for localhost at those of IPv4 and of IPv6, for some clients
    try the one first and some the other.

    Raises:
        PortTakenError: somebody else does.
        InputError: the host has no address here.
    """
    hosts = _LOOPBACK if host in ("localhost", *_LOOPBACK) else (host,)
    found: list[socket.socket] = []
    try:
        for name in hosts:
            for family, address in _addresses(name, port):
                if made := _bound(family, address, is_needed=not found):
                    found.append(made)
                    port = made.getsockname()[1]  # where any was asked for, the same for all
    except BaseException:
        for made in found:
            made.close()
        raise
    return found


@contextlib.contextmanager
def listening_at(path: Path) -> Iterator[socket.socket]:
    """Listen at a Unix socket that only its owner may use; the file goes when this ends.

    One that a killed server left behind is replaced.

    Raises:
        HeldError: another server listens there.
        InputError: no socket can be there.
    """
    path = path.absolute()
    with lock.writing(f"unix://{path}"):
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        old = os.umask(0o177)
        try:
            os.umask(0o077)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.umask(0o177)
            if path.is_socket():
                path.unlink()
            made.bind(str(path))
            made.listen(_BACKLOG)
        except OSError as error:
            made.close()
            why = error.strerror or error  # a path that is too long has no number
            raise InputError(f"no socket can be there ({why})", where=path) from None
        finally:
            os.umask(old)
        try:
            yield made
        finally:
            made.close()
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def health(host: str, port: int, timeout_s: float = _PATIENCE_S) -> dict[str, Any] | None:
    """What a server of ours answers at an address; None if there is none, or another one."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", "/health")
        answer = json.loads(connection.getresponse().read(65_536))
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    is_ours = isinstance(answer, dict) and answer.get("program") == "mlx-stella"
    return answer if is_ours else None


def urls(sockets: Sequence[socket.socket]) -> list[str]:
    """Where clients find them."""
    found = []
    for made in sockets:
        if made.family == socket.AF_UNIX:
            found.append(f"unix:{made.getsockname()}")
        else:
            host, port = made.getsockname()[:2]
            found.append(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    return found


def _addresses(host: str, port: int) -> list[tuple[int, Any]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise InputError(f"has no address ({error})", where=f"--host {host}") from None
    return list(dict.fromkeys((family, address) for family, *_, address in found))


def _bound(family: int, address: Any, *, is_needed: bool) -> socket.socket | None:
    """A socket that listens; None if this machine has no such address and can do without."""
    # asyncio sends small answers at once (TCP_NODELAY) only where the protocol is named, and
    # otherwise a kept-alive request waits 40 ms for the client's delayed acknowledgement.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
        made.listen(_BACKLOG)
        return made
    except OSError as error:
        made.close()
        host, port = address[:2]
        if error.errno == errno.EADDRINUSE:
            raise _taken(host, port) from None
        if is_needed:
            raise InputError(
                f"cannot listen there ({error.strerror})", where=f"{host} port {port}"
            ) from None
        return None


def _taken(host: str, port: int) -> PortTakenError:
    where = f"port {port}"
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    if health(reachable, port):
        return PortTakenError("a server of mlx-stella is there", where=where, is_ours=True)
    return PortTakenError(
        "another program listens there", where=where, is_ours=False, remedy="--port, another one"
    )
