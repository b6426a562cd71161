"""What a run leaves undone, what it says of failures, and folders that are damaged."""

import json
from dataclasses import replace
from unittest import mock

import pytest

pytest.importorskip("pyarrow")
from support import load_tiny
from support.bulk import CHECKPOINT, contents, run_bulk, some_texts, write_jsonl

from mlx_stella import MemoryLimitError, StellaError, StoreError
from mlx_stella.bulk.parts import read_failed, read_vectors


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


@pytest.mark.parametrize(
    "name, value",
    [
        ("rows", "forty"),
        ("rows", -1),
        ("part_rows", 0),
        ("part_rows", True),
        ("input_blake2b", None),
        ("prompt", ["a"]),
        ("dim", 2**70),
        ("normalize", 1),
    ],
)
def test_a_damaged_manifest_is_named(tmp_path, encoder, name, value):
    write_jsonl(tmp_path / "in.jsonl", some_texts(4))
    run_bulk(tmp_path / "in.jsonl", tmp_path / "out", encoder)
    path = tmp_path / "out" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(StoreError, match=rf"manifest.json: damaged, {name} is .+; remedy"):
        run_bulk(tmp_path / "in.jsonl", tmp_path / "out", encoder)
    with pytest.raises(StoreError, match="damaged"):
        read_vectors(tmp_path / "out")


def test_failures_of_an_earlier_part_are_not_told_of_the_next(tmp_path, encoder):
    write_jsonl(tmp_path / "in.jsonl", some_texts(40))
    run_bulk(tmp_path / "in.jsonl", tmp_path / "out", encoder)
    (tmp_path / "out" / "part-00001.parquet").unlink()
    (tmp_path / "out" / "failed-00001.jsonl").write_text('{"row": 20}\n')
    assert run_bulk(tmp_path / "in.jsonl", tmp_path / "out", encoder).failed == 0
    assert not list(read_failed(tmp_path / "out"))


@pytest.mark.parametrize("name", ["part-00000.parquet", "failed-00000.jsonl", ".lock"])
def test_nothing_is_written_through_a_link(tmp_path, encoder, name):
    (tmp_path / "in.jsonl").write_text('{"text": "tea"}\n{"text": null}\n')
    run_bulk(tmp_path / "in.jsonl", tmp_path / "out", encoder)
    (tmp_path / "out/part-00000.parquet").unlink()
    (tmp_path / "mine").write_text("")
    (tmp_path / "out" / name).unlink(missing_ok=True)
    (tmp_path / "out" / name).symlink_to("../mine")
    with pytest.raises(StellaError, match=rf"out/{name}: is a link|levels of symbolic links"):
        run_bulk(tmp_path / "in.jsonl", tmp_path / "out", encoder)
    assert (tmp_path / "mine").read_text() == "" and (tmp_path / "out" / name).is_symlink()
