"""A file takes time and memory by its size, whatever it holds; one that does not is given up."""

import json

import pytest

pytest.importorskip("pypdf")
pytest.importorskip("pyarrow")
import pyarrow as pa
import pyarrow.parquet
from support.growth import growth
from support.pdf import pdf

from mlx_stella.errors import InputError
from mlx_stella.files import parquet
from mlx_stella.files.tables import read_entries
from mlx_stella.retrieval import pdf as pdf_reading
from mlx_stella.retrieval import reading
from mlx_stella.retrieval.scanning import Key, SourceFile

LETTERS = b"beginbfrange\n<0000> <FFFE> <0000>\nendbfrange\n"
"""It makes a font of 65,535 letters, which takes a fifth of a second. It draws nothing."""
LARGE = {"font": b"/ToUnicode 5 0 R", "form": LETTERS + b"BT /F 9 Tf (tea) Tj ET"}

SHOWN = b"BT /F 9 Tf %s ET"

KINDS = {
    "lines of text.txt": lambda size: b"tea\n" * size,
    "rows.jsonl": lambda size: b'{"text": "tea"}\n' * size,
    "one row.jsonl": lambda size: json.dumps({"text": "té " * size}).encode(),
    "keys.jsonl": lambda size: json.dumps(
        {"text": "tea"} | {f"k{n}": n for n in range(size)}
    ).encode(),
    "a number.jsonl": lambda size: b'{"text": "tea", "n": [' + b"1e9," * size + b"1]}",
    "empty lines.jsonl": lambda size: b"\n" * size + b'{"text": "tea"}\n',
    "rows.csv": lambda size: b"text\n" + b"tea\n" * size,
    "line ends in a field.csv": lambda size: b'text\n"' + b"tea\n" * size + b'"\n',
    "quotes in a field.csv": lambda size: b'text\n"' + b'""' * size + b'"\n',
    "columns.csv": lambda size: b"text" + b",a" * size + b"\ntea\n",
    "shows.pdf": lambda size: pdf(SHOWN % (b"(tea) Tj 1 0 Td " * size)),
    "pages.pdf": lambda size: pdf(SHOWN % b"(tea) Tj", pages=size),
    "brackets.pdf": lambda size: pdf(SHOWN % (b"[" * size)),
    "blanks.pdf": lambda size: pdf(SHOWN % (b" " * size)),
}


def read(path, content: bytes) -> int:
    path.write_bytes(content)
    if path.suffix == ".txt":
        return sum(1 for _ in read_entries(path, "text", ending=".txt"))
    try:
        return sum(len(p.text) for p in reading.read(SourceFile(Key("/", path.name), path), ()))
    except InputError:
        return -1


@pytest.mark.parametrize("kind", KINDS)
def test_time_grows_with_the_size(tmp_path, kind):
    assert growth(lambda size: read(tmp_path / kind, KINDS[kind](size)), 200) < 8


@pytest.mark.parametrize("texts", [["tea " * 99], [f"tea {n}" for n in range(99)]])
def test_time_grows_with_the_rows_of_parquet(tmp_path, texts):
    def rows(size):
        table = pa.table({"text": texts * size})
        pa.parquet.write_table(table, tmp_path / "a.parquet")
        assert read_file(tmp_path / "a.parquet") == size * sum(map(len, texts))

    assert growth(rows, 8) < 8


def test_a_parquet_that_unfolds_without_end_is_given_up(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    pa.parquet.write_table(pa.table({"text": ["tea" * 10_000] * 300}), path)
    assert read_file(path) == 9_000_000 > 1000 * path.stat().st_size
    monkeypatch.setattr(parquet, "_UNFOLDED", 10_000)
    with pytest.raises(InputError, match="over 1000 times its size"):
        list(reading.read(SourceFile(Key("/", "a.parquet"), path), ()))


def read_file(path) -> int:
    return read(path, path.read_bytes())


@pytest.mark.parametrize(
    "content",
    [
        pdf(SHOWN % (b"(tea) Tj " * 300), pages=20),
        pdf(b"/X Do " * 100, form=SHOWN % (b"(tea) Tj " * 30)),
        pdf(b" " * 2**15, pages=20),
        pdf(b"0 0 m " * 3000),
        pdf(SHOWN % b"(tea) Tj", pages=3, **LARGE),
        pdf(SHOWN % b"(tea) Tj", names=3, **LARGE),
        pdf(b"/X Do " * 3, **LARGE),
    ],
    ids=[
        "pages of one stream",
        "one form drawn often",
        "blanks",
        "lines without words",
        "a large font on each page",
        "a large font by many names",
        "a large font in a form",
    ],
)
def test_a_pdf_that_draws_the_same_too_often_is_given_up(tmp_path, monkeypatch, content):
    assert read(tmp_path / "a.pdf", content) >= 0
    monkeypatch.setattr(pdf_reading, "_STEPS", 2000 - len(content))
    with pytest.raises(InputError, match="draws the same too often"):
        list(reading.read(SourceFile(Key("/", "a.pdf"), tmp_path / "a.pdf"), ()))
