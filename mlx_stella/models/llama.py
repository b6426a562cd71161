"""Llama made bidirectional: llama-embed-nemotron-8b.

Reference: nvidia/llama-embed-nemotron-8b's LlamaBidirectionalModel, which is transformers'
LlamaModel (modeling_llama.py) without its causal mask; Llama 3, https://arxiv.org/abs/2407.21783.
The decoder without biases; every token sees every other; rotary positions are stretched as in Llama
3.1. The mean of all tokens is the text's vector.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from mlx_stella.models.args import BackboneArgs, parse_rotary
from mlx_stella.models.decoder import Decoder, DecoderArgs

RENAMES = {"model.": "", "lm_head.": None}


@dataclass(frozen=True)
class ModelArgs(DecoderArgs, BackboneArgs):
    attention_bias: Literal[False] = False
    mlp_bias: Literal[False] = False
    pooling: Literal["avg"] = "avg"

    default_pooling: ClassVar[str | None] = "mean"

    @classmethod
    def from_config(cls, config: Mapping[str, Any], file: Path) -> Self:
        # One is of training, the other splits products to compute the same.
        return parse_rotary(cls, config, file, handled=("pretraining_tp", "temperature"))


class Model(Decoder):
    """LlamaBidirectionalModel."""

    def __init__(self, args: ModelArgs):
        super().__init__(args, qkv_bias=False)
