"""A server in this process, asked without a network; what waits is asyncio's."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI

from mlx_stella.server import openai
from mlx_stella.server.app import create_app
from mlx_stella.server.embedding import Served
from mlx_stella.server.models import Models
from support import CHECKPOINTS

TINY = "tiny-stella-400m"


@dataclass
class Server:
    """One that runs: what is behind it, and a client of it."""

    served: Served
    app: FastAPI
    client: httpx.AsyncClient

    async def embed(self, input: Any, model: str = TINY, **fields: Any) -> httpx.Response:
        body = {"model": model, "input": input, **fields}
        return await self.client.post("/v1/embeddings", json=body)


@asynccontextmanager
async def serving(
    names: Sequence[str] = (TINY,), *, models: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Server]:
    """Tiny checkpoints, served; the first is loaded."""
    sources = [CHECKPOINTS / name for name in names]
    served = Served(Models(sources, dtype="float32", **models or {}), shape=openai.shape, **options)
    app = create_app(served)
    async with app.router.lifespan_context(app):
        async with served.models.using(served.models.first):
            pass
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield Server(served, app, client)


def with_server(test: Callable[[Server], Awaitable[None]], *args: Any, **options: Any) -> None:
    """Run a test's coroutine with a server."""

    async def run() -> None:
        async with serving(*args, **options) as server:
            await test(server)

    asyncio.run(run())
