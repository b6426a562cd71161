"""What a pickle of torch.save says of its tensors, told without running it.

A pickle is a program for a stack machine, and Python's own machine calls whatever the program
names. The one here knows the opcodes that torch.save writes for a table of tensors, and a closed
table of names, none of which it calls: a storage stays a description, a tensor is a view of one.

Source: Lib/pickletools.py for the opcodes, torch/_utils.py and torch/serialization.py for what
tensors and storages are pickled as.
"""

import math
import pickle  # its names of opcodes; nothing of it is called
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

STORAGE_TYPES = {
    "torch.FloatStorage": "F32",
    "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16",
    "torch.LongStorage": "I64",
    "torch.IntStorage": "I32",
    "torch.ShortStorage": "I16",
    "torch.CharStorage": "I8",
    "torch.ByteStorage": "U8",
    "torch.BoolStorage": "BOOL",
}
"""The name of a storage -> the type of its numbers, as in safetensors."""

_MAX_NAME = 200
_MAX_RANK = 8


@dataclass(frozen=True)
class Storage:
    """A run of numbers in the file.

    Attributes:
        dtype: their type, as in safetensors.
        key: the file's name for it.
        size: how many there are.
    """

    dtype: str
    key: str
    size: int


@dataclass(frozen=True)
class View:
    """A tensor: some numbers of a storage, ``offset`` and ``strides`` counted in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def span(self) -> int:
        """Numbers of the storage from its first to behind its last; 0 if it is empty."""
        if not all(self.shape):
            return 0
        return 1 + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))


@dataclass(frozen=True)
class _Name:
    """A name of the closed table, which stands for itself."""

    name: str


def read_pickle(data: bytes, start: int = 0) -> tuple[Any, int]:
    """The value of the pickle that begins at ``start``, and where it ends.

    Takes time and memory by the length of the data.

    Raises:
        ValueError: it is damaged, or asks for what no table of tensors needs; names are told.
    """
    machine = _Machine(data, start)
    try:
        return machine.run(), machine.position
    except struct.error:
        raise ValueError("the pickle ends too early") from None
    except LookupError:
        raise ValueError("the pickle takes from its stack what is not there") from None


class _Machine:
    """The stack, and a stack below for each mark."""

    def __init__(self, data: bytes, start: int):
        self.position = start
        self._data = data
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        while (opcode := self._take(1)) != pickle.STOP:
            self._step(opcode)
        return self._stack.pop()

    def _step(self, opcode: bytes) -> None:
        push, pop = self._stack.append, self._stack.pop
        match opcode:
            case pickle.PROTO:
                if (version := self._number("<B")) != 2:
                    raise ValueError(f"the pickle is of version {version}, not of torch.save's 2")
            case pickle.MARK:
                self._below.append(self._stack)
                self._stack = []
            case pickle.EMPTY_DICT:
                push({})
            case pickle.EMPTY_LIST:
                push([])
            case pickle.EMPTY_TUPLE:
                push(())
            case pickle.NONE:
                push(None)
            case pickle.NEWTRUE:
                push(True)
            case pickle.NEWFALSE:
                push(False)
            case pickle.BININT:
                push(self._number("<i"))
            case pickle.BININT1:
                push(self._number("<B"))
            case pickle.BININT2:
                push(self._number("<H"))
            case pickle.LONG1:
                push(int.from_bytes(self._take(self._number("<B")), "little", signed=True))
            case pickle.BINFLOAT:
                push(struct.unpack(">d", self._take(8))[0])
            case pickle.BINUNICODE:
                push(self._take(self._number("<I")).decode())
            case pickle.BINPUT:
                self._memo[self._number("<B")] = self._stack[-1]
            case pickle.LONG_BINPUT:
                self._memo[self._number("<I")] = self._stack[-1]
            case pickle.BINGET:
                push(self._memo[self._number("<B")])
            case pickle.LONG_BINGET:
                push(self._memo[self._number("<I")])
            case pickle.TUPLE:
                values = self._since_mark()
                self._stack.append(tuple(values))
            case pickle.TUPLE1 | pickle.TUPLE2 | pickle.TUPLE3:
                count = 1 + (pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3).index(opcode)
                push(tuple(reversed([pop() for _ in range(count)])))
            case pickle.APPEND:
                self._append([pop()])
            case pickle.APPENDS:
                self._append(self._since_mark())
            case pickle.SETITEM:
                value, key = pop(), pop()
                self._set([key, value])
            case pickle.SETITEMS:
                self._set(self._since_mark())
            case pickle.GLOBAL:
                push(_global(f"{self._line()}.{self._line()}"))
            case pickle.BINPERSID:
                push(_storage(pop()))
            case pickle.REDUCE:
                arguments, function = pop(), pop()
                push(_call(function, arguments))
            case pickle.BUILD:  # attributes of a table, such as versions of its modules
                pop()
                if not isinstance(self._stack[-1], dict):
                    raise ValueError("the pickle sets attributes of what is no table")
            case _:
                raise ValueError(f"the pickle has the opcode {opcode!r}, which torch.save has not")

    def _take(self, count: int) -> bytes:
        taken = self._data[self.position : self.position + count]
        if len(taken) < count:
            raise ValueError("the pickle ends too early")
        self.position += count
        return taken

    def _number(self, format: str) -> int:
        return int(struct.unpack(format, self._take(struct.calcsize(format)))[0])

    def _line(self) -> str:
        end = self._data.find(b"\n", self.position, self.position + _MAX_NAME)
        if end < 0:
            raise ValueError("the pickle has a name without end")
        line = self._take(end - self.position).decode()
        self.position += 1
        return line

    def _since_mark(self) -> list[Any]:
        values, self._stack = self._stack, self._below.pop()
        return values

    def _append(self, values: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise ValueError("the pickle appends to what is no list")
        self._stack[-1].extend(values)

    def _set(self, values: list[Any]) -> None:
        """Keys are texts: those of nested tuples would take for ever to hash."""
        table = self._stack[-1]
        if not isinstance(table, dict) or len(values) % 2:
            raise ValueError("the pickle sets entries of what is no table")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, str) or key in table:
                raise ValueError("the pickle has a table with a key that is no text, or twice")
            table[key] = value


def _global(name: str) -> _Name:
    if name not in _CALLABLE and name not in STORAGE_TYPES:
        raise ValueError(f"the pickle asks for {name!r:.{_MAX_NAME}}, which is refused")
    return _Name(name)


def _storage(reference: Any) -> Storage:
    """Of ("storage", type, key, device, size), with None behind it in files before torch 1.6."""
    match reference:
        case ("storage", _Name(name), str(key), str(), int(size), *rest) if (
            name in STORAGE_TYPES and size >= 0 and rest in ([], [None])
        ):
            return Storage(STORAGE_TYPES[name], key, size)
    raise ValueError("the pickle refers to what is no storage")


def _call(function: Any, arguments: Any) -> Any:
    if not isinstance(function, _Name) or function.name not in _CALLABLE:
        raise ValueError("the pickle calls what is no function")
    if (result := _CALLABLE[function.name](arguments)) is None:
        raise ValueError(f"the pickle calls {function.name} otherwise than torch does")
    return result


def _table(arguments: Any) -> dict[str, Any] | None:
    return {} if arguments == () else None


def _tensor(arguments: Any) -> View | None:
    """Of storage, offset, shape, strides, requires_grad, hooks and maybe flags: both empty.

    A tensor lies within its storage, and has no more numbers than that: a stride of 0 would make
    any size of one number.
    """
    match arguments:
        case (Storage() as storage, offset, tuple(shape), tuple(strides), bool(), *rest) if (
            rest in ([{}], [{}, None], [{}, {}])
        ):
            numbers = (offset, *shape, *strides)
            if len(shape) != len(strides) or len(shape) > _MAX_RANK:
                return None
            if not all(type(number) is int and 0 <= number < 2**62 for number in numbers):
                return None
            view = View(storage, offset, shape, strides)
            if max(offset + view.span, math.prod(shape)) > storage.size:
                raise ValueError(
                    f"a tensor of shape {shape} is not within its {storage.size} numbers"
                )
            return view
    return None


def _parameter(arguments: Any) -> View | None:
    match arguments:
        case (View() as view, bool(), hooks) if hooks == {}:
            return view
    return None


_CALLABLE: dict[str, Callable[[Any], Any]] = {
    "collections.OrderedDict": _table,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}
"""The functions that a table of tensors needs, and what describes their result here."""
