"""Files that appear whole or not at all, and files of arrays that are written row by row."""

import io
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlx_stella import OutputError
from mlx_stella.files import atomic, npy


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_there_stays_until_the_end(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with atomic.whole(path) as (file,):
        file.write(b"after")
        assert path.read_text() == "before"
        hidden, visible = names(tmp_path)
        assert hidden.startswith(f".a.txt.{os.getpid()}-") and visible == "a.txt"
    assert path.read_text() == "after" and names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_of_several_whatever_is_raised(tmp_path, error):
    (tmp_path / "a").write_text("before")
    with pytest.raises(error), atomic.whole(tmp_path / "a", tmp_path / "b") as (first, second):
        first.write(b"1")
        second.write(b"2")
        raise error
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "before"


def test_a_full_disk_is_an_error_with_a_remedy(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        with (
            pytest.raises(OutputError, match=r"a.bin: could not be written \(.*\); remedy: free"),
            atomic.whole(tmp_path / "a.bin") as (file,),
        ):
            file.write(bytes(3000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert names(tmp_path) == []


def test_one_of_several_that_cannot_be_opened(tmp_path):
    with (
        pytest.raises(OutputError, match="could not be written"),
        atomic.whole(tmp_path / "a", tmp_path / "none" / "b"),
    ):
        raise AssertionError
    assert names(tmp_path) == []


def test_a_link_is_refused(tmp_path):
    (tmp_path / "mine").write_text("kept")
    for to in ("mine", "nowhere"):
        (tmp_path / to[0]).symlink_to(to)
        with pytest.raises(OutputError, match="is a link; remedy"):
            atomic.write_text(tmp_path / to[0], "naïve")
    assert (tmp_path / "mine").read_text() == "kept" and names(tmp_path) == ["m", "mine", "n"]


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append(names(tmp_path)))
    with atomic.whole(tmp_path / "a", tmp_path / "b"):
        pass
    assert len(calls) == 2 and not any("a" in there or "b" in there for there in calls)


def test_names_as_long_as_names_may_be_and_the_usual_mode(tmp_path):
    for name in ("n" * 255, "茶" * 85):
        atomic.write_text(tmp_path / name, "")
    plain = tmp_path / "plain"
    plain.touch()
    assert (tmp_path / ("n" * 255)).stat().st_mode == plain.stat().st_mode
    with pytest.raises(OutputError, match="too long"):
        atomic.write_text(tmp_path / ("n" * 256), "")


def test_what_a_killed_process_leaves_is_cleared_and_nothing_else(tmp_path):
    script = (
        "import os, sys; from pathlib import Path; from mlx_stella.files import atomic\n"
        "with atomic.whole(Path(sys.argv[1])) as (file,):\n"
        "    os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path / "part-00001.parquet"])
    assert done.returncode == -signal.SIGKILL
    (left,) = names(tmp_path)
    assert left.startswith(".part-00001.parquet.") and left.endswith(".unfinished")
    mine = [".draft.unfinished", ".lock", "a.parquet"]
    for name in mine:
        (tmp_path / name).touch()
    atomic.clear_leftovers(tmp_path)
    assert names(tmp_path) == mine


@pytest.mark.parametrize("shape", [(0, 4), (5, 3)])
def test_an_array_row_by_row_is_that_of_numpy(shape):
    vectors = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    ours, theirs = io.BytesIO(), io.BytesIO()
    npy.begin(ours, *shape)
    for start in range(0, len(vectors), 2):
        npy.add(ours, vectors[start : start + 2, ::1])
    np.save(theirs, vectors)
    assert ours.getvalue() == theirs.getvalue()
