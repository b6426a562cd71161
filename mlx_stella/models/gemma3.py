"""Gemma 3 made bidirectional: EmbeddingGemma-300m.

Reference: transformers' Gemma3TextModel (modeling_gemma3.py) with ``use_bidirectional_attention``;
Gemma 3 report, https://arxiv.org/abs/2503.19786; EmbeddingGemma, https://arxiv.org/abs/2509.20354.
It differs from the decoder of Qwen3 so: embeddings are multiplied by the square root of their size;
a branch has a norm before and one behind it; norms multiply by 1 + w; the gated MLP has GELU, by
its tanh approximation; in five of six layers a token sees a window. ``sliding_window`` counts both
sides: of a window of 512 a token sees 256 to either side.

Weights of norms are stored as w, and one is added when they are loaded. The repository says that
activations do not fit float16: products are scaled here, and all that is summed is float32.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_stella.errors import ConfigError
from mlx_stella.models.args import BackboneArgs, Layers, Positive, Size
from mlx_stella.models.layers import (
    Backbone,
    Embedding,
    Mask,
    RopeTables,
    Step,
    attention,
    gelu_tanh,
    rotate,
)
from mlx_stella.models.products import Linear, Product, activate, as_it_is, gated
from mlx_stella.models.windows import WindowArgs, of_layers, parse_windows

RENAMES = {"model.": "", "lm_head.": None, "norm.weight": "norm.less_one"}


@dataclass(frozen=True, kw_only=True)
class ModelArgs(WindowArgs, BackboneArgs):
    head_dim: Size
    hidden_activation: Literal["gelu_pytorch_tanh"]
    hidden_size: Size
    intermediate_size: Size
    max_position_embeddings: Size
    num_attention_heads: Size
    num_hidden_layers: Layers
    num_key_value_heads: Size
    query_pre_attn_scalar: Size
    rms_norm_eps: Positive
    sliding_window: Size
    use_bidirectional_attention: Literal[True]
    vocab_size: Size
    sliding_window_pattern: Size = 6
    attention_bias: Literal[False] = False
    attn_logit_softcapping: Literal[None] = None

    @property
    def layer_width(self) -> int:
        heads = self.num_attention_heads + 2 * self.num_key_value_heads
        return max(self.intermediate_size, heads * self.head_dim)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], file: Path) -> Self:
        unread = ("_sliding_window_pattern", "final_logit_softcapping")  # there are no logits
        args = parse_windows(
            cls, config, file, ("rope_theta", "rope_local_base_freq"), handled=unread
        )
        if args.query_pre_attn_scalar != args.head_dim:
            raise ConfigError(
                f"query_pre_attn_scalar = {args.query_pre_attn_scalar} is not implemented for "
                f"heads of {args.head_dim}",
                where=file,
            )
        return args


class Attention(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.heads = args.num_attention_heads
        self.kv_heads = args.num_key_value_heads
        width = (self.heads + 2 * self.kv_heads) * args.head_dim
        self.qkv_proj = Linear(args.hidden_size, width, bias=False)
        self.o_proj = Linear(self.heads * args.head_dim, args.hidden_size, bias=False)
        self.q_norm = nn.RMSNorm(args.head_dim, args.rms_norm_eps)
        self.k_norm = nn.RMSNorm(args.head_dim, args.rms_norm_eps)

    def __call__(self, x: mx.array, mask: Mask | None, rope: RopeTables) -> mx.array:
        qkv = self.qkv_proj.product(x).unflatten(self.heads + 2 * self.kv_heads, -1)
        q, k, v = qkv.split([self.heads, self.heads + self.kv_heads], axis=-2)
        q = Product(self.q_norm(q.finish()))
        k = Product(self.k_norm(k.finish()))
        return self.o_proj(attention(rotate(q, rope), rotate(k, rope), v.finish(), mask))

    def prove_range(self, norm: nn.RMSNorm) -> None:
        """x comes from ``norm``, and what is attended to is a mean of values."""
        bounds = self.qkv_proj.bound_after(norm).reshape(self.heads + 2 * self.kv_heads, -1)
        values = mx.repeat(bounds[-self.kv_heads :], self.heads // self.kv_heads, axis=0)
        self.o_proj.bound_within(values.flatten())


class MLP(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.up_gate_proj = Linear(args.hidden_size, 2 * args.intermediate_size, bias=False)
        self.down_proj = Linear(args.intermediate_size, args.hidden_size, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        up, gate = self.up_gate_proj.product(x).split(2)
        activated = Product(activate(gelu_tanh, gate, mx.float32))
        return gated(self.down_proj, as_it_is, activated, up, None)


class Layer(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.self_attn = Attention(args)
        self.mlp = MLP(args)
        self.input_layernorm = nn.RMSNorm(args.hidden_size, args.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(args.hidden_size, args.rms_norm_eps)
        self.pre_feedforward_layernorm = nn.RMSNorm(args.hidden_size, args.rms_norm_eps)
        self.post_feedforward_layernorm = nn.RMSNorm(args.hidden_size, args.rms_norm_eps)

    def attend(self, x: mx.array, mask: Mask | None, rope: RopeTables) -> mx.array:
        attended = self.self_attn(self.input_layernorm(x), mask, rope)
        return x + self.post_attention_layernorm(attended)

    def feed_forward(self, x: mx.array) -> mx.array:
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))

    def prove_range(self) -> None:
        self.self_attn.prove_range(self.input_layernorm)
        self.mlp.up_gate_proj.bound_after(self.pre_feedforward_layernorm)


class Model(Backbone):
    """Gemma3TextModel, bidirectional."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self._args = args
        self.embed_tokens = Embedding(args.vocab_size, args.hidden_size)
        self.layers = [Layer(args) for _ in range(args.num_hidden_layers)]
        self.norm = nn.RMSNorm(args.hidden_size, args.rms_norm_eps)

    def embed(self, input_ids: mx.array) -> mx.array:
        return self.embed_tokens(input_ids) * math.sqrt(self._args.hidden_size)

    def steps(self, length: int, attention_mask: mx.array | None) -> Iterator[Step]:
        args = self._args
        numbers = range(1, args.num_hidden_layers + 1)
        seen = of_layers(
            args,
            is_local=[number % args.sliding_window_pattern != 0 for number in numbers],
            radius=args.sliding_window // 2,
            head_dim=args.head_dim,
            length=length,
            attention_mask=attention_mask,
        )
        for layer, (mask, rope) in zip(self.layers, seen, strict=True):
            yield partial(layer.attend, mask=mask, rope=rope)
            yield layer.feed_forward
        yield self.norm

    def prove_range(self) -> None:
        for layer in self.layers:
            layer.prove_range()


def folded(args: ModelArgs) -> dict[str, tuple[tuple[str, ...], Callable[..., mx.array]]]:
    """The weights of norms, 1 + w."""
    parameters = dict(tree_flatten(Model(args).parameters()))
    norms = [name.removesuffix("weight") for name in parameters if name.endswith("norm.weight")]
    return {f"{norm}weight": ((f"{norm}less_one",), _one_more) for norm in norms}


def _one_more(weight: mx.array) -> mx.array:
    return 1.0 + weight.astype(mx.float32)
