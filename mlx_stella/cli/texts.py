"""Read texts from arguments, a file or stdin."""

import stat
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mlx_stella.errors import InputError, StellaWarning
from mlx_stella.files.tables import Fault, read_entries
from mlx_stella.machine.packages import require

_TABLES = (".jsonl", ".csv", ".parquet")
_ENDINGS = (".txt", *_TABLES)


@dataclass(frozen=True)
class Record:
    """A text, and the fields of the row it came in; an output line repeats them."""

    text: str
    fields: Mapping[str, Any]


def read_records(
    texts: Sequence[str] | None,
    source: str | None,
    field: str | None,
    *,
    keeps_fields: bool = False,
) -> list[Record]:
    """The texts asked for: arguments, else a file, else stdin.

    A .csv or .parquet file is a table; a .jsonl file, or any other source with a ``field``, is
    read as JSON Lines; anything else is a text a line. An empty line of a text file is an empty
    text, so that rows stay aligned with lines.

    Args:
        keeps_fields: whether records of a file or of stdin have more than their text.

    Raises:
        InputError: two sources are given, none is, or one cannot be read; file and line are named.
    """
    if texts and source is not None:
        raise InputError("texts are given both as arguments and with --input", remedy="drop one")
    if texts:
        for text in texts:
            _warn_of_file(text)
        return [Record(text, {"text": text}) for text in texts]
    if source in (None, "-"):
        if sys.stdin is None or (source is None and sys.stdin.isatty()):
            raise InputError("no text given", remedy="pass texts, --input FILE, or pipe to stdin")
        kind = ".txt" if field is None else ".jsonl"
        records = list(_read(sys.stdin.buffer, "stdin", kind, field, keeps_fields))
    else:
        records = _read_file(Path(source), field, keeps_fields)
    if not records:
        warnings.warn("the input holds no text", StellaWarning, stacklevel=2)
    return records


def _read_file(path: Path, field: str | None, keeps_fields: bool) -> list[Record]:
    ending = path.suffix.lower()
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError("a folder", where=path, remedy="name a file in it")
        if stat.S_ISREG(mode) and ending not in _ENDINGS and field is None:
            raise InputError(
                f"not {', '.join(_ENDINGS)}",
                where=path,
                remedy="rename it, or pass --field for JSON Lines",
            )
        if ending == ".parquet":
            require("search")
        if ending not in _TABLES:
            ending = ".txt" if field is None else ".jsonl"
        return list(_read(path, path, ending, field, keeps_fields))
    except OSError as error:
        raise InputError(error.strerror, where=path, remedy="check the path") from None


def _read(
    source: Path | BinaryIO, where: object, ending: str, field: str | None, keeps_fields: bool
) -> Iterator[Record]:
    """Raises InputError for the first row that has no text; the line is named."""
    unit = "row" if ending == ".parquet" else "line"
    try:
        entries = read_entries(source, field or "text", ending=ending, keeps_fields=keeps_fields)
        for entry in entries:
            if isinstance(entry, Fault):
                remedy = entry.remedy or "mend it"
                raise InputError(entry.fault, where=f"{unit} {entry.line}", remedy=remedy)
            if entry is not None:
                yield Record(entry.text, entry.fields)
    except InputError as error:
        raise error.within(where) from None


def _warn_of_file(text: str) -> None:
    """A file name among the arguments is embedded as words, which is rarely meant."""
    try:
        is_file = text.lower().endswith(_ENDINGS) and Path(text).is_file()
    except (OSError, ValueError):
        return
    if is_file:
        warnings.warn(
            f"{text} is embedded as words; to embed the file of that name: --input {text}",
            StellaWarning,
            stacklevel=2,
        )
