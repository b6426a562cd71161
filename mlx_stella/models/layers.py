"""Parts that more than one architecture is made of.

Axis letters used in all files:

    B  batch (texts)         L  tokens               D  hidden size
    H  query heads           K  key/value heads      E  head dimension
    N  outputs of a product  V  vocabulary

Precision: hidden states, norms, attention and whatever is summed are float32 throughout. Only the
operands of products with weights take the type of the weights (float16, bfloat16 or float32), so
the choice of type costs rounding, never range.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Literal

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_stella.models import cpu
from mlx_stella.models.args import RopeArgs
from mlx_stella.models.products import Fused, Product, as_float32

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

    def prove_range(self) -> None:
        """Bound the products of float16 weights that can be bounded, see ``Linear.bound_after``."""
        raise NotImplementedError


class Embedding(nn.Module):
    """Rows of a (V, D) table in the compute type, returned as float32.

    MLX's own draws its first numbers at random: that moves a generator of the caller's, and gives
    each thread one, which a daemon thread cannot let go of at the end of the process.
    """

    def __init__(self, rows: int, dims: int):
        super().__init__()
        self.weight = mx.zeros((rows, dims))

    def __call__(self, ids: mx.array) -> mx.array:
        return self.weight[ids].astype(mx.float32)


def positions_behind(padding_id: int, input_ids: mx.array) -> mx.array:
    """Positions that begin behind the id of the padding token, as in RoBERTa: (B, L) int32.

    A text may spell that token out; then it has its own id for a position and is not counted.
    """
    is_counted = input_ids != padding_id
    return mx.where(is_counted, mx.cumsum(is_counted, axis=1), 0) + padding_id


def key_mask(attention_mask: mx.array | None) -> mx.array | None:
    """(B, L) bool, True for tokens -> (B, 1, 1, L): every query sees every real token.

    Boolean on purpose: with an additive -inf mask ``mx.fast`` gives NaN for a row that is masked
    throughout, with a boolean one it does not.
    """
    return None if attention_mask is None else attention_mask[:, None, None, :]


class Local:
    """A window: a query sees the real tokens that are at most ``radius`` away.

    Its parts for some queries and the keys they may see are made when first asked for, and kept:
    all layers of a batch share them.

    Args:
        radius: the largest distance; in a causal window only to tokens before the query's own.
        attention_mask: (B, L) bool, True for tokens; None if nothing is padded.
    """

    def __init__(
        self, radius: int, attention_mask: mx.array | None = None, *, is_causal: bool = False
    ):
        self._radius = radius
        self._keys = key_mask(attention_mask)
        self._is_causal = is_causal
        self._parts: dict[tuple[int, int], mx.array] = {}

    def part(self, start: int, stop: int, length: int) -> tuple[slice, mx.array]:
        """For queries from ``start`` to ``stop``: keys, and a mask (1 or B, 1, queries, keys)."""
        last = stop if self._is_causal else min(stop + self._radius, length)
        keys = slice(max(start - self._radius, 0), last)
        if (start, stop) not in self._parts:
            distances = np.arange(keys.start, keys.stop) - np.arange(start, stop)[:, None]
            behind = 0 if self._is_causal else self._radius
            mask = mx.array((distances >= -self._radius) & (distances <= behind))[None, None]
            if self._keys is not None:
                # A padded query sees itself: far from all real tokens it would see nothing.
                mask = (mask & self._keys[..., keys]) | mx.array(distances == 0)
            self._parts[start, stop] = mask
        return keys, self._parts[start, stop]


Mask = mx.array | Literal["causal"] | Local
"""What a query may see: boolean, True where it may, or float32, added to its scores, either one
broadcast to (B, H, L, L); or "causal", no token behind its own; or a window."""


SCORES_AT_ONCE = 2**26
"""Where a GPU has no fused kernel, at most so many scores (B, H, queries, L) are held."""

_FUSED_HEAD_DIMS = (64, 80, 96, 128)
"""Sizes of a head for which Metal has a kernel that holds no scores ..."""

_FUSED_SCORES_AT_ONCE = 2**29
"""... but still computes them: so many take an M1 a quarter of a second (estimated), and the system
ends what holds up the screen for long."""

_LOCAL_QUERIES = 512
"""Of a window, so many queries are taken at once, with the keys around them: in a long text most
scores are never computed."""


def attention(q: mx.array, k: mx.array, v: mx.array, mask: Mask | None) -> mx.array:
    """Scaled dot-product attention.

    In float32 whatever the weights: the biases of trained keys are large enough for scores beyond
    float16, and without a fused kernel they are held in the type of the operands. It is a small
    part of the arithmetic (3 % for stella_en_1.5B_v5 at 512 tokens).

    Args:
        q: (B, L, H, E) float32; k, v: (B, L, K, E) float32, each shared by H / K query heads.
        mask: what may be seen; None for all. A causal one needs no other for padding, which stands
            on the right of all that is read.

    Returns:
        (B, L, H * E) float32.
    """
    B, L, H, E = q.shape
    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    is_fused = mx.metal.is_available() and E in _FUSED_HEAD_DIMS
    queries = max(1, (_FUSED_SCORES_AT_ONCE if is_fused else SCORES_AT_ONCE) // (B * H * L))
    if cpu.is_needed():
        queries = cpu.QUERIES_AT_ONCE
    elif isinstance(mask, Local):
        queries = min(queries, _LOCAL_QUERIES)
    kernel = cpu if cpu.is_needed() else mx.fast
    blocks = []
    for start in range(0, L, queries):
        stop = min(start + queries, L)
        keys, seen = _of_queries(mask, start, stop, L)
        blocks.append(
            kernel.scaled_dot_product_attention(
                q[:, :, start:stop], k[:, :, keys], v[:, :, keys], scale=E**-0.5, mask=seen
            )
        )
    output = blocks[0] if len(blocks) == 1 else mx.concatenate(blocks, axis=2)
    return output.transpose(0, 2, 1, 3).reshape(B, L, H * E)


def _of_queries(
    mask: Mask | None, start: int, stop: int, length: int
) -> tuple[slice, mx.array | Literal["causal"] | None]:
    """The keys that some queries may see, and their part of a mask."""
    if isinstance(mask, Local):
        return mask.part(start, stop, length)
    if isinstance(mask, str):
        return slice(stop), mask  # the last of these queries sees no key behind
    if mask is not None and mask.shape[-2] > 1:
        mask = mask[..., start:stop, :]
    return slice(length), mask


def gelu(x: mx.array) -> mx.array:
    """The exact GELU, x * (1 + erf(x / sqrt(2))) / 2, of any shape."""
    return cpu.gelu(x) if cpu.is_needed() else 0.5 * x * (1.0 + mx.erf(x * math.sqrt(0.5)))


def gelu_tanh(x: mx.array) -> mx.array:
    """GELU by its tanh approximation, of any shape.

    x * (1 + tanh(y / 2)) / 2 with y = 2 sqrt(2 / pi) (x + 0.044715 x**3), and so x * sigmoid(y).
    """
    if cpu.is_needed():
        return cpu.gelu_tanh(x)
    linear, cubic = cpu.TANH_GELU
    return x * mx.sigmoid(x * (linear + cubic * x * x))


def silu(x: mx.array) -> mx.array:
    """SiLU, x * sigmoid(x), of any shape."""
    return cpu.silu(x) if cpu.is_needed() else x * mx.sigmoid(x)


RopeTables = tuple[mx.array, mx.array]
"""Cosines and sines, each (L, 1, E) float32; the first half of the sines has the other sign."""


def rope_tables(args: RopeArgs, length: int, head_dim: int) -> RopeTables:
    """Rotary tables for positions 0 .. length - 1 (RoFormer, https://arxiv.org/abs/2104.09864).

    The angles are computed in float64: ``mx.fast.rope`` was off by 1e-4 at position 8192, and
    float32 angles lose a digit for every digit of the position.
    """
    cos, sin = _rope_tables(args, -(-length // 512) * 512, head_dim)
    return cos[:length], sin[:length]


@lru_cache(maxsize=8)
def _rope_tables(args: RopeArgs, length: int, head_dim: int) -> RopeTables:
    angles = np.outer(np.arange(length), args.frequencies(head_dim))[:, None]
    cos, sin = np.cos(angles), np.sin(angles)
    tables = np.concatenate([cos, cos], axis=-1), np.concatenate([-sin, sin], axis=-1)
    return mx.array(tables[0], mx.float32), mx.array(tables[1], mx.float32)


def rotate(x: Product, tables: RopeTables) -> mx.array:
    """Apply rotary positions to (B, L, H, E), pairing dimension i with i + E/2 (NeoX order).

    Returns:
        (B, L, H, E) float32.
    """
    cos, sin = tables
    if cpu.is_needed():
        y = x.finish()
        first, second = mx.split(y, 2, axis=-1)
        return y * cos + mx.concatenate([second, first], axis=-1) * sin
    # A view with the halves swapped, which the one kernel reads beside x.
    pairs = x.unflatten(2, -1)
    bias = None if pairs.bias is None else pairs.bias[..., ::-1, :]
    swapped = Product(pairs.y[..., ::-1, :], pairs.scale, bias)
    cos, sin = (mx.unflatten(table, -1, (2, -1)) for table in tables)
    return mx.flatten(_rotate(pairs, swapped, cos, sin), -2)


@Fused
def _rotate(x: Product, swapped: Product, cos: mx.array, sin: mx.array) -> mx.array:
    return as_float32(x) * cos + as_float32(swapped) * sin
