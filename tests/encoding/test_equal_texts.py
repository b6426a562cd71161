"""Equal texts go through the model once, wherever they stand; every row has its vector."""

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as drawn
from hypothesis import strategies as st
from support import distance, load_tiny
from support.bulk import same_bits

from mlx_stella import Encoder, Prepared, VectorError
from mlx_stella.checkpoint.checkpoint import open_checkpoint
from mlx_stella.encoding import windows

TEXTS = ["tea", "keys", "tea", "", "green tea " * 9, "keys", "tea", ""]


@pytest.fixture
def counted(monkeypatch):
    """A model, and the rows that went through it."""
    model = Encoder(open_checkpoint(load_tiny("tiny-stella-zh-v2").checkpoint.directory), "float32")
    backbone, rows = model._backbone, []

    def count(input_ids, attention_mask):
        rows.extend(range(len(input_ids)))
        return backbone(input_ids, attention_mask)

    monkeypatch.setattr(model, "_backbone", count)
    return model, rows


def test_equal_texts_are_computed_once(counted):
    model, rows = counted
    told = []
    vectors = model.encode(TEXTS, max_batch_tokens=32, progress=told.append)
    assert len(rows) == 4
    lengths = model.prepare(TEXTS, model.settings()).lengths
    assert (told[-1].texts, told[-1].total, told[-1].tokens) == (8, 8, sum(lengths))
    for row, text in enumerate(TEXTS):
        assert same_bits(vectors[row], vectors[TEXTS.index(text)])
        assert distance(vectors[row], model.encode(text)) < 1e-6  # and company does not matter


def test_what_is_equal_once_it_is_cut(counted):
    model, rows = counted
    with pytest.warns(UserWarning, match="3 of 3 texts were cut"):
        model.encode(["tea keys " * 9 + end for end in "abc"], max_length=8)
    assert len(rows) == 1


def test_each_window_of_a_stream_by_itself(counted, monkeypatch):
    model, rows = counted
    monkeypatch.setattr(windows, "WINDOW_TEXTS", 3)
    blocks = list(model.encode_stream(TEXTS))
    assert [len(block) for block in blocks] == [3, 3, 2]
    assert len(rows) == 2 + 3 + 2
    assert distance(np.concatenate(blocks), model.encode(TEXTS)) < 1e-6


def test_the_parts_of_a_joint_run(counted):
    model, rows = counted
    settings = model.settings()
    parts = [model.prepare(texts, settings) for texts in (TEXTS[:3], TEXTS[3:])]
    vectors = model.run(Prepared.join(parts), settings)[48]
    assert len(rows) == 4 and same_bits(vectors, model.encode(TEXTS))


@drawn(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "green tea", "", "deep learning is fun"]), min_size=1))
def test_order_is_kept(texts):
    model = load_tiny("tiny-stella-1.5b")
    found = model.encode(texts, dims=[256, 1024])
    for size, vectors in found.items():
        expected = np.stack([model.encode(text, dim=size) for text in texts])
        assert vectors.shape == (len(texts), size) and distance(vectors, expected) < 1e-6


def test_an_error_names_the_first_of_them(counted, monkeypatch):
    model, _ = counted
    backbone = model._backbone
    marker = model._tokenizer.encode(["keys"], "", 512)[0].ids[1]

    def broken(input_ids, attention_mask):
        is_marked = (input_ids == marker).any(axis=1)[:, None, None]
        return mx.where(is_marked, float("nan"), backbone(input_ids, attention_mask))

    monkeypatch.setattr(model, "_backbone", broken)
    with pytest.raises(VectorError, match="text 1: "):
        model.encode(TEXTS)
    with pytest.raises(VectorError, match="text 5: "):
        model.encode([*TEXTS[2:5], "tea", "", "keys", "keys"])
