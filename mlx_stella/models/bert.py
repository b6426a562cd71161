"""BERT: the stella-*-zh and stella-base-en family, and other BERT sentence-transformers models.

Reference: transformers' BertModel (modeling_bert.py); Devlin et al. 2018,
https://arxiv.org/abs/1810.04805. The textbook encoder: learned absolute positions, post-norm,
LayerNorm eps 1e-12, exact (erf) GELU. The pooler behind [CLS] is not used for embeddings and
is dropped. Token types are all 0.

Checkpoints: infgrad/stella-base-zh, -large-zh, their -v2, stella-base-en-v2;
sentence-transformers/all-MiniLM-L6-v2.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import mlx.core as mx
import mlx.nn as nn

from mlx_stella.models.args import BackboneArgs, Layers, Positive, Size
from mlx_stella.models.layers import Backbone, Embedding, Step, attention, gelu, key_mask
from mlx_stella.models.products import Linear, activate

RENAMES = {
    "bert.": "",
    "pooler.": None,
    "cls.": None,
    "embeddings.position_ids": None,  # an integer buffer of older exports
    "LayerNorm.gamma": "LayerNorm.weight",  # names of the TensorFlow exports
    "LayerNorm.beta": "LayerNorm.bias",
}
FUSED = {"self.qkv.": ("self.query.", "self.key.", "self.value.")}


@dataclass(frozen=True)
class ModelArgs(BackboneArgs):
    hidden_size: Size
    intermediate_size: Size
    max_position_embeddings: Size
    num_attention_heads: Size
    num_hidden_layers: Layers
    type_vocab_size: Size
    vocab_size: Size
    hidden_act: Literal["gelu"]
    layer_norm_eps: Positive = 1e-12
    position_embedding_type: Literal["absolute"] = "absolute"
    is_decoder: Literal[False] = False

    default_pooling: ClassVar[str | None] = "mean"  # as sentence-transformers does

    @property
    def sides(self) -> dict[str, int]:
        return super().sides | {
            "max_position_embeddings": self.max_position_embeddings,
            "type_vocab_size": self.type_vocab_size,
        }


class Embeddings(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.word_embeddings = Embedding(args.vocab_size, args.hidden_size)
        self.position_embeddings = Embedding(args.max_position_embeddings, args.hidden_size)
        self.token_type_embeddings = Embedding(args.type_vocab_size, args.hidden_size)
        self.LayerNorm = nn.LayerNorm(args.hidden_size, args.layer_norm_eps)

    def __call__(self, input_ids: mx.array) -> mx.array:
        positions = self.position_embeddings(mx.arange(input_ids.shape[1]))
        # The same for every text, so added once: (L, D), not (B, L, D).
        constant = positions + self.token_type_embeddings(mx.array(0))
        return self.LayerNorm(self.word_embeddings(input_ids) + constant)


class SelfAttention(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.heads = args.num_attention_heads
        self.qkv = Linear(args.hidden_size, 3 * args.hidden_size)

    def __call__(self, x: mx.array, mask: mx.array | None) -> mx.array:
        qkv = mx.unflatten(self.qkv(x), -1, (3 * self.heads, -1))
        q, k, v = mx.split(qkv, 3, axis=2)
        return attention(q, k, v, mask)


class ResidualOutput(nn.Module):
    """Projection, residual and LayerNorm, which close both halves of a layer."""

    def __init__(self, input_dims: int, output_dims: int, eps: float):
        super().__init__()
        self.dense = Linear(input_dims, output_dims)
        self.LayerNorm = nn.LayerNorm(output_dims, eps)

    def __call__(self, x: mx.array, residual: mx.array) -> mx.array:
        return self.LayerNorm(self.dense(x, residual))


class Attention(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.self = SelfAttention(args)
        self.output = ResidualOutput(args.hidden_size, args.hidden_size, args.layer_norm_eps)

    def __call__(self, x: mx.array, mask: mx.array | None) -> mx.array:
        return self.output(self.self(x, mask), x)


class Intermediate(nn.Module):
    def __init__(self, input_dims: int, output_dims: int):
        super().__init__()
        self.dense = Linear(input_dims, output_dims)

    def __call__(self, x: mx.array, dtype: mx.Dtype) -> mx.array:
        return activate(gelu, self.dense.product(x), dtype)


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
        value = mx.split(self.attention.self.qkv.bound_after(norm), 3)[2]
        self.attention.output.dense.bound_within(value)
        inner = self.intermediate.dense.bound_after(self.attention.output.LayerNorm)
        self.output.dense.bound_within(mx.maximum(inner, 0.17))
        return self.output.LayerNorm


class Encoder(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.layer = [Layer(args) for _ in range(args.num_hidden_layers)]


class Model(Backbone):
    """BertModel without its pooler."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self.embeddings = Embeddings(args)
        self.encoder = Encoder(args)

    def embed(self, input_ids: mx.array) -> mx.array:
        return self.embeddings(input_ids)

    def steps(self, length: int, attention_mask: mx.array | None) -> Iterator[Step]:
        mask = key_mask(attention_mask)
        for layer in self.encoder.layer:
            yield partial(layer.attention, mask=mask)
            yield layer.feed_forward

    def prove_range(self) -> None:
        norm = self.embeddings.LayerNorm
        for layer in self.encoder.layer:
            norm = layer.prove_range(norm)
