"""How much memory a run takes, known before it starts, and the limits that MLX is held to.

The peak is the weights and, for each batch that is computed at the same time, some buffers of the
widest array of a layer: MLX allocates ahead of what it computes, so several are alive at once.
How many was measured with MiniLM, a GTE, a Qwen2 and an NV-Embed layout on a CPU, texts of 16 to
512 tokens and batches of 512 to 8,192: 7.4 to 8.3 of the MLP's. Of the scores of attention, for so
many queries as are taken at once, 12 to 22 (tiny layouts, texts of 128 to 1,800 tokens). A GPU
holds no scores; what is added to them (MPNet) is held once, whole. The rest is taken to be alike on
a GPU, not measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from mlx_stella.encoding import pipeline
from mlx_stella.encoding.batching import CPU_BATCH_TOKENS, GPU_BATCH_TOKENS, apple_batch_tokens
from mlx_stella.errors import MemoryLimitError
from mlx_stella.models import cpu
from mlx_stella.models.args import BackboneArgs

_MLP_BUFFERS = 7.8
_SCORE_BUFFERS = 23
_FLOAT32_BYTES = 4
_WORKING_SET = "max_recommended_working_set_size"  # a key of mx.device_info


@dataclass(frozen=True)
class Memory:
    """What a model takes, and what it may take.

    Attributes:
        args: sizes of the backbone.
        weights: bytes of its parameters.
        limit: bytes that weights and batches may take together; None for no limit but MLX's own.
    """

    args: BackboneArgs
    weights: int
    limit: int | None = None

    def peak(self, length: int, batch_tokens: int | None = None) -> int:
        """Bytes at most while texts of ``length`` tokens are embedded; within 15 % on a CPU."""
        tokens = max(length, batch_tokens or self.batch_tokens(length))
        widest = _MLP_BUFFERS * tokens * self.args.layer_width
        if cpu.is_needed():
            queries = min(length, cpu.QUERIES_AT_ONCE)
            scores = tokens * queries * self.args.num_attention_heads
            widest = max(widest, _SCORE_BUFFERS * scores)
        if self.args.adds_to_scores:
            widest += tokens * length * self.args.num_attention_heads
        return self.weights + int(pipeline.width() * widest * _FLOAT32_BYTES)

    def batch_tokens(self, length: int) -> int:
        """Padded tokens a batch: what suits the device, or fewer, so that the limit holds.

        On a Mac batches take at most a quarter of the memory that the system recommends for a GPU:
        two are in flight, and other programs have the screen to draw.
        """
        tokens = CPU_BATCH_TOKENS if cpu.is_needed() else GPU_BATCH_TOKENS
        room = float("inf") if self.limit is None else self.limit
        if gpu := _apple_gpu():
            tokens = apple_batch_tokens(gpu["device_name"])
            room = min(room, self.weights + gpu[_WORKING_SET] // 4)
        while tokens > length and self.peak(length, tokens) > room:
            tokens //= 2
        return tokens

    def check(self, lengths: Sequence[int], first: int) -> None:
        """Refuse a text that the limit has no room for, even alone.

        Raises:
            MemoryLimitError: the row is named, counted from ``first``.
        """
        longest = max(lengths)
        if self.limit is not None and (needed := self.peak(longest, longest)) > self.limit:
            raise MemoryLimitError(
                f"{longest} tokens need {needed / 1e9:.2f} GB, the memory limit is "
                f"{self.limit / 1e9:.2f} GB",
                row=first + list(lengths).index(longest),
                remedy="a higher limit, or a smaller max_length, which cuts the text",
            )

    def apply(self, length: int) -> None:
        """Hold MLX to these limits, for texts of ``length`` tokens. They are the process's own.

        Freed buffers are kept for one set of batches: by default MLX keeps all it ever used on a
        GPU, and 32 MB on a CPU, where new pages then cost more than the arithmetic.

        Raises:
            MemoryLimitError: the weights alone exceed the limit.
        """
        if self.limit is not None:
            if self.weights >= self.limit:
                raise MemoryLimitError(
                    f"the weights take {self.weights / 1e9:.2f} GB, the memory limit is "
                    f"{self.limit / 1e9:.2f} GB",
                    remedy="a higher limit, or a smaller dtype",
                )
            mx.set_memory_limit(self.limit)
        peak = self.peak(length)
        mx.set_cache_limit(peak - self.weights)
        if gpu := _apple_gpu():  # keep the weights resident between calls
            mx.set_wired_limit(min(peak, gpu[_WORKING_SET]))


def recommended_bytes() -> int | None:
    """What a Mac recommends the programs on its GPU to take; None elsewhere."""
    gpu = _apple_gpu()
    return int(gpu[_WORKING_SET]) if gpu else None


def _apple_gpu() -> dict[str, Any] | None:
    """What MLX knows of a Mac's GPU, also where the default device is the CPU."""
    return mx.device_info(mx.gpu) if mx.metal.is_available() else None
