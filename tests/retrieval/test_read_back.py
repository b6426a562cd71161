"""What an index gives back of a file: its lines, each once, or its passages."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("lancedb")
from support.indexing import TOKENIZER, contents, run_index, store_of

from mlx_stella.errors import InputError
from mlx_stella.retrieval import passages, scanning
from mlx_stella.retrieval.chunking import Chunk, Chunker
from mlx_stella.retrieval.reading import Passage

pytestmark = pytest.mark.filterwarnings("ignore:.*[Ll]ocal:UserWarning")
CODE = Path(scanning.__file__).read_text()


def joined(text: str, kind: str, tokens: int, overlap: int) -> str:
    chunks = list(Chunker(TOKENIZER, tokens, overlap).chunks(Passage(text, kind)))
    return passages.join_lines(chunks, overlap, None)


@pytest.mark.parametrize("kind", ["text", "markdown", "python"])
@pytest.mark.parametrize("overlap", [0, 32])
def test_code_keeps_its_lines(kind, overlap):
    """But for the indentation of a line that is a chunk, or the first of one, by itself."""
    back = joined(CODE, kind, 256, overlap).split("\n")
    lines = CODE.rstrip().split("\n")
    assert [line.strip() for line in back] == [line.strip() for line in lines]
    assert sum(a == b.rstrip() for a, b in zip(back, lines, strict=True)) > 0.9 * len(lines)


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(
        st.lists(st.sampled_from(["tea", "leaf", "tea.", "a", "Café", "x"]), max_size=6), min_size=1
    ),
    overlap=st.sampled_from([0, 6]),
)
def test_lines_of_few_words_come_back(lines, overlap):
    """Words repeat, so that overlaps could be mistaken; no line is longer than a chunk."""
    text = "\n".join(" ".join(line) for line in lines)
    assert joined(text, "text", 32, overlap).split("\n") == text.rstrip().split("\n") or not (
        text.strip()
    )


def chunk(text: str, first: int, last: int) -> Chunk:
    return Chunk(text, first, last, "", "")


def test_joints():
    """Overlaps once, blank lines again, a line that was cut in two as one."""
    chunks = [
        chunk("one\ntwo cats", 2, 3),
        chunk("cats\nthree", 3, 4),  # an overlap
        chunk("five of", 7, 7),
        chunk("frogs", 7, 7),  # f ends one and begins the next by chance
        chunk(", and _", 7, 7),
        chunk("more_", 7, 7),
    ]
    whole = "\none\ntwo cats\nthree\n\n\nfive of frogs, and _more_"
    assert passages.join_lines(chunks, 4, None) == whole
    assert passages.join_lines(chunks, 4, (3, 5)) == "two cats\nthree\n"
    assert passages.join_lines(chunks[1:2], 4, (4, 4)) == "three"


def test_rows_and_files_of_two_roots(uri, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.md").write_text(f"\n{name}\n\ntea\n")
    (tmp_path / "one" / "r.csv").write_text("text\ngreen\nblack\nwhite\n")
    run_index(uri, tmp_path / "one", tmp_path / "two")
    store, root = store_of(uri), str(tmp_path / "one")
    for row, _ in contents(uri):
        assert store.row(row.ref) == row
    copies = {row.ref for row, _ in contents(uri)}
    assert len(copies) == len(contents(uri))
    assert store.row("0" * 32 + "-0-" + "0" * 12) is None
    assert {row.key.root for row in store.rows_of("a.md")} == {root, str(tmp_path / "two")}
    assert [row.chunk.text for row in store.rows_of("r.csv", root, (3, 3))] == ["black"]
    assert store.rows_of("a' OR '1'='1") == []
    assert passages.read(store, root, "a.md", None, 4) == "\none\n\ntea"
    assert passages.read(store, root, "a.md", (3, 9), 4) == "\ntea"
    assert passages.read(store, root, "a.md", (1, 1), 4) == ""
    assert passages.read(store, None, "r.csv", None, 4) == "green\n\nblack\n\nwhite"
    assert passages.read(store, None, "r.csv", (3, 4), 4) == "black\n\nwhite"
    for arguments, message in (
        ((None, "a.md", None), "several files have the name; remedy: one of .*/one/a.md, .*/two/"),
        ((None, "b.md", None), "no file 'b.md' in the index; remedy: one of its 2, such as a.md"),
        ((None, "../../etc/passwd", None), "no file .* in the index"),
        ((root, "a.md", (9, 9)), "no line 9; remedy: from 1 to 4"),
        ((root, "a.md", (3, 2)), "lines 3 to 2; remedy"),
        ((root, "a.pdf", (1, 2)), "counted on each page; remedy"),
    ):
        with pytest.raises(InputError, match=message):
            passages.read(store, *arguments, 4)


def test_a_file_of_two_versions_is_read_in_the_one_that_is_whole(uri, tmp_path):
    (tmp_path / "a.md").write_text("old tea")
    run_index(uri, tmp_path)
    ((row, vector),) = contents(uri)
    new = dataclasses.replace(row, content_hash="f" * 32, is_last=False, chunk=chunk("new", 1, 1))
    store_of(uri).add([new], np.frombuffer(vector, np.float32)[None])
    assert passages.read(store_of(uri), None, "a.md", None, 4) == "old tea"
