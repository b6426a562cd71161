"""Products with weights, the range of their operands, and the kernels between them.

A product takes the type of its weight; what surrounds it is float32. On a GPU each elementwise
operation would be a kernel of its own and a pass over float32 arrays, so a product is handed on
as it is (:class:`Product`), and its cast, scale and bias happen in the kernel that uses it.

float16 ends at 65504. Where the entries of a product are bounded, by the norm before it or by what
attention and activations can make of that, the bound is proved once the weights are in place
(:meth:`Linear.bound_after`, :meth:`Linear.bound_within`) and nothing is computed per row. Where
nothing is known, each row is divided by a power of two and multiplied back (:func:`row_scale`).
bfloat16 has float32's range and needs none of this.
"""

import math
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache, update_wrapper
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn

from mlx_stella.machine import process_end
from mlx_stella.models import cpu

_TOP = 2.0**15
"""What a bound is brought to: half of float16's end, the other half is for rounding."""

_MOST_FIXED_SCALE = 16.0
"""Bounds are reached by no real row; a larger scale for all would cost real ones their digits."""

_LEAST_BOUND = 2.0**-5
"""Below it, typical entries come near float16's subnormal numbers."""


class Fused:
    """A function of elementwise operations that is one kernel on a GPU.

    ``mx.compile`` fuses no more than eleven operations in a row, and counts the broadcasts that it
    adds to both operands of a binary one: some five of these fit. Nothing but elementwise
    operations may be inside: with ``shapeless`` a trace serves arrays of all shapes.
    On Linux's CPU the function runs as it is written.
    """

    __name__: str

    def __init__(self, function: Callable[..., mx.array]):
        self.function = function
        update_wrapper(self, function)

    def __call__(self, *arguments: "Product | mx.array | None") -> mx.array:
        if cpu.is_needed():
            return self.function(*arguments)
        if (kernel := _kernels.of.get(self.function)) is None:
            process_end.before(_forget_kernels)
            kernel = _kernels.of[self.function] = mx.compile(self.function, shapeless=True)
        return kernel(*arguments)


class _Kernels(threading.local):
    """The kernels of a thread. MLX keeps what each thread has traced apart, with Python objects in
    it, until the kernel is gone, or the thread; a daemon thread must not be left to free those."""

    def __init__(self) -> None:
        self.of: dict[Callable[..., mx.array], Callable[..., mx.array]] = {}


_kernels = _Kernels()


def _forget_kernels() -> None:
    global _kernels
    _kernels = _Kernels()  # and those of all threads are gone


class Product(NamedTuple):
    """``x @ weight.T`` as it leaves the product; in float32 it is ``y * scale + bias``.

    Attributes:
        y: (..., N) in the type of the weight.
        scale: powers of two, () or (..., 1) float32; None for 1.
        bias: (N,) float32; None for 0.
    """

    y: mx.array
    scale: mx.array | None = None
    bias: mx.array | None = None

    def split(self, sections: int | list[int], axis: int = -1) -> list["Product"]:
        """Parts along an axis that is counted from the end."""
        parts = mx.split(self.y, sections, axis)
        biases = [None] * len(parts) if self.bias is None else mx.split(self.bias, sections, axis)
        return [Product(y, self.scale, b) for y, b in zip(parts, biases, strict=True)]

    def unflatten(self, *shape: int) -> "Product":
        """The last axis as two, a view."""
        scale, bias = self.scale, self.bias
        if scale is not None and scale.ndim:
            scale = mx.expand_dims(scale, -1)
        if bias is not None:
            bias = mx.unflatten(bias, -1, shape)
        return Product(mx.unflatten(self.y, -1, shape), scale, bias)

    def finish(self, residual: mx.array | None = None) -> mx.array:
        """(..., N) float32, added to ``residual`` if there is one."""
        is_finished = self.y.dtype == mx.float32 and self.scale is None and self.bias is None
        return self.y if is_finished and residual is None else _finish(self, residual)


def as_float32(product: Product) -> mx.array:
    """``y * scale + bias`` in float32, for use inside a fused function."""
    y, scale, bias = product
    y = y.astype(mx.float32)
    if scale is not None:
        y = y * scale
    return y if bias is None else y + bias


@Fused
def _finish(product: Product, residual: mx.array | None) -> mx.array:
    y = as_float32(product)
    return y if residual is None else residual + y


class Linear(nn.Module):
    """``x @ weight.T + bias``: float32 in, float32 out, the product in the type of the weight.

    Parameters:
        weight: (N, D) in the compute type; bias: (N,) float32, optional.
    """

    def __init__(self, input_dims: int, output_dims: int, bias: bool = True):
        super().__init__()
        self.weight = mx.zeros((output_dims, input_dims))
        if bias:
            self.bias = mx.zeros((output_dims,))
        # Underscores: not parameters. The scale of every row; None if each needs its own.
        self._scale: float | None = None
        self._row_factor = mx.array(1.0)

    @property
    def dtype(self) -> mx.Dtype:
        """The type of the operands."""
        return self.weight.dtype

    @property
    def operand_dtype(self) -> mx.Dtype:
        """What x may be rounded to beforehand: the type of the operands if it needs no scale."""
        needs_scale = self.dtype == mx.float16 and self._scale != 1
        return mx.float32 if needs_scale else self.dtype

    def __call__(self, x: mx.array, residual: mx.array | None = None) -> mx.array:
        """(..., D) float32 -> (..., N) float32, added to ``residual`` if there is one."""
        return self.product(x).finish(residual)

    def product(self, x: mx.array) -> Product:
        """(..., D) float32, or already of the type of the operands -> (..., N)."""
        if self.dtype == mx.float32:
            return Product(self.multiply(x, self.get("bias")))
        if self.dtype != mx.float16 or self._scale == 1:
            return Product(self.multiply(x.astype(self.dtype)), None, self.get("bias"))
        if self._scale is None:
            scale = self.scale_of_rows(mx.square(x).sum(axis=-1, keepdims=True))
        else:
            scale = mx.array(self._scale)
        return Product(self.multiply(_divide(x, scale)), scale, self.get("bias"))

    def multiply(self, x: mx.array, bias: mx.array | None = None) -> mx.array:
        """The bare product, in the type of the operands."""
        if self.dtype != mx.float32 and cpu.is_needed():
            return cpu.product(x, self.weight)
        return x @ self.weight.T if bias is None else mx.addmm(bias, x, self.weight.T)

    def rows(self) -> Iterator[mx.array]:
        """The weight in float32, some rows at a time."""
        yield self.weight.astype(mx.float32)

    def bound_after(self, norm: nn.LayerNorm | nn.RMSNorm) -> mx.array:
        """Prove the range of a product whose x comes from a norm.

        x = w * z + b with ||z|| <= sqrt(D), whatever the norm was given. So x_d is bounded by
        sqrt(D) |w_d| + |b_d|, and by Cauchy and Schwarz |(W x)_n| by sqrt(D) ||W_n * w|| + |W_n b|.

        Returns:
            (N,) float32: bounds of the outputs, biases included.
        """
        w, b = norm.weight, norm.get("bias", mx.zeros_like(norm.weight))
        root = math.sqrt(w.size)
        outputs = [root * mx.linalg.norm(r * w, axis=1) + mx.abs(r @ b) for r in self.rows()]
        return self._fix_scale(root * mx.abs(w) + mx.abs(b), mx.concatenate(outputs))

    def bound_within(self, inputs: mx.array) -> mx.array:
        """Prove the range of a product whose |x_d| is at most ``inputs`` (D,).

        Then |(W x)_n| is at most the sum of |W_nd| inputs_d. Returns as :meth:`bound_after`.
        """
        return self._fix_scale(inputs, mx.concatenate([mx.abs(r) @ inputs for r in self.rows()]))

    def _fix_scale(self, inputs: mx.array, outputs: mx.array) -> mx.array:
        bound = float(mx.maximum(inputs.max(), outputs.max()))
        scale = 2.0 ** max(0, math.ceil(math.log2(max(bound, _LEAST_BOUND) / _TOP)))
        is_proved = bound >= _LEAST_BOUND and scale <= _MOST_FIXED_SCALE
        self._scale = scale if is_proved else None
        return outputs + mx.abs(self.bias) if "bias" in self else outputs

    def measure_range(self) -> None:
        """Prepare :func:`row_scale` where nothing is proved, once the weights are in place."""
        if self.dtype == mx.float16 and self._scale is None:
            norms = mx.concatenate([mx.linalg.norm(rows, axis=1) for rows in self.rows()])
            self._row_factor = mx.maximum(norms.max(), 1.0)
            mx.eval(self._row_factor)

    def scale_of_rows(self, squares: mx.array) -> mx.array:
        """:func:`row_scale` of rows whose squares sum to ``squares`` (..., 1)."""
        return row_scale(squares, self._row_factor)


@Fused
def _divide(x: mx.array, scale: mx.array) -> mx.array:
    return (x / scale).astype(mx.float16)


@Fused
def row_scale(squares: mx.array, factor: mx.array) -> mx.array:
    """What each row of x is divided by before a float16 product, and multiplied by after it::

        s = 2 ** ceil(log2(||x|| * max(1, max_n ||weight_n||) / 2**15))

    The norm bounds each entry, and by Cauchy and Schwarz the factor makes it bound each output.
    A power of two costs no digit (a GPU may miss it by a rounding, which the product with the same
    s takes back), and as close to the upper end as possible the fewest are lost at the lower.

    Args:
        squares: (..., 1) float32, the sums of x's squares; factor: () float32.

    Returns:
        (..., 1) float32. Not below 2**-60: a row of zeros needs some scale, too.
    """
    bound = mx.sqrt(squares) * (factor / _TOP)
    return mx.power(2.0, mx.ceil(mx.log2(mx.maximum(bound, 2.0**-60))))


Activation = Callable[[mx.array], mx.array]


def activate(activation: Activation, product: Product, dtype: mx.Dtype) -> mx.array:
    """``activation(product)``, (..., N) in ``dtype``, :attr:`Linear.operand_dtype` of what follows.

    What follows then multiplies what this kernel wrote, without another pass.
    """
    return _activated(activation, dtype)(product)


def as_it_is(x: mx.array) -> mx.array:
    """The activation of a gate that is activated already, since its chain would be too long."""
    return x


def gated(
    down: Linear, activation: Activation, gate: Product, up: Product, residual: mx.array | None
) -> mx.array:
    """``down(activation(gate) * up)`` added to the residual, the end of a gated MLP.

    Neither factor is written in float32. The product of their bounds would be far too large to
    spend, so in float16 rows are scaled by their norms: one kernel for the squares, one for the
    operand.

    Args:
        down: the projection to (B, L, D); gate, up: (B, L, N); residual: (B, L, D) float32 or None.

    Returns:
        (B, L, D) float32.
    """
    if cpu.is_needed():
        return down(activation(gate.finish()) * up.finish(), residual)
    if down.dtype != mx.float16:
        return down(_gated(activation, down.dtype)(gate, up, None), residual)
    squares = _squared(activation)(gate, up).sum(axis=-1, keepdims=True)
    scale = down.scale_of_rows(squares)
    y = down.multiply(_gated(activation, mx.float16)(gate, up, scale))
    return Product(y, scale, down.get("bias")).finish(residual)


@lru_cache
def _activated(activation: Activation, dtype: mx.Dtype) -> Fused:
    def activated(product: Product) -> mx.array:
        return activation(as_float32(product)).astype(dtype)

    return Fused(activated)


@lru_cache
def _gated(activation: Activation, dtype: mx.Dtype) -> Fused:
    def gated_operand(gate: Product, up: Product, scale: mx.array | None) -> mx.array:
        factor = as_float32(up)  # scaled before the product, which keeps the kernel's chain short
        factor = factor if scale is None else factor / scale
        return (activation(as_float32(gate)) * factor).astype(dtype)

    return Fused(gated_operand)


@lru_cache
def _squared(activation: Activation) -> Fused:
    def gated_squares(gate: Product, up: Product) -> mx.array:
        return mx.square(activation(as_float32(gate)) * as_float32(up))

    return Fused(gated_squares)
