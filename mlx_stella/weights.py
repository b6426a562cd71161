"""Open a directory's tensors and fill a model with them.

Everything that does not fit is reported at once, by the name it has in the checkpoint. Headers
are read without the data, so a fault is found, and ``info`` answers, before gigabytes are moved.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from safetensors import SafetensorError, safe_open

from mlx_stella.config import inside, read_object
from mlx_stella.errors import ConfigError, WeightsError
from mlx_stella.layers import Linear
from mlx_stella.models import Architecture, Folds

DTYPES = {"float16": mx.float16, "bfloat16": mx.bfloat16, "float32": mx.float32}

# A matrix whose largest value lies outside would overflow float16, or lose digits below its
# smallest normal number; it stays float32. Trained matrices lie well inside.
_FLOAT16_PEAKS = (2.0**-8, 65504.0)

_STORED_DTYPES = set("F64 F32 F16 BF16 I64 I32 I16 I8 U64 U32 U16 U8 BOOL".split())


@dataclass(frozen=True)
class TensorInfo:
    """A tensor as its file's header describes it; dtype as in safetensors ("F32", "BF16")."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class TensorFiles:
    """The files that hold a module's tensors, their headers read.

    ``tensors`` maps names to headers; it is empty for a pickle, whose header cannot be read alone.
    """

    paths: tuple[Path, ...]
    tensors: Mapping[str, TensorInfo]

    @property
    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.paths)

    def load(self) -> dict[str, mx.array]:
        """All tensors; those of safetensors files are lazy and read when first used."""
        arrays: dict[str, mx.array] = {}
        for path in self.paths:
            arrays |= _load_pickle(path) if path.suffix == ".bin" else _load_safetensors(path)
        return arrays


def find_tensors(directory: Path) -> TensorFiles:
    """Locate model.safetensors, its shards, or pytorch_model.bin in a directory.

    Raises:
        WeightsError: none is there, or a file is missing, truncated or not safetensors.
    """
    index = directory / "model.safetensors.index.json"
    if (single := directory / "model.safetensors").exists():
        paths = [single]
    elif index.exists():
        paths = list(_shards(index))
    elif (pickle := directory / "pytorch_model.bin").exists():
        return TensorFiles((pickle,), {})
    else:
        raise WeightsError(
            f"{directory}: no model.safetensors here; remedy: download the repository again, whole"
        )
    tensors: dict[str, TensorInfo] = {}
    for path in paths:
        tensors |= _header(path)
    return TensorFiles(tuple(paths), tensors)


def _shards(index: Path) -> Iterator[Path]:
    weight_map = read_object(index).get("weight_map")
    is_table = isinstance(weight_map, dict) and len(weight_map) > 0
    if not is_table or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise ConfigError(f"{index}: weight_map is missing or malformed; download it again")
    for name in sorted(set(weight_map.values())):
        path = inside(index.parent, name, index)
        if path.suffix != ".safetensors":
            raise ConfigError(f"{index}: refused {name!r}, which is not a safetensors file")
        yield path


def _header(path: Path) -> dict[str, TensorInfo]:
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            tensors = {
                name: TensorInfo(part.get_dtype(), tuple(part.get_shape()))
                for name, part in slices.items()
            }
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path}: truncated, corrupt or missing ({error}); remedy: download it again"
        ) from None
    for name, tensor in tensors.items():
        if tensor.dtype not in _STORED_DTYPES:
            raise WeightsError(
                f"{path}: {name} has the type {tensor.dtype}, which is not implemented; remedy: "
                "use the checkpoint as first published"
            )
    return tensors


def _load_safetensors(path: Path) -> dict[str, mx.array]:
    try:
        return mx.load(str(path), format="safetensors")
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"{path}: MLX cannot read it ({error})") from None


def _load_pickle(path: Path) -> dict[str, mx.array]:
    """Read pytorch_model.bin with torch, which with ``weights_only`` runs no code from the file."""
    try:
        import torch
    except ImportError:
        raise WeightsError(
            f"{path}: a pickle, read only through torch; remedy: pip install torch, or "
            "use a copy of the model that has model.safetensors"
        ) from None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here, none of them documented
        reason = str(error).split("\n")[0]
        raise WeightsError(
            f"{path}: refused by torch's safe loader ({reason}); remedy: use a copy of the model "
            "that has model.safetensors"
        ) from None
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise WeightsError(f"{path}: holds no plain table of tensors")
    # NumPy has no bfloat16; float32 holds its every value.
    return {
        name: mx.array((t.float() if t.dtype == torch.bfloat16 else t).numpy())
        for name, t in state.items()
    }


def fill(
    model: nn.Module, files: TensorFiles, architecture: Architecture, folds: Folds, dtype: mx.Dtype
) -> None:
    """Set every parameter of a model from a checkpoint's tensors, and evaluate it.

    Matrices take ``dtype``; vectors (norms, biases) stay float32, and so does a matrix that
    float16 has no room for. Tensors are read, cast and released one parameter at a time.

    Raises:
        WeightsError: tensors are missing, extra, of the wrong shape or not finite; all are named.
    """
    where = files.paths[0] if len(files.paths) == 1 else files.paths[0].parent
    arrays = files.load()
    faults: list[str] = []
    # name in the model -> name in the file
    names = _renamed(arrays, architecture.renames, faults)
    used: set[str] = set()
    recipes: list[tuple[str, Sequence[str], Callable[..., mx.array]]] = []
    for parameter, placeholder in tree_flatten(model.parameters()):
        sources, make = _sources(parameter, names, architecture.fused, folds)
        used.update(sources)
        if missing := [source for source in sources if source not in names]:
            faults += [f"missing {source}" for source in missing]
            continue
        inputs = [names[source] for source in sources]
        if fault := _shape_fault(make, [arrays[name] for name in inputs], placeholder.shape):
            faults.append(f"{', '.join(inputs)}: {fault}")
        recipes.append((parameter, inputs, make))
    faults += [f"extra {names[name]}" for name in sorted(set(names) - used)]
    _report(faults, where)

    readers = _count(inputs for _, inputs, _ in recipes)
    for parameter, inputs, make in recipes:
        tensors = [arrays[name] for name in inputs]
        value = make(*tensors)
        parts = tensors if make is _stack else [value]
        peaks = mx.stack([mx.abs(part).max().astype(mx.float32) for part in parts])
        is_matrix = value.ndim >= 2
        cast = value.astype(dtype if is_matrix else mx.float32)
        mx.eval(peaks, cast)
        if not mx.isfinite(peaks).all().item():
            faults.append(f"{', '.join(inputs)}: holds a value that is not finite")
        if cast.dtype == mx.float16 and not all(map(_fits_float16, peaks.tolist())):
            cast = value.astype(mx.float32)
            mx.eval(cast)
        model.load_weights([(parameter, cast)], strict=False)
        for name in inputs:
            readers[name] -= 1
            if readers[name] == 0:
                del arrays[name]
    _report(faults, where)
    for module in model.modules():
        if isinstance(module, Linear):
            module.measure_range()
    mx.clear_cache()


def _fits_float16(peak: float) -> bool:
    return peak == 0 or _FLOAT16_PEAKS[0] <= peak <= _FLOAT16_PEAKS[1]


def _renamed(
    names: Mapping[str, object], renames: Mapping[str, str | None], faults: list[str]
) -> dict[str, str]:
    """Name in the model -> name in the file. Keys that end in a dot are prefixes, others suffixes.

    Renames apply in the order of the table; None drops the tensor. Two tensors that end up under
    one name are added to the faults.
    """
    result: dict[str, str] = {}
    for original in names:
        name: str | None = original
        for old, new in renames.items():
            if old.endswith(".") and name.startswith(old):
                name = None if new is None else new + name.removeprefix(old)
            elif not old.endswith(".") and name.endswith(old):
                name = None if new is None else name.removesuffix(old) + new
            if name is None:
                break
        else:
            if name in result:
                faults.append(f"{result[name]} and {original} are the same parameter")
            result[name] = original
    return result


def _sources(
    parameter: str, names: Mapping[str, str], fused: Mapping[str, tuple[str, ...]], folds: Folds
) -> tuple[Sequence[str], Callable[..., mx.array]]:
    """The tensors a parameter is made of, and how: as it is, stacked along rows, or folded."""
    if parameter not in names:
        if parameter in folds:
            return folds[parameter]
        for part, sources in fused.items():
            if part in parameter:
                return [parameter.replace(part, source) for source in sources], _stack
    return [parameter], lambda array: array


def _stack(*arrays: mx.array) -> mx.array:
    return mx.concatenate(arrays, axis=0)


def _shape_fault(
    make: Callable[..., mx.array], inputs: Sequence[mx.array], expected: tuple[int, ...]
) -> str | None:
    """Why these tensors do not make the parameter; nothing is computed, MLX only infers shapes."""
    found = " and ".join(str(array.shape) for array in inputs)
    if not all(mx.issubdtype(array.dtype, mx.floating) for array in inputs):
        return f"holds {' and '.join(str(a.dtype) for a in inputs)}, not floating point"
    try:
        if make(*inputs).shape == expected:
            return None
    except (ValueError, IndexError):
        pass
    return f"has shape {found}, which does not make {expected}"


def _count(groups: Iterator[Sequence[str]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for group in groups:
        for name in group:
            counts[name] = counts.get(name, 0) + 1
    return counts


def _report(faults: Sequence[str], where: Path) -> None:
    """Raise if there are faults, naming the first twenty."""
    if faults:
        shown = "; ".join(faults[:20])
        more = f"; and {len(faults) - 20} more" if len(faults) > 20 else ""
        raise WeightsError(
            f"{where}: does not fit its config.json: {shown}{more}; "
            "remedy: download it again, whole"
        )
