"""An indexer that is killed at any moment and run again stores what an uninterrupted one does."""

import random
from pathlib import Path

import pytest

pytest.importorskip("lancedb")
from support import TESTS
from support.indexing import contents, run_index
from support.kill_indexer import BATCH
from support.killing import run_killer

KILLS = 20
"""Of a new index, and half as many of one brought up to date."""


@pytest.fixture
def folder(tmp_path) -> Path:
    """Twelve files of one to twelve paragraphs."""
    chance = random.Random(1)
    words = (TESTS / "golden" / "texts.txt").read_text().split()
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(12):
        paragraphs = [" ".join(chance.choices(words, k=20)) for _ in range(number + 1)]
        (folder / f"{number}.md").write_text("\n\n".join(paragraphs))
    return folder


def killed(folder: Path, start: Path, work: Path, kills: int) -> list[dict]:
    """The lives of an index under an indexer that is killed; each is up to date in the end."""
    work.mkdir()
    return run_killer("kill_indexer.py", [folder, start, work], kills)


def check(lives: list[dict], expected: list[tuple], texts: int) -> None:
    for life in lives:
        assert contents(life["output"]) == expected
        assert life["embedded"] <= texts + BATCH * life["kills"]


def test_a_new_index(tmp_path, folder):
    report = run_index(tmp_path / "whole", folder)
    assert report.embedded > 10 * BATCH
    lives = killed(folder, tmp_path / "none", tmp_path / "work", KILLS)
    check(lives, contents(tmp_path / "whole"), report.embedded)


def test_an_index_brought_up_to_date(tmp_path, folder):
    """Files are changed, new, renamed, emptied and gone."""
    run_index(tmp_path / "start", folder)
    for number in (3, 8, 11):
        path = folder / f"{number}.md"
        path.write_text(path.read_text().upper() + "\n\nand one paragraph more")
    (folder / "2.md").unlink()
    (folder / "5.md").write_text(" \n")
    (folder / "10.md").rename(folder / "ten.md")
    (folder / "new.md").write_text((folder / "9.md").read_text().lower())
    report = run_index(tmp_path / "whole", folder)
    lives = killed(folder, tmp_path / "start", tmp_path / "work", KILLS // 2)
    check(lives, contents(tmp_path / "whole"), report.embedded)
