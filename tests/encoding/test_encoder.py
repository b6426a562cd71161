import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import numpy as np
import pytest
from support import TINY, distance, load_tiny

from mlx_stella import InputError, StellaWarning, TextTooLongError, VectorError, load
from mlx_stella.checkpoint.checkpoint import open_checkpoint
from mlx_stella.encoding import windows
from mlx_stella.encoding.encoder import Encoder

TEXTS = ["What is Deep Learning?", "", "a", "green tea " * 30]


@pytest.fixture
def stella() -> Encoder:
    return load_tiny("tiny-stella-1.5b")


def test_shapes_and_types(stella):
    vectors = stella.encode(TEXTS)
    assert vectors.shape == (4, 1024) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert stella.encode("one text").shape == (1024,)
    assert stella.encode([]).shape == (0, 1024)
    assert stella.encode(text for text in TEXTS).shape == (4, 1024)


def test_several_heads_come_from_one_forward_pass(stella, monkeypatch):
    calls = []
    backbone = stella._backbone
    monkeypatch.setattr(stella, "_backbone", lambda *args: calls.append(1) or backbone(*args))
    together = stella.encode(TEXTS[:1], dims=[8192, 256])
    assert len(calls) == 1 and list(together) == [8192, 256]
    for dim, vectors in together.items():
        np.testing.assert_array_equal(vectors, stella.encode(TEXTS[:1], dim=dim))
    assert stella.encode("one text", dims=[256])[256].shape == (256,)


def test_a_dim_that_does_not_exist_lists_those_that_do(stella):
    with pytest.raises(InputError, match=r"no vectors of 512 .* 256, 768, 1024, 8192"):
        stella.encode(TEXTS, dim=512)
    with pytest.raises(InputError, match="one of 48"):
        load_tiny("tiny-stella-zh-v2").encode(TEXTS, dim=1024)
    with pytest.raises(InputError, match="dim or dims"):
        stella.encode(TEXTS, dim=256, dims=[256])
    for wrong in ([], 256, "256"):
        with pytest.raises(InputError, match="a list of sizes"):
            stella.encode(TEXTS, dims=wrong)
    with pytest.raises(InputError, match=r"256\.0"):
        stella.encode(TEXTS, dim=256.0)
    assert stella.encode(TEXTS, dim=np.int64(256)).shape == (4, 256)


def test_unnormalised_vectors_point_the_same_way(stella):
    raw = stella.encode(TEXTS, normalize=False)
    assert np.ptp(np.linalg.norm(raw, axis=1)) > 1e-3
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    assert distance(stella.encode(TEXTS), unit) < 1e-6


def test_prompts(stella):
    prompt = stella.prompts["s2p_query"]
    by_name = stella.encode(TEXTS, prompt_name="s2p_query")
    np.testing.assert_array_equal(by_name, stella.encode(TEXTS, prompt=prompt))
    np.testing.assert_array_equal(by_name, stella.encode([prompt + text for text in TEXTS]))
    np.testing.assert_array_equal(by_name, stella.encode_query(TEXTS))
    task = "Given a web search query, retrieve relevant passages that answer the query."
    np.testing.assert_array_equal(by_name, stella.encode(TEXTS, instruction=task))
    np.testing.assert_array_equal(by_name, stella.encode_query(TEXTS, instruction=task))
    s2s = stella.encode(TEXTS, prompt_name="s2s_query")
    np.testing.assert_array_equal(s2s, stella.encode_query(TEXTS, task="s2s"))
    np.testing.assert_array_equal(stella.encode(TEXTS), stella.encode_document(TEXTS))
    assert distance(s2s, by_name) > 1e-2


def test_prompts_of_the_other_families():
    qwen, nv, zh = (load_tiny(f"tiny-{n}") for n in ("gte-qwen2", "nv-embed", "stella-zh-v2"))
    for model, name in ((qwen, "query"), (nv, "query"), (zh, None)):
        assert model.checkpoint.prompts.for_query(None) == name
        assert model.checkpoint.prompts.for_document() is None
    assert nv.checkpoint.prompts.for_query("sts") == "sts"
    with pytest.raises(InputError, match="takes no instructions"):
        zh.encode(TEXTS, instruction="Find it")


def test_prompts_that_do_not_work(stella):
    with pytest.raises(InputError, match="'nope'; remedy: one of s2p_query, s2s_query"):
        stella.encode(TEXTS, prompt_name="nope")
    with pytest.raises(InputError, match="task 'nope'; remedy: one of s2p_query"):
        stella.encode_query(TEXTS, task="nope")
    with pytest.raises(InputError, match="not several"):
        stella.encode(TEXTS, prompt_name="s2p_query", prompt="x")
    with pytest.raises(InputError, match="not both"):
        stella.encode_query(TEXTS, task="s2s", prompt="x")
    with pytest.raises(InputError, match="the prompt: not valid Unicode"):
        stella.encode(TEXTS, prompt="\ud800")
    for wrong in ({"prompt": 5}, {"prompt_name": ["s2p_query"]}):
        with pytest.raises(InputError):
            stella.encode(TEXTS, **wrong)
    with pytest.raises(InputError, match="this model has none"):
        load_tiny("tiny-stella-zh-v2").encode(TEXTS, prompt_name="query")


def test_long_texts_are_cut_and_counted(stella):
    texts = ["word " * 3000, "short", "word " * 2000]
    with pytest.warns(StellaWarning, match="2 of 3 texts were cut to 512 tokens"):
        stella.encode(texts)
    with pytest.raises(TextTooLongError, match=r"text 0: \d+ tokens exceed 512; remedy"):
        stella.encode(texts, on_long="error")
    with pytest.raises(InputError, match="on_long 'chunk'"):
        stella.encode(texts, on_long="chunk")


@pytest.mark.filterwarnings("ignore::mlx_stella.StellaWarning")
@pytest.mark.parametrize("name", TINY)
def test_a_text_of_a_hundred_thousand_words(name):
    vector = load_tiny(name).encode("lorem ipsum dolor sit " * 25_000, max_length=256)
    assert np.isfinite(vector).all()


def test_max_length(stella):
    text = "deep learning " * 400
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        longer = stella.encode(text, max_length=4000)
    with pytest.warns(StellaWarning):
        assert distance(longer, stella.encode(text)) > 1e-4
    for wrong in (0, 1, 131073, 8.5, "8", True):
        with pytest.raises(InputError, match="max_length"):
            stella.encode(text, max_length=wrong)
    with pytest.raises(InputError, match="no whole number from 3 to 1024"):
        load_tiny("tiny-stella-zh-v2").encode(text, max_length=1025)
    for wrong in (0, float("nan"), "8"):
        with pytest.raises(InputError, match="max_batch_tokens"):
            stella.encode(text, max_batch_tokens=wrong)


@pytest.mark.filterwarnings("ignore::mlx_stella.StellaWarning")
def test_an_instruction_that_leaves_no_room():
    with pytest.raises(InputError, match="text 0: nothing of it fits behind the prompt"):
        load_tiny("tiny-nv-embed").encode(["a"], instruction="word " * 50, max_length=20)


def test_progress_counts_to_the_end(stella):
    seen = []
    texts = [f"{text} {number}" for number in range(5) for text in TEXTS]
    stella.encode(texts, max_batch_tokens=64, progress=seen.append)
    assert (seen[-1].texts, seen[-1].total) == (20, 20) and len(seen) > 2
    assert [p.texts for p in seen] == sorted(p.texts for p in seen)
    expected = sum(len(t.ids) for t in stella._tokenizer.encode(texts, "", 512))
    assert seen[-1].tokens == expected and seen[-1].tokens_per_second > 0


def test_a_stream_gives_the_same_rows_as_a_list(stella, monkeypatch):
    monkeypatch.setattr(windows, "WINDOW_TEXTS", 7)
    texts = [f"{text} {n}" for n in range(10) for text in TEXTS]
    taken = []
    blocks = stella.encode_stream(taken.append(t) or t for t in texts)
    assert not taken  # nothing is read before it is asked for
    first = next(blocks)
    assert first.shape == (7, 1024) and len(taken) <= 4 * 7  # some windows ahead, not all
    vectors = np.concatenate([first, *blocks])
    assert distance(vectors, stella.encode(texts)) < 1e-6
    assert list(stella.encode_stream([])) == []


def test_rows_are_counted_through_the_windows(stella, monkeypatch):
    monkeypatch.setattr(windows, "WINDOW_TEXTS", 3)
    for wrong in (7, "\ud800"):
        with pytest.raises(InputError, match="text 8: ") as caught:
            stella.encode([*("abcdefgh"), wrong, "i"])
        assert (caught.value.row, caught.value.where) == (8, None)
    with pytest.raises(TextTooLongError, match=r"text 4: \d+ tokens"):
        stella.encode(["a"] * 4 + ["word " * 900], on_long="error")
    with pytest.warns(StellaWarning, match="2 of 8 texts were cut"):
        stella.encode((["a"] * 3 + ["word " * 900]) * 2)


def test_the_source_may_fail_in_the_middle(stella, monkeypatch):
    monkeypatch.setattr(windows, "WINDOW_TEXTS", 2)

    def source():
        yield from TEXTS
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(stella.encode_stream(source()))
    assert stella.encode(TEXTS).shape == (4, 1024)  # and the model goes on


def test_a_stream_that_is_left_in_the_middle_leaves_no_thread(stella, monkeypatch):
    monkeypatch.setattr(windows, "WINDOW_TEXTS", 2)
    before = set(threading.enumerate())
    taken = []
    blocks = stella.encode_stream(taken.append(n) or f"text {n}" for n in range(1000))
    next(blocks)
    blocks.close()
    assert len(taken) < 20 and set(threading.enumerate()) == before
    assert stella.encode(TEXTS).shape == (4, 1024)  # and the model goes on


@pytest.mark.filterwarnings("ignore::mlx_stella.StellaWarning")
def test_a_query_in_the_middle_of_a_stream(monkeypatch):
    monkeypatch.setattr(windows, "WINDOW_TEXTS", 2)
    model = load_tiny("tiny-nv-embed")
    texts = [f"{n} " + "deep learning " * 40 for n in range(12)]
    expected, query = model.encode(texts, max_length=20), model.encode_query("green tea " * 30)
    blocks = []
    for block in model.encode_stream(texts, max_length=20):
        blocks.append(block)
        np.testing.assert_array_equal(model.encode_query("green tea " * 30), query)
    assert distance(np.concatenate(blocks), expected) < 1e-6


def test_other_threads_may_use_a_model(stella):
    expected = stella.encode(TEXTS)
    with ThreadPoolExecutor(1) as pool:
        np.testing.assert_array_equal(pool.submit(stella.encode, TEXTS).result(), expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_a_vector_that_is_not_finite_or_zero_is_never_returned(monkeypatch, value):
    checkpoint = open_checkpoint(load_tiny("tiny-stella-zh-v2").checkpoint.directory)
    model = Encoder(checkpoint, "float32")
    backbone = model._backbone

    def broken(input_ids, attention_mask):
        hidden = backbone(input_ids, attention_mask)
        is_marked = (input_ids == marker).any(axis=1)[:, None, None]
        return mx.where(is_marked, value, hidden)

    marker = model._tokenizer.encode(["a"], "", 512)[0].ids[1]
    monkeypatch.setattr(model, "_backbone", broken)
    for normalize in (True, False):
        with pytest.raises(VectorError, match=r"text 2: .* not finite, or is zero"):
            model.encode(["1 2", "3", "a", "4 5 6 7"], normalize=normalize)


@pytest.mark.parametrize("texts", [None, 5, b"abc", np.array("a"), [b"a"], [None], [["a"]]])
def test_what_is_no_list_of_texts(stella, texts):
    with pytest.raises(InputError):
        stella.encode(texts)


def test_numpy_strings_are_texts(stella):
    np.testing.assert_array_equal(stella.encode(np.array(TEXTS)), stella.encode(TEXTS))


def test_vectors_that_cannot_be_compared(stella):
    with pytest.raises(InputError, match="cannot be compared"):
        stella.similarity(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(InputError, match="no direction"):
        stella.similarity(np.zeros((1, 3)), np.ones((2, 3)))


def test_similarity(stella):
    a, b = stella.encode(TEXTS, normalize=False), stella.encode(TEXTS[:2])
    scores = stella.similarity(a, b)
    unit = a / np.linalg.norm(a, axis=1, keepdims=True)
    np.testing.assert_allclose(scores, unit @ b.T, atol=1e-6)
    assert stella.similarity(a[0], b[0]).shape == (1, 1)


def test_an_unknown_dtype_and_the_default():
    with pytest.raises(InputError, match="'int8' is unknown; remedy: one of float16"):
        load("stella-1.5b", dtype="int8")
    expected = "float16" if mx.default_device().type == mx.gpu else "float32"
    assert load(load_tiny("tiny-stella-zh-v2").checkpoint.directory).dtype == expected


def test_a_warning_names_the_line_of_the_caller():
    model = load_tiny("tiny-stella-zh-v2")
    for call in (
        model.encode,
        model.encode_query,
        lambda *a, **k: list(model.encode_stream(*a, **k)),
    ):
        with pytest.warns(StellaWarning, match="were cut") as caught:
            call(["word " * 60], max_length=8)
        assert caught[0].filename == __file__
