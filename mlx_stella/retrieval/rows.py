"""Rows of .jsonl, .csv and .parquet files, one at a time: a file may be larger than memory."""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from mlx_stella.errors import InputError

MAX_LINE_BYTES = 64 * 2**20
"""A longer line is a fault: it would not be one text, and may not fit into memory."""

_ID_FIELDS = ("_id", "id")


@dataclass(frozen=True)
class Row:
    """A text, the line or row it stands on counted from 1, and its id or ""."""

    text: str
    line: int
    record: str


def read_rows(
    path: Path, fields: Sequence[str], optional: Sequence[str] = (), joint: str = "\n"
) -> Iterator[Row]:
    """The rows of a file; several fields are joined, empty ones left out.

    Args:
        fields: the columns that make up a text; a row may lack those that are ``optional``.

    Raises:
        InputError: a row is malformed or lacks a field; the line is named, the file is not.
        OSError: the file cannot be read.
    """
    ending = path.suffix.lower()
    if ending == ".parquet":
        yield from _read_parquet(path, fields, joint)
        return
    with path.open("rb") as file:
        parse = _parse_jsonl if ending == ".jsonl" else _parse_csv
        for line, record in parse(file, fields):
            present = [name for name in fields if name in record or name not in optional]
            yield _row(record, present, line, f"line {line}", joint)


def _parse_jsonl(file: BinaryIO, fields: Sequence[str]) -> Iterator[tuple[int, dict]]:
    for line, text in _lines(file):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"line {line}: not JSON ({error}); remedy: mend it") from None
        if not isinstance(record, dict):
            raise InputError(f"line {line}: no JSON object; remedy: one object a line")
        yield line, record


def _parse_csv(file: BinaryIO, fields: Sequence[str]) -> Iterator[tuple[int, dict]]:
    csv.field_size_limit(MAX_LINE_BYTES)  # an open quote must not swallow the whole file
    reader = csv.DictReader((text for _, text in _lines(file)), strict=True)
    try:
        for record in reader:
            yield reader.line_num, record
    except csv.Error as error:
        raise InputError(f"line {reader.line_num}: not CSV ({error}); remedy: mend it") from None


def _lines(file: BinaryIO) -> Iterator[tuple[int, str]]:
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES:
            raise InputError(
                f"line {number}: longer than {MAX_LINE_BYTES // 2**20} MiB; remedy: a text a line"
            )
        try:
            yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"line {number}: not UTF-8 ({error.reason}); remedy: convert the file, for "
                "example with iconv -f latin1 -t utf-8"
            ) from None


def _read_parquet(path: Path, fields: Sequence[str], joint: str) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            columns = file.schema_arrow.names
            for field in fields:
                if field not in columns:
                    raise InputError(_no_field(field, columns))
            wanted = [*fields, *[name for name in _ID_FIELDS if name in columns]]
            number = 0
            for batch in file.iter_batches(batch_size=1024, columns=wanted):
                for record in batch.to_pylist():
                    number += 1
                    yield _row(record, fields, number, f"row {number}", joint)
    except pa.ArrowException as error:
        raise InputError(f"no readable Parquet ({error}); remedy: write it again") from None


def _row(record: dict[str, Any], fields: Sequence[str], line: int, where: str, joint: str) -> Row:
    texts = []
    for field in fields:
        if field not in record:
            raise InputError(f"{where}: {_no_field(field, record)}")
        text = record[field]
        if text is None:
            text = ""  # a null of Parquet, a short row of CSV
        if not isinstance(text, str):
            raise InputError(f"{where}: field {field!r} is no string; remedy: another --field")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"{where}: field {field!r} holds a lone surrogate at position {error.start}; "
                "remedy: decode the source with the right encoding"
            ) from None
        texts.append(text)
    identity = next((record[name] for name in _ID_FIELDS if record.get(name) is not None), "")
    identity = str(identity).encode("utf-8", "backslashreplace").decode()
    return Row(joint.join(text for text in texts if text), line, identity)


def _no_field(field: str, fields) -> str:
    names = ", ".join(str(name) for name in fields)
    return f"no field {field!r}, but {names or 'none'}; remedy: name it with --field"
