"""Vectors are asked and added to with the commit of the model that made them."""

import json
import shutil

import pytest

pytest.importorskip("lancedb")
from support import edit_json
from support.bulk import some_texts, write_jsonl
from support.commands import fail, run, succeed, write

from mlx_stella.checkpoint import hub

OLD, NEW = "a" * 40, "b" * 40
REPO = "me/tiny"


@pytest.fixture
def moved(cache):
    """Moves the main branch on to another model; gives the old and the new snapshot."""
    old = cache(REPO, "tiny-stella-1.5b", OLD)

    def move():
        new = cache(REPO, "tiny-stella-1.5b", NEW)
        edit_json(new / "config.json", rope_theta=5.0)
        return old, new

    return move


def test_an_index_is_of_the_commit_it_was_made_with(tmp_path, moved):
    write(tmp_path / "notes", {"a.md": "green tea"})
    succeed("index", "notes", "--to", "idx", model=REPO, cwd=tmp_path)
    before = succeed("search", "idx", "tea", "--json", model="", cwd=tmp_path)
    old, _ = moved()
    assert succeed("search", "idx", "tea", "--json", model="", cwd=tmp_path) == before
    assert succeed("search", "idx", "tea", "--json", "-m", REPO, cwd=tmp_path) == before
    write(tmp_path / "notes", {"b.md": "coffee"})
    succeed("index", "notes", "--to", "idx", model=REPO, cwd=tmp_path)
    assert json.loads(succeed("status", "idx", "--json", cwd=tmp_path))["chunks"] == 2
    shutil.rmtree(old)
    error = fail("search", "idx", "tea", model="", cwd=tmp_path)
    assert f"its vectors are of {REPO} at {OLD[:12]}" in error and "remedy: that model" in error


def test_another_model_is_refused_before_it_is_fetched(tmp_path, moved, monkeypatch):
    write(tmp_path / "notes", {"a.md": "green tea"})
    succeed("index", "notes", "--to", "idx", model=REPO, cwd=tmp_path)
    write_jsonl(tmp_path / "in.jsonl", some_texts(4))
    succeed("embed", "--input", "in.jsonl", "--output", "out/", model=REPO, cwd=tmp_path)
    monkeypatch.setattr(hub, "_download", lambda *_: pytest.fail("the Hub is asked"))
    for verb in (
        ("index", "notes", "--to", "idx"),
        ("search", "idx", "tea", "--model", "you/other"),
        ("embed", "--input", "in.jsonl", "--output", "out/"),
    ):
        error = fail(*verb, model="you/other", cwd=tmp_path)
        assert f"its vectors are of {REPO} at {OLD[:12]}" in error and "not of you/other," in error
    (tmp_path / "hub").rename(
        tmp_path / "emptied"
    )  # where the model itself has to be fetched again
    monkeypatch.setattr(hub, "_download", lambda repo, _: tmp_path / "emptied" / repo)
    assert "emptied" in fail("search", "idx", "tea", model="", cwd=tmp_path)


def test_another_commit_with_the_same_weights_will_do(tmp_path, moved):
    write(tmp_path / "notes", {"a.md": "green tea"})
    succeed("index", "notes", "--to", "idx", model=REPO, cwd=tmp_path)
    old, new = moved()
    shutil.copy(old / "config.json", new)
    shutil.rmtree(old)
    succeed("search", "idx", "tea", model="", cwd=tmp_path)


def test_parts_are_of_the_commit_they_were_begun_with(tmp_path, moved):
    write_jsonl(tmp_path / "in.jsonl", some_texts(4))
    arguments = ("embed", "--input", "in.jsonl", "--output", "out/")
    succeed(*arguments, model=REPO, cwd=tmp_path)
    part = tmp_path / "out" / "part-00000.parquet"
    whole = part.read_bytes()
    part.unlink()
    old, _ = moved()
    succeed(*arguments, model=REPO, cwd=tmp_path)
    assert part.read_bytes() == whole
    shutil.rmtree(old)
    status, _, error = run(*arguments, model=REPO, cwd=tmp_path)
    assert status == 1 and f"was made with {REPO} at {OLD[:12]}" in error
    assert f"not {REPO} at {NEW[:12]}" in error
