"""Ollama's, text-embeddings-inference's and Cohere's routes: what is right, and how faults look."""

import base64
import http.client
import json
import socket

import numpy as np
import pytest
from support import distance, load_tiny

TEXTS = ["green tea", "the keys are in the car, or so it was said", ""]
CLOSE = 1e-5
"""The server is another process; its batches may be padded otherwise."""


@pytest.fixture(scope="module")
def model(running):
    return load_tiny(running.model)


@pytest.fixture
def ask(running):
    """Status, JSON, headers of a request."""

    def ask(path, body=None, method=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=60)
        data = None if body is None else json.dumps(body)
        kind = {} if body is None else {"content-type": "application/json"}
        connection.request(
            method or ("GET" if body is None else "POST"), path, data, {**kind, **headers}
        )
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        is_json = answer.headers.get_content_type() == "application/json"
        return answer.status, json.loads(text) if is_json and text else text, answer.headers

    return ask


def test_ollama_embeds(running, model, ask):
    asked = {"model": running.model, "input": TEXTS[:2], "options": {"num_ctx": None, "seed": None}}
    status, answer, headers = ask("/api/embed", asked)
    assert status == 200 and answer["model"] == running.model
    assert distance(answer["embeddings"], model.encode(TEXTS[:2])) < CLOSE
    assert answer["total_duration"] > 0 and answer["load_duration"] >= 0
    counts = [model.tokenizer.count(text) + 2 for text in TEXTS[:2]]
    assert answer["prompt_eval_count"] == sum(counts)
    assert headers["x-prompt"] == "none"
    small = ask("/api/embed", {**asked, "dimensions": 256})[1]["embeddings"]
    assert distance(small, model.encode(TEXTS[:2], dim=256)) < CLOSE
    query = model.encode_query(TEXTS[:2])
    for more in (
        *({"model": running.model + ":query"}, {"input_type": "query"}),
        *({"model": running.model + "-embed:query"}, {"prompt_name": "s2p_query"}),
    ):
        status, answer, headers = ask("/api/embed", asked | more)
        assert distance(answer["embeddings"], query) < CLOSE
        assert headers["x-prompt"] == "s2p_query"
    status, answer, headers = ask("/api/embed", {**asked, "options": {"num_ctx": 4}})
    assert headers["x-truncated-inputs"] == "2"
    assert answer["prompt_eval_count"] == 8
    status, answer, _ = ask("/api/embed", {**asked, "options": {"num_ctx": 4}, "truncate": False})
    assert status == 400 and "tokens exceed 4" in answer["error"]
    longer = ask("/api/embed", {**asked, "options": {"num_ctx": 1_000_000}})  # raises no limit
    assert longer[0] == 200


@pytest.mark.parametrize("keep_alive", ["5m", "1h30m", "-1", 0, -1, 2.5, "1.5s", None])
def test_ollama_loads_a_model_without_a_text(running, ask, keep_alive):
    for given in ({}, {"input": ""}, {"input": []}):
        asked = {"model": running.model + ":latest", "keep_alive": keep_alive, **given}
        status, answer, _ = ask("/api/embed", asked)
        assert (status, answer["embeddings"]) == (200, [])


def test_ollamas_old_route_is_not_normalized(running, model, ask):
    status, answer, _ = ask("/api/embeddings", {"model": running.model, "prompt": TEXTS[0]})
    assert status == 200
    assert distance(answer["embedding"], model.encode(TEXTS[0], normalize=False)) < CLOSE
    assert ask("/api/embeddings", {"model": running.model})[1] == {"embedding": []}


def test_ollama_lists_what_there_is(running, model, ask):
    tags = ask("/api/tags")[1]["models"]
    assert [entry["name"] for entry in tags] == [
        f"{running.model}:latest",
        f"{running.model}-embed:latest",
    ]
    assert all(entry["capabilities"] == ["embedding"] and entry["size"] > 0 for entry in tags)
    (loaded,) = ask("/api/ps")[1]["models"]
    assert loaded["name"] == f"{running.model}:latest" and loaded["expires_at"] > "2100"
    for entry in tags:
        info = ask("/api/show", {"model": entry["name"]})[1]["model_info"]
        assert {key.split(".")[1]: value for key, value in info.items()} == {
            "architecture": "gte",
            "parameter_count": model.checkpoint.parameters,
            "context_length": model.max_seq_length,
            "embedding_length": model.default_dim,
        }
    assert ask("/api/version")[0] == ask("/")[0] == ask("/", method="HEAD")[0] == 200


def test_tei_embeds(running, model, ask):
    for path in ("/embed", "/"):
        status, answer, headers = ask(path, {"inputs": TEXTS})
        assert status == 200 and headers["x-prompt"] == "none"
        assert distance(answer, model.encode(TEXTS)) < CLOSE
        one = ask(path, {"inputs": TEXTS[0], "normalize": False, "dimensions": 256})[1]
        assert distance(one, model.encode(TEXTS[:1], normalize=False, dim=256)) < CLOSE
    query = ask("/embed", {"inputs": TEXTS, "prompt_name": "s2p_query", "truncate": None})[1]
    assert distance(query, model.encode_query(TEXTS)) < CLOSE
    info = ask("/info")[1]
    assert info["model_id"] == running.model and info["max_client_batch_size"] == 2048
    assert info["max_input_length"] == model.max_seq_length


def test_tei_compares(model, ask):
    inputs = {"source_sentence": TEXTS[0], "sentences": TEXTS[1:]}
    vectors = model.encode(TEXTS)
    for path in ("/similarity", "/"):
        status, answer, _ = ask(path, {"inputs": inputs})
        assert status == 200
        assert np.allclose(answer, model.similarity(vectors[:1], vectors[1:])[0], atol=CLOSE)


def test_tei_tokenizes(model, ask):
    text = "naïve Tea 🍵"
    status, (pieces,), _ = ask("/tokenize", {"inputs": text})
    assert status == 200
    settings = model.settings()
    assert [piece["id"] for piece in pieces] == list(model.prepare([text], settings).ids[0])
    assert [piece["special"] for piece in pieces] == [True] + [False] * (len(pieces) - 2) + [True]
    bare = ask("/tokenize", {"inputs": [text], "add_special_tokens": False})[1][0]
    assert [piece["id"] for piece in bare] == [piece["id"] for piece in pieces[1:-1]]
    for piece in bare:
        assert piece["text"] == text[piece["start"] : piece["stop"]]


def test_cohere_embeds(running, model, ask):
    asked = {"model": running.model, "texts": TEXTS, "input_type": "search_document"}
    status, answer, _ = ask("/v2/embed", asked)
    assert status == 200 and answer["texts"] == TEXTS and answer["id"]
    assert distance(answer["embeddings"]["float"], model.encode(TEXTS)) < CLOSE
    types = {"embedding_types": ["float", "base64"], "output_dimension": 256}
    answer = ask("/v2/embed", {**asked, "input_type": "search_query", **types})[1]
    expected = model.encode_query(TEXTS, dim=256)
    assert distance(answer["embeddings"]["float"], expected) < CLOSE
    packed = [base64.b64decode(row) for row in answer["embeddings"]["base64"]]
    assert distance([np.frombuffer(row, "<f4") for row in packed], expected) < CLOSE


WRONG = {
    "/v1/embeddings": {"input": "a"},
    "/api/embed": {"input": "a"},
    "/api/embeddings": {"prompt": "a"},
    "/v2/embed": {"texts": ["a"], "input_type": "search_query"},
}


def told(path, answer):
    """The words of a fault, if it has the shape of its path's protocol."""
    if path.startswith("/v1/"):
        assert set(answer["error"]) == {"message", "type", "param", "code"}
        return answer["error"]["message"]
    if path.startswith("/v2/"):
        assert set(answer) == {"message"}
        return answer["message"]
    assert set(answer) == ({"error"} if path.startswith("/api/") else {"error", "error_type"})
    return answer["error"]


def test_an_unknown_model_is_told_in_each_shape(running, ask):
    for path, body in WRONG.items():
        status, answer, _ = ask(path, {**body, "model": "text-embedding-3-small"})
        assert status == 404 and running.model in told(path, answer)


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/api/embed", {"input": [1, 2]}, "another tokenizer's ids"),
        ("/api/embed", {"input": "a", "keep_alive": "soon"}, "keep_alive is no duration"),
        ("/api/embed", {"input": "a", "dimensions": 17}, "17 dimensions; remedy: one of"),
        ("/api/embed", {"input": "a", "options": {"num_ctx": 0}}, "num_ctx"),
        ("/api/embed", {"input": "a", "model": 3}, "model"),
        ("/api/show", {"model": "nobody"}, "is not served here"),
        ("/embed", {"inputs": [[1, 2]]}, "another tokenizer's ids"),
        ("/embed", {"inputs": []}, "no list of texts"),
        ("/embed", {"inputs": "a", "prompt_name": "nonsense"}, "nonsense"),
        ("/embed", {"inputs": "a", "truncation_direction": "Left"}, "truncation_direction"),
        ("/", {"inputs": {"source_sentence": "a", "sentences": []}}, "sentences"),
        ("/", {"inputs": None}, "no list of texts"),
        ("/similarity", {"inputs": "a"}, "inputs"),
        ("/tokenize", {"inputs": "a", "prompt_name": "nonsense"}, "nonsense"),
        ("/v2/embed", {"texts": ["a"]}, "input_type"),
        ("/v2/embed", {"texts": ["a"], "input_type": "clustering"}, "clustering"),
        ("/v2/embed", {"texts": ["a"], "input_type": "query", "images": ["x"]}, "images"),
        ("/v2/embed", {"texts": ["a"], "input_type": "query", "truncate": "START"}, "truncate"),
    ],
)
def test_a_fault_is_one_sentence_in_the_protocols_shape(running, ask, path, body, words):
    status, answer, _ = ask(path, {"model": running.model, **body})
    assert status in (400, 404) and words in told(path, answer)


def test_over_the_unix_socket_the_host_may_be_any(running, ask):
    assert ask("/api/version", host="evil.example")[0] == 403
    assert ask("/api/version", origin="https://evil.example")[0] == 403
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(str(running.socket))
        channel.sendall(b"GET /api/version HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: channel.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
