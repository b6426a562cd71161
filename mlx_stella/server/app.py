"""The routes of all protocols as one ASGI application, and the life of what is behind them."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlx_stella import __version__
from mlx_stella.errors import StellaError
from mlx_stella.server import cohere, life, ollama, openai, search, tei
from mlx_stella.server.access import Access
from mlx_stella.server.embedding import Served
from mlx_stella.server.faults import Fault, RequestError, fault_of
from mlx_stella.server.guard import Guard


def create_app(served: Served, access: Access | None = None) -> FastAPI:
    """The application; its lifespan starts and stops the worker.

    ``access``: who may call; by default whoever calls it by a name of this machine's own.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await served.start()
        yield
        await served.stop()

    app = FastAPI(
        title="mlx-stella",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
    )
    for protocol in (openai, ollama, tei, cohere, search, life):
        # Not included: FastAPI would look for the route in each router, and then again.
        app.router.routes.extend(protocol.router(served).routes)
    _tell_faults(app, served)
    app.add_middleware(Guard, access=access or Access.of(), faults=served.faults)
    app.add_middleware(Counted, served=served)
    return app


def _tell_faults(app: FastAPI, served: Served) -> None:
    def told(request: Request, error: Exception) -> Response:
        return served.faults.response(request.url.path, fault_of(error))

    def told_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        fault = Fault(error.status_code, str(error.detail), headers=error.headers)
        return served.faults.response(request.url.path, fault)

    def told_parameter(request: Request, error: Exception) -> Response:
        """In FastAPI's own shape this would be a 422 that no client of ours understands."""
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        name = str(first["loc"][-1])
        fault = fault_of(RequestError(f"{name}: {first['msg']}", param=name))
        return served.faults.response(request.url.path, fault)

    app.add_exception_handler(HTTPException, told_http)
    app.add_exception_handler(RequestValidationError, told_parameter)
    app.add_exception_handler(StellaError, told)


_REFUSED = {401: "key", 403: "host_or_origin", 413: "body", 415: "content_type"}
"""By the guard; the backlog counts what it refuses itself."""


class Counted:
    """Counts requests by route and status, and times them. Pure ASGI: any other kind of middleware
    would keep a client's leaving from whoever waits for it."""

    def __init__(self, app: ASGIApp, served: Served):
        self._app, self._metrics = app, served.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        start, code = time.perf_counter(), 499  # as others name a client that left

        async def noting(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, code).inc()
            if code in _REFUSED:
                self._metrics.rejected.labels(_REFUSED[code]).inc()
            self._metrics.request_seconds.observe(time.perf_counter() - start)
