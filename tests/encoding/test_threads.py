"""An encoder may be called from any thread, and whatever stops a call, the next one works."""

import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support import load_tiny
from support.bulk import same_bits, some_texts

from mlx_stella import Encoder
from mlx_stella.encoding import windows

TEXTS = some_texts(24)
NAMES = ("tiny-stella-1.5b", "tiny-nv-embed")


@pytest.fixture
def model() -> Encoder:
    return load_tiny(NAMES[0])


def expected(model: Encoder, texts=TEXTS) -> np.ndarray:
    return model.encode(texts, max_batch_tokens=128)


def check_free(model: Encoder, vectors: np.ndarray) -> None:
    """Another thread gets the same vectors, and soon: nothing is locked, nothing in flight."""
    found = []
    thread = threading.Thread(target=lambda: found.append(expected(model)), daemon=True)
    thread.start()
    thread.join(60)
    assert found and same_bits(found[0], vectors)


@pytest.mark.parametrize("names", [NAMES[:1], NAMES], ids=["one encoder", "two encoders"])
def test_a_pool_of_threads_gives_the_same_bits(names):
    models = [load_tiny(name) for name in names]
    parts = [TEXTS[n:] + TEXTS[:n] for n in range(8)]
    alone = [[expected(model, part) for part in parts] for model in models]
    with ThreadPoolExecutor(8) as pool:
        calls = [
            (number, part, pool.submit(expected, model, parts[part]))
            for part in range(8)
            for number, model in enumerate(models)
        ]
        for number, part, call in calls:
            assert same_bits(call.result(timeout=120), alone[number][part])


def test_threads_while_a_stream_is_open(model, monkeypatch):
    vectors = expected(model)
    monkeypatch.setattr(windows, "WINDOW_TEXTS", 8)
    blocks = model.encode_stream(TEXTS, max_batch_tokens=128)
    first = next(blocks)
    check_free(model, vectors := expected(model))
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(expected, model) for _ in range(8)]
        whole = np.concatenate([first, *blocks])
        assert all(same_bits(call.result(timeout=120), vectors) for call in calls)
    assert same_bits(whole, vectors)


def test_a_stream_left_in_the_middle(model, monkeypatch):
    vectors = expected(model)
    with monkeypatch.context() as patch:
        patch.setattr(windows, "WINDOW_TEXTS", 4)
        blocks = model.encode_stream(TEXTS)
        next(blocks)
    check_free(model, vectors)  # while it is still held
    blocks.close()
    check_free(model, vectors)


def test_texts_or_progress_that_raise(model, monkeypatch):
    vectors = expected(model)

    def source():
        yield from TEXTS[:10]
        raise OSError("the disk is gone")

    def complain(progress):
        raise RuntimeError("no terminal")

    with monkeypatch.context() as patch:
        patch.setattr(windows, "WINDOW_TEXTS", 4)
        with pytest.raises(OSError, match="the disk is gone"):
            list(model.encode_stream(source()))
    check_free(model, vectors)
    with pytest.raises(RuntimeError, match="no terminal") as caught:
        model.encode(TEXTS, max_batch_tokens=64, progress=complain)
    check_free(model, vectors)  # while the traceback holds all frames
    assert caught.tb is not None


def test_a_progress_callback_may_embed(model):
    vectors, query = expected(model), model.encode("green tea")
    seen = []
    again = model.encode(
        TEXTS, max_batch_tokens=128, progress=lambda _: seen.append(model.encode("green tea"))
    )
    assert same_bits(again, vectors)
    assert len(seen) > 2 and all(same_bits(vector, query) for vector in seen)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_error_in_the_middle_of_an_evaluation(model, monkeypatch, error):
    vectors, backbone, calls = expected(model), model._backbone, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise error
        return backbone(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(model, "_backbone", failing)
        with pytest.raises(error):
            expected(model)
    check_free(model, vectors)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs an alarm clock")
def test_interrupts_at_any_moment(model):
    vectors, threads = expected(model), set(threading.enumerate())
    chance, caught = np.random.default_rng(0), 0

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(25):
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.001, 0.1))
                for _ in range(100):
                    expected(model)
                time.sleep(1)
            except KeyboardInterrupt:
                caught += 1
    finally:
        signal.signal(signal.SIGALRM, before)
    assert caught == 25
    check_free(model, vectors)
    for thread in set(threading.enumerate()) - threads:
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads of a process in /proc")
def test_threads_that_end_leave_none_of_mlx_behind(model):
    def count() -> int:
        return len(os.listdir("/proc/self/task"))

    expected(model)
    before = count()
    for _ in range(20):
        thread = threading.Thread(target=expected, args=(model,))
        thread.start()
        thread.join()
    assert count() < before + 10
