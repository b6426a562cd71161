"""Several processes, started by mlx.launch, share the parts of a folder."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("pyarrow")
from support import ROOT, SUPPORT, TESTS, load_tiny
from support.bulk import CHECKPOINT, PART_ROWS, contents, run_bulk, some_texts, write_jsonl
from support.commands import fail

from mlx_stella import StellaError
from mlx_stella.bulk.manifest import read
from mlx_stella.bulk.parts import failures, read_failed
from mlx_stella.bulk.ranks import launched

LAUNCH = Path(sys.executable).parent / "mlx.launch"
PARTS = 13


@pytest.fixture
def folder(tmp_path):
    """An input of thirteen parts with a faulty row, and the folder that one process makes of it."""
    texts = some_texts(PARTS * PART_ROWS - 1)
    write_jsonl(tmp_path / "in.jsonl", texts)
    with (tmp_path / "in.jsonl").open("a") as file:
        file.write("{\n")
    run_bulk(tmp_path / "in.jsonl", tmp_path / "whole", load_tiny(CHECKPOINT.name))
    return tmp_path


@contextmanager
def launch(
    folder: Path, ranks: int, log: str, part_seconds: float = 0.1
) -> Iterator[subprocess.Popen]:
    """A launch whose ranks have a full stdin, or mlx.launch asks all the time if it takes more."""
    port = random.randrange(20_000, 32_000)
    launcher = [LAUNCH, "-n", str(ranks), "--backend", "ring", "-p", str(port), "--"]
    script = [sys.executable, SUPPORT / "bulk_rank.py", log, str(part_seconds)]
    arguments = ["embed", "--input", "in.jsonl", "--output", "out/", "--model", str(CHECKPOINT)]
    stdin, unread = os.pipe()
    os.set_blocking(unread, False)
    os.write(unread, bytes(2**16))
    try:
        yield subprocess.Popen(
            [*launcher, *script, *arguments],
            cwd=folder,
            stdin=stdin,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{TESTS}"},
        )
    finally:
        os.close(stdin)
        os.close(unread)


def begun(folder: Path, log: str) -> list[tuple[str, int]]:
    """Rank/size and part, for each part that was begun."""
    try:
        lines = (folder / log).read_text().splitlines()
    except FileNotFoundError:
        return []
    return [(line.split()[0], int(line.split()[1])) for line in lines]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_each_part_is_of_one_rank(folder, ranks):
    with launch(folder, ranks, "log") as process:
        output, error = process.communicate(timeout=120)
    assert output == "" and "Traceback" not in error
    assert error.count("1 of 208 rows failed") == 1, error
    assert contents(folder / "out") == contents(folder / "whole")
    expected = [(f"{part % ranks}/{ranks}", part) for part in range(PARTS)]
    assert sorted(begun(folder, "log"), key=lambda pair: pair[1]) == expected


def test_what_a_dead_rank_left_is_done_by_the_next_run(folder):
    """Which has another number of ranks; and nobody gets in while a rank lives."""
    with launch(folder, 2, "log", part_seconds=1.0) as process:
        while len(begun(folder, "log")) < 4:
            assert process.poll() is None
            time.sleep(0.01)
        arguments = ("embed", "--input", "in.jsonl", "--output", "out/")
        error = fail(*arguments, cwd=folder, model=str(CHECKPOINT))
        assert "is writing to it; remedy: wait until it is done" in error
        holder = json.loads((folder / "out" / ".lock").read_text())["process"]
        os.kill(holder, 9)
        process.communicate(timeout=120)
    manifest = read(folder / "out")
    done = {part for part in range(PARTS) if failures(folder / "out", part, manifest) is not None}
    assert 0 < len(done) < PARTS
    before = {part: (folder / "out" / f"part-{part:05}.parquet").stat() for part in done}
    with launch(folder, 3, "again") as process:
        process.communicate(timeout=120)
    again = begun(folder, "again")
    assert sorted(part for _, part in again) == sorted(set(range(PARTS)) - done)
    assert {rank for rank, _ in again} == {"0/3", "1/3", "2/3"}
    for part, state in before.items():
        assert (folder / "out" / f"part-{part:05}.parquet").stat() == state
    assert contents(folder / "out") == contents(folder / "whole")
    assert len(list(read_failed(folder / "out"))) == 1


def test_a_rank_that_finds_no_others(monkeypatch):
    monkeypatch.setenv("MLX_RANK", "1")
    with pytest.raises(StellaError, match="rank 1 found no others; remedy"):
        launched()
