"""Quantize a model step by step, each matrix on what the quantized ones before it hand it.

Two models walk side by side: the original with hidden states r, and the one that is quantized so
far, with states q. The matrix W of a product is replaced by the quantized one Q that minimises ::

    sum_t |Q x_t + b - y_t|^2  +  |(Q - W) A^(1/2)|^2

with x_t the quantized model's inputs and y_t the original's outputs at the tokens t, so that it
mends what was lost before it; the last product of a residual branch, whose output is added to the
state, gets y_t + r_t - q_t and mends the state as well. A, the damping of
:class:`mlx_stella.quantization.gptq.Hessian`, keeps W near what it was. A bias b, where there is
one, is chosen along with Q. All of that needs sums of products of x and y only: with their second
moments H and C, the best unquantized matrix is ``(C + W A) (H + A)^-1``, and what quantizing adds
to the sum is measured by ``H + A``, which is what :mod:`mlx_stella.quantization.gptq` takes.

Only the weights of the step at hand are held.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlx_stella.checkpoint.checkpoint import Checkpoint
from mlx_stella.encoding.padding import Batch
from mlx_stella.models.formats import Format
from mlx_stella.models.layers import Step
from mlx_stella.models.quantized import Packed
from mlx_stella.quantization import gptq
from mlx_stella.quantization.gptq import Hessian
from mlx_stella.quantization.stages import Tapped, token_mask


@dataclass
class _Side:
    """One of the two models: its steps and hidden states, batch by batch."""

    model: Tapped
    steps: list[list[Step]]
    states: list[mx.array]


@dataclass(frozen=True)
class _Moments:
    """Of inputs x (T, D) of a product and of what its outputs y (T, N) should be: means.

    The second moments ``xx`` and ``xy`` are about the means, if there is a bias to take those.
    """

    x: np.ndarray
    y: np.ndarray
    xx: np.ndarray
    xy: np.ndarray


def calibrate(
    checkpoint: Checkpoint,
    todo: Sequence[Batch],
    formats: Mapping[str, Format],
    metrics: Mapping[str, np.ndarray],
    dtype: mx.Dtype,
    report: Callable[[int, int], None],
) -> Iterator[tuple[str, Packed, mx.array | None]]:
    """Quantized matrices of a model, one after another, in the order in which it uses them.

    Args:
        todo: the texts; their hidden states are held twice.
        formats: by path of a layer.
        metrics: of embeddings, see :class:`mlx_stella.quantization.sensitivity.Sensitivities`.
        dtype: of stored scales and biases.
        report: told how many steps are done, of how many.

    Yields:
        Path of the layer, its matrix, and its bias (N,) float32 if that was changed.

    Raises:
        WeightsError: a matrix is not finite.
    """
    original = Tapped(checkpoint)
    quantized = Tapped(checkpoint, like=original)
    for path, metric in metrics.items():
        groups = gptq.solve(original.weight(path), Hessian(metric), formats[path], dtype)
        quantized.layers[path].weight = mx.array(groups.expand())
        yield path, groups.pack(), None
    sides = [
        _Side(model, [model.steps(batch) for batch in todo], [model.embed(b) for b in todo])
        for model in (original, quantized)
    ]
    mx.eval([side.states for side in sides])
    for path in metrics:
        _let_go(sides, path)
    total = len(sides[0].steps[0])
    for number in range(total):
        _, uses = original.run(sides[0].steps[0][number], sides[0].states[0])
        for position, use in enumerate(uses):
            is_centred = "bias" in quantized.layers[use.path]
            is_last = position == len(uses) - 1
            moments = _moments(todo, sides, number, position, is_last, is_centred)
            yield use.path, *_replace(quantized, use.path, moments, formats[use.path], dtype)
        for side in sides:
            for i, state in enumerate(side.states):
                side.states[i], _ = side.model.run(side.steps[i][number], state)
                mx.eval(side.states[i])
        for use in uses:
            _let_go(sides, use.path)
        report(number + 1, total)


def _let_go(sides: Sequence[_Side], path: str) -> None:
    for side in sides:
        side.model.let_go(path)


def _moments(
    todo: Sequence[Batch],
    sides: Sequence[_Side],
    number: int,
    position: int,
    is_last: bool,
    is_centred: bool,
) -> _Moments:
    """Of one product of a step: what it is handed, and what it should give."""
    original, quantized = sides
    count, sums = 0, [mx.array(0.0)] * 4
    origins: list[mx.array] = []
    for i, batch in enumerate(todo):
        r, q = original.states[i], quantized.states[i]
        y = original.model.run(original.steps[i][number], r)[1][position].y
        x = quantized.model.run(quantized.steps[i][number], q)[1][position].x
        if is_last:
            y = y + r - q
        mask = token_mask(batch)
        count += int(mask.sum())
        if not origins:  # near the means from the start: what varies may be little beside them
            share = mask / mask.sum() if is_centred else mx.zeros_like(mask)
            origins = [(array * share).sum((0, 1)) for array in (x, y)]
        x, y = (
            mx.where(mask, array - origin, 0.0).flatten(0, 1)
            for array, origin in zip((x, y), origins, strict=True)
        )
        new = (x.sum(0), y.sum(0), x.T @ x, x.T @ y)
        sums = [total + array for total, array in zip(sums, new, strict=True)]
        mx.eval(sums, origins)
    mean_x, mean_y, xx, xy = (np.array(total) / count for total in sums)
    if is_centred:
        xx, xy = xx - np.outer(mean_x, mean_x), xy - np.outer(mean_x, mean_y)
    return _Moments(mean_x + np.array(origins[0]), mean_y + np.array(origins[1]), xx, xy)


def _replace(
    model: Tapped, path: str, moments: _Moments, format: Format, dtype: mx.Dtype
) -> tuple[Packed, mx.array | None]:
    """Quantize a product's matrix, and its bias if it has one; both take their place."""
    layer, weight = model.layers[path], model.weight(path)
    hessian = Hessian(moments.xx)
    right = moments.xy + hessian.added[:, None] * weight.T
    target = np.ascontiguousarray(np.linalg.solve(hessian.matrix, right).T)
    groups = gptq.solve(target, hessian, format, dtype)
    expanded = groups.expand()
    layer.weight = mx.array(expanded)
    if "bias" not in layer:
        return groups.pack(), None
    layer.bias = mx.array(moments.y - expanded @ moments.x)
    return groups.pack(), layer.bias
