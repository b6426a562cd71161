"""A shared library made in memory, whose functions jump to others that are loaded already.

The dynamic linker resolves a symbol by its name alone, and a library may offer what is wanted
under another one: scipy-openblas32 has ``scipy_cblas_sgemm`` where MLX asks for ``cblas_sgemm``.
What is written here is the least that the linker takes for a library (System V ABI, chapters 4
and 5): one segment, a table of symbols, a hash table of one bucket, and for each symbol a jump.
"""

import ctypes
import os
import platform
import struct
from collections.abc import Mapping

# Machine number of ELF, and the jump to an address: movabs rax, N; jmp rax | ldr x16, N; br x16.
_JUMPS = {
    "x86_64": (62, lambda address: b"\x48\xb8" + struct.pack("<Q", address) + b"\xff\xe0"),
    "aarch64": (183, lambda address: struct.pack("<IIQ", 0x58000050, 0xD61F0200, address)),
}
_HEADER_BYTES, _SEGMENT_BYTES, _SYMBOL_BYTES, _ENTRY_BYTES = 64, 56, 24, 16
_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_SYMENT = 4, 5, 6, 10, 11
_CODE_BYTES = 16


def forward(functions: Mapping[str, int]) -> ctypes.CDLL:
    """Offer functions to all libraries that are loaded from now on.

    Args:
        functions: name -> the address that a call of that name is to reach.

    Raises:
        OSError: this system has no such libraries, or does not run code from memory files.
    """
    image = library(functions, platform.machine())
    descriptor = os.memfd_create("forwarding", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, image)
        return ctypes.CDLL(f"/proc/self/fd/{descriptor}", mode=ctypes.RTLD_GLOBAL)
    finally:
        os.close(descriptor)


def library(functions: Mapping[str, int], machine: str) -> bytes:
    """The bytes of the library.

    Raises:
        OSError: no jump is known for this kind of machine.
    """
    if machine not in _JUMPS:
        raise OSError(f"no jump is known for {machine}")
    number, jump = _JUMPS[machine]
    count = len(functions) + 1  # the first symbol is the empty one
    names = b"\0" + b"".join(name.encode() + b"\0" for name in functions)
    code_at = _HEADER_BYTES + 3 * _SEGMENT_BYTES
    symbols_at = code_at + _CODE_BYTES * len(functions) + -code_at % _CODE_BYTES
    code_at += -code_at % _CODE_BYTES
    hash_at = symbols_at + _SYMBOL_BYTES * count
    dynamic_at = hash_at + 4 * (3 + count) + -(4 * (3 + count)) % 8
    names_at = dynamic_at + 6 * _ENTRY_BYTES
    end = names_at + len(names)

    symbols, offset = bytes(_SYMBOL_BYTES), 1
    for place, name in enumerate(functions):
        where = code_at + _CODE_BYTES * place
        symbols += struct.pack("<IBBHQQ", offset, 0x12, 0, 1, where, _CODE_BYTES)  # global function
        offset += len(name) + 1
    # One bucket, whose chain goes through all symbols from the last to the first.
    table = struct.pack(
        f"<{3 + count}I", 1, count, count - 1, *[max(i - 1, 0) for i in range(count)]
    )
    entries = [
        (_DT_HASH, hash_at),
        (_DT_STRTAB, names_at),
        (_DT_SYMTAB, symbols_at),
        (_DT_STRSZ, len(names)),
        (_DT_SYMENT, _SYMBOL_BYTES),
        (0, 0),
    ]
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        3,  # a shared library
        number,
        1,
        0,
        _HEADER_BYTES,
        0,
        0,
        _HEADER_BYTES,
        _SEGMENT_BYTES,
        3,
        0,
        0,
        0,
    )
    page = 0x10000  # of any of these machines
    segments = b"".join(
        struct.pack("<IIQQQQQQ", kind, flags, at, at, at, size, size, alignment)
        for kind, flags, at, size, alignment in (
            (1, 5, 0, end, page),  # loaded, read and run
            (2, 4, dynamic_at, 6 * _ENTRY_BYTES, 8),  # what the linker reads
            (0x6474E551, 6, 0, 0, 16),  # the stack is not run
        )
    )
    image = bytearray(end)
    parts = {
        0: header + segments,
        symbols_at: symbols,
        hash_at: table,
        dynamic_at: b"".join(struct.pack("<QQ", *entry) for entry in entries),
        names_at: names,
    }
    for place, address in enumerate(functions.values()):
        parts[code_at + _CODE_BYTES * place] = jump(address)
    for start, part in parts.items():
        image[start : start + len(part)] = part
    return bytes(image)
