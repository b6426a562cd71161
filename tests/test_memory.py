"""Memory stays flat however many texts flow through a model."""

import mlx.core as mx
import numpy as np
import pytest
from conftest import load_tiny


@pytest.mark.parametrize("name", ["tiny-stella-400m", "tiny-stella-1.5b"])
def test_six_thousand_texts_of_random_lengths(name):
    model = load_tiny(name)
    rng = np.random.default_rng(0)
    words = np.array(["green", "tea", "deep", "learning", "on", "the", "water", "light"])
    texts = (" ".join(rng.choice(words, size=int(rng.integers(1, 40)))) for _ in range(6000))
    peaks, active = [], []
    for block in model.encode_stream(texts, dim=256):
        assert np.isfinite(block).all()
        peaks.append(mx.get_peak_memory())
        active.append(mx.get_active_memory())
        mx.reset_peak_memory()
    assert len(peaks) == 3
    assert max(active) - min(active) < 2e6
    assert max(peaks[1:]) < 1.1 * peaks[0]
