"""Products in float16: bounds that are proved, rows that are scaled, kernels that are fused."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlx_stella.models.products import Linear

pytestmark = pytest.mark.usefixtures("form")
rng = np.random.default_rng(8)


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


def test_scaling_ordinary_rows_changes_nothing():
    weight = rng.normal(size=(8, 16))
    x = mx.array(rng.normal(size=(4, 16)), mx.float32)
    layer = linear(weight, None, mx.float16)
    squares = mx.square(x).sum(axis=-1, keepdims=True)
    scales = np.log2(np.array(layer.scale_of_rows(squares)))
    assert (scales == np.round(scales)).all()  # powers of two
    plain = (x.astype(mx.float16) @ layer.weight.T).astype(mx.float32)
    np.testing.assert_allclose(layer(x), plain, rtol=1e-3, atol=1e-3)


def test_a_row_of_zeros_stays_zero():
    layer = linear(rng.normal(size=(8, 16)), None, mx.float16)
    assert (layer(mx.zeros((2, 16))) == 0).all().item()
