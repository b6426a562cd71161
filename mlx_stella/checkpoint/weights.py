"""Fill a model with a checkpoint's tensors.

Everything that does not fit is reported at once, by the name it has in the checkpoint. A parameter
is made of one tensor or several (stacked, or folded), and any matrix may be quantized: it is
recognised by the ``scales`` beside its ``weight``.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from mlx_stella.errors import WeightsError
from mlx_stella.machine import process_end
from mlx_stella.models import formats
from mlx_stella.models.architectures import Architecture, Folds
from mlx_stella.models.formats import Format
from mlx_stella.models.layers import Backbone, Embedding
from mlx_stella.models.products import Linear
from mlx_stella.models.quantized import Packed, QuantizedEmbedding, QuantizedLinear

DTYPES = {"float16": mx.float16, "bfloat16": mx.bfloat16, "float32": mx.float32}

# A matrix whose largest value lies outside would overflow float16, or lose digits below its
# smallest normal number; it stays float32. Trained matrices lie well inside.
_FLOAT16_PEAKS = (2.0**-8, 65504.0)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a file by its name there; a quantized matrix by the name of its codes.

    ``shape`` is that of the numbers, not of the codes.
    """

    name: str
    shape: tuple[int, ...]
    format: Format | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All tensors it consists of: a quantized matrix has scales, and maybe biases."""
        if self.format is None:
            return (self.name,)
        stem = self.name.removesuffix("weight")
        biases = (stem + "biases",) if self.format.mode == "affine" else ()
        return (self.name, stem + "scales", *biases)

    def packed(self, arrays: Mapping[str, mx.array], format: Format) -> Packed:
        weight, scales, *biases = (arrays[name] for name in self.names)
        return Packed(weight, scales, biases[0] if biases else None, format)

    def value(self, arrays: Mapping[str, mx.array]) -> mx.array:
        """The tensor as it is stored, or float32 if it was quantized."""
        format = self.format
        return arrays[self.name] if format is None else self.packed(arrays, format).expand()


@dataclass(frozen=True)
class Assembly:
    """What a parameter of the model is made of.

    Attributes:
        parameter: its path in the model, e.g. ``layers.0.mlp.up_gate_proj.weight``.
        shape: its shape there, were it float.
        sources: tensors of the file; more than one are stacked along rows, or folded.
        make: the function that does so.
    """

    parameter: str
    shape: tuple[int, ...]
    sources: tuple[StoredTensor, ...]
    make: Callable[..., mx.array]

    @property
    def names(self) -> Iterator[str]:
        return (name for source in self.sources for name in source.names)

    @property
    def is_stacked(self) -> bool:
        return self.make is _stack

    @property
    def format(self) -> Format | None:
        """The format it can be held in as a whole; None if it has to be float."""
        found = {source.format for source in self.sources}
        return found.pop() if len(found) == 1 else None

    def values(self, arrays: Mapping[str, mx.array]) -> list[mx.array]:
        return [source.value(arrays) for source in self.sources]

    def packed(self, arrays: Mapping[str, mx.array], format: Format) -> Packed:
        """The quantized matrix, rows stacked, of the format that all of it has."""
        parts = [source.packed(arrays, format).arrays for source in self.sources]
        weight, scales, *biases = (_stack(*part) for part in zip(*parts, strict=True))
        return Packed(weight, scales, biases[0] if biases else None, format)


def assemblies(
    model: nn.Module,
    arrays: Mapping[str, mx.array],
    architecture: Architecture,
    folds: Folds,
    stated: formats.Stated,
    where: Path,
) -> list[Assembly]:
    """What each parameter of a model is made of, by the names, shapes and types of arrays.

    Raises:
        WeightsError: tensors are missing, extra or of the wrong shape; all are named.
    """
    faults: list[str] = []
    # name in the model -> name in the file
    names = _renamed(arrays, architecture.renames, faults)
    used: set[str] = set()
    result: list[Assembly] = []
    for parameter, placeholder in dict(tree_flatten(model.parameters())).items():
        inputs, make = _inputs(parameter, names, architecture.fused, folds)
        if missing := [name for name in inputs if name not in names]:
            faults += [f"missing {name}" for name in missing]
            used.update(names[name] for name in inputs if name in names)
            continue
        found = [_source(names[n], arrays, placeholder.shape, stated, faults) for n in inputs]
        sources = tuple(source for source, _ in found)
        assembly = Assembly(parameter, placeholder.shape, sources, make)
        used.update(assembly.names)
        if any(source.format for source in sources) and make not in (_same, _stack):
            faults.append(f"{_listed(assembly)}: quantized, which cannot be folded")
        elif all(sound for _, sound in found) and (fault := _shape_fault(assembly, arrays)):
            faults.append(f"{_listed(assembly)}: {fault}")
        result.append(assembly)
    faults += [f"extra {name}" for name in sorted(set(names.values()) - used)]
    _report(faults, where)
    return result


def _source(
    name: str,
    arrays: Mapping[str, mx.array],
    shape: tuple[int, ...],
    stated: formats.Stated,
    faults: list[str],
) -> tuple[StoredTensor, bool]:
    """A tensor of the file, quantized if scales lie beside it, and whether it is sound.

    ``shape`` is that of the parameter it belongs to, whose rows are as long as its own.
    """
    stem = name.removesuffix("weight")
    if stem == name or stem + "scales" not in arrays:
        return StoredTensor(name, arrays[name].shape), True
    weight, scales, biases = arrays[name], arrays[stem + "scales"], arrays.get(stem + "biases")
    try:
        found = formats.of_shapes(weight.shape, scales.shape, biases is not None, shape[-1])
    except ValueError as error:
        faults.append(f"{name}: {error}")
        # All of its tensors are accounted for, whatever is wrong with them.
        guess = Format(0, 0, "affine" if biases is not None else "")
        return StoredTensor(name, weight.shape, guess), False
    source = StoredTensor(name, (*weight.shape[:-1], shape[-1]), found)
    is_float = mx.issubdtype(scales.dtype, mx.floating)
    if weight.dtype != mx.uint32 or is_float != (biases is not None):
        faults.append(f"{name}: holds {weight.dtype} with scales of {scales.dtype}")
    elif biases is not None and (biases.shape, biases.dtype) != (scales.shape, scales.dtype):
        faults.append(f"{name}: its scales and biases differ in shape or type")
    elif stated.contradicts(stem.removesuffix("."), found):
        faults.append(f"{name}: is stored as {found}, and config.json says otherwise")
    else:
        return source, True
    return source, False


def fill(
    model: Backbone,
    assemblies: Sequence[Assembly],
    arrays: MutableMapping[str, mx.array],
    dtype: mx.Dtype,
    where: Path,
    stays_packed: bool,
) -> None:
    """Set every parameter of a model, and evaluate it.

    Matrices take ``dtype``; vectors (norms, biases) stay float32, and so does a matrix that
    float16 has no room for. Tensors are read, cast and released one parameter at a time:
    ``arrays`` is empty afterwards.

    Args:
        stays_packed: quantized matrices are kept so where they can be, otherwise expanded.

    Raises:
        WeightsError: a tensor is not finite; all such are named.
    """
    faults: list[str] = []
    readers = Counter(name for assembly in assemblies for name in assembly.names)
    packed: list[tuple[str, Packed]] = []
    for assembly in assemblies:
        process_end.stop_if_ending()
        if stays_packed and (format := assembly.format) is not None:
            matrix = assembly.packed(arrays, format)
            mx.eval(matrix.arrays)
            packed.append((assembly.parameter.removesuffix(".weight"), matrix))
        else:
            value, peaks = _cast(assembly, arrays, dtype)
            if not all(peak < float("inf") for peak in peaks):
                faults.append(f"{_listed(assembly)}: holds a value that is not finite")
            model.load_weights([(assembly.parameter, value)], strict=False)
        for name in assembly.names:
            readers[name] -= 1
            if readers[name] == 0:
                del arrays[name]
    for path, matrix in packed:
        peak = matrix.peak()
        if not peak < float("inf"):
            faults.append(f"{path}: its scales or biases are not finite")
            continue
        _replace(model, path, matrix, dtype, peak)
    _report(faults, where)
    if dtype == mx.float16:
        model.prove_range()
        for module in model.modules():
            if isinstance(module, Linear):
                module.measure_range()
    mx.clear_cache()


def fill_lazily(
    model: nn.Module, assemblies: Sequence[Assembly], arrays: Mapping[str, mx.array]
) -> None:
    """Set every parameter, float32, so that it is read when it is first used."""
    values = [(r.parameter, r.make(*r.values(arrays)).astype(mx.float32)) for r in assemblies]
    model.load_weights(values, strict=False)


def _cast(
    assembly: Assembly, arrays: Mapping[str, mx.array], dtype: mx.Dtype
) -> tuple[mx.array, list[float]]:
    """The parameter in its type, evaluated, and the largest absolute values of its parts."""
    tensors = assembly.values(arrays)
    value = assembly.make(*tensors)
    parts = tensors if assembly.is_stacked else [value]
    peaks = mx.stack([mx.abs(part).max().astype(mx.float32) for part in parts])
    stored = value.astype(dtype if value.ndim >= 2 else mx.float32)
    mx.eval(peaks, stored)
    found = cast(list[float], peaks.tolist())
    if stored.dtype == mx.float16 and not all(map(fits_float16, found)):
        stored = value.astype(mx.float32)
        mx.eval(stored)
    return stored, found


def _replace(model: nn.Module, path: str, matrix: Packed, dtype: mx.Dtype, peak: float) -> None:
    """Put a quantized layer in the place of a float one, whose bias it takes over."""
    module = dict(model.named_modules())[path]
    if isinstance(module, Embedding):
        layer: nn.Module = QuantizedEmbedding(matrix)
    else:
        if dtype == mx.float16 and not fits_float16(peak):
            dtype = mx.float32
        if matrix.biases is not None:
            scales, biases = matrix.scales.astype(dtype), matrix.biases.astype(dtype)
            matrix = Packed(matrix.weight, scales, biases, matrix.format)
            mx.eval(matrix.arrays)
        layer = QuantizedLinear(matrix, module.get("bias"), dtype)
    model.update_modules(tree_unflatten([(path, layer)]))


def fits_float16(peak: float) -> bool:
    """Whether float16 has room for a matrix with this largest absolute value."""
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
        if (name := _rename(original, renames)) is not None:
            if name in result:
                faults.append(f"{result[name]} and {original} are the same parameter")
            result[name] = original
    return result


def _rename(name: str, renames: Mapping[str, str | None]) -> str | None:
    for old, new in renames.items():
        is_prefix = old.endswith(".")
        if name.startswith(old) if is_prefix else name.endswith(old):
            if new is None:
                return None
            name = new + name.removeprefix(old) if is_prefix else name.removesuffix(old) + new
    return name


def _inputs(
    parameter: str, names: Mapping[str, str], fused: Mapping[str, tuple[str, ...]], folds: Folds
) -> tuple[Sequence[str], Callable[..., mx.array]]:
    """The tensors a parameter is made of, and how: as it is, stacked along rows, or folded."""
    if parameter not in names:
        if parameter in folds:
            return folds[parameter]
        for part, sources in fused.items():
            if part in parameter:
                return [parameter.replace(part, source) for source in sources], _stack
    return [parameter], _same


def _same(array: mx.array) -> mx.array:
    return array


def _stack(*arrays: mx.array) -> mx.array:
    return mx.concatenate(list(arrays), axis=0)


def _shape_fault(assembly: Assembly, arrays: Mapping[str, mx.array]) -> str | None:
    """Why the tensors do not make the parameter; nothing is computed, MLX only infers shapes."""
    inputs = assembly.values(arrays)
    found = " and ".join(str(array.shape) for array in inputs)
    if not all(mx.issubdtype(array.dtype, mx.floating) for array in inputs):
        return f"holds {' and '.join(str(a.dtype) for a in inputs)}, not floating point"
    try:
        if assembly.make(*inputs).shape == assembly.shape:
            return None
    except (ValueError, IndexError):
        pass
    return f"has shape {found}, which does not make {assembly.shape}"


def _listed(assembly: Assembly) -> str:
    return ", ".join(source.name for source in assembly.sources)


def _report(faults: Sequence[str], where: Path) -> None:
    """Raise if there are faults, naming the first twenty."""
    if faults:
        shown = "; ".join(faults[:20])
        more = f"; and {len(faults) - 20} more" if len(faults) > 20 else ""
        raise WeightsError(
            f"does not fit its config.json: {shown}{more}",
            where=where,
            remedy="download it again, whole",
        )
