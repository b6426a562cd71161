"""Read texts from arguments, a file or stdin."""

import json
import stat
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mlx_stella.errors import InputError, StellaWarning
from mlx_stella.files.tables import Fault, read_entries
from mlx_stella.machine.packages import require

_TABLES = (".csv", ".parquet")
_ENDINGS = (".txt", ".jsonl", *_TABLES)


@dataclass(frozen=True)
class Record:
    """A text, and the JSON object it came in; an output line repeats that object."""

    text: str
    fields: dict[str, Any]


def read_records(
    texts: Sequence[str] | None, source: str | None, field: str | None
) -> list[Record]:
    """The texts asked for: arguments, else a file, else stdin.

    A .csv or .parquet file is a table; a .jsonl file, or any other source with a ``field``, is
    read as JSON Lines; anything else is a text a line. An empty line of a text file is an empty
    text, so that rows stay aligned with lines.

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
        records = list(_parse(sys.stdin.buffer, "stdin", field))
    else:
        records = _read_file(Path(source), field)
    if not records:
        warnings.warn("the input holds no text", StellaWarning, stacklevel=2)
    return records


def _read_file(path: Path, field: str | None) -> list[Record]:
    ending = path.suffix.lower()
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError("a folder", where=path, remedy="name a file in it")
        if ending in _TABLES:
            return list(_read_rows(path, field or "text"))
        if stat.S_ISREG(mode) and ending not in _ENDINGS and field is None:
            raise InputError(
                f"not {', '.join(_ENDINGS)}",
                where=path,
                remedy="rename it, or pass --field for JSON Lines",
            )
        with path.open("rb") as file:
            return list(_parse(file, str(path), field or ("text" if ending == ".jsonl" else None)))
    except OSError as error:
        raise InputError(error.strerror, where=path, remedy="check the path") from None


def _read_rows(path: Path, field: str) -> Iterator[Record]:
    """The text of each row of a table, with its id if it has one."""
    unit = "line"
    if path.suffix.lower() == ".parquet":
        require("search")
        unit = "row"
    try:
        for row in read_entries(path, field, lambda number: True):
            if isinstance(row, Fault):
                where, remedy = f"{unit} {row.line}", row.remedy or "mend it"
                raise InputError(row.fault, where=where, remedy=remedy)
            yield Record(row.text, ({"id": row.record} if row.record else {}) | {field: row.text})
    except InputError as error:
        raise error.within(path) from None


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


def _parse(file: BinaryIO, name: str, field: str | None) -> Iterator[Record]:
    for number, raw in enumerate(file, start=1):
        where = f"{name}, line {number}"
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InputError(
                f"not UTF-8 ({error.reason})",
                where=where,
                remedy="convert it, for example with iconv -f latin1 -t utf-8",
            ) from None
        if field is None:
            yield Record(line, {"text": line})
        elif line.strip():
            yield _parse_record(line, field, where)


def _parse_record(line: str, field: str, where: str) -> Record:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"not JSON ({error})", where=where, remedy="mend it, or drop --field for a text a line"
        ) from None
    if not isinstance(record, dict):
        raise InputError("holds no JSON object", where=where, remedy="one object a line")
    if field not in record:
        raise InputError(
            f"has no field {field!r}, but {', '.join(record) or 'none'}",
            where=where,
            remedy="name it with --field",
        )
    if not isinstance(record[field], str):
        raise InputError(f"field {field!r} is not a string", where=where, remedy="another --field")
    return Record(record[field], record)
