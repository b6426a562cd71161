"""One local directory, opened and typed: backbone, pooling, Dense heads, prompts, lengths.

A checkpoint is a sentence-transformers repository: modules.json lists Transformer, Pooling, Dense
and Normalize with a folder each. Opening reads JSON files and tensor headers only; weights are
loaded by :meth:`Checkpoint.load_backbone` and :meth:`Head.load`.
"""

import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_stella import formats
from mlx_stella.config import BackboneArgs, inside, is_positive, read_json, read_object
from mlx_stella.errors import ConfigError, StellaWarning, WeightsError
from mlx_stella.formats import Format
from mlx_stella.heads import ACTIVATIONS, POOLING_MODES, Activation, PoolingMode
from mlx_stella.models import Architecture, architecture
from mlx_stella.prompts import Prompts
from mlx_stella.quantized import stays_packed
from mlx_stella.tensors import TensorFiles, find_tensors
from mlx_stella.tokenization import Tokenizer
from mlx_stella.weights import DTYPES, Recipe, fill, fill_lazily, recipes

_USUAL_LENGTH = 512  # what most models of this kind take; NV-Embed's 32,768 are rarely used

# sentence-transformers' older spelling of pooling_mode
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Head:
    """A Dense head on disk.

    Attributes:
        dim: size of its vectors.
        directory: its folder, e.g. ``2_Dense_1024``.
        files: its tensors, ``linear.weight`` (dim, D) and maybe ``linear.bias`` (dim,).
        activation: what follows the product.
    """

    dim: int
    directory: Path
    files: TensorFiles
    activation: Activation

    def load(self) -> tuple[mx.array, mx.array | None]:
        """Weight (dim, D) and bias (dim,) or None, float32.

        Raises:
            WeightsError: a tensor holds a value that is not finite.
        """
        tensors = {name: array.astype(mx.float32) for name, array in self.files.load().items()}
        for name, tensor in tensors.items():
            if not mx.isfinite(tensor).all().item():
                raise WeightsError(
                    f"{self.directory}: {name} holds a value that is not finite; remedy: download "
                    "it again"
                )
        return tensors["linear.weight"], tensors.get("linear.bias")


@dataclass(frozen=True)
class Checkpoint:
    """A model as its directory describes it.

    Attributes:
        directory: where it lies; ``backbone_directory``: where its backbone and tokenizer lie.
        args: the backbone's settings; ``architecture`` is the code for them.
        files: the backbone's tensors.
        stated: how config.json says they are quantized.
        pooling: how tokens become one vector.
        masks_prompt: the prompt's tokens are attended to but not pooled.
        heads: Dense heads by size.
        default_dim: size of the vectors modules.json describes.
        normalizes: modules.json ends in Normalize.
        prompts: named prefixes.
        max_seq_length: tokens per text by default; ``max_positions``: at most.
        similarity: "cosine" or "dot".
    """

    directory: Path
    backbone_directory: Path
    args: BackboneArgs
    architecture: Architecture
    files: TensorFiles
    stated: formats.Stated
    tokenizer_config: Mapping[str, Any]
    lower_case: bool
    pooling: PoolingMode
    masks_prompt: bool
    heads: Mapping[int, Head]
    default_dim: int
    normalizes: bool
    prompts: Prompts
    max_seq_length: int
    max_positions: int
    similarity: str

    @property
    def dims(self) -> tuple[int, ...]:
        """The sizes a vector can have, ascending."""
        return tuple(sorted({*self.heads, self.default_dim}))

    @cached_property
    def recipes(self) -> list[Recipe]:
        """What each parameter of the backbone is made of; headers are read, weights are not.

        Raises:
            WeightsError: the tensors do not fit the config; all faults are named.
        """
        return self._recipes(self.architecture.model(self.args), self.files.load())

    def _recipes(self, model: nn.Module, arrays: Mapping[str, mx.array]) -> list[Recipe]:
        folds = self.architecture.folded(self.args)
        where = self.files.paths[0] if len(self.files.paths) == 1 else self.backbone_directory
        return recipes(model, arrays, self.architecture, folds, self.stated, where)

    @property
    def parameters(self) -> int:
        """Numbers in the backbone, as it is loaded."""
        return sum(math.prod(shape) for shape, _ in self._layout())

    @property
    def is_quantized(self) -> bool:
        return any(name.endswith(".scales") for name in self.files.tensors)

    def memory_bytes(self, dtype: str) -> int:
        """Bytes of the backbone's weights and the default head once loaded.

        Matrices take dtype, vectors and heads float32; quantized matrices are as they will be
        held on the default device.
        """
        size = 4 if dtype == "float32" else 2
        head = self.heads.get(self.default_dim)
        total = head.files.size_bytes if head else 0
        for shape, held in self._layout():
            if held is not None and stays_packed():
                total += held.size_bytes(shape, size)
            else:
                total += math.prod(shape) * (size if len(shape) >= 2 else 4)
        return total

    def _layout(self) -> list[tuple[tuple[int, ...], Format | None]]:
        """Shape and format of each parameter. Of a pickle, which has no header, by the config."""
        if self.files.tensors:
            return [(recipe.shape, recipe.format) for recipe in self.recipes]
        model = self.architecture.model(self.args)
        return [(array.shape, None) for _, array in tree_flatten(model.parameters())]

    @property
    def usual_length(self) -> int:
        """Tokens of the longest text that memory is set aside for; most are shorter."""
        return min(self.max_seq_length, _USUAL_LENGTH)

    def load_tokenizer(self) -> Tokenizer:
        return Tokenizer(
            self.backbone_directory / "tokenizer.json",
            self.tokenizer_config,
            eos_as_text=self.args.eos_as_text,
            lower_case=self.lower_case,
        )

    def load_backbone(self, dtype: str) -> nn.Module:
        """The backbone with its weights, matrices in ``dtype`` ("float16", ...), evaluated.

        Raises:
            WeightsError: the tensors do not fit the config, or are not finite; all are named.
        """
        model, arrays = self.architecture.model(self.args), self.files.load()
        where = self.files.paths[0] if len(self.files.paths) == 1 else self.backbone_directory
        fill(model, self._recipes(model, arrays), arrays, DTYPES[dtype], where, stays_packed())
        return model

    def lazy_backbone(self) -> nn.Module:
        """The backbone with weights that are read when first used, float32 and expanded."""
        model, arrays = self.architecture.model(self.args), self.files.load()
        fill_lazily(model, self._recipes(model, arrays), arrays)
        return model


def open_checkpoint(directory: Path, prompts: Mapping[str, str] | None = None) -> Checkpoint:
    """Read and check everything but the weights.

    Args:
        directory: a checkpoint as downloaded.
        prompts: named prompts to add where the repository has none of that name.

    Raises:
        ConfigError: a file is missing or malformed, or asks for what is not implemented.
        WeightsError: tensors are missing or corrupt.
    """
    modules = _read_modules(directory)
    backbone = modules.get("Transformer", directory)
    config_file = backbone / "config.json"
    config = read_object(config_file)
    code = architecture(config, config_file)
    own = {k: v for k, v in config.items() if k not in ("quantization", "quantization_config")}
    args = code.args.from_config(own, config_file)

    pooling, include_prompt = _read_pooling(directory, modules.get("Pooling"), args)
    heads, default_head = _read_heads(modules.get("Dense"), args.hidden_size)
    tokenizer_config = _read_optional(backbone / "tokenizer_config.json")
    text_config = _read_optional(backbone / "sentence_bert_config.json")
    settings_file = directory / "config_sentence_transformers.json"
    settings = _read_optional(settings_file)

    if tokenizer_config.get("truncation_side", "right") != "right":
        raise ConfigError(
            f"{backbone / 'tokenizer_config.json'}: truncation on the left is not implemented"
        )
    max_positions = args.max_position_embeddings
    max_seq_length = text_config.get("max_seq_length")
    if max_seq_length is None:
        model_max_length = tokenizer_config.get("model_max_length")
        max_seq_length = model_max_length if is_positive(model_max_length) else max_positions
    elif type(max_seq_length) is not int or max_seq_length < 1:
        raise ConfigError(
            f"{backbone / 'sentence_bert_config.json'}: max_seq_length = {max_seq_length!r} is no "
            "positive whole number; remedy: download it again"
        )
    return Checkpoint(
        directory=directory,
        backbone_directory=backbone,
        args=args,
        architecture=code,
        files=find_tensors(backbone),
        stated=formats.read(config, config_file),
        tokenizer_config=tokenizer_config,
        lower_case=text_config.get("do_lower_case") is True,
        pooling=pooling,
        masks_prompt=args.masks_prompt or not include_prompt,
        heads=heads,
        default_dim=args.hidden_size if default_head is None else default_head,
        normalizes="Normalize" in modules,
        prompts=_read_prompts(settings, settings_file, {**args.prompts, **(prompts or {})}),
        max_seq_length=int(min(max_seq_length, max_positions)),
        max_positions=max_positions,
        similarity=_read_similarity(settings, settings_file),
    )


def _read_modules(directory: Path) -> dict[str, Path]:
    """Kind of module -> its folder, from modules.json; empty if there is no such file."""
    file = directory / "modules.json"
    if not file.exists():
        return {}
    entries = read_json(file)
    if not isinstance(entries, list):
        raise ConfigError(f"{file}: holds no list of modules; download it again")
    modules: dict[str, Path] = {}
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
            raise ConfigError(f"{file}: a module has no type; download it again")
        kind = entry["type"].rsplit(".", 1)[-1]
        if kind not in ("Transformer", "Pooling", "Dense", "Normalize") or kind in modules:
            raise ConfigError(
                f"{file}: a module {entry['type']} at this place is not implemented "
                "(Transformer, Pooling, Dense, Normalize, each at most once)"
            )
        modules[kind] = inside(directory, str(entry.get("path", "")), file)
    order = [kind for kind in ("Transformer", "Pooling", "Dense", "Normalize") if kind in modules]
    if list(modules) != order or "Transformer" not in modules or "Pooling" not in modules:
        raise ConfigError(
            f"{file}: the modules {', '.join(modules)} are not implemented in this order "
            "(Transformer, Pooling, then maybe Dense, then maybe Normalize)"
        )
    return modules


def _read_pooling(
    directory: Path, folder: Path | None, args: BackboneArgs
) -> tuple[PoolingMode, bool]:
    """Pooling mode, and whether the prompt is pooled."""
    if folder is None:
        if args.default_pooling is None:
            raise ConfigError(
                f"{directory / 'modules.json'}: no such file, and without it the pooling of this "
                "architecture is unknown; remedy: download the repository again, whole"
            )
        return cast(PoolingMode, args.default_pooling), True
    file = folder / "config.json"
    data = read_object(file)
    if "pooling_mode" in data:
        stated = data["pooling_mode"]
        modes = stated if isinstance(stated, list) else [stated]
    else:
        modes = [mode for flag, mode in _POOLING_FLAGS.items() if data.get(flag)] or ["mean"]
    if len(modes) != 1 or modes[0] not in POOLING_MODES:
        raise ConfigError(
            f"{file}: pooling {' + '.join(map(str, modes))} is not implemented "
            f"(one of {', '.join(POOLING_MODES)})"
        )
    return cast(PoolingMode, modes[0]), data.get("include_prompt", True) is not False


def _read_heads(default: Path | None, hidden_size: int) -> tuple[dict[int, Head], int | None]:
    """All Dense heads beside the one modules.json names, by size, and that one's size.

    Two folders may hold the same size (``2_Dense`` and ``2_Dense_8192`` are equal in Stella);
    the named one wins. Folders without weights, as a partial download leaves them, are passed.
    """
    if default is None:
        return {}, None
    named = _read_head(default, hidden_size)
    heads = {named.dim: named}
    if match := re.fullmatch(r"(\d+_Dense)(_\d+)?", default.name):
        for folder in sorted(default.parent.glob(f"{match[1]}*"), reverse=True):
            is_head = re.fullmatch(rf"{match[1]}(_\d+)?", folder.name)
            has_weights = any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))
            if folder != default and is_head and has_weights:
                head = _read_head(folder, hidden_size)
                heads.setdefault(head.dim, head)
    return heads, named.dim


def _read_head(folder: Path, hidden_size: int) -> Head:
    file = folder / "config.json"
    data = read_object(file)
    activation = str(data.get("activation_function", "")).rsplit(".", 1)[-1]
    if activation not in ACTIVATIONS or data.get("use_residual"):
        raise ConfigError(
            f"{file}: activation {activation!r} or a residual is not implemented "
            f"(activations {', '.join(ACTIVATIONS)})"
        )
    files = find_tensors(folder)
    shapes = {name: tensor.shape for name, tensor in files.tensors.items()}
    if not shapes:  # a pickle, whose header cannot be read alone
        shapes = {name: array.shape for name, array in files.load().items()}
    shape = shapes.get("linear.weight", ())
    expected = {"linear.weight": (shape[0] if shape else 0, hidden_size)}
    if data.get("bias", True):
        expected["linear.bias"] = shape[:1]
    if shapes != expected or shape[0] < 1:
        raise WeightsError(
            f"{files.paths[0]}: holds {shapes}, which is no Dense head for vectors of "
            f"{hidden_size} with{'' if data.get('bias', True) else 'out'} bias; "
            "remedy: download it again"
        )
    stated = (data.get("out_features"), data.get("in_features"))
    if shape != stated:
        warnings.warn(
            f"{file}: says {stated[1]} -> {stated[0]}, the tensor is {shape[1]} -> {shape[0]}; "
            "the tensor is used",
            StellaWarning,
            stacklevel=2,
        )
    return Head(shape[0], folder, files, cast(Activation, activation))


def _read_prompts(settings: Mapping[str, Any], file: Path, builtin: Mapping[str, str]) -> Prompts:
    own = settings.get("prompts") or {}
    if not isinstance(own, dict) or not all(isinstance(text, str) for text in own.values()):
        raise ConfigError(f"{file}: prompts is not a table of strings; download it again")
    prompts = {**builtin, **own}
    default = settings.get("default_prompt_name")
    if default is not None and (not isinstance(default, str) or default not in prompts):
        raise ConfigError(f"{file}: default_prompt_name {default!r} is not among its prompts")
    return Prompts(prompts, default)


def _read_similarity(settings: Mapping[str, Any], file: Path) -> str:
    name = settings.get("similarity_fn_name") or "cosine"
    if name not in ("cosine", "dot"):
        raise ConfigError(f"{file}: similarity {name!r} is not implemented (cosine, dot)")
    return name


def _read_optional(path: Path) -> dict[str, Any]:
    return read_object(path) if path.exists() else {}
