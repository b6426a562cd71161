"""What a calibrated conversion is given: texts, the widths they lead to, the memory they take."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

import mlx.core as mx
import numpy as np

from mlx_stella.checkpoint.checkpoint import Checkpoint
from mlx_stella.conversion.plan import Piece, layer_of
from mlx_stella.conversion.rounding import Calibrated
from mlx_stella.encoding.memory import Memory
from mlx_stella.models.formats import Format
from mlx_stella.quantization import sensitivity
from mlx_stella.quantization.affine import ROWS_AT_ONCE
from mlx_stella.quantization.allocate import WIDTHS, Choice, allocate, smallest
from mlx_stella.quantization.calibrate import calibrate
from mlx_stella.quantization.sensitivity import Sensitivities
from mlx_stella.quantization.stages import BATCH_TOKENS, Tapped, batches

MOST_TEXTS = 1000
"""More are drawn from; 300 were enough for all-MiniLM-L6-v2, and each takes time and memory."""

_HELD_BYTES = 2**30  # hidden states before all steps at once, of as many texts as that allows

# Arrays that are alive at once, counted in the code: of the largest matrices, of second moments
# of inputs, and of the rows that are quantized at once.
_MATRIX_COPIES, _SQUARE_COPIES, _ROW_COPIES = 6, 8, 10
_PROCESS_BYTES = 250_000_000  # Python, MLX and tokenizer


@dataclass(frozen=True)
class Texts:
    """Texts, and words that say where they are from."""

    texts: Sequence[str]
    source: str


class Calibration:
    """Texts to calibrate a checkpoint on.

    Attributes:
        texts: those that are used.
        seed: of what is drawn: texts if there are many, directions, rows.
    """

    def __init__(self, checkpoint: Checkpoint, texts: Texts, seed: int):
        """Raises InputError if a text cannot be used."""
        chosen = np.random.default_rng(seed).permutation(len(texts.texts))[:MOST_TEXTS]
        self.texts = Texts([texts.texts[row] for row in chosen], texts.source)
        self.seed = seed
        self._checkpoint = checkpoint
        self._batches = batches(checkpoint, self.texts.texts)
        self._steps = len(Tapped(checkpoint).steps(self._batches[0])) + 1

    @property
    def _state_bytes(self) -> int:
        """Of the hidden states of all texts, at one place."""
        tokens = sum(batch.input_ids.size for batch in self._batches)
        return 4 * tokens * self._checkpoint.args.hidden_size

    @property
    def memory_bytes(self) -> int:
        """Resident at most: hidden states, the two largest matrices, and work on one of them."""
        checkpoint = self._checkpoint
        shapes = [assembly.shape for assembly in checkpoint.assemblies if len(assembly.shape) == 2]
        sizes = sorted(N * D for N, D in shapes)
        columns = max(D for _, D in shapes)
        rows = _ROW_COPIES * max(min(N, ROWS_AT_ONCE) * D for N, D in shapes)
        work = _MATRIX_COPIES * sum(sizes[-2:]) + _SQUARE_COPIES * columns**2 + rows
        length = min(checkpoint.max_seq_length, max(b.input_ids.shape[1] for b in self._batches))
        batch = Memory(checkpoint.args, 0).peak(length, BATCH_TOKENS)
        states = max(3 * self._state_bytes, min(_HELD_BYTES, self._steps * self._state_bytes))
        return _PROCESS_BYTES + states + 4 * work + batch

    def measure(
        self, formats: Sequence[Format], dtype: mx.Dtype, report: Callable[[int, int], None]
    ) -> Sensitivities:
        """What each matrix would lose in each format; without any, how embeddings are read."""
        stride = ceil(self._steps * self._state_bytes / _HELD_BYTES)
        some = self._batches[::stride]
        return sensitivity.measure(self._checkpoint, some, formats, dtype, self.seed, report)

    def matrices(
        self,
        formats: Mapping[str, Format],
        sensitivities: Sensitivities,
        dtype: mx.Dtype,
        report: Callable[[int, int], None],
    ) -> Calibrated:
        """The quantized matrices, see :func:`mlx_stella.quantization.calibrate.calibrate`."""
        metrics = sensitivities.metrics
        return calibrate(self._checkpoint, self._batches, formats, metrics, dtype, report)


def widths(
    pieces: Sequence[Piece],
    losses: Mapping[str, Mapping[int, float]],
    budget_bytes: int,
    dtype: str,
) -> dict[str, int]:
    """Bits by layer of the model, so that all pieces together take at most the budget.

    Args:
        pieces: planned in any width; vectors and what is not quantized are counted as they are.
    """
    choices, fixed = _choices(pieces, losses, dtype)
    return allocate(choices, budget_bytes - fixed)


def least_bytes(pieces: Sequence[Piece], dtype: str) -> int:
    """Of all pieces, with the smallest widths."""
    choices, fixed = _choices(pieces, {}, dtype)
    return fixed + smallest(choices)


def _choices(
    pieces: Sequence[Piece], losses: Mapping[str, Mapping[int, float]], dtype: str
) -> tuple[dict[str, Choice], int]:
    """What can be chosen, and the bytes of everything else."""
    sizes: dict[str, dict[int, int]] = {}
    fixed = 0
    for piece in pieces:
        if piece.format is None:
            fixed += piece.size_bytes(dtype)
            continue
        layer = sizes.setdefault(layer_of(piece.assembly), dict.fromkeys(WIDTHS, 0))
        for width in WIDTHS:
            layer[width] += replace(piece, format=replace(piece.format, bits=width)).size_bytes(
                dtype
            )
    return {path: Choice(size, losses.get(path, {})) for path, size in sizes.items()}, fixed
