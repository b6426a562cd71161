"""Options that several verbs share."""

from typing import Annotated, Literal

import typer

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        envvar="MLX_STELLA_MODEL",
        help="An alias (see `mlx-stella models`), a Hub id or a directory.",
    ),
]
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", envvar="MLX_STELLA_MODEL", help="An alias, a Hub id or a directory."
    ),
]
Dim = Annotated[
    int | None, typer.Option("--dim", help="Size of the vectors; `mlx-stella info` lists them.")
]
Dtype = Annotated[
    Literal["float16", "bfloat16", "float32"] | None,
    typer.Option(
        "--dtype", help="Type of the matrices. [default: float16 on a GPU, float32 on a CPU]"
    ),
]
