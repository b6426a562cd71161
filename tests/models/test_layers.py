"""The shared parts against plain NumPy in float64."""

import mlx.core as mx
import numpy as np
import pytest
from support import graphs

from mlx_stella.models import cpu, layers
from mlx_stella.models.args import RopeArgs
from mlx_stella.models.products import Product

rng = np.random.default_rng(7)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def attention_reference(q, k, v, mask):
    repeats = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, repeats, axis=1), np.repeat(v, repeats, axis=1)
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    out = softmax(np.where(mask, scores, -np.inf)) @ v
    return out.swapaxes(1, 2).reshape(q.shape[0], q.shape[2], -1)


def attention_error(q, k, v, mask):
    """What float32 loses of the reference: rounding errors of n terms add up to some √n of them.

    A rounding loses 2**-24 at most, and half of it on average. Errors of the scores move weight
    between the values; what they move counts by its distance from the mean. The sums of the values
    lose by their length. Four more roundings each: of the inputs, of softmax's parts. The order in
    which a BLAS adds changes the error, but not this size of it (measured: 0.3 to 0.6 of it).
    """
    repeats = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, repeats, axis=1), np.repeat(v, repeats, axis=1)
    length, head_dim = q.shape[-2:]
    weights = softmax(np.where(mask, q @ k.swapaxes(-1, -2) / np.sqrt(head_dim), -np.inf))
    sizes = np.abs(q) @ np.abs(k).swapaxes(-1, -2) / np.sqrt(head_dim)
    away = np.abs(v[..., None, :, :] - (weights @ v)[..., :, None, :])
    moved = ((weights * sizes)[..., None, :] @ away)[..., 0, :]
    lost = (np.sqrt(length) + 4) * (weights @ np.abs(v)) + (np.sqrt(head_dim) + 4) * moved
    return (2**-25 * lost).swapaxes(1, 2).reshape(q.shape[0], q.shape[2], -1)


@pytest.mark.parametrize("length", [1, 31, 32, 128, 257])
def test_attention(length):
    q = rng.normal(size=(2, 6, length, 16))
    k, v = rng.normal(size=(2, 2, 2, length, 16))
    lengths = np.array([length, max(1, length // 3)])
    real = np.arange(length) < lengths[:, None]
    mask = layers.key_mask(mx.array(real))
    got = layers.attention(*(mx.array(x, mx.float32).swapaxes(1, 2) for x in (q, k, v)), mask)
    expected = attention_reference(q, k, v, real[:, None, None, :])
    # 1e-6 but where float32 itself may lose more, as MLX's own BLAS did at 257: 1.11e-6.
    allowed = np.maximum(1e-6, attention_error(q, k, v, real[:, None, None, :]))
    assert (np.abs(np.array(got) - expected) <= allowed)[real].all()


def test_attention_in_blocks_of_queries(monkeypatch):
    q, k, v = (mx.array(x, mx.float32) for x in rng.normal(size=(3, 1, 70, 2, 8)))
    monkeypatch.setattr(cpu, "QUERIES_AT_ONCE", 70)
    whole = layers.attention(q, k, v, None)
    monkeypatch.setattr(cpu, "QUERIES_AT_ONCE", 32)
    monkeypatch.setattr(layers, "SCORES_AT_ONCE", 32 * 2 * 70)
    blocks = layers.attention(q, k, v, None)
    np.testing.assert_allclose(np.array(blocks), np.array(whole), atol=1e-6)


@pytest.mark.parametrize("scale", [None, (), (2, 9, 1)], ids=str)
@pytest.mark.usefixtures("form")
def test_rotating_a_product_as_it_left_the_matrix_units(scale):
    """Half numbers, scaled by row or all alike, with a bias: as if all were finished before."""
    y = mx.array(rng.normal(size=(2, 9, 48)), mx.float16)
    scales = None if scale is None else mx.array(2.0 ** rng.integers(0, 5, scale), mx.float32)
    product = Product(y, scales, mx.array(rng.normal(size=48), mx.float32))
    tables = layers.rope_tables(RopeArgs(1e4), 9, 8)
    rotated, rest = product.unflatten(6, -1).split([4], axis=-2)
    whole = mx.unflatten(product.finish(), -1, (6, 8))
    expected = layers.rotate(Product(whole[:, :, :4]), tables)
    np.testing.assert_allclose(layers.rotate(rotated, tables), expected, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(rest.finish(), whole[:, :, 4:], rtol=1e-6)


@pytest.mark.parametrize(
    "head_dim, length, count",
    [(128, 512, 1), (128, 8192, 4), (64, 512, 1), (32, 512, 1), (32, 4096, 8)],
)
def test_queries_are_cut_only_where_the_kernel_holds_scores(monkeypatch, head_dim, length, count):
    """On a Mac; NV-Embed's 32 heads in batches of 2,048 tokens, or of one longer text."""
    graphs.use_compiled_forms(monkeypatch)
    graphs.use_one_primitive_for_fast(monkeypatch)
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    q = mx.broadcast_to(mx.array(0.0), (max(1, 2048 // length), length, 32, head_dim))
    assert graphs.primitives(layers.attention(q, q, q, None)).count("Depends") == count


@pytest.mark.parametrize(
    "args", [RopeArgs(1e4), RopeArgs(1e6), RopeArgs(320000, 2 ** (2 / 64))], ids=str
)
@pytest.mark.parametrize("length", [1, 500, 8192])
@pytest.mark.usefixtures("form")
def test_rope(args, length):
    head_dim = 64
    x = rng.normal(size=(1, length, 3, head_dim))
    tables = layers.rope_tables(args, length, head_dim)
    got = np.array(layers.rotate(Product(mx.array(x, mx.float32)), tables))
    frequencies = args.theta ** (-np.arange(0, head_dim, 2) / head_dim) / args.divisor
    angles = (np.arange(length)[:, None] * frequencies)[:, None]
    first, second = x[..., :32], x[..., 32:]
    expected = np.concatenate(
        [
            first * np.cos(angles) - second * np.sin(angles),
            second * np.cos(angles) + first * np.sin(angles),
        ],
        axis=-1,
    )
    assert np.abs(got - expected).max() <= 1e-6


@pytest.mark.parametrize("scores_at_once", [2**26, 32 * 2 * 70])
@pytest.mark.usefixtures("form")
def test_a_causal_mask_and_an_added_one(monkeypatch, scores_at_once):
    """Both also in blocks of queries, of which the first sees few keys."""
    monkeypatch.setattr(layers, "SCORES_AT_ONCE", scores_at_once)
    length = 70
    q = rng.normal(size=(1, 4, length, 8))
    k, v = rng.normal(size=(2, 1, 2, length, 8))
    qkv = [mx.array(x, mx.float32).swapaxes(1, 2) for x in (q, k, v)]
    seen = np.tril(np.ones((length, length), bool))
    expected = attention_reference(q, k, v, seen)
    np.testing.assert_allclose(layers.attention(*qkv, "causal"), expected, atol=2e-6)
    for mask in (seen[None, None], np.where(seen, 0, -1e9)[None, None].astype(np.float32)):
        np.testing.assert_allclose(layers.attention(*qkv, mx.array(mask)), expected, atol=2e-6)
    bias = 3 * rng.normal(size=(1, 4, length, length))
    k, v = np.repeat(k, 2, axis=1), np.repeat(v, 2, axis=1)
    added = softmax(q @ k.swapaxes(-1, -2) / np.sqrt(8) + bias) @ v
    got = layers.attention(*qkv, mx.array(bias, mx.float32))
    np.testing.assert_allclose(got, added.swapaxes(1, 2).reshape(1, length, -1), atol=2e-6)


@pytest.mark.parametrize("radius", [0, 1, 20, 69])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.usefixtures("form")
def test_a_window(monkeypatch, radius, is_causal):
    """In blocks of queries, of which each is given the keys around it; the second text is padded,
    and what is padded sees nothing but itself where it is far from the text."""
    monkeypatch.setattr(layers, "_LOCAL_QUERIES", 16)
    length = 70
    q = rng.normal(size=(2, 4, length, 8))
    k, v = rng.normal(size=(2, 2, 2, length, 8))
    real = np.arange(length) < np.array([length, 30])[:, None]
    distances = np.arange(length) - np.arange(length)[:, None]
    near = (np.abs(distances) <= radius) & (distances <= (0 if is_causal else radius))
    mask = layers.Local(radius, mx.array(real), is_causal=is_causal)
    got = layers.attention(*(mx.array(x, mx.float32).swapaxes(1, 2) for x in (q, k, v)), mask)
    seen = (near & real[:, None, None]) | np.eye(length, dtype=bool)
    np.testing.assert_allclose(got, attention_reference(q, k, v, seen), atol=2e-6)


def test_positions_behind_the_padding_token():
    ids = mx.array([[0, 9, 1, 9, 2], [0, 9, 9, 9, 2]])
    expected = [[2, 3, 1, 4, 5], [2, 3, 4, 5, 6]]
    assert layers.positions_behind(1, ids).tolist() == expected
