"""What the pages of a column of Parquet hold, read from their own headers.

A footer may say anything of a file. The header before each page is what a reader allocates by and
decodes by, so its numbers are those that count. Headers are structs of Thrift's compact protocol:
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift,
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from mlx_stella.errors import InputError

_HEADER_BYTES, _MOST_HEADER_BYTES = 2**8, 2**24  # usual ones have 20 to 100, with statistics more
_MOST_NESTED = 16

_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3  # PageType
_TYPE, _SIZE, _STORED = 1, 2, 3  # fields of PageHeader
_HEADERS = {_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}
_VALUES = 1  # field of each of the three

_WIDTHS = {3: 1, 7: 8}  # Thrift's types: byte and double
_TRUE, _FALSE, _I16, _I32, _I64, _BINARY, _STRUCT = 1, 2, 4, 5, 6, 8, 12


@dataclass(frozen=True)
class Page:
    """A page: how many values it has, its bytes before and after they are unpacked."""

    values: int
    stored_bytes: int
    size_bytes: int
    is_dictionary: bool


def read_pages(file: BinaryIO, start: int, stored_bytes: int, values: int) -> Iterator[Page]:
    """The pages of a column of a group of rows, until they hold as many values as it has.

    Raises:
        InputError: a header is not one of a page.
        OSError: the file cannot be read.
    """
    end = start + stored_bytes
    while start < end and values > 0:
        header, size = _header(file, start)
        try:
            kind = header[_TYPE]
            count = header[_HEADERS[kind]][_VALUES] if kind in _HEADERS else 0
            page = Page(count, header[_STORED], header[_SIZE], kind == _DICTIONARY)
        except (KeyError, TypeError):
            raise _damaged() from None
        if min(page.values, page.stored_bytes, page.size_bytes) < 0:
            raise _damaged()
        yield page
        start += size + page.stored_bytes
        values -= 0 if page.is_dictionary else page.values


def _header(file: BinaryIO, start: int) -> tuple[dict[int, Any], int]:
    """The header at a place, by number of the field, and how long it is."""
    length = _HEADER_BYTES
    while length <= _MOST_HEADER_BYTES:
        file.seek(start)
        content = file.read(length)
        thrift = _Thrift(content)
        try:
            return thrift.struct(), thrift.tell()
        except EOFError:
            if len(content) < length:
                break
        length *= 4
    raise _damaged()


def _damaged() -> InputError:
    return InputError("no readable Parquet (the header of a page)", remedy="write it again")


class _Thrift(io.BytesIO):
    """Raises EOFError where the bytes end, InputError where they are no struct."""

    def struct(self, depth: int = 0) -> dict[int, Any]:
        if depth > _MOST_NESTED:
            raise _damaged()
        fields: dict[int, Any] = {}
        number = 0
        while (head := self._take(1)[0]) != 0:
            number = number + (head >> 4) if head >> 4 else self._integer()
            fields[number] = self._value(head & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind in (_I16, _I32, _I64):
            return self._integer()
        if kind in _WIDTHS:
            return self._take(_WIDTHS[kind])
        if kind == _BINARY:
            return self._take(self._unsigned())
        if kind == _STRUCT:
            return self.struct(depth + 1)
        raise _damaged()  # lists and maps: pages have none

    def _integer(self) -> int:
        folded = self._unsigned()
        return (folded >> 1) ^ -(folded & 1)

    def _unsigned(self) -> int:
        result = 0
        for shift in range(0, 70, 7):
            byte = self._take(1)[0]
            result |= (byte & 127) << shift
            if byte < 128:
                return result
        raise _damaged()

    def _take(self, size: int) -> bytes:
        content = self.read(size)
        if len(content) < size:
            raise EOFError
        return content
