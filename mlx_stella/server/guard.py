"""What every request passes before any route sees it: pure ASGI, around the whole application.

In this order: Host, Origin, preflight, key, content type, body. What fails is answered here, in the
shape of its protocol, before anything was read, parsed or computed.
Nothing of a request is logged, for it is the user's text.
"""

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from mlx_stella.server.access import Access
from mlx_stella.server.faults import Fault, Faults, fault_of

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = dict[bytes, bytes]

MAX_BODY_BYTES = 64 * 2**20
BODY_TIMEOUT_S = 60.0
"""For a whole body: one that comes a byte at a time holds a place no longer than this."""

_OPEN_PATHS = ("/health",)
"""Without a key: whether the server lives, which says nothing about anybody's texts."""

_ASKED_HEADERS = ("authorization", "content-type", "x-api-key", "api-key", "openai-organization",
                  "openai-project")  # fmt: skip
_TOLD_HEADERS = b"x-prompt, x-truncated-inputs, x-should-retry, retry-after, retry-after-ms"

_log = logging.getLogger(__name__)


class Guard:
    """An application behind its guard.

    Args:
        app: what serves those who pass.
        access: who they are.
        faults: tells the others why not.
    """

    def __init__(
        self,
        app: App,
        access: Access,
        faults: Faults,
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
        body_timeout_s: float = BODY_TIMEOUT_S,
    ):
        self._app = app
        self._access = access
        self._faults = faults
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        # Anything else, a WebSocket, is no one's here, and the server closes it.

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply = _Reply(send)
        try:
            headers = _single(scope)
            origin = self._check_caller(scope, headers)
            reply.origin = origin
            if origin and scope["method"] == "OPTIONS":
                await reply.preflight(headers)
                return
            self._check_key(scope, headers)
            _check_content_type(scope, headers)
            receive = await self._read_body(scope, headers, receive)
            await self._app(scope, receive, reply.send)
        except _Refused as refused:
            await self._tell(refused.fault, scope, receive, reply)
        except _Gone:
            return
        except Exception as error:
            _log.error("%s", _place(error))
            if not reply.is_started:
                await self._tell(fault_of(error), scope, receive, reply)

    async def _tell(self, fault: Fault, scope: Scope, receive: Receive, reply: "_Reply") -> None:
        await self._faults.response(scope["path"], fault)(scope, receive, reply.send)

    def _check_caller(self, scope: Scope, headers: Headers) -> bytes:
        """The origin of the web page that asks, b"" if it is none.

        A Unix socket has no name, and only its owner reaches it: there the Host may be any.

        Raises:
            _Refused: the server is called by a name that is not its own, or by a stranger's page.
        """
        host = headers.get(b"host", b"").decode("latin-1")
        address = scope.get("server") or ("", None)
        if not is_unix(scope) and not self._access.knows_host(host, address[0]):
            raise _refused(
                403,
                "this server does not go by the name in the Host header; "
                "remedy: call it by localhost, or start it with --allow-host NAME",
                kind="permission_error",
                code="host_not_allowed",
            )
        origin = headers.get(b"origin", b"")
        known = self._access.knows_origin(origin.decode("latin-1"), host, scope["path"])
        if (origin and not known) or (not origin and _is_embedded(headers)):
            raise _refused(
                403,
                "web pages of this origin may not ask for this; "
                "remedy: start the server with --allow-origin ORIGIN, which opens the routes "
                "for vectors; those of indexes are for the server's own page",
                kind="permission_error",
                code="origin_not_allowed",
            )
        return origin

    def _check_key(self, scope: Scope, headers: Headers) -> None:
        """The owner of a Unix socket, whose mode is 0600, needs no key."""
        if is_unix(scope) or scope["path"] in _OPEN_PATHS or self._access.knows_key(headers):
            return
        raise _refused(
            401,
            "no valid API key; remedy: send the server's key as Authorization: Bearer KEY",
            code="invalid_api_key",
            kind="authentication_error",
            headers={"www-authenticate": "Bearer"},
        )

    async def _read_body(self, scope: Scope, headers: Headers, receive: Receive) -> Receive:
        """What hands the application its body, which has come in whole.

        Raises:
            _Refused: it is too long, or too slow. _Gone: the client left.
        """
        too_long = _refused(
            413,
            f"the body has more than {self._max_body_bytes} bytes; remedy: fewer texts at once",
            code="request_too_large",
            headers={"connection": "close"},  # it may still be sending
        )
        if int(headers.get(b"content-length", b"0")) > self._max_body_bytes:
            raise too_long
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._body_timeout_s):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    more = message.get("more_body", False)
                    if size > self._max_body_bytes:  # whatever the client said it would be
                        raise too_long
        except TimeoutError:
            raise _refused(
                408,
                f"the body did not come within {self._body_timeout_s:.0f} s; remedy: send it again",
                code="request_timeout",
                retry_after_ms=0,
                headers={"connection": "close"},
            ) from None
        return _Replay(b"".join(parts), receive)


def is_unix(scope: Scope) -> bool:
    """Whether a request came over a Unix socket."""
    server = scope.get("server")
    return server is not None and server[1] is None


class _Refused(Exception):
    """A request that goes no further."""

    def __init__(self, fault: Fault):
        super().__init__(fault.message)
        self.fault = fault


def _refused(status: int, message: str, **told: Any) -> _Refused:
    return _Refused(Fault(status, message, **told))


class _Gone(Exception):
    """The client left before it had said what it wanted."""


class _Replay:
    """A body in one piece; then whatever the connection has to tell, that the client left."""

    def __init__(self, body: bytes, receive: Receive):
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


class _Reply:
    """Sends an answer with what a web page's browser needs to hand it on.

    Attributes:
        origin: of the page, once it may know; b"" for none.
        is_started: something was begun to be said.
    """

    def __init__(self, send: Send):
        self._send = send
        self.is_started = False
        self.origin = b""

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.is_started = True
            message["headers"] = [*message.get("headers", ()), *self._for_pages()]
        await self._send(message)

    async def preflight(self, headers: Headers) -> None:
        """Tell a browser what its page may send."""
        asked = headers.get(b"access-control-request-headers", b"").decode("latin-1").lower()
        names = (name.strip() for name in asked.split(","))
        known = [n for n in names if n in _ASKED_HEADERS or n.startswith("x-stainless-")]
        answer = [
            (b"access-control-allow-methods", b"GET, HEAD, POST"),
            (b"access-control-allow-headers", ", ".join(known).encode("latin-1")),
            (b"access-control-max-age", b"600"),
        ]
        await self.send({"type": "http.response.start", "status": 204, "headers": answer})
        await self.send({"type": "http.response.body", "body": b""})

    def _for_pages(self) -> list[tuple[bytes, bytes]]:
        if not self.origin:
            return []
        return [
            (b"access-control-allow-origin", self.origin),
            (b"access-control-expose-headers", _TOLD_HEADERS),
            (b"vary", b"Origin"),
        ]


def _single(scope: Scope) -> Headers:
    """The headers by name.

    Raises:
        _Refused: one that decides here is there twice, so that two readers could differ.
    """
    found: Headers = {}
    for name, value in scope["headers"]:
        if name in found and name in (b"host", b"origin", b"content-type", b"authorization"):
            raise _refused(400, f"two headers {name.decode('latin-1')}; remedy: send one")
        found[name] = value
    return found


def _is_embedded(headers: Headers) -> bool:
    """Whether a browser fetches it as a part of another site's page, a picture say.

    It sends no Origin then. Following a link is another matter.
    """
    is_foreign = headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site")
    return is_foreign and headers.get(b"sec-fetch-mode") != b"navigate"


def _check_content_type(scope: Scope, headers: Headers) -> None:
    """A form of any page sends text or form data without a preflight; JSON it cannot.

    Of a model's name it is no matter, and Smart Connections asks for that without saying JSON.

    Raises:
        _Refused: the body is said to be something else than JSON.
    """
    has_body = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
    says = has_body or b"content-type" in headers
    if scope["method"] != "POST" or scope["path"] == "/api/show" or not says:
        return
    kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if kind != b"application/json":
        raise _refused(
            415,
            "the body is not said to be JSON; remedy: send the header "
            "Content-Type: application/json",
            code="unsupported_media_type",
        )


def _place(error: BaseException) -> str:
    """Kind of an error and where it was raised, without its words: they may be a user's text."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "nowhere"
    return f"{type(error).__name__} at {where}"
