"""Rows of a Parquet file, a bounded number of bytes at a time, and bounded by its size in all."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from struct import Struct
from typing import Any, BinaryIO

from mlx_stella.errors import InputError
from mlx_stella.files.parquet_pages import Page, read_pages

ID_FIELDS = ("_id", "id")
"""What may hold a row's id."""

_ROWS, _BYTES = 1024, 2**24
"""What is decoded at once: at most so many rows, and about so many bytes or a single row."""

_BUFFER_BYTES = 2**20

_UNFOLDED, _MOST_UNFOLDING = 2**28, 1000
"""Characters that the rows may hold anyway, and for each byte of the file: they may share texts."""

_ENDING, _MOST_FOOTER_BYTES = Struct("<I4s"), 2**23
"""The length of the footer and "PAR1". pyarrow took 230 bytes for each of one made for that."""

_ROW = 64
"""What a row counts for, in characters, if it holds none."""

_PAGE_BYTES, _MOST_PACKED = 2**27, 16
"""A page, which is unpacked as a whole, may have so many bytes, and so many for each of its own."""

Record = dict[str, Any] | InputError | None
"""A row's columns, what is wrong with it, or None where it was not wanted."""


def parse_parquet(
    source: Path | BinaryIO,
    fields: Sequence[str],
    wanted: Callable[[int], bool],
    keeps_fields: bool,
) -> Iterator[tuple[int, int, Record]]:
    """The number of each row, counted from 1, a 1, and what is there; see `tables.read_entries`.

    Raises:
        InputError: it is no Parquet, or lacks a field.
        OSError: it cannot be read.
    """
    import pyarrow as pa

    try:
        with source.open("rb") if isinstance(source, Path) else nullcontext(source) as raw:
            yield from _parse_file(source, raw, fields, wanted, keeps_fields)
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise  # the system's, not what pyarrow calls an OSError when a page is damaged
        raise InputError(f"no readable Parquet ({error})", remedy="write it again") from None


def _parse_file(
    source: Path | BinaryIO,
    raw: BinaryIO,
    fields: Sequence[str],
    wanted: Callable[[int], bool],
    keeps_fields: bool,
) -> Iterator[tuple[int, int, Record]]:
    import pyarrow.parquet as parquet

    allowance = _Allowance(_check_footer(raw))
    metadata = parquet.read_metadata(source)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    allowance.take(_ROW * sum(abs(group.num_rows) for group in groups))
    # Columns are read in small pieces, as a group of rows may be larger than memory.
    with parquet.ParquetFile(
        source,
        metadata=metadata,
        read_dictionary=_dictionaries(metadata),
        buffer_size=_BUFFER_BYTES,
        pre_buffer=False,
    ) as file:
        columns = file.schema_arrow.names
        for field in fields:
            if field not in columns:
                raise no_field(field, columns)
        if not keeps_fields:
            columns = [*fields, *[name for name in ID_FIELDS if name in columns]]
        first = 0
        for number, group in enumerate(groups):
            end = first + group.num_rows
            if any(map(wanted, range(first, end))):
                rows = _rows_at_once(raw, group, metadata.schema, columns, allowance)
                batches = file.iter_batches(rows, row_groups=[number], columns=columns)
                yield from _parse(batches, first, end, wanted, allowance)
            else:
                yield from ((number + 1, 1, None) for number in range(first, end))
            first = end


def _check_footer(raw: BinaryIO) -> int:
    """The size of a file, whose footer is not too large to be read."""
    size_bytes = raw.seek(0, os.SEEK_END)
    raw.seek(max(size_bytes - _ENDING.size, 0))
    ending = raw.read(_ENDING.size)
    length, magic = _ENDING.unpack(ending) if len(ending) == _ENDING.size else (0, b"")
    if magic == b"PAR1" and length > _MOST_FOOTER_BYTES:
        fault = f"its footer has {length / 2**20:.0f} MiB, more than {_MOST_FOOTER_BYTES >> 20}"
        raise InputError(fault, remedy="write it again in larger groups of rows")
    return size_bytes


class _Allowance:
    """What a file may hold, unpacked: little data can stand for much."""

    def __init__(self, stored_bytes: int):
        self._left = _UNFOLDED + _MOST_UNFOLDING * stored_bytes

    def take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            fault = f"its rows hold over {_MOST_UNFOLDING} times its size"
            raise InputError(fault, remedy="leave it out")


def _dictionaries(metadata: Any) -> list[str]:
    """Columns of a few texts that many rows may share: they are not copied for each row."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    columns = [(n, metadata.schema.column(n)) for n in range(metadata.num_columns)]
    return [
        column.path
        for number, column in columns
        if _is_shared(column) and any(group.column(number).has_dictionary_page for group in groups)
    ]


def _is_shared(column: Any) -> bool:
    is_text = column.logical_type.type in ("STRING", "NONE", "JSON")
    return column.physical_type == "BYTE_ARRAY" and is_text and "." not in column.path


def _rows_at_once(
    raw: BinaryIO, group: Any, schema: Any, columns: Sequence[str], allowance: _Allowance
) -> int:
    """How many rows of a group fit into the memory for a batch, by what its pages hold."""
    row_bytes = 0.0
    for number in range(group.num_columns):
        chunk, column = group.column(number), schema.column(number)
        if column.path.split(".")[0] not in columns:
            continue
        start = min(filter(None, (chunk.dictionary_page_offset, chunk.data_page_offset)), default=0)
        largest, densest, is_packed = 0, 0.0, "DELTA_BYTE_ARRAY" in chunk.encodings
        for page in read_pages(raw, start, chunk.total_compressed_size, chunk.num_values):
            _check_page(page)
            allowance.take(page.size_bytes)
            largest = max(largest, page.size_bytes)
            if page.is_dictionary:
                is_packed |= not (chunk.has_dictionary_page and _is_shared(column))
            else:
                densest = max(densest, page.size_bytes / max(page.values, 1))
        if is_packed and column.physical_type == "BYTE_ARRAY":
            densest = largest  # each value may be as long as the page that they are made of
        elif column.physical_type == "FIXED_LEN_BYTE_ARRAY":
            densest = max(densest, column.length)
        row_bytes += densest * max(chunk.num_values / max(group.num_rows, 1), 1)
    return _fitting(row_bytes)


def _check_page(page: Page) -> None:
    if page.size_bytes > _PAGE_BYTES + _MOST_PACKED * page.stored_bytes:
        fault = f"a page of {page.stored_bytes} bytes would unpack to {page.size_bytes}"
        raise InputError(fault, remedy="leave it out, or write it again in smaller pages")


def _parse(
    batches: Iterator[Any],
    first: int,
    end: int,
    wanted: Callable[[int], bool],
    allowance: _Allowance,
) -> Iterator[tuple[int, int, Record]]:
    shared: dict[int, tuple[Any, int]] = {}
    for batch in batches:
        shared = _longest_shared(batch, shared)
        step = _fitting(sum(longest for _, longest in shared.values()))
        for start in range(0, batch.num_rows, step):
            part = batch.slice(start, step)
            numbers = range(first, first + part.num_rows)
            found = _parse_batch(part) if any(map(wanted, numbers)) else [None] * part.num_rows
            allowance.take(sum(map(_length, found)))
            for number, row in zip(numbers, found, strict=True):
                yield number + 1, 1, row if wanted(number) else None
            first += part.num_rows
    if first != end:
        fault = f"no readable Parquet (row {first} is the last, its footer tells of row {end})"
        raise InputError(fault, remedy="write it again")


def _length(row: Record) -> int:
    """The characters that a row holds."""
    values = row.values() if isinstance(row, dict) else ()
    return sum(len(value) for value in values if isinstance(value, str | bytes | list))


def _fitting(row_bytes: float) -> int:
    return min(max(int(_BYTES // max(row_bytes, 1)), 1), _ROWS)


def _longest_shared(batch: Any, known: dict[int, tuple[Any, int]]) -> dict[int, tuple[Any, int]]:
    """The texts that the batch holds once for all of its rows, with the bytes of the longest.

    Keyed by address: batches share them, and it takes time to look at them.
    """
    import pyarrow as pa
    import pyarrow.compute as compute

    types = pa.types
    kinds = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    found: dict[int, tuple[Any, int]] = {}
    for column in batch.columns:
        if types.is_dictionary(column.type):
            texts = column.dictionary
            if any(is_kind(texts.type) for is_kind in kinds):
                address = texts.buffers()[1].address  # of the offsets; it holds while texts do
                if address not in known:
                    longest = compute.max(compute.binary_length(texts)).as_py() or 0
                    known[address] = (texts, longest)
                found[address] = known[address]
    return found


_NO_VALUE = (ValueError, OverflowError)
"""Raised for what Python has no value for: bytes that are not UTF-8, nanoseconds, a year 20000."""


def _parse_batch(batch: Any) -> list[Record]:
    try:
        return batch.to_pylist()
    except _NO_VALUE:
        return [_parse_row(batch, row) for row in range(batch.num_rows)]


def _parse_row(batch: Any, row: int) -> Record:
    record = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            record[name] = column[row].as_py()
        except _NO_VALUE as error:
            return InputError(f"field {name!r} cannot be read ({error})", remedy="write it again")
    return record


def no_field(field: str, fields: Iterable[object]) -> InputError:
    """The error of a row or a file without a column that was asked for."""
    names = ", ".join(map(str, fields)) or "none"
    return InputError(f"no field {field!r}, but {names}", remedy="name it with --field")
