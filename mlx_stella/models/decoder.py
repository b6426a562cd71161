"""The decoder that Qwen2 and Mistral share, bidirectional: a model file says how it differs.

Pre-norm layers with RMSNorm, grouped key/value heads, rotary positions and a SiLU-gated MLP, as in
transformers' modeling_qwen2.py and modeling_mistral.py, without the causal mask. Qwen2 has biases
in q, k and v, Mistral has none.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import mlx.core as mx
import mlx.nn as nn

from mlx_stella.models.args import Count, Layers, Positive, RopeArgs, Size
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

FUSED = {
    "qkv_proj.": ("q_proj.", "k_proj.", "v_proj."),
    "up_gate_proj.": ("up_proj.", "gate_proj."),
}


@dataclass(frozen=True)
class DecoderArgs:
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
    sliding_window: Count | None = None  # neither reference applies it


class Attention(nn.Module):
    def __init__(self, args: DecoderArgs, qkv_bias: bool):
        super().__init__()
        self.heads = args.num_attention_heads
        self.kv_heads = args.num_key_value_heads
        head_dim = args.hidden_size // self.heads
        self.qkv_proj = Linear(
            args.hidden_size, (self.heads + 2 * self.kv_heads) * head_dim, bias=qkv_bias
        )
        self.o_proj = Linear(self.heads * head_dim, args.hidden_size, bias=False)

    def __call__(self, x: mx.array, mask: mx.array | None, rope: RopeTables) -> mx.array:
        qkv = split_heads(self.qkv_proj(x), self.heads + 2 * self.kv_heads)
        qk, v = mx.split(qkv, [self.heads + self.kv_heads], axis=2)
        q, k = mx.split(rotate(qk, rope), [self.heads], axis=2)
        return self.o_proj(attention(q, k, v, mask))


class GatedMLP(nn.Module):
    def __init__(self, args: DecoderArgs):
        super().__init__()
        self.up_gate_proj = Linear(args.hidden_size, 2 * args.intermediate_size, bias=False)
        self.down_proj = Linear(args.intermediate_size, args.hidden_size, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        up, gate = mx.split(self.up_gate_proj(x), 2, axis=-1)
        return self.down_proj(silu(gate) * up)


class Layer(nn.Module):
    def __init__(self, args: DecoderArgs, qkv_bias: bool):
        super().__init__()
        self.self_attn = Attention(args, qkv_bias)
        self.mlp = GatedMLP(args)
        self.input_layernorm = nn.RMSNorm(args.hidden_size, args.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(args.hidden_size, args.rms_norm_eps)

    def attend(self, x: mx.array, mask: mx.array | None, rope: RopeTables) -> mx.array:
        return x + self.self_attn(self.input_layernorm(x), mask, rope)

    def feed_forward(self, x: mx.array) -> mx.array:
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(Backbone):
    """Embeddings, layers and the final norm.

    Args:
        args: sizes, from config.json.
        qkv_bias: whether q, k and v have biases.
    """

    def __init__(self, args: DecoderArgs, *, qkv_bias: bool):
        super().__init__()
        self._rope = args.rope
        self._head_dim = args.hidden_size // args.num_attention_heads
        self.embed_tokens = Embedding(args.vocab_size, args.hidden_size)
        self.layers = [Layer(args, qkv_bias) for _ in range(args.num_hidden_layers)]
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
