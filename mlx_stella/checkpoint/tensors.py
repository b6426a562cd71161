"""Open a directory's tensors: safetensors or torch's pickles, whole or in shards.

Headers are read without the data, so a fault is found, and ``info`` answers, before gigabytes are
moved.
"""

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import mlx.core as mx
from safetensors import SafetensorError, safe_open

from mlx_stella.checkpoint.torch_file import DTYPES, FileTensor, read_tensors
from mlx_stella.config import inside, read_object, require_regular
from mlx_stella.errors import ConfigError, WeightsError


@dataclass(frozen=True)
class TensorInfo:
    """A tensor as its file's header describes it; dtype as in safetensors ("F32", "BF16")."""

    dtype: str
    shape: tuple[int, ...]


class Arrays(MutableMapping[str, mx.array]):
    """Tensors by name: MLX's are lazy and read once, those of pickles whenever asked for."""

    def __init__(self, tensors: dict[str, mx.array | FileTensor]):
        self._tensors = tensors

    def __getitem__(self, name: str) -> mx.array:
        tensor = self._tensors[name]
        return tensor.read() if isinstance(tensor, FileTensor) else tensor

    def __setitem__(self, name: str, array: mx.array) -> None:
        self._tensors[name] = array

    def __delitem__(self, name: str) -> None:
        del self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


@dataclass(frozen=True)
class TensorFiles:
    """The files that hold a module's tensors, their headers read: ``tensors`` by name."""

    paths: tuple[Path, ...]
    tensors: Mapping[str, TensorInfo]

    @property
    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.paths)

    def outline(self) -> dict[str, mx.array]:
        """Arrays of the tensors' shapes and types, without their numbers: MLX computes nothing."""
        return {name: mx.zeros(t.shape, DTYPES[t.dtype]) for name, t in self.tensors.items()}

    def load(self) -> Arrays:
        """All tensors, read when they are first used."""
        tensors: dict[str, mx.array | FileTensor] = {}
        for path in self.paths:
            tensors.update(read_tensors(path) if _is_pickle(path) else _load_safetensors(path))
        return Arrays(tensors)


def find_tensors(directory: Path) -> TensorFiles:
    """Locate model.safetensors or pytorch_model.bin in a directory, or their shards.

    Raises:
        WeightsError: none is there, or a file is missing, truncated or of another kind.
    """
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = directory / f"{name}.index.json"
        if (single := directory / name).exists():
            paths = [single]
        elif index.exists():
            paths = list(_shards(index, single.suffix))
        else:
            continue
        tensors: dict[str, TensorInfo] = {}
        for path in paths:
            tensors |= _header(path)
        return TensorFiles(tuple(paths), tensors)
    raise WeightsError(
        "no model.safetensors here", where=directory, remedy="download the repository again, whole"
    )


def _shards(index: Path, suffix: str) -> Iterator[Path]:
    weight_map = read_object(index).get("weight_map")
    shards = list(weight_map.values()) if isinstance(weight_map, dict) else []
    if not shards or not all(isinstance(shard, str) for shard in shards):
        raise ConfigError(
            "weight_map is missing or malformed", where=index, remedy="download it again"
        )
    for name in sorted(set(shards)):
        path = inside(index.parent, name, index)
        if path.suffix != suffix:
            raise ConfigError(f"refused {name!r}, which is not a {suffix} file", where=index)
        yield path


def _is_pickle(path: Path) -> bool:
    return path.suffix == ".bin"


def _header(path: Path) -> dict[str, TensorInfo]:
    if _is_pickle(path):
        found = {name: TensorInfo(t.dtype, t.shape) for name, t in read_tensors(path).items()}
    else:
        found = _header_of_safetensors(path)
    for name, tensor in found.items():
        if tensor.dtype not in DTYPES or max(tensor.shape, default=0) >= 2**31:
            raise WeightsError(
                f"{name} has the type {tensor.dtype} and the shape {tensor.shape}, which is not "
                "implemented",
                where=path,
                remedy="use the checkpoint as first published",
            )
    return found


def _header_of_safetensors(path: Path) -> dict[str, TensorInfo]:
    if path.exists():
        require_regular(path)
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {
                name: TensorInfo(part.get_dtype(), tuple(part.get_shape()))
                for name, part in slices.items()
            }
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"truncated, corrupt or missing ({error})", where=path, remedy="download it again"
        ) from None


def _load_safetensors(path: Path) -> dict[str, mx.array]:
    try:
        # Without its metadata asked for, a safetensors file is a table.
        return cast(dict[str, mx.array], mx.load(str(path), format="safetensors"))
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"MLX cannot read it ({error})", where=path) from None
