"""An index keeps to what it was made of: folders that move, overlap or are looked at in part."""

import os
import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("lancedb")
from support import any_bytes_in_names, load_tiny
from support.indexing import contents

from mlx_stella import Index
from mlx_stella.errors import InputError
from mlx_stella.retrieval import reading, scanning, sources
from mlx_stella.retrieval.notes import SOURCES


@pytest.fixture
def notes(tmp_path):
    for name in ("n/a.md", "n/b.txt", "n/sub/c.md", "m/d.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"the text of {name}")
    return tmp_path


def run(folder, *paths, globs=()):
    index = Index.create(folder / "idx", load_tiny("tiny-stella-400m"), exist_ok=True)
    return index.update([folder / path for path in paths], globs=globs)


def files(folder) -> list[str]:
    found = [f"{row.key.root}/{row.key.name}" for row, _ in contents(folder / "idx")]
    return sorted(name.removeprefix(f"{folder}/") for name in found)


def status(folder) -> tuple[int, int, int]:
    found = Index.open(folder / "idx").status()
    return len(found.done), len(found.gone), len(found.failed)


def test_a_deleted_folder_is_taken_out_when_it_is_named(notes):
    run(notes, "n", "m")
    shutil.rmtree(notes / "m")
    assert status(notes) == (3, 0, 1)
    run(notes, "n")
    assert "m/d.md" in files(notes)
    assert run(notes, "n", "m").removed == 1
    assert files(notes) == ["n/a.md", "n/b.txt", "n/sub/c.md"]
    assert status(notes) == (3, 0, 0)
    with pytest.raises(InputError, match="No such file"):
        run(notes, "m")


def test_a_folder_that_an_index_names_is_looked_at_within_bounds(notes, monkeypatch):
    run(notes, "n")
    store = Index.open(notes / "idx")._store
    known = store.read_note(SOURCES)
    (wide := notes / "wide").mkdir()
    for number in range(30):
        (wide / f"{number}.md").write_text("not asked for")
    (notes / "loop").symlink_to(notes / "loop")
    new = {"names": None, "globs": [], "fields": []}
    roots = {str(wide): new, "/no\0folder": new, str(notes / "loop"): new}
    store.write_note(SOURCES, known | roots | {str(notes / "n" / "a.md"): new})
    read = []
    content_hash = reading.content_hash
    monkeypatch.setattr(
        reading, "content_hash", lambda *a: read.append(a[0].key.name) or content_hash(*a)
    )
    found = Index.open(notes / "idx").status()
    assert sorted(read) == ["a.md", "b.txt", "sub/c.md"] and len(found.pending) == 30
    told = {note.key.root.removeprefix(str(notes)): note.reason for note in found.failed}
    assert told == {
        "/no\0folder": "no name of a folder; remedy: make the index anew",
        "/loop": "Too many levels of symbolic links; remedy: see to it",
        "/n/a.md": "the folder is gone; remedy: name it to `index`, which takes its files out",
    }
    for patience in (scanning.Patience(entries=20), scanning.Patience(seconds=-1)):
        monkeypatch.setattr(sources, "Patience", lambda patience=patience: patience)
        found = Index.open(notes / "idx").status()
        told = {note.key.root: note.reason for note in found.failed}
        assert told[str(wide)].startswith("more than can be looked at by the way; remedy")
        assert found.pending == found.gone == []


def test_a_disk_that_is_not_mounted_keeps_its_rows(notes):
    run(notes, "n/sub")
    (notes / "n").rename(notes / "elsewhere")
    with pytest.raises(InputError, match="No such file"):
        run(notes, "n/sub")
    assert files(notes) == ["n/sub/c.md"]


def test_a_deleted_file_that_was_named(notes):
    run(notes, "n/a.md", "n/b.txt")
    (notes / "n" / "a.md").unlink()
    assert run(notes, "n/b.txt").removed == 0
    assert status(notes) == (1, 1, 0)
    assert run(notes, "n/a.md", "n/b.txt").removed == 1
    assert files(notes) == ["n/b.txt"]
    assert status(notes) == (1, 0, 0)


def test_a_deleted_file_named_beside_its_folder(notes):
    run(notes, "n")
    (notes / "n" / "a.md").unlink()
    (notes / "n" / "b.txt").unlink()
    assert run(notes, "n", "n/a.md").removed == 2


@any_bytes_in_names
def test_a_name_that_is_not_utf8_is_found_again(notes):
    folder = os.fsencode(notes / "r") + b"\xe9"
    os.mkdir(folder)
    for name in (b"/\xff.md", b"/\\xff.md"):
        with open(folder + name, "w") as file:
            file.write(f"the text of {name}")
    path = Path(os.fsdecode(folder))
    assert run(notes, path).embedded == 2
    assert status(notes) == (2, 0, 0)
    assert run(notes, path).unchanged == 2


def test_a_glob_looks_at_a_part_of_what_is_known(notes):
    run(notes, "n")
    run(notes, "n", globs=["*.md"])
    assert status(notes) == (3, 0, 0)
    (notes / "n" / "b.txt").unlink()
    assert run(notes, "n", globs=["*.md"]).removed == 0
    assert status(notes) == (2, 1, 0)
    assert run(notes, "n").removed == 1


def test_a_file_without_words_is_told(notes):
    (notes / "n" / "blank.md").write_text(" \n")
    run(notes, "n")
    found = Index.open(notes / "idx").status()
    assert [key.name for key in found.empty] == ["blank.md"] and len(found.done) == 3


def test_globs_add_up(notes):
    run(notes, "n", globs=["*.md"])
    assert run(notes, "n", globs=["*.txt"]).embedded == 1
    assert status(notes) == (3, 0, 0)


def test_a_folder_takes_over_one_in_it(notes):
    run(notes, "n/sub", "m")
    with pytest.raises(InputError, match=r"holds .*sub, which the index has by itself; remedy"):
        run(notes, "n", globs=["*.md"])
    report = run(notes, "n")
    assert (report.embedded, report.reused, report.removed) == (2, 1, 1)
    assert files(notes) == ["m/d.md", "n/a.md", "n/b.txt", "n/sub/c.md"]
    assert status(notes) == (4, 0, 0)


def test_a_folder_in_one_that_is_known_is_refused(notes):
    run(notes, "n")
    with pytest.raises(InputError, match=r"lies in .*/n, which the index holds; remedy"):
        run(notes, "n/sub")


@pytest.fixture
def folding(monkeypatch):
    """A file system that finds a name by other spellings, too, but lists one: names to be hidden.

    Files have hard links, and folders symbolic ones, by their other spellings.
    """
    hidden, scandir = set(), os.scandir

    class Listed(list):
        def __enter__(self):
            return iter(self)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(
        os, "scandir", lambda path: Listed(e for e in scandir(path) if e.name not in hidden)
    )
    return hidden


@pytest.mark.skipif(sys.platform == "darwin", reason="two spellings are one file there")
@pytest.mark.parametrize("listed, typed", [("cafe\u0301.md", "caf\u00e9.md"), ("a.md", "A.MD")])
def test_two_spellings_of_a_name_that_are_one_file(tmp_path, folding, listed, typed):
    (tmp_path / "n").mkdir()
    (tmp_path / "n" / listed).write_text("tea")
    os.link(tmp_path / "n" / listed, tmp_path / "n" / typed)
    folding.add(typed)
    assert run(tmp_path, "n").embedded == 1
    assert run(tmp_path, f"n/{typed}").unchanged == 1
    assert files(tmp_path) == [f"n/{listed}"]
    folding.clear()  # where the file system lists both, they are two files
    assert run(tmp_path, "n").reused == 1
    assert files(tmp_path) == sorted([f"n/{listed}", f"n/{typed}"])


@pytest.mark.skipif(sys.platform == "darwin", reason="two spellings are one folder there")
def test_two_spellings_of_a_folder_that_are_one(tmp_path, folding):
    (tmp_path / "NOTES").mkdir()
    (tmp_path / "notes").symlink_to("NOTES")
    folding.add("notes")
    assert scanning.as_spelled(tmp_path / "notes" / "sub") == tmp_path / "NOTES" / "sub"
    folding.clear()
    assert scanning.as_spelled(tmp_path / "notes" / "sub") == tmp_path / "notes" / "sub"


def test_a_root_noted_in_another_spelling_is_taken_over(notes, folding, monkeypatch):
    run(notes, "n")
    real = scanning.as_spelled
    wrong, right = str(notes / "n"), notes / "N"
    (notes / "n").rename(right)

    def spelled(path):
        return right if str(path) == wrong else real(path)

    monkeypatch.setattr("mlx_stella.retrieval.sources.as_spelled", spelled)
    report = run(notes, "N")
    assert (report.reused, report.embedded, report.removed) == (3, 0, 3)
    assert status(notes) == (3, 0, 0)
