"""The corpus of ``mlx-stella demo --corpus``: this package's README and the code of its search.

    $ mlx-stella demo --corpus --model all-minilm-l6-v2
    ...
    Query:  How are rankings by meaning and by words combined?
    0.4677  retrieval/searching.py:40-50  def fuse(rankings
            def fuse(rankings: Sequence[Sequence[Hit]]) -> list[Hit]: ...

Both are on every machine that has the package: in a clone the README is the file, elsewhere it is
what the installed package's metadata holds of it. Nothing is fetched.
"""

import importlib.metadata
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_stella.cli.hits import print_hits
from mlx_stella.errors import InputError

if TYPE_CHECKING:
    from mlx_stella.encoding.encoder import Encoder

QUESTIONS = (
    "How do I convert a model to 4 bits?",
    "What happens when an indexing run is killed?",
    "How are rankings by meaning and by words combined?",
)
"""Two for the README and one for the code."""

_PACKAGE = Path(__file__).parent.parent
_TOP = 2


def search_corpus(encoder: "Encoder", model: str, questions: tuple[str, ...]) -> None:
    """Index the corpus in a temporary folder, and print the best passages for each question."""
    from mlx_stella.retrieval.chunking import Chunker
    from mlx_stella.retrieval.opening import open_for_writing, open_store
    from mlx_stella.retrieval.ranking import search
    from mlx_stella.retrieval.scanning import scan
    from mlx_stella.retrieval.updating import index

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        origin = collect(Path(folder, "corpus"))
        store = open_store(str(Path(folder, "index")))
        with open_for_writing(store, encoder, model) as stamp:
            chunker = Chunker(encoder.tokenizer, stamp.chunk_tokens, stamp.overlap)
            found = scan([Path(folder, "corpus")])
            report = index(store, found, [], chunker, encoder.encode_document)
        seconds = time.perf_counter() - started
        print(f"Corpus: README.md, {origin}, and the code of the search")
        print(f"Index:  {report.files} files, {store.count()} chunks, {seconds:.1f} s")
        for question in questions:
            print(f"\nQuery:  {question}")
            vector = encoder.encode_query(question)
            print_hits(search(store, question, vector, _TOP), question)
    print("\nYour own: mlx-stella index FOLDER --to my.index; mlx-stella search my.index QUESTION")


def collect(folder: Path) -> str:
    """Copy the corpus into a new folder, and say where its README is from.

    Raises:
        InputError: this installation carries no README.
    """
    shutil.copytree(
        _PACKAGE / "retrieval", folder / "retrieval", ignore=shutil.ignore_patterns("__pycache__")
    )
    readme = _PACKAGE.parent / "README.md"
    if readme.is_file() and (_PACKAGE.parent / "pyproject.toml").is_file():
        shutil.copy(readme, folder)
        return "of this clone"
    try:
        text = importlib.metadata.metadata("mlx-stella").get_payload()
    except importlib.metadata.PackageNotFoundError:
        text = ""
    if not text:
        raise InputError("no README of mlx-stella here", remedy="pip install it, or clone it")
    (folder / "README.md").write_text(text, encoding="utf-8")
    return "of the installed package"
