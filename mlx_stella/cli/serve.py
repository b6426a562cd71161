"""``mlx-stella serve``: one warm model for every program on this machine."""

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from mlx_stella.cli import options
from mlx_stella.cli.terminal import tell, tell_message
from mlx_stella.errors import InputError
from mlx_stella.files.lock import HeldError
from mlx_stella.machine import runtime
from mlx_stella.machine.packages import require

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            envvar="MLX_STELLA_MODEL",
            show_envvar=False,
            help="An alias, a Hub id or a directory. The first stays in memory; more are loaded "
            "when they are asked for (default: $MLX_STELLA_MODEL).",
        ),
    ] = None,
    alias: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=MODEL",
            help="One more name of a model, such as text-embedding-3-small=stella-400m.",
        ),
    ] = None,
    index: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL=URI",
            help="An index to search, by the name that it gets. Its model is loaded on demand.",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Where to listen; beyond this machine only with a key.")
    ] = "localhost",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port; 0 for any that is free.")
    ] = runtime.DEFAULT_PORT,
    uds: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="The Unix socket (default: where the other verbs of this program look for it).",
        ),
    ] = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            envvar="MLX_STELLA_API_KEY",
            show_envvar=False,
            help="A key that clients must send (default: $MLX_STELLA_API_KEY, which no list of "
            "processes shows).",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A further name of this machine.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Web pages that may ask for vectors."),
    ] = None,
    prompt_name: Annotated[
        str | None,
        typer.Option(help="The prompt of requests that name none: query, document or a name."),
    ] = None,
    on_long: Annotated[
        Literal["truncate", "error"],
        typer.Option(help="What to do with longer texts, unless a request says so."),
    ] = "truncate",
    keep_alive: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="How long a model that was asked for stays: 300, 5m, 1h; -1 for ever.",
        ),
    ] = "5m",
    dtype: options.Dtype = None,
    memory_limit: Annotated[
        int | None,
        typer.Option(
            "--memory-limit",
            parser=options.size_bytes,
            metavar="SIZE",
            help="What all models may take together, batches included, such as 4GB (default: on "
            "a Mac three quarters of what it recommends for its GPU).",
        ),
    ] = None,
) -> None:
    """Serve models to other programs over HTTP, as OpenAI and Ollama do, until it is ended."""
    require("serve")
    models_named = _unsplit(model, "MLX_STELLA_MODEL")
    if not models_named and not index:
        options.required(None)
    from mlx_stella.server import sockets
    from mlx_stella.server.access import Access

    keys = [key for key in _unsplit(api_key, "MLX_STELLA_API_KEY") if key]
    refuse_open(host, keys)
    aliases, indexes = _pairs("--alias", alias), _pairs("--index", index)
    stays = _seconds(keep_alive)
    with contextlib.ExitStack() as opened:
        try:
            listening = sockets.listen(host, port)
        except sockets.PortTakenError as error:
            if not error.is_ours:
                raise
            tell_message(f"{error}; nothing to do")  # which a service takes as an answer
            return
        for made in listening:
            opened.enter_context(contextlib.closing(made))
        try:
            listening.append(
                opened.enter_context(sockets.listening_at(uds or runtime.socket_path()))
            )
        except HeldError:
            if uds:
                raise
            tell_message("note: another server answers the other verbs of this program")

        # Only now what takes a second to import, and more to open.
        from mlx_stella.server.app import create_app
        from mlx_stella.server.connections import Connection
        from mlx_stella.server.embedding import Served
        from mlx_stella.server.indexes import recorded_models
        from mlx_stella.server.models import Models
        from mlx_stella.server.openai import shape
        from mlx_stella.server.run import run

        models = Models(
            models_named,
            recorded=recorded_models(indexes.values(), models_named),
            aliases=aliases,
            dtype=dtype,
            memory_limit=memory_limit,
            keep_alive=stays,
        )
        served = Served(
            models, shape=shape, indexes=indexes, default_prompt=prompt_name, on_long=on_long
        )
        access = Access.of(bind=host, hosts=allow_host or (), origins=allow_origin or (), keys=keys)
        where = sockets.urls(listening)
        try:
            run(
                create_app(served, access),
                served,
                listening,
                protocol=Connection,
                tell=lambda: tell(
                    f"mlx-stella: {models.first.name} is served at {', '.join(where)}"
                ),
            )
        except SystemExit as end:
            if end.code != 143:  # SIGTERM, which is handed on once all that was asked is answered
                raise


def refuse_open(host: str, keys: Sequence[str] | None) -> None:
    """Refuse to be reached from other machines without a key.

    Raises:
        InputError: that would be so.
    """
    from mlx_stella.server.access import is_loopback

    if not is_loopback(host) and not any(keys or ()):
        raise InputError(
            "would be open to everybody in the network",
            where=f"--host {host}",
            remedy="--api-key, or a loopback address",
        )


def _unsplit(given: list[str] | None, variable: str) -> list[str]:
    """What was given, where an environment variable is one value, whatever blanks it has.

    The parser of options takes it for several.
    """
    whole = os.environ.get(variable, "")
    return [whole] if given and given == whole.split() else given or []


def _pairs(option: str, given: list[str] | None) -> dict[str, str]:
    """NAME=VALUE, several times.

    Raises:
        InputError: one has no name, no value or a name that another has.
    """
    found: dict[str, str] = {}
    for pair in given or ():
        name, _, value = pair.partition("=")
        if not name or not value or name in found:
            raise InputError("is no NAME=VALUE of its own", where=f"{option} {pair}")
        found[name] = value
    return found


def _seconds(text: str) -> float:
    """A time such as 300, 5m or -1.

    Raises:
        InputError: it is none.
    """
    if text == "-1":
        return -1.0
    match = re.fullmatch(r"(\d+)([smh]?)", text)
    if not match:
        raise InputError("is no time", where=f"--keep-alive {text}", remedy="300, 5m or -1")
    return float(match[1]) * _SECONDS[match[2]]
