"""Second names of functions: the library's bytes, and what the dynamic linker makes of them."""

import ctypes
import os
import struct
import subprocess
import sys

import pytest
from support import TESTS

from mlx_stella.machine import aliases

linux = pytest.mark.skipif(sys.platform != "linux", reason="a library of Linux's kind")

CALLED_BY_ANOTHER_NAME = """
import ctypes
from mlx_stella.machine.aliases import address_of, offer
libc = ctypes.CDLL(None)
offer({"second_name_of_labs": address_of(libc, "labs"), "of_toupper": address_of(libc, "toupper")})
offer({"offered_later": address_of(libc, "labs")})
everything = ctypes.CDLL(None)
print(everything.second_name_of_labs(-7), everything.of_toupper(97), everything.offered_later(-3))
"""


@linux
def test_functions_are_called_by_their_new_names():
    """In a process of its own: what is offered stays offered."""
    command = [sys.executable, "-c", CALLED_BY_ANOTHER_NAME]
    done = subprocess.run(command, cwd=TESTS.parent, check=True, capture_output=True, text=True)
    assert done.stdout == "7 65 3\n"


@pytest.mark.parametrize("machine, number", [("x86_64", 62), ("aarch64", 183)])
def test_the_bytes_are_such_a_library(machine, number):
    functions = {"cblas_sgemm": 0x7F00_1234_5678, "cblas_dgemm": 0x7F00_0000_0010}
    image = aliases.shared_object(functions, machine)

    def unpack(layout: str, at: int) -> tuple:
        return struct.unpack_from("<" + layout, image, at)

    identity, kind, found, version, entry, segments_at, sections_at, *rest = unpack("16sHHIQQQ", 0)
    assert identity == b"\x7fELF\x02\x01\x01" + bytes(9)
    assert (kind, found, version, entry, sections_at) == (3, number, 1, 0, 0) and not rest
    assert unpack("IHHHHHH", 48) == (0, 64, 56, 3, 0, 0, 0)

    load, dynamic, stack = (unpack("IIQQQQQQ", segments_at + 56 * place) for place in range(3))
    assert load == (1, 6, 0, 0, 0, len(image), len(image), 0x10000)  # readable, writable, not run
    assert dynamic[:2] == (2, 6) and dynamic[2] == dynamic[3] and dynamic[2] % 8 == 0
    assert stack[:2] == (0x6474E551, 6)

    tags = [unpack("QQ", dynamic[2] + 16 * place) for place in range(dynamic[5] // 16)]
    assert tags[-1] == (0, 0)
    hashes_at, names_at, symbols_at = (dict(tags)[tag] for tag in (4, 5, 6))
    names_size, symbol_size = dict(tags)[10], dict(tags)[11]
    assert symbol_size == 24 and names_at + names_size == len(image) and image[-1] == 0

    buckets, count, start = unpack("III", hashes_at)
    links = unpack(f"{count}I", hashes_at + 12)
    assert (buckets, count) == (1, 3)
    offered = {}
    while start:  # as the linker walks
        name_at, info, other, section, value, _ = unpack("IBBHQQ", symbols_at + 24 * start)
        assert (info, other, section) == (0x12, 0, 0xFFF1)  # a global function, absolute
        name = image[names_at + name_at :].split(b"\0")[0].decode()
        offered[name] = value
        start = links[start]
    assert offered == functions


def test_other_machines_are_refused():
    with pytest.raises(OSError, match="no library can be made for riscv64"):
        aliases.shared_object({}, "riscv64")


@linux
def test_a_linker_that_moves_absolute_addresses_is_noticed(monkeypatch):
    libc = ctypes.CDLL(None)
    address = aliases.address_of(libc, "labs")
    monkeypatch.setattr(aliases, "_SHN_ABS", 1)  # it adds where the library lies, as musl does
    with pytest.raises(OSError, match=r"moved_labs: .* absolute addresses"):
        aliases.offer({"moved_labs": address})
    with pytest.raises(OSError, match="moved_labs"):
        aliases.address_of(ctypes.CDLL(None), "moved_labs")


@linux
def test_a_function_that_is_not_there():
    with pytest.raises(OSError, match="no_such_function"):
        aliases.address_of(ctypes.CDLL(None), "no_such_function")


@linux
def test_no_memory_files(monkeypatch):
    def refuse(*_):
        raise OSError("not permitted")

    monkeypatch.setattr(os, "memfd_create", refuse)
    with pytest.raises(OSError, match="not permitted"):
        aliases.offer({"labs_again": 1})
