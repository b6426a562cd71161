"""Calibrated conversions: better than rounding, what was computed, the same again, and bounded."""

import json
import shutil
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support import LENT
from support.enlarged import enlarged

from mlx_stella import InputError, WeightsError, load
from mlx_stella.checkpoint import hub
from mlx_stella.cli.comparison_texts import calibration_texts, evaluation_texts
from mlx_stella.conversion.convert import Conversion, Request, Texts
from mlx_stella.models.formats import Format

pytestmark = pytest.mark.filterwarnings("ignore:quantized weights are expanded")

CALIBRATED = (
    *LENT,
    "tiny-mpnet",
    "tiny-qwen3",
    "tiny-modernbert",
)  # XLM-RoBERTa's layers are BERT's
CALIBRATION = Texts(calibration_texts(None).texts[:48], "built in")
EVALUATION = Texts(evaluation_texts(None).texts[:24], "built in")


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("to-calibrate")
    return {name: enlarged(name, folder) for name in CALIBRATED}


def convert(source, target, request):
    stages = []
    conversion = Conversion(hub.resolve(source), request)
    facts, rows = conversion.run(target, EVALUATION, False, lambda *told: stages.append(told))
    return facts, rows[0], stages


@pytest.mark.parametrize("name", CALIBRATED)
def test_closer_than_rounding_at_the_same_size(sources, tmp_path, name):
    format = Format(3, 64)
    rounded, plain, _ = convert(sources[name], tmp_path / "r", Request("float16", format))
    calibrated, better, stages = convert(
        sources[name], tmp_path / "c", Request("float16", format, calibration=CALIBRATION)
    )
    assert better.relative_l2 < 0.8 * plain.relative_l2
    # Corrected biases are float32, which those of the source need not be.
    assert calibrated["bits_per_weight"] < rounded["bits_per_weight"] + 0.1
    assert calibrated["calibration"]["texts"] == 48
    assert {stage for stage, *_ in stages} == {"measuring", "calibrating", "writing", "comparing"}
    for stage in ("measuring", "calibrating"):
        done = [(done, total) for told, done, total in stages if told == stage]
        assert done == sorted(done) and done[-1][0] == done[-1][1]
    card = (tmp_path / "c/README.md").read_text()
    assert "calibrated on 48 texts (built in)" in card


@pytest.mark.parametrize("name", LENT)
def test_bits_are_chosen_for_a_target(sources, tmp_path, name):
    request = Request("float16", Format(4, 64), calibration=CALIBRATION, target_bits=4.6)
    facts, _, _ = convert(sources[name], tmp_path / "out", request)
    assert 4.2 < facts["bits_per_weight"] <= 4.6 and facts["recipe"] == "auto"
    entry = json.loads((tmp_path / "out/config.json").read_text())["quantization"]
    others = {key: value["bits"] for key, value in entry.items() if isinstance(value, dict)}
    assert others and set(others.values()) - {entry["bits"]}
    assert all(others[key] != entry["bits"] for key in others)
    stored = load_file(tmp_path / "out/model.safetensors")
    assert {f"{key}.weight" for key in others} <= set(stored)
    assert len(load(tmp_path / "out").encode(["a"])) == 1


@pytest.mark.parametrize("name", ["tiny-stella-1.5b", "tiny-nv-embed", "tiny-stella-zh-v2"])
def test_what_is_saved_is_what_was_computed_bit_for_bit(sources, tmp_path, name):
    request = Request("float16", Format(4, 32), calibration=CALIBRATION)
    conversion = Conversion(hub.resolve(sources[name]), request)
    conversion.run(tmp_path / "out", EVALUATION, False, lambda *_: None)
    expected = load(sources[name], dtype="float32")
    layers = dict(expected._backbone.named_modules())
    for path, packed, bias in conversion._calibrate(lambda *_: None):
        layers[path].weight = packed.expand()
        if bias is not None:
            layers[path].bias = bias
    np.testing.assert_array_equal(
        load(tmp_path / "out", dtype="float32").encode_document(EVALUATION.texts),
        expected.encode_document(EVALUATION.texts),
    )


@pytest.mark.slow
def test_the_same_again_for_the_same_seed(sources, tmp_path):
    source = sources["tiny-stella-400m"]

    def stored(target, seed):
        request = Request(
            "float16", Format(4, 64), calibration=CALIBRATION, seed=seed, target_bits=3.7
        )
        convert(source, tmp_path / target, request)
        config = (tmp_path / target / "config.json").read_text()
        return config, (tmp_path / target / "model.safetensors").read_bytes()

    assert stored("a", 0) == stored("b", 0) != stored("c", 1)


def test_only_the_layers_at_hand_are_in_memory(sources, tmp_path):
    source = shutil.copytree(sources["tiny-stella-zh-v2"], tmp_path / "deep")
    tensors, layers = load_file(source / "model.safetensors"), 20
    for name in [name for name in tensors if ".layer.0." in name]:
        for number in range(1, layers):
            tensors[name.replace(".layer.0.", f".layer.{number}.")] = tensors[name]
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}))
    texts = Texts(CALIBRATION.texts[:2], "two texts")
    conversion = Conversion(
        hub.resolve(source), Request("float16", Format(4, 64), calibration=texts, target_bits=4.5)
    )
    weights = 4 * conversion.checkpoint.parameters
    states = conversion.calibration._steps * conversion.calibration._state_bytes
    before, active = mx.get_active_memory(), []
    calibrated = conversion._calibrate(lambda *_: active.append(mx.get_active_memory() - before))
    assert sum(1 for _ in calibrated) == 4 * layers + 3
    assert len(active) == 3 * 2 * layers  # forth and back, and once more with both models
    assert max(active) < states + weights / 5


def test_what_cannot_be_calibrated(sources, tmp_path):
    source = sources["tiny-stella-400m"]
    for request, pattern in [
        (Request("float16", calibration=CALIBRATION), "--bits"),
        (Request("float16", Format(4, 32, "mxfp4"), calibration=CALIBRATION), "--mode affine"),
        (
            Request("float16", Format(4, 64), calibration=CALIBRATION, target_bits=2.2),
            r"2.2 bits per weight are too few: .* remedy: --target-bits 2\.\d+ or more",
        ),
    ]:
        with pytest.raises(InputError, match=pattern):
            Conversion(hub.resolve(source), request)


def test_a_target_that_is_named_as_the_least_can_be_met(sources, tmp_path):
    source = hub.resolve(sources["tiny-gte-qwen2"])
    request = Request("float16", Format(4, 64), calibration=CALIBRATION)
    with pytest.raises(InputError) as caught:
        Conversion(
            source, Request("float16", Format(4, 64), calibration=CALIBRATION, target_bits=1)
        )
    least = float(str(caught.value).split("--target-bits ")[1].split()[0])
    facts, _, _ = convert(
        sources["tiny-gte-qwen2"], tmp_path / "out", replace(request, target_bits=least)
    )
    assert facts["bits_per_weight"] <= least and facts["format"] == "2 bits in groups of 64"


def test_a_matrix_that_is_not_finite(sources, tmp_path):
    source = shutil.copytree(sources["tiny-stella-zh-v2"], tmp_path / "bad")
    tensors = load_file(source / "model.safetensors")
    name = next(name for name in tensors if "layer.1.intermediate.dense.weight" in name)
    tensors[name] = tensors[name].copy()
    tensors[name][3, 5] = np.nan
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    conversion = Conversion(
        hub.resolve(source), Request("float16", Format(4, 64), calibration=CALIBRATION)
    )
    with pytest.raises(WeightsError, match=r"layer\.1\.intermediate\.dense holds a value"):
        conversion.run(tmp_path / "out", EVALUATION, False, lambda *_: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad"]
