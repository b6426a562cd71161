"""The protocol of text-embeddings-inference: ``/embed``, ``/info``, ``/tokenize``, ``/similarity``.

Its requests name no model: they are answered by the first one. Hugging Face's own client posts to
``/``, whichever of embedding and similarity it wants.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field, WithJsonSchema

from mlx_stella import __version__
from mlx_stella.checkpoint.prompts import Prompts
from mlx_stella.checkpoint.tokenization import Piece, Tokenizer
from mlx_stella.encoding.settings import OnLong
from mlx_stella.encoding.vectors import similarity as similarity_of
from mlx_stella.server.asked import MOST_TEXTS, MOST_TOKENS, Asked
from mlx_stella.server.embedding import Served
from mlx_stella.server.faults import Fault, RequestError
from mlx_stella.server.wire import (
    INPUT,
    Body,
    Count,
    Direct,
    Pieces,
    body_of,
    client_of,
    faults_in,
    headers_of,
    json_response,
    json_rows,
    read_body,
    texts_of,
)

_PATHS = ("/", "/embed", "/info", "/tokenize", "/similarity")
_TYPES = {413: "validation", 429: "overloaded", 503: "unhealthy"}


class _Truncation(Body):
    truncate: bool | None = None
    truncation_direction: Literal["Right", "right"] | None = None
    prompt_name: str | None = None

    @property
    def on_long(self) -> OnLong | None:
        return None if self.truncate is None else "truncate" if self.truncate else "error"


class EmbedRequest(_Truncation):
    """What ``POST /embed`` takes; other fields are ignored."""

    inputs: Annotated[Any, WithJsonSchema(INPUT)]
    normalize: bool = True
    dimensions: Count | None = None


class TokenizeRequest(Body):
    """What ``POST /tokenize`` takes."""

    inputs: Annotated[Any, WithJsonSchema(INPUT)]
    add_special_tokens: bool = True
    prompt_name: str | None = None


class Comparison(Body):
    """A text, and those it is compared with."""

    source_sentence: str
    sentences: Annotated[list[str], Field(min_length=1, max_length=MOST_TEXTS - 1)]


class SimilarityRequest(Body):
    """What ``POST /similarity`` takes."""

    inputs: Comparison
    parameters: _Truncation | None = None


class EitherRequest(EmbedRequest):
    """What ``POST /`` takes: what ``/embed`` does, or ``/similarity``."""

    inputs: Annotated[
        Any, WithJsonSchema({"anyOf": [*INPUT["anyOf"], Comparison.model_json_schema()]})
    ]


def router(served: Served) -> APIRouter:
    """The routes."""
    for path in _PATHS:
        served.faults.speaks(path, shape)
    routes = APIRouter(
        route_class=Direct, tags=["text-embeddings-inference"], responses=faults_in(shape)
    )
    first = served.models.first

    @routes.post("/embed", openapi_extra=body_of(EmbedRequest))
    async def embed(request: Request) -> Response:
        """Embed a text, or a list of texts."""
        body = await read_body(request, EmbedRequest)
        asked = Asked(
            texts=texts_of(body.inputs, "inputs"),
            model=first.name,
            prompt_name=body.prompt_name,
            dims=() if body.dimensions is None else (body.dimensions,),
            normalize=body.normalize,
            on_long=body.on_long,
            client=client_of(request),
        )
        embedded = await served.embed(asked, request.receive)
        return Pieces(await json_rows(embedded.vector), headers_of(embedded))

    @routes.post("/similarity", openapi_extra=body_of(SimilarityRequest))
    async def similarity(request: Request) -> Response:
        """How similar each text of a list is to one: the cosine, or what the model declares."""
        body = await read_body(request, SimilarityRequest)
        options = body.parameters or _Truncation()
        asked = Asked(
            texts=[body.inputs.source_sentence, *body.inputs.sentences],
            model=first.name,
            prompt_name=options.prompt_name,
            on_long=options.on_long,
            client=client_of(request),
        )
        embedded = await served.embed(asked, request.receive)
        source, others = embedded.vector[0], embedded.vector[1:]
        found = similarity_of(source, others, cosine=first.checkpoint.similarity == "cosine")
        return json_response(found[0], headers=headers_of(embedded))

    @routes.post("/", openapi_extra=body_of(EitherRequest))
    async def either(request: Request) -> Response:
        """As ``/embed``; with an object of a sentence and others as ``/similarity``."""
        body = await read_body(request, EitherRequest)
        return await (similarity if isinstance(body.inputs, dict) else embed)(request)

    @routes.post("/tokenize", openapi_extra=body_of(TokenizeRequest))
    async def tokenize(request: Request) -> Response:
        """The tokens of a text, or of each of a list; nothing is cut."""
        body = await read_body(request, TokenizeRequest)
        asked = Asked(texts=texts_of(body.inputs, "inputs"), model=first.name)
        async with served.models.using(first) as encoder:
            prefix = _prefix(body.prompt_name, first.checkpoint.prompts)
            special, tokenizer = body.add_special_tokens, encoder.tokenizer
            data = await asyncio.to_thread(_pieces, tokenizer, asked.texts, prefix, special)
        return json_response(data)

    @routes.get("/info")
    async def info() -> Response:
        """The first model, and what it takes."""
        checkpoint = first.checkpoint
        data = {
            "model_id": first.name,
            "model_sha": first.revision or None,
            "model_dtype": first.dtype,
            "model_type": {"embedding": {"pooling": checkpoint.pooling}},
            "max_input_length": checkpoint.max_seq_length,
            "max_client_batch_size": MOST_TEXTS,
            "max_batch_tokens": MOST_TOKENS,
            "auto_truncate": True,
            "version": __version__,
        }
        return json_response(data)

    return routes


def shape(fault: Fault) -> dict[str, Any]:
    """A fault as text-embeddings-inference tells it."""
    default = "backend" if fault.status >= 500 else "validation"
    return {"error": fault.message, "error_type": _TYPES.get(fault.status, default)}


def _prefix(name: str | None, prompts: Prompts) -> str:
    return "" if name is None else prompts.choose(name, None, None)


def _pieces(
    tokenizer: Tokenizer, texts: Sequence[str], prefix: str, special: bool
) -> list[list[dict[str, Any]]]:
    found, total = [], 0
    for text in texts:
        pieces = tokenizer.pieces(prefix + text, special)
        total += len(pieces)
        if total > MOST_TOKENS:
            raise RequestError(
                f"more than {MOST_TOKENS} tokens", param="inputs", remedy="several requests"
            )
        found.append([_told(piece) for piece in pieces])
    return found


def _told(piece: Piece) -> dict[str, Any]:
    where = {"start": piece.start, "stop": piece.end}
    return {"id": piece.id, "text": piece.text, "special": piece.is_special, **where}
