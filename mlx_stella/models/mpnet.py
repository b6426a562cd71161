"""MPNet: all-mpnet-base-v2, multi-qa-mpnet-base, paraphrase-mpnet-base.

Reference: transformers' MPNetModel (modeling_mpnet.py); Song et al. 2020,
https://arxiv.org/abs/2004.09297. A BERT with two changes: positions begin behind the id of the
padding token, as in XLM-RoBERTa, and a bias by relative position is added to the scores of
attention, from one table that all layers share. No token types, LayerNorm eps 1e-5.

The table has a row for each of 32 buckets of j - i, a column for each head. Buckets are those of T5
(https://arxiv.org/abs/1910.10683), bidirectional: 16 for keys behind the query and 16 for the
others; of these, 8 for distances 0 to 7 and 8 for longer ones, whose width grows by 2**0.5 up to
128 tokens.
The reference has 32 whatever the config says.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mlx_stella.models.args import BackboneArgs, Layers, Positive, Size
from mlx_stella.models.bert import Intermediate, ResidualOutput
from mlx_stella.models.layers import (
    Backbone,
    Embedding,
    Step,
    attention,
    key_mask,
    positions_behind,
)
from mlx_stella.models.products import Linear

RENAMES = {
    "mpnet.": "",
    "pooler.": None,
    "lm_head.": None,
    "embeddings.position_ids": None,  # an integer buffer of older exports
}
FUSED = {"attn.qkv.": ("attn.q.", "attn.k.", "attn.v.")}

_BUCKETS = 32
_UNSEEN = -1e9  # finite: a row that is masked throughout becomes a mean, not NaN


@dataclass(frozen=True)
class ModelArgs(BackboneArgs):
    hidden_size: Size
    intermediate_size: Size
    max_position_embeddings: Size
    num_attention_heads: Size
    num_hidden_layers: Layers
    vocab_size: Size
    hidden_act: Literal["gelu"]
    layer_norm_eps: Positive = 1e-12
    pad_token_id: Literal[1] = 1
    relative_attention_num_buckets: Annotated[int, range(_BUCKETS, 2**16)] = _BUCKETS
    is_decoder: Literal[False] = False

    adds_to_scores: ClassVar[bool] = True
    default_pooling: ClassVar[str | None] = "mean"  # as sentence-transformers does

    @property
    def max_positions(self) -> int:
        return self.max_position_embeddings - self.pad_token_id - 1

    @property
    def sides(self) -> dict[str, int]:
        return super().sides | {"max_position_embeddings": self.max_position_embeddings}


class Embeddings(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self._pad_token_id = args.pad_token_id
        self.word_embeddings = Embedding(args.vocab_size, args.hidden_size)
        self.position_embeddings = Embedding(args.max_position_embeddings, args.hidden_size)
        self.LayerNorm = nn.LayerNorm(args.hidden_size, args.layer_norm_eps)

    def __call__(self, input_ids: mx.array) -> mx.array:
        positions = self.position_embeddings(positions_behind(self._pad_token_id, input_ids))
        return self.LayerNorm(self.word_embeddings(input_ids) + positions)


class SelfAttention(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.heads = args.num_attention_heads
        self.qkv = Linear(args.hidden_size, 3 * args.hidden_size)
        self.o = Linear(args.hidden_size, args.hidden_size)

    def __call__(self, x: mx.array, mask: mx.array) -> mx.array:
        qkv = mx.unflatten(self.qkv(x), -1, (3 * self.heads, -1))
        q, k, v = mx.split(qkv, 3, axis=2)
        return self.o(attention(q, k, v, mask), residual=x)


class Attention(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.attn = SelfAttention(args)
        self.LayerNorm = nn.LayerNorm(args.hidden_size, args.layer_norm_eps)

    def __call__(self, x: mx.array, mask: mx.array) -> mx.array:
        return self.LayerNorm(self.attn(x, mask))


class Layer(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.attention = Attention(args)
        self.intermediate = Intermediate(args.hidden_size, args.intermediate_size)
        self.output = ResidualOutput(args.intermediate_size, args.hidden_size, args.layer_norm_eps)

    def feed_forward(self, x: mx.array) -> mx.array:
        return self.output(self.intermediate(x, self.output.dense.operand_dtype), x)

    def prove_range(self, norm: nn.LayerNorm) -> nn.LayerNorm:
        """x comes from ``norm``; what is attended to is a mean of values; |gelu(x)| <= |x|, 0.17"""
        value = mx.split(self.attention.attn.qkv.bound_after(norm), 3)[2]
        self.attention.attn.o.bound_within(value)
        inner = self.intermediate.dense.bound_after(self.attention.LayerNorm)
        self.output.dense.bound_within(mx.maximum(inner, 0.17))
        return self.output.LayerNorm


class Encoder(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.heads = args.num_attention_heads
        self.layer = [Layer(args) for _ in range(args.num_hidden_layers)]
        # Flat, since it is no matrix of a product: it stays float32, and is not quantized.
        self.relative_attention_bias = mx.zeros((args.relative_attention_num_buckets * self.heads,))

    def bias(self, length: int) -> mx.array:
        """What is added to the scores of ``length`` tokens: (1, H, L, L) float32."""
        table = mx.unflatten(self.relative_attention_bias, 0, (-1, self.heads))
        positions = np.arange(length)
        buckets = mx.array(_bucket(positions - positions[:, None]))
        return mx.take(table.T, buckets, axis=1)[None]


class Model(Backbone):
    """MPNetModel without its pooler."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self.embeddings = Embeddings(args)
        self.encoder = Encoder(args)

    def embed(self, input_ids: mx.array) -> mx.array:
        return self.embeddings(input_ids)

    def steps(self, length: int, attention_mask: mx.array | None) -> Iterator[Step]:
        mask, keys = self.encoder.bias(length), key_mask(attention_mask)
        if keys is not None:
            mask = mx.where(keys, mask, _UNSEEN)
        for layer in self.encoder.layer:
            yield partial(layer.attention, mask=mask)
            yield layer.feed_forward

    def prove_range(self) -> None:
        norm = self.embeddings.LayerNorm
        for layer in self.encoder.layer:
            norm = layer.prove_range(norm)


def folded(args: ModelArgs) -> dict[str, tuple[tuple[str, ...], Callable[..., mx.array]]]:
    """The table of biases, flat."""
    name = "encoder.relative_attention_bias"
    return {name: ((f"{name}.weight",), mx.flatten)}


def _bucket(distance: np.ndarray) -> np.ndarray:
    """The row of the table for distances j - i of any shape."""
    n = np.abs(distance)
    # 8 + 2 * log2(n / 8), written so that whole results are exact
    far = np.minimum(8 + np.floor(np.log2(np.maximum(n, 1) ** 2 / 64)), 15)
    return np.where(n < 8, n, far).astype(np.int32) + np.where(distance > 0, 16, 0)
