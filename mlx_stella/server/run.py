"""The process of a server: uvicorn on sockets that are open already, until it is asked to end."""

import asyncio
import contextlib
import resource
import socket
from collections.abc import Callable, Sequence

import uvicorn
from starlette.types import ASGIApp

from mlx_stella.server.embedding import Served

GRACE_S = 30
"""How long what is in flight may take once the server is asked to end."""

_IDLE_S = 75
"""A client's idle connection is kept for so long, which is longer than clients keep theirs."""

_MOST_FILES = 8192


def run(
    app: ASGIApp,
    served: Served,
    sockets: Sequence[socket.socket],
    *,
    protocol: type[asyncio.Protocol] | None = None,
    tell: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGINT, or SIGTERM, which is handed on; what is in flight by then is answered.

    Args:
        protocol: how a connection is read; uvicorn's own by default.
        tell: called once the first model is loaded.

    Raises:
        StellaError: the first model cannot be loaded.
    """
    _raise_limit_of_files()
    config = uvicorn.Config(
        app,
        http=protocol or "httptools",
        access_log=False,
        log_level="warning",
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=GRACE_S,
        lifespan="on",
    )
    server = uvicorn.Server(config)

    def started(failure: Exception | None) -> None:
        if failure is None:
            tell()
        else:
            server.should_exit = True

    served.on_start = started
    with contextlib.suppress(KeyboardInterrupt):
        server.run(list(sockets))
    if served.failure is not None:
        raise served.failure


def _raise_limit_of_files() -> None:
    """Each connection is one; macOS begins with 256."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(_MOST_FILES, hard)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
