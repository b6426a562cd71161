"""The decoder that Qwen2, Qwen3, Mistral and Llama share: a model file says how it differs.

Pre-norm layers with RMSNorm, grouped key/value heads, rotary positions and a SiLU-gated MLP, as in
transformers' modeling_qwen2.py, modeling_qwen3.py, modeling_mistral.py and modeling_llama.py. Qwen2
has biases in q, k and v, the others have none; Qwen3 norms its queries and keys. What a token sees
depends on the model: all, what is before it, or a window of that.
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
    Local,
    Mask,
    RopeTables,
    Step,
    attention,
    key_mask,
    rope_tables,
    rotate,
    silu,
)
from mlx_stella.models.products import Linear, Product, gated

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
    head_dim: Size
    hidden_act: Literal["silu"]
    rope: RopeArgs
    sliding_window: Count | None = None  # of these references only Mistral's applies it

    @property
    def layer_width(self) -> int:
        heads = self.num_attention_heads + 2 * self.num_key_value_heads
        return max(self.intermediate_size, heads * self.head_dim)


class Attention(nn.Module):
    def __init__(self, args: DecoderArgs, qkv_bias: bool):
        super().__init__()
        self.heads = args.num_attention_heads
        self.kv_heads = args.num_key_value_heads
        self.qkv_proj = Linear(
            args.hidden_size, (self.heads + 2 * self.kv_heads) * args.head_dim, bias=qkv_bias
        )
        self.o_proj = Linear(self.heads * args.head_dim, args.hidden_size, bias=False)

    def __call__(
        self, x: mx.array, residual: mx.array, mask: Mask | None, rope: RopeTables
    ) -> mx.array:
        qkv = self.qkv_proj.product(x).unflatten(self.heads + 2 * self.kv_heads, -1)
        qk, v = qkv.split([self.heads + self.kv_heads], axis=-2)
        q, k = self.rotated(qk, rope)
        return self.o_proj(attention(q, k, v.finish(), mask), residual)

    def rotated(self, qk: Product, rope: RopeTables) -> tuple[mx.array, mx.array]:
        """Queries (B, L, H, E) and keys (B, L, K, E), float32, from both in one."""
        q, k = mx.split(rotate(qk, rope), [self.heads], axis=2)
        return q, k

    def prove_range(self, norm: nn.RMSNorm) -> None:
        """x comes from ``norm``, and what is attended to is a mean of values."""
        bounds = self.qkv_proj.bound_after(norm).reshape(self.heads + 2 * self.kv_heads, -1)
        values = bounds[-self.kv_heads :]
        self.o_proj.bound_within(mx.repeat(values, self.heads // self.kv_heads, axis=0).flatten())


class GatedMLP(nn.Module):
    def __init__(self, args: DecoderArgs):
        super().__init__()
        self.up_gate_proj = Linear(args.hidden_size, 2 * args.intermediate_size, bias=False)
        self.down_proj = Linear(args.intermediate_size, args.hidden_size, bias=False)

    def __call__(self, x: mx.array, residual: mx.array) -> mx.array:
        up, gate = self.up_gate_proj.product(x).split(2)
        return gated(self.down_proj, silu, gate, up, residual)


class Layer(nn.Module):
    def __init__(self, args: DecoderArgs, attention: Attention):
        super().__init__()
        self.self_attn = attention
        self.mlp = GatedMLP(args)
        self.input_layernorm = nn.RMSNorm(args.hidden_size, args.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(args.hidden_size, args.rms_norm_eps)

    def attend(self, x: mx.array, mask: Mask | None, rope: RopeTables) -> mx.array:
        return self.self_attn(self.input_layernorm(x), x, mask, rope)

    def feed_forward(self, x: mx.array) -> mx.array:
        return self.mlp(self.post_attention_layernorm(x), x)

    def prove_range(self) -> None:
        self.self_attn.prove_range(self.input_layernorm)
        self.mlp.up_gate_proj.bound_after(self.post_attention_layernorm)


class Decoder(Backbone):
    """Embeddings, layers and the final norm.

    Args:
        args: sizes, from config.json.
        qkv_bias: whether q, k and v have biases.
        is_causal: whether a token sees none behind it.
        window: of a causal one, how many tokens a token sees, itself counted; None for all.
        attention: that of a layer.
    """

    def __init__(
        self,
        args: DecoderArgs,
        *,
        qkv_bias: bool,
        is_causal: bool = False,
        window: int | None = None,
        attention: type[Attention] = Attention,
    ):
        super().__init__()
        self._window = window
        self._rope = args.rope
        self._head_dim = args.head_dim
        self._is_causal = is_causal
        self.embed_tokens = Embedding(args.vocab_size, args.hidden_size)
        self.layers = [
            Layer(args, attention(args, qkv_bias)) for _ in range(args.num_hidden_layers)
        ]
        self.norm = nn.RMSNorm(args.hidden_size, args.rms_norm_eps)

    def embed(self, input_ids: mx.array) -> mx.array:
        return self.embed_tokens(input_ids)

    def steps(self, length: int, attention_mask: mx.array | None) -> Iterator[Step]:
        rope = rope_tables(self._rope, length, self._head_dim)
        mask: Mask | None = "causal" if self._is_causal else key_mask(attention_mask)
        if self._window is not None and length > self._window:
            mask = Local(self._window - 1, is_causal=True)
        for layer in self.layers:
            yield partial(layer.attend, mask=mask, rope=rope)
            yield layer.feed_forward
        yield self.norm

    def prove_range(self) -> None:
        for layer in self.layers:
            layer.prove_range()
