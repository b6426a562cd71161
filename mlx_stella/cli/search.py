"""``mlx-stella search``: questions to the pieces of files that answer them.

$ mlx-stella search notes.index "where did I leave my keys?"
"""

import sys
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from mlx_stella.cli import options, warm
from mlx_stella.cli.hits import Found, as_object, print_hits
from mlx_stella.cli.terminal import say, say_json
from mlx_stella.errors import InputError

if TYPE_CHECKING:
    from mlx_stella import Hit, Index
    from mlx_stella.retrieval.index import SearchOptions


def search(
    index: Annotated[str, typer.Argument(metavar="INDEX", help="As `index` made it.")],
    query: Annotated[
        str,
        typer.Argument(
            metavar="QUERY",
            help="A question; -- before one that starts with -; - for a question a line on stdin.",
        ),
    ],
    top: Annotated[int, typer.Option(min=1, max=1000, help="How many hits.")] = 10,
    filter: Annotated[
        list[str] | None,
        typer.Option(
            help="Only where FIELD=PATTERN, 'file=docs/*' say; fields are file, heading, record; "
            "repeatable, all must hold."
        ),
    ] = None,
    task: options.Task = None,
    hybrid: Annotated[bool, typer.Option("--hybrid", help="By words, too.")] = False,
    exact: Annotated[bool, typer.Option("--exact", help="Look at every vector.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="A list of hits; for stdin an object a line.")
    ] = False,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Where the index's model now lies.")
    ] = None,
    dtype: options.Dtype = None,
    no_server: options.NoServer = False,
) -> None:
    """Find the passages of an index that answer a question, best first."""
    queries = _queries(query)
    server = None if no_server or model else warm.find(dtype)
    here = _Here(index, model, dtype, server)

    def ask(questions: Sequence[str], choice: "SearchOptions") -> Sequence[Sequence[Found]]:
        there = server.search(index, questions, cast(dict[str, Any], choice)) if server else None
        return here.search(questions, choice) if there is None else there

    choice: SearchOptions = {"top": top, "filters": filter or (), "hybrid": hybrid, "exact": exact}
    found = ask(queries, {**choice, "task": task})
    nothing = "nothing found"
    if not any(found) and not any(ask(queries[:1], {"top": 1})):
        nothing += ": the index is empty"
    elif not any(found) and filter:  # by meaning each passage is a hit
        nothing += f": no passage has {' and '.join(filter)}"
    for words, hits in zip(queries, found, strict=True):
        if not as_json:
            if query == "-":
                say(f"Query: {words}")
            print_hits(hits, words, nothing)
            if query == "-":
                say("")
        elif query == "-":
            say_json({"query": words, "hits": [as_object(hit) for hit in hits]})
        else:
            say_json([as_object(hit) for hit in hits], indent=1)


class _Here:
    """The index, opened here once it is asked; vectors of questions may be those of a server."""

    def __init__(
        self, uri: str, model: str | None, dtype: str | None, server: warm.Warm | None
    ) -> None:
        self._uri, self._model, self._dtype, self._server = uri, model, dtype, server

    @cached_property
    def _index(self) -> "Index":
        from mlx_stella import Index  # needs the extra search

        return Index.open(self._uri, model=self._model, dtype=self._dtype)

    def search(self, questions: Sequence[str], choice: "SearchOptions") -> list[list["Hit"]]:
        """The hits of each question."""
        server, task = self._server, choice.get("task")
        vectors = None
        if server is not None:
            vectors = server.embed_questions(self._index.manifest, questions, task)
        if vectors is not None:
            import numpy as np

            choice = {**choice, "vectors": np.asarray(vectors)}
        return self._index.search(questions, **choice)


def _queries(query: str) -> list[str]:
    queries = [query]
    if query == "-":
        if sys.stdin is None:
            raise InputError("stdin is closed", remedy="pipe questions to it, or ask one")
        queries = [options.decoded(line) for line in sys.stdin.buffer.read().splitlines()]
        queries = [line for line in queries if line.strip()]
    if not queries or not queries[0].strip():
        raise InputError("the query is empty", remedy="ask something")
    return queries
