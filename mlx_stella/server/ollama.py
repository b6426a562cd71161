"""Ollama's protocol, as far as it is about embedding: ``/api/...`` and the ping at ``/``.

Nothing is pulled, created or deleted by it.
"""

import hashlib
import re
import time
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import WithJsonSchema

from mlx_stella import __version__
from mlx_stella.errors import ModelNotFoundError
from mlx_stella.models.architectures import ARCHITECTURES
from mlx_stella.server.asked import Asked, split_name
from mlx_stella.server.embedding import Served
from mlx_stella.server.faults import Fault, RequestError
from mlx_stella.server.models import ServedModel
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

_LISTED = "-embed"
"""Appended to a second name of each model: Smart Connections lists no other names."""

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"-?(\d+(\.\d*)?(ns|us|µs|ms|s|m|h))+")
_NEVER = datetime(9999, 12, 31, tzinfo=UTC)


class _Options(Body):
    num_ctx: Count | None = None


class EmbedRequest(Body):
    """What ``POST /api/embed`` takes; other fields are ignored."""

    model: str
    input: Annotated[Any, WithJsonSchema(INPUT)] = None
    truncate: bool | None = None
    dimensions: Literal[0] | Count | None = None  # Ollama's own client writes 0 for none
    keep_alive: float | str | None = None
    options: _Options | None = None
    instruction: str | None = None
    prompt_name: str | None = None
    input_type: str | None = None


class OldRequest(Body):
    """What ``POST /api/embeddings`` takes; ``prompt`` is the text."""

    model: str
    prompt: str = ""
    keep_alive: float | str | None = None
    options: _Options | None = None


class ShowRequest(Body):
    """What ``POST /api/show`` takes; ``name`` is what ``model`` was once called."""

    model: str = ""
    name: str = ""


def router(served: Served) -> APIRouter:
    """The routes."""
    served.faults.speaks("/api", shape)
    routes = APIRouter(route_class=Direct, tags=["Ollama"], responses=faults_in(shape))

    @routes.get("/", response_class=PlainTextResponse)
    @routes.head("/", response_class=PlainTextResponse)
    async def ping() -> Response:
        """That somebody is here."""
        return PlainTextResponse("mlx-stella is running")

    @routes.get("/api/version")
    async def version() -> Response:
        """Which program this is."""
        return json_response({"version": __version__})

    @routes.get("/api/tags")
    async def tags() -> Response:
        """The models that are served."""
        listed = [(model, name) for model in served.models.all for name in _names(model)]
        return json_response({"models": [_described(*pair) for pair in listed]})

    @routes.get("/api/ps")
    async def running() -> Response:
        """Those of them that are in memory."""
        loaded = [model for model in served.models.all if model.encoder]
        return json_response({"models": [_running(model) for model in loaded]})

    @routes.post("/api/show", openapi_extra=body_of(ShowRequest))
    async def show(request: Request) -> Response:
        """What is known of a model."""
        body = await read_body(request, ShowRequest)
        model, _ = served.models.find(_known(served, body.model or body.name))
        return json_response(_shown(model))

    @routes.post("/api/embed", openapi_extra=body_of(EmbedRequest))
    async def embed(request: Request) -> Response:
        """Embed a text, or a list of texts; without any, load the model."""
        start = time.perf_counter_ns()
        body = await read_body(request, EmbedRequest)
        asked = Asked(
            texts=texts_of(body.input, "input") if body.input else (),
            model=_known(served, body.model),
            instruction=body.instruction,
            prompt_name=body.prompt_name,
            input_type=body.input_type,
            dims=(body.dimensions,) if body.dimensions else (),
            on_long=None if body.truncate is None else "truncate" if body.truncate else "error",
            max_length=body.options.num_ctx if body.options else None,
            client=client_of(request),
            keep_alive=_seconds(body.keep_alive),
        )
        if not asked.texts:
            await _load(served, asked)
            return json_response({"model": body.model, "embeddings": []})
        embedded = await served.embed(asked, request.receive)
        rest = {
            "model": body.model,
            "total_duration": time.perf_counter_ns() - start,
            "load_duration": int(embedded.seconds.get("load", 0) * 1e9),
            "prompt_eval_count": sum(embedded.tokens),
        }
        rows = await json_rows(embedded.vector)
        pieces = [b'{"embeddings":', *rows, b"," + orjson.dumps(rest)[1:]]
        return Pieces(pieces, headers_of(embedded))

    @routes.post("/api/embeddings", openapi_extra=body_of(OldRequest))
    async def embeddings(request: Request) -> Response:
        """Embed one text, as before ``/api/embed``; the vector is not normalized."""
        body = await read_body(request, OldRequest)
        asked = Asked(
            texts=[body.prompt] if body.prompt else (),
            model=_known(served, body.model),
            normalize=False,
            max_length=body.options.num_ctx if body.options else None,
            client=client_of(request),
            keep_alive=_seconds(body.keep_alive),
        )
        if not asked.texts:
            await _load(served, asked)
            return json_response({"embedding": []})
        embedded = await served.embed(asked, request.receive)
        return json_response({"embedding": embedded.vector[0]}, headers=headers_of(embedded))

    return routes


def shape(fault: Fault) -> dict[str, Any]:
    """A fault as Ollama tells it."""
    return {"error": fault.message}


async def _load(served: Served, asked: Asked) -> None:
    async with served.models.using(served.models.find(asked.model)[0], asked.keep_alive):
        pass


def _known(served: Served, name: str) -> str:
    """The name, without what was appended for those who list few."""
    base, suffix = split_name(name)
    if not base.lower().endswith(_LISTED):
        return name
    try:
        served.models.find(name)
    except ModelNotFoundError:
        own = base[: -len(_LISTED)]
        return own if suffix is None else f"{own}:{suffix}"
    return name


def _names(model: ServedModel) -> list[str]:
    name = model.name
    is_listed = any(word in name.lower() for word in ("embed", "bge"))
    return [f"{name}:latest", *([] if is_listed else [f"{name}{_LISTED}:latest"])]


def _described(model: ServedModel, name: str) -> dict[str, Any]:
    told = f"{model.name} {model.revision} {model.dtype}"
    return {
        "name": name,
        "model": name,
        "modified_at": datetime.fromtimestamp(model.created, UTC).isoformat(),
        "size": model.weights_bytes,
        "digest": hashlib.sha256(told.encode()).hexdigest(),
        "details": _details(model),
        "capabilities": ["embedding"],
    }


def _details(model: ServedModel) -> dict[str, Any]:
    family = _family(model)
    return {
        "parent_model": "",
        "format": "safetensors",
        "family": family,
        "families": [family],
        "parameter_size": f"{model.checkpoint.parameters / 1e6:.0f}M",
        "quantization_level": model.dtype,
    }


def _family(model: ServedModel) -> str:
    """As its config.json may call it."""
    own = model.checkpoint.architecture
    return next(name for name, known in ARCHITECTURES.items() if known is own)


def _running(model: ServedModel) -> dict[str, Any]:
    stays = model.is_pinned or model.keep_alive < 0
    left = model.keep_alive - (time.monotonic() - model.used)
    until = _NEVER if stays else datetime.fromtimestamp(time.time() + max(left, 0), UTC)
    return _described(model, f"{model.name}:latest") | {
        "expires_at": until.isoformat(),
        "size_vram": model.weights_bytes,
        "context_length": model.checkpoint.max_seq_length,
    }


def _shown(model: ServedModel) -> dict[str, Any]:
    family = _family(model)
    return {
        "modelfile": "",
        "parameters": "",
        "template": "",
        "modified_at": datetime.fromtimestamp(model.created, UTC).isoformat(),
        "details": _details(model),
        "capabilities": ["embedding"],
        "model_info": {
            "general.architecture": family,
            "general.parameter_count": model.checkpoint.parameters,
            f"{family}.context_length": model.checkpoint.max_seq_length,
            f"{family}.embedding_length": model.checkpoint.default_dim,
        },
    }


def _seconds(keep_alive: float | str | None) -> float | None:
    """Seconds, or a duration such as "5m" or "1h30m"; negative for ever.

    Raises:
        RequestError: it is neither.
    """
    if not isinstance(keep_alive, str):
        return keep_alive
    text = keep_alive.strip()
    if re.fullmatch(r"-?\d+", text):
        return float(text)
    if not _DURATION.fullmatch(text):
        raise RequestError(
            "keep_alive is no duration", param="keep_alive", remedy='"5m", say, or seconds'
        )
    parts = re.findall(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)", text)
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return -total if text.startswith("-") else total
