"""Rows of a Parquet file, a bounded number of bytes at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from mlx_stella.errors import InputError

ID_FIELDS = ("_id", "id")
"""What may hold a row's id."""

_ROWS, _BYTES = 1024, 2**24
"""What is decoded at once: at most so many rows, and about so many bytes or a single row."""

_BUFFER_BYTES = 2**20

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
    import pyarrow.parquet as parquet

    try:
        metadata = parquet.read_metadata(source)
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
            for group in range(file.num_row_groups):
                end = first + file.metadata.row_group(group).num_rows
                if any(map(wanted, range(first, end))):
                    yield from _parse_group(file, group, columns, first, wanted)
                else:
                    yield from ((number + 1, 1, None) for number in range(first, end))
                first = end
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise  # the system's, not what pyarrow calls an OSError when a page is damaged
        raise InputError(f"no readable Parquet ({error})", remedy="write it again") from None


def _dictionaries(metadata: Any) -> list[str]:
    """Columns of a few texts that many rows may share: they are not copied for each row."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    columns = [(n, metadata.schema.column(n)) for n in range(metadata.num_columns)]
    return [
        column.path
        for number, column in columns
        if column.logical_type.type == "STRING"
        and "." not in column.path
        and any(group.column(number).has_dictionary_page for group in groups)
    ]


def _parse_group(
    file: Any, group: int, columns: Sequence[str], first: int, wanted: Callable[[int], bool]
) -> Iterator[tuple[int, int, Record]]:
    facts = file.metadata.row_group(group)
    taken = [facts.column(number) for number in range(facts.num_columns)]
    names = tuple(columns)
    size_bytes = sum(c.total_uncompressed_size for c in taken if c.path_in_schema.startswith(names))
    rows = _fitting(size_bytes // max(facts.num_rows, 1))
    shared: dict[int, tuple[Any, int]] = {}
    for batch in file.iter_batches(rows, row_groups=[group], columns=columns):
        shared = _longest_shared(batch, shared)
        step = _fitting(sum(longest for _, longest in shared.values()))
        for start in range(0, batch.num_rows, step):
            part = batch.slice(start, step)
            numbers = range(first, first + part.num_rows)
            found = _parse_batch(part) if any(map(wanted, numbers)) else [None] * part.num_rows
            for number, row in zip(numbers, found, strict=True):
                yield number + 1, 1, row if wanted(number) else None
            first += part.num_rows


def _fitting(row_bytes: int) -> int:
    return min(max(_BYTES // max(row_bytes, 1), 1), _ROWS)


def _longest_shared(batch: Any, known: dict[int, tuple[Any, int]]) -> dict[int, tuple[Any, int]]:
    """The texts that the batch holds once for all of its rows, with the bytes of the longest.

    Keyed by address: batches share them, and it takes time to look at them.
    """
    import pyarrow as pa
    import pyarrow.compute as compute

    found: dict[int, tuple[Any, int]] = {}
    for column in batch.columns:
        if pa.types.is_dictionary(column.type):
            texts = column.dictionary
            if pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type):
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
