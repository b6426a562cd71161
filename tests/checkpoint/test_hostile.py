"""Checkpoints made to hang, to fill memory or to break out: a loaded model, or one line."""

import contextlib
import json
import os
import resource
import shutil
import warnings
from pathlib import Path
from random import Random

import pytest
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


@pytest.mark.parametrize("name", ["tiny-stella-1.5b", "tiny-nv-embed", "tiny-stella-zh-v2"])
@pytest.mark.parametrize(
    "key, value",
    [
        ("num_hidden_layers", 1024),
        ("vocab_size", SIZE),
        ("intermediate_size", SIZE),
        ("max_position_embeddings", SIZE),
        ("type_vocab_size", SIZE),
    ],
)
def test_sizes_that_do_not_fit_are_one_line(copy_of, name, key, value):
    directory = copy_of(name)
    data = json.loads((directory / "config.json").read_text())
    sizes = data.get("text_config", data)
    if key not in sizes or (key.startswith("max_position") and name != "tiny-stella-zh-v2"):
        pytest.skip("has no such tensor")
    sizes[key] = value
    (directory / "config.json").write_text(json.dumps(data))
    line = refused(directory)
    assert "does not fit its config.json" in line or "asks for 1024 layers" in line


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
def test_a_mutated_checkpoint_loads_or_is_refused(tmp_path, mutation):
    """The short run; scripts/fuzz_checkpoints.py is the long one."""
    for seed in range(12):
        random = Random(f"{mutation} {seed}")
        name = random.choice(TINY)
        directory = shutil.copytree(CHECKPOINTS / name, tmp_path / str(seed) / name)
        told = mutate(directory, mutation, random)
        with warnings.catch_warnings(), little_memory(4 * 2**30):
            warnings.simplefilter("ignore", StellaWarning)
            try:
                load(directory, dtype="float32").encode(["a text", ""])
            except StellaError as error:
                assert "\n" not in str(error), told
            except Exception as error:
                raise AssertionError(told) from error
        assert list(directory.parent.iterdir()) == [directory]
