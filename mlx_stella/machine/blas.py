"""Give MLX a fast matrix product on Linux.

MLX's CPU wheel for Linux is linked against the reference BLAS, whose float32 product is some
20 to 80 times slower than OpenBLAS. The dynamic linker resolves ``cblas_sgemm`` to the first
library that offers it globally, so one that is opened with ``RTLD_GLOBAL`` before ``libmlx`` takes
its place. It must happen before ``mlx.core`` is first imported: afterwards the symbols are bound
and nothing changes (measured: 193 against 5 GFLOP/s). Hence the package calls
:func:`prefer_fast_blas` in its ``__init__``; it is the one thing that happens at import.

The dependency scipy-openblas32 carries an OpenBLAS for every CPU of x86-64 and aarch64, under names
of its own; see :mod:`mlx_stella.machine.aliases`. Where it is missing, an OpenBLAS of the system's
is taken; it comes second as it is no faster (measured: 202 and 202 GFLOP/s) and not everywhere.
macOS is untouched: there MLX uses Metal and Accelerate.

MLX passes sizes as 32-bit integers (LP64). A BLAS that reads 64 (ILP64) cannot take its place: such
builds of scipy-openblas end their names in ``64_``, those of the system's are files of other
names, and whatever its names, a library that says it was built so is refused.
"""

import ctypes
import importlib.util
import sys
import warnings
from functools import cache
from pathlib import Path

from mlx_stella.errors import StellaWarning
from mlx_stella.machine.aliases import address_of, offer

_PACKAGE, _PREFIX = "scipy_openblas32", "scipy_"
_PRODUCTS = ("cblas_sgemm", "cblas_dgemm", "cblas_cgemm")
"""All that MLX calls of a BLAS."""

_SYSTEM_LIBRARIES = ("libopenblas.so.0", "libopenblas.so")
"""By soname, so that the linker finds them."""

_is_slow = False
_library: ctypes.CDLL | None = None


def prefer_fast_blas() -> None:
    """Open a fast BLAS on this Linux system, so that MLX uses it."""
    global _is_slow, _library
    if sys.platform != "linux" or "mlx.core" in sys.modules:
        return
    _library = _packaged() or _of_the_system()
    _is_slow = _library is None


def _packaged() -> ctypes.CDLL | None:
    """The OpenBLAS that the dependency carries, its products under the names that MLX asks for."""
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        try:
            library = _opened(str(Path(folder, "lib", "libscipy_openblas.so")), _PREFIX)
            offer({name: address_of(library, _PREFIX + name) for name in _PRODUCTS})
        except OSError:
            continue
        return library
    return None


def _of_the_system() -> ctypes.CDLL | None:
    for name in _SYSTEM_LIBRARIES:
        try:
            _opened(name)
            return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
    return None


def _opened(path: str, prefix: str = "") -> ctypes.CDLL:
    """An OpenBLAS whose sizes are 32-bit integers, its functions not offered to others yet.

    Raises:
        OSError: it is not there, is no OpenBLAS, or reads 64-bit integers.
    """
    library = ctypes.CDLL(path)
    configuration = ctypes.CFUNCTYPE(ctypes.c_char_p)(
        address_of(library, f"{prefix}openblas_get_config")
    )
    if b"USE64BITINT" in configuration():
        raise OSError(f"{path}: reads 64-bit integers")
    return library


def set_threads(count: int) -> None:
    """Threads that one product uses, where several products run side by side.

    No more than the library took at first: it knows OPENBLAS_NUM_THREADS, and which cores this
    process may use.
    """
    if _library is not None:
        prefix = _PREFIX if hasattr(_library, f"{_PREFIX}openblas_set_num_threads") else ""
        most = _most_threads(_library, prefix)
        getattr(_library, f"{prefix}openblas_set_num_threads")(min(count, most))


@cache
def _most_threads(library: ctypes.CDLL, prefix: str) -> int:
    """Threads before the first call of :func:`set_threads`."""
    return getattr(library, f"{prefix}openblas_get_num_threads")()


def warn_if_slow() -> None:
    """Say once what to install where no fast BLAS was found; called when a model is loaded."""
    global _is_slow
    if _is_slow:
        _is_slow = False
        warnings.warn(
            "no OpenBLAS found: MLX's own BLAS on Linux is some 20 to 80 times slower; "
            "remedy: pip install scipy-openblas32 (or: apt-get install libopenblas0-pthread)",
            StellaWarning,
            stacklevel=2,
        )
