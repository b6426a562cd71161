"""Settings are checked once; prepare and run are what encode is made of."""

import dataclasses

import numpy as np
import pytest
from support import CHECKPOINTS, load_tiny
from support.bulk import same_bits, some_texts

from mlx_stella import (
    Encoder,
    InputError,
    MemoryLimitError,
    Prepared,
    Settings,
    StellaWarning,
    TextTooLongError,
    load,
)

TEXTS = some_texts(12)


@pytest.fixture
def stella() -> Encoder:
    return load_tiny("tiny-stella-1.5b")


def test_everything_is_decided(stella):
    settings = stella.settings(prompt_name="s2p_query", dim=np.int64(256), max_length=np.int64(90))
    budget = stella._memory.batch_tokens(90)
    prefix = stella.prompts["s2p_query"]
    assert settings == Settings(prefix, (256,), True, 90, "truncate", budget)
    assert type(settings.sizes[0]) is int and type(settings.max_length) is int
    assert stella.settings().sizes == (stella.default_dim,)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.prefix = ""


OPTIONS = [
    {},
    {"prompt_name": "s2p_query", "dim": 256},
    {"instruction": "Find it", "dims": [8192, 256], "normalize": False},
    {"prompt": "a: ", "dims": [256], "max_length": 9, "max_batch_tokens": 64},
]


@pytest.mark.filterwarnings("ignore::mlx_stella.StellaWarning")
@pytest.mark.parametrize("options", OPTIONS)
def test_settings_give_what_their_options_give(stella, options):
    settings = stella.settings(**options)
    for texts in (TEXTS, TEXTS[0]):
        expected = stella.encode(texts, **options)
        found = stella.encode(texts, settings=settings)
        assert type(found) is type(expected)
        if not isinstance(found, dict):
            found, expected = {0: found}, {0: expected}
        assert list(found) == list(expected)
        assert all(same_bits(found[size], expected[size]) for size in expected)
    (block,) = stella.encode_stream(TEXTS, settings=settings)
    (again,) = stella.encode_stream(TEXTS, **options)
    assert isinstance(block, dict) == isinstance(again, dict) == ("dims" in options)


def test_settings_that_do_not_work(stella):
    settings = stella.settings()
    with pytest.raises(InputError, match="settings or dim, not both"):
        stella.encode(TEXTS, settings=settings, dim=256)
    with pytest.raises(InputError, match="settings or normalize, not both"):
        stella.encode_stream(TEXTS, settings=settings, normalize=True)
    with pytest.raises(InputError, match=r"settings are a dict; remedy: .*model.settings"):
        stella.encode(TEXTS, settings={"dim": 256})
    with pytest.raises(TypeError, match="unknown_option"):
        stella.encode(TEXTS, unknown_option=1)
    for step in (stella.encode_stream, stella.encode):
        with pytest.raises(InputError, match="on_long 'chunk' is unknown; remedy: truncate or"):
            step(TEXTS, on_long="chunk")
    other = load_tiny("tiny-stella-zh-v2")
    prepared = other.prepare(TEXTS, other.settings())
    for use in (other.prepare, lambda _, made: other.run(prepared, made)):
        with pytest.raises(InputError, match="no vectors of 1024"):
            use(TEXTS, settings)


@pytest.mark.parametrize("name", ["tiny-stella-1.5b", "tiny-nv-embed"])
def test_the_steps_are_what_encode_is_made_of(name):
    model = load_tiny(name)
    settings = model.settings(prompt="green tea: ", dims=model.dims, max_length=20)
    prepared = model.prepare(TEXTS, settings)
    assert len(prepared) == len(TEXTS) and max(prepared.lengths) == 20
    assert 0 < prepared.cut == sum(length > 20 for length in prepared.untruncated_lengths)
    assert (prepared.masked > 0) == model.checkpoint.masks_prompt
    told = []
    vectors = model.run(prepared, settings, done=lambda *counts: told.append(counts))
    with pytest.warns(StellaWarning, match=f"{prepared.cut} of 12 texts were cut"):
        expected = model.encode(TEXTS, settings=settings)
    assert list(vectors) == list(expected) == list(model.dims)
    assert all(same_bits(vectors[size], expected[size]) for size in expected)
    assert np.sum(told, axis=0).tolist() == [12, sum(prepared.lengths)]


def test_texts_of_several_calls_run_together(stella):
    settings = stella.settings()
    parts = [stella.prepare(texts, settings) for texts in (TEXTS[:5], [], TEXTS[5], TEXTS[6:])]
    assert [len(part) for part in parts] == [5, 0, 1, 6]
    vectors = stella.run(Prepared.join(parts), settings)[1024]
    assert same_bits(vectors, stella.encode(TEXTS))
    assert stella.run(parts[1], settings)[1024].shape == (0, 1024)


def test_texts_that_do_not_run_together():
    model = load_tiny("tiny-nv-embed")
    parts = [model.prepare(TEXTS, model.settings(prompt=prompt)) for prompt in ("", "tea: ")]
    for wrong in (parts, []):
        with pytest.raises(InputError, match="not prepared with the same settings"):
            Prepared.join(wrong)


def test_rows_are_counted_from_the_first(stella):
    with pytest.raises(InputError, match="text 8: a int"):
        stella.prepare(["a", 7], stella.settings(), first=7)
    with pytest.raises(TextTooLongError, match="text 8: "):
        stella.prepare(["a", "b " * 90], stella.settings(max_length=9, on_long="error"), first=7)
    weights = stella.checkpoint.memory_bytes("float32")
    held = load(CHECKPOINTS / "tiny-stella-1.5b", dtype="float32", memory_limit=weights + 10**6)
    with pytest.raises(MemoryLimitError, match="text 8: "):
        held.prepare(["a", "light on the water " * 90], held.settings(), first=7)


@pytest.mark.filterwarnings("ignore::mlx_stella.StellaWarning")
def test_max_seq_length_can_be_set():
    model = load(CHECKPOINTS / "tiny-stella-1.5b", dtype="float32")
    room, text = model.document_room, "deep learning " * 400
    assert model.max_seq_length == model.settings().max_length == 512
    model.max_seq_length = np.int64(100)
    assert model.document_room == room - 412
    assert model.settings().max_length == 100 and model.settings(max_length=7).max_length == 7
    assert same_bits(model.encode(text), model.encode(text, max_length=100))
    assert model.checkpoint.max_seq_length == 512
    for wrong in (1, 131073, 8.5, "8", None):
        with pytest.raises(InputError, match=r"max_seq_length .* whole number from 2 to 131072"):
            model.max_seq_length = wrong
    assert model.max_seq_length == 100
