"""Checkpoints made to hang, to fill memory or to break out: a loaded model, or one line."""

import contextlib
import json
import os
import resource
import shutil
import tempfile
import warnings
from pathlib import Path
from unittest import mock

import mlx.core as mx
import mlx.nn as nn
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from support import CHECKPOINTS, TINY, edit_json
from support.commands import run
from support.hostile import MUTATIONS, mutate

from mlx_stella import ConfigError, StellaError, StellaWarning, load
from mlx_stella.checkpoint.origin import fingerprint
from mlx_stella.config import MAX_JSON_BYTES, read_json

SIZE = 2**24 - 1


def refused(directory: Path, *patterns: str) -> str:
    """The line of a checkpoint that neither info nor a load takes, whichever looks so far."""
    status, output, line = run("info", str(directory), cwd=directory.parent)
    if status == 0:
        status, output, line = run("embed", "aaaa <x> b", "-m", str(directory), cwd=directory)
    assert status == 1 and not output, line
    assert line.startswith("mlx-stella: ") and line.count("\n") == 1
    for pattern in patterns:
        assert pattern in line
    return line


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "modules.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
        "1_Pooling/config.json",
        "2_Dense_1024/model.safetensors",
        "conversion.json",
    ],
)
def test_only_regular_files_are_read(copy_of, name, kind):
    directory = copy_of("tiny-stella-1.5b")
    file = directory / name
    file.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    else:
        file.mkdir()
    refused(directory, name, "not a regular file")


def test_shards_and_what_lies_beside_them_may_be_pipes(copy_of):
    directory = copy_of("tiny-nv-embed")
    os.mkfifo(directory / "other.bin")
    assert fingerprint(directory)
    shard = directory / "model-00002-of-00003.safetensors"
    shard.unlink()
    os.mkfifo(shard)
    refused(directory, shard.name, "not a regular file")


@pytest.mark.parametrize(
    "content, pattern",
    [
        (b" " * (MAX_JSON_BYTES + 1), "more than the"),
        (b'{"a": 1, "b": 2, "a": 1}', "the key 'a' is there twice"),
        (b'{"a": [{"b": 1, "b": 2}]}', "the key 'b' is there twice"),
        (b'{"a": "\\ud800"}', "surrogates not allowed"),
        (b"{" + b",".join(b'"%d":1' % n for n in [*range(2**18), 7]) + b"}", "the key '7' is"),
        (b'{"a": ' * 60_000, "recursion"),
        (b'{"a": 1' + b"0" * 5000 + b"}", "digits"),
        (b"\0" * 100, "not readable as JSON"),
        (b"\xff\xfe{\0}\0", "not readable as JSON"),
        (b"<!DOCTYPE html><html></html>", "not readable as JSON"),
    ],
)
def test_json_that_is_refused(tmp_path, content, pattern):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ConfigError, match=pattern) as caught:
        read_json(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


SIZES = {
    "tiny-stella-1.5b": ("hidden_size", "intermediate_size", "vocab_size"),
    "tiny-stella-400m": ("hidden_size", "intermediate_size", "vocab_size", "type_vocab_size"),
    "tiny-stella-zh-v2": (
        *("hidden_size", "intermediate_size", "vocab_size"),
        *("type_vocab_size", "max_position_embeddings"),
    ),
    "tiny-nv-embed": (
        *("hidden_size", "intermediate_size", "vocab_size"),
        *("num_latents_value", "num_cross_heads"),
    ),
}


def resize(directory: Path, **sizes: int) -> None:
    """Set sizes in config.json wherever they stand; the latents are as wide as the tokens."""
    if "hidden_size" in sizes:
        sizes |= dict.fromkeys(("hidden_dim", "latent_dim"), sizes["hidden_size"])
    data = json.loads((directory / "config.json").read_text())
    for table in (data, *(data[part] for part in data if part.endswith("_config"))):
        table.update({key: value for key, value in sizes.items() if key in table})
    (directory / "config.json").write_text(json.dumps(data))


@pytest.mark.parametrize("name, key", [(name, key) for name in SIZES for key in SIZES[name]])
def test_sizes_beyond_those_of_the_tensors_are_told_before_a_model_is_made(
    copy_of, monkeypatch, name, key
):
    """Of a size that any one tensor has nothing can be said before; it has room in memory."""
    directory = copy_of(name)
    value = {"hidden_size": 2**23, "num_latents_value": 2**14 - 1, "num_cross_heads": 1023}
    asked = value.get(key, SIZE)
    heads = {"num_attention_heads": 8, "num_key_value_heads": 8} if key == "hidden_size" else {}
    resize(directory, **{key: asked}, **heads)
    if key == "hidden_size" and (directory / "2_Dense_1024").is_dir():
        refused(directory, "no Dense head for vectors of 8388608")
        shutil.rmtree(directory / "2_Dense_1024")
        modules = json.loads((directory / "modules.json").read_text())
        kept = [module for module in modules if not module["type"].endswith("Dense")]
        (directory / "modules.json").write_text(json.dumps(kept))
    monkeypatch.setattr(nn.Module, "__init__", mock.Mock(side_effect=AssertionError))
    refused(directory, "config.json: asks for ", f"{key} {asked}", "no tensor has a side beyond")


@pytest.mark.parametrize("name", ["tiny-stella-1.5b", "tiny-nv-embed", "tiny-stella-zh-v2"])
def test_more_layers_than_tensors_are_told_before_a_model_is_made(copy_of, monkeypatch, name):
    directory = copy_of(name)
    resize(directory, num_hidden_layers=1024)
    monkeypatch.setattr(nn.Module, "__init__", mock.Mock(side_effect=AssertionError))
    refused(directory, "config.json: asks for 1024 layers, and there are")


@pytest.mark.parametrize(
    "name, sizes, pattern",
    [
        ("tiny-stella-1.5b", {"num_attention_heads": SIZE}, "do not fit together"),
        ("tiny-stella-1.5b", {"num_key_value_heads": SIZE}, "do not fit together"),
        ("tiny-nv-embed", {"num_latents_value": 2**14}, "should be a whole number from 1 to 16383"),
        ("tiny-nv-embed", {"num_cross_heads": 2**10}, "should be a whole number from 1 to 1023"),
        ("tiny-nv-embed", {"cross_dim_head": SIZE}, "does not fit its config.json"),
        ("tiny-nv-embed", {"cross_dim_head": 24}, "does not fit its config.json"),
        ("tiny-nv-embed", {"hidden_dim": SIZE}, "differ, which is not implemented"),
        ("tiny-stella-1.5b", {"intermediate_size": 128}, "does not fit its config.json"),
    ],
)
def test_sizes_that_do_not_fit_are_one_line(copy_of, name, sizes, pattern):
    directory = copy_of(name)
    resize(directory, **sizes)
    refused(directory, pattern)


def test_a_dense_head_has_the_size_of_its_tensor(copy_of):
    directory = copy_of("tiny-stella-1.5b")
    edit_json(directory / "2_Dense_1024/config.json", in_features=SIZE, out_features=SIZE)
    with pytest.warns(StellaWarning, match=f"says {SIZE} -> {SIZE}, .* the tensor is used"):
        assert load(directory).encode("tea").shape == (1024,)


def test_a_pickle_has_no_side_beyond_its_tensors(copy_of, monkeypatch):
    directory = copy_of("tiny-stella-zh-v2")
    (directory / "model.safetensors").unlink()
    shutil.copy(CHECKPOINTS / "tiny-stella-zh-v2-bin/pytorch_model.bin", directory)
    resize(directory, vocab_size=SIZE)
    monkeypatch.setattr(nn.Module, "__init__", mock.Mock(side_effect=AssertionError))
    refused(directory, f"asks for vocab_size {SIZE}, and no tensor has a side beyond 1024")


def test_an_empty_tensor_has_no_side(copy_of):
    directory = copy_of("tiny-stella-1.5b")
    resize(directory, vocab_size=SIZE)
    arrays = mx.load(str(directory / "model.safetensors"))
    mx.save_safetensors(
        str(directory / "model.safetensors"), {**arrays, "extra": mx.zeros((0, SIZE))}
    )
    refused(directory, f"asks for vocab_size {SIZE}")


def _normalized(data: dict, *steps: dict) -> None:
    data["normalizer"] = {"type": "Sequence", "normalizers": list(steps)}


def _split(data: dict, pattern: str) -> None:
    data["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


def _replace(pattern: dict, content: str) -> dict:
    return {"type": "Replace", "pattern": pattern, "content": content}


TOKENIZERS = {
    "a growing text": (
        lambda data: _normalized(data, *[_replace({"String": "a"}, "a" * 1000)] * 4),
        "its normalizer may make 1,000,000,000,000 characters of one",
    ),
    "a pattern of nothing": (
        lambda data: _normalized(data, *[_replace({"Regex": ""}, "b" * 99)] * 2),
        "its normalizer may make 10,000 characters of one",
    ),
    "a long beginning": (
        lambda data: _normalized(data, {"type": "Prepend", "prepend": "x" * 10**6}),
        "its normalizer may make 1,000,001 characters of one",
    ),
    "an id of 32 bits": (
        lambda data: data["model"]["vocab"].update(deep=2**31),
        "the token id 2147483648 is beyond 31 bits",
    ),
    "an added id of 32 bits": (
        lambda data: data["added_tokens"].append({**data["added_tokens"][0], "id": 2**32 - 1}),
        "the token id 4294967295 is beyond 31 bits",
    ),
    "an affix": (
        lambda data: data["model"].update(continuing_subword_prefix="#" * 10**6),
        "continuing_subword_prefix has 1,000,000 characters",
    ),
    "a word without end": (
        lambda data: data["model"].update(max_input_chars_per_word=10**9),
        "max_input_chars_per_word is 1000000000",
    ),
    "no model": (lambda data: data.pop("model"), "not a tokenizer"),
    "a model that is a list": (lambda data: data.update(model=[1]), "not a tokenizer"),
    "an id that is a text": (lambda data: data["model"]["vocab"].update(a="1"), "not a tokenizer"),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_that_would_hang_or_fill_memory(copy_of, name):
    directory = copy_of("tiny-stella-1.5b")
    change, pattern = TOKENIZERS[name]
    data = json.loads((directory / "tokenizer.json").read_text())
    change(data)
    (directory / "tokenizer.json").write_text(json.dumps(data))
    refused(directory, "tokenizer.json", pattern)


def test_a_pattern_that_backtracks_without_end_is_given_up(copy_of):
    """The library panics, which is no Exception in Python."""
    directory = copy_of("tiny-stella-1.5b")
    data = json.loads((directory / "tokenizer.json").read_text())
    _split(data, "(a+)+$")
    (directory / "tokenizer.json").write_text(json.dumps(data))
    model = load(directory, dtype="float32")
    assert model.encode("tea").shape == (1024,)
    for ask in (model.encode, model.encode_query, model.tokenizer.count):
        with pytest.raises(ConfigError, match=r"tokenizer\.json: cannot tokenize.*retry-limit"):
            ask("a" * 60 + "!")


def test_a_file_of_64_megabytes_is_no_tokenizer(copy_of):
    directory = copy_of("tiny-stella-1.5b")
    with (directory / "tokenizer.json").open("r+b") as file:
        file.truncate(2**26 + 1)
    refused(directory, "tokenizer.json", "more than the")


def test_an_eos_token_that_is_half_a_character(copy_of):
    directory = copy_of("tiny-gte-qwen2")
    edit_json(directory / "tokenizer_config.json", eos_token="\ud800")
    refused(directory, "tokenizer_config.json", "surrogates")


@contextlib.contextmanager
def little_memory(size_bytes: int):
    """What this process may take beside what it has now."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    try:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + size_bytes, limits[1]))
    except OSError:  # macOS has no /proc
        pass
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.parametrize("mutation", MUTATIONS)
@settings(max_examples=25, deadline=None)
@given(random=st.randoms(use_true_random=False))
def test_a_mutated_checkpoint_loads_or_is_refused(mutation, random):
    """Every choice is hypothesis's, which makes a case that fails small and remembers it; with
    CI=true the cases are the same each time. scripts/fuzz_checkpoints.py is the long run."""
    with tempfile.TemporaryDirectory() as folder:
        name = random.choice(TINY)
        directory = shutil.copytree(CHECKPOINTS / name, Path(folder) / name)
        note(mutate(directory, mutation, random))
        with warnings.catch_warnings(), little_memory(4 * 2**30):
            warnings.simplefilter("ignore", StellaWarning)
            try:
                load(directory, dtype="float32").encode(["a text", ""])
            except StellaError as error:
                assert "\n" not in str(error)
        assert list(Path(folder).iterdir()) == [directory]
