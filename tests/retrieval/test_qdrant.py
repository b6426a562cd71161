"""What only an index in Qdrant can meet: addresses, servers, keys, other people's collections.

What it shares with one in LanceDB is in test_index.py. The server is the client's local mode, or
a few lines of HTTP that answer as a server would.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

pytest.importorskip("lancedb")
pytest.importorskip("qdrant_client")
from qdrant_client import QdrantClient, models
from support.commands import TEXTS, fail, run, succeed
from support.indexing import contents, run_index, store_of

from mlx_stella.errors import InputError, StoreError
from mlx_stella.retrieval import qdrant

URI = "qdrant+http://localhost:6333/idx"
pytestmark = pytest.mark.filterwarnings("ignore:.*[Ll]ocal:UserWarning", "ignore:Api key")


@pytest.fixture
def client(monkeypatch) -> QdrantClient:
    """A Qdrant in this process, which all addresses lead to."""
    client = QdrantClient(":memory:")
    monkeypatch.setattr(qdrant, "connect", lambda url: client)
    return client


@pytest.fixture
def serve(request):
    """Starts a server that gives one answer to everything; returns its address and its requests."""

    def start(status: int, body: str) -> tuple[str, list]:
        requests = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                requests.append((self.path, self.headers["api-key"]))
                self.send_response(status if self.path != "/" else min(status, 200))
                self.end_headers()
                self.wfile.write((body if self.path != "/" or status == 200 else ROOT).encode())

            def log_message(self, *_):
                pass

        server = HTTPServer(("localhost", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        request.addfinalizer(server.server_close)
        request.addfinalizer(server.shutdown)
        return f"qdrant+http://localhost:{server.server_port}/idx", requests

    return start


ROOT = json.dumps({"title": "qdrant - vector search engine", "version": "1.20.0"})


@pytest.fixture
def notes(tmp_path):
    for name, text in TEXTS.items():
        (tmp_path / "notes" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "notes" / name).write_text(text)
    return tmp_path / "notes"


def test_the_verbs(client, notes, tmp_path):
    succeed("index", "notes", "--to", URI, "--dim", "256", cwd=tmp_path)
    (notes / "b.md").write_text("cold brew")
    (notes / "a.md").unlink()
    report = run("index", "notes", "--to", URI, cwd=tmp_path)[2]
    assert "1 unchanged, 1 chunks embedded, 0 reused, 1 files removed" in report
    for options in ([], ["--hybrid"], ["--exact"]):
        hits = json.loads(succeed("search", URI, "brew", "--json", *options, cwd=tmp_path))
        assert {hit["file"] for hit in hits} == {"b.md", "sub/c.py"}
    assert json.loads(succeed("status", URI, "--json", cwd=tmp_path))["done"] == 2
    succeed("export", URI, "--output", str(tmp_path / "v.npy"), cwd=tmp_path)
    np.testing.assert_allclose(np.linalg.norm(np.load(tmp_path / "v.npy"), axis=1), 1, atol=1e-6)
    error = fail("index", "notes", "--to", URI, "--dim", "768", cwd=tmp_path)
    assert "was made with dim 256, not 768" in error
    other = str(notes.parents[0] / "other")
    assert "no such directory" in fail("search", URI, "tea", "--model", other, cwd=tmp_path)


def test_nothing_is_made_by_looking(client, tmp_path):
    assert "no index; remedy" in fail("status", URI, cwd=tmp_path)
    assert client.get_collections().collections == []


@pytest.mark.parametrize("name", ["idx", "idx-notes"])
def test_a_collection_of_somebody_else_is_left_alone(client, notes, tmp_path, name):
    client.create_collection(name, models.VectorParams(size=3, distance=models.Distance.COSINE))
    error = fail("index", "notes", "--to", URI, cwd=tmp_path)
    assert f"the collection '{name}' holds something else" in error
    assert client.count(name).count == 0


def test_a_run_that_broke_off_is_taken_up(client, tmp_path, monkeypatch):
    """Between two requests of one batch, which are sent in the order of rows."""
    monkeypatch.setattr(qdrant, "REQUEST_ROWS", 8)
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.md").write_text("\n\n".join(f"{number} {n} " * 20 for n in range(9)))
    total = run_index(URI.replace("idx", "whole"), folder).embedded
    send, sent = client.upsert, []

    def break_off(*arguments, **options):
        sent.append(arguments)
        if len(sent) == 3:
            raise KeyboardInterrupt
        return send(*arguments, **options)

    monkeypatch.setattr(client, "upsert", break_off)
    with pytest.raises(KeyboardInterrupt):
        run_index(URI, folder)
    assert len(contents(URI)) == 16
    assert run_index(URI, folder).embedded == total - 16
    assert contents(URI) == contents(URI.replace("idx", "whole"))


def test_a_row_that_got_lost_is_put_back(client, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.md").write_text("\n\n".join(f"paragraph {n} " * 9 for n in range(5)))
    whole = run_index(URI, folder).embedded
    before = contents(URI)
    chosen = models.FieldCondition(key="number", match=models.MatchValue(value=1))
    client.delete("idx", models.FilterSelector(filter=models.Filter(must=[chosen])))
    (state,) = store_of(URI).states()
    assert (state.chunks, state.is_complete) == (0, False)
    report = run_index(URI, folder)
    assert (report.embedded, report.reused) == (1, whole - 1)
    assert contents(URI) == before


def test_rare_words_weigh_more(client, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number}.md").write_text(f"the common word {'quince' * (number == 7)}")
    run_index(URI, folder)
    hits = store_of(URI).search_words("the common Quince?", 3, ())
    assert hits[0].row.key.name == "7.md" and hits[0].score > 3 * hits[1].score
    assert store_of(URI).search_words("...", 3, ()) == []


def test_addresses(monkeypatch):
    seen = []

    def connect(url):
        seen.append(url)
        return QdrantClient(":memory:")

    monkeypatch.setattr(qdrant, "connect", connect)
    for address in ("http://db/a", "https://db:99/my.notes/", "http://[::1]:7/a_b"):
        store_of(f"qdrant+{address}").count()
    assert seen == ["http://db:6333", "https://db:99", "http://[::1]:7"]
    for address in ("http://db", "http://db/a/b", "http://db/..", "http:///a", "http://db:x/a"):
        with pytest.raises(InputError, match=r"not understood; remedy: qdrant\+http"):
            store_of(f"qdrant+{address}")
    with pytest.raises(InputError, match="without a password") as caught:
        store_of("qdrant+http://me:secret@db/a")
    assert "secret" not in str(caught.value)


def test_a_server_that_is_down(tmp_path):
    error = fail("status", "qdrant+http://localhost:1/idx", cwd=tmp_path)
    assert "localhost:1/idx: the server does not answer" in error and "remedy: start it" in error


def test_the_key_comes_from_the_environment(serve, monkeypatch):
    monkeypatch.setenv(qdrant.API_KEY, "wrong")
    uri, requests = serve(403, "Invalid API key")
    with pytest.raises(StoreError, match="refuses the key; remedy: export QDRANT_API_KEY"):
        store_of(uri).count()
    assert requests[-1] == ("/collections/idx/exists", "wrong")


@pytest.mark.parametrize(
    "status, body, message",
    [
        (200, "<html>", "no answer of Qdrant's"),
        (200, json.dumps({"title": "q", "version": "1.9.2"}), "Qdrant 1.9.2 is too old; remedy"),
        (200, json.dumps({"title": "q", "version": "new"}), "no answer of Qdrant's"),
        (404, "gone", "no answer of Qdrant's .*404"),
        (500, "No space left on device", "the server's disk is full"),
        (500, "panic", "the server cannot do this .*panic"),
    ],
)
def test_what_servers_answer(serve, status, body, message):
    uri, _ = serve(status, body)
    with pytest.raises(StoreError, match=message):
        store_of(uri).count()
