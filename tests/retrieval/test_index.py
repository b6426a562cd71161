"""An index follows its files: what is embedded, kept, replaced and removed; and what is refused."""

import dataclasses
import os

import numpy as np
import pytest

pytest.importorskip("lancedb")
from support.indexing import DIM, contents, embed, run_index, store_of

from mlx_stella.errors import StoreError, VectorError
from mlx_stella.files import lock
from mlx_stella.retrieval import lance, updating
from mlx_stella.retrieval.lance import LanceStore
from mlx_stella.retrieval.ranking import fuse, search
from mlx_stella.retrieval.snippet import snippet
from mlx_stella.retrieval.store import Filter, Hit

pytestmark = pytest.mark.filterwarnings("ignore:.*[Ll]ocal:UserWarning")  # Qdrant's local mode


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for name, text in (("a.md", "green tea"), ("b.md", "black tea"), ("c.md", "coffee beans")):
        (folder / name).write_text(text)
    return folder


def names(uri) -> list[str]:
    return [row.key.name for row, _ in contents(uri)]


def counts(report) -> tuple[int, int, int, int]:
    return report.unchanged, report.embedded, report.reused, report.removed


def test_only_what_changed_is_embedded(uri, folder):
    assert counts(run_index(uri, folder)) == (0, 3, 0, 0)
    assert counts(run_index(uri, folder)) == (3, 0, 0, 0)
    (folder / "a.md").write_text("white tea")
    (folder / "b.md").unlink()
    (folder / "copy.md").write_text("coffee beans")
    (folder / "c.md").rename(folder / "renamed.md")
    assert counts(run_index(uri, folder)) == (0, 1, 2, 2)
    assert names(uri) == ["a.md", "copy.md", "renamed.md"]
    texts = {row.key.name: row.chunk.text for row, _ in contents(uri)}
    assert texts["a.md"] == "white tea"
    np.testing.assert_array_equal(
        [np.frombuffer(vector, np.float32) for _, vector in contents(uri)],
        embed([row.chunk.text for row, _ in contents(uri)]),
    )


def test_a_second_folder_leaves_the_first_alone(uri, tmp_path, folder):
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.md").write_text("rooibos")
    run_index(uri, folder)
    assert counts(run_index(uri, other)) == (0, 1, 0, 0)
    assert counts(run_index(uri, folder / "a.md")) == (1, 0, 0, 0)
    assert len(contents(uri)) == 4
    (folder / "b.md").unlink()
    assert counts(run_index(uri, folder, globs=["a*"])) == (1, 0, 0, 0)
    assert counts(run_index(uri, folder)) == (2, 0, 0, 1)


def test_a_file_that_cannot_be_read_keeps_its_rows(uri, folder):
    run_index(uri, folder)
    before = contents(uri)
    (folder / "a.md").write_bytes(b"caf\xe9")
    (folder / "new.jsonl").write_text('{"body": "wrong field"}\n')
    report = run_index(uri, folder)
    assert {note.key.name: note.reason.split(";")[0] for note in report.failed} == {
        "a.md": "not UTF-8 (byte 3)",
        "new.jsonl": "line 1: no field 'text', but body",
    }
    assert contents(uri) == before


def test_a_bad_row_is_left_out_alone_and_told_until_it_is_mended(uri, folder, monkeypatch):
    (folder / "rows.jsonl").write_text('{"text": "mate"}\n{\n{"text": "milk"}\n{"body": 1}\n')
    (folder / "rows.csv").write_text("text\nwater\n" + '"a" b\n' * 14)

    def interrupted(store):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(store_of(uri)), "finish", interrupted)
        run_index(uri, folder)  # as killed when all rows were stored
    for _ in range(2):
        report = run_index(uri, folder)
        reasons = {note.reason.split(";")[0]: note.key.name for note in report.bad_rows}
        assert report.files == 5 and not report.failed
        assert [r for r in reasons if reasons[r] == "rows.jsonl"] == [
            "line 2: not JSON (Expecting property name enclosed in double quotes: line 2 column 1 "
            "(char 2))",
            "line 4: no field 'text', but body",
        ]
        told = [reason for reason in reasons if reasons[reason] == "rows.csv"]
        assert len(told) == 11 and told[0].startswith("line 3: not CSV")
        assert told[-1] == "4 more rows cannot be read"
    assert len(contents(uri)) == 3 + 3
    (folder / "rows.jsonl").write_text('{"text": "mate"}\n')
    (folder / "rows.csv").unlink()
    report = run_index(uri, folder)
    assert not report.bad_rows and not run_index(uri, folder).bad_rows


def test_a_file_that_vanishes_or_changes_meanwhile_fails_alone(uri, folder, monkeypatch):
    monkeypatch.setattr(updating, "FIRST_BATCH", 1)
    monkeypatch.setattr(updating, "LARGEST_BATCH", 1)
    (folder / "long.md").write_text("\n\n".join(f"paragraph {n} " * 9 for n in range(5)))

    def meddle(files, chunks):
        if chunks == 1:
            (folder / "b.md").unlink()
        (folder / "long.md").write_text((folder / "long.md").read_text() + "more")

    report = run_index(uri, folder, tell=meddle)
    assert {note.key.name: note.reason.split(";")[0] for note in report.failed} == {
        "b.md": "No such file or directory",
        "long.md": "changed while it was read",
    }
    assert names(uri) == ["a.md", "c.md"]


def test_a_text_without_a_vector_fails_its_file_only(uri, folder):
    def fragile(texts):
        if "black tea" in texts:
            raise VectorError("not finite")
        return embed(texts)

    report = run_index(uri, folder, embed=fragile)
    assert [note.key.name for note in report.failed] == ["b.md"]
    assert names(uri) == ["a.md", "c.md"]
    assert counts(run_index(uri, folder)) == (2, 1, 0, 0)


def test_a_folder_that_cannot_be_read_keeps_its_rows(uri, folder, monkeypatch):
    (folder / "sub").mkdir()
    (folder / "sub" / "d.md").write_text("mate")
    run_index(uri, folder)
    scandir = os.scandir

    def deny(path):
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    report = run_index(uri, folder)
    assert [(note.key.name, note.reason) for note in report.failed] == [
        ("sub", "Permission denied")
    ]
    assert report.removed == 0 and "sub/d.md" in names(uri)


def test_names_and_texts_that_look_like_sql_are_text(uri, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    odd = [
        "x' OR '1'='1.md",
        "'; DROP TABLE chunks; --.md",
        "50%.md",
        "a_b.md",
        "axb.md",
        "a\\b.md",
    ]
    for name in odd:
        (folder / name).write_text(f"words of {name}' OR 1=1")
    run_index(uri, folder)
    (folder / odd[0]).write_text("changed")
    (folder / odd[1]).unlink()
    assert counts(run_index(uri, folder)) == (4, 1, 0, 1)
    store, vector = store_of(uri), embed(["words"])[0]

    def found(*filters: Filter) -> set[str]:
        return {hit.row.key.name for hit in store.search(vector, 9, filters, exact=True)}

    assert found(Filter("file", "a_b.md")) == {"a_b.md"}
    assert found(Filter("file", "a?b.md")) == {"a_b.md", "axb.md", "a\\b.md"}
    assert found(Filter("file", "*%*")) == {"50%.md"}
    assert found(Filter("file", "a\\*")) == {"a\\b.md"}
    assert found(Filter("file", "x' OR '1'='1.md")) == {"x' OR '1'='1.md"}
    assert found(Filter("file", "*"), Filter("record", "x' OR 1=1")) == set()
    words = search(store, "' OR 1=1 -- \"(", vector, 5, hybrid=True)
    assert len(words) == 5


def test_exact_search_is_numpy_and_hybrid_is_the_fusion(uri, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    texts = [f"passage {n} about {'tea' if n % 3 else 'coffee'} number{n}" for n in range(60)]
    for number, text in enumerate(texts):
        (folder / f"{number:02}.md").write_text(text)
    run_index(uri, folder)
    store, query = store_of(uri), embed(["a question"])[0]
    scores = embed(texts) @ query
    best = np.argsort(-scores)[:10]
    hits = search(store, "coffee number30", query, 10)
    assert [hit.row.chunk.text for hit in hits] == [texts[n] for n in best]
    np.testing.assert_allclose([hit.score for hit in hits], scores[best], atol=1e-6)
    by_words = store.search_words("number30", 5, ())
    assert [hit.row.chunk.text for hit in by_words] == [texts[30]]
    hybrid = search(store, "number30", query, 10, hybrid=True)
    ranks = {n: 1 / (60 + rank) for rank, n in enumerate(np.argsort(-scores)[:50], start=1)}
    ranks[30] = ranks.get(30, 0) + 1 / 61
    expected = sorted(ranks, key=lambda n: (-ranks[n], n))[:10]
    assert [hit.row.chunk.text for hit in hybrid] == [texts[n] for n in expected]


def test_fusion_adds_reciprocal_ranks(uri, folder):
    run_index(uri, folder)
    a, b, c = (Hit(0.5, row) for row, _ in contents(uri))
    fused = fuse([[a, b, c], [c, a]])
    assert [hit.row for hit in fused] == [a.row, c.row, b.row]
    expected = [1 / 61 + 1 / 62, 1 / 63 + 1 / 61, 1 / 62]
    np.testing.assert_allclose([hit.score for hit in fused], expected)


def test_the_snippet_holds_the_match():
    text = "nothing here " * 30 + "the keys are in the car " + "and more of nothing " * 30
    piece = snippet(text, "Where are my keys?", 60)
    assert "keys are" in piece and len(piece) <= 60
    assert snippet("short\ntext", "text", 60) == "short text"


def test_approximate_search_is_close_to_exact(tmp_path, monkeypatch):
    """Clustered vectors, more rows than the threshold, which is lowered for the test."""
    monkeypatch.setattr(lance, "INDEX_ROWS", 2000)
    chance = np.random.default_rng(0)
    centres = chance.normal(size=(40, DIM))
    points = centres[chance.integers(40, size=3000)] + 0.3 * chance.normal(size=(3000, DIM))
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "rows.csv").write_text("text\n" + "".join(f"row {n}\n" for n in range(3000)))
    run_index(
        tmp_path / "idx", folder, embed=lambda texts: points[[int(t.split()[1]) for t in texts]]
    )
    store = LanceStore(str(tmp_path / "idx"))
    kinds = {i.columns[0]: i.index_type for i in store._open("chunks").list_indices()}
    assert kinds["vector"].startswith("Ivf") and {"text", "text_hash"} <= set(kinds)
    shared = 0
    for query in points[:50]:
        exact, near = (
            {hit.row.number for hit in store.search(query, 10, (), exact)}
            for exact in (True, False)
        )
        assert exact == set(np.argsort(-(points @ query), kind="stable")[:10])
        shared += len(exact & near)
    assert shared / 500 >= 0.98


def test_two_writers(tmp_path):
    with (
        lock.writing(str(tmp_path / "idx")),
        pytest.raises(StoreError, match=rf"process {os.getpid()} on .* is writing to it; remedy"),
        lock.writing(str(tmp_path / "idx")),
    ):
        pass
    with lock.writing(str(tmp_path / "idx")):
        pass


def test_strange_and_damaged_indexes(tmp_path, folder):
    with pytest.raises(StoreError, match=r"no index, it holds '[abc]\.md'; remedy"):
        LanceStore(str(folder)).count()
    uri = tmp_path / "idx"
    run_index(uri, folder)
    next((uri / "chunks.lance" / "data").iterdir()).write_bytes(b"no data")
    with pytest.raises(StoreError, match="cannot be used"):
        contents(uri)
    for manifest in (uri / "chunks.lance" / "_versions").iterdir():
        manifest.write_bytes(b"no manifest")
    with pytest.raises(StoreError, match="cannot be used"):
        contents(uri)
    for manifest in (uri / "chunks.lance" / "_versions").iterdir():
        manifest.unlink()
    with pytest.raises(StoreError, match="lost its manifests"):
        contents(uri)


def test_a_place_that_cannot_be_reached(monkeypatch):
    with pytest.raises(StoreError, match="nowhere://a/b: no address of an index; remedy"):
        LanceStore("nowhere://a/b").count()

    def connect(uri, **options):
        raise RuntimeError("Failed to connect to namespace: RetryError")  # LanceDB's, for S3

    monkeypatch.setattr(lance.lancedb, "connect", connect)
    with pytest.raises(StoreError, match=r"s3://a/b: cannot be read .*remedy: its name"):
        LanceStore("s3://a/b").count()


def test_rows_are_as_they_were_given(uri, folder):
    run_index(uri, folder)
    row, _ = contents(uri)[0]
    odd = "\0 'quoted' \\ 日本 🚀 \u2028"
    chunk = dataclasses.replace(row.chunk, text=odd, heading=odd, record=odd)
    row = dataclasses.replace(row, chunk=chunk, number=1)
    store = store_of(uri)
    store.add([row], embed([odd]))
    assert row in [row for row, _ in contents(uri)]


def test_texts_are_known_once_their_hashes_are_indexed(tmp_path, monkeypatch):
    monkeypatch.setattr(lance, "HASHED_COMMITS", 2)
    monkeypatch.setattr(updating, "FIRST_BATCH", 4)
    monkeypatch.setattr(updating, "LARGEST_BATCH", 4)
    folder = tmp_path / "files"
    folder.mkdir()
    texts = [f"cup {number % 7} of tea" for number in range(40)]
    for number, text in enumerate(texts):
        (folder / f"{number:02}.md").write_text(text)
    report = run_index(tmp_path / "idx", folder)
    assert (report.embedded, report.reused) == (7, 33)
    kinds = {i.columns[0] for i in LanceStore(str(tmp_path / "idx"))._open("chunks").list_indices()}
    assert "text_hash" in kinds
    assert [row.chunk.text for row, _ in contents(tmp_path / "idx")] == texts
    for row, vector in contents(tmp_path / "idx"):
        np.testing.assert_array_equal(np.frombuffer(vector, np.float32), embed([row.chunk.text])[0])
