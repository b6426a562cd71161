"""Calibration's parts: groups, codes, widths and derivatives, each against plain NumPy."""

from itertools import product

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import CHECKPOINTS, TINY

from mlx_stella.checkpoint.checkpoint import open_checkpoint
from mlx_stella.models.formats import Format
from mlx_stella.quantization import affine, gptq, stages
from mlx_stella.quantization.affine import Groups
from mlx_stella.quantization.allocate import WIDTHS, Choice, allocate, smallest
from mlx_stella.quantization.gptq import Hessian

TEXTS = ["Green tea is made from leaves.", "What is it?", "A walk in the woods, and back again."]


def inputs(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """(count, size) float32, channels correlated and of unlike power."""
    mixed = rng.standard_normal((count, size)) @ rng.standard_normal((size, size)) / size**0.5
    return (mixed * np.exp(rng.standard_normal(size))).astype(np.float32)


@pytest.fixture
def matrix():
    """A matrix (24, 256) and second moments of its inputs."""
    rng = np.random.default_rng(0)
    x = inputs(rng, 600, 256)
    weight = 0.05 * rng.standard_normal((24, 256)).astype(np.float32)
    return weight, Hessian(x.T @ x / len(x))


@given(
    bits=st.sampled_from(WIDTHS),
    group_size=st.sampled_from((32, 64, 128)),
    dtype=st.sampled_from((mx.float16, mx.bfloat16, mx.float32)),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_packed_groups_are_what_mlx_expands(bits, group_size, dtype, seed):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 2**bits, (3, 256)).astype(np.uint8)
    scales, biases = rng.standard_normal((2, 3, 256 // group_size)).astype(np.float32)
    groups = Groups(codes, scales, biases, Format(bits, group_size), dtype)
    groups.scales, groups.biases = groups.stored(scales), groups.stored(biases)
    packed = groups.pack()
    assert packed.weight.dtype == mx.uint32 and packed.scales.dtype == dtype
    np.testing.assert_array_equal(np.array(packed.expand()), groups.expand())


@pytest.mark.parametrize("bits", WIDTHS)
def test_searched_groups_are_closer_than_those_of_mlx(matrix, bits):
    weight, _ = matrix
    format = Format(bits, 64)
    ours = affine.search(weight, np.ones(256, np.float32), format, mx.float16).expand()
    theirs = mx.dequantize(*mx.quantize(mx.array(weight), **format.config), **format.config)
    assert np.square(ours - weight).sum() < np.square(np.array(theirs) - weight).sum()


def test_scales_too_small_for_float16_are_float32(matrix):
    weight, hessian = matrix
    kinds = {
        factor: gptq.solve(weight * factor, hessian, Format(8, 64), mx.float16).dtype
        for factor in (1.0, 1e-3, 1e6)
    }
    assert kinds == {1.0: mx.float16, 1e-3: mx.float32, 1e6: mx.float32}


@pytest.mark.parametrize("bits", WIDTHS)
def test_each_part_lowers_what_is_minimised(matrix, bits):
    weight, hessian = matrix
    format = Format(bits, 64)
    searched = affine.search(weight, np.diagonal(hessian.matrix), format, mx.float16)
    errors = [hessian.error(searched, weight).sum()]
    for rounds in (0, 1, 2):
        groups = gptq.solve(weight, hessian, format, mx.float16, rounds)
        errors.append(hessian.error(groups, weight).sum())
    assert errors[1] < 0.8 * errors[0]
    assert errors[1] > errors[2] > errors[3]


def test_the_error_is_that_of_products(monkeypatch):
    monkeypatch.setattr(gptq, "DAMPING", 0.0)
    rng = np.random.default_rng(1)
    x, weight = inputs(rng, 300, 64), rng.standard_normal((5, 64)).astype(np.float32)
    hessian = Hessian(x.T @ x)
    groups = gptq.solve(weight, hessian, Format(3, 32), mx.float32)
    off = x @ (groups.expand() - weight).T
    np.testing.assert_allclose(hessian.error(groups, weight), np.square(off).sum(0), rtol=1e-3)


def test_refitted_scales_are_the_least_squares_solution(matrix):
    weight, hessian = matrix
    groups = affine.search(weight, np.ones(256, np.float32), Format(3, 64), mx.float32)
    gptq._refit(groups, weight, hessian.matrix)
    root = np.linalg.cholesky(hessian.matrix.astype(np.float64)).T  # |root d|^2 = d H d
    for row in range(3):
        columns = np.zeros((256, 8))
        for group in range(4):
            own = slice(64 * group, 64 * group + 64)
            columns[own, group], columns[own, 4 + group] = groups.codes[row, own], 1.0
        best, *_ = np.linalg.lstsq(root @ columns, root @ weight[row], rcond=None)
        found = np.concatenate([groups.scales[row], groups.biases[row]])
        np.testing.assert_allclose(found, best, rtol=2e-3, atol=1e-5)


def test_no_single_code_could_be_better(matrix):
    weight, hessian = matrix
    groups = gptq.solve(weight[:2], hessian, Format(2, 64), mx.float32, rounds=0)
    for _ in range(30):
        gptq._descend(groups, weight[:2], hessian.matrix)
    least = hessian.error(groups, weight[:2])
    for column, code in product(range(0, 256, 7), range(4)):
        kept = groups.codes[:, column].copy()
        groups.codes[:, column] = code
        assert (hessian.error(groups, weight[:2]) >= least * (1 - 1e-4)).all()
        groups.codes[:, column] = kept


@pytest.mark.parametrize("power", [0.0, 1e-12, 1e12])
def test_inputs_that_are_dead_or_huge(matrix, power):
    weight, _ = matrix
    moments = np.zeros((256, 256), np.float32)
    moments[0, 0] = power
    groups = gptq.solve(weight, Hessian(moments), Format(4, 64), mx.float16)
    assert np.abs(groups.expand() - weight).max() < 0.05


@st.composite
def choices(draw):
    """Up to four matrices with convex losses."""
    found = {}
    for name in "abcd"[: draw(st.integers(1, 4))]:
        numbers, loss = draw(st.integers(1, 50)), draw(st.floats(0.01, 10.0))
        ratio = draw(st.floats(2.0, 4.5))
        losses = {bits: loss * ratio**-bits for bits in WIDTHS}
        found[name] = Choice({bits: numbers * bits for bits in WIDTHS}, losses)
    return found


@given(choices(), st.floats(0.0, 1.1))
@settings(max_examples=100, deadline=None)
def test_widths_are_near_the_best_of_all(found, share):
    least = smallest(found)
    budget = int(least + share * 3 * least)
    widths = allocate(found, budget)

    def total(widths, kind):
        return sum(getattr(found[name], kind)[bits] for name, bits in widths.items())

    assert total(widths, "sizes") <= budget
    every = (dict(zip(found, bits, strict=True)) for bits in product(WIDTHS, repeat=len(found)))
    best = min(total(w, "losses") for w in every if total(w, "sizes") <= budget)
    # By at most what one more widening would gain.
    gains = [
        found[name].losses[bits] - min(found[name].losses.values()) for name, bits in widths.items()
    ]
    assert total(widths, "losses") <= best + max(gains) + 1e-9


@pytest.mark.parametrize("name", TINY)
def test_derivatives_are_those_of_the_model(name):
    checkpoint = open_checkpoint(CHECKPOINTS / name)
    (batch,) = stages.batches(checkpoint, TEXTS)
    model = stages.Tapped(checkpoint)
    rng = np.random.default_rng(0)
    x = model.embed(batch)
    for step in model.steps(batch):
        output, uses = model.run(step, x)
        direction = mx.array(rng.standard_normal(output.shape), mx.float32)
        by_x, by_y = model.pull(step, x, direction)
        assert list(by_y) == [use.path for use in uses]
        change = mx.array(rng.standard_normal(x.shape), mx.float32)
        change = 1e-2 * change * mx.abs(x).mean()
        there, back = step(x + change), step(x - change)
        measured = float(((there - back) * direction).sum()) / 2
        scale = float(mx.linalg.norm(by_x) * mx.linalg.norm(change))
        assert abs(measured - float((by_x * change).sum())) < 0.02 * scale
        x = output


@pytest.mark.parametrize("name", TINY)
def test_steps_use_each_matrix_once(name):
    checkpoint = open_checkpoint(CHECKPOINTS / name)
    (batch,) = stages.batches(checkpoint, TEXTS)
    model = stages.Tapped(checkpoint)
    used = []
    x = model.embed(batch)
    for step in model.steps(batch):
        y, uses = model.run(step, x)
        if uses:  # a residual branch: its last product is added to x, maybe before a norm
            assert uses[-1].y.shape == x.shape and len(uses) == 2
        used += [use.path for use in uses]
        x = y
    assert sorted(used + model.embeddings) == sorted(model.layers)
