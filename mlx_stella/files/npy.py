"""NumPy's file of an array, written row by row: it may exceed memory.

Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from typing import BinaryIO

import numpy as np


def begin(file: BinaryIO, rows: int, dim: int) -> None:
    """Write what stands before the numbers of (rows, dim) float32; :func:`add` has to follow."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (rows, dim)}
    np.lib.format.write_array_header_1_0(file, header)


def add(file: BinaryIO, vectors: "np.ndarray | memoryview[float]") -> None:
    """Write the next rows (n, dim)."""
    file.write(np.ascontiguousarray(vectors, "<f4").data)
