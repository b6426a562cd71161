import json

import pytest
from support import CHECKPOINTS, TINY, edit_json, load_tiny

from mlx_stella import ConfigError, InputError, load
from mlx_stella.checkpoint.tokenization import Tokenizer


def ids(model, text: str, limit: int = 512) -> list[int]:
    return list(model._tokenizer.encode([text], "", limit)[0].ids)


@pytest.mark.shared
@pytest.mark.parametrize(
    "name, config, eos_as_text",
    [
        ("stella_en_1.5B_v5", {"add_eos_token": True, "eos_token": "<|endoftext|>"}, False),
        ("stella_en_400M_v5", {}, False),
        ("NV-Embed-v2", {"eos_token": "</s>"}, True),
    ],
)
def test_the_genuine_tokenizers_give_the_published_ids(name, config, eos_as_text, shared):
    tokenizer = Tokenizer(shared / "tokenizers" / f"{name}.json", config, eos_as_text)
    expected = json.loads((shared / "tokenizers" / "token_ids.json").read_text())[name]
    for text, token_ids in expected.items():
        assert list(tokenizer.encode([text], "", 512)[0].ids) == token_ids


@pytest.mark.shared
def test_the_genuine_nv_embed_instruction_is_masked_up_to_the_query(shared):
    path = shared / "tokenizers" / "NV-Embed-v2.json"
    tokenizer = Tokenizer(path, {"eos_token": "</s>"}, eos_as_text=True)
    instruction = "Given a question, retrieve passages that answer the question"
    assert tokenizer.prompt_length(f"Instruct: {instruction}\nQuery: ") == 18


@pytest.mark.parametrize(
    "name, eos", [("tiny-stella-1.5b", 700), ("tiny-gte-qwen2", 600), ("tiny-nv-embed", 2)]
)
def test_eos_comes_exactly_once(name, eos):
    token_ids = ids(load_tiny(name), "What is Deep Learning?")
    assert token_ids.count(eos) == 1 and token_ids[-1] == eos


def test_truncation_keeps_a_templates_eos_and_cuts_one_written_as_text():
    long = "deep learning " * 50
    assert ids(load_tiny("tiny-stella-1.5b"), long, 16)[-1] == 700
    assert ids(load_tiny("tiny-gte-qwen2"), long, 16)[-1] == 600
    assert ids(load_tiny("tiny-nv-embed"), long, 16)[-1] != 2
    assert all(len(ids(load_tiny(name), long, 16)) == 16 for name in TINY)


@pytest.mark.parametrize("name", TINY)
def test_the_length_before_truncation_is_known(name):
    tokenizer = load_tiny(name)._tokenizer
    text = "deep learning is fun " * 40
    whole = tokenizer.encode([text], "", 10_000)[0]
    for limit in (4, 33, 100):
        assert tokenizer.encode([text], "", limit)[0].untruncated_length == len(whole.ids)


def test_stored_padding_and_truncation_are_overridden():
    stored = json.loads((CHECKPOINTS / "tiny-stella-400m" / "tokenizer.json").read_text())
    assert stored["padding"]["strategy"] == {"Fixed": 512} and stored["truncation"]
    assert len(ids(load_tiny("tiny-stella-400m"), "a")) == 3


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize(
    "text", ["", "   \t\n", "a\0b", "שלום עולם", "مرحبا", "👩‍👩‍👧‍👦🏳️‍🌈", "e\u0301", "\u202etxt"]
)
def test_unusual_text_has_tokens(name, text):
    assert ids(load_tiny(name), text)


def test_a_lone_surrogate_is_named():
    with pytest.raises(InputError, match=r"text 1: not valid Unicode.*position 2"):
        load_tiny("tiny-stella-1.5b").encode(["fine", "ab\ud800"])


def test_what_is_not_a_string_is_named():
    with pytest.raises(InputError, match="text 1: a int, not a string"):
        load_tiny("tiny-stella-1.5b").encode(["fine", 7])


def test_lower_casing_that_sentence_bert_config_asks_for(copy_of):
    directory = copy_of("tiny-stella-1.5b")
    edit_json(directory / "sentence_bert_config.json", do_lower_case=True)
    model = load(directory, dtype="float32")
    assert ids(model, "DEEP") == ids(load_tiny("tiny-stella-1.5b"), "deep")


def test_a_damaged_or_missing_tokenizer(copy_of):
    directory = copy_of("tiny-stella-1.5b")
    (directory / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"tokenizer\.json: not a tokenizer"):
        load(directory)
    (directory / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"tokenizer\.json: no such file"):
        load(directory)


def test_an_eos_token_that_the_vocabulary_lacks(copy_of):
    directory = copy_of("tiny-gte-qwen2")
    edit_json(directory / "tokenizer_config.json", eos_token="<none>")
    with pytest.raises(ConfigError, match="lacks the EOS token '<none>'"):
        load(directory)


def test_a_token_beyond_the_embedding_table_is_refused(copy_of):
    directory = copy_of("tiny-stella-1.5b")
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 5000, "content": "<x>"})
    tokenizer["model"]["vocab"]["<x>"] = 5000
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    model = load(directory, dtype="float32")
    assert model.encode("fine").shape == (1024,)
    with pytest.raises(ConfigError, match="token 5000, beyond the model's vocabulary of 703"):
        model.encode("<x>")
