"""The approximate index keeps its cells when it is brought up to date."""

import re

import numpy as np
import pytest

pytest.importorskip("lancedb")
from indexing import DIM, run_index

from mlx_stella.retrieval import lance
from mlx_stella.retrieval.lance import CELL_ROWS, LanceStore


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
