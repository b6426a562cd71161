"""vocab.txt without tokenizer.json: the ids that transformers gives."""

import json
import shutil

import numpy as np
import pytest
from support import CHECKPOINTS, TESTS, edit_json, load_tiny

from mlx_stella import ConfigError, load
from mlx_stella.checkpoint.origin import fingerprint
from mlx_stella.checkpoint.tokenization import Tokenizer

GOLDEN = TESTS / "golden" / "vocabulary"
EXPECTED = json.loads((GOLDEN / "ids.json").read_text())


@pytest.fixture
def path(tmp_path):
    return shutil.copy(GOLDEN / "vocab.txt", tmp_path / "vocab.txt")


@pytest.mark.parametrize("name", EXPECTED["variants"])
def test_the_ids_are_those_of_transformers(path, name):
    variant = EXPECTED["variants"][name]
    if variant["map"]:
        (path.parent / "special_tokens_map.json").write_text(json.dumps(variant["map"]))
    tokenizer = Tokenizer(path, variant["config"], eos_as_text=False)
    found = tokenizer.encode(EXPECTED["texts"], "", 10_000)
    assert [list(tokens.ids) for tokens in found] == variant["ids"]
    assert tokenizer.special_tokens == 2
    assert list(tokenizer.encode(["x" * 100 + " a" * 9], "", 4)[0].ids)[-1] == variant["ids"][0][-1]


@pytest.mark.parametrize(
    "settings, pattern",
    [
        ({"tokenizer_class": "MPNetTokenizer"}, "tokenizer_class = 'MPNetTokenizer' is not impl"),
        ({"do_lower_case": "true"}, "do_lower_case = 'true' is not implemented"),
        ({"strip_accents": 1}, "strip_accents = 1 is not implemented"),
        ({"do_basic_tokenize": False}, "do_basic_tokenize = False is not implemented"),
        ({"additional_special_tokens": ["<x>"]}, "additional_special_tokens = .* not implemented"),
        ({"cls_token": "<s>"}, "vocab.txt: lacks the token '<s>'"),
        ({"cls_token": None}, "an added token is None"),
        ({"cls_token": {"content": "[CLS]", "lstrip": 1}}, "an added token is"),
        ({"added_tokens_decoder": [1]}, "added_tokens_decoder is no table"),
        ({"added_tokens_decoder": {"0": {"content": "<x>"}}}, "lacks the token '<x>'"),
    ],
)
def test_what_is_not_implemented(path, settings, pattern):
    with pytest.raises(ConfigError, match=pattern) as caught:
        Tokenizer(path, settings, eos_as_text=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content, pattern",
    [(b"", "lacks the token"), (b"\xff\n", "not a vocabulary"), (b"a" * (2**24 + 1), "more than")],
)
def test_another_file(path, content, pattern):
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"vocab\.txt: .*{pattern}"):
        Tokenizer(path, {}, eos_as_text=False)


def test_added_tokens_are_refused(path):
    (path.parent / "added_tokens.json").write_text('{"<x>": 5}')
    with pytest.raises(
        ConfigError, match=r"added_tokens\.json: a token is not implemented.*remedy"
    ):
        Tokenizer(path, {}, eos_as_text=False)


def test_lines_of_windows_and_a_last_line_without_end(path):
    expected = Tokenizer(path, {}, eos_as_text=False).definition
    path.write_bytes(path.read_bytes().rstrip().replace(b"\n", b"\r\n"))
    assert Tokenizer(path, {}, eos_as_text=False).definition == expected


def test_a_model_with_its_vocabulary_alone(copy_of):
    """The vocabulary of tiny-stella-zh-v2, whose tokenizer.json transformers made of the same."""
    directory = copy_of("tiny-stella-zh-v2")
    stored = json.loads((CHECKPOINTS / directory.name / "tokenizer.json").read_text())
    vocabulary = stored["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.get)
    assert [vocabulary[token] for token in tokens] == list(range(len(tokens)))
    (directory / "tokenizer.json").unlink()
    (directory / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    texts = ["What is Deep Learning?", "今天天气很好", "a"]
    expected = load_tiny("tiny-stella-zh-v2").encode(texts)
    np.testing.assert_array_equal(load(directory, dtype="float32").encode(texts), expected)
    before = fingerprint(directory)
    edit_json(directory / "tokenizer_config.json", do_lower_case=False)
    changed = fingerprint(directory)
    (directory / "vocab.txt").write_text("\n".join(tokens[::-1]), encoding="utf-8")
    assert len({before, changed, fingerprint(directory)}) == 3
