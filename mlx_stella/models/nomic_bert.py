"""Nomic BERT: nomic-embed-text-v1.5.

Reference: nomic-ai/nomic-bert-2048 modeling_hf_nomic_bert.py and transformers' NomicBertModel
(modeling_nomic_bert.py); Nussbaum et al. 2024, https://arxiv.org/abs/2402.01613. A BERT with these
changes: rotary positions instead of learned ones, a SiLU-gated MLP (``fc12`` is the gate), and no
biases but in the norms. Post-norm, LayerNorm eps 1e-12.

config.json is spelled as GPT-2's (``n_embd``), by transformers 5 as BERT's; both are read, the
first where both are there: of the lengths it is the one that the published model takes. Not
implemented are the experts of v2, and the scaled rotary positions of v1 past 2,048 tokens.
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
    Layers,
    Positive,
    RopeArgs,
    Size,
    parse_rotary,
)
from mlx_stella.models.layers import (
    Backbone,
    Embedding,
    RopeTables,
    Step,
    attention,
    key_mask,
    rope_tables,
    rotate,
    silu,
)
from mlx_stella.models.products import Linear, gated

RENAMES = {"bert.": "", "pooler.": None, "cls.": None}
FUSED = {"fc1.": ("fc11.", "fc12.")}  # up, gate

_SPELLINGS = {
    "activation_function": "hidden_act",
    "layer_norm_epsilon": "layer_norm_eps",
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_layer": "num_hidden_layers",
    "n_positions": "max_position_embeddings",
    "rotary_emb_base": "rope_theta",
}
# Dropout, kernels, other heads; experts and scaling, which fields below hold off.
_UNREAD = """
    attn_pdrop dense_seq_output embd_pdrop expert_choice_router ffn_div fused_bias_fc
    fused_dropout_add_ln max_trained_positions moe_impl moe_normalize_expert_weights
    moe_resid_pdrop moe_top_k num_shared_experts pad_vocab_size_multiple reorder_and_upcast_attn
    resid_pdrop router_aux_loss_coef summary_activation summary_first_dropout
    summary_proj_to_labels summary_type summary_use_proj use_flash_attn use_xentropy
""".split()


@dataclass(frozen=True)
class ModelArgs(BackboneArgs):
    hidden_size: Size
    intermediate_size: Size
    max_position_embeddings: Size
    num_attention_heads: Size
    num_hidden_layers: Layers
    type_vocab_size: Size
    vocab_size: Size
    head_dim: Size
    hidden_act: Literal["silu", "swiglu"]
    rope: RopeArgs
    layer_norm_eps: Positive = 1e-12
    causal: Literal[False] = False
    mlp_fc1_bias: Literal[False] = False
    mlp_fc2_bias: Literal[False] = False
    moe_every_n_layers: Literal[0] | None = 0
    num_experts: Literal[0] | None = 0
    parallel_block: Literal[False] = False
    parallel_block_tied_norm: Literal[False] = False
    prenorm: Literal[False] = False
    qkv_proj_bias: Literal[False] = False
    rotary_emb_interleaved: Literal[False] = False
    rotary_emb_scale_base: Literal[None] = None
    rotary_scaling_factor: Literal[None] = None
    scale_attn_by_inverse_layer_idx: Literal[False] = False
    scale_attn_weights: Literal[True] = True
    use_rms_norm: Literal[False] | None = False

    @property
    def layer_width(self) -> int:
        return max(self.intermediate_size, 3 * self.num_attention_heads * self.head_dim)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], file: Path) -> Self:
        fraction = config.get("rotary_emb_fraction", 1.0)
        if fraction != 1:
            raise ConfigError(
                f"rotary_emb_fraction = {fraction} is not implemented (only 1)", where=file
            )
        published = {new: config[old] for old, new in _SPELLINGS.items() if old in config}
        handled = ("rotary_emb_fraction", *_SPELLINGS, *_UNREAD)
        return parse_rotary(cls, {**config, **published}, file, handled)


class Embeddings(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.word_embeddings = Embedding(args.vocab_size, args.hidden_size)
        self.token_type_embeddings = Embedding(args.type_vocab_size, args.hidden_size)

    def __call__(self, input_ids: mx.array) -> mx.array:
        return self.word_embeddings(input_ids) + self.token_type_embeddings(mx.array(0))


class Attention(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.heads = args.num_attention_heads
        width = args.num_attention_heads * args.head_dim
        self.Wqkv = Linear(args.hidden_size, 3 * width, bias=False)
        self.out_proj = Linear(width, args.hidden_size, bias=False)

    def __call__(self, x: mx.array, mask: mx.array | None, rope: RopeTables) -> mx.array:
        qk, v = self.Wqkv.product(x).unflatten(3 * self.heads, -1).split([2 * self.heads], -2)
        q, k = mx.split(rotate(qk, rope), 2, axis=2)
        return self.out_proj(attention(q, k, v.finish(), mask), residual=x)


class GatedMLP(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.fc1 = Linear(args.hidden_size, 2 * args.intermediate_size, bias=False)
        self.fc2 = Linear(args.intermediate_size, args.hidden_size, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        up, gate = self.fc1.product(x).split(2)
        return gated(self.fc2, silu, gate, up, residual=x)


class Layer(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.attn = Attention(args)
        self.mlp = GatedMLP(args)
        self.norm1 = nn.LayerNorm(args.hidden_size, args.layer_norm_eps)
        self.norm2 = nn.LayerNorm(args.hidden_size, args.layer_norm_eps)

    def attend(self, x: mx.array, mask: mx.array | None, rope: RopeTables) -> mx.array:
        return self.norm1(self.attn(x, mask, rope))

    def feed_forward(self, x: mx.array) -> mx.array:
        return self.norm2(self.mlp(x))

    def prove_range(self, norm: nn.LayerNorm) -> nn.LayerNorm:
        """x comes from ``norm``, and what is attended to is a mean of values."""
        value = mx.split(self.attn.Wqkv.bound_after(norm), 3)[2]
        self.attn.out_proj.bound_within(value)
        self.mlp.fc1.bound_after(self.norm1)
        return self.norm2


class Encoder(nn.Module):
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.layers = [Layer(args) for _ in range(args.num_hidden_layers)]


class Model(Backbone):
    """NomicBertModel without its pooler."""

    def __init__(self, args: ModelArgs):
        super().__init__()
        self._rope = args.rope
        self._head_dim = args.head_dim
        self.embeddings = Embeddings(args)
        self.emb_ln = nn.LayerNorm(args.hidden_size, args.layer_norm_eps)
        self.encoder = Encoder(args)

    def embed(self, input_ids: mx.array) -> mx.array:
        return self.emb_ln(self.embeddings(input_ids))

    def steps(self, length: int, attention_mask: mx.array | None) -> Iterator[Step]:
        rope = rope_tables(self._rope, length, self._head_dim)
        mask = key_mask(attention_mask)
        for layer in self.encoder.layers:
            yield partial(layer.attend, mask=mask, rope=rope)
            yield layer.feed_forward

    def prove_range(self) -> None:
        norm = self.emb_ln
        for layer in self.encoder.layers:
            norm = layer.prove_range(norm)
