"""Mistral: e5-mistral-7b-instruct, SFR-Embedding-Mistral, SFR-Embedding-2_R, Linq-Embed-Mistral.

Reference: transformers' MistralModel (modeling_mistral.py); Mistral 7B,
https://arxiv.org/abs/2310.06825; E5-Mistral, https://arxiv.org/abs/2401.00368. The decoder without
biases. It is causal, within a window: a token sees itself and the nearest of those before it,
``sliding_window`` in all. The text's vector is that of its last token, an end of text that
tokenizer_config.json asks for.

A bidirectional Mistral is what NV-Embed is made of (nv_embed.py), which has no window.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from mlx_stella.models.args import BackboneArgs, Size, parse_rotary
from mlx_stella.models.decoder import Decoder, DecoderArgs

RENAMES = {"model.": "", "lm_head.": None}


@dataclass(frozen=True)
class ModelArgs(DecoderArgs, BackboneArgs):
    is_causal: Literal[True] = True
    sliding_window: Size | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any], file: Path) -> Self:
        return parse_rotary(cls, config, file)


class Model(Decoder):
    """MistralModel."""

    def __init__(self, args: ModelArgs):
        super().__init__(args, qkv_bias=False, is_causal=True, window=args.sliding_window)
