"""Who is let in, and what is read of those who are not: the guard before a stub of the server."""

import asyncio
import json
import logging
import re

import pytest

pytest.importorskip("fastapi")
from support import CHECKPOINTS

from mlx_stella.server import openai
from mlx_stella.server.access import Access, is_loopback
from mlx_stella.server.app import create_app
from mlx_stella.server.embedding import Served
from mlx_stella.server.faults import Faults
from mlx_stella.server.guard import Guard
from mlx_stella.server.models import Models

JSON = {"content-type": "application/json"}
PATHS = ("/v1/embeddings", "/v1/search", "/api/embed", "/embed", "/v2/embed", "/")


class Stub:
    """Counts the requests that reach it, and echoes their bodies."""

    def __init__(self, fault=None):
        self.served, self.fault = 0, fault

    async def __call__(self, scope, receive, send):
        self.served += 1
        if self.fault:
            raise self.fault
        message = await receive()
        assert not message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": message["body"]})


class Answer:
    def __init__(self, sent):
        self.status = sent[0]["status"]
        self.headers = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
        self.body = sent[1]["body"]


def ask(
    app,
    path="/v1/embeddings",
    method="POST",
    body=b"{}",
    parts=None,
    server=("127.0.0.1", 7997),
    access=None,
    silent=False,
    **headers,
):
    """One request through a guard; ``parts`` of a body come without a Content-Length."""
    named = {"host": "localhost:7997", **({} if parts is not None else JSON)}
    if parts is None and method == "POST":
        named["content-length"] = str(len(body))
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    raw = [(k.encode(), v.encode()) for k, v in named.items() if v is not None]
    scope = {"type": "http", "method": method, "path": path, "headers": raw, "server": server}
    messages = [
        {"type": "http.request", "body": part, "more_body": True} for part in parts or [body]
    ]
    messages[-1]["more_body"] = silent
    sent = []

    async def receive():
        if messages:
            return messages.pop(0)
        return await asyncio.Event().wait()  # a client that says no more

    async def send(message):
        sent.append(message)

    faults = Faults(lambda fault: {"error": fault.message})
    guard = Guard(app, access or Access.of(), faults, max_body_bytes=1000, body_timeout_s=0.05)
    asyncio.run(guard(scope, receive, send))
    return Answer(sent) if sent else None


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:7997", "LOCALHOST.", "stella.localhost", "127.0.0.1:7997"),
        *("127.9.9.9", "[::1]:7997", "host.docker.internal:7997", "notes.example"),
    ],
)
def test_the_servers_own_names_pass(host):
    stub = Stub()
    assert ask(stub, host=host, access=Access.of(hosts=["notes.example"])).status == 200
    assert stub.served == 1


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "localhost.evil.example", "evil.example:7997", "0.0.0.0:7997", "[::]"),
        *("192.168.1.5", "127.0.0.1.evil.example", "localhost@evil.example", "localhost/", ""),
        *("127.0.0.1:x", "evil.localhost.example", "2130706433", None),
    ],
)
def test_other_names_do_not(host, path):
    stub = Stub()
    answer = ask(stub, path, host=host)
    assert (answer.status, stub.served) == (403, 0)
    assert "--allow-host" in json.loads(answer.body)["error"]


def test_the_address_that_was_called_is_a_name_too():
    """Bound to all addresses, a server is called by that of its network."""
    access = Access.of(bind="0.0.0.0")
    assert ask(Stub(), host="192.168.1.5:7997", server=("192.168.1.5", 7997)).status == 200
    assert ask(Stub(), host="0.0.0.0:7997", server=("0.0.0.0", 7997), access=access).status == 403


@pytest.mark.parametrize(
    "origin",
    [
        *("http://localhost:3000", "http://127.0.0.1:8080", "https://[::1]:1", "app://obsidian.md"),
        *("capacitor://localhost", "tauri://localhost", "vscode-webview://1bc2", "https://a.b"),
    ],
)
def test_local_pages_and_programs_may_ask_for_vectors_and_not_for_files(origin):
    access = Access.of(origins=["https://a.b/"])
    for path in ("/v1/embeddings", "/api/embed", "/embed", "/v2/embed", "/v1/models/x"):
        answer = ask(Stub(), path, origin=origin, access=access)
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == origin
        assert answer.headers["vary"] == "Origin"
    for path in ("/v1/search", "/v1/passages/x", "/", "/mcp", "/metrics", "/v1/embeddings/"):
        stub = Stub()
        assert ask(stub, path, origin=origin, access=access).status == 403
        assert stub.served == 0


@pytest.mark.parametrize(
    "origin",
    [
        *("null", "https://evil.example", "http://localhost.evil.example", "file://", "*"),
        *("http://localhost:3000.evil.example", "app://obsidian.md.evil.example", "http://"),
        *("http://localhost@evil.example", "http://0.0.0.0:7997", "app://other", "http://[::1"),
    ],
)
def test_strangers_pages_may_ask_for_nothing(origin):
    for path in PATHS:
        stub = Stub()
        answer = ask(stub, path, origin=origin)
        assert (answer.status, stub.served) == (403, 0)
        assert "--allow-origin" in json.loads(answer.body)["error"]
        assert "access-control-allow-origin" not in answer.headers
    assert ask(Stub(), method="OPTIONS", origin=origin).status == 403


def test_the_servers_own_page_may_ask_for_everything():
    assert ask(Stub(), "/v1/search", origin="http://localhost:7997").status == 200


def test_a_picture_in_another_sites_page_starts_no_search():
    foreign = {"sec_fetch_site": "cross-site", "method": "GET"}
    assert ask(Stub(), "/v1/search", sec_fetch_mode="no-cors", **foreign).status == 403
    assert ask(Stub(), "/", sec_fetch_mode="navigate", **foreign).status == 200  # a link


def test_a_preflight_is_answered_before_anything_else():
    stub = Stub()
    answer = ask(
        stub,
        method="OPTIONS",
        origin="app://obsidian.md",
        access=Access.of(keys=["secret"]),
        access_control_request_method="POST",
        access_control_request_headers="Authorization, content-type,X-Stainless-OS, x-evil",
    )
    assert (answer.status, stub.served) == (204, 0)
    allowed = answer.headers["access-control-allow-headers"]
    assert allowed == "authorization, content-type, x-stainless-os"
    assert "POST" in answer.headers["access-control-allow-methods"]


def test_keys():
    access = Access.of(keys=["secret", "other"])
    for headers in (
        *({"authorization": "Bearer secret"}, {"authorization": "bearer other"}),
        *({"x_api_key": "secret"}, {"api_key": "other"}),
    ):
        assert ask(Stub(), access=access, **headers).status == 200
    for headers in ({}, {"authorization": "secret"}, {"x_api_key": ""}, {"api_key": "secreté"}):
        for path in PATHS:
            stub = Stub()
            answer = ask(stub, path, access=access, **headers)
            assert (answer.status, stub.served) == (401, 0)
            assert "Bearer KEY" in json.loads(answer.body)["error"]
    assert ask(Stub(), "/health", "GET", access=access).status == 200
    assert ask(Stub(), authorization="Bearer whatever").status == 200  # none is asked for


def test_a_unix_socket_has_no_name_and_its_owner_no_key():
    socket = {"server": ("/tmp/s", None), "access": Access.of(keys=["secret"])}
    assert ask(Stub(), host="whatever", **socket).status == 200
    assert ask(Stub(), host="whatever", origin="https://evil.example", **socket).status == 403


def test_bodies_are_json():
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None):
        stub = Stub()
        assert ask(stub, content_type=kind).status == 415
        assert stub.served == 0
    assert ask(Stub(), content_type="application/json; charset=utf-8").status == 200
    assert ask(Stub(), "/api/show", content_type=None).status == 200  # Smart Connections does so
    assert ask(Stub(), content_type=None, body=b"").status == 200  # the route will complain


def test_a_body_is_bounded_before_it_is_read():
    for body in ({"content_length": "1001"}, {"parts": [b"x" * 600, b"x" * 600, b"x"], **JSON}):
        stub = Stub()
        answer = ask(stub, **{k.replace("-", "_"): v for k, v in body.items()})
        assert (answer.status, stub.served) == (413, 0)
        assert answer.headers["connection"] == "close"
    whole = ask(Stub(), parts=[b"x" * 500, b"", b"x" * 500], content_type="application/json")
    assert (whole.status, whole.body) == (200, b"x" * 1000)


def test_a_slow_body_is_given_up():
    stub = Stub()
    answer = ask(stub, parts=[b"{"], silent=True, content_type="application/json")
    assert (answer.status, stub.served) == (408, 0)


def test_a_header_that_decides_is_there_once():
    headers = [(b"host", b"localhost"), (b"host", b"evil.example")]
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "server": None}
    asyncio.run(Guard(Stub(), Access.of(), Faults(lambda fault: None))(scope, None, send))
    assert sent[0]["status"] == 400


def test_what_breaks_is_told_without_a_word_of_the_text(caplog, monkeypatch):
    # The import linter, which another test calls, turns off all loggers that there are by then.
    monkeypatch.setattr(logging.getLogger(Guard.__module__), "disabled", False)
    with caplog.at_level(logging.DEBUG):
        answer = ask(Stub(ValueError("a private text")))
    assert answer.status == 500
    assert "private" not in caplog.text + answer.body.decode()
    assert "ValueError at " in caplog.text


def test_only_loopback_needs_no_key():
    assert all(map(is_loopback, ("127.0.0.1", "::1", "localhost", "127.1.2.3")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.5", "mac.local", "")))


@pytest.fixture(scope="module")
def app():
    """Not started: whatever passed the guard would find no worker."""
    served = Served(Models([str(CHECKPOINTS / "tiny-stella-400m")]), shape=openai.shape)
    return create_app(served, Access.of(keys=["secret"]))


def paths_of(routes):
    """Method and path of every route, those of routers and mounted applications included."""
    for route in routes:
        if hasattr(route, "methods"):
            path = re.sub(r"{[^}]*}", "x", route.path)
            yield from ((method, path) for method in route.methods)
        else:
            yield from paths_of(getattr(route, "original_router", route).routes)


def ask_whole(app, method, path, **headers):
    """Status and body of a request to the application, guard and all."""
    named = {"host": "localhost:7835", **JSON} | headers
    raw = [(name.encode(), value.encode()) for name, value in named.items()]
    scope = {
        **{"type": "http", "method": method, "path": path, "raw_path": path.encode()},
        **{"headers": raw, "server": ("127.0.0.1", 7835), "client": ("127.0.0.1", 1)},
        **{"query_string": b"", "scheme": "http", "http_version": "1.1", "root_path": ""},
    }
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], sent[1]["body"]


def test_every_route_is_behind_the_guard(app):
    found = sorted(set(paths_of(app.routes)))
    assert {path for _, path in found} >= {
        *("/", "/v1/embeddings", "/v1/models", "/v1/models/x", "/api/tags", "/api/embed"),
        *("/embed", "/tokenize", "/v2/embed", "/health", "/metrics", "/openapi.json"),
    }
    key = {"authorization": "Bearer secret"}
    for method, path in [*found, ("GET", "/nowhere"), ("DELETE", "/v1/embeddings")]:
        assert ask_whole(app, method, path, host="evil.example", **key)[0] == 403, path
        assert ask_whole(app, method, path, origin="https://evil.example", **key)[0] == 403, path
        assert ask_whole(app, method, path, origin="null", **key)[0] == 403, path
        status, body = ask_whole(app, method, path)
        assert status == 401 or path == "/health", path
        assert b"Bearer KEY" in body or path == "/health"
