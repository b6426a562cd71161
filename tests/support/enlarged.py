"""The tiny checkpoints with rows that groups of 128 divide, random weights in the same layouts.

The originals have rows of 48, 56, 64, 96, 100, 112 and 120, which most formats cannot cut.
"""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np

from support import CHECKPOINTS

# Size in the original -> in the copy; a name in the second table goes first.
SIZES = {
    "tiny-stella-1.5b": {48: 128, 112: 256, 16: 32},
    "tiny-gte-qwen2": {56: 128, 100: 256, 8: 16},
    "tiny-stella-400m": {64: 128, 96: 256, 192: 384},
    "tiny-gte-en-v1.5": {64: 128, 96: 256, 192: 384},
    "tiny-nv-embed": {48: 128, 120: 256, 16: 32, 96: 256, 192: 512, 384: 1024, 10: 64},
    "tiny-stella-zh-v2": {48: 128, 96: 256},
    "tiny-xlm-roberta": {48: 128, 96: 256},
    "tiny-mpnet": {48: 128, 96: 256},
    "tiny-qwen3": {48: 128, 80: 256},
    "tiny-modernbert": {48: 128, 144: 384, 80: 256, 160: 512},
    "tiny-gemma3": {48: 128, 80: 256},
    "tiny-nomic-bert": {48: 128, 144: 384, 80: 256},
    "tiny-mistral": {48: 128, 24: 64, 80: 256},
    "tiny-llama": {48: 128, 80: 256},
}
HEADS = {"tiny-stella-1.5b": 8, "tiny-gte-qwen2": 8, "tiny-nv-embed": 8}
SIZE_KEYS = (
    "hidden_size",
    "intermediate_size",
    "hidden_dim",
    "latent_dim",
    "cross_dim_head",
    "n_embd",
    "n_inner",
)


def enlarged(name: str, folder: Path) -> Path:
    """Write the enlarged copy of a tiny checkpoint into a folder; returns its directory."""
    target = folder / name
    shutil.copytree(CHECKPOINTS / name, target, ignore=shutil.ignore_patterns("*.npz", "cases*"))
    sizes = SIZES[name]
    rng = np.random.default_rng(0)
    for file in sorted(target.rglob("*.safetensors")):
        tensors = {}
        for key, old in sorted(mx.load(str(file)).items()):
            shape = [sizes.get(size, size) for size in old.shape]
            if "up_gate_proj" in key:
                shape[0] = 2 * sizes[96]
            if file.parent != target:
                shape[0] = old.shape[0]  # a head keeps its outputs
            tensors[key] = old
            if "position_ids" not in key:
                noise = rng.standard_normal(shape) * (0.3 if len(shape) == 1 else 0.1)
                noise = noise + (1.0 if is_norm(key) else 0.0)
                tensors[key] = mx.array(noise, mx.float32).astype(old.dtype)
        mx.eval(tensors)
        mx.save_safetensors(str(file), tensors)
    config = json.loads((target / "config.json").read_text())
    for part in (config, config.get("text_config", {}), config.get("latent_attention_config", {})):
        part.update({key: sizes[part[key]] for key in SIZE_KEYS if part.get(key) in sizes})
        if "num_attention_heads" in part:
            part["num_attention_heads"] = HEADS.get(name, part["num_attention_heads"])
        if "num_latents_value" in part:
            part["num_latents_value"] = sizes[10]
    (target / "config.json").write_text(json.dumps(config))
    for file in target.glob("2_Dense*/config.json"):
        head = json.loads(file.read_text())
        file.write_text(json.dumps(head | {"in_features": sizes[head["in_features"]]}))
    return target


def is_norm(key: str) -> bool:
    return key.endswith("weight") and ("norm" in key.lower() or "_ln" in key)
