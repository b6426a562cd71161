"""``mlx-stella demo --corpus``: from a clone and from an installed package."""

import importlib.metadata
import re
import tempfile
from pathlib import Path

import pytest

pytest.importorskip("lancedb")
from support import CHECKPOINTS, ROOT
from support.commands import fail, run, succeed

from mlx_stella.cli import corpus

MODEL = str(CHECKPOINTS / "tiny-stella-400m")


def installed(tmp_path, monkeypatch) -> Path:
    """The package as it lies in site-packages: its README is in the metadata only."""
    package = tmp_path / "site-packages" / "mlx_stella"
    (package / "retrieval").mkdir(parents=True)
    (package / "retrieval" / "store.py").write_text('"""What an index needs."""\n')
    monkeypatch.setattr(corpus, "_PACKAGE", package)
    return package


def test_three_questions_are_asked_and_nothing_is_left(tmp_path, small_clone, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    output = succeed("demo", "--corpus", "--model", MODEL, cwd=tmp_path)
    for question in corpus.QUESTIONS:
        assert f"Query:  {question}\n" in output
    assert len(re.findall(r"^-?\d\.\d{4}  \S+:\d+", output, re.MULTILINE)) == 6
    assert "Corpus: README.md and docs, of this clone, and the code" in output
    assert not list(tmp_path.iterdir())


def test_a_question_of_ones_own(tmp_path, monkeypatch):
    installed(tmp_path, monkeypatch)
    output = succeed("demo", "--corpus", "--model", MODEL, "--query", "--top?", cwd=tmp_path)
    assert output.count("Query:") == 1 and "Query:  --top?\n" in output
    assert "the query is empty" in fail("demo", "--corpus", "--query", " ", cwd=tmp_path)


def test_the_corpus_of_a_clone_and_of_an_installed_package(tmp_path, monkeypatch):
    assert corpus.collect(tmp_path / "a") == "README.md and docs, of this clone"
    readme = (ROOT / "README.md").read_text()
    assert (tmp_path / "a" / "README.md").read_text() == readme
    assert (tmp_path / "a" / "retrieval" / "ranking.py").is_file()
    installed(tmp_path, monkeypatch)
    assert corpus.collect(tmp_path / "b") == "README.md, of the installed package"
    assert (tmp_path / "b" / "README.md").read_text().startswith("# mlx-stella\n")
    assert (tmp_path / "b" / "retrieval" / "store.py").is_file()


def test_a_package_that_is_only_on_the_path(tmp_path, monkeypatch):
    installed(tmp_path, monkeypatch)

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "metadata", missing)
    status, _, error = run("demo", "--corpus", "--model", MODEL, cwd=tmp_path)
    assert status == 1 and error == (
        "mlx-stella: no README of mlx-stella here; remedy: pip install it, or clone it\n"
    )


@pytest.mark.real
@pytest.mark.slow
def test_the_answers(minilm_directory, tmp_path):
    output = succeed("demo", "--corpus", "--model", str(minilm_directory), cwd=tmp_path)
    convert, killed, fused = re.split(r"Query:  ", output)[1:]
    assert "docs/converting.md" in convert and "Converting" in convert
    assert "Searching" in killed
    assert "retrieval/ranking.py" in fused and "def fuse" in fused
