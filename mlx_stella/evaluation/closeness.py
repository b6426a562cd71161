"""How close the vectors of two models are: the same texts through both.

Both are computed in float32 with quantized weights expanded, so that what differs is the weights
and not the arithmetic; and with weights that are read for each batch and given up again, so that
a model larger than memory can be compared, too.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlx_stella.checkpoint.checkpoint import Checkpoint
from mlx_stella.encoding.encoder import Encoder
from mlx_stella.encoding.progress import Progress
from mlx_stella.errors import InputError
from mlx_stella.machine import blas

NEIGHBOURS = 10

BATCH_TOKENS = 1024
"""Padded tokens for which the weights are read once."""


@dataclass(frozen=True)
class Closeness:
    """Of the vectors of one head.

    Attributes:
        dim: their size.
        mean, percentile_1, worst: of the texts' cosines.
        relative_l2: mean length of the difference by the length of the first vector.
        neighbours_kept: share of a text's ten nearest other texts that are so in both models.
    """

    dim: int
    mean: float
    percentile_1: float
    worst: float
    relative_l2: float
    neighbours_kept: float


class StreamedBackbone:
    """A checkpoint's backbone that holds no weights between two calls."""

    def __init__(self, checkpoint: Checkpoint):
        self._checkpoint = checkpoint

    def __call__(self, input_ids: mx.array, attention_mask: mx.array | None = None) -> mx.array:
        """(B, L) ids -> (B, L, D) float32, evaluated."""
        blas.set_threads(os.cpu_count() or 1)  # nothing runs beside it
        # Only the graph refers to the weights: each is read when its product is due, then freed.
        hidden_states = self._checkpoint.lazy_backbone()(input_ids, attention_mask)
        mx.eval(hidden_states)
        mx.clear_cache()
        return hidden_states


def vectors(
    checkpoint: Checkpoint,
    texts: Sequence[str],
    dims: Sequence[int],
    progress: Callable[[Progress], None] | None = None,
) -> dict[int, np.ndarray]:
    """Size -> (N, size) float32 not normalised, the texts embedded as documents."""
    encoder = Encoder(checkpoint, "float32", backbone=StreamedBackbone(checkpoint))
    return encoder.encode_document(
        texts, dims=dims, normalize=False, max_batch_tokens=BATCH_TOKENS, progress=progress
    )


def compare(
    a: Checkpoint,
    b: Checkpoint,
    texts: Sequence[str],
    progress: Callable[[Progress], None] | None = None,
) -> list[Closeness]:
    """Closeness of b's vectors to a's, for each size of vector that both have.

    Raises:
        InputError: they have no size in common, or there are fewer than two texts.
    """
    dims = [dim for dim in a.dims if dim in b.dims]
    if not dims:
        raise InputError(
            f"{a.directory} has vectors of {a.dims} dimensions and {b.directory} of {b.dims}: "
            "nothing to compare"
        )
    if len(texts) < 2:
        raise InputError(f"{len(texts)} texts are too few to compare with", remedy="some hundred")
    first, second = (vectors(model, texts, dims, progress) for model in (a, b))
    return [closeness(first[dim], second[dim]) for dim in dims]


def closeness(a: np.ndarray, b: np.ndarray) -> Closeness:
    """Of b's rows to a's, (N, dim) both, at least two rows."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    difference = np.linalg.norm(b - a, axis=1) / np.linalg.norm(a, axis=1)
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    cosines = (a * b).sum(axis=1)
    return Closeness(
        dim=a.shape[1],
        mean=float(cosines.mean()),
        percentile_1=float(np.percentile(cosines, 1)),
        worst=float(cosines.min()),
        relative_l2=float(difference.mean()),
        neighbours_kept=float(np.mean(_neighbours(a) & _neighbours(b)) / _share(len(a))),
    )


def _neighbours(unit: np.ndarray) -> np.ndarray:
    """(N, N) bool: which other rows are among a row's nearest."""
    scores = unit @ unit.T
    np.fill_diagonal(scores, -np.inf)
    count = min(NEIGHBOURS, len(unit) - 1)
    nearest = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    result = np.zeros(scores.shape, bool)
    np.put_along_axis(result, nearest, True, axis=1)
    return result


def _share(rows: int) -> float:
    """The share of all pairs that are neighbours."""
    return min(NEIGHBOURS, rows - 1) / rows
