"""Rows of .jsonl, .csv, .parquet and .txt files, one at a time: a file may exceed memory."""

import csv
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from mlx_stella.errors import InputError, StellaError
from mlx_stella.files.parquet import ID_FIELDS, Record, no_field, parse_parquet

MAX_LINE_BYTES = 64 * 2**20
"""A longer line is a fault: it would not be one text, and may not fit into memory."""

_BUFFER = 2**20
"""Bytes. Lines of 400 take half the time that they take with Python's 8 KiB, long ones a tenth."""

T = TypeVar("T")


@dataclass(frozen=True)
class TableRow:
    """A text and where it is from.

    Attributes:
        line: the line or row it begins on, counted from 1; record: its id, or "".
        lines: how many the row takes: more than one where a field of CSV holds line ends.
        fields: all of the row, where they were asked for; values are those of Python.
    """

    text: str
    line: int
    record: str
    lines: int = 1
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Fault:
    """A row without a usable text: where it begins, counted from 1, its id or "", what is wrong."""

    line: int
    record: str
    fault: str
    remedy: str | None = None

    @classmethod
    def of(cls, line: int, record: str, error: StellaError) -> "Fault":
        """What an error says of a row."""
        return cls(line, record, error.fault, error.remedy)

    @property
    def error(self) -> InputError:
        """The error of the row, for where a fault ends what is done."""
        return InputError(self.fault, remedy=self.remedy)


def refuse(error: InputError) -> None:
    """Raise the error of a row."""
    raise error


def read_rows(
    path: Path,
    fields: Sequence[str],
    optional: Sequence[str] = (),
    joint: str = "\n",
    fail: Callable[[InputError], None] = refuse,
) -> Iterator[TableRow]:
    """The rows of a file; several fields are joined, empty ones and nulls left out.

    Args:
        fields: the columns that make up a text; a row may lack those that are ``optional``.
        fail: told of each row that is malformed or lacks a field, which is passed over; by default
            its error is raised. The line is named, the file is not.

    Raises:
        InputError: the file as a whole is not what its name says; or as ``fail``.
        OSError: the file cannot be read.
    """
    unit = "row" if path.suffix.lower() == ".parquet" else "line"
    for line, lines, record in _records(path, path.suffix, fields, _every, False):
        if isinstance(record, InputError):
            fail(record.within(f"{unit} {line}"))
        elif record is not None:
            row = _row(record, fields, optional, line, lines, joint)
            if isinstance(row, Fault):
                fail(row.error.within(f"{unit} {row.line}"))
            else:
                yield row


def _every(number: int) -> bool:
    return True


def read_entries(
    source: Path | BinaryIO,
    field: str,
    wanted: Callable[[int], bool] = _every,
    *,
    ending: str,
    keeps_fields: bool = False,
) -> Iterator[TableRow | Fault | None]:
    """An entry for each row of a file, in order, whatever is wrong with single rows.

    A null is a fault here. A .txt file has a row a line, an empty one too, and needs no field.

    Args:
        wanted: told the number of a row, counted from 0, whether to parse it. None is yielded
            for the others, which are passed over as fast as the format allows.
        ending: what the source is read as: that of its name, unless it comes from a pipe.
        keeps_fields: whether rows carry all of their fields, not the text alone.

    Raises:
        InputError: the file as a whole is not what its name says, or has no such column.
        OSError: it cannot be read.
    """
    for line, lines, record in _records(source, ending, [field], wanted, keeps_fields):
        if record is None:
            yield None
        elif isinstance(record, InputError):
            yield Fault.of(line, "", record)
        elif record.get(field, "") is None:
            yield Fault(line, _identity(record), f"field {field!r} is null")
        else:
            row = _row(record, [field], (), line, lines, "")
            yield replace(row, fields=record) if keeps_fields and isinstance(row, TableRow) else row


def _records(
    source: Path | BinaryIO,
    ending: str,
    fields: Sequence[str],
    wanted: Callable[[int], bool],
    keeps_fields: bool,
) -> Iterator[tuple[int, int, Record]]:
    """First line, or row of Parquet, counted from 1, number of lines, and what is there."""
    ending = ending.lower()
    if ending == ".parquet":
        yield from parse_parquet(source, fields, wanted, keeps_fields)
        return
    with source.open("rb", _BUFFER) if isinstance(source, Path) else nullcontext(source) as file:
        if ending == ".jsonl":
            yield from _parse_jsonl(_Lines(file), wanted)
        elif ending == ".txt":
            yield from _parse_txt(_Lines(file), fields, wanted)
        else:  # a line that cannot be decoded may close a quote: it must reach the parser
            yield from _parse_csv(_Lines(file, errors="surrogateescape"), wanted)


def _parse_jsonl(
    lines: "_Lines", wanted: Callable[[int], bool]
) -> Iterator[tuple[int, int, Record]]:
    number = 0
    for line in _each(lines):
        if isinstance(line, str) and not line.strip():
            continue
        yield lines.number, 1, _parse_json(line) if wanted(number) else None
        number += 1


def _parse_json(line: str | InputError) -> Record:
    if isinstance(line, InputError):
        return line
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        return InputError(f"not JSON ({error})", remedy="mend it: an object of JSON a line")
    return record if isinstance(record, dict) else InputError("no JSON object", remedy="one a line")


def _parse_txt(
    lines: "_Lines", fields: Sequence[str], wanted: Callable[[int], bool]
) -> Iterator[tuple[int, int, Record]]:
    for number, line in enumerate(_each(lines)):
        if not wanted(number):
            yield lines.number, 1, None
        elif isinstance(line, InputError):
            yield lines.number, 1, line
        else:
            yield lines.number, 1, dict.fromkeys(fields, line.rstrip("\r\n"))


def _parse_csv(lines: "_Lines", wanted: Callable[[int], bool]) -> Iterator[tuple[int, int, Record]]:
    csv.field_size_limit(MAX_LINE_BYTES)  # an open quote must not swallow the whole file
    reader = csv.reader(lines, strict=True)
    names: list[str] | None = None
    first, number = 1, 0
    for found in _each(reader):
        line, first = first, lines.number + 1
        if found == []:  # an empty line
            continue
        values = found if isinstance(found, InputError) else _check_values(found)
        if names is None:
            if isinstance(values, InputError):
                raise values.within(f"line {line}")
            names = values
        else:
            yield line, first - line, _record(names, values) if wanted(number) else None
            number += 1


def _check_values(values: list[str]) -> list[str] | InputError:
    """The values, or what is wrong with them."""
    try:
        "".join(values).encode()
    except UnicodeEncodeError as error:
        return _not_utf8(f"byte 0x{ord(error.object[error.start]) & 0xFF:02x}")
    return values


def _record(names: list[str], values: list[str] | InputError) -> Record:
    if isinstance(values, InputError):
        return values
    return dict(zip_longest(names, values[: len(names)]))


class _Lines:
    """The lines of a file; behind one that cannot be used, and raises, it goes on."""

    def __init__(self, file: BinaryIO, errors: str = "strict"):
        self._file, self._errors = file, errors
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = self._file.readline(MAX_LINE_BYTES + 1)
        if not raw:
            raise StopIteration
        self.number += 1
        if len(raw) > MAX_LINE_BYTES:
            while raw and not raw.endswith(b"\n"):
                raw = self._file.readline(2**20)  # in small pieces: the first is large enough
            raise InputError(f"longer than {MAX_LINE_BYTES // 2**20} MiB", remedy="a text a line")
        try:
            return raw.decode("utf-8-sig" if self.number == 1 else "utf-8", self._errors)
        except UnicodeDecodeError as error:
            raise _not_utf8(error.reason) from None


def _not_utf8(reason: str) -> InputError:
    return InputError(
        f"not UTF-8 ({reason})",
        remedy="convert the file, for example with iconv -f latin1 -t utf-8",
    )


def _each(items: Iterator[T]) -> Iterator[T | InputError]:
    """The items of an iterator that goes on after a fault, and in their places the faults."""
    while True:
        try:
            yield next(items)
        except StopIteration:
            return
        except InputError as error:
            yield error
        except csv.Error as error:
            yield InputError(f"not CSV ({error})", remedy="mend it")


def _row(
    record: dict[str, Any],
    fields: Sequence[str],
    optional: Sequence[str],
    line: int,
    lines: int,
    joint: str,
) -> TableRow | Fault:
    texts = []
    for field in fields:
        if field in optional and field not in record:
            continue
        try:
            texts.append(_text(record, field))
        except InputError as error:
            return Fault.of(line, _identity(record), error)
    return TableRow(joint.join(text for text in texts if text), line, _identity(record), lines)


def _text(record: dict[str, Any], field: str) -> str:
    if field not in record:
        raise no_field(field, record)
    text = record[field]
    if text is None:
        text = ""  # a null of Parquet, a short row of CSV
    if not isinstance(text, str):
        raise InputError(f"field {field!r} is no string", remedy="another --field")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"field {field!r} holds a lone surrogate at position {error.start}",
            remedy="decode the source with the right encoding",
        ) from None
    return text


def _identity(record: dict[str, Any]) -> str:
    identity = next((record[name] for name in ID_FIELDS if record.get(name) is not None), "")
    return str(identity).encode("utf-8", "backslashreplace").decode()
