"""ModernBERT: gte-modernbert-base, modernbert-embed-base, granite-embedding-english-r2.

Reference: transformers' ModernBertModel (modeling_modernbert.py); Warner et al. 2024,
https://arxiv.org/abs/2412.13663. A BERT with these changes: pre-norm, with a norm at the end and
none before the first attention; rotary positions; in two of three layers a token sees a window of
128, 64 to either side; a gated MLP whose packed projection holds the half that is *activated* first
(GTE holds it second), with exact (erf) GELU; no biases, not in the norms either.

Tensors of a language model have a prefix, and it has a head, as classifiers do, which is dropped.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import mlx.core as mx
import mlx.nn as nn

from mlx_stella.models.args import BackboneArgs, Layers, Positive, Size
from mlx_stella.models.layers import (
    Backbone,
    Embedding,
    Mask,
    RopeTables,
    Step,
    attention,
    gelu,
    rotate,
)
from mlx_stella.models.products import Linear, gated
from mlx_stella.models.windows import WindowArgs, of_layers, parse_windows

RENAMES = {"model.": "", "head.": None, "decoder.": None, "classifier.": None}
FUSED: Mapping[str, tuple[str, ...]] = {}


@dataclass(frozen=True, kw_only=True)
class ModelArgs(WindowArgs, BackboneArgs):
    hidden_size: Size
    intermediate_size: Size
    local_attention: Size
    max_position_embeddings: Size
    num_attention_heads: Size
    num_hidden_layers: Layers
    vocab_size: Size
    hidden_activation: Literal["gelu"]
    norm_eps: Positive = 1e-5
    global_attn_every_n_layers: Size = 3
    attention_bias: Literal[False] = False
    mlp_bias: Literal[False] = False
    norm_bias: Literal[False] = False

    @property
    def layer_width(self) -> int:
        return max(self.intermediate_size, 3 * self.hidden_size)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], file: Path) -> Self:
        unread = ("layer_norm_eps", "position_embedding_type")  # nor does the reference read them
        return parse_windows(
            cls, config, file, ("global_rope_theta", "local_rope_theta"), handled=unread
        )


class Embeddings(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.tok_embeddings = Embedding(args.vocab_size, args.hidden_size)
        self.norm = nn.LayerNorm(args.hidden_size, args.norm_eps, bias=False)

    def __call__(self, input_ids: mx.array) -> mx.array:
        return self.norm(self.tok_embeddings(input_ids))


class Attention(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.heads = args.num_attention_heads
        self.Wqkv = Linear(args.hidden_size, 3 * args.hidden_size, bias=False)
        self.Wo = Linear(args.hidden_size, args.hidden_size, bias=False)

    def __call__(
        self, x: mx.array, residual: mx.array, mask: Mask | None, rope: RopeTables
    ) -> mx.array:
        qk, v = self.Wqkv.product(x).unflatten(3 * self.heads, -1).split([2 * self.heads], -2)
        q, k = mx.split(rotate(qk, rope), 2, axis=2)
        return self.Wo(attention(q, k, v.finish(), mask), residual)


class MLP(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.Wi = Linear(args.hidden_size, 2 * args.intermediate_size, bias=False)
        self.Wo = Linear(args.intermediate_size, args.hidden_size, bias=False)

    def __call__(self, x: mx.array, residual: mx.array) -> mx.array:
        gate, up = self.Wi.product(x).split(2)
        return gated(self.Wo, gelu, gate, up, residual)


class Layer(nn.Module):
    def __init__(self, args: ModelArgs, is_first: bool):
        super().__init__()
        if not is_first:
            self.attn_norm = nn.LayerNorm(args.hidden_size, args.norm_eps, bias=False)
        self.attn = Attention(args)
        self.mlp_norm = nn.LayerNorm(args.hidden_size, args.norm_eps, bias=False)
        self.mlp = MLP(args)

    def attend(self, x: mx.array, mask: Mask | None, rope: RopeTables) -> mx.array:
        return self.attn(self.attn_norm(x) if "attn_norm" in self else x, x, mask, rope)

    def feed_forward(self, x: mx.array) -> mx.array:
        return self.mlp(self.mlp_norm(x), x)

    def prove_range(self, norm: nn.LayerNorm) -> None:
        """What is attended to is a mean of values, made of what comes from ``norm``."""
        value = mx.split(self.attn.Wqkv.bound_after(norm), 3)[2]
        self.attn.Wo.bound_within(value)
        self.mlp.Wi.bound_after(self.mlp_norm)


class Model(Backbone):
    """ModernBertModel."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self._args = args
        self.embeddings = Embeddings(args)
        self.layers = [Layer(args, number == 0) for number in range(args.num_hidden_layers)]
        self.final_norm = nn.LayerNorm(args.hidden_size, args.norm_eps, bias=False)

    def embed(self, input_ids: mx.array) -> mx.array:
        return self.embeddings(input_ids)

    def steps(self, length: int, attention_mask: mx.array | None) -> Iterator[Step]:
        args = self._args
        seen = of_layers(
            args,
            is_local=[n % args.global_attn_every_n_layers != 0 for n in range(len(self.layers))],
            radius=args.local_attention // 2,
            head_dim=args.hidden_size // args.num_attention_heads,
            length=length,
            attention_mask=attention_mask,
        )
        for layer, (mask, rope) in zip(self.layers, seen, strict=True):
            yield partial(layer.attend, mask=mask, rope=rope)
            yield layer.feed_forward
        yield self.final_norm

    def prove_range(self) -> None:
        for layer in self.layers:
            layer.prove_range(layer.get("attn_norm", self.embeddings.norm))
