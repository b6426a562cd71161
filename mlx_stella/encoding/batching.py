"""Which texts go through the model together.

Knows token counts and a budget, nothing about texts or models.
"""

from collections.abc import Sequence

GPU_BATCH_TOKENS = 8192
"""Padded tokens per batch on a GPU other than Apple's. Not measured: no GPU was at hand."""

CPU_BATCH_TOKENS = 512
"""On a CPU: hidden states stay in the cache (of 256 to 2048, 512 was the fastest)."""

_LEAST_FILL = 0.8
"""A row joins a batch if it has at least this share of the batch's longest row ..."""

_SMALL_BATCH_TOKENS = 512
"""... or if the batch stays this small: below it, one more batch costs more than its padding."""


def apple_batch_tokens(device_name: str) -> int:
    """Padded tokens per batch on Apple's GPUs, by the name that the device has.

    2,048 rows fill the matrix units of the base and Pro chips; with more, one product of NV-Embed
    takes an M1 a good part of a second, and the system ends what holds up the screen for long.
    """
    return 4096 if device_name.endswith(("Max", "Ultra")) else 2048


def fit(longest: int, shortest: int, count: int, max_batch_tokens: int) -> bool:
    """Whether so many rows, of lengths from the shortest to the longest, make one batch."""
    cost = longest * count
    is_full = shortest >= _LEAST_FILL * longest or cost <= _SMALL_BATCH_TOKENS
    return is_full and cost <= max_batch_tokens


def plan(lengths: Sequence[int], max_batch_tokens: int) -> list[list[int]]:
    """Group rows so that little is padded and no batch exceeds the budget.

    Rows are taken longest first, which puts rows of like length together and makes the first
    batch the largest: if memory runs out, it does so at the start. A batch of n rows whose
    longest has L tokens costs ``n * L`` padded tokens.

    Args:
        lengths: tokens of each row.
        max_batch_tokens: padded tokens a batch may cost. A single row that costs more goes alone.

    Returns:
        Lists of row numbers; each row occurs exactly once.
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if batches:
            batch = batches[-1]
            if fit(lengths[batch[0]], lengths[row], len(batch) + 1, max_batch_tokens):
                batch.append(row)
                continue
        batches.append([row])
    return batches
