"""What a client is told when something is wrong, in the shape that its protocol has for it.

The one place that knows the shapes; which of them it is, the path tells.

    OpenAI  /v1/..., and whatever is no one else's
            {"error": {"message", "type", "param", "code"}}
    Ollama  /api/...      {"error": "..."}
    TEI     /embed, /info, /tokenize, /similarity, POST /
            {"error": "...", "error_type": "..."}
    Cohere  /v2/...       {"message": "..."}
"""

from collections.abc import Mapping
from typing import Any

import orjson

_TEI_PATHS = ("/", "/embed", "/info", "/tokenize", "/similarity")

_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_TEI_TYPES = {413: "validation", 422: "tokenizer", 429: "overloaded", 503: "unhealthy"}


class Refusal(Exception):
    """A request that is not served.

    Attributes:
        status: of HTTP.
        message: one line with fault and remedy.
        code: a word for programs, as OpenAI has them; param: the field it is about.
        headers: what the answer carries besides.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def body(self, path: str) -> bytes:
        """JSON, in the shape of the path's protocol."""
        return orjson.dumps(self._shaped(path))

    def _shaped(self, path: str) -> dict[str, Any]:
        if path.startswith("/api/"):
            return {"error": self.message}
        if path.startswith("/v2/"):
            return {"message": self.message}
        if path in _TEI_PATHS:
            default = "backend" if self.status >= 500 else "validation"
            return {"error": self.message, "error_type": _TEI_TYPES.get(self.status, default)}
        default = "server_error" if self.status >= 500 else "invalid_request_error"
        return {
            "error": {
                "message": self.message,
                "type": _OPENAI_TYPES.get(self.status, default),
                "param": self.param,
                "code": self.code,
            }
        }
