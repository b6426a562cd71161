"""Ask an index: by meaning, by words, or by both."""

from collections.abc import Sequence

import numpy as np

from mlx_stella.retrieval.scanning import Key
from mlx_stella.retrieval.store import Filter, Hit, Store

RRF_K = 60
"""The constant of reciprocal rank fusion (Cormack, Clarke, Büttcher 2009)."""

FUSED_DEPTH = 50
"""So many hits of each kind are fused, or more if more are asked for."""


def search(
    store: Store,
    words: str,
    vector: np.ndarray,
    top: int,
    filters: Sequence[Filter] = (),
    hybrid: bool = False,
    exact: bool = False,
) -> list[Hit]:
    """The best rows for a question.

    Args:
        words: the question; vector: its unit vector (dim,) float32.
        hybrid: fuse the ranking by meaning with one by words.
        exact: look at every vector.
    """
    if not hybrid:
        return store.search(vector, top, filters, exact)
    depth = max(top, FUSED_DEPTH)
    by_meaning = store.search(vector, depth, filters, exact)
    return fuse([by_meaning, store.search_words(words, depth, filters)])[:top]


def fuse(rankings: Sequence[Sequence[Hit]]) -> list[Hit]:
    """One ranking of several: a row scores the sum of 1 / (60 + its rank), ranks from 1."""
    scores: dict[tuple[Key, str, int], float] = {}
    rows = {}
    for ranking in rankings:
        for rank, hit in enumerate(ranking, start=1):
            key = (hit.row.key, hit.row.content_hash, hit.row.number)
            scores[key] = scores.get(key, 0.0) + 1 / (RRF_K + rank)
            rows[key] = hit.row
    ranked = sorted(scores, key=lambda key: (-scores[key], key))
    return [Hit(scores[key], rows[key]) for key in ranked]
