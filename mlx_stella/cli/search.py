"""``mlx-stella search``: questions to the pieces of files that answer them.

$ mlx-stella search notes.index "where did I leave my keys?"
"""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlx_stella.cli import options
from mlx_stella.cli.hits import print_hits
from mlx_stella.cli.terminal import say, say_json
from mlx_stella.errors import InputError

if TYPE_CHECKING:
    from mlx_stella.retrieval.store import Hit


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
) -> None:
    """Find the passages of an index that answer a question, best first."""
    from mlx_stella import Index  # needs the extra search

    queries = _queries(query)
    opened = Index.open(index, model=model, dtype=dtype)
    found = opened.search(
        queries, top=top, filters=filter or (), hybrid=hybrid, exact=exact, task=task
    )
    nothing = "nothing found"
    if not any(found) and not opened.search(queries[0], top=1):
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
            say_json({"query": words, "hits": [_object(hit) for hit in hits]})
        else:
            say_json([_object(hit) for hit in hits], indent=1)


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


def _object(hit: "Hit") -> dict[str, Any]:
    from mlx_stella.retrieval.export import describe

    return {"score": hit.score, **describe(hit.row)}
