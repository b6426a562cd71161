"""Words for people: the one place where text leaves for a terminal.

Names come from files, arguments, indexes and the Hub. Control characters in them could clear the
screen, forge a line or turn the reading direction, so they are shown instead. Data is not words:
JSON escapes by itself, and the lines of ``embed`` keep each text as it is.
"""

import json
import logging
import sys
from typing import Any

_LONGEST = 4000
"""A line is cut behind so many characters: a name in a file may have millions."""


def say(*lines: object) -> None:
    """Print words on stdout; each argument is one line, whatever it holds."""
    for line in lines:
        print(printable(line))  # noqa: T201


def tell(*lines: object) -> None:
    """Print words on stderr; each argument is one line, whatever it holds."""
    for line in lines:
        print(printable(line), file=sys.stderr)  # noqa: T201


def say_json(data: Any, indent: int | None = None) -> None:
    """Print an object for programs on stdout; in its strings JSON escapes all but DEL."""
    say(*json.dumps(data, indent=indent).replace("\x7f", "\\u007f").splitlines())


def tell_message(message: object) -> None:
    """Print an error or a note on stderr: its line ends, if it has some, become blanks."""
    text = " ".join(str(message).split())
    tell("mlx-stella: " + (text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"))


def printable(words: object) -> str:
    """Words without a character that steers a terminal: such are shown as Python writes them."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(words))


class _Record(logging.LogRecord):
    """What another library logs, such as a warning that the Hub sent."""

    def getMessage(self) -> str:
        return " ".join(printable(line) for line in super().getMessage().splitlines())


def tame_logs() -> None:
    """Make the logs of all libraries printable, too."""
    logging.setLogRecordFactory(_Record)
