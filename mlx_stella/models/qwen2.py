"""Qwen2 made bidirectional: stella_en_1.5B_v5 and gte-Qwen2-{1.5B,7B}-instruct.

Reference: Alibaba-NLP/gte-Qwen2-1.5B-instruct modeling_qwen.py (transformers' Qwen2Model with
``is_causal=False``); Qwen2 report, https://arxiv.org/abs/2407.10671. Pre-norm decoder layers
with RMSNorm, grouped key/value heads, biases in q, k and v only, rotary positions, SiLU-gated
MLP. The one change from the textbook: every token sees every other. Nothing in config.json says
so except that ``auto_map`` names the repository's own Qwen2Model (or ``is_causal`` is false); a
checkpoint that says neither would be causal, which is not implemented and refused.

gte-Qwen2 ships an ``lm_head`` that embeddings have no use for; it is dropped.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import mlx.core as mx
import mlx.nn as nn

from mlx_stella.errors import ConfigError
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
    Linear,
    RopeTables,
    Step,
    attention,
    key_mask,
    rope_tables,
    rotate,
    silu,
    split_heads,
)

RENAMES = {"model.": "", "lm_head.": None}
FUSED = {
    "qkv_proj.": ("q_proj.", "k_proj.", "v_proj."),
    "up_gate_proj.": ("up_proj.", "gate_proj."),
}


@dataclass(frozen=True)
class ModelArgs(BackboneArgs):
    hidden_size: Size
    intermediate_size: Size
    max_position_embeddings: Size
    num_attention_heads: Size
    num_hidden_layers: Layers
    num_key_value_heads: Size
    rms_norm_eps: Positive
    vocab_size: Size
    hidden_act: Literal["silu"]
    rope: RopeArgs
    sliding_window: Count | None = None  # of no effect while use_sliding_window is false
    use_sliding_window: Literal[False] = False
    layer_types: list | None = None  # all "full_attention", checked below

    @classmethod
    def from_config(cls, config: Mapping[str, Any], file: Path) -> Self:
        auto_map = config.get("auto_map")
        remote_class = auto_map.get("AutoModel") if isinstance(auto_map, dict) else None
        # A fine-tune may name the repository too: "owner/name--modeling_qwen.Qwen2Model".
        is_remote = str(remote_class).split("--")[-1] == "modeling_qwen.Qwen2Model"
        if not is_remote and config.get("is_causal") is not False:
            raise ConfigError(
                "describes a causal Qwen2, which is not implemented",
                where=file,
                remedy="if this is a copy of Stella or gte-Qwen2 without its auto_map, add "
                '"is_causal": false',
            )
        args = parse_rotary(cls, config, file, handled=("is_causal",))
        if any(kind != "full_attention" for kind in args.layer_types or ()):
            raise ConfigError(
                "layer_types other than full_attention are not implemented", where=file
            )
        return args


class Attention(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.heads = args.num_attention_heads
        self.kv_heads = args.num_key_value_heads
        head_dim = args.hidden_size // self.heads
        self.qkv_proj = Linear(args.hidden_size, (self.heads + 2 * self.kv_heads) * head_dim)
        self.o_proj = Linear(self.heads * head_dim, args.hidden_size, bias=False)

    def __call__(self, x: mx.array, mask: mx.array | None, rope: RopeTables) -> mx.array:
        qkv = split_heads(self.qkv_proj(x), self.heads + 2 * self.kv_heads)
        qk, v = mx.split(qkv, [self.heads + self.kv_heads], axis=2)
        q, k = mx.split(rotate(qk, rope), [self.heads], axis=2)
        return self.o_proj(attention(q, k, v, mask))


class GatedMLP(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.up_gate_proj = Linear(args.hidden_size, 2 * args.intermediate_size, bias=False)
        self.down_proj = Linear(args.intermediate_size, args.hidden_size, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        up, gate = mx.split(self.up_gate_proj(x), 2, axis=-1)
        return self.down_proj(silu(gate) * up)


class Layer(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.self_attn = Attention(args)
        self.mlp = GatedMLP(args)
        self.input_layernorm = nn.RMSNorm(args.hidden_size, args.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(args.hidden_size, args.rms_norm_eps)

    def attend(self, x: mx.array, mask: mx.array | None, rope: RopeTables) -> mx.array:
        return x + self.self_attn(self.input_layernorm(x), mask, rope)

    def feed_forward(self, x: mx.array) -> mx.array:
        return x + self.mlp(self.post_attention_layernorm(x))


class Model(Backbone):
    """Qwen2Model, bidirectional."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self._rope = args.rope
        self._head_dim = args.hidden_size // args.num_attention_heads
        self.embed_tokens = Embedding(args.vocab_size, args.hidden_size)
        self.layers = [Layer(args) for _ in range(args.num_hidden_layers)]
        self.norm = nn.RMSNorm(args.hidden_size, args.rms_norm_eps)

    def embed(self, input_ids: mx.array) -> mx.array:
        return self.embed_tokens(input_ids)

    def steps(self, length: int, attention_mask: mx.array | None) -> Iterator[Step]:
        rope = rope_tables(self._rope, length, self._head_dim)
        mask = key_mask(attention_mask)
        for layer in self.layers:
            yield partial(layer.attend, mask=mask, rope=rope)
            yield layer.feed_forward
        yield self.norm
