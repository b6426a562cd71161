"""Convert: what is written, that it loads as what was computed, and what is refused."""

import json
import os
import shutil
import warnings
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from safetensors.numpy import load_file, save_file
from support import CHECKPOINTS, LENT, TINY, distance, edit_json, torch_files
from support.enlarged import enlarged

from mlx_stella import InputError, OutputError, StellaWarning, WeightsError, load
from mlx_stella import loading as loading_module
from mlx_stella.checkpoint import checkpoint, hub
from mlx_stella.conversion import recipes, safetensors_writer
from mlx_stella.conversion.convert import Conversion, Request, Texts
from mlx_stella.models.formats import Format, choose

TEXTS = Texts(["What is Deep Learning?", "a", "green tea and water", "light"], "four texts")
FORMATS = [
    *(Format(bits, 64) for bits in (2, 3, 4, 5, 6, 8)),
    Format(4, 32),
    Format(4, 128),
    choose(None, None, "mxfp4"),
    choose(None, None, "mxfp8"),
    choose(None, None, "nvfp4"),
]
# MLX's CPU kernel for packed weights sums in the type of the operands: a product of 4,096 numbers
# is off by 8e-3 in float16, an expanded one by 6e-4. A GPU sums in float32.
PACKED_TOLERANCES = {"float32": 2e-5, "float16": 2e-2, "bfloat16": 0.16}
pytestmark = pytest.mark.filterwarnings("ignore:quantized weights are expanded")


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("enlarged")
    return {name: enlarged(name, folder) for name in TINY}


def convert(source: Path, target: Path, request: Request, overwrite: bool = False) -> dict:
    conversion = Conversion(hub.resolve(source), request)
    facts, rows = conversion.run(target, TEXTS, overwrite, lambda *_: None)
    assert [row.dim for row in rows] == list(conversion.checkpoint.dims)
    return facts


def in_memory(source: Path, format: Format | None, dtype: mx.Dtype):
    """The float model, each of its matrices rounded where it stands."""
    model = load(source, dtype="float32")
    rounded = []
    for name, weight in tree_flatten(model._backbone.parameters()):
        if weight.ndim == 2:
            weight = weight.astype(dtype)
            if format is not None:
                codes, scales, *biases = mx.quantize(weight, **format.config)
                if biases:
                    scales, biases = scales.astype(mx.float32), [biases[0].astype(mx.float32)]
                weight = mx.dequantize(codes, scales, *biases, **format.config, dtype=mx.float32)
        rounded.append((name, weight.astype(mx.float32)))
    model._backbone.load_weights(rounded)
    return model


@pytest.mark.parametrize(
    "name, format",
    # The codes do not know whose matrix they are: of later architectures one format.
    [(name, format) for name in TINY for format in (FORMATS if name in LENT else FORMATS[2:3])],
    ids=str,
)
def test_what_is_saved_is_what_was_computed_bit_for_bit(sources, tmp_path, name, format):
    facts = convert(sources[name], tmp_path / "out", Request("float16", format))
    loaded = load(tmp_path / "out", dtype="float32")
    expected = in_memory(sources[name], format, mx.float16)
    for dim in loaded.dims:
        np.testing.assert_array_equal(
            loaded.encode_document(TEXTS.texts, dim=dim),
            expected.encode_document(TEXTS.texts, dim=dim),
        )
    assert facts["bits_per_weight"] < format.bits + 3


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("name", TINY)
def test_a_cast_is_a_cast(sources, tmp_path, name, dtype):
    convert(sources[name], tmp_path / "out", Request(dtype))
    expected = in_memory(sources[name], None, getattr(mx, dtype))
    np.testing.assert_array_equal(
        load(tmp_path / "out", dtype="float32").encode(TEXTS.texts), expected.encode(TEXTS.texts)
    )


@pytest.mark.parametrize(
    "format, dtype",
    # Not mxfp4 in float16: the CPU's kernel sums codes before it scales them, and overflows.
    [*((Format(4, 64), dtype) for dtype in PACKED_TOLERANCES), (FORMATS[-3], "float32")],
    ids=str,
)
@pytest.mark.parametrize("name", TINY)
def test_packed_in_memory_as_on_a_gpu(sources, tmp_path, monkeypatch, name, format, dtype):
    convert(sources[name], tmp_path / "out", Request("float16", format))
    expanded = load(tmp_path / "out", dtype="float32")
    for module in (checkpoint, loading_module):
        monkeypatch.setattr(module, "stays_packed", lambda: True)
    packed = load(tmp_path / "out", dtype=dtype)
    kinds = {str(a.dtype) for _, a in tree_flatten(packed._backbone.parameters()) if a.ndim == 2}
    assert "mlx.core.uint32" in kinds
    vectors = packed.encode(TEXTS.texts)
    assert distance(vectors, expanded.encode(TEXTS.texts)) < PACKED_TOLERANCES[dtype]
    held = sum(a.nbytes for _, a in tree_flatten(packed._backbone.parameters()))
    head = packed.checkpoint.heads.get(packed.default_dim)
    stated = packed.checkpoint.memory_bytes(dtype) - (head.size_bytes if head else 0)
    assert 0.8 < held / stated < 1.2  # scales of embeddings keep the type they are stored in


def test_affine_against_plain_numpy(sources, tmp_path):
    """Codes unpacked bit by bit, without MLX."""
    source = sources["tiny-stella-zh-v2"]
    convert(source, tmp_path / "out", Request("float16", Format(3, 64)))
    original, stored = (load_file(d / "model.safetensors") for d in (source, tmp_path / "out"))
    name = "encoder.layer.1.attention.self.key."
    codes = stored[name + "weight"]
    bits = np.unpackbits(codes.view(np.uint8), axis=1, bitorder="little")
    numbers = bits.reshape(len(codes), -1, 3) @ np.array([1, 2, 4])
    scales, biases = (
        np.repeat(stored[name + part].astype(np.float64), 64, axis=1)
        for part in ("scales", "biases")
    )
    error = np.abs(numbers * scales + biases - original[name + "weight"])
    assert numbers.shape == (128, 128) and (error <= np.abs(scales) + 1e-3).all()


def test_a_converted_directory_is_whole(sources, tmp_path):
    source, target = sources["tiny-stella-1.5b"], tmp_path / "out"
    facts = convert(source, target, Request("float16", Format(4, 64)))
    names = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    written = {path.relative_to(target) for path in target.rglob("*") if path.is_file()}
    assert names <= written and {Path("README.md"), Path("conversion.json")} <= written
    for name in names - {Path("config.json"), Path("model.safetensors")}:
        assert (target / name).read_bytes() == (source / name).read_bytes(), name
    config = json.loads((target / "config.json").read_text())
    assert config["quantization"] == {"group_size": 64, "bits": 4, "mode": "affine"}
    assert config["quantization_config"] == config["quantization"]
    original, stored = (load_file(d / "model.safetensors") for d in (source, target))
    for name, tensor in original.items():
        if tensor.ndim == 1:  # norms and biases
            np.testing.assert_array_equal(stored[name], tensor)
        else:
            assert stored[name].dtype == np.uint32
            assert stored[name.replace("weight", "scales")].dtype == np.float16
    assert json.loads((target / "conversion.json").read_text()) == facts


def test_what_a_source_leaves_to_defaults_is_written_out(sources, tmp_path):
    convert(sources["tiny-stella-zh-v2"], tmp_path / "out", Request("float16"))
    assert json.loads((tmp_path / "out/modules.json").read_text())[1]["path"] == "1_Pooling"
    assert load(tmp_path / "out").checkpoint.pooling == "mean"
    convert(sources["tiny-nv-embed"], tmp_path / "nv", Request("float16"))
    settings = json.loads((tmp_path / "nv/config_sentence_transformers.json").read_text())
    assert settings["prompts"]["sts"].startswith("Instruct: ")


def test_nv_embed_is_stored_folded(sources, tmp_path):
    facts = convert(sources["tiny-nv-embed"], tmp_path / "nv", Request("float16", Format(4, 64)))
    stored = load_file(tmp_path / "nv/model.safetensors")
    assert not any("to_kv" in name or "latents" in name for name in stored)
    assert any(name.endswith("fn.scores.scales") for name in stored)
    assert facts["folded"] and "stored folded" in (tmp_path / "nv/README.md").read_text()


def test_single_layers_in_other_formats(sources, tmp_path, monkeypatch):
    other = {"layers.1.mlp.up_gate_proj": Format(8, 32)}
    monkeypatch.setattr(recipes, "exceptions", lambda *_: other)
    source, target = sources["tiny-stella-1.5b"], tmp_path / "out"
    convert(source, target, Request("float16", Format(3, 64), "embeddings_3"))
    entry = json.loads((target / "config.json").read_text())["quantization"]
    assert entry["model.layers.1.mlp.gate_proj"] == Format(8, 32).config
    assert load(target).encode(["a"]).shape == (1, 1024)


def test_layers_that_others_left_float(sources, tmp_path):
    source, target = sources["tiny-stella-1.5b"], tmp_path / "out"
    convert(source, target, Request("float16", Format(3, 64)))
    config = json.loads((target / "config.json").read_text())
    original, stored = (load_file(d / "model.safetensors") for d in (source, target))
    for part in "qkv":
        path = f"model.layers.0.self_attn.{part}_proj"
        stored[f"{path}.weight"] = original[f"{path}.weight"]
        del stored[f"{path}.scales"], stored[f"{path}.biases"]
        config["quantization"][path] = False
    save_file(stored, target / "model.safetensors", {"format": "mlx"})
    edit_json(target / "config.json", **config)
    assert load(target).encode(["a"]).shape == (1, 1024)


@pytest.mark.parametrize("name", TINY)
def test_a_recipe_for_every_architecture(sources, tmp_path, name):
    convert(
        sources[name], tmp_path / "out", Request("float16", Format(5, 64), recipe="embeddings_3")
    )
    entry = json.loads((tmp_path / "out/config.json").read_text())["quantization"]
    exceptions = {key for key, value in entry.items() if value == Format(3, 64).config}
    assert exceptions and all("embed" in key for key in exceptions)
    assert len(load(tmp_path / "out").encode(["a"])) == 1


def test_recipes_that_cannot_be(sources, tmp_path):
    source = sources["tiny-stella-zh-v2"]
    for request, pattern in [
        (Request("float16", Format(4, 64), recipe="mixed_3_6"), "one of embeddings_3"),
        (Request("float16", choose(None, None, "mxfp4"), recipe="embeddings_3"), "--mode affine"),
    ]:
        with pytest.raises(InputError, match=pattern):
            convert(source, tmp_path / "out", request)


def test_parts_of_one_product_in_different_formats_still_load(sources, tmp_path, monkeypatch):
    """As mlx-lm's mixed recipes write them."""
    source, target = sources["tiny-stella-1.5b"], tmp_path / "out"
    convert(source, target, Request("float16", Format(4, 64)))
    tensors = dict(mx.load(str(target / "model.safetensors")))
    name = "model.layers.1.self_attn.v_proj"
    weight = mx.load(str(source / "model.safetensors"))[name + ".weight"].astype(mx.float16)
    for part, value in zip(
        ("weight", "scales", "biases"), mx.quantize(weight, group_size=32, bits=8), strict=True
    ):
        tensors[f"{name}.{part}"] = value
    mx.eval(tensors)
    mx.save_safetensors(str(target / "model.safetensors"), tensors)
    with pytest.raises(WeightsError, match=r"v_proj\.weight: is stored as 8 bits.*otherwise"):
        load(target)
    config = json.loads((target / "config.json").read_text())
    config["quantization"][name] = {"bits": 8, "group_size": 32}
    edit_json(target / "config.json", **config)
    expanded = load(target, dtype="float32").encode(TEXTS.texts)
    for module in (checkpoint, loading_module):
        monkeypatch.setattr(module, "stays_packed", lambda: True)
    assert distance(load(target, dtype="float32").encode(TEXTS.texts), expanded) < 2e-5


@pytest.mark.parametrize("mixed", [None, "mixed_3_6"])
def test_what_mlx_lm_has_quantized_loads(sources, tmp_path, monkeypatch, mixed):
    from mlx_lm import utils
    from mlx_lm.convert import mixed_quant_predicate_builder

    source, target = sources["tiny-gte-qwen2"], tmp_path / "out"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("model*"))
    model, config = utils.load_model(source)
    chosen = mixed and mixed_quant_predicate_builder(mixed, model, 64)
    model, config = utils.quantize_model(model, config, 64, 4, quant_predicate=chosen or None)
    utils.save_model(target, model)
    utils.save_config(config, target / "config.json")
    loaded = load(target, dtype="float32")
    theirs, ours = model.model.layers[1].self_attn, loaded._backbone.layers[1].self_attn
    parts = [
        mx.dequantize(p.weight, p.scales, p.biases, p.group_size, p.bits)
        for p in (theirs.q_proj, theirs.k_proj, theirs.v_proj)
    ]
    np.testing.assert_array_equal(ours.qkv_proj.weight, mx.concatenate(parts))
    expanded = loaded.encode(TEXTS.texts)
    for module in (checkpoint, loading_module):
        monkeypatch.setattr(module, "stays_packed", lambda: True)
    assert distance(load(target, dtype="float32").encode(TEXTS.texts), expanded) < 2e-5


def test_several_shards(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors_writer, "SHARD_BYTES", 100_000)
    source = sources["tiny-gte-en-v1.5"]
    convert(source, tmp_path / "out", Request("float16", Format(4, 64)))
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 2 and shards[0].name == f"model-00001-of-{len(shards):05d}.safetensors"
    assert all(shard.stat().st_size < 130_000 for shard in shards)
    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    assert {tmp_path / "out" / name for name in index["weight_map"].values()} == set(shards)
    expected = in_memory(source, Format(4, 64), mx.float16).encode(TEXTS.texts)
    np.testing.assert_array_equal(load(tmp_path / "out").encode(TEXTS.texts), expected)


def test_a_converted_float_model_may_be_quantized_but_not_twice(sources, tmp_path):
    convert(sources["tiny-nv-embed"], tmp_path / "half", Request("float16"))
    convert(tmp_path / "half", tmp_path / "four", Request("float16", Format(4, 64)))
    with pytest.raises(InputError, match=r"quantized already.*convert the original"):
        convert(tmp_path / "four", tmp_path / "two", Request("float16", Format(2, 64)))
    assert not (tmp_path / "two").exists()


def test_a_matrix_that_float16_has_no_room_for_stays_float32(sources, tmp_path):
    source = Path(shutil.copytree(sources["tiny-stella-zh-v2"], tmp_path / "source"))
    tensors = dict(mx.load(str(source / "model.safetensors")))
    large, small = (f"encoder.layer.{n}.output.dense.weight" for n in (0, 1))
    tensors[large] = tensors[large].astype(mx.float32) * 1e6
    tensors[small] = tensors[small].astype(mx.float32) * 2e-3
    mx.eval(tensors)
    mx.save_safetensors(str(source / "model.safetensors"), tensors)
    convert(source, tmp_path / "out", Request("float16", Format(8, 64)))
    stored = load_file(tmp_path / "out/model.safetensors")
    for name in (large, small):
        assert stored[name.replace("weight", "scales")].dtype == np.float32
    expected = tensors[small][:5]
    parts = [mx.array(stored[small.replace("weight", p)][:5]) for p in ("scales", "biases")]
    found = mx.dequantize(mx.array(stored[small][:5]), *parts, group_size=64, bits=8)
    assert (mx.abs(found - expected) <= 0.75 * mx.abs(parts[0]).max()).all()


def test_a_pickled_source(sources, tmp_path):
    source = Path(shutil.copytree(sources["tiny-stella-zh-v2"], tmp_path / "source"))
    tensors = load_file(source / "model.safetensors")
    torch_files.save(source / "pytorch_model.bin", tensors)
    (source / "model.safetensors").unlink()
    convert(source, tmp_path / "out", Request("float16", Format(4, 64)))
    expected = in_memory(sources["tiny-stella-zh-v2"], Format(4, 64), mx.float16)
    np.testing.assert_array_equal(
        load(tmp_path / "out").encode(TEXTS.texts), expected.encode(TEXTS.texts)
    )


@pytest.mark.parametrize(
    "bits, group_size, mode, pattern",
    [
        (7, None, "affine", "2, 3, 4, 5, 6 or 8 bits in groups of 32, 64 or 128"),
        (4, 16, "affine", "groups of 32, 64 or 128"),
        (8, None, "mxfp4", "for mxfp4 4 bits in groups of 32"),
        (4, 64, "mxfp8", "8 bits in groups of 32"),
        (4, 32, "nvfp4", "groups of 16"),
        (4, 64, "gguf", "one of affine, mxfp4"),
    ],
)
def test_formats_that_mlx_does_not_offer(bits, group_size, mode, pattern):
    with pytest.raises(InputError, match=pattern):
        choose(bits, group_size, mode)


@pytest.mark.parametrize(
    "name, format, remedy",
    [
        ("tiny-stella-400m", Format(4, 64), "--group-size 32"),
        ("tiny-stella-1.5b", Format(4, 64), "--mode nvfp4"),
        ("tiny-gte-qwen2", Format(4, 32), "--dtype alone, without bits"),
    ],
)
def test_rows_that_the_group_size_does_not_divide(tmp_path, name, format, remedy):
    with pytest.raises(InputError, match=rf"do not divide; remedy: {remedy}") as caught:
        convert(CHECKPOINTS / name, tmp_path / "out", Request("float16", format))
    assert "matrices, such as" in str(caught.value) and not (tmp_path / "out").exists()


def test_outputs_that_are_refused(sources, tmp_path):
    source, request = sources["tiny-stella-zh-v2"], Request("float16")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    for target, overwrite, pattern in [
        (tmp_path / "mine", False, "exists; remedy: another name, or --overwrite"),
        (tmp_path / "mine", True, "holds no conversion"),
        (tmp_path / "no/where", False, "is no folder; remedy: create it"),
        (source, True, "holds the source itself"),
        (source.parent, True, "holds the source itself"),
    ]:
        with pytest.raises(InputError, match=pattern):
            convert(source, target, request, overwrite)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"


def test_overwriting_replaces_an_earlier_conversion(sources, tmp_path):
    convert(sources["tiny-stella-1.5b"], tmp_path / "out", Request("float16"))
    convert(sources["tiny-stella-zh-v2"], tmp_path / "out", Request("float32"), overwrite=True)
    assert not any((tmp_path / "out").glob("2_Dense*"))
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_room_is_asked_for_what_is_written_and_nothing_else(sources, tmp_path):
    source = Path(shutil.copytree(sources["tiny-stella-1.5b"], tmp_path / "source"))
    (source / "onnx").mkdir()
    (source / "onnx/model.onnx").write_bytes(b"0" * 2**20)
    (source / "photo.jpg").write_bytes(b"0" * 2**20)
    counted = Conversion(hub.resolve(source), Request("float16")).other_bytes
    convert(source, tmp_path / "out", Request("float16"))
    own = {"model.safetensors", "README.md", "conversion.json"}
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    others = [path for path in written if path.relative_to(tmp_path / "out").as_posix() not in own]
    assert counted == pytest.approx(sum(path.stat().st_size for path in others), abs=1000)


def test_a_full_disk_is_found_before_the_work(sources, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match=r"needs .* GB, and 0\.00 GB are free"):
        convert(sources["tiny-stella-zh-v2"], tmp_path / "out", Request("float16"))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_is_reported_and_leaves_nothing(sources, tmp_path, monkeypatch):
    def full(self, name, array):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(safetensors_writer.SafetensorsWriter, "add", full)
    with pytest.raises(OutputError, match=r"No space left on device.*remedy"):
        convert(sources["tiny-stella-zh-v2"], tmp_path / "out", Request("float16"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_source_that_is_not_finite(sources, tmp_path, value):
    source = Path(shutil.copytree(sources["tiny-stella-zh-v2"], tmp_path / "source"))
    tensors = dict(mx.load(str(source / "model.safetensors")))
    tensors["encoder.layer.0.output.dense.weight"][3, 5] = value
    mx.eval(tensors)
    mx.save_safetensors(str(source / "model.safetensors"), tensors)
    with pytest.raises(WeightsError, match=r"layer\.0\.output\.dense.*not finite"):
        convert(source, tmp_path / "out", Request("float16", Format(4, 64)))
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    "entry, pattern",
    [
        ({"bits": 8, "group_size": 64}, "is stored as 4 bits in groups of 64, and config.json"),
        ({"bits": 7, "group_size": 64}, "quantization of 7 bits"),
        ("four", "quantization is no object"),
        ({"quant_method": "gptq", "bits": 4}, "quantized by 'gptq'"),
    ],
)
def test_a_config_that_says_something_else(sources, tmp_path, entry, pattern):
    convert(sources["tiny-stella-zh-v2"], tmp_path / "out", Request("float16", Format(4, 64)))
    edit_json(tmp_path / "out/config.json", quantization=entry)
    with pytest.raises((WeightsError, checkpoint.ConfigError), match=pattern):
        load(tmp_path / "out")


def test_the_tensors_count_where_config_says_nothing(sources, tmp_path):
    convert(sources["tiny-stella-zh-v2"], tmp_path / "out", Request("float16", Format(6, 32)))
    expected = load(tmp_path / "out").encode(TEXTS.texts)
    edit_json(tmp_path / "out/config.json", quantization=None, quantization_config=None)
    np.testing.assert_array_equal(load(tmp_path / "out").encode(TEXTS.texts), expected)


@pytest.mark.parametrize(
    "part, change, pattern",
    [
        ("scales", lambda x: x[:, :1], "no format of MLX"),
        ("scales", lambda x: x[:5], "do not belong together"),
        ("biases", lambda x: x[:5], "differ in shape or type"),
        ("weight", lambda x: x.astype(mx.int32), "int32 with scales of"),
        ("scales", lambda x: x * float("nan"), "not finite"),
    ],
)
def test_damaged_quantized_tensors(sources, tmp_path, part, change, pattern):
    convert(sources["tiny-stella-zh-v2"], tmp_path / "out", Request("float16", Format(4, 64)))
    file = str(tmp_path / "out/model.safetensors")
    tensors = dict(mx.load(file))
    name = f"encoder.layer.0.output.dense.{part}"
    tensors[name] = change(tensors[name])
    mx.eval(tensors)
    mx.save_safetensors(file, tensors)
    with pytest.raises(WeightsError, match=rf"encoder\.layer\.0\.output\.dense.*{pattern}"):
        load(tmp_path / "out")


def test_the_cpu_says_that_it_expands(sources, tmp_path):
    convert(sources["tiny-stella-zh-v2"], tmp_path / "out", Request("float16", Format(4, 64)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(tmp_path / "out", dtype="float32")
    assert ["expanded to float32" in str(w.message) for w in caught] == [True]
    assert all(w.category is StellaWarning for w in caught)


def test_licences_travel_along(sources, tmp_path):
    source = Path(shutil.copytree(sources["tiny-nv-embed"], tmp_path / "NV-Embed-v2"))
    convert(source, tmp_path / "a", Request("float16"))
    convert(tmp_path / "a", tmp_path / "b", Request("float16", Format(8, 64)))
    for target in ("a", "b"):
        card = (tmp_path / target / "README.md").read_text()
        assert "license: cc-by-nc-4.0" in card and "for non-commercial use only" in card
        assert "base_model: nvidia/NV-Embed-v2" in card
        with pytest.warns(StellaWarning, match="non-commercial"):
            load(tmp_path / target, dtype="float32")
    source = Path(shutil.copytree(sources["tiny-stella-zh-v2"], tmp_path / "mine"))
    convert(source, tmp_path / "c", Request("float16"))
    assert "None is stated by the source" in (tmp_path / "c/README.md").read_text()
    (source / "README.md").write_text("---\ntags: [a]\nlicense: apache-2.0\n---\n# Mine\n")
    convert(source, tmp_path / "c", Request("float16"), overwrite=True)
    assert "license: apache-2.0" in (tmp_path / "c/README.md").read_text()
