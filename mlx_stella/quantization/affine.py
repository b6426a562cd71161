"""MLX's affine groups: a number is ``code * scale + bias``; searched and packed here.

Axis letters: N rows, D numbers a row, G groups a row, g numbers a group; G * g = D.
"""

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlx_stella.checkpoint.weights import fits_float16
from mlx_stella.models.formats import Format
from mlx_stella.models.quantized import Packed

LEAST_FLOAT16_SCALE = 2.0**-13
"""Scales below are near the end of float16's range and have lost digits there; at 8 bits, 255
steps of such a scale are off by a step and more. They stay float32."""

_SHRINKS = np.linspace(1.0, 0.4, 13)  # of a group's range, whose ends may be outliers
ROWS_AT_ONCE = 8192
"""Rows are independent of each other; so many are worked on together."""


@dataclass
class Groups:
    """A matrix (N, D) in codes.

    Attributes:
        codes: (N, D) uint8, from 0 to 2**bits - 1.
        scales, biases: (N, G) float32, numbers that ``dtype`` holds exactly.
        dtype: in which scales and biases are stored.
    """

    codes: np.ndarray
    scales: np.ndarray
    biases: np.ndarray
    format: Format
    dtype: mx.Dtype

    @property
    def top(self) -> int:
        """The largest code."""
        return 2**self.format.bits - 1

    def expand(self) -> np.ndarray:
        """(N, D) float32."""
        size = self.format.group_size
        return self.codes * self.scales.repeat(size, 1) + self.biases.repeat(size, 1)

    def of_columns(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scales and biases of some columns (n,), each (n, N)."""
        of = columns // self.format.group_size
        return self.scales.T[of], self.biases.T[of]

    def nearest(self, codes: np.ndarray) -> np.ndarray:
        """What is no whole number, or out of range, as the code nearest to it."""
        return np.minimum(np.maximum(np.rint(codes), 0), self.top)  # np.clip is slow on columns

    def stored(self, numbers: np.ndarray) -> np.ndarray:
        """Scales or biases as they will be once stored, float32."""
        return np.array(mx.array(numbers, mx.float32).astype(self.dtype).astype(mx.float32))

    def pack(self) -> Packed:
        """As MLX stores it: codes one after another, lowest bit first, in words of 32 bits."""
        bits, (rows, columns) = self.format.bits, self.codes.shape
        words = np.empty((rows, columns * bits // 32), np.uint32)
        for start in range(0, rows, ROWS_AT_ONCE):
            codes = self.codes[start : start + ROWS_AT_ONCE]
            each = np.unpackbits(codes[..., None], axis=-1, count=bits, bitorder="little")
            line = np.packbits(each.reshape(len(codes), -1), axis=1, bitorder="little")
            words[start : start + ROWS_AT_ONCE] = line.view("<u4")
        scales, biases = (mx.array(x).astype(self.dtype) for x in (self.scales, self.biases))
        return Packed(mx.array(words), scales, biases, self.format)


def quantize(
    weight: np.ndarray,
    solve: Callable[[np.ndarray, mx.Dtype], Groups],
    format: Format,
    dtype: mx.Dtype,
) -> Groups:
    """Some thousand rows after another, each of which takes nothing from the others.

    Args:
        solve: quantizes some rows, its scales in the type that it is given.
        dtype: of stored scales; float32 is taken where float16 has no room for them.
    """
    peak = max(weight.max(), -weight.min())
    is_fine = 2 * peak / 2**format.bits < LEAST_FLOAT16_SCALE
    if dtype == mx.float16 and (is_fine or not fits_float16(float(peak))):
        dtype = mx.float32
    starts = range(0, len(weight), ROWS_AT_ONCE)
    parts = [solve(weight[start : start + ROWS_AT_ONCE], dtype) for start in starts]
    return Groups(
        np.concatenate([part.codes for part in parts]),
        np.concatenate([part.scales for part in parts]),
        np.concatenate([part.biases for part in parts]),
        format,
        dtype,
    )


def search(weight: np.ndarray, importance: np.ndarray, format: Format, dtype: mx.Dtype) -> Groups:
    """Round a matrix (N, D) float32, each group by itself, with the least squared error.

    Ranges from the group's own down to 0.4 of it are tried; to the codes that each gives, scale
    and bias are fitted by least squares.

    Args:
        importance: (D,) weights of the squared errors.
        dtype: of stored scales and biases.
    """
    top = 2**format.bits - 1
    w = mx.array(weight.reshape(len(weight), -1, format.group_size))
    v = mx.array(importance / importance.mean(), mx.float32).reshape(1, -1, format.group_size)
    low, high = w.min(-1, keepdims=True), w.max(-1, keepdims=True)
    # Groups of equal numbers need some scale, too.
    middle, width = (low + high) / 2, mx.maximum(high - low, 2.0**-20)
    best = [mx.full(low.shape, float("inf")), width, low]
    for shrink in _SHRINKS.tolist():
        scale = width * (shrink / top)
        scale, bias = _fit(w, _codes(w, scale, middle - scale * (top / 2), top), v, scale)
        scale, bias = (x.astype(dtype).astype(mx.float32) for x in (scale, bias))
        error = (v * mx.square(_codes(w, scale, bias, top) * scale + bias - w)).sum(-1, True)
        found = error < best[0]
        best = [mx.where(found, *pair) for pair in zip((error, scale, bias), best, strict=True)]
        mx.eval(best)
    _, scale, bias = best
    codes = np.array(_codes(w, scale, bias, top).flatten(-2).astype(mx.uint8))
    return Groups(codes, np.array(scale[..., 0]), np.array(bias[..., 0]), format, dtype)


def _codes(w: mx.array, scale: mx.array, bias: mx.array, top: int) -> mx.array:
    return mx.clip(mx.round((w - bias) / scale), 0, top)


def _fit(w: mx.array, codes: mx.array, v: mx.array, scale: mx.array) -> tuple[mx.array, mx.array]:
    """Scale and bias of each group by weighted least squares; the old scale where codes agree."""
    total = v.sum(-1, True)
    mean_c, mean_w = (v * codes).sum(-1, True) / total, (v * w).sum(-1, True) / total
    spread = (v * mx.square(codes - mean_c)).sum(-1, True)
    product = (v * (codes - mean_c) * (w - mean_w)).sum(-1, True)
    scale = mx.where(product > 0, product / mx.maximum(spread, 1e-12), scale)
    return scale, mean_w - scale * mean_c
