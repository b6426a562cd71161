"""Time a Stella backbone beside the same one in torch with its fused attention, for GPUs.

    $ python scripts/random_checkpoint.py stella-400m FOLDER
    $ python scripts/bench_torch.py FOLDER --dtype float32 --lengths 64,512 --batch 4 --runs 5
    MLX on cpu, torch 2.13.0+cpu on cpu
    tokens a text  ours tokens/s  torch tokens/s  ours/torch  worst difference
               64            798             561        1.47           5.1e-07
              512            626             492        1.27           5.6e-07

For checkpoints of stella_en_400M_v5's and stella_en_1.5B_v5's layout, at full size with random
weights where the genuine ones are not at hand. Both take the same weights and the same texts, in
batches of one length, so that nothing is padded; torch gets token ids that lie on its device, we
the texts. Both end with unit vectors in NumPy, which are compared first (relative L2). They take
turns in one process, on the GPU if torch and MLX have one each, and the ratio is the median over
rounds. Needs torch beside mlx-stella.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import mlx_stella  # before MLX: it looks for a fast BLAS

import mlx.core as mx  # isort: skip
import numpy as np  # isort: skip
import torch
import torch.nn.functional as F

from mlx_stella.checkpoint.tensors import find_tensors
from mlx_stella.evaluation.speed import texts_of_length
from mlx_stella.models.layers import rope_tables

Weights = Mapping[str, torch.Tensor]


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def attend(qkv: torch.Tensor, heads: int, kv_heads: int, rope: tuple) -> torch.Tensor:
    """(B, L, (H + 2 KV) E) to (B, L, H E)."""
    head_dim = qkv.shape[-1] // (heads + 2 * kv_heads)
    split = qkv.unflatten(-1, (-1, head_dim)).transpose(1, 2)
    q, k, v = split.split([heads, kv_heads, kv_heads], dim=1)
    q, k = rotate(q, *rope), rotate(k, *rope)
    mixed = F.scaled_dot_product_attention(q, k, v, enable_gqa=heads != kv_heads)
    return mixed.transpose(1, 2).flatten(2)


def run_new(w: Weights, config: dict, ids: torch.Tensor, rope: tuple) -> torch.Tensor:
    """GTE, see mlx_stella/models/new.py."""
    heads = config["num_attention_heads"]

    def linear(x, name):
        return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-12)

    x = w["embeddings.word_embeddings.weight"][ids]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        mixed = attend(linear(x, f"{layer}.attention.qkv_proj"), heads, heads, rope)
        x = norm(x + linear(mixed, f"{layer}.attention.o_proj"), f"{layer}.attn_ln")
        up, gate = linear(x, f"{layer}.mlp.up_gate_proj").chunk(2, dim=-1)
        x = norm(x + linear(F.gelu(gate) * up, f"{layer}.mlp.down_proj"), f"{layer}.mlp_ln")
    return x


def run_qwen2(w: Weights, config: dict, ids: torch.Tensor, rope: tuple) -> torch.Tensor:
    """Bidirectional Qwen2, see mlx_stella/models/qwen2.py."""
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]

    def linear(x, name):
        return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))

    def norm(x, name):
        return F.rms_norm(x, x.shape[-1:], w[f"{name}.weight"], config["rms_norm_eps"])

    x = w["embed_tokens.weight"][ids]
    for number in range(config["num_hidden_layers"]):
        layer = f"layers.{number}"
        y = norm(x, f"{layer}.input_layernorm")
        qkv = torch.cat([linear(y, f"{layer}.self_attn.{name}_proj") for name in "qkv"], dim=-1)
        x = x + linear(attend(qkv, heads, kv_heads, rope), f"{layer}.self_attn.o_proj")
        y = norm(x, f"{layer}.post_attention_layernorm")
        y = F.silu(linear(y, f"{layer}.mlp.gate_proj")) * linear(y, f"{layer}.mlp.up_proj")
        x = x + linear(y, f"{layer}.mlp.down_proj")
    return norm(x, "norm")


BACKBONES = {"new": run_new, "qwen2": run_qwen2}


def to_torch(folder: Path, dtype: torch.dtype, device: str) -> dict[str, torch.Tensor]:
    """Tensors by their names, without the prefix of the model's class."""
    arrays = find_tensors(folder).load()
    return {
        name.removeprefix("new.").removeprefix("model."): torch.from_numpy(
            np.array(array.astype(mx.float32))
        ).to(device, dtype)
        for name, array in arrays.items()
    }


def load_torch(model: mlx_stella.Encoder, dtype: str, device: str) -> Callable:
    """A function from token ids (B, L) on the device to unit vectors (B, dim) float32."""
    directory = model.checkpoint.directory
    config = json.loads((directory / "config.json").read_text())
    backbone = BACKBONES[config["model_type"]]
    weights = to_torch(directory, getattr(torch, dtype), device)
    head = to_torch(directory / f"2_Dense_{model.default_dim}", torch.float32, device)
    head_dim = config["hidden_size"] // config["num_attention_heads"]

    @torch.inference_mode()
    def encode(ids: torch.Tensor) -> np.ndarray:
        tables = rope_tables(model.checkpoint.args.rope, ids.shape[1], head_dim)
        rope = tuple(
            torch.from_numpy(np.array(table[:, 0])).to(device, getattr(torch, dtype))
            for table in tables
        )
        pooled = backbone(weights, config, ids, rope).float().mean(dim=1)
        vectors = F.linear(pooled, head["linear.weight"], head.get("linear.bias"))
        return F.normalize(vectors).cpu().numpy()

    return encode


def compare(
    model: mlx_stella.Encoder,
    torch_encode: Callable,
    device: str,
    length: int,
    batch: int,
    runs: int,
) -> str:
    """One line of the table."""
    texts = texts_of_length(model, length, batch)
    tokens = model.tokenizer.encode(texts, "", length)
    ids = torch.tensor([text.ids for text in tokens], device=device)
    options = {"max_length": length, "max_batch_tokens": batch * length}

    def seconds(function: Callable[[], object]) -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    engines = (lambda: model.encode(texts, **options), lambda: torch_encode(ids))
    ours, theirs = (engine() for engine in engines)
    worst = (np.linalg.norm(ours - theirs, axis=1) / np.linalg.norm(theirs, axis=1)).max()
    rounds = [[seconds(engine) for engine in engines] for _ in range(runs)]
    speeds = [ids.numel() / median(column) for column in zip(*rounds, strict=True)]
    ratio = median(its / our for our, its in rounds)
    return f"{length:13} {speeds[0]:14,.0f} {speeds[1]:15,.0f} {ratio:11.2f} {worst:17.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--dtype", default="float16", choices=["float16", "bfloat16", "float32"])
    parser.add_argument("--lengths", default="64,256,512", help="tokens a text")
    parser.add_argument("--batch", type=int, default=32, help="texts")
    parser.add_argument("--runs", type=int, default=10)
    arguments = parser.parse_args()

    warnings.simplefilter("ignore", mlx_stella.StellaWarning)  # that texts are cut to size
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = mlx_stella.load(arguments.checkpoint, dtype=arguments.dtype)
    torch_encode = load_torch(model, arguments.dtype, device)
    print(f"MLX on {mx.default_device().type.name}, torch {torch.__version__} on {device}")
    print("tokens a text  ours tokens/s  torch tokens/s  ours/torch  worst difference")
    for length in map(int, arguments.lengths.split(",")):
        numbers = (length, arguments.batch, arguments.runs)
        print(compare(model, torch_encode, device, *numbers), flush=True)


if __name__ == "__main__":
    main()
