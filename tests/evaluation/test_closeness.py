"""How close vectors are, against plain loops; and weights that are not held in memory."""

import mlx.core as mx
import numpy as np
import pytest
from support import CHECKPOINTS, TINY, distance, load_tiny

from mlx_stella import InputError
from mlx_stella.checkpoint.checkpoint import open_checkpoint
from mlx_stella.evaluation.closeness import closeness, compare, vectors

TEXTS = ["What is Deep Learning?", "a", "green tea", "the light on the water"]


def test_closeness_against_loops():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((40, 6)).astype(np.float32)
    b = a + 0.3 * rng.standard_normal((40, 6)).astype(np.float32)
    cosines, lengths, kept = [], [], []

    def cosine(x, y):
        return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))

    for i in range(40):
        cosines.append(cosine(a[i], b[i]))
        lengths.append(np.linalg.norm(a[i] - b[i]) / np.linalg.norm(a[i]))
        others = [j for j in range(40) if j != i]
        nearest = [set(sorted(others, key=lambda j: -cosine(m[i], m[j]))[:10]) for m in (a, b)]
        kept.append(len(nearest[0] & nearest[1]) / 10)
    found = closeness(a, b)
    assert found.mean == pytest.approx(np.mean(cosines), abs=1e-6)
    assert found.worst == pytest.approx(min(cosines), abs=1e-6)
    assert found.percentile_1 == pytest.approx(np.percentile(cosines, 1), abs=1e-6)
    assert found.relative_l2 == pytest.approx(np.mean(lengths), abs=1e-6)
    assert found.neighbours_kept == pytest.approx(np.mean(kept))


def test_few_rows_have_fewer_neighbours():
    rows = np.eye(3, dtype=np.float32)
    assert closeness(rows, rows).neighbours_kept == 1


@pytest.mark.parametrize("name", TINY)
def test_weights_read_for_each_batch_give_the_same_vectors(name):
    checkpoint = open_checkpoint(CHECKPOINTS / name)
    found = vectors(checkpoint, TEXTS, [checkpoint.default_dim])[checkpoint.default_dim]
    expected = load_tiny(name).encode_document(TEXTS, normalize=False)
    assert distance(found, expected) < 1e-6


def test_no_weights_are_held_between_batches():
    checkpoint = open_checkpoint(CHECKPOINTS / "tiny-stella-1.5b")
    before = mx.get_active_memory()
    kept = vectors(checkpoint, TEXTS, [1024])
    # The default head alone stays, as long as the encoder did.
    assert mx.get_active_memory() - before < 1e5 and kept[1024].shape == (4, 1024)


def test_what_cannot_be_compared():
    stella, zh = (open_checkpoint(CHECKPOINTS / f"tiny-{n}") for n in ("stella-1.5b", "nv-embed"))
    with pytest.raises(InputError, match="nothing to compare"):
        compare(stella, zh, TEXTS)
    with pytest.raises(InputError, match="too few"):
        compare(stella, stella, TEXTS[:1])
