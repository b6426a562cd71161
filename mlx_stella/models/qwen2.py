"""Qwen2 made bidirectional: stella_en_1.5B_v5 and gte-Qwen2-{1.5B,7B}-instruct.

Reference: Alibaba-NLP/gte-Qwen2-1.5B-instruct modeling_qwen.py (transformers' Qwen2Model with
``is_causal=False``); Qwen2 report, https://arxiv.org/abs/2407.10671. Pre-norm decoder layers
with RMSNorm, grouped key/value heads, biases in q, k and v only, rotary positions, SiLU-gated
MLP. The one change from the textbook: every token sees every other. Nothing in config.json says
so except that ``auto_map`` names the repository's own Qwen2Model (or ``is_causal`` is false); a
checkpoint that says neither would be causal, which is not implemented and refused.

gte-Qwen2 ships an ``lm_head`` that embeddings have no use for; it is dropped.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from mlx_stella.errors import ConfigError
from mlx_stella.models.args import BackboneArgs, parse_rotary
from mlx_stella.models.decoder import Decoder, DecoderArgs

RENAMES = {"model.": "", "lm_head.": None}


@dataclass(frozen=True)
class ModelArgs(DecoderArgs, BackboneArgs):
    use_sliding_window: Literal[False] = False
    layer_types: list[Literal["full_attention"]] | None = None

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
        return parse_rotary(cls, config, file, handled=("is_causal",))


class Model(Decoder):
    """Qwen2Model, bidirectional."""

    def __init__(self, args: ModelArgs):
        super().__init__(args, qkv_bias=True)
