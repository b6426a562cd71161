"""Cohere's protocol: ``POST /v2/embed``, where each request says whether its texts are queries."""

import uuid
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import Field

from mlx_stella.server.asked import MOST_TEXTS, Asked
from mlx_stella.server.embedding import Served
from mlx_stella.server.faults import Fault
from mlx_stella.server.wire import (
    Body,
    Count,
    Direct,
    Pieces,
    base64_of,
    body_of,
    client_of,
    faults_in,
    headers_of,
    json_rows,
    read_body,
)

_Kind = Literal["float", "base64"]


class EmbedRequest(Body):
    """What ``POST /v2/embed`` takes; other fields are ignored, but pictures are refused."""

    model: str
    texts: Annotated[list[str], Field(min_length=1, max_length=MOST_TEXTS)]
    input_type: str
    output_dimension: Count | None = None
    embedding_types: Annotated[list[_Kind], Field(min_length=1)] = Field(["float"])
    truncate: Literal["NONE", "END"] | None = None
    max_tokens: Count | None = None
    images: None = None
    inputs: None = None


def router(served: Served) -> APIRouter:
    """The routes."""
    served.faults.speaks("/v2", shape)
    routes = APIRouter(route_class=Direct, tags=["Cohere"], responses=faults_in(shape))

    @routes.post("/v2/embed", openapi_extra=body_of(EmbedRequest))
    async def embed(request: Request) -> Response:
        """Embed a list of texts, as queries or as documents."""
        body = await read_body(request, EmbedRequest)
        asked = Asked(
            texts=body.texts,
            model=body.model,
            input_type=body.input_type,
            dims=() if body.output_dimension is None else (body.output_dimension,),
            on_long=body.truncate and ("error" if body.truncate == "NONE" else "truncate"),
            max_length=body.max_tokens,
            client=client_of(request),
        )
        embedded = await served.embed(asked, request.receive)
        kinds = []
        if "float" in body.embedding_types:
            kinds.append([b'"float":', *await json_rows(embedded.vector)])
        if "base64" in body.embedding_types:
            kinds.append([b'"base64":', orjson.dumps([base64_of(v) for v in embedded.vector])])
        rest = {
            "id": str(uuid.uuid4()),
            "response_type": "embeddings_by_type",
            "texts": body.texts,
            "meta": {
                "api_version": {"version": "2"},
                "billed_units": {"input_tokens": sum(embedded.tokens)},
            },
        }
        pieces = [b'{"embeddings":{', *kinds[0]]
        for more in kinds[1:]:
            pieces += [b",", *more]
        return Pieces([*pieces, b"}," + orjson.dumps(rest)[1:]], headers_of(embedded))

    return routes


def shape(fault: Fault) -> dict[str, Any]:
    """A fault as Cohere tells it."""
    return {"message": fault.message}
