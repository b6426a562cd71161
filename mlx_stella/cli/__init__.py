"""The command line: one file a verb. The only place that prints.

Data goes to stdout, words and progress to stderr. A fault that the user can mend is one line on
stderr and exit status 1; wrong usage is status 2. Whatever a verb does not need is not imported:
``mlx-stella --help`` loads neither MLX nor the Hub's client, and a verb no other verb's file.
"""

import contextlib
import errno
import io
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from typing import Any, TextIO, cast

import typer
import typer.core

from mlx_stella import __version__
from mlx_stella.cli.terminal import printable, say, tame_logs, tell_message
from mlx_stella.errors import InputError, StellaError, StellaWarning

__all__ = ["VERBS", "app", "main"]

VERBS = {
    "embed": "embed",
    "similarity": "similarity",
    "index": "index",
    "search": "search",
    "serve": "serve",
    "service": "service",
    "status": "status",
    "export": "export",
    "eval": "evaluate",
    "info": "info",
    "models": "models",
    "demo": "demo",
    "verify": "verify",
    "bench": "bench",
    "convert": "convert",
    "compare": "compare",
}
"""The verbs in the order of the help, and the function of each in the file of its name."""

_WRITERS = {"embed", "index", "export"}
"""Verbs whose work is a file or a folder; without an --output embed looks for itself."""

_REMEDIES = {
    errno.ENOSPC: "free some space and run it again",
    errno.EDQUOT: "free some space and run it again",
    errno.EACCES: "its permissions, or another place",
    errno.EPERM: "its permissions, or another place",
}
"""Of the system's errors that no verb has foreseen."""

UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__base__)
"""Which module has it depends on the version of typer; it has the ``message`` of its subclass."""


@contextlib.contextmanager
def _printable_usage() -> Iterator[None]:
    try:
        yield
    except UsageError as error:  # its text repeats arguments
        error.message = printable(error.message)
        raise


@cache
def _command(verb: str) -> Any:
    """A verb as typer parses it; its file is imported now."""
    alone = typer.Typer(add_completion=False)
    alone.command(verb)(getattr(import_module(f"{__name__}.{verb}"), VERBS[verb]))
    return typer.main.get_command(alone)


class _Commands(Mapping[str, Any]):
    """The verbs by name, each made when it is first asked for."""

    def __getitem__(self, verb: str) -> Any:
        if verb not in VERBS:
            raise KeyError(verb)
        return _command(verb)

    def __iter__(self) -> Iterator[str]:
        return iter(VERBS)

    def __len__(self) -> int:
        return len(VERBS)


class _Verbs(typer.core.TyperGroup):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _Commands()  # type: ignore[assignment]  # nobody adds to them

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _printable_usage():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        try:
            with _printable_usage():
                return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            tell_message("; ".join(["interrupted", *getattr(stop, "__notes__", ())]))
            raise SystemExit(130) from None


app = typer.Typer(
    cls=_Verbs,
    help="Text embeddings on Apple silicon: Stella, GTE, NV-Embed and BERT models on MLX.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        say(f"mlx-stella {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Text embeddings on Apple silicon: Stella, GTE, NV-Embed and BERT models on MLX."""
    if sys.stdout is None and context.invoked_subcommand not in _WRITERS:
        raise InputError("stdout is closed", remedy="open it")


def main() -> None:
    """Run the command line; the entry point of the console script ``mlx-stella``."""
    warnings.simplefilter("always", StellaWarning)
    warnings.showwarning = _show_warning
    tame_logs()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that files are cleaned up
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for a terminal that is not UTF-8
    try:
        _check_arguments(sys.argv[1:])
        app()
    except StellaError as error:
        _fail(str(error))
    except BrokenPipeError:  # the reader of stdout went away: `mlx-stella embed ... | head`
        sys.stderr.close()  # or Python complains once more when it flushes stdout
        sys.exit(1)
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "check the path, or try another place")
        _fail(str(StellaError(error.strerror or error, where=error.filename, remedy=remedy)))


def _check_arguments(arguments: list[str]) -> None:
    """Refuse bytes that are not UTF-8; a file may be called so, but nothing else is told by them.

    Python hands them on as lone surrogates, which no model reads and no index can store.
    """
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            if not os.path.lexists(argument):
                shown = os.fsencode(argument).decode("utf-8", "backslashreplace")
                raise InputError("is not UTF-8", where=shown, remedy="convert it") from None


def _fail(message: str) -> None:
    tell_message(message)
    sys.exit(1)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if issubclass(category, StellaWarning):
        tell_message(f"note: {message}")
