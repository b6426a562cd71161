"""What a directory may say, and the line a stranger gets when it says something else."""

import json
import shutil

import mlx.core as mx
import numpy as np
import pytest
from support import CHECKPOINTS, edit_json, load_tiny

from mlx_stella import ConfigError, StellaWarning, WeightsError, load
from mlx_stella.checkpoint.checkpoint import open_checkpoint

TEXTS = ["What is Deep Learning?", "a"]


def modules(directory, *entries: tuple[str, str]) -> None:
    rows = [
        {"idx": i, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(entries)
    ]
    (directory / "modules.json").write_text(json.dumps(rows))


def refused(directory, *patterns: str, error=ConfigError) -> None:
    with pytest.raises(error) as caught:
        open_checkpoint(directory)
    message = str(caught.value)
    assert str(directory) in message and "\n" not in message
    for pattern in patterns:
        assert pattern in message


def test_what_the_genuine_layouts_say():
    stella = open_checkpoint(CHECKPOINTS / "tiny-stella-1.5b")
    assert stella.pooling == "mean" and not stella.normalizes and not stella.masks_prompt
    assert stella.dims == (256, 768, 1024, 8192) and stella.default_dim == 1024
    assert set(stella.prompts.named) == {"s2p_query", "s2s_query"}
    assert (stella.max_seq_length, stella.max_positions) == (512, 131072)
    assert open_checkpoint(CHECKPOINTS / "tiny-gte-qwen2").pooling == "lasttoken"
    assert open_checkpoint(CHECKPOINTS / "tiny-gte-en-v1.5").pooling == "cls"
    nv = open_checkpoint(CHECKPOINTS / "tiny-nv-embed")
    assert nv.masks_prompt and nv.normalizes and "msmarco" in nv.prompts.named
    zh = open_checkpoint(CHECKPOINTS / "tiny-stella-zh-v2")  # no modules.json, no 1_Pooling
    assert zh.pooling == "mean" and zh.max_seq_length == 1024


def test_modules_of_other_package_paths_are_known_by_their_last_name(copy_of):
    directory = copy_of("tiny-stella-1.5b")
    text = (directory / "modules.json").read_text()
    newer = "sentence_transformers.sentence_transformer.modules"
    (directory / "modules.json").write_text(text.replace("sentence_transformers.models", newer))
    assert open_checkpoint(directory).default_dim == 1024


@pytest.mark.parametrize("mode", ["mean", ["mean"]])
def test_the_newer_spelling_of_pooling(copy_of, mode):
    directory = copy_of("tiny-stella-1.5b")
    (directory / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode": mode}))
    assert open_checkpoint(directory).pooling == "mean"


@pytest.mark.parametrize("mode", ["max", "weightedmean", ["mean", "cls"]])
def test_other_poolings_are_refused(copy_of, mode):
    directory = copy_of("tiny-stella-1.5b")
    (directory / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode": mode}))
    refused(directory, "1_Pooling", "not implemented", "mean, cls, lasttoken")


def test_a_directory_without_config(tmp_path):
    refused(tmp_path, "config.json: no such file", "remedy")


@pytest.mark.parametrize("content", ["", "{", "[1]", '"text"', "\x00", "[" * 100_000])
def test_config_that_is_no_json_object(copy_of, content):
    directory = copy_of("tiny-stella-1.5b")
    (directory / "config.json").write_text(content)
    refused(directory, "config.json")


def test_unknown_model_type(copy_of):
    directory = copy_of("tiny-stella-1.5b")
    edit_json(directory / "config.json", model_type="mamba")
    refused(directory, "config.json", "'mamba' is not implemented", "qwen2")


@pytest.mark.parametrize(
    "name, changes, pattern",
    [
        ("tiny-stella-1.5b", {"hidden_act": "relu"}, 'hidden_act = "relu" is not implemented'),
        ("tiny-stella-1.5b", {"use_sliding_window": True}, "use_sliding_window"),
        ("tiny-stella-1.5b", {"hidden_size": "big"}, "hidden_size"),
        ("tiny-stella-400m", {"logn_attention_scale": True}, "logn_attention_scale = true"),
        ("tiny-stella-400m", {"layer_norm_type": "rms_norm"}, "layer_norm_type"),
        ("tiny-stella-400m", {"hidden_act": "gelu_new"}, 'hidden_act = "gelu_new"'),
        ("tiny-nv-embed", {"padding_side": "left"}, "padding_side"),
        ("tiny-nv-embed", {"text_config": None}, "text_config"),
        ("tiny-stella-zh-v2", {"position_embedding_type": "relative_key"}, "relative_key"),
        ("tiny-stella-zh-v2", {"num_attention_heads": 5}, "num_attention_heads"),
        ("tiny-stella-1.5b", {"num_attention_heads": 0}, "num_attention_heads"),
    ],
)
def test_config_values_that_are_not_implemented(copy_of, name, changes, pattern):
    directory = copy_of(name)
    edit_json(directory / "config.json", **changes)
    refused(directory, "config.json", pattern)


KERNELS = ("unpad_inputs", "use_memory_efficient_attention")


@pytest.mark.parametrize("value", ["true", "false"])
def test_the_choices_of_kernels_may_be_strings(copy_of, value):
    """As in the config.json of snowflake-arctic-embed-m-v2.0."""
    directory = copy_of("tiny-gte-en-v1.5")
    edit_json(directory / "config.json", **dict.fromkeys(KERNELS, value))
    args = open_checkpoint(directory).args
    assert [getattr(args, key) for key in KERNELS] == [value == "true"] * 2


@pytest.mark.parametrize(
    ("key", "value"),
    [(KERNELS[0], "True"), (KERNELS[1], ["true"]), ("pack_qkv", "true"), (KERNELS[0], 1)],
)
def test_other_strings_are_no_booleans(copy_of, key, value):
    directory = copy_of("tiny-gte-en-v1.5")
    edit_json(directory / "config.json", **{key: value})
    refused(directory, "config.json", key, "should be a bool")


def test_all_missing_keys_are_named_at_once(copy_of):
    directory = copy_of("tiny-stella-1.5b")
    edit_json(directory / "config.json", rms_norm_eps=None, vocab_size=None)
    refused(directory, "rms_norm_eps is missing", "vocab_size is missing")


def test_a_key_nobody_knows_gets_a_warning(copy_of):
    directory = copy_of("tiny-stella-1.5b")
    edit_json(directory / "config.json", attention_sinks=4)
    with pytest.warns(StellaWarning, match="attention_sinks"):
        open_checkpoint(directory)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["stella_en_1.5B_v5", "stella_en_400M_v5", "NV-Embed-v2"])
@pytest.mark.shared
def test_the_genuine_configs_hold_no_unknown_key(name, shared):
    from mlx_stella.models.architectures import architecture

    file = shared / "configs" / name / "config.json"
    config = json.loads(file.read_text())
    architecture(config, file).args.from_config(config, file)


@pytest.mark.parametrize("path", ["/etc", "../other", "a/../../b", "..\\x"])
def test_a_module_path_that_leaves_the_directory(copy_of, path):
    directory = copy_of("tiny-stella-1.5b")
    modules(directory, ("Transformer", ""), ("Pooling", path))
    refused(directory, "modules.json", "leaves the checkpoint")


@pytest.mark.parametrize(
    "entries",
    [
        [("Transformer", ""), ("Pooling", "1_Pooling"), ("LSTM", "2_LSTM")],
        [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "a"), ("Dense", "b")],
        [("Transformer", ""), ("Pooling", "1_Pooling"), ("Pooling", "1_Pooling")],
        [("Pooling", "1_Pooling"), ("Transformer", "")],
    ],
)
def test_modules_that_are_not_implemented(copy_of, entries):
    directory = copy_of("tiny-stella-1.5b")
    modules(directory, *entries)
    refused(directory, "modules.json", "not implemented")


@pytest.mark.parametrize("content", ["{}", "[3]", "[{}]", "["])
def test_malformed_modules(copy_of, content):
    directory = copy_of("tiny-stella-1.5b")
    (directory / "modules.json").write_text(content)
    refused(directory, "modules.json")


def test_without_modules_only_families_with_a_known_pooling_load(copy_of):
    directory = copy_of("tiny-gte-qwen2")
    (directory / "modules.json").unlink()
    refused(directory, "modules.json", "pooling")


def test_a_head_whose_config_contradicts_its_tensor(copy_of):
    directory = copy_of("tiny-stella-1.5b")
    edit_json(directory / "2_Dense_256/config.json", out_features=300)
    with pytest.warns(StellaWarning, match=r"2_Dense_256.*48 -> 300.*48 -> 256.*tensor is used"):
        model = load(directory, dtype="float32")
    expected = load_tiny("tiny-stella-1.5b").encode(TEXTS, dim=256)
    np.testing.assert_array_equal(model.encode(TEXTS, dim=256), expected)


def test_a_head_that_does_not_fit_the_backbone(copy_of):
    directory = copy_of("tiny-stella-1.5b")
    shutil.copytree(
        CHECKPOINTS / "tiny-stella-400m/2_Dense_256", directory / "2_Dense_256", dirs_exist_ok=True
    )
    refused(directory, "2_Dense_256", "no Dense head for vectors of 48", error=WeightsError)


def test_an_activation_that_is_not_implemented(copy_of):
    directory = copy_of("tiny-stella-1.5b")
    file = directory / "2_Dense_1024/config.json"
    edit_json(file, activation_function="torch.nn.modules.activation.ReLU")
    refused(directory, "2_Dense_1024", "'ReLU'")


def test_a_plain_2_dense_is_the_same_head_under_another_name(copy_of):
    """Stella ships 2_Dense beside 2_Dense_8192; mirrors make it the default."""
    directory = copy_of("tiny-stella-1.5b")
    shutil.copytree(directory / "2_Dense_8192", directory / "2_Dense")
    assert open_checkpoint(directory).heads[8192].modules[0].directory.name == "2_Dense_8192"
    modules(directory, ("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"))
    checkpoint = open_checkpoint(directory)
    assert checkpoint.default_dim == 8192
    assert checkpoint.heads[8192].modules[0].directory.name == "2_Dense"
    assert checkpoint.dims == (256, 768, 1024, 8192)


def write_dense(directory, outputs: int, inputs: int, activation: str) -> None:
    directory.mkdir()
    rng = np.random.default_rng(outputs)
    weight = mx.array(rng.normal(size=(outputs, inputs)) / inputs**0.5, mx.float32)
    mx.save_safetensors(str(directory / "model.safetensors"), {"linear.weight": weight})
    config = {"in_features": inputs, "out_features": outputs, "bias": False}
    config["activation_function"] = f"torch.nn.modules.activation.{activation}"
    (directory / "config.json").write_text(json.dumps(config))


def test_two_dense_modules_in_a_row(copy_of):
    directory = copy_of("tiny-mpnet")
    write_dense(directory / "2_Dense", 96, 48, "Tanh")
    write_dense(directory / "3_Dense", 32, 96, "Identity")
    rows = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"), ("Dense", "3_Dense")
    modules(directory, *rows)
    model = load(directory, dtype="float32")
    assert model.dims == (32,)
    pooled = load_tiny("tiny-mpnet").encode(TEXTS, normalize=False)
    first, second = (
        np.array(mx.load(str(directory / folder / "model.safetensors"))["linear.weight"])
        for folder in ("2_Dense", "3_Dense")
    )
    expected = np.tanh(pooled @ first.T) @ second.T
    np.testing.assert_allclose(model.encode(TEXTS, normalize=False), expected, atol=1e-5)
    modules(directory, *rows[:2], ("Dense", "3_Dense"), ("Dense", "2_Dense"))
    refused(directory, "3_Dense", "no Dense head for vectors of 48", error=WeightsError)


def test_modules_without_pooling(copy_of):
    """The pooling is the architecture's own, where it has one."""
    directory = copy_of("tiny-mpnet")
    modules(directory, ("Transformer", ""), ("Normalize", "2_Normalize"))
    found = open_checkpoint(directory)
    assert found.pooling == "mean" and found.normalizes
    directory = copy_of("tiny-qwen3")
    modules(directory, ("Transformer", ""), ("Normalize", "2_Normalize"))
    refused(directory, "modules.json: names no pooling", "remedy")


@pytest.mark.parametrize(
    "name, key, value, fault",
    [
        ("tiny-xlm-roberta", "position_embedding_type", "relative_key", "relative_key"),
        ("tiny-xlm-roberta", "is_decoder", True, "is_decoder = true"),
        ("tiny-xlm-roberta", "hidden_act", "gelu_new", "gelu_new"),
        ("tiny-mpnet", "is_decoder", True, "is_decoder = true"),
        ("tiny-mpnet", "pad_token_id", 0, "pad_token_id = 0"),
        ("tiny-mpnet", "relative_attention_num_buckets", 16, "from 32"),
        ("tiny-qwen3", "attention_bias", True, "attention_bias = true"),
        ("tiny-qwen3", "is_causal", False, "is_causal = false"),
        ("tiny-qwen3", "use_sliding_window", True, "use_sliding_window = true"),
        ("tiny-qwen3", "layer_types", ["sliding_attention"] * 2, "sliding_attention"),
        ("tiny-qwen3", "rope_scaling", {"rope_type": "yarn", "factor": 4.0}, "yarn"),
        ("tiny-qwen3", "auto_map", {"AutoModel": "own.Qwen3"}, "code of its own, 'own.Qwen3'"),
        ("tiny-qwen3", "head_dim", 15, "heads of 15, which rotary positions cannot pair"),
        ("tiny-qwen3", "head_dim", -1, "head_dim -1 is no size"),
        ("tiny-qwen3", "head_dim", "16", "head_dim '16' is no size"),
        ("tiny-qwen3", "num_key_value_heads", 3, "do not fit together"),
        (
            "tiny-gemma3",
            "use_bidirectional_attention",
            False,
            "use_bidirectional_attention = false",
        ),
        ("tiny-gemma3", "use_bidirectional_attention", None, "attention is missing"),
        ("tiny-gemma3", "query_pre_attn_scalar", 256, "query_pre_attn_scalar = 256"),
        ("tiny-gemma3", "attn_logit_softcapping", 50.0, "attn_logit_softcapping = 50.0"),
        ("tiny-gemma3", "attention_bias", True, "attention_bias = true"),
        ("tiny-gemma3", "hidden_activation", "gelu", 'hidden_activation = "gelu"'),
        ("tiny-gemma3", "rope_scaling", {"rope_type": "linear", "factor": 8.0}, "rope_scaling"),
        ("tiny-gemma3", "sliding_window", None, "sliding_window is missing"),
        ("tiny-mistral", "is_causal", False, "is_causal = false"),
        ("tiny-mistral", "hidden_act", "gelu", 'hidden_act = "gelu"'),
        ("tiny-mistral", "sliding_window", 0, "sliding_window = 0"),
        ("tiny-llama", "attention_bias", True, "attention_bias = true"),
        ("tiny-llama", "mlp_bias", True, "mlp_bias = true"),
        ("tiny-llama", "pooling", "cls", 'pooling = "cls"'),
        ("tiny-llama", "rope_scaling", {"rope_type": "llama3"}, "factor is missing"),
        ("tiny-nomic-bert", "activation_function", "gelu", 'hidden_act = "gelu"'),
        ("tiny-nomic-bert", "num_experts", 8, "num_experts = 8"),
        ("tiny-nomic-bert", "moe_every_n_layers", 2, "moe_every_n_layers = 2"),
        ("tiny-nomic-bert", "rotary_scaling_factor", 2, "rotary_scaling_factor = 2"),
        ("tiny-nomic-bert", "rotary_emb_fraction", 0.5, "rotary_emb_fraction = 0.5"),
        ("tiny-nomic-bert", "rotary_emb_interleaved", True, "rotary_emb_interleaved = true"),
        ("tiny-nomic-bert", "rotary_emb_scale_base", 512, "rotary_emb_scale_base = 512"),
        ("tiny-nomic-bert", "qkv_proj_bias", True, "qkv_proj_bias = true"),
        ("tiny-nomic-bert", "prenorm", True, "prenorm = true"),
        ("tiny-nomic-bert", "causal", True, "causal = true"),
        ("tiny-modernbert", "hidden_activation", "silu", 'hidden_activation = "silu"'),
        ("tiny-modernbert", "norm_bias", True, "norm_bias = true"),
        ("tiny-modernbert", "mlp_bias", True, "mlp_bias = true"),
        ("tiny-modernbert", "attention_bias", True, "attention_bias = true"),
        ("tiny-modernbert", "local_attention", -1, "local_attention = -1"),
        ("tiny-modernbert", "global_attn_every_n_layers", 0, "global_attn_every_n_layers = 0"),
        ("tiny-modernbert", "layer_types", ["chunked_attention"] * 4, "chunked_attention"),
        ("tiny-modernbert", "layer_types", ["full_attention"] * 3, "3 layer_types for 4 layers"),
        ("tiny-modernbert", "rope_scaling", {"type": "yarn", "factor": 4.0}, "rope_scaling"),
        ("tiny-modernbert", "rope_parameters", {"rope_theta": 1e4}, "layers of both kinds"),
        ("tiny-modernbert", "local_rope_theta", None, "rope_theta None"),
        ("tiny-modernbert", "num_attention_heads", 16, "heads of 3"),
    ],
)
def test_values_that_change_the_arithmetic_are_refused_by_name(copy_of, name, key, value, fault):
    directory = copy_of(name)
    edit_json(directory / "config.json", **{key: value})
    refused(directory, "config.json", fault)


def test_heads_without_weights_are_passed_unless_they_are_the_default(copy_of):
    directory = copy_of("tiny-stella-1.5b")
    (directory / "2_Dense_256/model.safetensors").unlink()
    assert open_checkpoint(directory).dims == (768, 1024, 8192)
    (directory / "2_Dense_1024/model.safetensors").unlink()
    refused(directory, "2_Dense_1024", "no model.safetensors", error=WeightsError)


def test_settings_that_are_not_implemented(copy_of):
    directory = copy_of("tiny-stella-1.5b")
    file = directory / "config_sentence_transformers.json"
    edit_json(file, similarity_fn_name="manhattan")
    refused(directory, file.name, "'manhattan'")
    edit_json(file, similarity_fn_name="cosine", default_prompt_name="none_such")
    refused(directory, file.name, "'none_such'")
    edit_json(file, default_prompt_name=None, prompts=["query"])
    refused(directory, file.name, "prompts")


def test_a_default_prompt_is_applied_and_can_be_put_off(copy_of):
    directory = copy_of("tiny-stella-1.5b")
    file = directory / "config_sentence_transformers.json"
    edit_json(file, default_prompt_name="s2s_query")
    model, plain = load(directory, dtype="float32"), load_tiny("tiny-stella-1.5b")
    np.testing.assert_array_equal(model.encode(TEXTS), plain.encode(TEXTS, prompt_name="s2s_query"))
    np.testing.assert_array_equal(model.encode(TEXTS, prompt=""), plain.encode(TEXTS))


def test_layers_that_do_not_attend_to_all_are_refused(copy_of):
    directory = copy_of("tiny-stella-1.5b")
    edit_json(directory / "config.json", layer_types=["full_attention"] * 3)
    open_checkpoint(directory)
    edit_json(directory / "config.json", layer_types=["full_attention", "sliding_attention"])
    refused(directory, "config.json", "layer_types")


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "attention_factor": 3}},
        {"rope_scaling": {"type": "ntk", "factor": 2.0}, "rope_parameters": {"rope_theta": 1e6}},
        {"rope_scaling": [1]},
        {"rope_theta": 0},
    ],
)
def test_rope_settings_are_a_closed_set(copy_of, rope):
    directory = copy_of("tiny-stella-1.5b")
    edit_json(directory / "config.json", **rope)
    refused(directory, "config.json", "rope")


@pytest.mark.parametrize("value", ["512", 512.5, True, -1, 0])
def test_a_maximal_length_that_is_no_number(copy_of, value):
    directory = copy_of("tiny-stella-1.5b")
    edit_json(directory / "sentence_bert_config.json", max_seq_length=value)
    refused(directory, "sentence_bert_config.json", "max_seq_length")


def test_a_maximal_length_without_room_for_text(copy_of):
    directory = copy_of("tiny-stella-400m")
    edit_json(directory / "sentence_bert_config.json", max_seq_length=2)
    with pytest.raises(ConfigError, match="leaves no room"):
        load(directory)


def test_a_head_whose_bias_is_missing_or_odd(copy_of):
    directory = copy_of("tiny-stella-1.5b")
    file = str(directory / "2_Dense_256/model.safetensors")
    weight = mx.load(file)["linear.weight"]
    mx.eval(weight)
    for tensors in (
        {"linear.weight": weight},
        {"linear.weight": weight, "linear.bias": mx.zeros((1,))},
        {"linear.weight": weight, "linear.bias": mx.zeros((256,)), "residual.weight": weight},
    ):
        mx.save_safetensors(file, tensors)
        refused(directory, "2_Dense_256", "no Dense head", error=WeightsError)


def test_two_tensors_for_one_parameter(copy_of):
    directory = copy_of("tiny-stella-zh-v2")
    file = str(directory / "model.safetensors")
    tensors = dict(mx.load(file))
    name = "encoder.layer.0.output.dense.bias"
    tensors["bert." + name] = tensors[name] * 2
    mx.eval(tensors)
    mx.save_safetensors(file, tensors)
    with pytest.raises(WeightsError, match="are the same parameter"):
        load(directory)
