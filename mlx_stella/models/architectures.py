"""The architectures, by the ``model_type`` of their config.json. The table is closed.

A new architecture is one file beside these and one line here. Each file has

    ModelArgs   the settings that the arithmetic depends on, read from config.json
    Model       (B, L) token ids -> (B, L, D) hidden states
    RENAMES     part of a tensor's name in the checkpoint -> in the model; None: dropped on purpose
    FUSED       part of a parameter's name -> the tensors stacked along its rows
                (those that share the decoder take its own)
    folded      where parameters are computed from several tensors
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_stella.errors import ConfigError
from mlx_stella.models import (
    bert,
    decoder,
    gemma3,
    llama,
    mistral,
    modernbert,
    mpnet,
    new,
    nomic_bert,
    nv_embed,
    qwen2,
    qwen3,
    xlm_roberta,
)
from mlx_stella.models.args import BackboneArgs
from mlx_stella.models.layers import Backbone

Folds = Mapping[str, tuple[tuple[str, ...], Callable[..., mx.array]]]


@dataclass(frozen=True)
class Architecture:
    """What one model file offers the loader."""

    args: type[BackboneArgs]
    model: Callable[[Any], Backbone]
    renames: Mapping[str, str | None]
    fused: Mapping[str, tuple[str, ...]]
    folded: Callable[[Any], Folds] = lambda args: {}


_NEW = Architecture(new.ModelArgs, new.Model, new.RENAMES, new.FUSED)

ARCHITECTURES: Mapping[str, Architecture] = {
    "bert": Architecture(bert.ModelArgs, bert.Model, bert.RENAMES, bert.FUSED),
    "gemma3_text": Architecture(
        gemma3.ModelArgs, gemma3.Model, gemma3.RENAMES, decoder.FUSED, gemma3.folded
    ),
    "gte": _NEW,
    "llama_bidirec": Architecture(llama.ModelArgs, llama.Model, llama.RENAMES, decoder.FUSED),
    "mistral": Architecture(mistral.ModelArgs, mistral.Model, mistral.RENAMES, decoder.FUSED),
    "modernbert": Architecture(
        modernbert.ModelArgs, modernbert.Model, modernbert.RENAMES, modernbert.FUSED
    ),
    "mpnet": Architecture(mpnet.ModelArgs, mpnet.Model, mpnet.RENAMES, mpnet.FUSED, mpnet.folded),
    "new": _NEW,
    "nomic_bert": Architecture(
        nomic_bert.ModelArgs, nomic_bert.Model, nomic_bert.RENAMES, nomic_bert.FUSED
    ),
    "nvembed": Architecture(
        nv_embed.ModelArgs, nv_embed.Model, nv_embed.RENAMES, decoder.FUSED, nv_embed.folded
    ),
    "qwen2": Architecture(qwen2.ModelArgs, qwen2.Model, qwen2.RENAMES, decoder.FUSED),
    "qwen3": Architecture(qwen3.ModelArgs, qwen3.Model, qwen3.RENAMES, decoder.FUSED),
    "xlm-roberta": Architecture(
        xlm_roberta.ModelArgs, xlm_roberta.Model, xlm_roberta.RENAMES, xlm_roberta.FUSED
    ),
}


def architecture(config: Mapping[str, Any], file: Path) -> Architecture:
    """The architecture a config.json asks for.

    Raises:
        ConfigError: its model_type is missing or not in the table.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        raise ConfigError(
            f"model_type {model_type!r} is not implemented; known: {', '.join(ARCHITECTURES)}",
            where=file,
        )
    return ARCHITECTURES[model_type]
