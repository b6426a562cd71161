"""Many texts into numbered Parquet parts, resumable, by one process or several machines."""

import os
from typing import TYPE_CHECKING

from mlx_stella.machine.packages import require

if TYPE_CHECKING:
    import numpy as np

__all__ = ["read_vectors"]


def read_vectors(folder: str | os.PathLike[str]) -> tuple["np.ndarray", "np.ndarray"]:
    """All vectors of a folder of parts, in the order of the input.

    Returns:
        The numbers of the rows, int64 (n,), and their vectors, float32 (n, dim). A row that
        failed is not among them.

    Raises:
        StoreError: it is no such folder, or a part is missing.
        MissingExtraError: what reads Parquet is not installed.
    """
    require("search")
    from mlx_stella.bulk import parts

    return parts.read_vectors(folder)
