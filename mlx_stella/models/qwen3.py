"""Qwen3: Qwen3-Embedding-0.6B, -4B and -8B.

Reference: transformers' Qwen3Model (modeling_qwen3.py); Qwen3 report,
https://arxiv.org/abs/2505.09388; Qwen3 Embedding, https://arxiv.org/abs/2506.05176. A decoder as
Qwen2's with three changes: no biases, an RMSNorm over each head of q and of k before they are
rotated, and a size of the heads that is stated apart from the hidden size. It is causal: a token
sees those before it and itself, and the text's vector is that of its last token, an end of text
that the tokenizer's template appends.

The repositories' tensors have no prefix and no ``lm_head``; those of a language model have both.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import mlx.core as mx
import mlx.nn as nn

from mlx_stella.errors import ConfigError
from mlx_stella.models import decoder
from mlx_stella.models.args import BackboneArgs, parse_rotary
from mlx_stella.models.layers import RopeTables, rotate
from mlx_stella.models.products import Product

RENAMES = {"model.": "", "lm_head.": None}


@dataclass(frozen=True)
class ModelArgs(decoder.DecoderArgs, BackboneArgs):
    attention_bias: Literal[False] = False
    is_causal: Literal[True] = True
    layer_types: list[Literal["full_attention"]] | None = None
    use_sliding_window: Literal[False] = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any], file: Path) -> Self:
        auto_map = config.get("auto_map")
        if isinstance(auto_map, dict) and "AutoModel" in auto_map:
            raise ConfigError(
                f"is run by code of its own, {auto_map['AutoModel']!r}, which is not implemented",
                where=file,
                remedy="if that is the usual Qwen3Model, take auto_map out",
            )
        return parse_rotary(cls, config, file)


class Attention(decoder.Attention):
    def __init__(self, args: decoder.DecoderArgs, qkv_bias: bool):
        super().__init__(args, qkv_bias)
        self.q_norm = nn.RMSNorm(args.head_dim, args.rms_norm_eps)
        self.k_norm = nn.RMSNorm(args.head_dim, args.rms_norm_eps)

    def rotated(self, qk: Product, rope: RopeTables) -> tuple[mx.array, mx.array]:
        q, k = qk.split([self.heads], axis=-2)
        q, k = Product(self.q_norm(q.finish())), Product(self.k_norm(k.finish()))
        return rotate(q, rope), rotate(k, rope)


class Model(decoder.Decoder):
    """Qwen3Model."""

    def __init__(self, args: ModelArgs):
        super().__init__(args, qkv_bias=False, is_causal=True, attention=Attention)
