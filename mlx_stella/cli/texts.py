"""Read texts from arguments, a file or stdin."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from mlx_stella.errors import InputError


def read_texts(texts: Sequence[str] | None, source: str | None, field: str | None) -> list[str]:
    """The texts asked for: arguments, else a file, else stdin.

    A .jsonl file, or any source with a ``field``, is read as JSON Lines; anything else is a text
    a line. An empty line of a text file is an empty text, so that rows stay aligned with lines.

    Raises:
        InputError: two sources are given, none is, or one cannot be read; file and line are named.
    """
    if texts and source is not None:
        raise InputError("texts are given both as arguments and with --input; remedy: drop one")
    if texts:
        return list(texts)
    if source is None and sys.stdin.isatty():
        raise InputError("no text given; remedy: pass texts, --input FILE, or pipe to stdin")
    if source in (None, "-"):
        return list(_parse(sys.stdin.buffer, "stdin", field))
    path = Path(source)
    if path.suffix == ".jsonl":
        field = field or "text"
    elif path.suffix != ".txt" and field is None:
        raise InputError(
            f"{path}: not .txt or .jsonl; remedy: rename it, or pass --field for JSON Lines"
        )
    try:
        with path.open("rb") as file:
            return list(_parse(file, str(path), field))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; remedy: check the path") from None


def _parse(file: BinaryIO, name: str, field: str | None) -> Iterator[str]:
    for number, raw in enumerate(file, start=1):
        where = f"{name}, line {number}"
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InputError(f"{where}: not UTF-8 ({error.reason}); remedy: convert it") from None
        if field is None:
            yield line
        elif line.strip():
            yield _field_of(line, field, where)


def _field_of(line: str, field: str, where: str) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({error})") from None
    if not isinstance(record, dict):
        raise InputError(f"{where}: holds no JSON object")
    if field not in record:
        raise InputError(
            f"{where}: has no field {field!r}, but {', '.join(record) or 'none'}; "
            "remedy: name it with --field"
        )
    if not isinstance(record[field], str):
        raise InputError(f"{where}: field {field!r} is not a string")
    return record[field]
