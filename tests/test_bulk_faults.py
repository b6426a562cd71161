"""What a run leaves undone, what it says of failures, and folders that are damaged."""

from dataclasses import replace
from unittest import mock

import pytest

pytest.importorskip("pyarrow")
from bulk import CHECKPOINT, contents, run_bulk, some_texts, write_jsonl
from conftest import load_tiny

from mlx_stella import MemoryLimitError
from mlx_stella.bulk.parts import read_failed


@pytest.fixture
def encoder():
    return load_tiny(CHECKPOINT.name)


def test_a_text_beyond_the_memory_limit_is_left_for_a_higher_one(tmp_path, encoder):
    """It is no fault of the row: the run stops, and parts before it are in place."""
    write_jsonl(tmp_path / "in.jsonl", ["tea"] * 20 + ["tea " * 3000] + ["tea"] * 20)
    held = replace(encoder._memory, limit=encoder._memory.peak(256, 256))
    with (
        mock.patch.object(encoder, "_memory", held),
        pytest.raises(MemoryLimitError, match=r"^row 20 \(line 21\): 1024 tokens need .* remedy"),
    ):
        run_bulk(tmp_path / "in.jsonl", tmp_path / "out", encoder)
    assert sorted(contents(tmp_path / "out")) == ["manifest.json", "part-00000.parquet"]
    report = run_bulk(tmp_path / "in.jsonl", tmp_path / "out", encoder)
    assert (report.before, report.failed, report.left) == (16, 0, 0)


def test_failures_of_an_earlier_part_are_not_told_of_the_next(tmp_path, encoder):
    write_jsonl(tmp_path / "in.jsonl", some_texts(40))
    run_bulk(tmp_path / "in.jsonl", tmp_path / "out", encoder)
    (tmp_path / "out" / "part-00001.parquet").unlink()
    (tmp_path / "out" / "failed-00001.jsonl").write_text('{"row": 20}\n')
    assert run_bulk(tmp_path / "in.jsonl", tmp_path / "out", encoder).failed == 0
    assert not list(read_failed(tmp_path / "out"))
