"""OpenAI's protocol: ``POST /v1/embeddings`` and ``GET /v1/models``."""

from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import WithJsonSchema

from mlx_stella.encoding.settings import OnLong
from mlx_stella.server.asked import Asked
from mlx_stella.server.embedding import Embedded, Served
from mlx_stella.server.faults import Fault
from mlx_stella.server.models import ServedModel
from mlx_stella.server.wire import (
    INPUT,
    Body,
    Count,
    Direct,
    Pieces,
    base64_of,
    body_of,
    client_of,
    faults_in,
    headers_of,
    json_response,
    json_rows,
    read_body,
    texts_of,
)


class EmbeddingsRequest(Body):
    """What ``POST /v1/embeddings`` takes; other fields are ignored."""

    input: Annotated[Any, WithJsonSchema(INPUT)]
    model: str
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Count | None = None
    truncate_dim: Count | None = None
    prompt: str | None = None
    instruction: str | None = None
    prompt_name: str | None = None
    input_type: str | None = None
    task: str | None = None
    normalize: bool = True
    on_long: OnLong | None = None
    priority: Literal["interactive", "bulk"] | None = None


def router(served: Served) -> APIRouter:
    """The routes."""
    served.faults.speaks("/v1", shape)
    routes = APIRouter(route_class=Direct, tags=["OpenAI"], responses=faults_in(shape))

    @routes.post("/v1/embeddings", openapi_extra=body_of(EmbeddingsRequest))
    async def embeddings(request: Request) -> Response:
        """Embed a text, or a list of texts."""
        body = await read_body(request, EmbeddingsRequest)
        asked = Asked(
            texts=texts_of(body.input, "input"),
            model=body.model,
            prompt=body.prompt,
            instruction=body.instruction,
            prompt_name=body.prompt_name,
            input_type=body.input_type if body.input_type is not None else body.task,
            dims=() if body.dimensions is None else (body.dimensions,),
            truncate_dim=body.truncate_dim,
            normalize=body.normalize,
            on_long=body.on_long,
            is_interactive=None if body.priority is None else body.priority == "interactive",
            client=client_of(request),
        )
        embedded = await served.embed(asked, request.receive)
        return await _answer(embedded, body.model, body.encoding_format == "base64")

    @routes.get("/v1/models")
    async def models() -> Response:
        """The models that are served."""
        data = [_listed(model) for model in served.models.all]
        return json_response({"object": "list", "data": data})

    @routes.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        """One of them."""
        return json_response(_listed(served.models.find(name)[0]))

    return routes


def shape(fault: Fault) -> dict[str, Any]:
    """A fault as OpenAI tells it."""
    error = {
        "message": fault.message,
        "type": fault.kind,
        "param": fault.param,
        "code": fault.code,
    }
    return {"error": error}


async def _answer(embedded: Embedded, name: str, is_base64: bool) -> Response:
    rows = (
        {
            "object": "embedding",
            "index": row,
            "embedding": base64_of(vector) if is_base64 else vector,
        }
        for row, vector in enumerate(embedded.vector)
    )
    tokens = sum(embedded.tokens)
    rest = orjson.dumps({"model": name, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})
    pieces = [b'{"object":"list","data":', *await json_rows(rows), b"," + rest[1:]]
    return Pieces(pieces, headers_of(embedded))


def _listed(model: ServedModel) -> dict[str, Any]:
    checkpoint = model.checkpoint
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "mlx-stella",
        "dims": checkpoint.dims,
        "default_dim": checkpoint.default_dim,
        "max_tokens": checkpoint.max_seq_length,
        "prompts": list(checkpoint.prompts.named),
        "revision": model.revision or None,
        "dtype": model.dtype,
        "loaded": model.encoder is not None,
    }
