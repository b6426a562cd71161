"""Token ids of unlike lengths as one batch, and the two masks that tell what is real."""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlx_stella.checkpoint.checkpoint import Checkpoint
from mlx_stella.errors import ConfigError


@dataclass(frozen=True)
class Batch:
    """What goes through a model at once.

    Attributes:
        input_ids: (B, L) int32, padded on the right.
        attention_mask: (B, L) bool, True for tokens; None if nothing is padded.
        pooling_mask: (B, L) bool, True for tokens that are pooled; None if all are.
    """

    input_ids: mx.array
    attention_mask: mx.array | None
    pooling_mask: mx.array | None


def pad(ids: Sequence[Sequence[int]], masked: int, checkpoint: Checkpoint) -> Batch:
    """A batch of texts by their token ids, the first ``masked`` of which are not pooled.

    Raises:
        ConfigError: an id lies beyond the model's vocabulary.
    """
    lengths = np.array([len(row) for row in ids])
    length = lengths.max()
    padded = np.zeros((len(ids), length), np.int32)  # id 0 exists everywhere; it is masked out
    for row, row_ids in enumerate(ids):
        padded[row, : len(row_ids)] = row_ids
    if padded.max() >= (vocabulary := checkpoint.args.vocab_size):
        raise ConfigError(
            f"gives token {padded.max()}, beyond the model's vocabulary of {vocabulary}",
            where=checkpoint.backbone_directory / "tokenizer.json",
            remedy="download the repository again, whole",
        )
    positions = np.arange(length)
    attention_mask = pooling_mask = None
    if lengths.min() < length:
        attention_mask = pooling_mask = mx.array(positions < lengths[:, None])
    if masked:
        pooling_mask = mx.array((positions < lengths[:, None]) & (positions >= masked))
    return Batch(mx.array(padded), attention_mask, pooling_mask)
