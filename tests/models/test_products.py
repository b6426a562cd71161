"""Products in float16: bounds that are proved, rows that are scaled, kernels that are fused."""

import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import TINY, load_tiny

from mlx_stella.models.formats import Format
from mlx_stella.models.layers import gelu, gelu_tanh, silu
from mlx_stella.models.products import Linear, Product, gated
from mlx_stella.models.quantized import Packed, QuantizedLinear

pytestmark = pytest.mark.usefixtures("form")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(8)


def linear(weight: np.ndarray, bias: np.ndarray | None, dtype: mx.Dtype) -> Linear:
    layer = Linear(weight.shape[1], weight.shape[0], bias is not None)
    layer.weight = mx.array(weight, mx.float32).astype(dtype)
    if bias is not None:
        layer.bias = mx.array(bias, mx.float32)
    layer.measure_range()
    return layer


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 2**32 - 1), st.floats(-12, 12))
def test_a_float16_product_holds_whatever_the_size_of_the_row(seed, exponent):
    """Rows from 1e-12 to 1e12: outputs far beyond 65504, and none lost to scaling."""
    random = np.random.default_rng(seed)
    weight = random.normal(size=(24, 40)).astype(np.float16).astype(np.float64)
    bias = random.normal(size=24)
    x = random.normal(size=(5, 40)) * 10.0**exponent
    x[2] *= 1e-3
    got = np.array(linear(weight, bias, mx.float16)(mx.array(x, mx.float32)), np.float64)
    scale = np.linalg.norm(x, axis=1, keepdims=True) * np.linalg.norm(weight, axis=1)
    allowed = 2e-3 * scale + 1e-6  # 2**-11 rounding of operand and result
    assert (np.abs(got - (x @ weight.T + bias)) <= allowed).all()


def test_one_huge_entry_leaves_the_others_their_digits():
    """Scaling no further than needed: small entries beside 3e5 do not become subnormal."""
    weight = np.eye(32)
    x = np.full((1, 32), 1.0)
    x[0, 0] = 3e5
    got = np.array(linear(weight, None, mx.float16)(mx.array(x, mx.float32)))
    np.testing.assert_allclose(got, x, rtol=1e-3)


def test_scaling_ordinary_rows_changes_nothing(rng):
    weight = rng.normal(size=(8, 16))
    x = mx.array(rng.normal(size=(4, 16)), mx.float32)
    layer = linear(weight, None, mx.float16)
    squares = mx.square(x).sum(axis=-1, keepdims=True)
    scales = np.log2(np.array(layer.scale_of_rows(squares)))
    assert (scales == np.round(scales)).all()  # powers of two
    plain = (x.astype(mx.float16) @ layer.weight.T).astype(mx.float32)
    np.testing.assert_allclose(layer(x), plain, rtol=1e-3, atol=1e-3)


def test_a_row_of_zeros_stays_zero(rng):
    layer = linear(rng.normal(size=(8, 16)), None, mx.float16)
    assert (layer(mx.zeros((2, 16))) == 0).all().item()


def as_norm_gives(direction: np.ndarray, norm) -> mx.array:
    """What the norm makes of an input along a direction: (1, D)."""
    return norm(mx.array(direction[None] * 1e3, mx.float32))


@pytest.mark.parametrize("kind", [nn.RMSNorm, nn.LayerNorm])
def test_inputs_along_each_weight_row_reach_the_bound_and_overflow_nowhere(rng, kind):
    """Weights so large that outputs end just below the bound that float16 has room for."""
    norm = kind(64, 1e-12)
    norm.weight = mx.array(rng.uniform(0.5, 2, 64), mx.float32)
    weight = rng.normal(size=(24, 64)) * 240
    layer = linear(weight, None, mx.float16)
    bounds = np.array(layer.bound_after(norm))
    assert layer._scale == 1 and 2**14 < bounds.max() <= 2**15
    for row, bound in zip(np.array(layer.weight, np.float64), bounds, strict=True):
        direction = row * np.array(norm.weight)
        x = as_norm_gives(direction - (direction.mean() if kind is nn.LayerNorm else 0), norm)
        got = np.abs(np.array(layer(x)))[0]
        assert (got <= bounds * 1.001).all() and got.max() >= 0.95 * bound


def test_a_norm_with_bias_is_bounded_too(rng):
    norm = nn.LayerNorm(8, 1e-12)
    norm.weight, norm.bias = mx.array(rng.normal(size=(2, 8)), mx.float32)
    layer = linear(rng.normal(size=(5, 8)), rng.normal(size=5), mx.float16)
    bounds = np.array(layer.bound_after(norm))
    x = norm(mx.array(rng.normal(size=(4000, 8)) ** 3, mx.float32))
    reached = np.abs(np.array(layer(x))).max(axis=0) / bounds
    assert (reached <= 1.001).all() and (reached > 0.7).all()


def test_bounded_inputs_reach_their_bound(rng):
    """What o_proj gets: every entry at its end, with the sign of the weight."""
    weight, inputs = rng.normal(size=(24, 40)), rng.uniform(1, 1100, size=40)
    layer = linear(weight, None, mx.float16)
    bounds = np.array(layer.bound_within(mx.array(inputs, mx.float32)))
    assert layer._scale == 1 and 2**14 < bounds.max() <= 2**15
    x = mx.array(np.sign(weight) * inputs, mx.float32)
    np.testing.assert_allclose(np.diag(np.array(layer(x))), bounds, rtol=2e-3)


@pytest.mark.parametrize(
    "size, scale", [(1.0, 1), (4.0, 4), (16.0, 16), (17.0, None), (1e-7, None)]
)
def test_the_scale_is_fixed_where_it_costs_no_digits_and_by_row_elsewhere(size, scale):
    weight = np.full((2, 32), 2**10 * 0.99)
    layer = linear(weight, None, mx.float16)
    layer.bound_within(mx.full((32,), size))
    layer.measure_range()
    assert layer._scale == scale
    x = mx.full((3, 32), size)
    np.testing.assert_allclose(layer(x), np.array(x) @ weight.T, rtol=1e-3)


@pytest.mark.parametrize("name", TINY)
def test_only_what_ends_a_gated_mlp_is_scaled_by_row(name):
    layers = {
        path: module
        for path, module in load_tiny(name, "float16")._backbone.named_modules()
        if isinstance(module, Linear)
    }
    by_row = {path for path, layer in layers.items() if layer._scale is None}
    assert by_row == {
        p for p in layers if p.endswith(("mlp.down_proj", "mlp.Wo", "mlp.fc2", "fn.net.2"))
    }
    assert all(layer._scale in (None, 1) for layer in layers.values())
    assert all(layers[path]._row_factor.item() >= 1 for path in by_row)


@pytest.mark.parametrize("dtype, tolerance", [(mx.float16, 2e-3), (mx.float32, 1e-5)])
def test_a_quantized_product_is_that_of_its_numbers(rng, dtype, tolerance):
    """Behind a norm and unproved, in rows of 1e-6 to 1e6."""
    packed = Packed(*mx.quantize(mx.array(rng.normal(size=(24, 64)), dtype), 32, 4), Format(4, 32))
    bias = mx.array(rng.normal(size=24), mx.float32)
    numbers = np.array(packed.expand(), np.float64)
    norm = nn.RMSNorm(64, 1e-6)
    x = norm(mx.array(rng.normal(size=(3, 64)), mx.float32))
    layer = QuantizedLinear(packed, bias, dtype)
    bounds = np.array(layer.bound_after(norm))
    assert layer._scale == 1
    unproved = QuantizedLinear(packed, bias, dtype)
    unproved.measure_range()
    for product, rows in ((layer, x), (unproved, x * mx.array([[1e-6], [1.0], [1e6]]))):
        expected = np.array(rows, np.float64) @ numbers.T + np.array(bias)
        error = np.abs(np.array(product(rows)) - expected)
        sizes = np.linalg.norm(rows, axis=1)[:, None] * np.linalg.norm(numbers, axis=1)
        assert (error <= tolerance * sizes + 1e-6).all()
    assert (np.abs(np.array(layer(x))) <= bounds).all()


def phi(x: float) -> float:
    return (1 + math.erf(x / math.sqrt(2))) / 2


@pytest.mark.parametrize("activation", [gelu, gelu_tanh, silu])
@pytest.mark.parametrize("dtype, tolerance", [(mx.float16, 2e-3), (mx.bfloat16, 2e-2)])
def test_a_gated_product_is_that_of_float64(rng, activation, dtype, tolerance):
    """Also with scales and biases in its factors, and products of 1e6."""
    gate, up = (
        Product(
            mx.array(rng.normal(size=(2, 3, 32)) * 40, dtype),
            mx.array(2.0**k),
            mx.array(rng.normal(size=32), mx.float32),
        )
        for k in (3, 5)
    )
    down = linear(rng.normal(size=(16, 32)), None, dtype)
    got = np.array(gated(down, activation, gate, up, mx.ones((2, 3, 16))), np.float64)

    def float64(x: mx.array) -> np.ndarray:
        return np.array(x.astype(mx.float32), np.float64)

    g, u = (float64(p.y) * p.scale.item() + float64(p.bias) for p in (gate, up))
    with np.errstate(over="ignore"):
        sigmoid = 1 / (1 + np.exp(-g))
    inner = g * u * (np.vectorize(phi)(g) if activation is gelu else sigmoid)
    expected = inner @ float64(down.weight).T + 1
    assert np.abs(inner).max() > 65504
    error = np.linalg.norm(got - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
    assert error.max() <= tolerance
