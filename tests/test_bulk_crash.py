"""A folder of parts whose maker is killed at any moment is, in the end, that of a quiet run."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("pyarrow")
from bulk import CHECKPOINT, PART_ROWS, contents, run_bulk, some_texts, write_jsonl
from conftest import TESTS, load_tiny

KILLS = 20


def test_killed_at_random_moments(tmp_path):
    texts = some_texts(20 * PART_ROWS + 3)
    write_jsonl(tmp_path / "in.jsonl", [*texts, "tea " * 3000])
    (tmp_path / "work").mkdir()
    run_bulk(tmp_path / "in.jsonl", tmp_path / "whole", load_tiny(CHECKPOINT.name))
    arguments = [str(tmp_path / name) for name in ("in.jsonl", "work")]
    done = subprocess.run(
        [sys.executable, TESTS / "kill_bulk.py", *arguments, "7", str(KILLS)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": f"{TESTS.parent}:{TESTS}"},
    )
    assert done.returncode == 0, done.stderr
    lives = json.loads(done.stdout)
    assert sum(life["kills"] for life in lives) >= KILLS
    for life in lives:
        assert contents(tmp_path / "work" / life["output"]) == contents(tmp_path / "whole")
        assert life["embedded"] <= len(texts) + 1 + PART_ROWS * life["kills"]
