"""Open a directory's tensors: safetensors, their shards, or a pickle through torch.

Headers are read without the data, so a fault is found, and ``info`` answers, before gigabytes are
moved.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import mlx.core as mx
from safetensors import SafetensorError, safe_open

from mlx_stella.config import inside, read_object, require_regular
from mlx_stella.errors import ConfigError, WeightsError

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
        require_regular(pickle)
        return TensorFiles((pickle,), {})
    else:
        raise WeightsError(
            "no model.safetensors here",
            where=directory,
            remedy="download the repository again, whole",
        )
    tensors: dict[str, TensorInfo] = {}
    for path in paths:
        tensors |= _header(path)
    return TensorFiles(tuple(paths), tensors)


def _shards(index: Path) -> Iterator[Path]:
    weight_map = read_object(index).get("weight_map")
    shards = list(weight_map.values()) if isinstance(weight_map, dict) else []
    if not shards or not all(isinstance(shard, str) for shard in shards):
        raise ConfigError(
            "weight_map is missing or malformed", where=index, remedy="download it again"
        )
    for name in sorted(set(shards)):
        path = inside(index.parent, name, index)
        if path.suffix != ".safetensors":
            raise ConfigError(f"refused {name!r}, which is not a safetensors file", where=index)
        yield path


def _header(path: Path) -> dict[str, TensorInfo]:
    if path.exists():
        require_regular(path)
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            tensors = {
                name: TensorInfo(part.get_dtype(), tuple(part.get_shape()))
                for name, part in slices.items()
            }
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"truncated, corrupt or missing ({error})", where=path, remedy="download it again"
        ) from None
    for name, tensor in tensors.items():
        if tensor.dtype not in _STORED_DTYPES:
            raise WeightsError(
                f"{name} has the type {tensor.dtype}, which is not implemented",
                where=path,
                remedy="use the checkpoint as first published",
            )
    return tensors


def _load_safetensors(path: Path) -> dict[str, mx.array]:
    try:
        # Without its metadata asked for, a safetensors file is a table.
        return cast(dict[str, mx.array], mx.load(str(path), format="safetensors"))
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"MLX cannot read it ({error})", where=path) from None


def _load_pickle(path: Path) -> dict[str, mx.array]:
    """Read pytorch_model.bin with torch, which with ``weights_only`` runs no code from the file."""
    try:
        import torch
    except ImportError:
        raise WeightsError(
            "a pickle, read only through torch",
            where=path,
            remedy="pip install torch, or use a copy of the model that has model.safetensors",
        ) from None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds here, none of them documented
        reason = str(error).split("\n")[0]
        raise WeightsError(
            f"refused by torch's safe loader ({reason})",
            where=path,
            remedy="use a copy of the model that has model.safetensors",
        ) from None
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise WeightsError("holds no plain table of tensors", where=path)
    # NumPy has no bfloat16; float32 holds its every value.
    return {
        name: mx.array((t.float() if t.dtype == torch.bfloat16 else t).numpy())
        for name, t in state.items()
    }
