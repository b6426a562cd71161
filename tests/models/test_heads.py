import mlx.core as mx
import numpy as np
import pytest

from mlx_stella.models import heads

rng = np.random.default_rng(3)
HIDDEN = rng.normal(size=(3, 7, 5))
MASK = np.array([[1] * 7, [1, 1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0]], bool)


def expected(mode: str, row: int, mask: np.ndarray) -> np.ndarray:
    tokens = HIDDEN[row][mask]
    return {"mean": tokens.mean(axis=0), "lasttoken": tokens[-1], "cls": HIDDEN[row][0]}[mode]


@pytest.mark.parametrize("mode", heads.POOLING_MODES)
@pytest.mark.parametrize("masked", [True, False])
def test_pooling(mode, masked):
    mask = MASK if masked else np.ones_like(MASK)
    got = heads.pool(mx.array(HIDDEN, mx.float32), mx.array(mask) if masked else None, mode)
    for row in range(3):
        np.testing.assert_allclose(got[row], expected(mode, row, mask[row]), atol=1e-6)


def test_padding_that_is_not_finite_does_not_reach_the_mean():
    hidden = np.where(MASK[..., None], HIDDEN, np.nan)
    got = heads.pool(mx.array(hidden, mx.float32), mx.array(MASK), "mean")
    assert np.isfinite(np.array(got)).all()


@pytest.mark.parametrize("activation", heads.ACTIVATIONS)
@pytest.mark.parametrize("bias", [True, False])
def test_dense(activation, bias):
    x, weight, b = rng.normal(size=(2, 5)), rng.normal(size=(4, 5)), rng.normal(size=4)
    arrays = [mx.array(a, mx.float32) for a in (x, weight, b)]
    got = heads.dense(arrays[0], arrays[1], arrays[2] if bias else None, activation)
    y = x @ weight.T + (b if bias else 0)
    np.testing.assert_allclose(got, np.tanh(y) if activation == "Tanh" else y, atol=1e-5)


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e30])
def test_normalize_at_any_magnitude(size):
    x = rng.normal(size=(3, 8)) * size
    got = np.array(heads.normalize(mx.array(x, mx.float32)))
    np.testing.assert_allclose(got, x / np.linalg.norm(x, axis=1, keepdims=True), rtol=1e-5)


def test_normalize_does_not_hide_a_zero_row():
    assert np.isnan(np.array(heads.normalize(mx.zeros((1, 4))))).all()
