"""Options that several verbs share."""

import re
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mlx_stella.errors import InputError

if TYPE_CHECKING:
    from mlx_stella.encoding.encoder import Encoder
    from mlx_stella.encoding.settings import EncodeOptions

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
Task = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="NAME",
        help="Embed as queries of a task: s2p (to find passages) or s2s (alike sentences) for "
        "Stella; sts, msmarco and others for NV-Embed.",
    ),
]
TruncateDim = Annotated[
    int | None,
    typer.Option("--truncate-dim", help="Keep this many numbers of each vector, the first ones."),
]
Dtype = Annotated[
    Literal["float16", "bfloat16", "float32"] | None,
    typer.Option(
        "--dtype",
        metavar="TYPE",
        help="float16 (default on a GPU), bfloat16 or float32 (default on a CPU).",
    ),
]
MemoryLimit = Annotated[
    int | None,
    typer.Option(
        "--memory-limit",
        parser=lambda text: size_bytes(text),
        metavar="SIZE",
        help="What weights and batches may take together, such as 4GB or 800MB.",
    ),
]
NoServer = Annotated[
    bool,
    typer.Option("--no-server", help="Load the model here, even if a server has it."),
]


def with_task(choice: "EncodeOptions", task: str | None, encoder: "Encoder") -> "EncodeOptions":
    """What was chosen, with the query prompt of a task, if one is given.

    Raises:
        InputError: no prompt belongs to the task, or a prompt was chosen, too.
    """
    from mlx_stella.encoding.settings import names_a_prompt

    if task is None:
        return choice
    if names_a_prompt(choice):
        raise InputError("--task chooses a prompt", remedy="give it or a prompt, not both")
    return {**choice, "prompt_name": encoder.checkpoint.prompts.for_query(task)}


def size_bytes(text: str) -> int:
    """A size such as 4GB, in bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)B?", text.strip().upper())
    if not match:
        raise typer.BadParameter(f"{text!r} is no size; remedy: 4GB or 800MB, say")
    return int(float(match[1]) * {"": 1, "K": 1e3, "M": 1e6, "G": 1e9}[match[2]])


def required(model: str | None) -> str:
    """The model that was asked for.

    Raises:
        InputError: none was.
    """
    if not model:
        raise InputError(
            "no model given",
            remedy="--model stella-400m, say (mlx-stella models lists them), or export "
            f"{_VARIABLE}=stella-400m",
        )
    return model


def decoded(line: bytes) -> str:
    """A line of stdin.

    Raises:
        InputError: it is not UTF-8.
    """
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"stdin is not UTF-8 ({error.reason})", remedy="convert it") from None
