"""Vectors cut to their first numbers: a prefix of the head's vector, of unit length, recorded."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as drawn
from hypothesis import strategies as st
from support import CHECKPOINTS, edit_json, load_tiny
from support.bulk import run_bulk, same_bits, write_jsonl
from support.commands import TEXTS as FILES
from support.commands import fail, run, succeed, write

from mlx_stella import Encoder, InputError, StellaWarning, StoreError, load
from mlx_stella.checkpoint import catalog
from mlx_stella.checkpoint.checkpoint import open_checkpoint

TEXTS = ["What is Deep Learning?", "", "green tea " * 30]
ZH = str(CHECKPOINTS / "tiny-stella-zh-v2")
NOTE = "not known to be trained for vectors that are cut to"
pytestmark = pytest.mark.filterwarnings("ignore:this model is not known to be trained")


@pytest.fixture
def stella() -> Encoder:
    return load_tiny("tiny-stella-1.5b")


def cut(vectors: np.ndarray, size: int) -> np.ndarray:
    """By plain NumPy."""
    prefix = vectors[:, :size].astype(np.float64)
    return prefix / np.linalg.norm(prefix, axis=1, keepdims=True)


@drawn(max_examples=25, deadline=None)
@given(size=st.integers(1, 48), texts=st.lists(st.text(max_size=20), min_size=1, max_size=3))
def test_a_prefix_and_then_unit_length(size, texts):
    model = load_tiny("tiny-stella-zh-v2")
    raw = model.encode(texts, normalize=False)
    found = model.encode(texts, truncate_dim=size)
    assert found.shape == (len(texts), size)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found, cut(raw, size), atol=1e-6)
    assert same_bits(model.encode(texts, truncate_dim=size, normalize=False), raw[:, :size].copy())


def test_a_head_and_a_prefix_of_it(stella):
    """Two things: ``dim`` chooses the head, ``truncate_dim`` what is kept of its vector."""
    options = {"dim": 256, "truncate_dim": np.int64(64)}
    expected = cut(stella.encode(TEXTS, dim=256, normalize=False), 64)
    found = stella.encode(TEXTS, **options)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    settings = stella.settings(**options)
    assert (settings.sizes, settings.widths, settings.truncate_dim) == ((256,), (64,), 64)
    run = stella.run(stella.prepare(TEXTS, settings), settings)
    assert list(run) == [64] and same_bits(run[64], found)
    assert same_bits(next(stella.encode_stream(TEXTS, **options)), found)
    assert same_bits(stella.encode(TEXTS, settings=settings), found)
    assert stella.encode("one text", truncate_dim=3).shape == (3,)
    query = stella.encode(TEXTS, prompt_name="s2p_query", **options)
    assert same_bits(stella.encode_query(TEXTS, **options), query)
    assert same_bits(stella.encode_document(TEXTS, **options), found)
    whole = stella.encode(TEXTS, dim=256)
    assert same_bits(stella.encode(TEXTS, dim=256, truncate_dim=256), whole)


def test_what_cannot_be_cut(stella):
    for wrong in (0, -1, 257, 8.0, "8"):
        with pytest.raises(InputError, match=r"truncate_dim .* whole number from 1 to 256"):
            stella.encode(TEXTS, dim=256, truncate_dim=wrong)
    for dims in ([256], [256, 1024]):
        with pytest.raises(InputError, match="vectors of one size; remedy: give dim, not dims"):
            stella.encode(TEXTS, dims=dims, truncate_dim=64)
    settings = dataclasses.replace(stella.settings(dim=256), truncate_dim=1024)
    with pytest.raises(InputError, match="truncate_dim 1024"):
        stella.encode(TEXTS, settings=settings)


def test_a_model_that_is_not_known_to_be_trained_for_it_is_told(stella):
    with pytest.warns(StellaWarning, match=f"{NOTE} 64 of 1024 numbers$") as told:
        stella.encode(TEXTS, truncate_dim=64)
    assert len(told) == 1 and told[0].filename == __file__
    entry = dataclasses.replace(catalog.MODELS[0], prefix_sizes=(16, 32))
    known = Encoder(open_checkpoint(CHECKPOINTS / "tiny-stella-zh-v2", entry), "float32")
    with pytest.warns(StellaWarning, match=f"{NOTE} 17 of 48 numbers, but to 16, 32$"):
        known.settings(truncate_dim=17)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        known.settings(truncate_dim=16)
        known.settings(truncate_dim=48)


def test_nomic_norms_before_it_cuts():
    """As its card does: layer_norm, the first numbers, unit length."""
    entry = dataclasses.replace(catalog.MODELS[0], prefix_sizes=(16,), norms_before_cut=True)
    nomic = Encoder(open_checkpoint(CHECKPOINTS / "tiny-nomic-bert", entry), "float32")
    whole = nomic.encode(TEXTS, normalize=False).astype(np.float64)
    normed = whole - whole.mean(axis=1, keepdims=True)
    normed = (normed / np.sqrt((normed**2).mean(axis=1, keepdims=True) + 1e-5))[:, :16]
    expected = normed / np.linalg.norm(normed, axis=1, keepdims=True)
    np.testing.assert_allclose(nomic.encode(TEXTS, truncate_dim=16), expected, atol=2e-6)
    unit = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    np.testing.assert_allclose(nomic.encode(TEXTS), unit, atol=2e-6)


def test_the_command_line(tmp_path):
    model = load(ZH, dtype="float32")
    expected = model.encode(["tea", "keys"], truncate_dim=8)
    status, output, error = run("embed", "tea", "keys", "--truncate-dim", "8", cwd=".", model=ZH)
    assert status == 0 and error.count("\n") == 1 and NOTE in error
    rows = [json.loads(line)["embedding"] for line in output.splitlines()]
    np.testing.assert_allclose(rows, expected, rtol=1e-6)
    (tmp_path / "in.txt").write_text("tea\nkeys\n")
    arguments = ("--input", "in.txt", "--truncate-dim", "8", "--output", "out.npy")
    succeed("embed", *arguments, cwd=tmp_path, model=ZH)
    assert same_bits(np.load(tmp_path / "out.npy"), expected)
    score = succeed("similarity", "tea", "keys", "--truncate-dim", "8", cwd=".", model=ZH)
    assert float(score) == pytest.approx(expected[0] @ expected[1], abs=1e-4)
    error = fail("embed", "tea", "--truncate-dim", "49", cwd=".", model=ZH)
    assert "truncate_dim 49 is no whole number from 1 to 48" in error


def test_a_folder_of_parts_records_it(tmp_path):
    parts = pytest.importorskip("mlx_stella.bulk.parts", reason="needs pyarrow")
    encoder, out = load_tiny("tiny-stella-zh-v2"), tmp_path / "out"
    write_jsonl(tmp_path / "in.jsonl", TEXTS)
    run_bulk(tmp_path / "in.jsonl", out, encoder, truncate_dim=8)
    assert json.loads((out / "manifest.json").read_text())["truncate_dim"] == 8
    vectors = parts.read_vectors(out)[1]
    assert same_bits(vectors, encoder.encode(TEXTS, truncate_dim=8))
    assert run_bulk(tmp_path / "in.jsonl", out, encoder, truncate_dim=8).before == 3
    for other in (None, 9):
        with pytest.raises(StoreError, match=f"was made with truncate dim 8, not {other}"):
            run_bulk(tmp_path / "in.jsonl", out, encoder, truncate_dim=other)
    run_bulk(tmp_path / "in.jsonl", tmp_path / "whole", encoder)
    assert "truncate_dim" not in json.loads((tmp_path / "whole" / "manifest.json").read_text())
    for wrong in (0, 49, "8", True):
        edit_json(out / "manifest.json", truncate_dim=wrong)
        with pytest.raises(StoreError, match="damaged, truncate_dim is"):
            parts.read_vectors(out)


def test_an_index_records_it_and_asks_so(tmp_path, monkeypatch):
    pytest.importorskip("lancedb")
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "notes", FILES)
    words = ("index", "notes", "--to", "idx")
    _, _, error = run(*words, "--dim", "256", "--truncate-dim", "32", cwd=tmp_path)
    assert error.count(NOTE) == 1
    succeed(*words, cwd=tmp_path)  # goes on as it was made
    assert "256 dimensions, the first 32 of them" in succeed("status", "idx", cwd=tmp_path)
    assert "truncate dim 32, not 16" in fail(*words, "--truncate-dim", "16", cwd=tmp_path)
    status, output, error = run("search", "idx", "tea", "--json", cwd=tmp_path)
    assert (status, error) == (0, "")  # the note was for who made it
    stella = load_tiny("tiny-stella-1.5b")
    hits = json.loads(output)
    passages = stella.encode_document([hit["text"] for hit in hits], dim=256, truncate_dim=32)
    query = stella.encode_query("tea", dim=256, truncate_dim=32)
    np.testing.assert_allclose([hit["score"] for hit in hits], passages @ query, atol=1e-5)
    succeed("export", "idx", "--output", "out.npy", cwd=tmp_path)
    assert np.load(tmp_path / "out.npy").shape == (3, 32)


def test_an_index_that_was_made_before_opens_and_goes_on(tmp_path):
    pytest.importorskip("lancedb")
    from mlx_stella import Index
    from mlx_stella.retrieval.manifest import IndexManifest

    write(tmp_path / "notes", FILES)
    stella = load_tiny("tiny-stella-1.5b")
    Index.create(tmp_path / "idx", stella, dim=256).update(tmp_path / "notes")
    made = Index.open(tmp_path / "idx", model=stella)
    record = made.manifest.to_json()
    assert "truncate_dim" not in record and made.manifest.truncate_dim is None
    assert made.update(tmp_path / "notes").unchanged == 3 and made.search("tea")
    for wrong in (0, 257, -1):
        with pytest.raises(StoreError, match="its record is damaged"):
            IndexManifest.from_json(record | {"truncate_dim": wrong}, "idx")
