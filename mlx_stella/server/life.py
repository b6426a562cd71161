"""Whether the server lives, whether it is ready, and its numbers."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from mlx_stella import __version__
from mlx_stella.server import openai
from mlx_stella.server.embedding import Served
from mlx_stella.server.wire import faults_in, json_response

PROGRAM = "mlx-stella"
"""What /health answers as, so that another start of ours knows who holds the port."""


def router(served: Served) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["Life"], responses=faults_in(openai.shape))

    @routes.get("/health")
    async def health() -> Response:
        """200 as long as the thread of the models lives."""
        data = {"status": "ok", "program": PROGRAM, "version": __version__}
        if served.worker.is_alive:
            return json_response(data)
        return json_response(data | {"status": "stopping"}, 503)

    @routes.get("/ready")
    async def ready() -> Response:
        """200 once the first model is loaded."""
        is_ready = served.models.is_ready and served.worker.is_alive
        status = "ready" if is_ready else "loading"
        return json_response({"status": status}, 200 if is_ready else 503)

    @routes.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus's format."""
        return Response(served.metrics.text(), media_type="text/plain; version=0.0.4")

    return routes
