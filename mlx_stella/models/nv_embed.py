"""NV-Embed v1 and v2: a bidirectional Mistral 7B and a latent attention block.

Reference: nvidia/NV-Embed-v2 modeling_nvembed.py; NV-Embed, https://arxiv.org/abs/2405.17428.
The decoder is Mistral (pre-norm, RMSNorm, grouped key/value heads, no biases, rotary positions,
SiLU-gated MLP) without the causal mask and without its sliding window. After the final norm each
token attends to a learned table of latents, and a GEGLU feed-forward (x first, gate second,
exact GELU) follows; both are pre-norm with residuals, in LayerNorm with torch's eps of 1e-5.

The latents do not depend on the input, so neither do their keys and values. With h heads of size
d, latents C after their norm, scale d**-0.5 and a token x after its own norm::

    scores_i = (x Wq_i^T) (C Wk_i^T)^T * scale  =  x A_i^T,   A_i = scale * (C Wk_i^T) Wq_i
    output   = sum_i softmax(scores_i) (C Wv_i^T) Wo_i^T  =  sum_i softmax(scores_i) B_i^T

The block is stored as the two products A (h * latents, D) and B (D, h * latents), computed once
at load in float32: 34 million parameters instead of 539, and a ninth of the arithmetic.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import mlx.core as mx
import mlx.nn as nn

from mlx_stella.errors import ConfigError
from mlx_stella.models.args import BackboneArgs, Size, parse, parse_rotary
from mlx_stella.models.decoder import Decoder, DecoderArgs
from mlx_stella.models.layers import Backbone, Step, gelu
from mlx_stella.models.products import Linear, gated

RENAMES: Mapping[str, str | None] = {}

_LAYER_NORM_EPS = 1e-5  # torch's default; the reference sets none

# The repository's instructions.json, by task; "query" is the one of the model card's example.
_INSTRUCTIONS = {
    "query": "Given a question, retrieve passages that answer the question",
    "arguana": "Given a claim, retrieve documents that support or refute the claim",
    "climatefever": "Given a claim about climate change, retrieve documents that support or refute "
    "the claim",
    "dbpedia": "Given a query, retrieve relevant entity descriptions from DBPedia",
    "fever": "Given a claim, retrieve documents that support or refute the claim",
    "fiqa2018": "Given a financial question, retrieve relevant passages that answer the query",
    "hotpotqa": "Given a multi-hop question, retrieve documents that can help answer the question",
    "msmarco": "Given a web search query, retrieve relevant passages that answer the query",
    "nfcorpus": "Given a question, retrieve relevant documents that answer the question",
    "nq": "Given a question, retrieve passages that answer the question",
    "quoraretrieval": "Given a question, retrieve questions that are semantically equivalent to "
    "the given question",
    "scidocs": "Given a scientific paper title, retrieve paper abstracts that are cited by the "
    "given paper",
    "scifact": "Given a scientific claim, retrieve documents that support or refute the claim",
    "sts": "Retrieve semantically similar text",
    "summ": "Given a news summary, retrieve other semantically similar summaries",
    "touche2020": "Given a question, retrieve passages that answer the question",
    "treccovid": "Given a query on COVID-19, retrieve documents that answer the query",
}


@dataclass(frozen=True)
class TextArgs(DecoderArgs):
    is_decoder: Literal[False] = False


@dataclass(frozen=True)
class LatentArgs:
    """The published configs name none of these; the defaults are those of the reference."""

    num_latents_value: Annotated[int, range(1, 2**14)] = 512
    num_cross_heads: Annotated[int, range(1, 2**10)] = 8
    hidden_dim: Size = 4096
    latent_dim: Size = 4096
    cross_dim_head: Size = 4096
    output_normalize: Literal[True] = True


@dataclass(frozen=True)
class ModelArgs(BackboneArgs):
    text: TextArgs
    latent: LatentArgs
    is_mask_instruction: Literal[True] = True
    padding_side: Literal["right"] = "right"

    eos_as_text: ClassVar[bool] = True
    masks_prompt: ClassVar[bool] = True
    default_pooling: ClassVar[str | None] = "mean"
    prompts: ClassVar[Mapping[str, str]] = {
        name: f"Instruct: {instruction}\nQuery: " for name, instruction in _INSTRUCTIONS.items()
    }

    @property
    def sides(self) -> dict[str, int]:
        return super().sides | {
            "num_latents_value": self.latent.num_latents_value,
            "num_cross_heads": self.latent.num_cross_heads,
        }

    @property
    def hidden_size(self) -> int:
        return self.text.hidden_size

    @property
    def vocab_size(self) -> int:
        return self.text.vocab_size

    @property
    def num_hidden_layers(self) -> int:
        return self.text.num_hidden_layers

    @property
    def num_attention_heads(self) -> int:
        return self.text.num_attention_heads

    @property
    def intermediate_size(self) -> int:
        return self.text.intermediate_size

    @property
    def layer_width(self) -> int:
        return self.text.layer_width

    @property
    def max_position_embeddings(self) -> int:
        return self.text.max_position_embeddings

    @classmethod
    def from_config(cls, config: Mapping[str, Any], file: Path) -> Self:
        try:
            text, latent = dict(config["text_config"]), dict(config["latent_attention_config"])
        except (KeyError, TypeError, ValueError):
            raise ConfigError(
                "text_config or latent_attention_config is missing",
                where=file,
                remedy="use a checkpoint as published",
            ) from None
        own = {
            k: v
            for k, v in config.items()
            if k not in ("text_config", "latent_attention_config", "hidden_size")
        }
        args = parse(
            cls,
            own
            | {
                "text": parse_rotary(TextArgs, text, file),
                "latent": parse(LatentArgs, latent, file),
            },
            file,
        )
        if not args.hidden_size == args.latent.hidden_dim == args.latent.latent_dim:
            raise ConfigError(
                f"hidden_size {args.hidden_size}, hidden_dim {args.latent.hidden_dim} and "
                f"latent_dim {args.latent.latent_dim} differ, which is not implemented",
                where=file,
            )
        return args


class LatentCrossAttention(nn.Module):
    """Attention of each token over the latents, folded into two products."""

    def __init__(self, dims: int, args: LatentArgs):
        super().__init__()
        self.heads = args.num_cross_heads
        self.scores = Linear(dims, args.num_cross_heads * args.num_latents_value, bias=False)
        self.outputs = Linear(args.num_cross_heads * args.num_latents_value, dims, bias=False)

    def __call__(self, x: mx.array, residual: mx.array) -> mx.array:
        scores = mx.unflatten(self.scores(x), -1, (self.heads, -1))
        return self.outputs(mx.softmax(scores, axis=-1).flatten(-2), residual)

    def prove_range(self, norm: nn.LayerNorm) -> None:
        self.outputs.bound_within(mx.ones_like(self.scores.bound_after(norm)))  # softmax <= 1


class GEGLU(nn.Module):
    def __init__(self, dims: int):
        super().__init__()
        # One list of two types, as the checkpoint has it.
        self.net: list[Any] = [Linear(dims, 8 * dims), nn.Identity(), Linear(4 * dims, dims)]

    def __call__(self, x: mx.array, residual: mx.array) -> mx.array:
        up, gate = self.net[0].product(x).split(2)
        return gated(self.net[2], gelu, gate, up, residual)

    def prove_range(self, norm: nn.LayerNorm) -> None:
        self.net[0].bound_after(norm)


class PreNorm(nn.Module):
    def __init__(self, dims: int, fn: nn.Module):
        super().__init__()
        self.norm = nn.LayerNorm(dims, _LAYER_NORM_EPS)
        self.fn = fn

    def __call__(self, x: mx.array) -> mx.array:
        return self.fn(self.norm(x), x)


class LatentAttention(nn.Module):
    def __init__(self, dims: int, args: LatentArgs):
        super().__init__()
        self.cross_attend_blocks = [
            PreNorm(dims, LatentCrossAttention(dims, args)),
            PreNorm(dims, GEGLU(dims)),
        ]


class Model(Backbone):
    """NVEmbedModel up to, and without, its masked mean."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self.embedding_model = Decoder(args.text, qkv_bias=False)
        self.latent_attention_model = LatentAttention(args.hidden_size, args.latent)

    def embed(self, input_ids: mx.array) -> mx.array:
        return self.embedding_model.embed(input_ids)

    def steps(self, length: int, attention_mask: mx.array | None) -> Iterator[Step]:
        yield from self.embedding_model.steps(length, attention_mask)
        yield from self.latent_attention_model.cross_attend_blocks

    def prove_range(self) -> None:
        self.embedding_model.prove_range()
        for block in self.latent_attention_model.cross_attend_blocks:
            block.fn.prove_range(block.norm)


def folded(args: ModelArgs) -> dict[str, tuple[tuple[str, ...], Callable[..., mx.array]]]:
    """Parameters computed from several tensors: name -> (names of the tensors, function)."""
    latent = "latent_attention_model."
    block = latent + "cross_attend_blocks.0."
    context = (latent + "latents", block + "norm_context.weight", block + "norm_context.bias")
    heads, head_dim = args.latent.num_cross_heads, args.latent.cross_dim_head
    to_q, to_kv, to_out = (f"{block}fn.{name}.weight" for name in ("to_q", "to_kv", "to_out"))
    return {
        f"{block}fn.scores.weight": (
            (*context, to_kv, to_q),
            partial(_fold_scores, heads=heads, head_dim=head_dim),
        ),
        f"{block}fn.outputs.weight": (
            (*context, to_kv, to_out),
            partial(_fold_outputs, heads=heads),
        ),
    }


def _fold_scores(
    latents: mx.array,
    norm_weight: mx.array,
    norm_bias: mx.array,
    to_kv: mx.array,
    to_q: mx.array,
    heads: int,
    head_dim: int,
) -> mx.array:
    """All A_i stacked: (heads * latents, D) float32, from to_kv (2 h d, D) and to_q (h d, D).

    Raises ValueError if to_q has other heads; their size is not seen in the result.
    """
    context = _context(latents, norm_weight, norm_bias)
    to_k, _ = mx.split(to_kv, 2, axis=0)
    queries = mx.unflatten(to_q, 0, (heads, head_dim))
    return mx.concatenate(
        [
            head_dim**-0.5 * ((context @ k.astype(mx.float32).T) @ q.astype(mx.float32))
            for k, q in zip(mx.split(to_k, heads), queries, strict=True)
        ],
        axis=0,
    )


def _fold_outputs(
    latents: mx.array,
    norm_weight: mx.array,
    norm_bias: mx.array,
    to_kv: mx.array,
    to_out: mx.array,
    heads: int,
) -> mx.array:
    """All B_i side by side: (D, heads * latents) float32, from to_kv and to_out (D, h d)."""
    context = _context(latents, norm_weight, norm_bias)
    _, to_v = mx.split(to_kv, 2, axis=0)
    return mx.concatenate(
        [
            out.astype(mx.float32) @ (context @ v.astype(mx.float32).T).T
            for v, out in zip(mx.split(to_v, heads), mx.split(to_out, heads, axis=1), strict=True)
        ],
        axis=1,
    )


def _context(latents: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
    """The latents after their norm: (latents, D) float32."""
    weight, bias = weight.astype(mx.float32), bias.astype(mx.float32)
    return mx.fast.layer_norm(latents.astype(mx.float32), weight, bias, _LAYER_NORM_EPS)
