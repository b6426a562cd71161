"""Rows to vectors; the rows that the model cannot embed are found and left out."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

import numpy as np

from mlx_stella.bulk.parts import Numbered
from mlx_stella.encoding.windows import WINDOW_TEXTS
from mlx_stella.errors import InputError, MemoryLimitError, VectorError
from mlx_stella.files.tables import Fault, TableRow

Embed = Callable[[Iterable[str]], Iterator[np.ndarray]]
"""Texts to blocks of their vectors (n, dim) float32, in order: ``Encoder.encode_stream``."""

Fail = Callable[[int, Fault], None]
Block = tuple[Sequence[Numbered], np.ndarray]


def embed_rows(
    rows: Iterator[tuple[int, TableRow | Fault]], embed: Embed, fail: Fail
) -> Iterator[Block]:
    """Embed the rows of a part.

    The texts go through the model in one stream. Where that breaks off over a text, the window
    of texts it stands in is halved until it is found, and the stream goes on behind the window.

    Args:
        fail: called for each row that has no vector, with its number and the reason.

    Yields:
        Rows, in their order, and their vectors (n, dim) float32.

    Raises:
        InputError: ``rows`` did; what the texts raise is passed to ``fail``.
        MemoryLimitError: a text is beyond the limit; that is no fault of the text, as another
            run may have a higher one.
    """
    waiting: deque[Numbered] = deque()
    unreadable: list[InputError] = []

    def texts(source: Iterable[tuple[int, TableRow | Fault]]) -> Iterator[str]:
        try:
            for number, row in source:
                if isinstance(row, Fault):
                    fail(number, row)
                else:
                    waiting.append((number, row))
                    yield row.text
        except InputError as error:
            unreadable.append(error)
            raise

    again: Sequence[Numbered] = ()
    while True:
        try:
            for vectors in embed(texts(chain(again, rows))):
                yield [waiting.popleft() for _ in vectors], vectors
            return
        except (InputError, VectorError):
            if unreadable:
                raise
            window = [waiting.popleft() for _ in range(min(len(waiting), WINDOW_TEXTS))]
            yield from _halve(window, embed, fail)
            again = list(waiting)
            waiting.clear()


def _halve(rows: Sequence[Numbered], embed: Embed, fail: Fail) -> Iterator[Block]:
    try:
        blocks = list(embed([row.text for _, row in rows]))
    except (InputError, VectorError) as error:
        if len(rows) == 1:
            ((number, row),) = rows
            if isinstance(error, MemoryLimitError):
                where = f"row {number} (line {row.line})"
                raise MemoryLimitError(error.fault, where=where, remedy=error.remedy) from None
            fail(number, Fault.of(row.line, row.record, error))
            return
        middle = len(rows) // 2
        yield from _halve(rows[:middle], embed, fail)
        yield from _halve(rows[middle:], embed, fail)
        return
    yield rows, np.concatenate(blocks)
