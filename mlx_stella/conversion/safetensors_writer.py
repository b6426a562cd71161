"""Write safetensors files tensor by tensor.

The safetensors library takes a whole dictionary; a model larger than memory has to be written as
it is read. Room for the header is kept at the start of the file and filled at the end (the format
allows spaces after the header's JSON), so that the type of a tensor may be decided when it is
written, and a file that was not finished has no header and cannot be opened.

Format: https://github.com/huggingface/safetensors#format
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import mlx.core as mx
import numpy as np

SHARD_BYTES = 5_000_000_000
"""A file holds no more, except for a single tensor that is larger."""

_NAMES = {
    mx.float32: "F32",
    mx.float16: "F16",
    mx.bfloat16: "BF16",
    mx.uint32: "U32",
    mx.uint8: "U8",
}
_METADATA = {"format": "mlx"}


class SafetensorsWriter:
    """model.safetensors, or model-00001-of-0000N.safetensors and their index, in a folder.

    Args:
        folder: where to; names: of all tensors that may come, for the size of the header.
    """

    def __init__(self, folder: Path, names: Iterable[str]):
        self._folder = folder
        # An entry has its name, type, up to two sizes of eight digits and two offsets of thirteen.
        room = sum(len(json.dumps(name)) + 120 for name in names) + 100
        self._header_bytes = -(-room // 8) * 8
        self._shards: list[tuple[Path, dict[str, Any]]] = []
        self._file: BinaryIO | None = None
        self._offset = 0
        self.size_bytes = 0

    def add(self, name: str, array: mx.array) -> None:
        """Append a tensor, which is evaluated."""
        file = self._file
        if file is None or (self._offset and self._offset + array.nbytes > SHARD_BYTES):
            self._close()
            file = self._open()
        _, entries = self._shards[-1]
        end = self._offset + array.nbytes
        entries[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [self._offset, end],
        }
        # NumPy has no bfloat16
        whole = array.view(mx.uint16) if array.dtype == mx.bfloat16 else array
        file.write(np.ascontiguousarray(np.asarray(whole)).data)
        self._offset = end
        self.size_bytes += array.nbytes

    def finish(self) -> None:
        """Close the last file, give all their names, and write the index if there are several."""
        self._close()
        count = len(self._shards)
        weight_map: dict[str, str] = {}
        for number, (path, entries) in enumerate(self._shards, start=1):
            several = f"model-{number:05d}-of-{count:05d}.safetensors"
            name = several if count > 1 else "model.safetensors"
            path.rename(self._folder / name)
            weight_map |= dict.fromkeys(entries, name)
        if count > 1:
            index = {
                "metadata": {"total_size": self.size_bytes},
                "weight_map": dict(sorted(weight_map.items())),
            }
            text = json.dumps(index, indent=2) + "\n"
            (self._folder / "model.safetensors.index.json").write_text(text)

    def _open(self) -> BinaryIO:
        path = self._folder / f"shard-{len(self._shards)}.part"
        self._shards.append((path, {}))
        self._file = path.open("wb")
        self._file.seek(8 + self._header_bytes)
        self._offset = 0
        return self._file

    def _close(self) -> None:
        if self._file is None:
            return
        _, entries = self._shards[-1]
        header = json.dumps({"__metadata__": _METADATA, **entries}, separators=(",", ":")).encode()
        self._file.seek(0)
        self._file.write(self._header_bytes.to_bytes(8, "little"))
        self._file.write(header.ljust(self._header_bytes))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None
