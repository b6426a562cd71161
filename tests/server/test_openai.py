"""OpenAI's protocol: vectors equal to the library's, and each fault in its shape."""

import asyncio
import base64
import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("fastapi")

from support import load_tiny
from support.serving import TINY, with_server

from mlx_stella.checkpoint.prompts import Prompts
from mlx_stella.server.asked import Asked, settle

TEXTS = ["green tea", "the keys are in the car", "", "words " * 40]


def vectors_of(answer) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    rows = [row["embedding"] for row in answer.json()["data"]]
    if isinstance(rows[0], str):
        return np.stack([np.frombuffer(base64.b64decode(row), "<f4") for row in rows])
    return np.array(rows, np.float32)


def fault_of(answer, status: int) -> dict:
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


def test_vectors_are_the_librarys_to_the_bit():
    expected = load_tiny(TINY).encode(TEXTS)

    async def check(server):
        for encoding_format in (None, "float", "base64"):
            answer = await server.embed(TEXTS, encoding_format=encoding_format)
            got = vectors_of(answer)
            assert got.dtype == np.float32 and (got == expected).all()
        body = answer.json()
        assert body["object"] == "list" and body["model"] == TINY
        assert [row["index"] for row in body["data"]] == [0, 1, 2, 3]
        settings = load_tiny(TINY).settings()
        tokens = sum(load_tiny(TINY).prepare(TEXTS, settings).lengths)
        assert body["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
        (one,) = vectors_of(await server.embed("green tea"))
        assert (one == load_tiny(TINY).encode("green tea")).all()
        (again,) = vectors_of(await server.embed("green tea"))  # which is remembered now
        assert (again == one).all()

    with_server(check)


def test_dimensions_are_heads():
    async def check(server):
        small = vectors_of(await server.embed(TEXTS, dimensions=256))
        assert (small == load_tiny(TINY).encode(TEXTS, dim=256)).all()
        error = fault_of(await server.embed("x", dimensions=257), 400)
        assert error["param"] == "dimensions" and "256, 768, 1024, 8192" in error["message"]
        for wrong in (0, -1, 1.5, "256", True):
            assert fault_of(await server.embed("x", dimensions=wrong), 400)["param"] == "dimensions"

    with_server(check)


PROMPTS = [
    ({}, "", None),
    ({"input_type": "query"}, "", "s2p_query"),
    ({"input_type": "search_query"}, "", "s2p_query"),
    ({"task": "query"}, "", "s2p_query"),
    ({"input_type": "document"}, "", None),
    ({"input_type": "s2s_query"}, "", "s2s_query"),
    ({}, ":query", "s2p_query"),
    ({}, ":s2s", "s2s_query"),
    ({}, ":document", None),
    ({}, ":latest", None),
    ({"input_type": "document"}, ":query", None),
    ({"prompt_name": "s2s_query", "input_type": "query"}, "", "s2s_query"),
]


@pytest.mark.parametrize(
    "named",
    [("query",), ("s2p_query", "query"), ("s2p_query",), ("search_query", "passage"), ()],
    ids=" ".join,
)
def test_a_question_has_the_prompt_that_encode_query_chooses(named, monkeypatch):
    """So has a passage that of encode_document, whatever the prompts of a model are called."""
    model = load_tiny(TINY)
    prompts = Prompts({name: f"{name}: " for name in named}, default_name=next(iter(named), None))
    monkeypatch.setattr(model, "checkpoint", replace(model.checkpoint, prompts=prompts))
    for kind, encode in (("query", model.encode_query), ("document", model.encode_document)):
        expected = encode(["tea"])
        for fields, suffix in (({"input_type": kind}, None), ({}, kind)):
            settings, _ = settle(Asked(texts=["tea"], model=TINY, **fields), suffix, model)
            (found,) = model.encode(["tea"], settings=settings).values()
            assert (found == expected).all()


def test_which_prompt_is_taken_is_told():
    model = load_tiny(TINY)

    async def check(server):
        for fields, suffix, name in PROMPTS:
            answer = await server.embed(TEXTS, TINY + suffix, **fields)
            assert (vectors_of(answer) == model.encode(TEXTS, prompt_name=name)).all(), fields
            assert answer.headers["x-prompt"] == (name or "none")
            assert answer.json()["model"] == TINY + suffix
        answer = await server.embed(TEXTS, prompt="Find: ", prompt_name="s2p_query")
        assert (vectors_of(answer) == model.encode(TEXTS, prompt="Find: ")).all()
        assert answer.headers["x-prompt"] == "custom"
        answer = await server.embed(TEXTS, instruction="Find tea.")
        assert (vectors_of(answer) == model.encode(TEXTS, instruction="Find tea.")).all()
        assert answer.headers["x-prompt"] == "instruction"
        for fields, suffix in (({"input_type": "image"}, ""), ({}, ":image")):
            error = fault_of(await server.embed("x", TINY + suffix, **fields), 400)
            assert "query, document, s2p_query, s2s_query" in error["message"]
        assert fault_of(await server.embed("x", prompt_name="no"), 400)["param"] == "prompt_name"
        assert fault_of(await server.embed("x", prompt="", instruction="x"), 400)

    with_server(check)


def test_the_served_default_prompt():
    async def check(server):
        assert (await server.embed("x")).headers["x-prompt"] == "s2p_query"
        assert (await server.embed("x", TINY + ":document")).headers["x-prompt"] == "none"

    with_server(check, default_prompt="query")


def test_what_was_cut_is_told_or_refused():
    long = "tea " * 2000

    async def check(server):
        answer = await server.embed(["x", long, long])
        assert answer.headers["x-truncated-inputs"] == "2"
        assert "x-truncated-inputs" not in (await server.embed(["x"])).headers
        error = fault_of(await server.embed(["x", long], on_long="error"), 400)
        assert error["message"].startswith("text 1: ") and "exceed 512" in error["message"]
        metrics = (await server.client.get("/metrics")).text
        assert "mlx_stella_truncated_texts_total 2.0" in metrics

    with_server(check)


WRONG = [
    (b"", "JSON"),
    (b"[]", "object"),
    (b"{", "JSON"),
    (b'{"input": "\\ud800", "model": "x"}', "JSON"),
    (b"[" * 100_000, "JSON"),
    (b'{"model": "m"}', "input"),
    (b'{"input": "x"}', "model"),
    (b'{"input": [], "model": "%s"}', "list of texts"),
    (b'{"input": {}, "model": "%s"}', "list of texts"),
    (b'{"input": null, "model": "%s"}', "list of texts"),
    (b'{"input": ["x", null], "model": "%s"}', "text 1"),
    (b'{"input": [1, 2], "model": "%s"}', "check_embedding_ctx_length=False"),
    (b'{"input": [[1, 2]], "model": "%s"}', "check_embedding_ctx_length=False"),
    (b'{"input": "x", "model": "%s", "encoding_format": "hex"}', "encoding_format"),
    (b'{"input": "x", "model": "%s", "on_long": "no"}', "on_long"),
    (json.dumps({"input": ["x"] * 2049, "model": TINY}).encode(), "2049 texts"),
    (json.dumps({"input": ["x" * 5_000_000], "model": TINY}).encode(), "characters"),
    (
        json.dumps({"input": ["x y " * 600] * 600, "model": TINY}).encode(),
        "300000 tokens in 600 texts; remedy: several requests, of ",
    ),
]


def test_what_cannot_be_answered_is_400_in_openais_shape():
    async def check(server):
        for body, words in WRONG:
            body = body.replace(b"%s", TINY.encode())
            headers = {"content-type": "application/json"}
            answer = await server.client.post("/v1/embeddings", content=body, headers=headers)
            error = fault_of(answer, 400)
            assert words in error["message"], (body[:80], error)
            assert error["type"] == "invalid_request_error"

    with_server(check)


def test_unknown_models_paths_and_methods():
    async def check(server):
        error = fault_of(await server.embed("x", "text-embedding-3-small"), 404)
        assert error["code"] == "model_not_found" and TINY in error["message"]
        fault_of(await server.client.get("/v1/models/no"), 404)
        fault_of(await server.client.get("/v1/nothing"), 404)
        fault_of(await server.client.get("/v1/embeddings"), 405)
        for path in ("/etc", "../tiny-nv-embed", "NovaSearch/stella_en_400M_v5"):
            fault_of(await server.embed("x", path), 404)

    with_server(check)


def test_the_models_are_listed():
    async def check(server):
        listed = (await server.client.get("/v1/models")).json()
        assert listed["object"] == "list"
        (stella, bert) = listed["data"]
        assert stella["id"] == TINY and stella["object"] == "model" and stella["loaded"]
        assert stella["dims"] == [256, 768, 1024, 8192] and stella["max_tokens"] == 512
        assert stella["prompts"] == ["s2p_query", "s2s_query"] and stella["dtype"] == "float32"
        assert not bert["loaded"]
        assert (await server.client.get(f"/v1/models/{TINY}")).json() == stella
        assert (await server.client.get("/v1/models/ada")).json() == stella
        assert (await server.embed("x", "ADA:query")).headers["x-prompt"] == "s2p_query"

    with_server(check, [TINY, "tiny-stella-zh-v2"], models={"aliases": {"ada": TINY}})


def test_a_thousand_parallel_texts_are_all_answered_each_with_its_own():
    texts = [f"text number {number} " + "x " * (number % 23) for number in range(1000)]
    expected = load_tiny(TINY).encode(texts)

    async def check(server):
        answers = await asyncio.gather(*(server.embed(text) for text in texts))
        got = np.stack([vectors_of(answer)[0] for answer in answers])
        assert np.abs(got - expected).max() < 1e-5  # other company, other roundings
        assert len({row.tobytes() for row in got}) == 1000

    with_server(check)
