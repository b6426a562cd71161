"""GTE ("new"): the backbone of stella_en_400M_v5 and gte-{base,large}-en-v1.5.

Reference: Alibaba-NLP/new-impl modeling.py, the copy in NovaSearch/stella_en_400M_v5. A BERT
with three changes: rotary positions instead of learned ones, NTK-scaled at every length; a gated
MLP whose packed projection holds *up* first and *gate* second, with exact (erf) GELU; and no
biases in that projection. Post-norm, LayerNorm eps 1e-12. Later ports call the same model "gte".

``unpad_inputs`` and ``use_memory_efficient_attention`` choose kernels in the reference and do not
change the result; snowflake-arctic-embed-m-v2.0 spells them as strings. The pooler is never used
and is dropped.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import mlx.core as mx
import mlx.nn as nn

from mlx_stella.models.args import (
    BackboneArgs,
    Count,
    Layers,
    Positive,
    RopeArgs,
    Size,
    parse_rotary,
)
from mlx_stella.models.layers import (
    Backbone,
    Embedding,
    RopeTables,
    Step,
    attention,
    gelu,
    key_mask,
    rope_tables,
    rotate,
)
from mlx_stella.models.products import Linear, gated

RENAMES = {"new.": "", "pooler.": None, "classifier.": None}
FUSED = {"qkv_proj.": ("q_proj.", "k_proj.", "v_proj.")}  # where pack_qkv is false

_KERNEL_CHOICES = ("unpad_inputs", "use_memory_efficient_attention")


@dataclass(frozen=True)
class ModelArgs(BackboneArgs):
    hidden_size: Size
    intermediate_size: Size
    max_position_embeddings: Size
    num_attention_heads: Size
    num_hidden_layers: Layers
    type_vocab_size: Count
    vocab_size: Size
    hidden_act: Literal["gelu"]
    rope: RopeArgs
    layer_norm_eps: Positive = 1e-12
    layer_norm_type: Literal["layer_norm"] = "layer_norm"
    position_embedding_type: Literal["rope"] = "rope"
    logn_attention_clip1: Literal[False] = False
    logn_attention_scale: Literal[False] = False
    is_decoder: Literal[False] = False
    pack_qkv: bool = True
    unpad_inputs: bool = False
    use_memory_efficient_attention: bool = False

    @property
    def sides(self) -> dict[str, int]:
        return super().sides | {"type_vocab_size": self.type_vocab_size}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], file: Path) -> Self:
        spelled = {
            key: config[key] == "true"
            for key in _KERNEL_CHOICES
            if config.get(key) in ("true", "false")
        }
        return parse_rotary(cls, {**config, **spelled}, file)


class Embeddings(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.word_embeddings = Embedding(args.vocab_size, args.hidden_size)
        if args.type_vocab_size > 0:
            self.token_type_embeddings = Embedding(args.type_vocab_size, args.hidden_size)
        self.LayerNorm = nn.LayerNorm(args.hidden_size, args.layer_norm_eps)

    def __call__(self, input_ids: mx.array) -> mx.array:
        x = self.word_embeddings(input_ids)
        if "token_type_embeddings" in self:
            x = x + self.token_type_embeddings(mx.array(0))
        return self.LayerNorm(x)


class Attention(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.heads = args.num_attention_heads
        self.qkv_proj = Linear(args.hidden_size, 3 * args.hidden_size)
        self.o_proj = Linear(args.hidden_size, args.hidden_size)

    def __call__(self, x: mx.array, mask: mx.array | None, rope: RopeTables) -> mx.array:
        qk, v = self.qkv_proj.product(x).unflatten(3 * self.heads, -1).split([2 * self.heads], -2)
        q, k = mx.split(rotate(qk, rope), 2, axis=2)
        return self.o_proj(attention(q, k, v.finish(), mask), residual=x)


class GatedMLP(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.up_gate_proj = Linear(args.hidden_size, 2 * args.intermediate_size, bias=False)
        self.down_proj = Linear(args.intermediate_size, args.hidden_size)

    def __call__(self, x: mx.array) -> mx.array:
        up, gate = self.up_gate_proj.product(x).split(2)
        return gated(self.down_proj, gelu, gate, up, residual=x)


class Layer(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.attention = Attention(args)
        self.mlp = GatedMLP(args)
        self.attn_ln = nn.LayerNorm(args.hidden_size, args.layer_norm_eps)
        self.mlp_ln = nn.LayerNorm(args.hidden_size, args.layer_norm_eps)

    def attend(self, x: mx.array, mask: mx.array | None, rope: RopeTables) -> mx.array:
        return self.attn_ln(self.attention(x, mask, rope))

    def feed_forward(self, x: mx.array) -> mx.array:
        return self.mlp_ln(self.mlp(x))

    def prove_range(self, norm: nn.LayerNorm) -> nn.LayerNorm:
        """x comes from ``norm``, and what is attended to is a mean of values."""
        value = mx.split(self.attention.qkv_proj.bound_after(norm), 3)[2]
        self.attention.o_proj.bound_within(value)
        self.mlp.up_gate_proj.bound_after(self.attn_ln)
        return self.mlp_ln


class Encoder(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.layer = [Layer(args) for _ in range(args.num_hidden_layers)]


class Model(Backbone):
    """NewModel without its pooler."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self._rope = args.rope
        self._head_dim = args.hidden_size // args.num_attention_heads
        self.embeddings = Embeddings(args)
        self.encoder = Encoder(args)

    def embed(self, input_ids: mx.array) -> mx.array:
        return self.embeddings(input_ids)

    def steps(self, length: int, attention_mask: mx.array | None) -> Iterator[Step]:
        rope = rope_tables(self._rope, length, self._head_dim)
        mask = key_mask(attention_mask)
        for layer in self.encoder.layer:
            yield partial(layer.attend, mask=mask, rope=rope)
            yield layer.feed_forward

    def prove_range(self) -> None:
        norm = self.embeddings.LayerNorm
        for layer in self.encoder.layer:
            norm = layer.prove_range(norm)
