"""Memory: flat however many texts flow through, known beforehand, and held to a limit."""

import gc

import mlx.core as mx
import numpy as np
import pytest
from support import CHECKPOINTS, load_tiny

from mlx_stella import MemoryLimitError, StellaWarning, load
from mlx_stella.encoding.memory import Memory
from mlx_stella.evaluation import speed


@pytest.fixture(autouse=True)
def limits_of_the_process():
    """Every test starts with no buffers kept, and leaves MLX's limits as they were."""
    gc.collect()
    mx.clear_cache()
    memory, cache = mx.set_memory_limit(2**40), mx.set_cache_limit(2**20)
    yield
    mx.set_memory_limit(memory)
    mx.set_cache_limit(cache)


@pytest.mark.slow
@pytest.mark.parametrize("name, count", [("tiny-stella-400m", 20_000), ("tiny-stella-1.5b", 6_000)])
def test_texts_of_random_lengths_take_no_more_and_no_more(name, count):
    model = load(CHECKPOINTS / name, dtype="float32")
    mx.reset_peak_memory()
    rng = np.random.default_rng(0)
    words = np.array(["green", "tea", "deep", "learning", "on", "the", "water", "light"])
    texts = (" ".join(rng.choice(words, size=int(rng.integers(1, 40)))) for _ in range(count))
    peaks, active, cached = [], [], []
    for block in model.encode_stream(texts, dim=256):
        assert np.isfinite(block).all()
        peaks.append(mx.get_peak_memory())
        active.append(mx.get_active_memory())
        cached.append(mx.get_cache_memory())
        mx.reset_peak_memory()
    assert len(peaks) == -(-count // 2048)
    assert max(active) - min(active) < 2e6
    assert max(peaks[1:]) < 1.1 * peaks[0]
    assert max(cached) < 1.1 * Memory(model.checkpoint.args, 0).peak(512)


@pytest.mark.real
@pytest.mark.parametrize("length", [16, 128, 256, 512])
def test_the_peak_is_known_beforehand(minilm_directory, length):
    before = mx.get_active_memory()  # of other tests' models
    model = load(minilm_directory, dtype="float32")
    texts = speed.texts_of_length(model, length, 4096 // length)
    mx.reset_peak_memory()
    with pytest.warns(StellaWarning, match="were cut"):
        model.encode(texts, max_length=length)
    predicted = Memory(model.checkpoint.args, model.checkpoint.memory_bytes("float32")).peak(length)
    assert predicted == pytest.approx(mx.get_peak_memory() - before, rel=0.15)


def test_a_limit_makes_batches_smaller_and_changes_no_vector():
    texts = [f"{number} light on the water" * (number % 9 + 1) for number in range(64)]
    free = load_tiny("tiny-stella-400m")
    needed = free._memory.peak(256)
    held = load(CHECKPOINTS / "tiny-stella-400m", dtype="float32", memory_limit=needed * 3 // 4)
    assert held._memory.batch_tokens(256) < free._memory.batch_tokens(256)
    np.testing.assert_allclose(held.encode(texts), free.encode(texts), atol=1e-5)


def test_a_text_beyond_the_limit_is_named():
    weights = load_tiny("tiny-stella-400m").checkpoint.memory_bytes("float32")
    model = load(CHECKPOINTS / "tiny-stella-400m", dtype="float32", memory_limit=weights + 100_000)
    with pytest.raises(MemoryLimitError, match=r"text 1: \d+ tokens need .* memory limit"):
        model.encode(["a", "light on the water " * 30])


def test_weights_beyond_the_limit_are_refused():
    with pytest.raises(MemoryLimitError, match=r"the weights take .* remedy"):
        load(CHECKPOINTS / "tiny-stella-400m", memory_limit=1000)
