"""A running server in place of a model: the same bytes, nothing imported, and no server a fault."""

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

pytest.importorskip("lancedb")
pytest.importorskip("fastapi")
from support import CHECKPOINTS, ROOT, load_tiny
from support.commands import TEXTS, run, write
from support.listening import listening, serving, short_folder

import mlx_stella
from mlx_stella import Index
from mlx_stella.checkpoint import hub
from mlx_stella.errors import StellaWarning
from mlx_stella.retrieval.index import Index as IndexClass
from mlx_stella.server import client, openai
from mlx_stella.server.embedding import Served
from mlx_stella.server.models import Models

STELLA = str(CHECKPOINTS / "tiny-stella-1.5b")
QUESTION = "where are my keys?"
HEAVY = ("mlx.core", "numpy", "lancedb", "pyarrow", "tokenizers", "huggingface_hub", "fastapi")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two indexes of the same notes; the server has the one, and is not told of the other."""
    root = tmp_path_factory.mktemp("warm")
    write(root / "notes", TEXTS)
    model = load_tiny("tiny-stella-1.5b")
    for name in ("served", "unserved"):
        Index.create(root / name, model, dim=256).update(root / "notes")
        cut = Index.create(root / f"{name}-cut", model, dim=256, truncate_dim=64)
        with pytest.warns(StellaWarning, match="not known to be trained"):
            cut.update(root / "notes")
    return root


@pytest.fixture(scope="module")
def path(folder):
    """The socket of a server."""
    served = Served(
        Models([STELLA], dtype="float32"),
        shape=openai.shape,
        indexes={"notes": str(folder / "served"), "cut": str(folder / "served-cut")},
    )
    with short_folder() as short, serving(served, Path(short, "s")):
        yield Path(short, "s")


@pytest.fixture
def server(path, monkeypatch):
    monkeypatch.setenv("MLX_STELLA_SOCKET", str(path))
    return path


@pytest.fixture
def no_model(monkeypatch):
    """Whoever loads a model here fails."""

    def refuse(*arguments, **options):
        raise AssertionError("a model is loaded")

    monkeypatch.setattr("mlx_stella.retrieval.index.load_recorded", refuse)
    monkeypatch.setattr(mlx_stella, "load", refuse, raising=False)


def alone(*arguments, **options):
    return run(*arguments, "--no-server", **options)


SEARCHES = [
    ("search", "served", QUESTION),
    ("search", "served", QUESTION, "--json", "--top", "2"),
    ("search", "served", QUESTION, "--hybrid", "--exact", "--filter", "file=*.md"),
    ("search", "served", QUESTION, "--filter", "file=no"),
    ("search", "served", "-", "--json"),
    ("search", "served", "-"),
    ("search", "served/", "key " * 700),  # cut, which is told
    ("search", "unserved", QUESTION, "--json"),
    ("search", "served", QUESTION, "--json", "--task", "s2s"),
    ("search", "unserved", QUESTION, "--json", "--task", "s2s"),
    ("search", "served-cut", QUESTION, "--json"),
    ("search", "unserved-cut", QUESTION, "--json", "--task", "s2s"),
]


@pytest.mark.parametrize("command", SEARCHES, ids=lambda command: " ".join(command)[:50])
def test_a_search_prints_the_same_bytes(server, folder, command, monkeypatch, no_model):
    stdin = "tea\n\nwhere are my keys?\n"
    if command[1].startswith("served"):
        monkeypatch.setattr(IndexClass, "open", None)  # the whole search is answered there
    there = run(*command, cwd=folder, stdin=stdin)
    monkeypatch.undo()
    assert there == alone(*command, cwd=folder, stdin=stdin)
    assert there[0] == 0 and there[1:] != ("", "")


EMBEDDINGS = [
    ("embed", "tea", "keys", "", "a rather longer text about tea and about keys"),
    ("embed", "tea", "--prompt-name", "s2p_query", "--dim", "256"),
    ("embed", "tea", "--prompt", "Tea: "),
    ("embed", "tea", "--task", "s2s"),
    ("embed", "tea", "--instruction", "Find tea."),
    ("embed", "tea", "--dtype", "float32", "--no-normalize"),
    ("embed", "tea " * 700),
    ("embed", "--input", "lines.txt", "--output", "out.npy"),
    ("embed", "--input", "lines.txt", "--output", "out.npy", "--overwrite"),
    ("embed", "--input", "lines.txt", "--output", "out.jsonl"),
]


@pytest.mark.parametrize("command", EMBEDDINGS, ids=lambda command: " ".join(command)[:50])
def test_embed_writes_the_same_bytes(server, tmp_path, command, monkeypatch, no_model):
    (tmp_path / "lines.txt").write_text("tea\nkeys in the drawer\n\ngreen leaves\n" * 8)
    there = run(*command, cwd=tmp_path)
    files = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.undo()
    if "--overwrite" not in command:
        for written in tmp_path.glob("out.*"):
            written.unlink()
    assert there == alone(*command, cwd=tmp_path) and there[0] == 0
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == files


@pytest.mark.parametrize(
    "command",
    [
        ("embed", "tea", "--no-server"),
        ("embed", "tea", "--dtype", "float16"),
        ("embed", "tea", "--memory-limit", "4GB"),
        ("embed", "tea", "--max-length", "9"),
        ("embed", "tea", "--truncate-dim", "64"),
        ("embed", "tea", "--model", str(CHECKPOINTS / "tiny-gte-en-v1.5")),
        ("embed", *["tea"] * 65),
        ("search", "served", "tea", "--dtype", "float16"),
        ("search", "served", "tea", "--model", STELLA),
        ("search", "served", "tea", "--no-server"),
    ],
    ids=lambda command: " ".join(command)[:50],
)
def test_what_a_server_would_not_do_the_same_is_done_here(server, folder, command, monkeypatch):
    monkeypatch.setattr(client.RunningServer, "search", None)
    monkeypatch.setattr(client.RunningServer, "embed", None)
    status, output, error = run(*command, cwd=folder)
    assert status == 0 and output and "server" not in error


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        (("search", "served", "tea", "--filter", "size=1"), "filter 'size=1': not understood"),
        (("embed", "tea " * 700, "--on-long", "error"), "tokens exceed 512"),
        (("embed", "tea", "--dim", "7"), "7"),
        (("embed", "tea", "--prompt-name", "no"), "no prompt is named"),
        (("embed", "tea", "--task", "no"), "no query prompt for task 'no'"),
        (("embed", "tea", "--task", "s2s", "--prompt", "x"), "--task chooses a prompt"),
        (("search", "served", "tea", "--task", "no"), "no query prompt for task 'no'"),
    ],
)
def test_a_users_fault_is_told_as_without_a_server(server, folder, command, fault):
    told = run(*command, cwd=folder)
    assert told == alone(*command, cwd=folder)
    assert told[0] == 1 and fault in told[2] and told[2].count("\n") == 1


def test_vectors_are_equal_to_the_bit(server):
    texts = ["tea", "where are my keys?", "a rather longer text about tea and about keys"]
    there, cut = client.find().embed(texts, {"model": "tiny-stella-1.5b"})
    here = load_tiny("tiny-stella-1.5b").encode(texts)
    assert np.asarray(there).tobytes() == here.tobytes() and cut == 0


@pytest.mark.parametrize("command", [("search", "served", "tea"), ("embed", "tea")])
def test_nothing_heavy_is_imported(server, folder, command):
    code = f"""
import sys
from mlx_stella.cli import main
sys.argv = {["mlx-stella", *command]!r}
try:
    main()
except SystemExit as end:
    assert not end.code
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    env = {**os.environ, "MLX_STELLA_MODEL": STELLA, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.stdout and done.stderr == "[]\n"


def answer(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body)


def status_of(folder, version=mlx_stella.__version__) -> bytes:
    """What a server of the notes says of itself, whatever it does then."""
    entry = {"label": "n", "uri_hash": client.uri_hash(str(folder / "served")), "dtype": "float32"}
    told = {"version": version, "default_dtype": "float32", "indexes": [entry]}
    return answer(b"200 OK", json.dumps(told).encode())


@contextlib.contextmanager
def pretending(path: Path, *answers: bytes, pause: float = 0.0):
    """A socket whose connections get these bytes in turn; with a pause one byte at a time."""
    channel = listening(path)

    def serve():
        for number in range(99):
            with contextlib.suppress(OSError):
                connection, _ = channel.accept()
                with connection:
                    if connection.recv(2**16):
                        said = answers[min(served[0], len(answers) - 1)]
                        served[0] += 1
                        for piece in [said] if not pause else [bytes([c]) for c in said]:
                            connection.sendall(piece)
                            time.sleep(pause)
                        connection.shutdown(socket.SHUT_WR)
                        while connection.recv(2**16):
                            pass
            if channel.fileno() < 0:
                return number

    served = [0]
    threading.Thread(target=serve, daemon=True).start()
    try:
        yield
    finally:
        channel.shutdown(socket.SHUT_RDWR)
        channel.close()


WORDS = dict.fromkeys(("root", "file", "heading", "record", "text"), "a")
HIT = {"score": 1.0, "lines": [1, 2], **WORDS}
BAD_HITS = [
    {"results": []},
    {"results": [{"hits": [{**HIT, "score": "best"}]}]},
    {"results": [{"hits": [{**HIT, "lines": [1]}]}]},
    {"results": [{"hits": [{**HIT, "file": None}]}]},
    {"results": [{"hits": {}}]},
]


@pytest.mark.parametrize(
    ("answers", "pause", "why"),
    [
        ([b""], 0, "gave no answer"),
        ([b"SSH-2.0-OpenSSH_9.9\r\n"], 0, "gave no answer"),
        ([b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"], 0, "not understood"),
        ([b"HTTP/1.1 200 OK\r\nx: " + b"y" * 99999], 0, "gave no answer"),
        ([answer(b"200 OK", b"[" * 100_000)], 0, "not understood"),
        ([answer(b"200 OK", b"\xff")], 0, "not understood"),
        ([answer(b"200 OK", b"[]")], 0, "not understood"),
        ([answer(b"500 Oh", b"{}")], 0, "answered 500"),
        ([b"HTTP/1.1 200 OK\r\n" + b"x" * 99], 0.05, "not within 1 s"),
        (["old"], 0, "is of version 0.0.1"),
        (["status", b""], 0, "gave no answer"),
        (["status", answer(b"429 Later", b"{}")], 0, "answered 429"),
        (["status", b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n{"], 0, "not understood"),
        *[
            (["status", answer(b"200 OK", json.dumps(bad).encode())], 0, "server at")
            for bad in BAD_HITS
        ],
    ],
)
def test_a_server_that_fails_costs_one_note(folder, monkeypatch, answers, pause, why):
    named = {"status": status_of(folder), "old": status_of(folder, "0.0.1")}
    monkeypatch.setattr(client, "PATIENCE_S", 1.0)
    with short_folder() as short:
        path = Path(short, "s")
        monkeypatch.setenv("MLX_STELLA_SOCKET", str(path))
        start = time.monotonic()
        with pretending(path, *(named.get(a, a) for a in answers), pause=pause):
            status, output, error = run("search", "served", "tea", cwd=folder)
        assert time.monotonic() - start < 20
    assert (status, output, "") == alone("search", "served", "tea", cwd=folder)
    assert why in error and error.count("\n") == 1 and "done without it" in error


def test_a_server_that_hangs_is_left(folder, monkeypatch):
    monkeypatch.setattr(client, "PATIENCE_S", 0.3)
    with short_folder() as short, listening(Path(short, "s")):
        monkeypatch.setenv("MLX_STELLA_SOCKET", f"{short}/s")
        status, output, error = run("search", "served", "tea", cwd=folder)
    assert status == 0 and output and "gave no answer (not within 0.3 s)" in error


def test_vectors_of_other_texts_or_sizes_are_refused(path):
    server = client.RunningServer(path)
    four = base64.b64encode(bytes(16)).decode()
    for data in (
        [],
        [{"index": 0, "embedding": four}] * 2,
        [{"index": 0, "embedding": four}, {"index": 1, "embedding": four[:8]}],
        [{"index": 0, "embedding": four}, {"index": 1, "embedding": 7}],
        [{"index": 0, "embedding": four}, {"index": 1, "embedding": "!"}],
        [{"index": "0", "embedding": four}, {"index": 1, "embedding": four}],
    ):
        with (
            mock.patch.object(server, "ask", return_value=client.Answer({"data": data}, 0)),
            pytest.raises(client.ServerFault, match="gave vectors"),
        ):
            server.embed(["a", "b"], {})
    rows = [{"index": row, "embedding": four} for row in (1, 0)]
    with mock.patch.object(server, "ask", return_value=client.Answer({"data": rows}, 0)):
        assert server.embed(["a", "b"], {"dimensions": 4})[0].tolist() == [[0.0] * 4] * 2
        with pytest.raises(client.ServerFault, match="other sizes"):
            server.embed(["a", "b"], {"dimensions": 8})


def test_nobody_without_a_home_and_no_long_name_stands_in_the_way(monkeypatch, folder):
    monkeypatch.delenv("MLX_STELLA_SOCKET")
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", mock.Mock(side_effect=RuntimeError("no home")))
    assert client.find() is None
    assert run("search", "served", "tea", cwd=folder)[0] == 0
    assert hub.glance("x" * 9999) is None and hub.glance("a/" + "x" * 999) is None


def test_a_server_that_was_killed_is_none(folder, monkeypatch):
    with short_folder() as short:
        listening(Path(short, "s")).close()
        monkeypatch.setenv("MLX_STELLA_SOCKET", f"{short}/s")
        assert run("search", "served", "tea", cwd=folder)[2] == ""


def test_only_a_socket_of_this_user_alone_is_asked(monkeypatch):
    with short_folder() as short:
        path = Path(short, "s")
        monkeypatch.setenv("MLX_STELLA_SOCKET", str(path))
        assert client.find() is None
        path.write_text("no socket")
        with pytest.raises(client.ServerFault, match="no socket of yours"):
            client.find()
        path.unlink()
        with listening(path):
            assert client.find() is not None
            path.chmod(0o666)
            with pytest.raises(client.ServerFault, match="replaced by others"):
                client.find()
            path.chmod(0o600)
            Path(short).chmod(0o777)
            with pytest.raises(client.ServerFault, match="replaced by others"):
                client.find()
            Path(short).chmod(0o1777)  # as /tmp: there nobody else may put another in its place
            assert client.find() is not None
            Path(short).chmod(0o700)
            monkeypatch.setattr(os, "getuid", lambda: 12345)
            with pytest.raises(client.ServerFault, match="no socket of yours"):
                client.find()


def test_a_glance_finds_what_resolve_finds(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert hub.glance("stella-1.5b") is None and hub.glance(STELLA) == Path(STELLA)
    directory = cache("NovaSearch/stella_en_1.5B_v5", "tiny-stella-1.5b")
    for name in ("stella-1.5b", "NovaSearch/stella_en_1.5B_v5"):
        assert hub.glance(name) == directory == hub.resolve(name).directory
    assert hub.glance("stella-1.5b", directory.name) == directory
    assert hub.glance("stella-1.5b", "0" * 40) is None
