"""Options that several verbs share."""

from typing import Annotated, Literal

import typer

from mlx_stella.errors import InputError

_VARIABLE = "MLX_STELLA_MODEL"

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        envvar=_VARIABLE,
        show_envvar=False,
        help=f"An alias, a Hub id or a directory (default: ${_VARIABLE}).",
    ),
]
ModelArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        envvar=_VARIABLE,
        show_envvar=False,
        help=f"An alias, a Hub id or a directory (default: ${_VARIABLE}).",
    ),
]
Dim = Annotated[
    int | None,
    typer.Option("--dim", help="Size of the vectors; `info` lists them, and the default."),
]
Dtype = Annotated[
    Literal["float16", "bfloat16", "float32"] | None,
    typer.Option(
        "--dtype",
        metavar="TYPE",
        help="float16 (default on a GPU), bfloat16 or float32 (default on a CPU).",
    ),
]


def required(model: str | None) -> str:
    """The model that was asked for.

    Raises:
        InputError: none was.
    """
    if not model:
        raise InputError(
            "no model given; remedy: --model stella-400m, say (mlx-stella models lists them), "
            f"or export {_VARIABLE}=stella-400m"
        )
    return model
