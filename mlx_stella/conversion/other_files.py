"""All of a checkpoint that is not the backbone's weights: configs, tokenizer, heads, prompts."""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_stella.checkpoint.checkpoint import Checkpoint
from mlx_stella.config import read_object
from mlx_stella.conversion.plan import Piece
from mlx_stella.models.formats import Format

_COPIED = ("*.json", "*.txt", "*.model", "*.py", "LICENSE*", "NOTICE*")
# Written anew, or true of the source only.
_NOT_COPIED = {"config.json", "model.safetensors.index.json", "conversion.json"}


def write(
    checkpoint: Checkpoint, folder: Path, dtype: str, default: Format | None, pieces: list[Piece]
) -> None:
    """Write everything but weights of the backbone, the card and the proof into a folder."""
    source, backbone = checkpoint.directory, checkpoint.backbone_directory
    target = folder / backbone.relative_to(source)
    target.mkdir(exist_ok=True)
    for place in {source, backbone}:
        for pattern in _COPIED:
            for file in place.glob(pattern):
                if file.is_file() and file.name not in _NOT_COPIED:
                    shutil.copyfile(file, folder / file.relative_to(source))
    for module in sorted(source.glob("[0-9]*_*")):
        if module.is_dir() and module != backbone:
            _copy_module(module, folder / module.name)
    _write_json(target / "config.json", _config(checkpoint, dtype, default, pieces))
    if not (folder / "modules.json").exists():
        _write_modules(checkpoint, folder)
    _write_prompts(checkpoint, folder / "config_sentence_transformers.json")


def _copy_module(module: Path, target: Path) -> None:
    """Pooling or a Dense head, byte by byte; a pickled head becomes safetensors."""
    target.mkdir()
    has_safetensors = any(module.glob("*.safetensors"))
    for file in module.iterdir():
        if file.is_file() and file.suffix in (".json", ".safetensors"):
            shutil.copyfile(file, target / file.name)
        elif file.name == "pytorch_model.bin" and not has_safetensors:
            from mlx_stella.checkpoint.tensors import find_tensors

            mx.save_safetensors(
                str(target / "model.safetensors"), find_tensors(module).load(), {"format": "mlx"}
            )


def _config(
    checkpoint: Checkpoint, dtype: str, default: Format | None, pieces: Iterable[Piece]
) -> dict[str, Any]:
    """config.json with the entries that mlx-lm writes."""
    config = read_object(checkpoint.backbone_directory / "config.json")
    config["torch_dtype"] = dtype
    if default is None:
        return config
    entry = default.config
    for piece in pieces:
        if piece.is_matrix and piece.format != default:
            entry[piece.path] = False if piece.format is None else piece.format.config
    return config | {"quantization": entry, "quantization_config": entry}


def _write_modules(checkpoint: Checkpoint, folder: Path) -> None:
    """modules.json and 1_Pooling, for a source that relies on their defaults."""
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [
        {
            "idx": number,
            "name": str(number),
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for number, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules, indent=2) + "\n")
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = {
        "word_embedding_dimension": checkpoint.args.hidden_size,
        "pooling_mode_cls_token": checkpoint.pooling == "cls",
        "pooling_mode_mean_tokens": checkpoint.pooling == "mean",
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
        "pooling_mode_lasttoken": checkpoint.pooling == "lasttoken",
        "include_prompt": not checkpoint.masks_prompt,
    }
    _write_json(folder / "1_Pooling" / "config.json", pooling)


def _write_prompts(checkpoint: Checkpoint, file: Path) -> None:
    """The prompts that this package adds to those of the repository become part of it."""
    settings = read_object(file) if file.exists() else {}
    named = dict(checkpoint.prompts.named)
    if settings.get("prompts", {}) != named:
        _write_json(file, {**settings, "prompts": named})


def _write_json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
