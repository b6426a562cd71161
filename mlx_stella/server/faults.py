"""What went wrong, as HTTP tells it: one status for each error, in the shape of each protocol."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import Response

from mlx_stella.errors import (
    InputError,
    MemoryLimitError,
    MissingExtraError,
    ModelNotFoundError,
    StellaError,
    StoreError,
    VectorError,
)
from mlx_stella.server.backlog import BacklogFullError
from mlx_stella.server.worker import GoneError, StoppingError


class RequestError(InputError):
    """A request that cannot be answered as it is.

    Attributes:
        status: of the answer.
        param: the field that is at fault.
    """

    def __init__(
        self,
        fault: object,
        *,
        status: int = 400,
        param: str | None = None,
        where: object = None,
        row: int | None = None,
        remedy: str | None = None,
    ):
        super().__init__(fault, where=where, row=row, remedy=remedy)
        self.status, self.param = status, param


@dataclass(frozen=True)
class Fault:
    """An error as HTTP tells it.

    Attributes:
        kind: what protocols call its type: "invalid_request_error", "server_error" and so on.
        code: a word for programs, or None; param: the field that is at fault.
        retry_after_ms: when to try again; None if that is of no use.
        headers: what the protocol or the guard adds.
    """

    status: int
    message: str
    kind: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    retry_after_ms: int | None = None
    headers: Mapping[str, str] | None = None


Shape = Callable[[Fault], Any]
"""A fault as the JSON of a protocol."""


def fault_of(error: Exception) -> Fault:
    """The status of an error. What is no error of ours is told without its words."""
    text = str(error)
    match error:
        case RequestError():
            kind = "authentication_error" if error.status == 401 else "invalid_request_error"
            return Fault(error.status, text, kind, param=error.param)
        case BacklogFullError():
            wait = error.retry_after_ms
            return Fault(429, text, "rate_limit_error", "backlog_full", retry_after_ms=wait)
        case StoppingError():
            return Fault(503, text, "server_error", "stopping", retry_after_ms=1000)
        case GoneError():
            return Fault(499, text)  # as others name it; nobody reads it
        case ModelNotFoundError():
            return Fault(404, text, code="model_not_found", param="model")
        case VectorError():
            return Fault(500, text, "server_error", "vector_not_finite")
        case MemoryLimitError() if error.row is None:
            return Fault(500, text, "server_error", "memory_limit")
        case InputError():
            return Fault(400, text)
        case StoreError():
            return Fault(503, text, "server_error", "index_unavailable")
        case MissingExtraError():
            return Fault(501, text, "server_error", "not_installed")
        case StellaError():
            return Fault(500, text, "server_error")
    return Fault(500, "an error of the server; remedy: see its log", "server_error")


class Faults:
    """Tells faults in the shape of the protocol that a path belongs to."""

    def __init__(self, default: Shape):
        self._default = default
        self._shapes: list[tuple[str, Shape]] = []

    def speaks(self, path: str, shape: Shape) -> None:
        """Have this path, and those below it, answer in this shape; "/" has none below it."""
        self._shapes.append((path, shape))
        self._shapes.sort(key=lambda pair: len(pair[0]), reverse=True)

    def response(self, path: str, fault: Fault) -> Response:
        """The answer that tells of a fault."""
        shapes = (shape for own, shape in self._shapes if path == own or path.startswith(f"{own}/"))
        headers = dict(fault.headers or {})
        if fault.retry_after_ms is not None:
            headers["retry-after-ms"] = str(fault.retry_after_ms)
            headers["retry-after"] = str(-(-fault.retry_after_ms // 1000))
        elif fault.status in (408, 409, 429) or fault.status >= 500:
            headers["x-should-retry"] = "false"  # clients would, twice, by the status alone
        body = orjson.dumps(next(shapes, self._default)(fault))
        return Response(body, fault.status, headers, "application/json")
