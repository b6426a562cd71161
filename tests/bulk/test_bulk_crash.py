"""A folder of parts whose maker is killed at any moment is, in the end, that of a quiet run."""

import pytest

pytest.importorskip("pyarrow")
from support import load_tiny
from support.bulk import CHECKPOINT, PART_ROWS, contents, run_bulk, some_texts, write_jsonl
from support.killing import run_killer

KILLS = 20


def test_killed_at_random_moments(tmp_path):
    texts = some_texts(20 * PART_ROWS + 3)
    write_jsonl(tmp_path / "in.jsonl", [*texts, "tea " * 3000])
    (tmp_path / "work").mkdir()
    run_bulk(tmp_path / "in.jsonl", tmp_path / "whole", load_tiny(CHECKPOINT.name))
    lives = run_killer("kill_bulk.py", [tmp_path / "in.jsonl", tmp_path / "work"], KILLS)
    for life in lives:
        assert contents(tmp_path / "work" / life["output"]) == contents(tmp_path / "whole")
        assert life["embedded"] <= len(texts) + 1 + PART_ROWS * life["kills"]
