"""Which BLAS MLX gets on Linux, and what is said where there is none."""

import ctypes
import subprocess
import sys
import warnings

import pytest
from support import TESTS

from mlx_stella import StellaWarning
from mlx_stella.machine import blas

linux = pytest.mark.skipif(sys.platform != "linux", reason="macOS has Accelerate")

WHAT_MLX_CALLS = """
import ctypes
import mlx_stella
from mlx_stella.machine import blas
from mlx_stella.machine.aliases import address_of
everything, packaged = ctypes.CDLL(None), blas._packaged()
print(all(
    address_of(everything, name) == address_of(packaged, "scipy_" + name)
    for name in ("cblas_sgemm", "cblas_dgemm", "cblas_cgemm")
))
"""


WHAT_A_PEER_CALLS = """
import ctypes, runpy, sys
import numpy  # has an OpenBLAS of its own, as a peer's process
from importlib.util import find_spec
path = find_spec("scipy_openblas32").submodule_search_locations[0] + "/lib/libscipy_openblas.so"
runpy.run_path("scripts/bench_peers.py")["take_blas"](path)
import mlx.core
address = lambda library, name: ctypes.cast(getattr(library, name), ctypes.c_void_p).value
everything, packaged = ctypes.CDLL(None), ctypes.CDLL(path)
print("mlx_stella" not in sys.modules and all(
    address(everything, name) == address(packaged, "scipy_" + name)
    for name in ("cblas_sgemm", "cblas_dgemm", "cblas_cgemm")
))
"""


def test_a_slow_blas_is_said_once(monkeypatch):
    monkeypatch.setattr(blas, "_is_slow", True)
    with pytest.warns(
        StellaWarning, match="remedy: pip install scipy-openblas32 .*apt-get install"
    ):
        blas.warn_if_slow()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        blas.warn_if_slow()


@linux
@pytest.mark.parametrize("script", [WHAT_MLX_CALLS, WHAT_A_PEER_CALLS], ids=["ours", "a peer's"])
def test_the_package_is_what_mlx_finds(script):
    """In our process, and in that of another engine that scripts/bench_peers.py times."""
    pytest.importorskip("scipy_openblas32")
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=TESTS.parent, check=True, capture_output=True, text=True)
    assert done.stdout == "True\n"


@pytest.fixture
def undecided(monkeypatch):
    """As before MLX is imported, on a Linux with neither the package nor an OpenBLAS."""
    monkeypatch.setattr(blas, "_PACKAGE", "no_such_package")
    monkeypatch.setattr(blas, "_SYSTEM_LIBRARIES", ("libnone.so.0",))
    monkeypatch.setattr(blas, "_is_slow", False)
    monkeypatch.setattr(blas, "_library", None)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delitem(sys.modules, "mlx.core", raising=False)


@pytest.mark.usefixtures("undecided")
def test_where_nothing_is_found_mlx_is_slow():
    blas.prefer_fast_blas()
    assert blas._is_slow and blas._library is None
    blas.set_threads(2)  # to nobody


@pytest.mark.usefixtures("undecided")
def test_macos_is_untouched(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(blas, "_packaged", None)  # not called
    blas.prefer_fast_blas()
    assert not blas._is_slow and blas._library is None


@pytest.mark.parametrize("fault", ["no package", "not offered"])
def test_else_the_system_is_asked(monkeypatch, undecided, fault):
    def refuse(functions):
        raise OSError("the kernel has no memory files")

    if fault == "not offered":
        pytest.importorskip("scipy_openblas32")
        monkeypatch.setattr(blas, "_PACKAGE", "scipy_openblas32")
        monkeypatch.setattr(blas, "offer", refuse)
    else:
        monkeypatch.setattr(blas, "offer", None)  # not called
    library = ctypes.CDLL(None)
    monkeypatch.setattr(blas, "_of_the_system", lambda: library)
    blas.prefer_fast_blas()
    assert blas._library is library and not blas._is_slow


@pytest.mark.parametrize("configuration", [b"DYNAMIC_ARCH", b"USE64BITINT DYNAMIC_ARCH"])
def test_a_blas_of_64_bit_integers_is_refused(monkeypatch, configuration):
    told = ctypes.create_string_buffer(b"OpenBLAS 0.3.33 " + configuration)
    function = ctypes.CFUNCTYPE(ctypes.c_void_p)(lambda: ctypes.addressof(told))
    address = ctypes.cast(function, ctypes.c_void_p).value
    monkeypatch.setattr(blas, "address_of", lambda library, name: address)
    if b"64" in configuration:
        with pytest.raises(OSError, match="reads 64-bit integers"):
            blas._opened(None)
    else:
        blas._opened(None)
