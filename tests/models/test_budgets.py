"""What one layer of each family asks of a GPU: kernels, and bytes a token beside the products.

Counted on the graph at the sizes of the published models, see mlx_stella/evaluation/kernels.py.
Where one is exceeded, the list of kernels in the failure names what came in.
"""

from functools import cache

import mlx.core as mx
import pytest
from mlx.utils import tree_map_with_path, tree_unflatten
from support import graphs, load_tiny

from mlx_stella.evaluation import kernels, speed
from mlx_stella.models import bert, decoder, gemma3, modernbert, mpnet, new, qwen2, qwen3
from mlx_stella.models.args import RopeArgs
from mlx_stella.models.formats import Format
from mlx_stella.models.layers import Backbone
from mlx_stella.models.products import Fused, Linear
from mlx_stella.models.quantized import Packed, QuantizedLinear

LONG, SHORT = 512, 8  # tokens
COMMON = {"num_hidden_layers": 1, "vocab_size": 8, "max_position_embeddings": 512}
ROTARY = {"rope": RopeArgs(1e4)}
ENCODER = COMMON | {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
}
DECODER = COMMON | ROTARY | {"rms_norm_eps": 1e-6, "hidden_act": "silu"}
STELLA_1_5B = DECODER | {
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "head_dim": 128,
}
MISTRAL = DECODER | {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
QWEN3_0_6B = DECODER | {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
MPNET = COMMON | {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "hidden_act": "gelu",
}
MODERNBERT = COMMON | {
    "hidden_size": 768,
    "intermediate_size": 1152,
    "num_attention_heads": 12,
    "hidden_activation": "gelu",
    "local_attention": 128,
    "layer_types": ["sliding_attention"],
    "rope": RopeArgs(160000),
    "local_rope": RopeArgs(1e4),
}
EMBEDDINGGEMMA = COMMON | {
    "hidden_size": 768,
    "intermediate_size": 1152,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "sliding_window": 512,
    "use_bidirectional_attention": True,
    "rope": RopeArgs(1e6),
    "local_rope": RopeArgs(1e4),
}
MODELS = {
    "bert-large": lambda: bert.Model(bert.ModelArgs(**ENCODER)),
    "stella-400m": lambda: new.Model(new.ModelArgs(**ENCODER, **ROTARY)),
    "stella-1.5b": lambda: qwen2.Model(qwen2.ModelArgs(**STELLA_1_5B)),
    "nv-embed": lambda: decoder.Decoder(decoder.DecoderArgs(**MISTRAL), qkv_bias=False),
    "qwen3-0.6b": lambda: qwen3.Model(qwen3.ModelArgs(**QWEN3_0_6B)),
    "mpnet": lambda: mpnet.Model(mpnet.ModelArgs(**MPNET)),
    "modernbert": lambda: modernbert.Model(modernbert.ModelArgs(**MODERNBERT)),
    "embeddinggemma": lambda: gemma3.Model(gemma3.ModelArgs(**EMBEDDINGGEMMA)),
}
WIDTHS = {
    "bert-large": 1024,
    "stella-400m": 1024,
    "stella-1.5b": 1536,
    "nv-embed": 4096,
    "qwen3-0.6b": 1024,
    "mpnet": 768,
    "modernbert": 768,
    "embeddinggemma": 768,
}

# Kernels, and KB (1000 bytes) a token with 512 tokens. Scales by row make float16 differ from
# bfloat16; float32 writes no half types and needs no casts.
BUDGETS = {
    ("bert-large", "float16"): (14, 91),
    ("bert-large", "bfloat16"): (14, 91),
    ("bert-large", "float32"): (10, 74),
    ("bert-large", "4 bits"): (14, 91),
    ("stella-400m", "float16"): (18, 158),
    ("stella-400m", "bfloat16"): (15, 104),
    ("stella-400m", "float32"): (11, 116),
    ("stella-400m", "4 bits"): (18, 158),
    ("stella-1.5b", "float16"): (18, 262),
    ("stella-1.5b", "bfloat16"): (15, 154),
    ("stella-1.5b", "float32"): (11, 192),
    ("stella-1.5b", "4 bits"): (18, 262),
    ("nv-embed", "float16"): (18, 528),
    ("nv-embed", "bfloat16"): (15, 356),
    ("nv-embed", "float32"): (11, 399),
    ("nv-embed", "4 bits"): (18, 528),
    ("qwen3-0.6b", "float16"): (23, 205),
    ("qwen3-0.6b", "bfloat16"): (20, 168),
    ("qwen3-0.6b", "float32"): (14, 142),
    ("qwen3-0.6b", "4 bits"): (23, 205),
    ("mpnet", "float16"): (15, 97),
    ("mpnet", "bfloat16"): (15, 97),
    ("mpnet", "float32"): (11, 84),
    ("mpnet", "4 bits"): (15, 97),
    ("modernbert", "float16"): (17, 74),
    ("modernbert", "bfloat16"): (14, 60),
    ("modernbert", "float32"): (10, 58),
    ("modernbert", "4 bits"): (17, 74),
    ("embeddinggemma", "float16"): (28, 131),
    ("embeddinggemma", "bfloat16"): (25, 115),
    ("embeddinggemma", "float32"): (17, 91),
    ("embeddinggemma", "4 bits"): (28, 131),
}


def quantized(layer: Linear) -> QuantizedLinear:
    """4-bit codes that are all 0, so that every number is the bias of its group."""
    rows, width = layer.weight.shape
    codes = mx.broadcast_to(mx.array(0, mx.uint32), (rows, width // 8))
    groups = mx.broadcast_to(mx.array(0.01, mx.float16), (rows, width // 64))
    packed = Packed(codes, groups, groups, Format(4, 64, "affine"))
    return QuantizedLinear(packed, layer.get("bias"), mx.float16)


@cache
def layer_of(name: str, kind: str) -> Backbone:
    """A model of one layer whose weights take no memory: one number each, broadcast."""
    model = MODELS[name]()
    dtype = mx.float16 if kind == "4 bits" else getattr(mx, kind)

    def weight(path: str, array: mx.array) -> mx.array:
        is_matrix = array.ndim > 1
        return mx.broadcast_to(mx.array(0.01, dtype if is_matrix else mx.float32), array.shape)

    model.update(tree_map_with_path(weight, model.parameters()))
    mx.eval(model.parameters())
    if kind == "4 bits":
        packed = [
            (path, quantized(m)) for path, m in model.named_modules() if isinstance(m, Linear)
        ]
        model.update_modules(tree_unflatten(packed))
    if dtype == mx.float16:
        model.prove_range()
    return model


@pytest.fixture(autouse=True)
def form_of_a_gpu(monkeypatch):
    graphs.use_compiled_forms(monkeypatch)
    graphs.use_one_primitive_for_fast(monkeypatch)


@pytest.mark.parametrize("name, kind", BUDGETS, ids=lambda part: part.replace(" ", "-"))
def test_a_layer_stays_within_its_budget(name, kind):
    most, most_kb = BUDGETS[name, kind]
    found = kernels.of_layer(layer_of(name, kind), WIDTHS[name], LONG)
    listed = "\n".join(f"{k.bytes / LONG / 1000:8.1f} KB  {k.name}" for k in found)
    assert len(found) <= most, listed
    assert sum(k.bytes for k in found) / LONG / 1000 <= most_kb, listed


@pytest.mark.parametrize("name, kind", BUDGETS)
def test_a_short_text_takes_no_more_kernels(name, kind):
    found = kernels.of_layer(layer_of(name, kind), WIDTHS[name], SHORT)
    assert len(found) <= BUDGETS[name, kind][0], [k.name for k in found]


@pytest.mark.parametrize("name, kind", BUDGETS)
def test_each_fused_group_is_one_kernel(name, kind):
    """The count takes each group for one; MLX cuts chains of more than eleven operations."""
    layer, width = layer_of(name, kind), WIDTHS[name]
    counted = [k.name for k in kernels.of_layer(layer, width, SHORT)]
    x = mx.zeros((1, SHORT, width))
    for step, _ in zip(layer.steps(SHORT, None), range(2), strict=False):
        x = step(x)
    run = graphs.primitives(x)
    assert len(run) == len(counted), (run, counted)


def test_one_fused_group_too_long_is_noticed():
    """The measure itself: a chain of twelve operations becomes more than one kernel."""

    @Fused
    def long(x, y):
        for _ in range(6):
            x = mx.sqrt(x + y)
        return x

    assert len(graphs.primitives(long(mx.ones(3), mx.ones(3)))) > 1
    assert len(kernels.of_graph(lambda x: long(x, x), mx.ones(3))) == 1


def test_bench_tells_kernels_and_bytes():
    cost = speed.layer_cost(load_tiny("tiny-stella-zh-v2", "float16"), 64)
    assert cost["kernels"] == 14
    D, N = 48, 96
    # casts, the bias of qkv, twice the residual and LayerNorm, GELU
    moved = 3 * 6 * D + 18 * D + 2 * (10 + 8) * D + 4 * N
    assert cost["bytes_per_token"] == pytest.approx(moved, rel=0.05)
