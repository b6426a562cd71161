"""A model taken step by step, its matrices within reach: what goes in, what comes out."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_unflatten

from mlx_stella.checkpoint.checkpoint import Checkpoint
from mlx_stella.encoding.batching import plan
from mlx_stella.encoding.padding import Batch, pad
from mlx_stella.encoding.prepared import prepare
from mlx_stella.encoding.settings import Settings
from mlx_stella.errors import WeightsError
from mlx_stella.machine import blas
from mlx_stella.models.layers import Backbone, Embedding, Step
from mlx_stella.models.products import Linear, Product

BATCH_TOKENS = 2048


@dataclass(frozen=True)
class Use:
    """A product or lookup as it was computed, lazily: x (B, L, D) or ids, and y (..., N)."""

    path: str
    x: mx.array
    y: mx.array


class Tap(nn.Module):
    """Stands in the place of a Linear or an Embedding, and notes its use."""

    def __init__(self, path: str, layer: Linear | Embedding, log: list[Use]):
        super().__init__()
        self.layer = layer
        self._path, self._log = path, log
        self._offset: mx.array | None = None

    dtype = operand_dtype = mx.float32

    def __call__(self, x: mx.array, residual: mx.array | None = None) -> mx.array:
        y = self.layer(x)
        if self._offset is not None:
            y = y + self._offset
        self._log.append(Use(self._path, x, y))
        return y if residual is None else residual + y

    def product(self, x: mx.array) -> Product:
        return Product(self(x))


class Tapped:
    """A float32 backbone whose matrices are read from disk when first used, and may be let go.

    Attributes:
        layers: the Linear and Embedding layers by path.
    """

    def __init__(self, checkpoint: Checkpoint, like: "Tapped | None" = None):
        """With ``like``: of the same arrays, which are not read twice."""
        blas.set_threads(os.cpu_count() or 1)  # nothing runs beside it
        self._checkpoint = checkpoint
        self._backbone: Backbone = checkpoint.lazy_backbone()
        self._log: list[Use] = []
        self._taps = {
            path: Tap(path, module, self._log)
            for path, module in self._backbone.named_modules()
            if isinstance(module, (Linear, Embedding))
        }
        self._backbone.update_modules(tree_unflatten(list(self._taps.items())))
        if like is not None:
            self._backbone.update(like._backbone.parameters())

    @property
    def layers(self) -> dict[str, Linear | Embedding]:
        return {path: tap.layer for path, tap in self._taps.items()}

    @property
    def embeddings(self) -> list[str]:
        """Paths of the Embedding layers."""
        return [path for path, layer in self.layers.items() if isinstance(layer, Embedding)]

    def embed(self, batch: Batch) -> mx.array:
        """(B, L, D)."""
        return self._backbone.embed(batch.input_ids)

    def steps(self, batch: Batch) -> list[Step]:
        """What follows the embeddings."""
        return list(self._backbone.steps(batch.input_ids.shape[1], batch.attention_mask))

    def run(self, step: Step, x: mx.array) -> tuple[mx.array, list[Use]]:
        """The step's output, and what it used, in order. Nothing is evaluated."""
        self._log.clear()
        return step(x), list(self._log)

    def pull(
        self, step: Step, x: mx.array, cotangent: mx.array
    ) -> tuple[mx.array, dict[str, mx.array]]:
        """Derivatives of <step(x), cotangent> by x, and by each y that the step used."""
        _, uses = self.run(step, x)
        taps = [self._taps[use.path] for use in uses]

        def shifted(x: mx.array, *offsets: mx.array) -> mx.array:
            for tap, offset in zip(taps, offsets, strict=True):
                tap._offset = offset
            return step(x)

        _, (by_x, *by_y) = mx.vjp(shifted, [x, *(mx.zeros_like(u.y) for u in uses)], [cotangent])
        for tap in taps:
            tap._offset = None
        mx.eval(by_x, by_y)
        return by_x, {use.path: g for use, g in zip(uses, by_y, strict=True)}

    def weight(self, path: str) -> np.ndarray:
        """The matrix (N, D) float32 of a layer.

        Raises:
            WeightsError: it holds a value that is not finite.
        """
        weight = np.asarray(self._taps[path].layer.weight)
        if not np.isfinite(weight).all():
            raise WeightsError(
                f"{path} holds a value that is not finite",
                where=self._checkpoint.backbone_directory,
                remedy="download the model again",
            )
        return weight

    def let_go(self, path: str) -> None:
        """Free a matrix that is not used any more."""
        self._taps[path].layer.weight = mx.zeros(1)
        mx.clear_cache()


def token_mask(batch: Batch) -> mx.array:
    """(B, L, 1) bool, True for tokens."""
    if batch.attention_mask is None:
        return mx.ones((*batch.input_ids.shape, 1), mx.bool_)
    return batch.attention_mask[..., None]


def batches(checkpoint: Checkpoint, texts: Sequence[str]) -> list[Batch]:
    """Texts as documents, in batches of like lengths.

    Raises:
        InputError: nothing of a text fits behind the prompt; it is numbered from 0.
    """
    prompts = checkpoint.prompts
    settings = Settings(
        prefix=prompts.choose(prompts.for_document(), None, None),
        sizes=(),
        normalize=False,
        max_length=checkpoint.max_seq_length,
        on_long="truncate",
        budget=BATCH_TOKENS,
    )
    prepared = prepare(checkpoint, checkpoint.load_tokenizer(), texts, settings)
    return [
        pad([prepared.ids[row] for row in rows], prepared.masked, checkpoint)
        for rows in plan(prepared.lengths, settings.budget)
    ]
