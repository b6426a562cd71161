"""Products and lookups with matrices that stay quantized in memory.

On a GPU, MLX multiplies with packed codes directly. On a CPU its kernels for that are some fifty
times slower than a float32 product (measured with 512 rows by 1536 x 1536, 4 bits), so there a
quantized matrix is expanded once, when it is loaded; see :func:`stays_packed`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from mlx_stella.models.formats import Format
from mlx_stella.models.products import Linear

_ROWS_AT_ONCE = 8192  # of a matrix expanded to look at its numbers


def stays_packed() -> bool:
    """Whether the default device multiplies with quantized matrices as they are."""
    return mx.default_device().type == mx.gpu


@dataclass(frozen=True)
class Packed:
    """A quantized matrix (N, D), see :mod:`mlx_stella.models.formats`.

    Attributes:
        weight: (N, D * bits / 32) uint32.
        scales: (N, D / group_size), floating, or uint8 in the modes without biases.
        biases: like scales, or None.
    """

    weight: mx.array
    scales: mx.array
    biases: mx.array | None
    format: Format

    @property
    def arrays(self) -> list[mx.array]:
        return [self.weight, self.scales] + ([] if self.biases is None else [self.biases])

    def __getitem__(self, rows: slice | mx.array) -> "Packed":
        """Some of its rows."""
        biases = None if self.biases is None else self.biases[rows]
        return Packed(self.weight[rows], self.scales[rows], biases, self.format)

    def expand(self) -> mx.array:
        """(N, D) float32."""
        scales, biases = self.scales, self.biases
        if biases is not None:
            scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
        return mx.dequantize(self.weight, scales, biases, **self.format.config, dtype=mx.float32)

    def rows(self) -> Iterator[mx.array]:
        """Its rows in float32, some at a time."""
        for start in range(0, self.weight.shape[0], _ROWS_AT_ONCE):
            yield self[start : start + _ROWS_AT_ONCE].expand()

    def peak(self) -> float:
        """The largest absolute number; NaN if one is not finite."""
        peaks = []
        for rows in self.rows():
            peaks.append(mx.abs(rows).max())
            mx.eval(peaks)
        return float(mx.stack(peaks).max())


class QuantizedLinear(Linear):
    """``x @ weight.T + bias`` with a quantized weight: float32 in, float32 out.

    Parameters:
        weight, scales, biases: as :class:`Packed`; bias: (N,) float32, optional.
    """

    def __init__(self, packed: Packed, bias: mx.array | None, dtype: mx.Dtype):
        super().__init__(1, 1, bias=False)
        self.weight, self.scales = packed.weight, packed.scales
        if packed.biases is not None:
            self.biases = packed.biases
        if bias is not None:
            self.bias = bias
        self._format, self._dtype = packed.format, dtype

    @property
    def dtype(self) -> mx.Dtype:
        return self._dtype

    def multiply(self, x: mx.array, bias: mx.array | None = None) -> mx.array:
        y = mx.quantized_matmul(
            x, self.weight, self.scales, self.get("biases"), **self._format.config
        )
        return y if bias is None else y + bias

    def rows(self) -> Iterator[mx.array]:
        packed = Packed(self.weight, self.scales, self.get("biases"), self._format)
        yield from packed.rows()


class QuantizedEmbedding(nn.Module):
    """Rows of a quantized (V, D) table, returned as float32."""

    def __init__(self, packed: Packed):
        super().__init__()
        self.weight, self.scales = packed.weight, packed.scales
        if packed.biases is not None:
            self.biases = packed.biases
        self._format = packed.format

    def __call__(self, ids: mx.array) -> mx.array:
        table = Packed(self.weight, self.scales, self.get("biases"), self._format)
        rows = table[ids.reshape(-1)].expand()
        return rows.reshape(*ids.shape, rows.shape[-1])
