"""Names to directories, with a made-up cache and no network."""

import shutil
import warnings

import pytest
from support import CHECKPOINTS

from mlx_stella import HubUnreachableError, ModelNotFoundError, StellaWarning, load
from mlx_stella.checkpoint import catalog, hub


@pytest.mark.parametrize("repo", ["NovaSearch/stella_en_1.5B_v5", "dunzhang/stella_en_1.5B_v5"])
@pytest.mark.parametrize("name", ["stella-1.5b", "Stella-1.5B", "NovaSearch/stella_en_1.5B_v5"])
def test_an_alias_or_id_finds_the_cached_snapshot_under_either_owner(cache, repo, name):
    directory = cache(repo, "tiny-stella-1.5b")
    source = hub.resolve(name)
    assert source.directory == directory and source.entry.alias == "stella-1.5b"
    assert hub.resolve(directory).entry.alias == "stella-1.5b"  # also by its path
    assert load(name, dtype="float32").encode(["a"]).shape == (1, 1024)


def test_an_incomplete_snapshot_is_not_used(cache):
    directory = cache("nvidia/NV-Embed-v2", "tiny-nv-embed")
    (directory / "model-00003-of-00003.safetensors").unlink()
    with pytest.raises(HubUnreachableError, match=r"not in the cache as a whole.*remedy"):
        hub.resolve("nv-embed-v2")


def test_unreachable_says_what_is_cached(cache):
    cache("infgrad/stella-base-en-v2", "tiny-stella-zh-v2")
    with pytest.raises(HubUnreachableError, match=r"use what is at hand: .*stella-base-en-v2"):
        hub.resolve("stella-1.5b")


def test_a_cache_that_another_program_filled_with_less_is_not_used(cache):
    """transformers fetches config, tokenizer and weights only: pooling and heads are missing."""
    directory = cache("NovaSearch/stella_en_1.5B_v5", "tiny-stella-1.5b")
    shutil.rmtree(directory / "2_Dense_1024")
    with pytest.raises(HubUnreachableError, match="as a whole"):
        hub.resolve("stella-1.5b")
    directory = cache("owner/some-bert", "tiny-stella-zh-v2")
    assert hub.resolve("owner/some-bert").directory == directory
    shutil.rmtree(directory.parent.parent / ".no_exist")
    with pytest.raises(HubUnreachableError, match="as a whole"):
        hub.resolve("owner/some-bert")


def test_a_backbone_in_a_folder_of_its_own(cache):
    """The layout of older sentence-transformers repositories."""
    directory = cache("owner/older", "tiny-stella-1.5b")
    (directory / "0_Transformer").mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (directory / name).rename(directory / "0_Transformer" / name)
    modules = directory / "modules.json"
    modules.write_text(modules.read_text().replace('"path": ""', '"path": "0_Transformer"'))
    assert load("owner/older", dtype="float32").encode(["a"]).shape == (1, 1024)


def test_a_misspelt_alias_is_guessed():
    with pytest.raises(ModelNotFoundError, match=r"did you mean stella-400m\?"):
        hub.resolve("stela-400m")


def test_a_revision_is_never_ignored(cache):
    for name in (CHECKPOINTS / "tiny-stella-1.5b", "all-minilm-l6-v2"):
        with pytest.raises(ModelNotFoundError):
            hub.resolve(name, revision="v9")


@pytest.mark.parametrize(
    "name",
    ["nope", "a/b/c", "../x/y", "a b/c", "-x/y", "stella 1.5b", "a/b..c", "o/a--b", "~nosuch/x"],
)
def test_names_that_are_nothing(name):
    with pytest.raises(ModelNotFoundError, match=r"no such directory or model|no Hub id"):
        hub.resolve(name)


@pytest.mark.parametrize("name", [None, 5, "", "a" * 5000, "o/" + "b" * 200, "a\0b"])
def test_what_is_no_name_at_all(name):
    with pytest.raises(ModelNotFoundError):
        hub.resolve(name)


def test_piccolo_prompts_belong_to_the_first_chinese_models(cache):
    cache("infgrad/stella-base-zh", "tiny-stella-zh-v2")
    cache("infgrad/stella-base-zh-v2", "tiny-stella-zh-v2")
    first, second = load("stella-base-zh", dtype="float32"), load("stella-base-zh-v2")
    assert first.prompts == {"query": "查询: ", "document": "结果: "} and second.prompts == {}
    assert (first.encode_query("a") == first.encode("查询: a")).all()
    assert (first.encode_document("a") == first.encode("结果: a")).all()


def test_the_licence_of_nv_embed_is_said_when_it_is_loaded(cache):
    cache("nvidia/NV-Embed-v2", "tiny-nv-embed")
    with pytest.warns(StellaWarning, match=r"CC-BY-NC-4\.0") as caught:
        load("nv-embed-v2", dtype="float32")
    assert len(caught) == 1
    cache("infgrad/stella-base-zh", "tiny-stella-zh-v2")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load("stella-base-zh", dtype="float32")


def test_every_alias_and_id_is_unique():
    names = [name.lower() for e in catalog.MODELS for name in (e.alias, *e.repos)]
    assert len(set(names)) == len(names)
    assert all(catalog.find(name) for name in names)
    assert all(e.parameters > 0 and e.licence and e.dims for e in catalog.MODELS)
