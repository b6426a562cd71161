"""float16 with hidden states of 1e5 to 1e6 in one channel: finite, and as right as ever.

Trained decoders do this for a few tokens: one unit of a gated MLP fires with a product beyond
65504 and writes into one channel of the residual. Here a tiny checkpoint is made to do the same.
Its first layer gets a unit that only the EOS token excites, by a channel of the embedding that is
zero for all other tokens; the other tokens, and what they see of EOS, keep the vector honest.
"""

import json
from itertools import islice

import mlx.core as mx
import numpy as np
import pytest
from support import DTYPES, TOLERANCES, distance

from mlx_stella import VectorError, load
from mlx_stella.models import products

pytestmark = pytest.mark.usefixtures("form")

TEXTS = ["What is Deep Learning?", "a", "green tea has been consumed for centuries " * 5]
TRIGGER, SINK, UNIT = 5, 17, 3  # channel of EOS, channel that overflows, unit between them


def with_massive_activation(directory, prefix: str, eos: int, weight: float = 3):
    """Rewrite a Qwen2 or Mistral checkpoint: its EOS token gets a residual of 4e5 to 1.2e6."""
    tensors, files = {}, sorted(directory.glob("model*.safetensors"))
    for file in files:
        tensors |= {k: np.array(v.astype(mx.float32)) for k, v in mx.load(str(file)).items()}
    embeddings = tensors[f"{prefix}embed_tokens.weight"]
    embeddings[:, TRIGGER] = 0
    embeddings[eos, TRIGGER] = 4 * np.abs(embeddings[eos]).max()
    layer = f"{prefix}layers.0."
    tensors[layer + "self_attn.o_proj.weight"][TRIGGER] = 0  # attention does not spread it
    excited = embeddings[eos] / np.sqrt((embeddings[eos] ** 2).mean())
    excited = excited * tensors[layer + "post_attention_layernorm.weight"]
    for part in ("gate_proj", "up_proj"):
        tensors[layer + f"mlp.{part}.weight"][UNIT] = 0
        tensors[layer + f"mlp.{part}.weight"][UNIT, TRIGGER] = 520 / excited[TRIGGER]
    down = tensors[layer + "mlp.down_proj.weight"]
    down[:, UNIT] = 0
    down[SINK, UNIT] = weight
    for file in files:
        file.unlink()
    index = directory / "model.safetensors.index.json"
    index.unlink(missing_ok=True)
    arrays = {name: mx.array(array) for name, array in tensors.items()}
    mx.save_safetensors(str(directory / "model.safetensors"), arrays)
    return directory


@pytest.fixture(params=["tiny-stella-1.5b", "tiny-nv-embed"])
def massive(request, copy_of):
    prefix, eos = {"tiny-stella-1.5b": ("model.", 700), "tiny-nv-embed": ("embedding_model.", 2)}[
        request.param
    ]
    return with_massive_activation(copy_of(request.param), prefix, eos)


def residual_peak(model) -> float:
    """The largest entry of the residual stream after the first layer."""
    decoder = getattr(model._backbone, "embedding_model", model._backbone)
    ids = mx.array([list(model._tokenizer.encode(TEXTS[:1], "", 512)[0].ids)])
    x = decoder.embed_tokens(ids)
    for step in islice(decoder.steps(ids.shape[1], None), 2):  # attention and MLP
        x = step(x)
    return mx.abs(x).max().item()


def test_half_types_stay_within_tolerance(massive):
    reference_model = load(massive, dtype="float32")
    assert 4e5 <= residual_peak(reference_model) <= 1.2e6
    reference = reference_model.encode(TEXTS)
    for dtype in ("float16", "bfloat16"):
        vectors = load(massive, dtype=dtype).encode(TEXTS)
        assert distance(vectors, reference) <= TOLERANCES[dtype], dtype


def in_float64(directory, ids: list[int]) -> np.ndarray:
    """A Qwen2 checkpoint's vector of 1024 as NumPy computes it in float64, textbook form."""
    config = json.loads((directory / "config.json").read_text())
    w = {
        name.removeprefix("model."): np.array(array.astype(mx.float32), np.float64)
        for name, array in mx.load(str(directory / "model.safetensors")).items()
    }
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    size = config["hidden_size"] // heads
    angles = np.outer(np.arange(len(ids)), config["rope_theta"] ** (-np.arange(0, size, 2) / size))
    cos, sin = (np.tile(f(angles), 2) for f in (np.cos, np.sin))

    def norm(x, name):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config["rms_norm_eps"]) * w[name]

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)

    def split(x, count):  # (L, count * size) -> (heads, L, size)
        return np.repeat(x.reshape(len(ids), count, size).swapaxes(0, 1), heads // count, axis=0)

    def rotate(x):
        first, second = np.split(x, 2, axis=-1)
        return x * cos + np.concatenate([-second, first], axis=-1) * sin

    x = w["embed_tokens.weight"][ids]
    for number in range(config["num_hidden_layers"]):
        layer = f"layers.{number}."
        y = norm(x, layer + "input_layernorm.weight")
        q, k, v = (linear(y, f"{layer}self_attn.{name}_proj") for name in "qkv")
        scores = rotate(split(q, heads)) @ rotate(split(k, groups)).swapaxes(1, 2) / np.sqrt(size)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = weights / weights.sum(-1, keepdims=True) @ split(v, groups)
        x = x + linear(mixed.swapaxes(0, 1).reshape(len(ids), -1), layer + "self_attn.o_proj")
        y = norm(x, layer + "post_attention_layernorm.weight")
        gate, up = linear(y, layer + "mlp.gate_proj"), linear(y, layer + "mlp.up_proj")
        x = x + linear(gate / (1 + np.exp(-gate)) * up, layer + "mlp.down_proj")
    pooled = norm(x, "norm.weight").mean(axis=0)
    head = mx.load(str(directory / "2_Dense_1024/model.safetensors"))
    vector = np.array(head["linear.weight"], np.float64) @ pooled + np.array(head["linear.bias"])
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_residual_of_8e5_against_float64(copy_of, dtype):
    directory = with_massive_activation(copy_of("tiny-stella-1.5b"), "model.", 700, 4.08)
    model = load(directory, dtype=dtype)
    assert residual_peak(model) == pytest.approx(8e5, rel=0.02)
    tokens = model._tokenizer.encode(TEXTS, "", 512)
    with np.errstate(over="ignore"):
        expected = np.stack([in_float64(directory, list(text.ids)) for text in tokens])
    assert distance(model.encode(TEXTS, dim=1024), expected) <= TOLERANCES[dtype]


def test_without_the_scaling_float16_loses_the_row(massive, monkeypatch):
    monkeypatch.setattr(products, "row_scale", lambda squares, factor: mx.array(1.0))
    with pytest.raises(VectorError, match="remedy: use the dtype float32"):
        load(massive, dtype="float16").encode(TEXTS)


def rewritten(directory, change):
    """Multiply or shift tensors of a checkpoint: change(name, tensor) -> tensor."""
    file = str(directory / "model.safetensors")
    tensors = {name: change(name, tensor) for name, tensor in mx.load(file).items()}
    mx.eval(tensors)
    mx.save_safetensors(file, tensors)
    return directory


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_matrix_that_float16_would_lose(copy_of, dtype):
    """up divided by 1e6 and down multiplied by it are the same model, with tiny values in it."""
    factors = {"layers.1.mlp.up_proj": 1e-6, "layers.1.mlp.down_proj": 1e6}

    def change(name, tensor):
        return tensor * next((f for part, f in factors.items() if part in name), 1.0)

    directory = rewritten(copy_of("tiny-stella-1.5b"), change)
    reference = load(directory, dtype="float32").encode(TEXTS)
    assert distance(load(directory, dtype=dtype).encode(TEXTS), reference) <= TOLERANCES[dtype]


@pytest.mark.parametrize("factor, is_proved", [(1e4, True), (1e5, False)])
@pytest.mark.parametrize(
    "name, norm, behind",
    [
        ("tiny-stella-400m", "layer.0.attn_ln", "mlp.up_gate_proj"),
        ("tiny-stella-zh-v2", "layer.0.attention.output.LayerNorm", "intermediate.dense"),
        ("tiny-gemma3", "layers.0.pre_feedforward_layernorm", "mlp.up_gate_proj"),
    ],
)
def test_products_behind_a_norm_of_large_weights(copy_of, name, norm, behind, factor, is_proved):
    """One scale for all, or where that cannot be proved one for each row; the next norm takes the
    factor away."""
    directory = rewritten(
        copy_of(name), lambda key, t: t.astype(mx.float32) * factor if norm in key else t
    )
    model = load(directory, dtype="float16")
    scales = [m._scale for path, m in model._backbone.named_modules() if f"0.{behind}" in path]
    assert 1 < scales[0] <= 16 if is_proved else scales == [None]
    reference = load(directory, dtype="float32").encode(TEXTS)
    assert distance(model.encode(TEXTS), reference) <= TOLERANCES["float16"]


@pytest.mark.parametrize("part", ["post_feedforward_layernorm", "post_attention_layernorm"])
def test_gemma_with_a_residual_of_1e6(copy_of, part):
    """Its norms behind a branch make it so; in float16 its authors' own code is not finite."""

    def change(key, t):
        is_one = key == f"layers.0.{part}.weight"
        return mx.where(mx.arange(48) == 7, 1e6, t) if is_one else t

    directory = rewritten(copy_of("tiny-gemma3"), change)
    reference = load(directory, dtype="float32")
    assert residual_peak(reference) > 5e5
    vectors = load(directory, dtype="float16").encode(TEXTS)
    assert distance(vectors, reference.encode(TEXTS)) <= TOLERANCES["float16"]


@pytest.mark.parametrize("bias, is_close", [(20, True), (300, False)])
def test_large_scores_of_attention(copy_of, bias, is_close):
    """With biases of 300 in q and k, scores reach 2e5. They stay finite; that they agree cannot be
    asked for, since a rounding of 5e-4 in q then moves a score by more than 0.1."""

    def change(name, tensor):
        return tensor + bias if "q_proj.bias" in name or "k_proj.bias" in name else tensor

    directory = rewritten(copy_of("tiny-stella-1.5b"), change)
    vectors = load(directory, dtype="float16").encode(TEXTS)  # VectorError if not finite
    if is_close:
        reference = load(directory, dtype="float32").encode(TEXTS)
        assert distance(vectors, reference) <= TOLERANCES["float16"]


def test_a_weight_beyond_float16_stays_float32(copy_of):
    directory = copy_of("tiny-stella-1.5b")
    file = str(directory / "model.safetensors")
    tensors = mx.load(file)
    name = "model.layers.1.mlp.down_proj.weight"
    tensors[name] = tensors[name] * mx.array([[1.0] * 111 + [1e6]])
    mx.save_safetensors(file, dict(tensors))
    model = load(directory, dtype="float16")
    assert model._backbone.layers[1].mlp.down_proj.weight.dtype == mx.float32
    assert model._backbone.layers[0].mlp.down_proj.weight.dtype == mx.float16
    reference = load(directory, dtype="float32").encode(TEXTS)
    assert distance(model.encode(TEXTS), reference) <= TOLERANCES["float16"]
