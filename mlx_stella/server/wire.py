"""What all protocols share: a body becomes a checked object, and data becomes JSON, quickly."""

import asyncio
import base64
import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, TypeVar

import numpy as np
import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.types import Receive, Scope, Send

from mlx_stella.server.asked import MOST_TEXTS
from mlx_stella.server.embedding import Embedded
from mlx_stella.server.faults import Fault, RequestError, Shape


class Body(BaseModel):
    """A JSON object of a request. "0" is no number here, and 0 is not false."""

    model_config = ConfigDict(strict=True)


B = TypeVar("B", bound=Body)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Count = Annotated[int, Field(ge=1), BeforeValidator(_whole)]
"""A whole number from 1 on; JSON's 256.0 is one."""

_ROWS_AT_ONCE = 16
"""Vectors written at once; other requests are answered in between."""

_JOINED_BYTES = 64 * 2**10
"""An answer of no more is sent at once."""


INPUT = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MOST_TEXTS},
    ]
}
"""What OpenAPI says of a field that :func:`texts_of` reads."""


class Direct(APIRoute):
    """A route whose function is handed the request and gives the response.

    FastAPI would look for parameters and results to convert, which takes a third of what a short
    text costs beside the model; a function that has parameters is left to it.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        if list(inspect.signature(self.endpoint).parameters) == ["request"]:
            return self.endpoint
        return super().get_route_handler()


async def read_body(request: Request, model: type[B]) -> B:
    """The body of a request.

    Raises:
        RequestError: it is no JSON, or not what the model describes; the field is named.
    """
    try:
        data = orjson.loads(await request.body())
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is no JSON ({error})", remedy="send an object") from None
    if not isinstance(data, dict):
        raise RequestError("the body is no JSON object", remedy="send an object")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise RequestError(f"{field}: {first['msg']}", param=str(first["loc"][0])) from None


def texts_of(given: Any, param: str) -> Sequence[str]:
    """The texts of a field: a string, or a list of at least one.

    Raises:
        RequestError: it is something else. Numbers are the ids of some tokenizer, rarely ours.
    """
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list) or not given:
        raise RequestError(
            f"{param} is no text and no list of texts", param=param, remedy="a string, or several"
        )
    for row, text in enumerate(given):
        if isinstance(text, int | list):
            raise RequestError(
                "these look like another tokenizer's ids",
                param=param,
                remedy="send texts; with LangChain's OpenAIEmbeddings set "
                "check_embedding_ctx_length=False",
            )
        if not isinstance(text, str):
            raise RequestError("is no string", row=row, param=param, remedy="send texts")
    return given


def base64_of(vector: np.ndarray) -> str:
    """Little-endian float32, without line breaks."""
    return base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode()


def body_of(model: type[Body]) -> dict[str, Any]:
    """What the OpenAPI description says of a body that :func:`read_body` reads."""
    schema = model.model_json_schema()
    whole = _inlined(schema, schema.get("$defs", {}))
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": whole}}}}


def faults_in(shape: Shape) -> dict[int | str, dict[str, Any]]:
    """What the OpenAPI description says of answers that tell a fault."""
    content = {"application/json": {"example": shape(Fault(400, "where: what; remedy: how"))}}
    return {
        "4XX": {"description": "The request cannot be answered as it is", "content": content},
        "5XX": {"description": "The server cannot answer it now", "content": content},
    }


def _inlined(schema: Any, named: Mapping[str, Any]) -> Any:
    """A schema with its own definitions in the places where it refers to them."""
    if isinstance(schema, list):
        return [_inlined(part, named) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(named[schema["$ref"].removeprefix("#/$defs/")], named)
    return {name: _inlined(part, named) for name, part in schema.items() if name != "$defs"}


def json_response(
    data: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Data, NumPy's arrays among it, as JSON."""
    body = orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, dict(headers or {}), "application/json")


async def json_rows(rows: Iterable[Any]) -> list[bytes]:
    """A JSON list of many vectors, or of objects that hold them, in pieces to be sent one by one.

    Others are served between two of them.
    """
    pieces, remaining = [b"["], iter(rows)
    while some := list(islice(remaining, _ROWS_AT_ONCE)):
        comma = b"," if len(pieces) > 1 else b""
        pieces.append(comma + orjson.dumps(some, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1])
        await asyncio.sleep(0)
    return [*pieces, b"]"]


class Pieces(Response):
    """A JSON answer that is nowhere in one piece: to join tens of megabytes takes as long as to
    write their numbers."""

    def __init__(self, pieces: Sequence[bytes], headers: Mapping[str, str]):
        size = sum(map(len, pieces))
        told = {**headers, "content-length": str(size)}
        super().__init__(headers=told, media_type="application/json")
        self._pieces = pieces if size > _JOINED_BYTES else [b"".join(pieces)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        for number, piece in enumerate(self._pieces, start=1):
            more = number < len(self._pieces)
            await send({"type": "http.response.body", "body": piece, "more_body": more})


def client_of(request: Request) -> str:
    """Who asks, to take turns by: the program, and where it runs."""
    host = request.client.host if request.client else "unix"
    return f"{host} {request.headers.get('user-agent', '')}"


def headers_of(embedded: Embedded) -> dict[str, str]:
    """What no protocol has a field for: the prompt, and how many texts were cut."""
    headers = {"x-prompt": embedded.prompt}
    if embedded.cut:
        headers["x-truncated-inputs"] = str(len(embedded.cut))
    return headers
