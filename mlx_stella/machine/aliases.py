"""Give functions of libraries that are loaded further names, which the dynamic linker finds.

The linker resolves a symbol by its name alone, and a library may offer what is wanted under
another one: scipy-openblas32 has ``scipy_cblas_sgemm`` where MLX asks for ``cblas_sgemm``. What is
made here is the least that the linker takes for a shared library (System V ABI, "Object Files" and
"Dynamic Linking"): a table of symbols whose values are absolute addresses, and no code at all, so
that only one number depends on the machine and nothing has to be executable.

glibc takes absolute symbols as they are since 2.28; MLX's wheels ask for 2.35. musl adds to them
where the library lies; MLX has no wheel for musl, and :func:`offer` would notice.
"""

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Mapping

_MACHINES = {"x86_64": 62, "aarch64": 183}  # EM_X86_64, EM_AARCH64: where MLX has wheels
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_ENTRY = struct.Struct("<QQ")
_SYMBOL = struct.Struct("<IBBHQQ")

_ET_DYN, _EV_CURRENT = 3, 1
_PT_LOAD, _PT_DYNAMIC, _PT_GNU_STACK = 1, 2, 0x6474E551
_PF_READ_WRITE = 6
_DT_NULL, _DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_SYMENT = 0, 4, 5, 6, 10, 11
_GLOBAL_FUNCTION = 1 << 4 | 2  # STB_GLOBAL, STT_FUNC
_SHN_ABS = 0xFFF1
_LARGEST_PAGE = 0x10000  # aarch64 has pages of 4, 16 and 64 KiB; x86-64 of 4


def offer(functions: Mapping[str, int]) -> None:
    """Offer functions to all libraries that are loaded from now on.

    Args:
        functions: name -> the address that a call of that name is to reach.

    Raises:
        OSError: this system does not take such a library; nothing is offered then.
    """
    if sys.platform != "linux":
        raise OSError(f"no library can be made for {sys.platform}")
    # Stays open, one for each call: the linker tells libraries apart by their paths, too, and would
    # take a later one at the same number for this one.
    descriptor = os.memfd_create("aliases", os.MFD_CLOEXEC)
    os.write(descriptor, shared_object(functions, platform.machine()))
    path = f"/proc/self/fd/{descriptor}"
    opened = ctypes.CDLL(path)
    for name, address in functions.items():
        if address_of(opened, name) != address:
            raise OSError(f"{name}: the dynamic linker does not take absolute addresses")
    ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)


def address_of(opened: ctypes.CDLL, name: str) -> int:
    """Where a function of a library lies.

    Raises:
        OSError: the library has no such function.
    """
    try:
        return ctypes.cast(getattr(opened, name), ctypes.c_void_p).value or 0
    except AttributeError as error:
        raise OSError(str(error)) from None


def shared_object(functions: Mapping[str, int], machine: str) -> bytes:
    """The bytes of the library: header, segments, dynamic section, symbols, hash table, names.

    Raises:
        OSError: MLX has no wheel for this kind of machine.
    """
    if machine not in _MACHINES:
        raise OSError(f"no library can be made for {machine}")
    symbols, names = _SYMBOL.pack(0, 0, 0, 0, 0, 0), b"\0"  # the first symbol is the undefined one
    for name, address in functions.items():
        symbols += _SYMBOL.pack(len(names), _GLOBAL_FUNCTION, 0, _SHN_ABS, address, 0)
        names += name.encode() + b"\0"
    # One bucket, whose chain goes through all symbols, from the last to the first: 1 bucket,
    # count links, where the chain starts, and the link of each symbol.
    count = len(functions) + 1
    links = [max(0, number - 1) for number in range(count)]
    hashes = struct.pack(f"<{3 + count}I", 1, count, count - 1, *links)

    # Each part has a size that leaves the next one aligned, so that they follow without gaps.
    dynamic_at = _HEADER.size + 3 * _SEGMENT.size
    dynamic_size = 6 * _ENTRY.size
    symbols_at = dynamic_at + dynamic_size
    hashes_at = symbols_at + len(symbols)
    names_at = hashes_at + len(hashes)
    end = names_at + len(names)

    header = _HEADER.pack(
        b"\x7fELF\x02\x01\x01",  # 64 bits, little-endian, version 1, System V; padded with zeros
        _ET_DYN,
        _MACHINES[machine],
        _EV_CURRENT,
        0,  # no entry point
        _HEADER.size,  # where the segments are told
        0,  # nor are there sections: the linker does not look at them
        0,
        _HEADER.size,
        _SEGMENT.size,
        3,
        *(0, 0, 0),
    )
    # Writable, as linkers before glibc 2.35 wrote into the dynamic section of each library. The
    # third segment says that the stack need not be executable; without it glibc would make it so.
    segments = [
        (_PT_LOAD, 0, end, _LARGEST_PAGE),
        (_PT_DYNAMIC, dynamic_at, dynamic_size, 8),
        (_PT_GNU_STACK, 0, 0, 16),
    ]
    dynamic = [
        (_DT_HASH, hashes_at),
        (_DT_STRTAB, names_at),
        (_DT_SYMTAB, symbols_at),
        (_DT_STRSZ, len(names)),
        (_DT_SYMENT, _SYMBOL.size),
        (_DT_NULL, 0),
    ]
    return b"".join(
        [
            header,
            *(
                _SEGMENT.pack(kind, _PF_READ_WRITE, at, at, at, size, size, alignment)
                for kind, at, size, alignment in segments
            ),
            *(_ENTRY.pack(*entry) for entry in dynamic),
            symbols + hashes + names,
        ]
    )
