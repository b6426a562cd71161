"""The approximate index: its cells, filters, and vectors that it cannot be made of."""

import re

import numpy as np
import pytest

pytest.importorskip("lancedb")
from support.indexing import DIM, embed, run_index

from mlx_stella.retrieval import lance
from mlx_stella.retrieval.lance import CELL_ROWS, LanceStore
from mlx_stella.retrieval.store import Filter


def cells(uri) -> int:
    """The number of cells that a search chooses from."""
    query = LanceStore(str(uri))._open("chunks").search(np.ones(DIM, np.float32))
    plan = query.distance_type("cosine").nprobes(1).analyze_plan()
    return int(re.search(r"partitions_ranked=(\d+)", plan)[1])


def test_cells_stay_apart(tmp_path, monkeypatch):
    """LanceDB joins cells that are small beside the size it was told, or else its own of 8192."""
    monkeypatch.setattr(lance, "INDEX_ROWS", 2000)
    rows = "text\n" + "".join(f"row {n}\n" for n in range(3200))
    (tmp_path / "rows.csv").write_text(rows)
    for number in range(3):
        (tmp_path / f"{number}.md").write_text(f"note {number}")
        run_index(tmp_path / "idx", tmp_path, globs=["*.csv", "*.md"])
        assert cells(tmp_path / "idx") >= 3200 / CELL_ROWS / 2


def test_a_filter_finds_what_lies_in_far_cells(tmp_path, monkeypatch):
    monkeypatch.setattr(lance, "INDEX_ROWS", 2000)
    monkeypatch.setattr(lance, "NPROBES", 1)
    chance = np.random.default_rng(0)
    centres = np.eye(DIM)[:8]
    for number in range(8):
        rows = "".join(f"{number} row {n}\n" for n in range(400))
        (tmp_path / f"{number}.csv").write_text("text\n" + rows)

    def near_their_centre(texts):
        points = centres[[int(text[0]) for text in texts]]
        points = points + 0.05 * chance.normal(size=points.shape)
        return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)

    run_index(tmp_path / "idx", *sorted(tmp_path.glob("*.csv")), embed=near_their_centre)
    store = LanceStore(str(tmp_path / "idx"))
    for number in range(8):
        query, filters = centres[number - 1], [Filter("file", f"{number}.csv")]
        hits = store.search(query, 10, filters, exact=False)
        assert [hit.row.key.name for hit in hits] == [f"{number}.csv"] * 10


def test_equal_texts_need_no_cells(tmp_path, monkeypatch):
    """Of vectors that are nearly all equal no cells can be made; exact search does without."""
    monkeypatch.setattr(lance, "INDEX_ROWS", 2000)
    monkeypatch.setattr(lance, "CELL_ROWS", 10)
    (tmp_path / "rows.csv").write_text("text\n" + "the same line of a log\n" * 3000)
    report = run_index(tmp_path / "idx", tmp_path)
    assert (report.embedded, report.reused) == (1, 2999)
    store = LanceStore(str(tmp_path / "idx"))
    (query,) = embed(["the same line of a log"])
    assert len(store.search(query, 10, (), exact=False)) == 10
