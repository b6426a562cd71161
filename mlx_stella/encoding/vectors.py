"""Vectors once computed: refused where they are of no use, and compared."""

from collections.abc import Sequence

import numpy as np

from mlx_stella.errors import InputError, VectorError


def check_vectors(vectors: np.ndarray, rows: Sequence[int], dtype: str) -> None:
    """Refuse vectors that are not finite, or zero: they would poison whatever stores them.

    Args:
        vectors: (n, dim); rows: the number that each text has for the caller.
        dtype: what they were computed in.

    Raises:
        VectorError: the row is named.
    """
    bad = ~np.isfinite(vectors).all(axis=1) | ~vectors.any(axis=1)
    if bad.any():
        remedy = "check the checkpoint" if dtype == "float32" else "use the dtype float32"
        raise VectorError(
            "the model gave a vector that is not finite, or is zero",
            row=rows[int(bad.argmax())],
            remedy=remedy,
        )


def similarity(a: np.ndarray, b: np.ndarray, *, cosine: bool) -> np.ndarray:
    """Every row of a with every row of b: (N, dim) and (M, dim), or one row each, to (N, M).

    Raises:
        InputError: the vectors differ in size, or one is zero and has no direction.
    """
    a, b = (np.atleast_2d(np.asarray(x, np.float32)) for x in (a, b))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise InputError(
            f"vectors of shape {a.shape} and {b.shape} cannot be compared",
            remedy="embed both with the same dim",
        )
    if cosine:
        norms = [np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)]
        if any((norm == 0).any() for norm in norms):
            raise InputError("a vector of zeros has no direction", remedy="leave it out")
        a, b = a / norms[0], b / norms[1]
    return a @ b.T
