"""Texts of a stream, some thousand at a time."""

from collections.abc import Iterable, Iterator
from itertools import islice

WINDOW_TEXTS = 2048
"""Texts tokenized at once; among them batches of like lengths are formed."""


def windows(texts: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Cut a stream into lists of texts, each with the number of its first one."""
    iterator, first = iter(texts), 0
    while rows := list(islice(iterator, WINDOW_TEXTS)):
        yield first, rows
        first += len(rows)
