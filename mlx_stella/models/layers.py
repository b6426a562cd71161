"""Parts that more than one architecture is made of.

Axis letters used in all files:

    B  batch (texts)         L  tokens               D  hidden size
    H  query heads           K  key/value heads      E  head dimension
    N  outputs of a product  V  vocabulary

Precision: hidden states, norms, attention and whatever is summed are float32 throughout. Only the
operands of products with weights take the type of the weights (float16, bfloat16 or float32), so
the choice of type costs rounding, never range.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_stella.models import cpu
from mlx_stella.models.args import RopeArgs


class Linear(nn.Module):
    """``x @ weight.T + bias``: float32 in, float32 out, the product in the type of the weight.

    float16 ends at 65504, and gated MLPs go beyond it: their hidden products reach 1e5, the
    output of the down projection 1e6. Each row is therefore divided by the power of two s that
    brings the larger of the row and a bound of its outputs to 2**15::

        s = 2 ** ceil(log2(max(max|x|, ||x|| * max_n ||weight_n||) / 2**15))

    (Cauchy-Schwarz bounds each output), multiplied, and scaled back in float32. Powers of two
    are exact, and as close to the upper end as possible the fewest digits are lost at the lower.
    bfloat16 has float32's range and needs none of this.

    Parameters:
        weight: (N, D) in the compute type; bias: (N,) float32, optional.
    """

    def __init__(self, input_dims: int, output_dims: int, bias: bool = True):
        super().__init__()
        self.weight = mx.zeros((output_dims, input_dims))
        if bias:
            self.bias = mx.zeros((output_dims,))
        self._max_row_norm = 0.0  # underscore: not a parameter

    def measure_range(self) -> None:
        """Take the largest row norm of a float16 weight, once the weights are in place."""
        if self.weight.dtype == mx.float16:
            norms = mx.linalg.norm(self.weight.astype(mx.float32), axis=1)
            self._max_row_norm = norms.max().item()

    def __call__(self, x: mx.array) -> mx.array:
        """(..., D) float32 -> (..., N) float32."""
        dtype = self.weight.dtype
        if dtype == mx.float32:
            if "bias" in self:
                return mx.addmm(self.bias, x, self.weight.T)
            return x @ self.weight.T
        if dtype == mx.float16:
            scale = range_scale(x, self._max_row_norm)
            y = ((x / scale).astype(dtype) @ self.weight.T).astype(mx.float32) * scale
        else:
            y = (x.astype(dtype) @ self.weight.T).astype(mx.float32)
        return y + self.bias if "bias" in self else y


def range_scale(x: mx.array, max_row_norm: float) -> mx.array:
    """The power of two of :class:`Linear` for each row: (..., D) -> (..., 1)."""
    peak = mx.abs(x).max(axis=-1, keepdims=True)
    norm = mx.linalg.norm(x, axis=-1, keepdims=True)
    bound = mx.maximum(peak, norm * max_row_norm) / 2**15
    # Not below 2**-60: a row of zeros needs some scale, too.
    return mx.power(2.0, mx.ceil(mx.log2(mx.maximum(bound, 2.0**-60))))


Step = Callable[[mx.array], mx.array]
"""Hidden states (B, L, D) to hidden states: a residual branch ``x + f(x)`` and maybe a norm, or a
norm alone. The last product of a branch is what is added to x."""


class Backbone(nn.Module):
    """Token ids to hidden states, in steps that can be taken one at a time, too."""

    def __call__(self, input_ids: mx.array, attention_mask: mx.array | None = None) -> mx.array:
        """Token ids to hidden states.

        Args:
            input_ids: (B, L) int32, padded on the right.
            attention_mask: (B, L) bool, True for tokens; None if nothing is padded.

        Returns:
            (B, L, D) float32.
        """
        x = self.embed(input_ids)
        for step in self.steps(input_ids.shape[1], attention_mask):
            x = step(x)
        return x

    def embed(self, input_ids: mx.array) -> mx.array:
        """(B, L) int32 -> (B, L, D) float32."""
        raise NotImplementedError

    def steps(self, length: int, attention_mask: mx.array | None) -> Iterator[Step]:
        """What follows the embeddings, in order, for texts of ``length`` tokens, padded."""
        raise NotImplementedError


class Embedding(nn.Embedding):
    """Rows of a (V, D) table in the compute type, returned as float32."""

    def __call__(self, ids: mx.array) -> mx.array:
        return self.weight[ids].astype(mx.float32)


def key_mask(attention_mask: mx.array | None) -> mx.array | None:
    """(B, L) bool, True for tokens -> (B, 1, 1, L): every query sees every real token.

    Boolean on purpose: with an additive -inf mask ``mx.fast`` gives NaN for a row that is masked
    throughout, with a boolean one it does not.
    """
    return None if attention_mask is None else attention_mask[:, None, None, :]


SCORES_AT_ONCE = 2**26
"""Where the device has no fused kernel, at most so many scores (B, H, queries, L) are held."""


def attention(q: mx.array, k: mx.array, v: mx.array, mask: mx.array | None) -> mx.array:
    """Scaled dot-product attention, bidirectional.

    In float32 whatever the weights: the biases of trained keys are large enough for scores beyond
    float16, and without a fused kernel they are held in the type of the operands. It is a small
    part of the arithmetic (3 % for stella_en_1.5B_v5 at 512 tokens).

    Args:
        q: (B, L, H, E) float32; k, v: (B, L, K, E) float32, each shared by H / K query heads.
        mask: (B, 1, 1, L) bool, True where a key may be seen; None if all may.

    Returns:
        (B, L, H * E) float32.
    """
    B, L, H, E = q.shape
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    queries = max(1, SCORES_AT_ONCE // (B * H * L))
    kernel = cpu if cpu.is_needed() else mx.fast
    blocks = [
        kernel.scaled_dot_product_attention(
            q[:, :, start : start + queries], k, v, scale=E**-0.5, mask=mask
        )
        for start in range(0, L, queries)
    ]
    output = blocks[0] if len(blocks) == 1 else mx.concatenate(blocks, axis=2)
    return output.transpose(0, 2, 1, 3).reshape(B, L, H * E)


def gelu(x: mx.array) -> mx.array:
    """The exact GELU, x * (1 + erf(x / sqrt(2))) / 2, of any shape."""
    return cpu.gelu(x) if cpu.is_needed() else nn.gelu(x)


def silu(x: mx.array) -> mx.array:
    """SiLU, x * sigmoid(x), of any shape."""
    return cpu.silu(x) if cpu.is_needed() else nn.silu(x)


def split_heads(x: mx.array, heads: int) -> mx.array:
    """(B, L, heads * E) -> (B, L, heads, E)."""
    B, L, width = x.shape
    return x.reshape(B, L, heads, width // heads)


RopeTables = tuple[mx.array, mx.array]
"""Cosines and sines, each (L, 1, E) float32, the two halves of the last axis alike."""


def rope_tables(args: RopeArgs, length: int, head_dim: int) -> RopeTables:
    """Rotary tables for positions 0 .. length - 1 (RoFormer, https://arxiv.org/abs/2104.09864).

    The angles are computed in float64: ``mx.fast.rope`` was off by 1e-4 at position 8192, and
    float32 angles lose a digit for every digit of the position.
    """
    cos, sin = _rope_tables(args, -(-length // 512) * 512, head_dim)
    return cos[:length], sin[:length]


@lru_cache(maxsize=4)
def _rope_tables(args: RopeArgs, length: int, head_dim: int) -> RopeTables:
    frequencies = args.theta ** (-np.arange(0, head_dim, 2) / head_dim) / args.divisor
    angles = np.outer(np.arange(length), np.concatenate([frequencies, frequencies]))
    cos, sin = (mx.array(f(angles)[:, None], mx.float32) for f in (np.cos, np.sin))
    return cos, sin


def rotate(x: mx.array, tables: RopeTables) -> mx.array:
    """Apply rotary positions to (B, L, H, E), pairing dimension i with i + E/2 (NeoX order)."""
    cos, sin = tables
    first, second = mx.split(x, 2, axis=-1)
    return x * cos + mx.concatenate([-second, first], axis=-1) * sin
