"""All of a checkpoint that is not the backbone's weights: configs, tokenizer, heads, prompts."""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_stella.checkpoint.checkpoint import Checkpoint
from mlx_stella.checkpoint.origin import revision_of
from mlx_stella.checkpoint.tensors import find_tensors
from mlx_stella.config import read_object
from mlx_stella.conversion.plan import Piece
from mlx_stella.errors import CheckpointError
from mlx_stella.models.formats import Format

# Whatever else lies there may be the user's own, and the result is made to be uploaded.
_COPIED = (
    *("modules.json", "sentence_*_config.json", "config_sentence_transformers.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("tokenizer.model", "spiece.model", "sentencepiece*.model"),
    *("vocab.json", "vocab.txt", "merges.txt", "generation_config.json"),
    *("configuration*.py", "modeling*.py", "tokenization*.py", "LICENSE*", "NOTICE*"),
)
_COPIED_OF_MODULES = ("config.json", "model*.safetensors", "model.safetensors.index.json")


def copied(checkpoint: Checkpoint) -> list[Path]:
    """Files of the source that are taken over: all byte by byte, but a pickled head."""
    source, backbone = checkpoint.directory, checkpoint.backbone_directory
    files = [file for place in {source, backbone} for file in _matching(place, _COPIED)]
    for module in sorted(source.glob("[0-9]*_*")):  # pooling and Dense heads
        if module.is_dir() and module != backbone:
            files += _matching(module, _COPIED_OF_MODULES)
            if not any(module.glob("*.safetensors")):
                files += _matching(module, ("pytorch_model.bin",))
    return files


def _matching(place: Path, patterns: Sequence[str]) -> list[Path]:
    return [file for pattern in patterns for file in place.glob(pattern) if file.is_file()]


def write(
    checkpoint: Checkpoint, folder: Path, dtype: str, default: Format | None, pieces: list[Piece]
) -> None:
    """Write everything but weights of the backbone, the card and the proof into a folder.

    Raises:
        CheckpointError: a file is a link that leaves the checkpoint.
    """
    source = checkpoint.directory
    for file in copied(checkpoint):
        _refuse_to_leave(file, source)
        place = folder / file.parent.relative_to(source)
        place.mkdir(exist_ok=True)
        if file.suffix == ".bin":
            tensors = dict(find_tensors(file.parent).load())
            mx.save_safetensors(str(place / "model.safetensors"), tensors, {"format": "mlx"})
        else:
            shutil.copyfile(file, place / file.name)
    target = folder / checkpoint.backbone_directory.relative_to(source)
    target.mkdir(exist_ok=True)
    _write_json(target / "config.json", _config(checkpoint, dtype, default, pieces))
    if not (folder / "modules.json").exists():
        _write_modules(checkpoint, folder)
    _write_prompts(checkpoint, folder / "config_sentence_transformers.json")


def _refuse_to_leave(file: Path, source: Path) -> None:
    """Raises CheckpointError for a link to a file elsewhere, but in the Hub's cache to its own."""
    homes = [source.resolve()]
    if revision_of(source):
        homes.append(source.resolve().parent.parent / "blobs")
    if not any(file.resolve().is_relative_to(home) for home in homes):
        raise CheckpointError(
            "links to a file outside of the checkpoint, which is not copied",
            where=file,
            remedy="put the file itself there",
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
        if piece.format is not None and piece.format != default:
            entry[piece.path] = piece.format.config
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
