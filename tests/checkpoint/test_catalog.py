"""What the catalogue adds to checkpoints of the BERT family: prompts, prefix sizes; a Tanh head."""

import json
import shutil

import mlx.core as mx
import numpy as np
import pytest
from support import CHECKPOINTS, load_tiny

from mlx_stella import Encoder, InputError, load
from mlx_stella.checkpoint.catalog import MODELS, find, find_folder

TEXTS = ["What is Deep Learning?", "", "green tea"]
BGE = "Represent this sentence for searching relevant passages: "


@pytest.fixture
def named(tmp_path):
    """The tiny BERT in a folder that is called as a published model is."""

    def load_as(name: str) -> Encoder:
        return load(shutil.copytree(CHECKPOINTS / "tiny-stella-zh-v2", tmp_path / name))

    return load_as


def test_every_name_leads_to_one_model():
    names = {name for entry in MODELS for name in (entry.alias, *entry.repos)}
    assert len(names) == sum(1 + len(entry.repos) for entry in MODELS)
    for entry in MODELS:
        assert all(find(name) is entry for name in (entry.alias, entry.alias.upper(), *entry.repos))
        assert find_folder(entry.repo.split("/")[1]) is entry
        assert all(0 < size < max(entry.dims) for size in entry.prefix_sizes)


@pytest.mark.parametrize(
    ("name", "query", "document"),
    [
        ("bge-small-en-v1.5", BGE, ""),
        ("bge-large-zh-v1.5", "为这个句子生成表示以用于检索相关文章：", ""),
        ("e5-base-v2", "query: ", "passage: "),
        ("multilingual-e5-small", "query: ", "passage: "),
        ("mxbai-embed-large-v1", BGE, ""),
        ("snowflake-arctic-embed-m-v1.5", BGE, ""),
        ("UAE-Large-V1", BGE, ""),
        ("gte-base", "", ""),
        ("stella-base-zh-v3-1792d", "", ""),
    ],
)
def test_prompts_that_repositories_do_not_ship(named, name, query, document):
    model, plain = named(name), load_tiny("tiny-stella-zh-v2")
    for found, prompt in ((model.encode_query, query), (model.encode_document, document)):
        np.testing.assert_array_equal(found(TEXTS), plain.encode(TEXTS, prompt=prompt))


def test_a_prompt_of_the_repository_stands(named, tmp_path):
    directory = named("e5-small-v2").checkpoint.directory
    own = {"prompts": {"query": "ask: "}}
    (directory / "config_sentence_transformers.json").write_text(json.dumps(own))
    assert load(directory).prompts == {"query": "ask: ", "document": "passage: "}


def test_trained_prefixes_are_known_by_the_name(named):
    sizes = {
        "snowflake-arctic-embed-m-v1.5": (256,),
        "stella-mrl-large-zh-v3.5-1792d": tuple(128 * n for n in range(1, 14)),
        "all-MiniLM-L12-v2": (),
    }
    assert {name: named(name).checkpoint.prefix_sizes for name in sizes} == sizes


@pytest.mark.parametrize("name", ["stella_en_1.5B_v5", "stella-400m"])
def test_a_size_that_a_card_names_without_weights(tmp_path, name):
    model = load(shutil.copytree(CHECKPOINTS / "tiny-stella-1.5b", tmp_path / name))
    reason = "no vectors of 512 dimensions: its card names them, but its repository has no weights"
    for choice in ({"dim": 512}, {"dims": [256, 512]}):
        with pytest.raises(InputError, match=f"{reason} for them; remedy: one of 256, 768"):
            model.settings(**choice)
    with pytest.raises(InputError, match="no vectors of 300 dimensions; remedy"):
        model.settings(dim=300)


def test_a_head_with_tanh_of_the_hidden_size(copy_of):
    """The layout of LaBSE: [CLS], a Dense of the hidden size with Tanh, Normalize."""
    directory = copy_of("tiny-stella-zh-v2")
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Dense": "2_Dense", "Normalize": "3"}
    modules = [{"type": f"models.{kind}", "path": path} for kind, path in paths.items()]
    (directory / "modules.json").write_text(json.dumps(modules))
    for folder in ("1_Pooling", "2_Dense"):
        (directory / folder).mkdir()
    pooling = {"word_embedding_dimension": 48, "pooling_mode_cls_token": True}
    (directory / "1_Pooling/config.json").write_text(json.dumps(pooling))
    dense = {"in_features": 48, "out_features": 48, "bias": True}
    dense["activation_function"] = "torch.nn.modules.activation.Tanh"
    (directory / "2_Dense/config.json").write_text(json.dumps(dense))
    random = np.random.default_rng(0)
    weight = random.normal(size=(48, 48)).astype(np.float32)
    bias = random.normal(size=48).astype(np.float32)
    tensors = {"linear.weight": mx.array(weight), "linear.bias": mx.array(bias)}
    mx.save_safetensors(str(directory / "2_Dense/model.safetensors"), tensors)
    model = load(directory, dtype="float32")
    assert model.dims == (48,) and model.checkpoint.normalizes
    found = model.encode(TEXTS)
    (directory / "modules.json").write_text(json.dumps(modules[:2]))
    pooled = load(directory, dtype="float32").encode(TEXTS, normalize=False)
    y = np.tanh(pooled.astype(np.float64) @ weight.T + bias)
    np.testing.assert_allclose(found, y / np.linalg.norm(y, axis=1, keepdims=True), atol=1e-5)
