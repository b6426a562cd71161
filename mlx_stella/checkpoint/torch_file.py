"""pytorch_model.bin: where in the file each tensor lies, and its numbers when they are asked for.

torch.save writes a zip archive whose members are stored as they are: ``data.pkl`` describes the
tensors, ``data/KEY`` are the storages. Before torch 1.6 it wrote five pickles, one behind the other
(a magic number, a version, the machine, the tensors, the keys of the storages), then the storages,
each behind its size. Nothing is unpacked, and no name in the file becomes a path.

Source: torch/serialization.py.
"""

import math
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlx_stella.checkpoint.tensor_pickle import Storage, View, read_pickle
from mlx_stella.config import require_regular
from mlx_stella.errors import WeightsError

_MAX_BYTES = 2**21  # of pickles, and of a zip archive's directory; some 100 bytes for each tensor
_MAX_SHARING = 4  # tensors share storages: tied embeddings are there twice
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a member of a zip archive
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001

_FAULTS = (
    *(ValueError, OSError, EOFError, OverflowError),
    *(struct.error, zipfile.BadZipFile, NotImplementedError),
)
"""What damaged bytes raise, here and in zipfile."""

DTYPES = {
    "F32": mx.float32,
    "F16": mx.float16,
    "BF16": mx.bfloat16,
    "I64": mx.int64,
    "I32": mx.int32,
    "I16": mx.int16,
    "I8": mx.int8,
    "U64": mx.uint64,
    "U32": mx.uint32,
    "U16": mx.uint16,
    "U8": mx.uint8,
    "BOOL": mx.bool_,
}
"""The types of stored numbers that MLX reads, by their names in safetensors."""


@dataclass(frozen=True)
class FileTensor:
    """A tensor of a file: its view of a storage that begins at the byte ``start``."""

    path: Path
    start: int
    view: View

    @property
    def dtype(self) -> str:
        """As in safetensors."""
        return self.view.storage.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.view.shape

    def read(self) -> mx.array:
        """Its numbers, copied from the file."""
        dtype = DTYPES[self.dtype]
        if not self.view.span:
            return mx.zeros(self.shape, dtype)
        # NumPy has no bfloat16, so all are whole numbers for it.
        unsigned = np.dtype(f"<u{dtype.size}")
        first = self.start + self.view.offset * dtype.size
        numbers = np.memmap(self.path, unsigned, "r", first, (self.view.span,))
        strides = [step * dtype.size for step in self.view.strides]
        return mx.array(np.lib.stride_tricks.as_strided(numbers, self.shape, strides)).view(dtype)


def read_tensors(path: Path) -> dict[str, FileTensor]:
    """Name -> tensor of a file of torch.save. Its pickle is read, its numbers are not.

    Raises:
        ConfigError: it is missing, or no regular file.
        WeightsError: it is damaged, or holds something else than a table of tensors.
    """
    require_regular(path)
    try:
        with _Bounded(path) as file:
            is_zip = file.read(4) == b"PK\x03\x04"
            tensors = dict(_of_zip(path, file) if is_zip else _of_legacy(path, file))
        _check_sharing(tensors, path.stat().st_size)
    except _FAULTS as error:
        raise WeightsError(
            f"not a table of tensors ({error})",
            where=path,
            remedy="download it again, or use a copy of the model that has model.safetensors",
        ) from None
    return tensors


class _Bounded(FileIO):
    """A file of which nobody reads much at once, whatever sizes it tells."""

    def read(self, size: int | None = -1, /) -> bytes:
        most = _MAX_BYTES + 1
        data = super().read(most if size is None or size < 0 else min(size, most)) or b""
        if len(data) == most:
            raise ValueError(f"its pickle or its directory has more than {_MAX_BYTES:,} bytes")
        return data


def _of_zip(path: Path, file: FileIO) -> Iterator[tuple[str, FileTensor]]:
    with zipfile.ZipFile(file) as archive:
        members = dict(_members(archive, file))
        pickles = [n for n in members if n.endswith("/data.pkl") and n.count("/") == 1]
        if len(pickles) != 1:
            raise ValueError("a zip archive that torch.save did not write")
        folder = pickles[0].removesuffix("data.pkl")
        order = folder + "byteorder"
        if order in members and archive.read(order) != b"little":
            raise ValueError("its numbers are not little-endian")
        value, _ = read_pickle(archive.read(pickles[0]))
    for name, view in _table(value).items():
        storage = view.storage
        start, size = members.get(f"{folder}data/{storage.key}", (0, -1))
        if size != storage.size * DTYPES[storage.dtype].size:
            raise ValueError(f"{name!r:.80} is in a storage that is not there, or of another size")
        yield name, FileTensor(path, start, view)


def _members(archive: zipfile.ZipFile, file: FileIO) -> Iterator[tuple[str, tuple[int, int]]]:
    """Name -> start and size of each member; none is compressed, and no two overlap."""
    names, end = set(), 0
    for member in sorted(archive.infolist(), key=lambda member: member.header_offset):
        if (
            member.compress_type != zipfile.ZIP_STORED
            or member.compress_size != member.file_size
            or member.flag_bits & 1
        ):
            raise ValueError("a member of the archive is compressed or encrypted")
        if member.header_offset < end or member.filename in names:
            raise ValueError("members of the archive overlap, or have one name")
        file.seek(member.header_offset)
        signature, name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        start = member.header_offset + _LOCAL_HEADER.size + name + extra
        end = start + member.file_size
        if signature != b"PK\x03\x04" or end > archive.start_dir:
            raise ValueError("a member of the archive is not where its directory says")
        names.add(member.filename)
        yield member.filename, (start, member.file_size)


def _of_legacy(path: Path, file: FileIO) -> Iterator[tuple[str, FileTensor]]:
    file.seek(0)
    data = file.read(_MAX_BYTES)
    magic, position = read_pickle(data)
    version, position = read_pickle(data, position)
    if (magic, version) != (_LEGACY_MAGIC, _LEGACY_VERSION):
        raise ValueError("torch.save did not write it")
    machine, position = read_pickle(data, position)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ValueError("its numbers are not little-endian")
    value, position = read_pickle(data, position)
    views = _table(value)
    keys, position = read_pickle(data, position)
    storages = {view.storage.key: view.storage for view in views.values()}
    starts = _legacy_starts(file, position, keys, storages)
    for name, view in views.items():
        if storages[view.storage.key] != view.storage or view.storage.key not in starts:
            raise ValueError(f"{name!r:.80} is in a storage that is not there, or of another size")
        yield name, FileTensor(path, starts[view.storage.key], view)


def _legacy_starts(
    file: FileIO, position: int, keys: Any, storages: Mapping[str, Storage]
) -> dict[str, int]:
    """Key -> start of each storage: they lie one behind the other, each behind its size."""
    file_size = file.seek(0, 2)
    starts: dict[str, int] = {}
    for key in keys if isinstance(keys, list) else [None]:
        if not isinstance(key, str) or key not in storages or key in starts:
            raise ValueError("its list of storages is not that of its tensors")
        file.seek(position)
        storage = storages[key]
        starts[key] = position + 8
        position = starts[key] + storage.size * DTYPES[storage.dtype].size
        if position > file_size or int.from_bytes(file.read(8), "little") != storage.size:
            raise ValueError("a storage is of another size than its tensors say")
    return starts


def _table(value: Any) -> dict[str, View]:
    """The views by name that a pickle should hold."""
    if not isinstance(value, dict) or not all(isinstance(view, View) for view in value.values()):
        raise ValueError("it holds other things than tensors by name")
    return value


def _check_sharing(tensors: Mapping[str, FileTensor], size_bytes: int) -> None:
    """Refuse a small file that stands for a large model, as views of the same numbers may."""
    total = sum(math.prod(t.shape) * DTYPES[t.dtype].size for t in tensors.values())
    if total > _MAX_SHARING * size_bytes:
        raise ValueError(f"its tensors have {total:,} bytes together, the file {size_bytes:,}")
