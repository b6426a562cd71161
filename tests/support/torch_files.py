"""Files as torch.save writes them, without torch, and such as it never would."""

import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_STORAGES = {"f4": "FloatStorage", "f2": "HalfStorage", "i8": "LongStorage"}


@dataclass(frozen=True)
class Name:
    """What the pickle asks Python for, such as posix.system."""

    module: str
    name: str


@dataclass(frozen=True)
class Call:
    function: Name
    arguments: tuple


@dataclass(frozen=True)
class Reference:
    """To what lies outside of the pickle: a storage."""

    content: Any


def storage(key: str, size: int, kind: str = "FloatStorage") -> Reference:
    return Reference(("storage", Name("torch", kind), key, "cpu", size))


def tensor(where: Any, shape: tuple, strides: tuple, offset: int = 0) -> Call:
    hooks = Call(Name("collections", "OrderedDict"), ())
    arguments = (where, offset, shape, strides, False, hooks)
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), arguments)


def dumps(value: Any) -> bytes:
    return b"\x80\x02" + _code(value) + b"."


def _code(value: Any) -> bytes:
    match value:
        case bool() | None:
            return {True: b"\x88", False: b"\x89", None: b"N"}[value]
        case int():
            size = (value.bit_length() + 8) // 8
            return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(map(_code, value)) + b"t"
        case dict():
            return b"}(" + b"".join(_code(k) + _code(v) for k, v in value.items()) + b"u"
        case Name():
            return f"c{value.module}\n{value.name}\n".encode()
        case Call():
            return _code(value.function) + _code(value.arguments) + b"R"
        case Reference():
            return _code(value.content) + b"Q"
        case bytes():  # opcodes
            return value
    raise TypeError(value)


def write(path: Path, pickle: bytes, storages: Mapping[str, bytes], **members: bytes) -> None:
    """The zip archive around a pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle)
        archive.writestr("archive/byteorder", members.pop("byteorder", b"little"))
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key}", content)
        archive.writestr("archive/version", b"3\n")


def save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """A table of contiguous tensors."""
    table, storages = {}, {}
    for number, (name, array) in enumerate(arrays.items()):
        strides = tuple(step // array.itemsize for step in array.strides)
        kind = _STORAGES[array.dtype.str[1:]]
        table[name] = tensor(storage(str(number), array.size, kind), array.shape, strides)
        storages[str(number)] = array.tobytes()
    write(path, dumps(table), storages)
