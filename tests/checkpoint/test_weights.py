"""Tensors that are missing, extra, misshapen, damaged or dangerous."""

import json

import mlx.core as mx
import numpy as np
import pytest
from support import distance, load_tiny

from mlx_stella import ConfigError, WeightsError, load

NAME = "tiny-stella-1.5b"


def rewrite(directory, change) -> None:
    file = str(directory / "model.safetensors")
    tensors = dict(mx.load(file))
    change(tensors)
    mx.eval(tensors)
    mx.save_safetensors(file, tensors)


def refused(directory, *patterns: str, error=WeightsError) -> None:
    with pytest.raises(error) as caught:
        load(directory, dtype="float32")
    message = str(caught.value)
    assert str(directory) in message and "\n" not in message
    for pattern in patterns:
        assert pattern in message


def test_all_that_does_not_fit_is_named_at_once(copy_of):
    directory = copy_of(NAME)

    def change(tensors):
        del tensors["model.norm.weight"]
        del tensors["model.layers.2.self_attn.k_proj.bias"]
        tensors["model.layers.0.mlp.down_proj.weight"] = mx.zeros((3, 4))
        tensors["model.layers.1.mlp.up_proj.weight"] = mx.zeros((5, 48))
        tensors["model.layers.9.mlp.up_proj.weight"] = mx.zeros((2, 2))

    rewrite(directory, change)
    refused(
        directory,
        "model.safetensors",
        "missing norm.weight",
        "missing layers.2.self_attn.k_proj.bias",
        "model.layers.0.mlp.down_proj.weight: has shape (3, 4)",
        "model.layers.1.mlp.up_proj.weight",
        "extra model.layers.9.mlp.up_proj.weight",
        "remedy",
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_weight_that_is_not_finite(copy_of, value, dtype):
    directory = copy_of(NAME)

    def change(tensors):
        weight = np.array(tensors["model.layers.1.mlp.down_proj.weight"])
        weight[3, 5] = value
        tensors["model.layers.1.mlp.down_proj.weight"] = mx.array(weight)

    rewrite(directory, change)
    with pytest.raises(WeightsError, match=r"layers\.1\.mlp\.down_proj.*not finite"):
        load(directory, dtype=dtype)


def test_a_head_that_is_not_finite(copy_of):
    directory = copy_of(NAME)
    file = str(directory / "2_Dense_256/model.safetensors")
    tensors = dict(mx.load(file))
    tensors["linear.bias"] = mx.full((256,), float("nan"))
    mx.save_safetensors(file, tensors)
    model = load(directory, dtype="float32")
    with pytest.raises(WeightsError, match=r"2_Dense_256.*linear\.bias.*not finite"):
        model.encode(["a"], dim=256)


def test_integers_in_place_of_weights(copy_of):
    directory = copy_of(NAME)
    rewrite(directory, lambda t: t.update({"model.norm.weight": mx.zeros((48,), mx.int32)}))
    refused(directory, "model.norm.weight", "not floating point")


@pytest.mark.parametrize("keep", [0, 7, 100, 5000, -1])
def test_a_truncated_file(copy_of, keep):
    directory = copy_of(NAME)
    file = directory / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    refused(directory, "model.safetensors", "truncated, corrupt", "download it again")


@pytest.mark.parametrize("content", [b"\xff" * 64, b"PK\x03\x04" + b"\0" * 60, b"\0" * 64])
def test_a_file_that_is_no_safetensors(copy_of, content):
    directory = copy_of(NAME)
    (directory / "model.safetensors").write_bytes(content)
    refused(directory, "model.safetensors", "truncated, corrupt")


def test_no_weights_at_all(copy_of):
    directory = copy_of(NAME)
    (directory / "model.safetensors").unlink()
    refused(directory, "no model.safetensors here")


def test_a_missing_shard(copy_of):
    directory = copy_of("tiny-nv-embed")
    (directory / "model-00002-of-00003.safetensors").unlink()
    refused(directory, "model-00002-of-00003.safetensors")


@pytest.mark.parametrize("shard", ["../../secret.safetensors", "/etc/x.safetensors", "x.bin"])
def test_an_index_that_names_what_it_should_not(copy_of, shard):
    directory = copy_of("tiny-nv-embed")
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shard}}))
    refused(directory, "index.json", "refused", error=ConfigError)


def test_bfloat16_files_load(copy_of):
    directory = copy_of(NAME)
    rewrite(directory, lambda t: t.update({k: v.astype(mx.bfloat16) for k, v in t.items()}))
    vectors = load(directory, dtype="float32").encode(["What is Deep Learning?"])
    assert distance(vectors, load_tiny(NAME).encode(["What is Deep Learning?"])) < 0.04
