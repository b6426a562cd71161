"""``mlx-stella service``: the server runs whenever its user is logged in.

$ mlx-stella service install -- --model stella-400m
"""

import http.client
import json
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import typer

from mlx_stella.cli import options
from mlx_stella.cli.serve import refuse_open, serve
from mlx_stella.cli.terminal import say, tell
from mlx_stella.errors import InputError
from mlx_stella.machine.packages import require


def service(
    action: Annotated[
        Literal["install", "uninstall", "status"],
        typer.Argument(metavar="install|uninstall|status", help="What to do."),
    ],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- OPTIONS", help="With install: options of serve."),
    ] = None,
) -> None:
    """Have the server start at login, and again when it dies.

    On macOS a LaunchAgent, on Linux a unit of systemd's user instance. Variables of the
    environment that lead to models, and $MLX_STELLA_API_KEY, are kept in its file.
    """
    require("serve")
    from mlx_stella.server import service as services

    found = services.of_this_system()
    if action != "install" and arguments:
        raise InputError("only install takes options", where=" ".join(arguments))
    if action == "install":
        _check(_parsed(arguments or []))
        services.install(found, arguments or [], os.environ)
        tell(f"mlx-stella: installed as {found.file}; its words: {found.logs}")
    elif action == "uninstall":
        services.uninstall(found)
        tell(f"mlx-stella: removed {found.file}")
    else:
        _show(found.state())
        say(f"Words:     {found.logs}")
    if sys.platform == "darwin" and action != "uninstall":
        tell(f"mlx-stella: note: {services.CONSENT}")


def _parsed(arguments: Sequence[str]) -> dict[str, Any]:
    """The options of ``serve``; what it would refuse ends the program as wrong usage does."""
    alone = typer.Typer(add_completion=False)
    alone.command("serve")(serve)
    with typer.main.get_command(alone).make_context("serve", list(arguments)) as context:
        return context.params


def _check(asked: dict[str, Any]) -> None:
    """Refuse what would fail whenever the service starts.

    Raises:
        InputError: a path depends on the folder that this is run in; there is no model; anybody
            could call; the port would be another one each time.
    """
    for name in asked["model"] or [""]:
        if not os.path.isabs(options.required(name)) and os.path.isdir(name):
            raise _relative(f"--model {name}", name)
    for pair in asked["index"] or []:
        label, _, place = pair.partition("=")
        if "://" not in place and not os.path.isabs(place):
            raise _relative(f"--index {pair}", place, f"{label}=")
    if asked["uds"] and not asked["uds"].is_absolute():
        raise _relative(f"--uds {asked['uds']}", str(asked["uds"]))
    if not asked["port"]:
        raise InputError("would differ from start to start", where="--port 0", remedy="name one")
    refuse_open(asked["host"], asked["api_key"])


def _relative(where: str, path: str, before: str = "") -> InputError:
    return InputError(
        "a service is run in another folder",
        where=where,
        remedy=f"{before}{os.path.abspath(path)}",
    )


def _show(state: Any) -> None:
    say(f"Installed: {'yes' if state.installed else 'no'}")
    say(f"Running:   {f'yes, process {state.pid}' if state.pid else 'no'}")
    if not state.installed:
        return
    from mlx_stella.server import sockets

    asked = _parsed(state.arguments)
    host, port = asked["host"], asked["port"]
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    health = sockets.health(reached, port, timeout_s=3)
    say(f"Answers:   {'yes' if health else 'not yet, or not at all'}, at port {port}")
    if health:
        say(f"Models:    {_models(reached, port, asked['api_key'])}")


def _models(host: str, port: int, keys: Sequence[str] | None) -> str:
    """The names of what is served, and which of it is in memory."""
    connection = http.client.HTTPConnection(host, port, timeout=3)
    headers = {"Authorization": f"Bearer {keys[0]}"} if keys else {}
    try:
        connection.request("GET", "/v1/models", headers=headers)
        answer = connection.getresponse()
        if answer.status != 200:
            return f"not told (status {answer.status}); $MLX_STELLA_API_KEY is the key"
        listed = json.loads(answer.read())["data"]
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        return f"not told ({type(error).__name__})"
    finally:
        connection.close()
    return ", ".join(f"{m['id']}{' (loaded)' if m['loaded'] else ''}" for m in listed)
