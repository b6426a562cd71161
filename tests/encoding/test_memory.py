"""Memory: flat however many texts flow through, known beforehand, and held to a limit."""

import gc
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from support import CHECKPOINTS, load_tiny

from mlx_stella import MemoryLimitError, StellaWarning, load
from mlx_stella.encoding import windows
from mlx_stella.encoding.memory import Memory
from mlx_stella.evaluation import speed
from mlx_stella.models import cpu


@pytest.fixture(autouse=True)
def limits_of_the_process():
    """Every test starts with no buffers kept, and leaves MLX's limits as they were."""
    gc.collect()
    mx.clear_cache()
    memory, cache = mx.set_memory_limit(2**40), mx.set_cache_limit(2**20)
    yield
    mx.set_memory_limit(memory)
    mx.set_cache_limit(cache)


def on_a_mac(monkeypatch, device_name: str, memory_gb: int) -> None:
    """MLX answers as on a Mac, of whose memory it recommends two thirds for the GPU."""
    info = {
        "device_name": device_name,
        "max_recommended_working_set_size": memory_gb * 2**30 * 2 // 3,
    }
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    monkeypatch.setattr(mx, "device_info", lambda device: info if device == mx.gpu else {})
    monkeypatch.setattr(cpu, "is_needed", lambda: False)


STELLA_1_5B = SimpleNamespace(layer_width=8960, num_attention_heads=12, adds_to_scores=False)
NV_EMBED = SimpleNamespace(layer_width=14336, num_attention_heads=32, adds_to_scores=False)


@pytest.mark.parametrize(
    "device, memory_gb, args, tokens",
    [
        ("Apple M1", 8, STELLA_1_5B, 2048),
        ("Apple M2 Pro", 16, STELLA_1_5B, 2048),
        ("Apple M3 Max", 36, STELLA_1_5B, 4096),
        ("Apple M2 Ultra", 64, NV_EMBED, 4096),
        ("Apple Paravirtual device", 7, STELLA_1_5B, 2048),
        ("Apple M1", 5, NV_EMBED, 1024),
    ],
)
def test_batches_suit_the_mac(monkeypatch, device, memory_gb, args, tokens):
    on_a_mac(monkeypatch, device, memory_gb)
    memory = Memory(args, weights=10**9)
    assert memory.batch_tokens(512) == tokens
    quarter = memory_gb * 2**30 * 2 // 3 // 4
    assert memory.peak(512) - memory.weights <= quarter


def test_a_mac_whose_default_device_is_the_cpu(monkeypatch):
    """There ``mx.device_info()`` tells of the CPU, which recommends nothing."""
    on_a_mac(monkeypatch, "Apple M1", 8)
    wired = []
    monkeypatch.setattr(mx, "set_wired_limit", wired.append)
    memory = Memory(STELLA_1_5B, weights=10**9)
    memory.apply(512)
    assert wired == [memory.peak(512)]


@pytest.mark.slow
@pytest.mark.parametrize("name, count", [("tiny-stella-400m", 5_000), ("tiny-stella-1.5b", 1_500)])
def test_texts_of_random_lengths_take_no_more_and_no_more(monkeypatch, name, count):
    """As many windows as 20,000 and 6,000 texts are, as few bytes kept for each text."""
    monkeypatch.setattr(windows, "WINDOW_TEXTS", 512)
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
    assert len(peaks) == -(-count // 512)
    assert max(active) - min(active) < 5e5
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


def test_what_is_added_to_scores_is_counted_on_a_gpu(monkeypatch):
    on_a_mac(monkeypatch, "Apple M1", 8)
    mpnet = load_tiny("tiny-mpnet").checkpoint.args
    plain = SimpleNamespace(layer_width=96, num_attention_heads=4, adds_to_scores=False)
    more = Memory(mpnet, 0).peak(384, 768) - Memory(plain, 0).peak(384, 768)
    assert more == 768 * 384 * 4 * 4  # tokens, keys, heads, bytes


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
