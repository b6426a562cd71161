"""What the modules of a sentence-transformers repository say: pooling, Dense heads, prompts."""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx

from mlx_stella.checkpoint.prompts import Prompts
from mlx_stella.checkpoint.tensors import TensorFiles, find_tensors
from mlx_stella.config import inside, read_json, read_object
from mlx_stella.errors import ConfigError, StellaWarning, WeightsError
from mlx_stella.models.args import BackboneArgs
from mlx_stella.models.heads import ACTIVATIONS, POOLING_MODES, Activation, PoolingMode

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
class Modules:
    """The modules of a repository, by their folders; ``normalizes`` if the last is Normalize."""

    transformer: Path
    pooling: Path | None = None
    dense: tuple[Path, ...] = ()
    normalizes: bool = False


@dataclass(frozen=True)
class Dense:
    """A Dense module on disk.

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

    def load(self) -> tuple[mx.array, mx.array | None, Activation]:
        """Weight (dim, D) and bias (dim,) or None, float32, and the activation.

        Raises:
            WeightsError: a tensor holds a value that is not finite.
        """
        tensors = {name: array.astype(mx.float32) for name, array in self.files.load().items()}
        for name, tensor in tensors.items():
            if not mx.isfinite(tensor).all().item():
                raise WeightsError(
                    f"{name} holds a value that is not finite",
                    where=self.directory,
                    remedy="download it again",
                )
        return tensors["linear.weight"], tensors.get("linear.bias"), self.activation


@dataclass(frozen=True)
class Head:
    """What makes a vector of a size of its own: one Dense module, or several in a row."""

    modules: tuple[Dense, ...]

    @property
    def dim(self) -> int:
        return self.modules[-1].dim

    @property
    def size_bytes(self) -> int:
        return sum(module.files.size_bytes for module in self.modules)

    def load(self) -> list[tuple[mx.array, mx.array | None, Activation]]:
        """What :func:`mlx_stella.models.heads.dense` takes, in order; errors are those of Dense."""
        return [module.load() for module in self.modules]


def read_modules(directory: Path) -> Modules:
    """What modules.json lists; a Transformer in the directory itself if there is no such file.

    Raises:
        ConfigError: a module is unknown, or they stand in an order that is not implemented.
    """
    file = directory / "modules.json"
    if not file.exists():
        return Modules(directory)
    entries = read_json(file)
    if not isinstance(entries, list):
        raise ConfigError("holds no list of modules", where=file, remedy="download it again")
    found: list[tuple[str, Path]] = []
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
            raise ConfigError("a module has no type", where=file, remedy="download it again")
        kind = entry["type"].rsplit(".", 1)[-1]
        if kind not in ("Transformer", "Pooling", "Dense", "Normalize"):
            raise ConfigError(
                f"a module {entry['type']} is not implemented (Transformer, Pooling, Dense, "
                "Normalize)",
                where=file,
            )
        found.append((kind, inside(directory, str(entry.get("path", "")), file)))
    kinds = " ".join(kind for kind, _ in found)
    if not re.fullmatch("Transformer( Pooling)?( Dense)*( Normalize)?", kinds):
        raise ConfigError(
            f"the modules {kinds.replace(' ', ', ')} are not implemented in this order "
            "(Transformer, then maybe Pooling, Dense, Normalize; only Dense more than once)",
            where=file,
        )
    folders = dict(found)
    dense = tuple(folder for kind, folder in found if kind == "Dense")
    return Modules(folders["Transformer"], folders.get("Pooling"), dense, "Normalize" in folders)


def read_pooling(
    directory: Path, folder: Path | None, args: BackboneArgs
) -> tuple[PoolingMode, bool]:
    """Pooling mode, and whether the prompt is pooled."""
    if folder is None:
        if args.default_pooling is None:
            raise ConfigError(
                "names no pooling, or is not there, and that of this architecture is unknown",
                where=directory / "modules.json",
                remedy="download the repository again, whole",
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
            f"pooling {' + '.join(map(str, modes))} is not implemented (one of "
            f"{', '.join(POOLING_MODES)})",
            where=file,
        )
    return cast(PoolingMode, modes[0]), data.get("include_prompt", True) is not False


def read_heads(folders: tuple[Path, ...], hidden_size: int) -> tuple[dict[int, Head], int | None]:
    """All heads by size, and the size of the one that modules.json names by its Dense modules.

    Beside a single Dense there may be others to choose from. Two folders may hold the same size
    (``2_Dense`` and ``2_Dense_8192`` are equal in Stella); the named one wins. Folders without
    weights, as a partial download leaves them, are passed.
    """
    if not folders:
        return {}, None
    row: list[Dense] = []
    for folder in folders:
        row.append(_read_dense(folder, row[-1].dim if row else hidden_size))
    named = Head(tuple(row))
    heads = {named.dim: named}
    default = folders[0]
    if len(folders) == 1 and (match := re.fullmatch(r"(\d+_Dense)(_\d+)?", default.name)):
        for folder in sorted(default.parent.glob(f"{match[1]}*"), reverse=True):
            is_head = re.fullmatch(rf"{match[1]}(_\d+)?", folder.name)
            has_weights = any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))
            if folder != default and is_head and has_weights:
                head = Head((_read_dense(folder, hidden_size),))
                heads.setdefault(head.dim, head)
    return heads, named.dim


def _read_dense(folder: Path, input_size: int) -> Dense:
    file = folder / "config.json"
    data = read_object(file)
    activation = str(data.get("activation_function", "")).rsplit(".", 1)[-1]
    if activation not in ACTIVATIONS or data.get("use_residual"):
        raise ConfigError(
            f"activation {activation!r} or a residual is not implemented (activations "
            f"{', '.join(ACTIVATIONS)})",
            where=file,
        )
    files = find_tensors(folder)
    shapes = {name: tensor.shape for name, tensor in files.tensors.items()}
    shape = shapes.get("linear.weight", ())
    expected: dict[str, tuple[int, ...]] = {"linear.weight": (shape[0] if shape else 0, input_size)}
    if data.get("bias", True):
        expected["linear.bias"] = shape[:1]
    if shapes != expected or shape[0] < 1:
        raise WeightsError(
            f"holds {shapes}, which is no Dense head for vectors of {input_size} "
            f"with{'' if data.get('bias', True) else 'out'} bias",
            where=files.paths[0],
            remedy="download it again",
        )
    stated = (data.get("out_features"), data.get("in_features"))
    if shape != stated:
        warnings.warn(
            f"{file}: says {stated[1]} -> {stated[0]}, the tensor is {shape[1]} -> {shape[0]}; "
            "the tensor is used",
            StellaWarning,
            stacklevel=2,
        )
    return Dense(shape[0], folder, files, cast(Activation, activation))


def read_prompts(settings: Mapping[str, Any], file: Path, builtin: Mapping[str, str]) -> Prompts:
    own = settings.get("prompts") or {}
    if not isinstance(own, dict) or not all(isinstance(text, str) for text in own.values()):
        raise ConfigError(
            "prompts is not a table of strings", where=file, remedy="download it again"
        )
    prompts = {**builtin, **own}
    default = settings.get("default_prompt_name")
    if default is not None and (not isinstance(default, str) or default not in prompts):
        raise ConfigError(f"default_prompt_name {default!r} is not among its prompts", where=file)
    return Prompts(prompts, default)


def read_similarity(settings: Mapping[str, Any], file: Path) -> str:
    name = settings.get("similarity_fn_name") or "cosine"
    if name not in ("cosine", "dot"):
        raise ConfigError(f"similarity {name!r} is not implemented (cosine, dot)", where=file)
    return name
