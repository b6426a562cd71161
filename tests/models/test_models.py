"""What sets each architecture apart from the textbook."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from support import CHECKPOINTS, TOLERANCES, distance, edit_json, load_tiny

from mlx_stella import ConfigError, load
from mlx_stella.models import nv_embed
from mlx_stella.models.args import RopeArgs

TEXTS = ["What is Deep Learning?", "a", "Deep learning is a field of study. " * 9]


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def layer_norm(x, weight, bias):
    x = x - x.mean(axis=-1, keepdims=True)
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5) * weight + bias


@pytest.mark.parametrize("dtype, tolerance", [(mx.float32, 2e-6), (mx.float16, 2e-3)])
def test_folded_latents_are_the_unfolded_block(dtype, tolerance):
    """NV-Embed's cross attention as its paper writes it, in float64, against two products."""
    rng = np.random.default_rng(0)
    D, heads, size, count, L = 24, 3, 16, 10, 9
    latents, x = rng.normal(size=(count, D)), rng.normal(size=(2, L, D))
    weight, bias = rng.normal(size=(2, D))
    to_q, to_kv = rng.normal(size=(heads * size, D)) / 4, rng.normal(size=(2 * heads * size, D)) / 4
    to_out = rng.normal(size=(D, heads * size)) / 4

    context = layer_norm(latents, weight, bias)
    q = (x @ to_q.T).reshape(2, L, heads, size)
    k, v = (part.reshape(count, heads, size) for part in np.split(context @ to_kv.T, 2, axis=-1))
    attended = softmax(np.einsum("blhe,nhe->blhn", q, k) * size**-0.5)
    expected = np.einsum("blhn,nhe->blhe", attended, v).reshape(2, L, -1) @ to_out.T

    args = nv_embed.LatentArgs(count, heads, D, D, size)
    block = nv_embed.LatentCrossAttention(D, args)
    arrays = [mx.array(a, mx.float32) for a in (latents, weight, bias, to_kv, to_q, to_out)]
    scores = nv_embed._fold_scores(*arrays[:5], heads=heads, head_dim=size)
    outputs = nv_embed._fold_outputs(*arrays[:4], arrays[5], heads=heads)
    block.scores.weight, block.outputs.weight = scores.astype(dtype), outputs.astype(dtype)
    block.scores.measure_range(), block.outputs.measure_range()
    got = np.array(block(mx.array(x, mx.float32), residual=mx.array(0.0)))
    assert np.linalg.norm(got - expected) / np.linalg.norm(expected) <= tolerance


def test_folding_takes_away_half_a_billion_parameters():
    """At NV-Embed's own sizes, where MLX allocates nothing for a model that is never run."""
    D, args = 4096, nv_embed.LatentArgs()
    inner = args.num_cross_heads * args.cross_dim_head
    unfolded = args.num_latents_value * D + inner * D + 2 * inner * D + D * inner + 2 * D
    block = nv_embed.LatentCrossAttention(D, args)
    folded = sum(array.size for _, array in tree_flatten(block.parameters()))
    assert unfolded == 538_976_256 and folded == 33_554_432
    # products per token: q, scores, weighted values, output; against two of the folded matrices
    arithmetic = 2 * inner * D + 2 * inner * args.num_latents_value
    assert arithmetic / folded == 9.0


def test_both_spellings_of_gte_rope_agree(copy_of):
    directory = copy_of("tiny-stella-400m")
    theta, factor, head_dim = 160000, 2.0, 16
    edit_json(
        directory / "config.json",
        model_type="gte",
        rope_theta=None,
        rope_scaling=None,
        rope_parameters={
            "rope_type": "linear",
            "rope_theta": theta * factor,
            "factor": factor ** (2 / head_dim),
        },
    )
    vectors = load(directory, dtype="float32").encode(TEXTS)
    assert distance(vectors, load_tiny("tiny-stella-400m").encode(TEXTS)) <= 1e-6


def test_ntk_changes_angles_at_every_length():
    file = Path("config.json")
    ntk = RopeArgs.from_config(
        {
            "rope_theta": 160000,
            "rope_scaling": {"type": "ntk", "factor": 2.0},
        },
        file,
        head_dim=64,
    )
    assert ntk == RopeArgs(320000.0, 2 ** (2 / 64))


@pytest.mark.parametrize(
    "scaling, fault",
    [({"type": "yarn", "factor": 2.0}, "'yarn'"), ({"type": "ntk", "mixed_b": 0.6}, "mixed_b")],
)
def test_other_rope_scaling_is_refused(scaling, fault):
    with pytest.raises(ConfigError, match=fault):
        RopeArgs.from_config({"rope_theta": 1e4, "rope_scaling": scaling}, Path("config.json"), 64)


def test_prefix_and_packing_of_gte_do_not_matter(copy_of):
    """The same weights with `new.` taken off and qkv taken apart give the same vectors."""
    directory = copy_of("tiny-stella-400m")
    packed = mx.load(str(directory / "model.safetensors"))
    separate = {}
    for name, array in packed.items():
        name = name.removeprefix("new.")
        if "qkv_proj" in name:
            for part, piece in zip("qkv", mx.split(array, 3), strict=True):
                separate[name.replace("qkv_proj", f"{part}_proj")] = piece
        elif "pooler" not in name:
            separate[name] = array
    mx.save_safetensors(str(directory / "model.safetensors"), separate)
    edit_json(directory / "config.json", pack_qkv=False)
    vectors = load(directory, dtype="float32").encode(TEXTS)
    np.testing.assert_array_equal(vectors, load_tiny("tiny-stella-400m").encode(TEXTS))


def test_a_sequence_classifier_of_xlm_roberta_is_read_without_its_classifier(copy_of):
    directory = copy_of("tiny-xlm-roberta")
    file = str(directory / "model.safetensors")
    tensors = {f"roberta.{name}": t for name, t in mx.load(file).items() if "pooler" not in name}
    tensors["classifier.dense.weight"] = mx.zeros((48, 48))
    tensors["classifier.out_proj.weight"] = mx.zeros((1, 48))
    mx.eval(tensors)
    mx.save_safetensors(file, tensors)
    vectors = load(directory, dtype="float32").encode(TEXTS)
    np.testing.assert_array_equal(vectors, load_tiny("tiny-xlm-roberta").encode(TEXTS))


def test_modernbert_as_transformers_5_and_a_language_model_write_it(copy_of):
    """Types of layers and two settings of rotary positions in lists; a prefix and a head."""
    directory = copy_of("tiny-modernbert")
    full, near = "full_attention", "sliding_attention"
    ropes = {full: {"rope_theta": 160000.0}, near: {"rope_theta": 10000.0}}
    edit_json(
        directory / "config.json",
        **dict.fromkeys(("global_rope_theta", "local_rope_theta", "global_attn_every_n_layers")),
        layer_types=[full, near, near, full],
        rope_parameters={kind: {"rope_type": "default"} | rope for kind, rope in ropes.items()},
    )
    file = str(directory / "model.safetensors")
    tensors = {f"model.{name}": tensor for name, tensor in mx.load(file).items()}
    tensors |= {"head.dense.weight": mx.zeros((48, 48)), "decoder.bias": mx.zeros(503)}
    mx.eval(tensors)
    mx.save_safetensors(file, tensors)
    vectors = load(directory, dtype="float32").encode(TEXTS)
    np.testing.assert_array_equal(vectors, load_tiny("tiny-modernbert").encode(TEXTS))


def test_nomic_bert_as_transformers_5_writes_it(copy_of):
    directory = copy_of("tiny-nomic-bert")
    own = {"hidden_size": 48, "intermediate_size": 80, "hidden_act": "silu", "head_dim": 12}
    own |= {"num_attention_heads": 4, "num_hidden_layers": 2, "max_position_embeddings": 2048}
    own |= {"rope_parameters": {"rope_theta": 1000.0, "rope_type": "default"}, "vocab_size": 512}
    own |= {"model_type": "nomic_bert", "type_vocab_size": 2, "layer_norm_eps": 1e-12}
    (directory / "config.json").write_text(json.dumps(own))
    model = load(directory, dtype="float32")
    np.testing.assert_array_equal(model.encode(TEXTS), load_tiny("tiny-nomic-bert").encode(TEXTS))


def test_the_period_of_gemma_3(copy_of):
    """Where the types of layers are not listed; and with the prefix of a language model."""
    directory = copy_of("tiny-gemma3")
    edit_json(directory / "config.json", layer_types=None, sliding_window_pattern=3)
    file = str(directory / "model.safetensors")
    tensors = {f"model.{name}": tensor for name, tensor in mx.load(file).items()}
    mx.eval(tensors)
    mx.save_safetensors(file, tensors)
    vectors = load(directory, dtype="float32").encode(TEXTS)
    np.testing.assert_array_equal(vectors, load_tiny("tiny-gemma3").encode(TEXTS))


def test_an_instruction_of_qwen3_has_no_space_at_its_end():
    model = load_tiny("tiny-qwen3")
    prompt = "Instruct: Find it\nQuery:"
    expected = model.encode(TEXTS, prompt=prompt)
    np.testing.assert_array_equal(model.encode(TEXTS, instruction="Find it"), expected)
    assert model.checkpoint.prompts.named["query"].endswith("\nQuery:")


def test_a_causal_qwen2_is_refused(copy_of):
    directory = copy_of("tiny-stella-1.5b")
    edit_json(directory / "config.json", auto_map=None)
    with pytest.raises(ConfigError, match="causal Qwen2"):
        load(directory)
    edit_json(directory / "config.json", is_causal=False)
    vectors = load(directory, dtype="float32").encode(TEXTS)
    np.testing.assert_array_equal(vectors, load_tiny("tiny-stella-1.5b").encode(TEXTS))


def test_nv_embed_ignores_its_sliding_window(copy_of):
    directory = copy_of("tiny-nv-embed")
    config = json.loads((directory / "config.json").read_text())
    config["text_config"]["sliding_window"] = 2
    (directory / "config.json").write_text(json.dumps(config))
    vectors = load(directory, dtype="float32").encode(TEXTS)
    np.testing.assert_array_equal(vectors, load_tiny("tiny-nv-embed").encode(TEXTS))


def test_nv_embed_latent_sizes_have_the_defaults_of_the_reference():
    config = json.loads((CHECKPOINTS / "tiny-nv-embed/config.json").read_text())
    config["latent_attention_config"] = {"model_type": "latent_attention"}
    config["text_config"] |= {"hidden_size": 4096, "num_attention_heads": 32}
    args = nv_embed.ModelArgs.from_config(config, Path("config.json"))
    assert args.latent == nv_embed.LatentArgs(512, 8, 4096, 4096, 4096, True)


def test_nv_embed_keeps_the_instruction_out_of_the_pooling():
    """The prompt's tokens are seen by the others but not pooled: compare with a mean by hand."""
    model = load_tiny("tiny-nv-embed")
    prompt = "Instruct: Given a question, retrieve passages that answer the question\nQuery: "
    ids = model._tokenizer.encode(["a judo throw"], prompt, 512)[0].ids
    masked = model._tokenizer.prompt_length(prompt)
    hidden = np.array(model._backbone(mx.array([list(ids)])))[0, masked:].mean(axis=0)
    got = model.encode(["a judo throw"], prompt=prompt)
    assert distance(got, [hidden / np.linalg.norm(hidden)]) <= TOLERANCES["float32"]
