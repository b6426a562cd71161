"""The thread that owns the model: a bad text harms itself alone, a client that left costs nothing,
models come and go as they are needed."""

import asyncio
import re
import threading

import numpy as np
import pytest

pytest.importorskip("fastapi")

from support import CHECKPOINTS, load_tiny
from support.serving import TINY, with_server

from mlx_stella.encoding.encoder import Encoder
from mlx_stella.encoding.memory import recommended_bytes
from mlx_stella.errors import MemoryLimitError, WeightsError
from mlx_stella.server import models
from mlx_stella.server.asked import Asked
from mlx_stella.server.metrics import Metrics
from mlx_stella.server.worker import GoneError, Worker

OTHER = "tiny-stella-zh-v2"


def count(text: str, name: str) -> float:
    return float(re.search(rf"^mlx_stella_{name} ([\d.e+]+)$", text, re.MULTILINE)[1])


@pytest.fixture
def poisoned(monkeypatch):
    """The text "bad" comes out of the model as NaN, and so does any other of as many tokens."""
    forward, tokens = Encoder._forward, length_of("bad")
    assert length_of("much better") > tokens

    def poison(self, ids, *arguments):
        bad = np.array([[np.nan] if len(row) == tokens else [1.0] for row in ids], np.float32)
        import mlx.core as mx

        return [array * mx.array(bad) for array in forward(self, ids, *arguments)]

    monkeypatch.setattr(Encoder, "_forward", poison)


def length_of(text: str) -> int:
    model = load_tiny(TINY)
    return model.prepare(text, model.settings()).lengths[0]


def test_a_vector_that_is_not_finite_is_an_error_of_its_text_alone(poisoned):
    good, bad = "much better", "bad"

    async def check(server):
        asked = [server.embed([good] * 5), *(server.embed([good, bad]) for _ in range(3))]
        asked += [server.embed(f"{good} {number}") for number in range(20)]
        answers = await asyncio.gather(*asked)
        assert [answer.status_code for answer in answers] == [200, 500, 500, 500, *[200] * 20]
        for answer in answers[1:4]:
            assert answer.headers["x-should-retry"] == "false"
            assert answer.json()["error"]["message"].startswith("text 1: ")
        for answer in answers:
            assert (
                "null" not in answer.text.replace('"param":null', "") and "NaN" not in answer.text
            )

    with_server(check)


def test_an_error_of_the_model_is_told_and_the_next_request_is_served(monkeypatch):
    forward = Encoder._forward
    fails = [True]

    def failing(self, *arguments):
        if fails:
            fails.pop()
            raise RuntimeError("secret words")
        return forward(self, *arguments)

    monkeypatch.setattr(Encoder, "_forward", failing)

    async def check(server):
        answer = await server.embed("x")
        assert answer.status_code == 500 and "secret" not in answer.text
        assert answer.headers["x-should-retry"] == "false"
        assert (await server.embed("x")).status_code == 200

    with_server(check)


@pytest.fixture
def held(monkeypatch):
    """The model computes nothing before this is set."""
    free, forward = threading.Event(), Encoder._forward

    def waiting(self, *arguments):
        assert free.wait(30)
        return forward(self, *arguments)

    monkeypatch.setattr(Encoder, "_forward", waiting)
    return free


async def until(condition) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError


def test_what_a_client_that_left_had_asked_is_not_computed(held):
    async def check(server):
        left = asyncio.Event()

        async def receive():
            await left.wait()
            return {"type": "http.disconnect"}

        first = asyncio.create_task(server.embed("the one that is computed"))
        await until(lambda: len(server.served.worker._backlog._interactive) == 0 and first)
        await asyncio.sleep(0.05)
        asked = Asked(texts=["words"] * 100, model=TINY)
        gone = asyncio.create_task(server.served.embed(asked, receive))
        await until(lambda: server.served.worker._backlog.tokens > 0)
        left.set()
        with pytest.raises(GoneError):
            await gone
        assert server.served.worker._backlog.tokens == 0
        held.set()
        assert (await first).status_code == 200
        metrics = (await server.client.get("/metrics")).text
        assert count(metrics, "cancelled_total") == 1
        assert count(metrics, "batch_texts_sum") == 1

    with_server(check)


def test_what_a_client_that_left_had_asked_is_not_tokenized_either(monkeypatch):
    async def check(server):
        async def receive():
            return {"type": "http.disconnect"}

        tokenized, prepare = [], Encoder.prepare

        def counted(self, texts, *arguments, **options):
            tokenized.extend(texts)
            return prepare(self, texts, *arguments, **options)

        monkeypatch.setattr(Encoder, "prepare", counted)
        with pytest.raises(GoneError):
            await server.served.embed(Asked(texts=["words"] * 2000, model=TINY), receive)
        assert len(tokenized) < 100
        metrics = (await server.client.get("/metrics")).text
        assert count(metrics, "cancelled_total") == 1

    with_server(check)


def test_a_programs_question_does_not_stand_behind_all_its_passages(held):
    """As a chat window sends them: a text a request, all at once, and questions in between."""

    async def check(server):
        order, waiting = [], []
        submit = server.served.worker.submit
        server.served.worker.submit = lambda job: (waiting.append(job), submit(job))

        async def ask(number, **words):
            assert (await server.embed(f"passage {number} " + "tea " * 400, **words)).is_success
            order.append(number)

        passages = [asyncio.create_task(ask(number)) for number in range(100)]
        await until(lambda: len(waiting) == 100)
        question = asyncio.create_task(ask("question", input_type="query"))
        await until(lambda: len(waiting) == 101)
        held.set()
        await asyncio.gather(question, *passages)
        assert order.index("question") < 50, order

    with_server(check)


def test_a_full_backlog_is_429_with_a_time_and_an_end_is_503(held):
    async def check(server):
        first = asyncio.create_task(server.embed("x"))
        await asyncio.sleep(0.05)
        waiting = asyncio.create_task(server.embed(["tea"] * (90 // length_of("tea"))))
        await until(lambda: server.served.worker._backlog.tokens > 0)
        answer = await server.embed(["tea"] * 30)
        assert answer.status_code == 429 and answer.json()["error"]["code"] == "backlog_full"
        assert 1000 <= int(answer.headers["retry-after-ms"]) <= 120_000
        assert "x-should-retry" not in answer.headers
        stopping = asyncio.create_task(server.served.worker.stop())
        await asyncio.sleep(0)
        answer = await server.embed("y")
        assert answer.status_code == 503 and answer.headers["retry-after-ms"]
        assert (await server.client.get("/health")).status_code == 503
        held.set()
        await stopping
        assert (await first).status_code == (await waiting).status_code == 200

    metrics = Metrics()
    with_server(check, worker=Worker(metrics, most_tokens=100))


def test_several_sizes_take_one_pass():
    async def check(server):
        texts = [f"text {number}" for number in range(8)]
        sizes = (256, 1024)
        asked = [Asked(texts=[t], model=TINY, dims=[size]) for t in texts for size in sizes]
        found = await asyncio.gather(*map(server.served.embed, asked))
        expected = load_tiny(TINY).encode(texts, dims=sizes)
        for row in range(8):
            for number, size in enumerate(sizes):
                got = found[2 * row + number].vectors[size]
                assert np.abs(got[0] - expected[size][row]).max() < 1e-5
        both = await server.served.embed(Asked(texts=texts, model=TINY, dims=sizes))
        assert all((both.vectors[size] == expected[size]).all() for size in sizes)
        metrics = (await server.client.get("/metrics")).text
        assert count(metrics, "batch_texts_count") <= 4

    with_server(check)


def test_a_model_is_loaded_when_asked_for_and_freed_when_it_is_not():
    async def check(server):
        other = server.served.models.find(OTHER)[0]
        assert other.encoder is None
        answers = await asyncio.gather(*(server.embed(f"x {n}", OTHER) for n in range(5)))
        assert {answer.status_code for answer in answers} == {200}
        await until(lambda: other.encoder is None)
        assert server.served.models.first.encoder is not None
        assert (await server.embed("again", OTHER)).status_code == 200

    with_server(check, [TINY, OTHER], models={"keep_alive": 0.05})


def test_the_least_used_model_makes_room(monkeypatch):
    names = [TINY, OTHER, "tiny-gte-en-v1.5"]
    known = {
        model.name: model
        for model in models.Models([CHECKPOINTS / n for n in names], dtype="float32").all
    }
    pairs = [models.together_bytes([known[TINY], known[name]]) for name in names[1:]]
    room = max(pairs)
    assert room < models.together_bytes(known.values())
    assert min(pairs) > known[TINY].weights_bytes + known[TINY].batch_bytes

    async def check(server):
        loaded = {model.name: model for model in server.served.models.all}
        for name in (names[1], names[2], names[1], names[2]):
            assert (await server.embed("x", name)).status_code == 200
            assert {n for n, model in loaded.items() if model.encoder} == {TINY, name}
        answers = await asyncio.gather(*(server.embed(f"{n}", names[1 + n % 2]) for n in range(10)))
        assert {answer.status_code for answer in answers} == {200}

    with_server(check, names, models={"memory_limit": room})

    async def refused(server):
        answer = await server.embed("x", OTHER)
        assert answer.status_code == 500 and "--memory-limit" in answer.text

    with_server(refused, [TINY, OTHER], models={"memory_limit": pairs[0] - 1})
    assert recommended_bytes() is None or models.Models([CHECKPOINTS / TINY])._memory_limit
    monkeypatch.setattr(models, "recommended_bytes", lambda: (pairs[0] - 1) / 0.75)  # a small Mac
    with_server(refused, [TINY, OTHER])


def test_a_model_that_cannot_be_loaded(monkeypatch):
    load = models.load

    def failing(source, **options):
        if OTHER in str(source):
            raise WeightsError("are torn", where="model.safetensors", remedy="download it again")
        return load(source, **options)

    monkeypatch.setattr(models, "load", failing)

    async def check(server):
        answers = await asyncio.gather(*(server.embed("x", OTHER) for _ in range(3)))
        for answer in answers:
            assert answer.status_code == 500 and "are torn" in answer.json()["error"]["message"]
        assert (await server.embed("x")).status_code == 200

    with_server(check, [TINY, OTHER])


def test_names_of_models(tmp_path):
    with pytest.raises(models.InputError, match="two models have this name"):
        models.Models([CHECKPOINTS / TINY, CHECKPOINTS / OTHER], aliases={OTHER: TINY})
    with pytest.raises(models.ModelNotFoundError, match="is not served here"):
        models.Models([CHECKPOINTS / TINY], aliases={"ada": OTHER})
    with pytest.raises(models.InputError, match="no model"):
        models.Models([])
    assert issubclass(MemoryLimitError, models.InputError)


def test_readiness_comes_with_the_first_model():
    async def check(server):
        assert (await server.client.get("/ready")).status_code == 200
        model = server.served.models.first
        held, model.encoder = model.encoder, None
        answer = await server.client.get("/ready")
        assert answer.status_code == 503 and answer.json() == {"status": "loading"}
        assert (await server.client.get("/health")).status_code == 200
        model.encoder = held

    with_server(check)
