"""How far each matrix at each width would move a model's vectors: one pass forward, one back.

With v the vector of a text at unit length, a product y = W x whose W is off by E moves it by
``sum_t (dv/dy_t) E x_t`` over the tokens t. Taking errors of different tokens and of different
outputs n as independent, the expected square of that is ::

    loss = sum_n  s_n  E_n H E_n^T,    s_n = sum_t |dv/dy_tn|^2,    H = mean_t x_t x_t^T

and half of it is what the cosine loses. |dv/dy|^2 is taken along a random direction a text, which
gives it in the mean. E is measured: rows drawn from the matrix are quantized at each width.

For a lookup y is a row of the table, and ``sum_t E_y D E_y^T`` with D = (dv/dy)^T (dv/dy) is what
an error of it costs: D is the metric in which embeddings are quantized.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlx_stella.checkpoint.checkpoint import Checkpoint
from mlx_stella.encoding.padding import Batch
from mlx_stella.models import heads
from mlx_stella.models.formats import Format
from mlx_stella.models.layers import Step
from mlx_stella.quantization import gptq
from mlx_stella.quantization.gptq import Hessian
from mlx_stella.quantization.stages import Tapped, token_mask

_ROWS = 128  # drawn from a product's matrix
_TABLE_ROWS = 1024  # drawn from embeddings, whose rows differ more


@dataclass(frozen=True)
class Sensitivities:
    """Of a model.

    Attributes:
        losses: path of a layer -> bits -> expected squared distance of unit vectors.
        metrics: path of an embedding -> (D, D), the mean of D above.
    """

    losses: dict[str, dict[int, float]]
    metrics: dict[str, np.ndarray]


@dataclass(frozen=True)
class _Errors:
    """Of rows that were drawn: their numbers (n,), and bits -> E_n H E_n^T (n,)."""

    rows: np.ndarray
    of_width: dict[int, np.ndarray]


def measure(
    checkpoint: Checkpoint,
    todo: Sequence[Batch],
    formats: Sequence[Format],
    dtype: mx.Dtype,
    seed: int,
    report: Callable[[int, int], None],
) -> Sensitivities:
    """Losses for the widths of some formats (none: metrics only); hidden states are all held.

    Raises:
        WeightsError: a matrix is not finite.
    """
    rng = np.random.default_rng(seed)
    model = Tapped(checkpoint)
    inputs = [[model.embed(batch)] for batch in todo]
    mx.eval(inputs)
    for path in model.embeddings:
        model.let_go(path)
    steps = [model.steps(batch) for batch in todo]
    errors: dict[str, _Errors] = {}
    total = len(steps[0])
    for number in range(total):
        for path, hessian in _advance(model, todo, steps, number, inputs).items():
            errors[path] = _errors(model.weight(path), hessian, _ROWS, formats, dtype, rng)
            model.let_go(path)
        report(number + 1, 2 * total)

    model = Tapped(checkpoint)  # the weights are read again on the way back
    steps = [model.steps(batch) for batch in todo]
    texts = sum(len(batch.input_ids) for batch in todo)
    cotangents = [_directions(checkpoint, *pair, rng) for pair in zip(todo, inputs, strict=True)]
    losses: dict[str, dict[int, float]] = {}
    for number in reversed(range(total)):
        squares: dict[str, mx.array] = {}
        for i in range(len(todo)):
            cotangents[i], by_y = model.pull(steps[i][number], inputs[i].pop(), cotangents[i])
            for path, g in by_y.items():
                squares[path] = squares.get(path, 0.0) + mx.square(g).sum((0, 1))
            mx.eval(squares)
        for path, square in squares.items():
            losses[path] = _losses(errors[path], np.array(square) / texts)
            model.let_go(path)
        report(2 * total - number, 2 * total)

    metrics: dict[str, mx.array] = {}
    for batch, cotangent in zip(todo, cotangents, strict=True):
        _, by_y = model.pull(_embedding(model, batch), mx.zeros(1), cotangent)
        for path, g in by_y.items():
            g = g.reshape(-1, g.shape[-1])
            metrics[path] = metrics.get(path, 0.0) + g.T @ g
        mx.eval(metrics)
    whole = {path: np.array(metric) / texts for path, metric in metrics.items()}
    for path, metric in whole.items():
        table = model.weight(path)
        found = _errors(table, Hessian(metric), _TABLE_ROWS, formats, dtype, rng)
        losses[path] = {bits: float(error.mean()) for bits, error in found.of_width.items()}
    return Sensitivities(losses, whole)


def _advance(
    model: Tapped,
    todo: Sequence[Batch],
    steps: Sequence[Sequence[Step]],
    number: int,
    inputs: list[list[mx.array]],
) -> dict[str, Hessian]:
    """Take a step: its outputs become inputs; the moments of what went into its products."""
    moments: dict[str, mx.array] = {}
    count = 0
    for i, batch in enumerate(todo):
        output, uses = model.run(steps[i][number], inputs[i][-1])
        mask = token_mask(batch)
        count += int(mask.sum())
        for use in uses:
            x = mx.where(mask, use.x, 0.0).flatten(0, 1)
            moments[use.path] = moments.get(use.path, 0.0) + x.T @ x
        inputs[i].append(output)
        mx.eval(output, moments)
    return {path: Hessian(np.array(moment) / count) for path, moment in moments.items()}


def _embedding(model: Tapped, batch: Batch) -> Step:
    """The embedding of a batch as a step, which looks at no state."""
    return lambda _: model.embed(batch)


def _directions(
    checkpoint: Checkpoint, batch: Batch, states: list[mx.array], rng: np.random.Generator
) -> mx.array:
    """The derivative of each text's unit vector, along a random direction, by the last states."""
    hidden = states.pop()
    texts, _, size = hidden.shape
    direction = mx.array(rng.standard_normal((texts, size)), mx.float32)

    def vectors(hidden: mx.array) -> mx.array:
        return heads.normalize(heads.pool(hidden, batch.pooling_mask, checkpoint.pooling))

    _, (cotangent,) = mx.vjp(vectors, [hidden], [direction])
    mx.eval(cotangent)
    return cotangent


def _errors(
    weight: np.ndarray,
    hessian: Hessian,
    count: int,
    formats: Sequence[Format],
    dtype: mx.Dtype,
    rng: np.random.Generator,
) -> _Errors:
    """What quantizing does to rows drawn from a matrix."""
    rows = rng.choice(len(weight), min(count, len(weight)), replace=False)
    sample = weight[rows]
    errors = {
        format.bits: hessian.error(gptq.solve(sample, hessian, format, dtype, rounds=1), sample)
        for format in formats
    }
    return _Errors(rows, errors)


def _losses(errors: _Errors, squares: np.ndarray) -> dict[int, float]:
    """Bits -> loss, from s_n (N,) of all outputs and the errors of those drawn."""
    share = len(errors.rows) / len(squares)
    return {
        bits: float((squares[errors.rows] * error).sum() / share)
        for bits, error in errors.of_width.items()
    }
