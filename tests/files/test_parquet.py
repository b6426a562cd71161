"""A Parquet file takes time and memory by its size, whatever its footer and its pages say."""

import io
import struct

import pytest

pytest.importorskip("pyarrow")
import pyarrow as pa
import pyarrow.parquet

from mlx_stella.errors import InputError
from mlx_stella.files import parquet
from mlx_stella.files.tables import TableRow, read_entries

ROWS = 300


def written(texts, **options) -> bytes:
    file = io.BytesIO()
    pa.parquet.write_table(pa.table({"text": texts}), file, **options)
    return file.getvalue()


def read(content: bytes, keeps_fields: bool = False) -> list[str]:
    entries = read_entries(
        io.BytesIO(content), "text", ending=".parquet", keeps_fields=keeps_fields
    )
    return [entry.text for entry in entries if isinstance(entry, TableRow)]


def integer(value: int) -> bytes:
    """As Thrift's compact protocol writes it."""
    folded, content = 2 * value, b""
    while folded > 127:
        content += bytes([folded & 127 | 128])
        folded >>= 7
    return content + bytes([folded])


def with_rows(content: bytes, told: int) -> bytes:
    """The file with another number of rows, and of values, in its footer."""
    length, magic = struct.unpack("<I4s", content[-8:])
    footer = content[-8 - length : -8].replace(integer(ROWS), integer(told))
    return content[: -8 - length] + footer + struct.pack("<I4s", len(footer), magic)


@pytest.mark.parametrize("told", [ROWS - 1, ROWS + 1, 2**20, 2**40, 2**62])
def test_a_footer_that_lies_about_rows(told):
    content = written([f"tea {n}" for n in range(ROWS)], use_dictionary=False)
    assert with_rows(content, ROWS) == content and len(read(content)) == ROWS
    if told < ROWS:
        assert len(read(with_rows(content, told))) == told
    else:
        with pytest.raises(InputError, match=r"no readable Parquet|over 1000 times its size"):
            read(with_rows(content, told))
        # Rows that are not wanted are counted only.
        with pytest.raises(InputError) if told > 2**20 else pytest.raises(AssertionError):
            entries = read_entries(
                io.BytesIO(with_rows(content, told)), "text", lambda n: False, ending=".parquet"
            )
            raise AssertionError(sum(1 for _ in entries))


LONG = "tea " * 2**18

PACKED = {
    "delta": ([LONG] * 64, {"column_encoding": {"text": "DELTA_BYTE_ARRAY"}}),
    "dictionary": ([LONG] * 64, {}),
    "uneven": (["a"] * 20_000 + [LONG] * 64, {"max_rows_per_page": 4}),
}


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("type_", [pa.string(), pa.binary()], ids=str)
def test_rows_are_unpacked_a_few_at_a_time(kind, type_):
    texts, options = PACKED[kind]
    content = written(pa.array(texts, type_), **{"use_dictionary": kind == "dictionary"} | options)
    before, most = pa.total_allocated_bytes(), 0
    for _ in read_entries(io.BytesIO(content), "text", ending=".parquet"):
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 40 * 2**20 < 64 * len(LONG)


def test_a_page_that_would_unpack_to_much_is_given_up(monkeypatch):
    content = written(["tea " * 1000] * ROWS, use_dictionary=False, compression="zstd")
    assert len(read(content)) == ROWS
    monkeypatch.setattr(parquet, "_PAGE_BYTES", 2**20)
    with pytest.raises(InputError, match=r"a page of \d+ bytes would unpack to 1\d+; remedy"):
        read(content)


@pytest.mark.parametrize("keeps_fields", [False, True])
def test_rows_that_unfold_are_given_up_by_whoever_reads(monkeypatch, keeps_fields):
    content = written(["tea" * 10_000] * ROWS)
    assert len(read(content, keeps_fields)) == ROWS
    monkeypatch.setattr(parquet, "_UNFOLDED", 10_000)
    with pytest.raises(InputError, match="over 1000 times its size; remedy: leave it out"):
        read(content, keeps_fields)


def test_a_large_footer_is_not_read(monkeypatch):
    content = written(["tea"])
    monkeypatch.setattr(parquet, "_MOST_FOOTER_BYTES", 100)
    with pytest.raises(InputError, match="its footer has"):
        read(content)


@pytest.mark.parametrize("place", range(4, 30))
def test_a_damaged_header_of_a_page_is_told(place):
    content = bytearray(written([f"tea {n}" for n in range(ROWS)]))
    for value in (0, 0x7F, 0xFF):
        content[place] = value
        try:
            read(bytes(content))
        except InputError as error:
            assert error.remedy
