"""The corpus of ``mlx-stella demo --corpus``: this package's papers and the code of its search.

    $ mlx-stella demo --corpus --model all-minilm-l6-v2
    ...
    Query:  How are rankings by meaning and by words combined?
    0.4677  retrieval/ranking.py:40-50  def fuse(rankings
            def fuse(rankings: Sequence[Sequence[Hit]]) -> list[Hit]: ...

Both are on every machine that has the package: in a clone the papers are README.md and docs/,
elsewhere what the installed package's metadata holds of the README. Nothing is fetched.
"""

import importlib.metadata
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_stella.cli.hits import print_hits
from mlx_stella.cli.terminal import say
from mlx_stella.errors import InputError

if TYPE_CHECKING:
    from mlx_stella.encoding.encoder import Encoder

QUESTIONS = (
    "How do I convert a model to 4 bits?",
    "What happens when an indexing run is killed?",
    "How are rankings by meaning and by words combined?",
)
"""Two for the papers and one for the code."""

_PACKAGE = Path(__file__).parent.parent
_TOP = 2


def search_corpus(
    encoder: "Encoder", questions: tuple[str, ...], dim: int | None, task: str | None
) -> None:
    """Index the corpus in a temporary folder, and print the best passages for each question."""
    from mlx_stella.retrieval.index import Index

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        papers = collect(Path(folder, "corpus"))
        index = Index.create(Path(folder, "index"), encoder, dim=dim)
        report = index.update(Path(folder, "corpus"))
        seconds = time.perf_counter() - started
        chunks = report.embedded + report.reused
        say(f"Corpus: {papers}, and the code of the search")
        say(f"Index:  {report.files} files, {chunks} chunks, {seconds:.1f} s")
        for question in questions:
            say("", f"Query:  {question}")
            print_hits(index.search(question, top=_TOP, task=task), question)
    say("")
    say("Your own: mlx-stella index FOLDER --to my.index; mlx-stella search my.index QUESTION")


def collect(folder: Path) -> str:
    """Copy the corpus into a new folder, and say which papers it has.

    Raises:
        InputError: this installation carries no README.
    """
    shutil.copytree(
        _PACKAGE / "retrieval", folder / "retrieval", ignore=shutil.ignore_patterns("__pycache__")
    )
    readme = _PACKAGE.parent / "README.md"
    if readme.is_file() and (_PACKAGE.parent / "pyproject.toml").is_file():
        shutil.copy(readme, folder)
        (folder / "docs").mkdir()
        for page in (_PACKAGE.parent / "docs").glob("*.md"):
            shutil.copy(page, folder / "docs")
        return "README.md and docs, of this clone"
    try:
        text = "".join(importlib.metadata.metadata("mlx-stella").get_all("Description", []))
    except importlib.metadata.PackageNotFoundError:
        text = ""
    if not text:
        raise InputError("no README of mlx-stella here", remedy="pip install it, or clone it")
    (folder / "README.md").write_text(text, encoding="utf-8")
    return "README.md, of the installed package"
