"""Texts of a stream, some thousand at a time: tokenized, checked, and filled with vectors."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from mlx_stella.checkpoint.tokenization import Tokens
from mlx_stella.encoding.settings import OnLong
from mlx_stella.errors import InputError, TextTooLongError, VectorError

WINDOW_TEXTS = 2048
"""Texts tokenized at once; among them batches of like lengths are formed."""


@dataclass
class Window:
    """Some texts of a stream: the number of the first, their tokens, and vectors as they come."""

    first: int
    tokens: Sequence[Tokens]
    vectors: dict[int, np.ndarray]
    done: int = 0


def windows(texts: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Cut a stream into lists of texts, each with the number of its first one."""
    iterator, first = iter(texts), 0
    while rows := list(islice(iterator, WINDOW_TEXTS)):
        yield first, rows
        first += len(rows)


def check_lengths(
    tokens: Sequence[Tokens], first: int, limit: int, masked: int, on_long: OnLong
) -> None:
    """Refuse texts that are too long, if asked to, or of which nothing is left to pool.

    Raises:
        TextTooLongError, InputError: the row is named.
    """
    for row, text in enumerate(tokens, start=first):
        if on_long == "error" and text.untruncated_length > limit:
            raise TextTooLongError(
                f"{text.untruncated_length} tokens exceed {limit}",
                row=row,
                remedy="raise the maximal length, shorten it, or let it be truncated",
            )
        if len(text.ids) <= masked:
            raise InputError(
                f"nothing of it fits behind the prompt of {masked} tokens",
                row=row,
                remedy="a larger max_length or a shorter prompt",
            )


def check_vectors(vectors: np.ndarray, rows: Sequence[int], dtype: str) -> None:
    """Refuse vectors that are not finite, or zero: they would poison whatever stores them."""
    bad = ~np.isfinite(vectors).all(axis=1) | ~vectors.any(axis=1)
    if bad.any():
        remedy = "check the checkpoint" if dtype == "float32" else "use the dtype float32"
        raise VectorError(
            "the model gave a vector that is not finite, or is zero",
            row=rows[int(bad.argmax())],
            remedy=remedy,
        )
