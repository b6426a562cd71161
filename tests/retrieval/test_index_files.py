"""Which files an index takes, and what is read from them."""

import errno
import inspect
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("semantic_text_splitter")
pytest.importorskip("pyarrow")
import pyarrow as pa
import pyarrow.parquet
from support import any_bytes_in_names
from support.growth import growth
from support.indexing import TOKENIZER

from mlx_stella.errors import InputError
from mlx_stella.files import tables
from mlx_stella.files.tables import read_rows
from mlx_stella.retrieval import chunking, reading, scanning
from mlx_stella.retrieval.chunking import Chunker
from mlx_stella.retrieval.gitignore import _parse_pattern
from mlx_stella.retrieval.scanning import Key, SourceFile, scan

ODD_NAMES = [
    "--to",
    "-rf",
    "x' OR 1=1 --.md",
    "a%b_c.md",
    "日本 語.txt",
    "a\nb.txt",
    "*.txt",
    'q".md',
]


def names(found) -> list[str]:
    return [file.key.name for file in found.files]


def reasons(notes) -> dict[str, str]:
    return {note.key.name: note.reason for note in notes}


def read(path, *fields) -> list:
    return list(reading.read(SourceFile(Key(str(path.parent), path.name), path), fields))


def test_gitignore_hidden_files_and_the_index_itself(tmp_path):
    for name in ("a.md", "b.log", "sub/c.md", "sub/d.log", "sub/keep.log", "build/e.md", ".h/f.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("words")
    (tmp_path / ".gitignore").write_text("*.log\n/build/\n[\n")
    (tmp_path / "sub" / ".gitignore").write_text("!keep.log\n")
    (tmp_path / "idx").mkdir()
    (tmp_path / "idx" / "x.md").write_text("words")
    found = scan([tmp_path], exclude=tmp_path / "idx")
    assert names(found) == ["a.md", "sub/c.md", "sub/keep.log"]
    assert names(scan([tmp_path], ["*.log"])) == ["sub/keep.log"]
    assert names(scan([tmp_path], ["sub/*.md"])) == ["sub/c.md"]


def test_gitignore_of_the_repository_above(tmp_path):
    for name in ("docs/a.md", "docs/b.log", "docs/sub/c.tmp", "docs/sub/d.md", "build/e.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("words")
    (tmp_path / ".gitignore").write_text("*.log\n/build/\n")
    (tmp_path / "docs" / ".gitignore").write_text("sub/*.tmp\n")
    assert names(scan([tmp_path / "docs" / "sub"])) == ["c.tmp", "d.md"]  # no repository yet
    (tmp_path / ".git").mkdir()
    assert names(scan([tmp_path / "docs"])) == ["a.md", "sub/d.md"]
    assert names(scan([tmp_path / "docs" / "sub"])) == ["d.md"]
    assert names(scan([tmp_path / "build"])) == ["e.md"]  # for it was asked for


@pytest.mark.parametrize(
    ("above", "below", "taken"),
    [
        ("*.log", "!sub/", ["d/sub/a.md"]),  # the folder is taken back, not all that is in it
        ("*\n!*/\n!*.md", "", ["d/sub/a.md"]),
        ("d/**\n!d/sub/\n!a.*", "", ["d/sub/a.log", "d/sub/a.md"]),
        ("/d/*\n!/d/sub", "*.md", ["d/sub/a.log"]),
        ("d/\n!a.md", "", []),  # git does not look into a folder that is ignored
        ("\ufeff*.md", "", ["d/sub/a.log"]),
        ("!\n/\n[\n# *\n*.md  \r", "", ["d/sub/a.log"]),
        ("**/sub/*.md", "", ["d/sub/a.log"]),
        ("[z-a].*\n[z-ab].md\na.[!a-l]*", "", ["d/sub/a.log"]),  # such a range holds no a
        ("d/[/s]ub/*.md\na.\\log", "", []),
        ("d/**/**/a.*\n**/x/**", "!/s?[]-b]/*.l*g\nd/**", ["d/sub/a.log"]),
    ],
)
def test_gitignore_as_git_reads_it(tmp_path, above, below, taken):
    (tmp_path / "d" / "sub").mkdir(parents=True)
    for name in ("a.md", "a.log"):
        (tmp_path / "d" / "sub" / name).write_text("words")
    (tmp_path / ".gitignore").write_text(above)
    (tmp_path / "d" / ".gitignore").write_text(below)
    assert names(scan([tmp_path])) == taken
    if shutil.which("git"):
        git = ("git", "-C", tmp_path)
        subprocess.run([*git, "init", "-q"], check=True)
        listed = subprocess.check_output(
            [*git, "ls-files", "--others", "--exclude-per-directory=.gitignore"], text=True
        )
        assert sorted(set(listed.split()) - {".gitignore", "d/.gitignore"}) == taken


@pytest.mark.parametrize("piece", ["*a", "**/a/", "**/*a/**/", "?*", "[!b]*", "a**"])
def test_stars_take_no_longer_than_the_path(piece):
    pattern = _parse_pattern(piece * 12 + "b")

    def match(size):  # of a path that a system allows: longer ones show how large the caches are
        path = "a/" * size + "a" * size
        assert not any(pattern.matches(path, False) for _ in range(1000))

    assert growth(match, 200) < 8


@pytest.mark.parametrize("piece", ["**/a/", "*a", "a/**/", "[", "[a]*", "?**/"])
def test_the_patterns_of_an_index_take_time_by_their_length(piece):
    """Of a hostile index: with n times ``**/`` there were 2**n patterns to match."""

    def match(size):
        pattern = piece * size + "b"
        scanning._regex.cache_clear()
        assert not scanning._matches("a/" * 50 + "a", [pattern])
        _parse_pattern(pattern)

    assert growth(match, 500) < 8


def test_a_gitignore_without_end_ignores_nothing(tmp_path):
    (tmp_path / "a.md").write_text("words")
    (tmp_path / ".gitignore").write_text("*.md\n" * 2**18)
    assert names(scan([tmp_path])) == ["a.md"]


def test_an_ignored_folder_that_is_asked_for(tmp_path):
    """It is read for all that, but what else is ignored is left out."""
    for name in ("build/sub/a.md", "build/sub/b.log", "build/sub/c.tmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("words")
    (tmp_path / ".git").mkdir()
    (tmp_path / "build" / ".gitignore").write_text("*.tmp\n")
    for ignores in ("*.log\n/build/\n", "*.log\n*\n", "*.log\nbuild/**\n"):
        (tmp_path / ".gitignore").write_text(ignores)
        assert names(scan([tmp_path / "build" / "sub"])) == ["a.md"]


def test_a_gitignore_that_cannot_be_read_ignores_nothing(tmp_path):
    (tmp_path / "a.md").write_text("words")
    (tmp_path / ".gitignore").symlink_to(".gitignore")
    assert names(scan([tmp_path])) == ["a.md"]
    (tmp_path / ".gitignore").unlink()
    os.mkfifo(tmp_path / ".gitignore")
    assert names(scan([tmp_path])) == ["a.md"]


def test_folders_nest_deeper_than_calls(tmp_path):
    (tmp_path / ("d/" * 300)).mkdir(parents=True)
    (tmp_path / ("d/" * 300) / "a.md").write_text("words")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 200)
    try:
        assert names(scan([tmp_path])) == ["d/" * 300 + "a.md"]
    finally:
        sys.setrecursionlimit(limit)


def test_links_huge_and_special_files_are_listed(tmp_path, monkeypatch):
    outside, root = tmp_path / "secret.md", tmp_path / "root"
    outside.write_text("secret")
    (root / "sub").mkdir(parents=True)
    (root / "real.md").write_text("words")
    (root / "inside.md").symlink_to(root / "real.md")
    (root / "leaves.md").symlink_to(outside)
    (root / "folder").symlink_to(root / "sub")
    (root / "sub" / ".env").write_text("secret")
    (root / "hidden").symlink_to(root / "sub" / ".env")
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "pipe")
    monkeypatch.setattr(scanning, "MAX_FILE_BYTES", 10)
    (root / "huge.md").write_text("x" * 11)
    (root / "tables.jsonl").write_text('{"text": "longer than ten bytes"}\n')
    found = scan([root])
    assert names(found) == ["inside.md", "real.md", "tables.jsonl"]
    assert reasons(found.skipped) == {
        "leaves.md": "a link that leaves the folder",
        "folder": "a link to a folder",
        "hidden": "a link to a hidden file",
        "loop": "a broken link",
        "pipe": "no regular file",
        "huge.md": "0 MiB, more than 0 MiB",
    }


def test_beir_folders(tmp_path):
    """Only the corpus is taken, wherever the folder lies, and as any other file would be."""
    outside, beir = tmp_path / "outside.jsonl", tmp_path / "root" / "sub" / "beir"
    beir.mkdir(parents=True)
    corpus = beir / "corpus.jsonl"
    corpus.write_text('{"_id": "d", "title": "Tea", "text": "green"}\n')
    (alone,) = scan([beir]).files
    (beir / "queries.jsonl").write_text('{"_id": "q", "text": "which tea?"}\n')
    (found,) = scan([tmp_path / "root"]).files
    assert found.key.name == "sub/beir/corpus.jsonl"
    assert [passage.text for passage in reading.read(found, ())] == ["Tea\ngreen"]
    assert reading.content_hash(found, ()) != reading.content_hash(alone, ())
    assert names(scan([beir])) == ["corpus.jsonl"]
    assert names(scan([beir], ["*.md"])) == []
    corpus.rename(outside)
    corpus.symlink_to(outside)
    assert reasons(scan([beir]).skipped) == {"corpus.jsonl": "a link that leaves the folder"}


def test_other_indexes_and_vectors_are_left_out_in_a_line(tmp_path):
    for name in ("idx/chunks.lance", "idx/notes.lance", "bulk", "data", "data/chunks.lance"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("idx/a.md", "idx/chunks.lance/b.md", "data/chunks.lance/c.md"):
        (tmp_path / name).write_text("words")
    for name in ("bulk", "data"):
        (tmp_path / name / "part-00000.parquet").write_bytes(b"PAR1")
    (tmp_path / "bulk" / "manifest.json").write_text('{"input_blake2b": "", "part_rows": 9}')
    (tmp_path / "data" / "manifest.json").write_text('{"rows": 9}')
    found = scan([tmp_path])
    taken = ["data/chunks.lance/c.md", "data/manifest.json", "data/part-00000.parquet"]
    assert names(found) == taken
    assert reasons(found.skipped) == {"idx": "an index", "bulk": "a folder of vectors"}


def test_a_folder_that_may_be_listed_but_not_entered(tmp_path, monkeypatch):
    """As chmod a=r leaves it, for all but root."""
    folder, system = tmp_path / "sub", os.stat
    folder.mkdir()
    (folder / "a.md").write_text("words")

    def denied(path, *arguments, **options):
        if isinstance(path, str | Path) and Path(path).parent == folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return system(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", denied)
    assert reasons(scan([tmp_path]).failed) == {"sub/a.md": "Permission denied"}


def test_names_are_text(tmp_path):
    for name in ODD_NAMES:
        (tmp_path / name).write_text("words")
    assert sorted(names(scan([tmp_path]))) == sorted(ODD_NAMES)
    found = scan([tmp_path / name for name in ODD_NAMES])
    assert sorted(names(found)) == sorted(ODD_NAMES)


@given(st.binary(max_size=12) | st.text(alphabet="\\\\x5cfé", max_size=12).map(str.encode))
def test_a_name_of_any_bytes_is_a_text_of_its_own(name):
    text = scanning.text_of(os.fsdecode(name))
    assert os.fsencode(scanning.path_of(text)) == os.fsencode(Path(os.fsdecode(name)))
    text.encode()


@any_bytes_in_names
def test_names_that_are_not_utf8(tmp_path):
    for name in (b"\xff.txt", b"\\xff.txt", b"\\x5cxff.txt", b"\\a.txt"):
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    found = scan([tmp_path])
    assert names(found) == ["\\a.txt", "\\x5cx5cxff.txt", "\\x5cxff.txt", "\\xff.txt"]
    for file in found.files:
        assert (tmp_path / scanning.path_of(file.key.name)).read_bytes() == os.fsencode(
            file.path.name
        )


@pytest.mark.parametrize(
    ("glob", "taken"),
    [
        ("docs/**/*.md", "docs/a.md docs/x/b.md docs/x/y/c.md"),
        ("**/x/**/*.md", "docs/x/b.md docs/x/y/c.md"),
        ("**/x/**/y/**/*.md", "docs/x/y/c.md"),
        ("docs/**", "docs/a.md docs/x/b.md docs/x/y/c.md"),
        ("**/*.md", "docs/a.md docs/x/b.md docs/x/y/c.md top.md"),
    ],
)
def test_two_stars_of_a_glob_may_stand_for_no_folder(tmp_path, glob, taken):
    for name in ("top.md", "docs/a.md", "docs/x/b.md", "docs/x/y/c.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("words")
    assert names(scan([tmp_path], [glob])) == taken.split()


def test_what_a_scan_covers(tmp_path):
    (tmp_path / "a.md").write_text("words")
    root = str(tmp_path)
    assert scan([tmp_path]).covers(Key(root, "gone.md"))
    assert not scan([tmp_path], ["*.txt"]).covers(Key(root, "gone.md"))
    assert not scan([tmp_path / "a.md"]).covers(Key(root, "gone.md"))
    assert not scan([tmp_path]).covers(Key("/elsewhere", "gone.md"))


def test_paths_that_cannot_be_scanned(tmp_path):
    (tmp_path / "sub").mkdir()
    with pytest.raises(InputError, match=r"nothing: No such file or directory; remedy"):
        scan([tmp_path / "nothing"])
    with pytest.raises(InputError, match="lies in"):
        scan([tmp_path, tmp_path / "sub"])


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_rows(tmp_path, name):
    path = tmp_path / name
    texts, ids = ["naïve, “café”\nsecond line", "b"], ["x1", "x2"]
    if name == "a.jsonl":
        lines = [json.dumps({"id": i, "body": t}) for i, t in zip(ids, texts, strict=True)]
        path.write_text("\ufeff" + "\n\n".join(lines))
        expected = [(1, 1), (3, 3)]
    elif name == "a.csv":
        path.write_text('id,body\r\nx1,"naïve, “café”\nsecond line"\r\nx2,b\r\n', newline="")
        expected = [(2, 3), (4, 4)]
    else:
        pa.parquet.write_table(pa.table({"id": ids, "body": texts}), path)
        expected = [(1, 1), (2, 2)]
    found = read(path, "body")
    assert [(p.text, p.record) for p in found] == list(zip(texts, ids, strict=True))
    assert [p.row for p in found] == expected
    for passage in found:
        for chunk in Chunker(TOKENIZER, 4, 0).chunks(passage):
            assert (chunk.start_line, chunk.end_line) == passage.row
    with pytest.raises(InputError, match=r"no field 'text', but id, body; remedy"):
        read(path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", b'{"text": "a"}\n{', "line 2: not JSON"),
        ("a.jsonl", b'{"text": "a"}\n[1]', "line 2: no JSON object"),
        ("a.jsonl", b'{"text": 3}', "line 1: field 'text' is no string"),
        ("a.jsonl", b'{"text": "\\ud800"}', "line 1: field 'text' holds a lone surrogate"),
        ("a.jsonl", b'{"text": "\xff"}', "line 1: not UTF-8"),
        ("a.jsonl", b"[" * 100_000, "line 1: not JSON"),
        ("a.jsonl", b'{"text": "' + b"x" * 2000, "line 1: longer than"),
        ("a.csv", b'text\n"open' + b"\nx" * 2000, "not CSV"),
        ("a.parquet", b"PAR1 or not", "no readable Parquet"),
        ("a.pdf", b"%PDF-1.4 or not", "no readable PDF"),
        ("a.md", b"caf\xe9 and more words", "not UTF-8 (byte 3)"),
    ],
)
def test_damaged_files_say_why(tmp_path, monkeypatch, name, content, reason):
    monkeypatch.setattr(tables, "MAX_LINE_BYTES", 10**6 if b"[[" in content else 1000)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        read(tmp_path / name)
    assert reason in str(error.value) and "; remedy: " in str(error.value)


@pytest.mark.parametrize("shares", [True, False], ids=["in a dictionary", "row by row"])
def test_a_parquet_of_much_text_is_read_bit_by_bit(tmp_path, shares):
    """As 300 rows of one text of 20 MB, which took over 2 GB, but below the ratio given up at."""
    path, text = tmp_path / "a.parquet", random.Random(0).randbytes(150_000).hex()
    limit = 2**30 if shares else 2**10
    table = pa.table({"text": [text] * 900})
    pa.parquet.write_table(
        table, path, compression="zstd", dictionary_pagesize_limit=limit, write_statistics=False
    )
    del table
    assert path.stat().st_size < 2**18 or not shares
    before, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        assert sum(row.text == text for row in read_rows(path, ["text"])) == 900
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
    assert pool.max_memory() < 100e6


def test_a_value_of_parquet_that_python_cannot_hold_is_a_fault_of_its_row(tmp_path):
    """to_pylist raises for the whole batch."""
    texts = pa.array([b"tea", b"\xff", b"mate", b"water"])
    texts = pa.Array.from_buffers(pa.string(), len(texts), texts.buffers())
    days = pa.array([0, 0, 2**30, None], pa.int32()).cast(pa.date32())
    path = tmp_path / "a.parquet"
    pa.parquet.write_table(pa.table({"id": days, "text": texts}), path)
    found = list(tables.read_entries(path, "text", ending=path.suffix))
    assert [entry.text for entry in found[::3]] == ["tea", "water"]
    assert [found[1].line, found[2].line] == [2, 3]
    assert "field 'text' cannot be read ('utf-8' codec" in found[1].fault
    assert "field 'id' cannot be read" in found[2].fault
    with pytest.raises(InputError, match=r"^row 2: field 'text' cannot be read .*; remedy: "):
        read(path)


def test_a_row_of_csv_is_a_row_whatever_is_in_it(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(
        b'text,id\n"a\nb\xff\nc",1\n\nd,2\n\n"e\n\nf",3\n\xfe,4\ng,5,more\nh\n"open\ni'
    )
    entries = list(tables.read_entries(path, "text", ending=path.suffix))
    found = [(e.text, e.line, e.lines, e.record) for e in entries if isinstance(e, tables.TableRow)]
    assert found == [("d", 6, 1, "2"), ("e\n\nf", 8, 3, "3"), ("g", 12, 1, "5"), ("h", 13, 1, "")]
    remedy = "convert the file, for example with iconv -f latin1 -t utf-8"
    assert [entry for entry in entries if isinstance(entry, tables.Fault)] == [
        tables.Fault(2, "", "not UTF-8 (byte 0xff)", remedy),
        tables.Fault(11, "", "not UTF-8 (byte 0xfe)", remedy),
        tables.Fault(14, "", "not CSV (unexpected end of data)", "mend it"),
    ]


def test_binary_files_are_left_out(tmp_path):
    for name, content in (("a.bin", b"ab\0cd"), ("b", b"\xff\xfa\x00"), ("c.dat", b"caf\xe9")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(reading.NotText, match="binary"):
            read(tmp_path / name)


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]
)
def test_text_may_begin_with_a_byte_order_mark(tmp_path, encoding):
    content = "\ufefftea 茶".encode(encoding.removesuffix("-sig"))
    (tmp_path / "d.txt").write_bytes(content)
    assert read(tmp_path / "d.txt")[0].text == "tea 茶"


def test_a_pdf_is_read_page_by_page(tmp_path):
    """Two pages, written by hand."""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [4 0 R 6 0 R] /Count 2 >>",
    ]
    objects += [b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    for number, words in ((4, b"Green tea"), (6, b"Black tea")):
        stream = b"BT /F1 12 Tf 20 20 Td (" + words + b") Tj ET"
        objects += [
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 50] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % (number + 1),
            b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        ]
    content, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(content))
        content += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    content += b"xref\n0 %d\n0000000000 65535 f \n%strailer << /Root 1 0 R /Size %d >>\n" % (
        size,
        table,
        size,
    )
    content += b"startxref\n%d\n%%%%EOF" % content.index(b"xref")
    (tmp_path / "tea.pdf").write_bytes(content)
    found = [(passage.heading, passage.text) for passage in read(tmp_path / "tea.pdf")]
    assert found == [("page 1", "Green tea"), ("page 2", "Black tea")]


MARKDOWN = """# Tea

Leaves in water, hot or cold, and time for them to open.

## Green

Not oxidised; steamed in Japan and pan fired in China, as it has long been done.

```
# no heading
```

# Coffee

Beans, roasted and ground, in water that is nearly boiling; many ways lead there.
"""


def test_chunks_know_their_lines_and_headings(tmp_path):
    (tmp_path / "a.md").write_text(MARKDOWN)
    (passage,) = read(tmp_path / "a.md")
    chunker = Chunker(TOKENIZER, 32, 0)
    chunks = list(chunker.chunks(passage))
    lines = MARKDOWN.split("\n")
    for chunk in chunks:
        stretch = "\n".join(lines[chunk.start_line - 1 : chunk.end_line])
        assert chunk.text.strip() in stretch
    headings = {
        word: c.heading for c in chunks for word in ("Leaves", "steamed", "Beans") if word in c.text
    }
    assert headings == {"Leaves": "Tea", "steamed": "Tea > Green", "Beans": "Coffee"}


def test_chunks_fit_and_lose_nothing(tmp_path):
    """In the model's own tokens, for prose, Markdown and code; overlap repeats, never skips."""
    text = Path(scanning.__file__).read_text() + MARKDOWN * 3
    words = {n for n, line in enumerate(text.split("\n"), start=1) if line.strip()}
    for kind, overlap in itertools.product(("text", "markdown", "python"), (0, 6)):
        chunker = Chunker(TOKENIZER, 32, overlap)
        chunks = list(chunker.chunks(reading.Passage(text, kind)))
        tokens = TOKENIZER.encode([chunk.text for chunk in chunks], "", 512)
        assert max(t.untruncated_length for t in tokens) <= 32 + TOKENIZER.special_tokens
        covered = {n for c in chunks for n in range(c.start_line, c.end_line + 1)}
        assert words <= covered
        if not overlap:
            assert "".join("".join(c.text for c in chunks).split()) == "".join(text.split())


def test_a_long_text_is_split_block_by_block(monkeypatch):
    monkeypatch.setattr(chunking, "BLOCK", 500)
    chunker = Chunker(TOKENIZER, 32, 0)
    for text in (MARKDOWN * 5, "tea " * 1000, "茶" * 2000):
        chunks = list(chunker.chunks(reading.Passage(text, "markdown")))
        assert "".join("".join(c.text for c in chunks).split()) == "".join(text.split())
        lines = text.split("\n")
        for chunk in chunks:
            stretch = "\n".join(lines[chunk.start_line - 1 : chunk.end_line])
            assert chunk.text.strip() in stretch


def test_a_definition_is_the_heading_of_code(tmp_path):
    source = "import os\n\n\nclass Tea:\n    def brew(self, leaves):\n        return leaves\n"
    passage = reading.Passage(source, "python")
    chunks = list(Chunker(TOKENIZER, 24, 0).chunks(passage))
    assert chunks[-1].heading in ("def brew(self, leaves)", "class Tea")


def test_white_space_gives_no_chunk():
    assert list(Chunker(TOKENIZER, 24, 0).chunks(reading.Passage(" \n\t\n"))) == []


@given(st.text(alphabet=st.sampled_from("tea wat\n .é茶\u00a0"), max_size=120))
def test_prose_that_fits_is_cut_as_the_splitter_would(text):
    whole = Chunker(TOKENIZER, 32, 4)
    split = Chunker(TOKENIZER, 32, 4)
    split._fits = lambda text: False
    passage = reading.Passage(text)
    assert list(whole.chunks(passage)) == list(split.chunks(passage))
