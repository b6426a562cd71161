"""Give MLX a fast matrix product on Linux.

MLX's CPU wheel for Linux is linked against the reference BLAS, whose float32 product is some
20 to 80 times slower than OpenBLAS. The dynamic linker resolves ``cblas_sgemm`` to the first
library that offers it globally, so an OpenBLAS (or Intel MKL) opened with ``RTLD_GLOBAL`` before
``libmlx`` takes its place. It must happen before ``mlx.core`` is first imported: afterwards the
symbols are bound and nothing changes (measured: 193 against 5 GFLOP/s). Hence the package calls
:func:`prefer_fast_blas` in its ``__init__``; it is the one thing that happens at import.

macOS is untouched: there MLX uses Metal and Accelerate.
"""

import ctypes
import importlib.util
import sys
import warnings
from pathlib import Path

from mlx_stella.errors import StellaWarning

_PACKAGE = "ngsolve_openblas"
"""OpenBLAS as a dependency brings it: one file, for every x86-64 CPU."""

# By soname, so that the linker finds them; MKL also where `pip install mkl` puts it.
_LIBRARIES = (
    "libopenblas.so.0",
    "libopenblas.so",
    "libmkl_rt.so.2",
    str(Path(sys.prefix) / "lib" / "libmkl_rt.so.2"),
)

_is_slow = False
_library: ctypes.CDLL | None = None


def prefer_fast_blas() -> None:
    """Open the first fast BLAS found on this Linux system, so that MLX uses it."""
    global _is_slow, _library
    if sys.platform != "linux" or "mlx.core" in sys.modules:
        return
    for name in (*_packaged(), *_LIBRARIES):
        try:
            _library = ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        return
    _is_slow = True


def _packaged() -> list[str]:
    spec = importlib.util.find_spec(_PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    return [str(path) for folder in folders or () for path in Path(folder).glob("libopenblas*.so")]


def set_threads(count: int) -> None:
    """Threads that one product uses, where several products run side by side."""
    for name in ("openblas_set_num_threads", "MKL_Set_Num_Threads"):
        if _library is not None and hasattr(_library, name):
            getattr(_library, name)(count)


def warn_if_slow() -> None:
    """Say once what to install where no fast BLAS was found; called when a model is loaded."""
    global _is_slow
    if _is_slow:
        _is_slow = False
        warnings.warn(
            "no OpenBLAS found: MLX's own BLAS on Linux is some 20 to 80 times slower; "
            "remedy: apt-get install libopenblas0-pthread (or: pip install mkl)",
            StellaWarning,
            stacklevel=2,
        )
