"""The CPU's own forms of GELU, SiLU and attention against NumPy in float64 and against MLX."""

import math

import mlx.core as mx
import numpy as np
import pytest

from mlx_stella.models import cpu, layers

X = np.concatenate([np.linspace(-90, 90, 20001), np.linspace(-6, 6, 20001), [0.0, -0.0, 1e-30]])


def test_gelu():
    expected = X * (1 + np.vectorize(math.erf)(X / math.sqrt(2))) / 2
    got = np.array(cpu.gelu(mx.array(X, mx.float32)))
    assert (np.abs(got - expected) <= 2e-6 * np.maximum(1, np.abs(X))).all()


@pytest.mark.usefixtures("form")
def test_gelu_by_tanh():
    expected = X * (1 + np.tanh(math.sqrt(2 / math.pi) * (X + 0.044715 * X**3))) / 2
    got = np.array(layers.gelu_tanh(mx.array(X, mx.float32)))
    assert (np.abs(got - expected) <= 2e-6 * np.maximum(1, np.abs(X))).all()


def test_silu():
    got = np.array(cpu.silu(mx.array(X, mx.float32)))
    np.testing.assert_allclose(got, X / (1 + np.exp(-X)), rtol=8e-6, atol=1e-30)


def test_large_values_do_not_overflow():
    x = mx.array([-1e30, -1e5, 1e5, 1e30])
    for function, limit in ((cpu.gelu, 1.0), (cpu.gelu_tanh, 1.0), (cpu.silu, 1.0)):
        got = np.array(function(x))
        np.testing.assert_allclose(got[2:], [1e5 * limit, 1e30 * limit], rtol=1e-6)
        assert np.isfinite(got).all()


@pytest.mark.parametrize("dtype, rounding", [(mx.float16, 2**-11), (mx.bfloat16, 2**-8)], ids=str)
def test_a_product_of_half_numbers_is_rounded_once(monkeypatch, dtype, rounding):
    rng = np.random.default_rng(4)
    x, weight = (mx.array(rng.normal(size=size), dtype) for size in ((2, 9, 384), (200, 384)))
    exact = np.array(x.astype(mx.float32), np.float64) @ np.array(weight.astype(mx.float32)).T
    whole = cpu.product(x, weight)
    assert whole.dtype == dtype
    assert (np.abs(np.array(whole.astype(mx.float32)) - exact) <= rounding * np.abs(exact)).all()
    monkeypatch.setattr(cpu, "_CAST_AT_ONCE", 384 * 64)
    for other in (cpu.product(x, weight), mx.stack([cpu.product(row, weight) for row in x])):
        assert mx.array_equal(other, whole)  # in whatever company


@pytest.mark.parametrize("kv_heads", [6, 2, 1])
@pytest.mark.parametrize("masked", [True, False])
def test_attention_is_that_of_mlx(kv_heads, masked):
    rng = np.random.default_rng(5)
    q = mx.array(rng.normal(size=(3, 6, 33, 16)) * 3, mx.float32)
    k, v = (mx.array(rng.normal(size=(3, kv_heads, 33, 16)), mx.float32) for _ in "kv")
    lengths = np.array([33, 1, 20])
    mask = mx.array(np.arange(33) < lengths[:, None])[:, None, None] if masked else None
    got = cpu.scaled_dot_product_attention(q, k, v, scale=0.25, mask=mask)
    expected = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.25, mask=mask)
    np.testing.assert_allclose(got, expected, atol=3e-6)


def test_derivatives_are_those_of_mlx():
    rng = np.random.default_rng(6)
    q, k, v = (mx.array(rng.normal(size=(2, 4, 9, 8)), mx.float32) for _ in "qkv")

    def derivatives(kernel):
        def total(*qkv):
            outputs = kernel.scaled_dot_product_attention(*qkv, scale=0.3, mask=None)
            return mx.square(outputs).sum()

        return mx.grad(total, argnums=(0, 1, 2))(q, k, v)

    for got, expected in zip(derivatives(cpu), derivatives(mx.fast), strict=True):
        np.testing.assert_allclose(got, expected, atol=2e-5)
    x = mx.array(np.linspace(-9, 9, 201), mx.float32)
    got = mx.grad(lambda x: cpu.silu(x).sum())(x)
    sigmoid = 1 / (1 + np.exp(-np.array(x, np.float64)))
    np.testing.assert_allclose(got, sigmoid * (1 + np.array(x) * (1 - sigmoid)), atol=2e-6)
