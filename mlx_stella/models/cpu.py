"""What MLX's CPU backend on Linux computes one number at a time, written so that it vectorises.

exp and erf go through the C library there, at 82 and 39 million elements a second on one core;
sums and products run at 5,000 million. GELU and softmax took half of the time of a BERT. Written
as polynomials they reach 310 and 540 million (measured on an AMD EPYC, float32, 2**18 elements).
Products of half numbers do not go through a BLAS there.
Metal, CUDA and macOS have fast ones of their own and never come here.
"""

import math
import sys
from typing import Literal, cast

import mlx.core as mx

# The normal distribution's Phi(x) - 1/2 on [-5.6, 5.6] as x * P(x^2) / Q(x^2), Q monic; fitted by
# least squares weighted towards the largest error (Lawson), which is 9e-9. Highest power first.
_PHI_END = 5.6
_PHI_NUMERATOR = (
    0.01876394741487208,
    5.385884139390239,
    147.30151935050642,
    3988.4546743245824,
    29126.695820160083,
    338024.5887670722,
)
_PHI_DENOMINATOR = (
    1.0,
    63.633197371537065,
    1620.8556121911136,
    24520.8513903267,
    214226.01081722655,
    847302.1166848148,
)
# 2**f for |f| <= 1/2, fitted likewise: relative error 7.5e-8. Highest power first.
_POWER_OF_TWO = (
    0.0013276471959879164,
    0.009675541502673468,
    0.05550713275064717,
    0.24022119720750762,
    0.6931469670628865,
    1.0000000716553015,
)
_ROUNDING = 1.5 * 2**23  # adding it leaves a float32 rounded to a whole number

TANH_GELU = 2 * math.sqrt(2 / math.pi), 2 * math.sqrt(2 / math.pi) * 0.044715
"""GELU by tanh is x * sigmoid(y), y = c * x + d * x**3: c and d."""

_CAST_AT_ONCE = 2**19  # numbers of a weight that are float64 for a moment

QUERIES_AT_ONCE = 32
"""Attention takes so many of each row: their scores, which a dozen passes go over, stay in a core's
cache. A text of 1,838 tokens and eight heads took 0.49 s with all at once and 0.24 s so. As many
whatever the batch: products of other shapes round otherwise."""


def is_needed() -> bool:
    """Whether the default device is the one these forms are for."""
    return sys.platform == "linux" and mx.default_device().type == mx.cpu


def product(x: mx.array, weight: mx.array) -> mx.array:
    """``x @ weight.T`` of half numbers (..., D) and (N, D), summed in float64 and rounded once.

    MLX multiplies them one by one: 202 and 115 ms for (512, 384) by (384, 1536) in float16 and
    bfloat16 on one core, where this takes 15 and 14. In float32 it would be 9, but there the last
    bits depend on the order of the sums, so on how many rows come along, and where they tip the
    rounding to half numbers a text's vector would depend on its company.
    """
    x, rows = x.astype(mx.float64), max(1, _CAST_AT_ONCE // weight.shape[1])
    blocks = [
        (x @ weight[start : start + rows].astype(mx.float64).T).astype(weight.dtype)
        for start in range(0, weight.shape[0], rows)
    ]
    return blocks[0] if len(blocks) == 1 else mx.concatenate(blocks, axis=-1)


def gelu(x: mx.array) -> mx.array:
    """x * (1 + erf(x / sqrt(2))) / 2, within 2e-6 of it."""
    y = mx.clip(x, -_PHI_END, _PHI_END)
    square = y * y
    phi = y * _horner(_PHI_NUMERATOR, square) / _horner(_PHI_DENOMINATOR, square) + 0.5
    return x * phi


def gelu_tanh(x: mx.array) -> mx.array:
    """x / (1 + exp(-y)), y = x * (c + d * x**2), within 3e-6 of it, relatively."""
    linear, cubic = TANH_GELU
    return x / (1.0 + _exp_of_minus(x * (linear + cubic * x * x)))


def silu(x: mx.array) -> mx.array:
    """x / (1 + exp(-x)), within 3e-6 of it, relatively."""
    return x / (1.0 + _exp_of_minus(x))


def _exp_of_minus(x: mx.array) -> mx.array:
    return _power_of_two(mx.clip(x * -math.log2(math.e), -126.0, 126.0))


def scaled_dot_product_attention(
    q: mx.array,
    k: mx.array,
    v: mx.array,
    *,
    scale: float,
    mask: mx.array | Literal["causal"] | None,
) -> mx.array:
    """The same as ``mx.fast.scaled_dot_product_attention``, in float32."""
    B, H, L, E = q.shape
    K, keys = k.shape[1:3]
    if isinstance(mask, str):  # the last query sees all keys
        mask = mx.arange(keys) <= mx.arange(keys - L, keys)[:, None]
    # Scores are made for powers of two instead of e; a column of ones in v sums the weights.
    q = mx.unflatten(q * (scale * math.log2(math.e)), 1, (K, H // K))
    v = mx.concatenate([v, mx.ones((*v.shape[:-1], 1))], axis=-1)
    scores = q @ mx.expand_dims(k, 2).swapaxes(-1, -2)
    if mask is not None:
        if mask.ndim == 4:  # heads are in two axes here
            mask = mx.unflatten(mask, 1, (K, H // K) if mask.shape[1] == H else (1, 1))
        if mask.dtype == mx.bool_:
            scores = mx.where(mask, scores, -1e9)
        else:
            scores = scores + mask * math.log2(math.e)
    weights = _power_of_two(mx.maximum(scores - scores.max(axis=-1, keepdims=True), -126.0))
    attended = weights @ mx.expand_dims(v, 2)
    return (attended[..., :E] / attended[..., E:]).reshape(B, H, L, E)


def _power_of_two(x: mx.array) -> mx.array:
    """2**x for |x| up to 126."""
    return cast(mx.array, _exp2(x))  # MLX's stubs lose what a custom function returns


@mx.custom_function
def _exp2(x: mx.array) -> mx.array:
    """2**x for |x| up to 126, as 2**n * 2**f with n whole and |f| <= 1/2."""
    shifted = x + _ROUNDING
    mantissa = _horner(_POWER_OF_TWO, x - (shifted - _ROUNDING))
    # The last bits of shifted are n; moved to the exponent's place they multiply by 2**n.
    exponent = mx.left_shift(mx.view(shifted, mx.int32), 23)
    return mx.view(mx.view(mantissa, mx.int32) + exponent, mx.float32)


@_exp2.vjp
def _exp2_vjp(x: mx.array, cotangent: mx.array, power: mx.array) -> mx.array:
    """Bits moved about have no derivative; 2**x has."""
    return cotangent * power * math.log(2)


def _horner(coefficients: tuple[float, ...], x: mx.array) -> mx.array:
    first, second, *others = coefficients
    value = (x if first == 1.0 else first * x) + second
    for coefficient in others:
        value = value * x + coefficient
    return value
