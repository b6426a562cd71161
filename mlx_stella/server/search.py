"""Search over the named indexes: ``/v1/search``, ``/v1/similar``, ``/v1/passages/{ref}`` and
``/v1/index/status``.

The question goes through the worker like every text; the index is asked in a thread, off the event
loop. Over TCP a client learns labels and names below the indexed folders, never a path; the owner's
Unix socket tells the folders, too, and what the command line knows models and indexes by.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from mlx_stella import __version__
from mlx_stella.errors import InputError, StellaError, StoreError
from mlx_stella.loading import default_dtype
from mlx_stella.retrieval.index import Index
from mlx_stella.retrieval.store import Hit
from mlx_stella.server.asked import Asked
from mlx_stella.server.client import uri_hash
from mlx_stella.server.embedding import Served
from mlx_stella.server.faults import RequestError
from mlx_stella.server.guard import is_unix
from mlx_stella.server.indexes import Indexes, Place, ServedIndex
from mlx_stella.server.models import ServedModel
from mlx_stella.server.openai import shape
from mlx_stella.server.wire import (
    Body,
    Count,
    Direct,
    body_of,
    client_of,
    faults_in,
    headers_of,
    json_response,
    read_body,
)

T = TypeVar("T")

MOST_QUESTIONS, MOST_HITS = 64, 10_000
"""Of a request; the hits of all its questions together."""

MOST_LINES = 10_000
"""Of context before and after a passage."""

PAGE_CHARACTERS = 100_000
"""Of a file's text in an answer; the rest is on further pages."""

_Top = Annotated[Count, Field(le=1000)]


class SearchRequest(Body):
    """What ``POST /v1/search`` takes: a question or several, and :meth:`Index.search`'s options."""

    query: str | list[str]
    index: str | None = None
    top: _Top = 10
    filters: list[str] = Field(default_factory=list)
    hybrid: bool = False
    exact: bool = False
    task: str | None = None


class SimilarRequest(Body):
    """What ``POST /v1/similar`` takes: a passage, by its ref or "label/id"."""

    ref: str
    top: _Top = 10
    filters: list[str] = Field(default_factory=list)


def router(served: Served) -> APIRouter:
    """The routes.

    Raises:
        InputError, StoreError: as :class:`~mlx_stella.server.indexes.Indexes`.
    """
    routes = APIRouter(route_class=Direct, tags=["Search"], responses=faults_in(shape))
    indexes = Indexes(served.indexes)

    @routes.post("/v1/search", openapi_extra=body_of(SearchRequest))
    async def search(request: Request) -> Response:
        """The passages that answer a question, best first; of several questions each."""
        body = await read_body(request, SearchRequest)
        questions = [body.query] if isinstance(body.query, str) else body.query
        if not 1 <= len(questions) <= MOST_QUESTIONS or len(questions) * body.top > MOST_HITS:
            fault = f"{len(questions)} questions, {body.top} hits each"
            remedy = f"1 to {MOST_QUESTIONS} questions, at most {MOST_HITS} hits in all"
            raise RequestError(fault, param="query", remedy=remedy)
        index = indexes.find(body.index)
        opened = await _asked(index, lambda opened: opened)
        model = _model_of(served, index, opened)
        asked = Asked(
            texts=questions,
            model=model.name,
            input_type="query",
            prompt_name=_query_prompt(model, body.task),
            dims=(opened.manifest.dim,),
            truncate_dim=opened.manifest.truncate_dim,
            is_interactive=True,
            client=client_of(request),
        )
        embedded = await served.embed(asked, request.receive)
        found = await _asked(
            index,
            lambda _: opened.search(
                questions,
                top=body.top,
                filters=body.filters,
                hybrid=body.hybrid,
                exact=body.exact,
                vectors=embedded.vector,
            ),
        )
        results = [
            {"query": question, "hits": _hits(index, hits, request)}
            for question, hits in zip(questions, found, strict=True)
        ]
        answer = {"object": "list", "index": index.label, "model": model.name, "results": results}
        return json_response(answer, headers=headers_of(embedded))

    @routes.post("/v1/similar", openapi_extra=body_of(SimilarRequest))
    async def similar(request: Request) -> Response:
        """The passages most like one that an index holds; no model is needed."""
        body = await read_body(request, SimilarRequest)
        place = indexes.place(body.ref)
        index = place.index

        def ask(opened: Index) -> list[Hit]:
            hit = opened.hit(place.what, place.lines)
            return opened.similar(hit, top=body.top, filters=body.filters)

        hits = await _asked(index, ask)
        found = _hits(index, hits, request)
        return json_response({"object": "list", "index": index.label, "hits": found})

    @routes.get("/v1/passages/{ref:path}")
    async def passage(
        ref: str,
        context: Annotated[int, Query(ge=0, le=MOST_LINES)] = 0,
        first: Annotated[int | None, Query(alias="from", ge=1)] = None,
        last: Annotated[int | None, Query(alias="to", ge=1)] = None,
        at: Annotated[int, Query(ge=0)] = 0,
    ) -> Response:
        """A passage, or lines of its file, as the index holds them; no file is opened.

        Of a long text a page: ``next`` is the character that the next one begins ``at``.
        """
        place = indexes.place(ref)
        lines = None if first is None and last is None else (first or 1, last or first or 1)
        found = await _asked(place.index, lambda opened: _read(opened, place, lines, context))
        return json_response({"index": place.index.label, **found, **_page(found["text"], at)})

    @routes.get("/v1/index/status")
    async def status(request: Request, index: str | None = None) -> Response:
        """The indexes; of one that is named its files, too, each of which is looked at."""
        if index is not None:
            asked = indexes.find(index)
            entry = _entry(served, asked, await _asked(asked, lambda opened: opened), request)
            return json_response({**entry, **await _asked(asked, _files)})
        entries = []
        for each in indexes.all:
            try:
                opened = await _asked(each, lambda opened: opened)
                entries.append(_entry(served, each, opened, request))
            except StellaError as error:
                entries.append({"label": each.label, "error": str(error)})
        answer: dict[str, Any] = {"object": "list", "version": __version__, "indexes": entries}
        if is_unix(request.scope):
            answer["default_dtype"] = default_dtype()
            answer["default_prompt"] = served.default_prompt
            answer["models"] = [_known_by(model) for model in served.models.all]
        return json_response(answer)

    return routes


async def _asked(index: ServedIndex, ask: Callable[[Index], T]) -> T:
    """What the index answers, in a thread; errors tell its label.

    Raises:
        InputError, StoreError: as the question has it.
    """
    try:
        return await asyncio.to_thread(lambda: ask(index.opened()))
    except StellaError as error:
        raise index.untold(error) from None


def _model_of(served: Served, index: ServedIndex, opened: Index) -> ServedModel:
    """The model that made an index's vectors, and no other.

    Raises:
        StoreError: it is not served.
    """
    made = opened.manifest.origin
    for model in served.models.all:
        if model.fingerprint == made.fingerprint:
            return model
    raise StoreError(
        f"its model is not served ({made.fingerprint[:8]})",
        where=index.label,
        remedy="start the server with --model and the model of the index",
    )


def _query_prompt(model: ServedModel, task: str | None) -> str | None:
    """The name of the query prompt of a task; None for the model's usual one.

    Raises:
        RequestError: no prompt belongs to the task.
    """
    try:
        return None if task is None else model.checkpoint.prompts.for_query(task)
    except InputError as error:
        raise RequestError(error.fault, param="task", remedy=error.remedy) from None


def _hits(index: ServedIndex, hits: Sequence[Hit], request: Request) -> list[dict[str, Any]]:
    return [_hit(index, hit, with_root=is_unix(request.scope)) for hit in hits]


def _hit(index: ServedIndex, hit: Hit, with_root: bool) -> dict[str, Any]:
    return {
        "ref": index.citation(hit),
        "id": hit.ref,
        "score": hit.score,
        **({"root": hit.root} if with_root else {}),
        "file": hit.file,
        "lines": list(hit.lines),
        "heading": hit.heading,
        "record": hit.record,
        "text": hit.text,
    }


def _read(
    opened: Index, place: Place, lines: tuple[int, int] | None, context: int
) -> dict[str, Any]:
    """The text of a passage with lines around it, or of other lines of its file."""
    file, known = place.what, place.lines
    hit: Hit | None = None
    if place.is_id:
        hit = opened.hit(place.what)
        file, known = hit.file, hit.lines
    lines = lines or (place.lines if hit is None else None)
    if context and known is not None and lines in (None, known):
        lines = max(1, known[0] - context), known[1] + context
    text = opened.read(hit or file, lines)
    heading = {} if hit is None else {"heading": hit.heading, "record": hit.record}
    return {"file": file, "lines": list(lines or known or ()) or None, **heading, "text": text}


def _page(text: str, at: int) -> dict[str, Any]:
    """As much of a text as goes into an answer, and where the next page begins, if there is one.

    Raises:
        RequestError: it has no such character.
    """
    if at and at >= len(text):
        fault, remedy = f"at is {at}, the text has {len(text)} characters", "a next that was told"
        raise RequestError(fault, param="at", remedy=remedy)
    end = at + PAGE_CHARACTERS
    return {"text": text[at:end], **({"next": end} if end < len(text) else {})}


def _entry(served: Served, index: ServedIndex, opened: Index, request: Request) -> dict[str, Any]:
    made = opened.manifest
    entry: dict[str, Any] = {"label": index.label, "dim": made.width, "model": None}
    try:
        model = _model_of(served, index, opened)
    except StoreError as error:
        entry["error"] = str(error)
    else:
        limit = model.checkpoint.max_seq_length
        entry |= {"model": model.name, "dtype": model.dtype, "max_tokens": limit}
    return entry | ({"uri_hash": index.uri_hash} if is_unix(request.scope) else {})


def _files(opened: Index) -> dict[str, Any]:
    """How many files an index has of each state, and which the next run would take up."""
    status = opened.status()
    return {
        "chunks": status.chunks,
        "done": len(status.done),
        "pending": [{"file": note.key.name, "reason": note.reason} for note in status.pending],
        "gone": [key.name for key in status.gone],
        "failed": [note.key.name for note in status.failed],
        "skipped": [note.key.name for note in status.skipped],
        "empty": [key.name for key in status.empty],
    }


def _known_by(model: ServedModel) -> dict[str, Any]:
    """What a command line on this machine knows a model by, which it would load itself."""
    return {
        "id": model.name,
        "dtype": model.dtype,
        "max_tokens": model.checkpoint.max_seq_length,
        "prompts": list(model.checkpoint.prompts.named),
        "fingerprint": model.fingerprint,
        "directory_hash": uri_hash(str(model.checkpoint.directory)),
    }
