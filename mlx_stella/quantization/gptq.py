"""Codes that keep a matrix's products instead of its numbers.

Of a matrix W (N, D) and second moments H (D, D) of its inputs, the codes Q are sought for which
the error of the products is least, in each row by itself::

    sum_n (q_n - w_n) H (q_n - w_n)^T

Groups are searched first and stay where they are; GPTQ rounds column after column, the most active
first, and lets the columns to come make up for each error; then scales and biases are refitted by
least squares, and each code is moved to where it is best with all others as they are, in turn.

Reference: GPTQ, https://arxiv.org/abs/2210.17323.
"""

from functools import cached_property

import mlx.core as mx
import numpy as np

from mlx_stella.models.formats import Format
from mlx_stella.quantization import affine
from mlx_stella.quantization.affine import Groups

DAMPING = 0.3
_BLOCK = 64  # columns, or rows, that are worked on between two large products
_ROUNDS = 2


class Hessian:
    """Second moments (D, D) float32 of inputs, damped: ``matrix`` is H + ``added`` I.

    Every diagonal entry is raised by a share of itself, as noise of that share in each input would
    raise it: it keeps codes from being fitted to the texts at hand, and is the same whatever the
    scale of a channel, which the mean of the diagonal, GPTQ's usual measure, is not.
    """

    def __init__(self, moments: np.ndarray):
        power = np.maximum(np.diagonal(moments), 0.0)  # rounding may leave less
        # A channel that was never active still has to have some weight; so does a dead layer.
        self.added = DAMPING * (power + (1e-3 * power.mean() or 1.0))
        self.matrix = moments + np.diag(self.added)

    @cached_property
    def order(self) -> np.ndarray:
        """Columns, the most active first."""
        return np.argsort(-np.diagonal(self.matrix), kind="stable")

    @cached_property
    def elimination(self) -> np.ndarray:
        """U, upper triangular, with H^-1 = U^T U in that order.

        Of H itself, which damping keeps positive definite in float32, and not of its inverse.
        """
        backwards = self.order[::-1]
        root = np.linalg.cholesky(self.matrix[np.ix_(backwards, backwards)])
        return np.linalg.inv(root[::-1, ::-1])  # H = R R^T with R upper triangular; U = R^-1

    def error(self, groups: Groups, weight: np.ndarray) -> np.ndarray:
        """What is minimised, for each row: (N,)."""
        difference = groups.expand() - weight
        return ((difference @ self.matrix) * difference).sum(1)


def solve(
    weight: np.ndarray, hessian: Hessian, format: Format, dtype: mx.Dtype, rounds: int = _ROUNDS
) -> Groups:
    """Quantize a matrix (N, D) float32.

    Args:
        dtype: of stored scales and biases, see :func:`mlx_stella.quantization.affine.quantize`.
        rounds: how often scales are refitted and codes moved.
    """
    return affine.quantize(
        weight, lambda rows, kind: _solve(rows, hessian, format, kind, rounds), format, dtype
    )


def _solve(
    weight: np.ndarray, hessian: Hessian, format: Format, dtype: mx.Dtype, rounds: int
) -> Groups:
    groups = affine.search(weight, np.diagonal(hessian.matrix), format, dtype)
    _eliminate(groups, weight, hessian)
    for _ in range(rounds):
        _refit(groups, weight, hessian.matrix)
        _descend(groups, weight, hessian.matrix)
    return groups


def _eliminate(groups: Groups, weight: np.ndarray, hessian: Hessian) -> None:
    """GPTQ: round a column, and take its error off the columns to come."""
    order, upper = hessian.order, hessian.elimination
    rest = weight[:, order]
    for start in range(0, len(order), _BLOCK):
        block = slice(start, start + _BLOCK)
        now, local = _columns(rest[:, block]), upper[block, block]
        scales, biases = groups.of_columns(order[block])
        codes, errors = np.empty_like(now), np.empty_like(now)
        for i in range(len(local)):
            codes[i] = groups.nearest((now[i] - biases[i]) / scales[i])
            errors[i] = (now[i] - (codes[i] * scales[i] + biases[i])) / local[i, i]
            now[i + 1 :] -= local[i, i + 1 :, None] * errors[i]
        groups.codes[:, order[block]] = codes.T
        rest[:, start + _BLOCK :] -= errors.T @ upper[block, start + _BLOCK :]


def _refit(groups: Groups, weight: np.ndarray, H: np.ndarray) -> None:
    """Scales and biases of a row by least squares in the metric H, codes as they are.

    q = M p with the 2 G unknowns p, the scales and the biases: M^T H M p = M^T H w.
    """
    (N, D), size = weight.shape, groups.format.group_size
    G = D // size
    target = weight @ H
    sums = H.reshape(G, size, G, size).sum((1, 3))  # between the ones of two groups
    found = np.empty((N, 2 * G))
    for start in range(0, N, _BLOCK):
        rows = slice(start, start + _BLOCK)
        codes = groups.codes[rows].astype(np.float32)
        n = len(codes)
        by_group = codes.reshape(n, G, size).swapaxes(0, 1)
        products = (by_group @ H.reshape(G, size, D)).swapaxes(0, 1)  # (n, G, D)
        squares = (products * codes[:, None]).reshape(n, G, G, size).sum(3)
        mixed = products.reshape(n, G, G, size).sum(3)
        sides = [
            np.concatenate([squares, mixed], axis=2),
            np.concatenate([mixed.swapaxes(1, 2), np.broadcast_to(sums, mixed.shape)], axis=2),
        ]
        normal = np.concatenate(sides, axis=1).astype(np.float64)
        right = np.stack([target[rows] * codes, target[rows]], axis=1)
        right = right.reshape(n, 2 * G, size).sum(2).astype(np.float64)
        # Codes that are all alike leave scale and bias open: stay near the old ones.
        old = np.concatenate([groups.scales[rows], groups.biases[rows]], axis=1)
        ridge = 1e-6 * np.einsum("nii->ni", normal)
        normal[:, np.arange(2 * G), np.arange(2 * G)] += ridge
        found[rows] = np.linalg.solve(normal, (right + ridge * old)[..., None])[..., 0]
    scales, biases = groups.stored(found[:, :G]), groups.stored(found[:, G:])
    sound = (scales > 0) & np.isfinite(biases)
    groups.scales[sound], groups.biases[sound] = scales[sound], biases[sound]


def _descend(groups: Groups, weight: np.ndarray, H: np.ndarray) -> None:
    """One pass of coordinate descent over the codes."""
    slope = (groups.expand() - weight) @ H  # half the derivative by each number
    for start in range(0, weight.shape[1], _BLOCK):
        block = slice(start, start + _BLOCK)
        now, local = _columns(slope[:, block]), H[block, block]
        scales, _ = groups.of_columns(np.arange(start, start + len(local)))
        codes, changes = _columns(groups.codes[:, block]), np.empty_like(now)
        for i in range(len(local)):
            better = groups.nearest(codes[i] - now[i] / (local[i, i] * scales[i]))
            changes[i] = (better - codes[i]) * scales[i]
            now[i + 1 :] += local[i, i + 1 :, None] * changes[i]
            codes[i] = better
        groups.codes[:, block] = codes.T
        slope += changes.T @ H[block]


def _columns(part: np.ndarray) -> np.ndarray:
    """Columns (N, n) of a matrix as (n, N), so that the numbers of each lie together."""
    return np.ascontiguousarray(part.T)
