"""What each part is worth on the tiny checkpoints: left out, the vectors are far from right.

So the goldens would notice; beside each part stands the least change that it must make.
"""

import json

import mlx.core as mx
import numpy as np
import pytest
from support import CHECKPOINTS, TOLERANCES, distance

from mlx_stella import load
from mlx_stella.models import (
    decoder,
    gemma3,
    modernbert,
    mpnet,
    nomic_bert,
    qwen3,
    windows,
    xlm_roberta,
)
from mlx_stella.models.args import RopeArgs
from mlx_stella.models.layers import Local, attention, gelu, rope_tables
from mlx_stella.models.products import gated


def positions_from_0(padding_id, input_ids):
    return mx.arange(input_ids.shape[1])


def positions_that_count_padding(padding_id, input_ids):
    return mx.arange(input_ids.shape[1]) + padding_id + 1


def far_and_near_alike(distance):
    return np.minimum(np.abs(distance), 8) + np.where(distance > 0, 16, 0)


def every_token_sees_every(q, k, v, mask):
    return attention(q, k, v, None)


def one_further(radius, attention_mask):
    return Local(radius + 1, attention_mask)


def one_less(radius, attention_mask):
    return Local(radius - 1, attention_mask)


def no_window(radius, attention_mask):
    return None


def causal_one_further(radius, is_causal):
    return Local(radius + 1, is_causal=True)


def causal_one_less(radius, is_causal):
    return Local(radius - 1, is_causal=True)


def causal_no_window(radius, is_causal):
    return "causal"


def causal(attention_mask):
    return "causal"


def one_rope(rope_args, length, head_dim):
    return rope_tables(RopeArgs(1e4), length, head_dim)


def the_other_half(down, activation, gate, up, residual):
    return gated(down, activation, up, gate, residual)


def weights_of_norms_as_stored(weight):
    return weight.astype(mx.float32)


def plain_embeddings(self, input_ids):
    return self.embed_tokens(input_ids)


def one_norm_less(self, x, mask, rope):
    return x + self.self_attn(self.input_layernorm(x), mask, rope)


LEFT_OUT = {
    "xlm-roberta: positions from 0": (xlm_roberta, "positions_behind", positions_from_0, 0.3),
    "xlm-roberta: padding in a text": (
        xlm_roberta,
        "positions_behind",
        positions_that_count_padding,
        0.3,
    ),
    "mpnet: positions from 0": (mpnet, "positions_behind", positions_from_0, 0.3),
    "mpnet: the relative bias": (mpnet, "_bucket", np.zeros_like, 0.2),
    "mpnet: buckets of long distances": (mpnet, "_bucket", far_and_near_alike, 0.1),
    "qwen3: the causal mask": (decoder, "attention", every_token_sees_every, 0.3),
    "qwen3: the norms of q and k": (
        qwen3.Attention,
        "rotated",
        decoder.Attention.rotated,
        0.3,
    ),
    "modernbert: a window one token wider": (windows, "Local", one_further, 0.02),
    "modernbert: a window one token narrower": (windows, "Local", one_less, 0.02),
    "modernbert: the window": (windows, "Local", no_window, 0.02),
    "modernbert: its second rope base": (windows, "rope_tables", one_rope, 0.02),
    "modernbert: the half that is activated": (modernbert, "gated", the_other_half, 0.2),
    "gemma3: a window one token wider": (windows, "Local", one_further, 5e-4),
    "gemma3: a window one token narrower": (windows, "Local", one_less, 5e-4),
    "gemma3: the window": (windows, "Local", no_window, 0.02),
    "gemma3: its second rope base": (windows, "rope_tables", one_rope, 0.02),
    "gemma3: norms of 1 + w": (gemma3, "_one_more", weights_of_norms_as_stored, 0.3),
    "gemma3: the norm behind attention": (gemma3.Layer, "attend", one_norm_less, 0.2),
    "gemma3: the size of embeddings": (gemma3.Model, "embed", plain_embeddings, 0.2),
    "mistral: a window one token wider": (decoder, "Local", causal_one_further, 5e-3),
    "mistral: a window one token narrower": (decoder, "Local", causal_one_less, 5e-3),
    "mistral: the window": (decoder, "Local", causal_no_window, 0.1),
    "llama: the causal mask that it has not": (decoder, "key_mask", causal, 0.3),
    "llama: stretched positions": (decoder, "rope_tables", one_rope, 0.1),
    "nomic-bert: which half is the gate": (nomic_bert, "gated", the_other_half, 0.2),
    "nomic-bert: its rope base": (nomic_bert, "rope_tables", one_rope, 0.1),
    "gemma3: GELU by tanh": (gemma3, "gelu_tanh", gelu, 1e-4),
}


def error(name: str) -> float:
    """Of the vectors in float32, the largest."""
    directory = CHECKPOINTS / name
    texts = json.loads((directory / "cases.json").read_text())["texts"]
    expected = np.load(directory / "expected.npz")["none/backbone"]
    return distance(load(directory, dtype="float32").encode(texts), expected)


@pytest.mark.filterwarnings("ignore::mlx_stella.StellaWarning")
@pytest.mark.parametrize("part", LEFT_OUT)
def test_what_is_left_out_is_missed(monkeypatch, part):
    owner, attribute, other, least = LEFT_OUT[part]
    name = f"tiny-{part.split(':')[0]}"
    assert error(name) <= TOLERANCES["float32"]
    monkeypatch.setattr(owner, attribute, other)
    found = error(name)
    print(part, found)
    assert found >= least
