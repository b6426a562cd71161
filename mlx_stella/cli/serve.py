"""``mlx-stella serve``: one warm model for every program on this machine."""

from typing import Annotated

import typer

from mlx_stella.cli import options
from mlx_stella.machine.packages import require


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            envvar="MLX_STELLA_MODEL",
            show_envvar=False,
            help="An alias, a Hub id or a directory; more are loaded on demand.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port.")] = 7373,
    dtype: options.Dtype = None,
) -> None:
    """Serve models over HTTP, in OpenAI's protocol."""
    require("serve")
    import uvicorn

    from mlx_stella.server import openai
    from mlx_stella.server.app import create_app
    from mlx_stella.server.embedding import Served
    from mlx_stella.server.models import Models

    models = Models([options.required(name) for name in model or [""]], dtype=dtype)
    uvicorn.run(create_app(Served(models, shape=openai.shape)), host=host, port=port)
