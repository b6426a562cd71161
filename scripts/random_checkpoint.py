"""Write a checkpoint of random weights in the exact layout of a published model.

It serves to measure memory, speed and loading where the genuine weights are not at hand; the
vectors it gives mean nothing.

    $ python scripts/random_checkpoint.py gte-qwen2-1.5b gte-random
     4,994,888,704 bytes  262 tensors  gte-random/model-00001-of-00002.safetensors
     2,109,938,216 bytes   77 tensors  gte-random/model-00002-of-00002.safetensors
    These weights are random: good only for measuring memory, speed and loading.
    tokenizer.json is a stand-in that cuts text into single characters or bytes.

Names, shapes, dtypes, shards and settings follow the published files; comments mark what could
not be verified. Some of infgrad's stella-*-zh and stella-base-en-v2 were published as pickles
(pytorch_model.bin) only; here they too become safetensors. A family is one function that yields
its tensors in state-dict order; a model is one row of MODELS.
"""

import copy
import json
import math
import shutil
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import ByteLevel, TemplateProcessing

# ---- tensors -----------------------------------------------------------------------------------


class Tensor(NamedTuple):
    name: str
    shape: tuple[int, ...]
    kind: str  # matrix, embedding, norm, bias or positions
    dtype: str = "float32"

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def linear(name: str, outputs: int, inputs: int, bias: bool = True) -> Iterator[Tensor]:
    yield Tensor(f"{name}.weight", (outputs, inputs), "matrix")
    if bias:
        yield Tensor(f"{name}.bias", (outputs,), "bias")


def norm(name: str, width: int, bias: bool = True) -> Iterator[Tensor]:
    yield Tensor(f"{name}.weight", (width,), "norm")
    if bias:
        yield Tensor(f"{name}.bias", (width,), "bias")


def embedding(name: str, rows: int, width: int) -> Iterator[Tensor]:
    yield Tensor(f"{name}.weight", (rows, width), "embedding")


def decoder(config: dict, prefix: str, qkv_bias: bool, qk_norm: bool = False) -> Iterator[Tensor]:
    """The backbone that Qwen2, Qwen3 and Mistral share."""
    hidden, intermediate = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim", hidden // heads)
    width, kv_width = heads * head_dim, config["num_key_value_heads"] * head_dim
    yield from embedding(f"{prefix}embed_tokens", config["vocab_size"], hidden)
    for index in range(config["num_hidden_layers"]):
        layer = f"{prefix}layers.{index}"
        yield from linear(f"{layer}.self_attn.q_proj", width, hidden, qkv_bias)
        yield from linear(f"{layer}.self_attn.k_proj", kv_width, hidden, qkv_bias)
        yield from linear(f"{layer}.self_attn.v_proj", kv_width, hidden, qkv_bias)
        yield from linear(f"{layer}.self_attn.o_proj", hidden, width, bias=False)
        if qk_norm:
            yield from norm(f"{layer}.self_attn.q_norm", head_dim, bias=False)
            yield from norm(f"{layer}.self_attn.k_norm", head_dim, bias=False)
        yield from linear(f"{layer}.mlp.gate_proj", intermediate, hidden, bias=False)
        yield from linear(f"{layer}.mlp.up_proj", intermediate, hidden, bias=False)
        yield from linear(f"{layer}.mlp.down_proj", hidden, intermediate, bias=False)
        yield from norm(f"{layer}.input_layernorm", hidden, bias=False)
        yield from norm(f"{layer}.post_attention_layernorm", hidden, bias=False)
    yield from norm(f"{prefix}norm", hidden, bias=False)


def qwen2(config: dict, lm_head: bool = False) -> Iterator[Tensor]:
    yield from decoder(config, "model.", qkv_bias=True)
    if lm_head:
        yield from linear("lm_head", config["vocab_size"], config["hidden_size"], bias=False)


def qwen3(config: dict) -> Iterator[Tensor]:
    yield from decoder(config, "", qkv_bias=False, qk_norm=True)


def nv_embed(config: dict) -> Iterator[Tensor]:
    # config.json leaves these sizes to the defaults of its Python code.
    hidden, latents, heads_width, ff_width = 4096, 512, 8 * 4096, 4 * 4096
    yield Tensor("latent_attention_model.latents", (latents, hidden), "embedding")
    attend, feed_forward = (f"latent_attention_model.cross_attend_blocks.{i}" for i in (0, 1))
    yield from linear(f"{attend}.fn.to_q", heads_width, hidden, bias=False)
    yield from linear(f"{attend}.fn.to_kv", 2 * heads_width, hidden, bias=False)
    yield from linear(f"{attend}.fn.to_out", hidden, heads_width, bias=False)
    yield from norm(f"{attend}.norm", hidden)
    yield from norm(f"{attend}.norm_context", hidden)
    yield from linear(f"{feed_forward}.fn.net.0", 2 * ff_width, hidden)
    yield from linear(f"{feed_forward}.fn.net.2", hidden, ff_width)
    yield from norm(f"{feed_forward}.norm", hidden)
    yield from decoder(config["text_config"], "embedding_model.", qkv_bias=False)


def new(config: dict, prefix: str = "", pooler: bool = False) -> Iterator[Tensor]:
    hidden, intermediate = config["hidden_size"], config["intermediate_size"]
    yield from embedding(f"{prefix}embeddings.word_embeddings", config["vocab_size"], hidden)
    if token_types := config["type_vocab_size"]:
        yield from embedding(f"{prefix}embeddings.token_type_embeddings", token_types, hidden)
    yield from norm(f"{prefix}embeddings.LayerNorm", hidden)
    for index in range(config["num_hidden_layers"]):
        layer = f"{prefix}encoder.layer.{index}"
        yield from linear(f"{layer}.attention.qkv_proj", 3 * hidden, hidden)
        yield from linear(f"{layer}.attention.o_proj", hidden, hidden)
        yield from linear(f"{layer}.mlp.up_gate_proj", 2 * intermediate, hidden, bias=False)
        yield from linear(f"{layer}.mlp.down_proj", hidden, intermediate)
        yield from norm(f"{layer}.attn_ln", hidden)
        yield from norm(f"{layer}.mlp_ln", hidden)
    if pooler:
        yield from linear(f"{prefix}pooler.dense", hidden, hidden)


def bert(config: dict) -> Iterator[Tensor]:
    hidden, intermediate = config["hidden_size"], config["intermediate_size"]
    positions = config["max_position_embeddings"]
    # The position_ids buffer is in all-MiniLM-L6-v2's file; for the stella ones it is inferred.
    yield Tensor("embeddings.position_ids", (1, positions), "positions", "int64")
    yield from embedding("embeddings.word_embeddings", config["vocab_size"], hidden)
    yield from embedding("embeddings.position_embeddings", positions, hidden)
    yield from embedding("embeddings.token_type_embeddings", config["type_vocab_size"], hidden)
    yield from norm("embeddings.LayerNorm", hidden)
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        for part in ("query", "key", "value"):
            yield from linear(f"{layer}.attention.self.{part}", hidden, hidden)
        yield from linear(f"{layer}.attention.output.dense", hidden, hidden)
        yield from norm(f"{layer}.attention.output.LayerNorm", hidden)
        yield from linear(f"{layer}.intermediate.dense", intermediate, hidden)
        yield from linear(f"{layer}.output.dense", hidden, intermediate)
        yield from norm(f"{layer}.output.LayerNorm", hidden)
    yield from linear("pooler.dense", hidden, hidden)


def mpnet(config: dict) -> Iterator[Tensor]:
    hidden, intermediate = config["hidden_size"], config["intermediate_size"]
    heads, positions = config["num_attention_heads"], config["max_position_embeddings"]
    yield Tensor("embeddings.position_ids", (1, positions), "positions", "int64")
    yield from embedding("embeddings.word_embeddings", config["vocab_size"], hidden)
    yield from embedding("embeddings.position_embeddings", positions, hidden)
    yield from norm("embeddings.LayerNorm", hidden)
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        for part in "qkvo":
            yield from linear(f"{layer}.attention.attn.{part}", hidden, hidden)
        yield from norm(f"{layer}.attention.LayerNorm", hidden)
        yield from linear(f"{layer}.intermediate.dense", intermediate, hidden)
        yield from linear(f"{layer}.output.dense", hidden, intermediate)
        yield from norm(f"{layer}.output.LayerNorm", hidden)
    yield from embedding("encoder.relative_attention_bias", 32, heads)
    yield from linear("pooler.dense", hidden, hidden)


def modernbert(config: dict) -> Iterator[Tensor]:
    hidden, intermediate = config["hidden_size"], config["intermediate_size"]
    yield from embedding("embeddings.tok_embeddings", config["vocab_size"], hidden)
    yield from norm("embeddings.norm", hidden, bias=False)
    for index in range(config["num_hidden_layers"]):
        layer = f"layers.{index}"
        if index:
            yield from norm(f"{layer}.attn_norm", hidden, bias=False)
        yield from linear(f"{layer}.attn.Wqkv", 3 * hidden, hidden, bias=False)
        yield from linear(f"{layer}.attn.Wo", hidden, hidden, bias=False)
        yield from norm(f"{layer}.mlp_norm", hidden, bias=False)
        yield from linear(f"{layer}.mlp.Wi", 2 * intermediate, hidden, bias=False)
        yield from linear(f"{layer}.mlp.Wo", hidden, intermediate, bias=False)
    yield from norm("final_norm", hidden, bias=False)


def gemma3(config: dict) -> Iterator[Tensor]:
    yield from decoder(config, "", qkv_bias=False, qk_norm=True)
    for index in range(config["num_hidden_layers"]):
        for part in ("pre", "post"):
            name = f"layers.{index}.{part}_feedforward_layernorm"
            yield from norm(name, config["hidden_size"], bias=False)


def nomic_bert(config: dict) -> Iterator[Tensor]:
    hidden, intermediate = config["n_embd"], config["n_inner"]
    yield from embedding("embeddings.word_embeddings", config["vocab_size"], hidden)
    yield from embedding("embeddings.token_type_embeddings", config["type_vocab_size"], hidden)
    yield from norm("emb_ln", hidden)
    for index in range(config["n_layer"]):
        layer = f"encoder.layers.{index}"
        yield from linear(f"{layer}.attn.Wqkv", 3 * hidden, hidden, bias=False)
        yield from linear(f"{layer}.attn.out_proj", hidden, hidden, bias=False)
        yield from linear(f"{layer}.mlp.fc11", intermediate, hidden, bias=False)
        yield from linear(f"{layer}.mlp.fc12", intermediate, hidden, bias=False)
        yield from linear(f"{layer}.mlp.fc2", hidden, intermediate, bias=False)
        yield from norm(f"{layer}.norm1", hidden)
        yield from norm(f"{layer}.norm2", hidden)


# ---- stand-in tokenizers -----------------------------------------------------------------------


def vocabulary(pieces: list[str], size: int) -> dict[str, int]:
    """The pieces first, then fillers that no text can produce: no merge or word leads to them."""
    pieces = pieces + [f"[filler {index}]" for index in range(len(pieces), size)]
    return {piece: index for index, piece in enumerate(pieces)}


def qwen2_tokenizer(append_eos: bool = False) -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary(alphabet, 151643), merges=[]))
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.normalizer = normalizers.NFC()
    words = Regex(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    byte_level = {"add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(**byte_level)]
    )
    # Stella's file appends the end of text itself; gte-Qwen2's leaves that to Python code.
    tokenizer.post_processor = ByteLevel(**byte_level)
    if append_eos:
        tokenizer.post_processor = TemplateProcessing(
            single="$A <|endoftext|>",
            pair="$A <|endoftext|> $B:1 <|endoftext|>:1",
            special_tokens=[("<|endoftext|>", 151643)],
        )
    return tokenizer


def mistral_tokenizer() -> Tokenizer:
    special = ["<unk>", "<s>", "</s>"]
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *map(chr, range(33, 127))]
    vocab = vocabulary(pieces, 32000)
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=[], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.add_special_tokens(special)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def bert_tokenizer(vocab_size: int = 30522, fixed_length: int | None = None) -> Tokenizer:
    # GB 2312: the everyday Chinese characters and punctuation, kana, Greek and Cyrillic.
    codes = (bytes([row, cell]) for row in range(0xA1, 0xF8) for cell in range(0xA1, 0xFF))
    characters = [code.decode("gb2312", "ignore") for code in codes]
    characters = [c for c in [*map(chr, range(33, 127)), *characters] if c and c == c.lower()]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = ["[PAD]", *(f"[unused{index}]" for index in range(99)), *special[1:]]
    pieces += [*characters, *(f"##{character}" for character in characters)]
    vocab = vocabulary(pieces, vocab_size)
    tokenizer = Tokenizer(models.WordPiece(vocab=vocab, unk_token="[UNK]"))
    tokenizer.add_special_tokens(special)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 101), ("[SEP]", 102)],
    )
    if fixed_length:
        tokenizer.enable_truncation(fixed_length)
        tokenizer.enable_padding(length=fixed_length)
    return tokenizer


# ---- published settings ------------------------------------------------------------------------

QWEN2 = json.loads("""{
    "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0,
    "auto_map": {"AutoModel": "modeling_qwen.Qwen2Model",
                 "AutoModelForCausalLM": "modeling_qwen.Qwen2ForCausalLM",
                 "AutoModelForSequenceClassification":
                 "modeling_qwen.Qwen2ForSequenceClassification"},
    "bos_token_id": 151643, "eos_token_id": 151643, "hidden_act": "silu", "hidden_size": 1536,
    "initializer_range": 0.02, "intermediate_size": 8960, "max_position_embeddings": 131072,
    "max_window_layers": 21, "model_type": "qwen2", "num_attention_heads": 12,
    "num_hidden_layers": 28, "num_key_value_heads": 2, "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0, "sliding_window": 131072, "tie_word_embeddings": false,
    "torch_dtype": "float32", "transformers_version": "4.42.3", "use_cache": true,
    "use_sliding_window": false, "vocab_size": 151646}""")
GTE_QWEN2 = QWEN2 | {"is_causal": False}
GTE_QWEN2_7B = GTE_QWEN2 | json.loads("""{
    "hidden_size": 3584, "intermediate_size": 18944, "max_window_layers": 28,
    "num_attention_heads": 28, "num_key_value_heads": 4}""")

NEW = json.loads("""{
    "architectures": ["NewModel"], "attention_probs_dropout_prob": 0.0,
    "auto_map": {"AutoConfig": "configuration.NewConfig", "AutoModel": "modeling.NewModel"},
    "classifier_dropout": null, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
    "hidden_size": 1024, "initializer_range": 0.02, "intermediate_size": 4096,
    "layer_norm_eps": 1e-12, "layer_norm_type": "layer_norm", "logn_attention_clip1": false,
    "logn_attention_scale": false, "max_position_embeddings": 8192, "model_type": "new",
    "num_attention_heads": 16, "num_hidden_layers": 24, "pack_qkv": true, "pad_token_id": 0,
    "position_embedding_type": "rope", "rope_scaling": {"factor": 2.0, "type": "ntk"},
    "rope_theta": 160000, "torch_dtype": "float32", "transformers_version": "4.41.2",
    "type_vocab_size": 2, "unpad_inputs": true, "use_memory_efficient_attention": true,
    "vocab_size": 30528}""")
GTE_LARGE = NEW | json.loads("""{
    "auto_map": {"AutoConfig": "Alibaba-NLP/new-impl--configuration.NewConfig",
                 "AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel"},
    "unpad_inputs": false, "use_memory_efficient_attention": false}""")
GTE_BASE = GTE_LARGE | json.loads("""{
    "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
    "num_hidden_layers": 12, "rope_theta": 500000, "type_vocab_size": 0}""")

# The published text_config also spells out some fifty defaults of transformers, left out here.
NV_EMBED_V2 = json.loads("""{
    "_name_or_path": "nvidia/NV-Embed-v2", "add_eos": true, "add_pad_token": true,
    "architectures": ["NVEmbedModel"],
    "auto_map": {"AutoConfig": "configuration_nvembed.NVEmbedConfig",
                 "AutoModel": "modeling_nvembed.NVEmbedModel"},
    "hidden_size": 4096, "is_mask_instruction": true,
    "latent_attention_config": {"model_type": "latent_attention"}, "mask_type": "b",
    "model_type": "nvembed", "padding_side": "right", "torch_dtype": "float16",
    "transformers_version": "4.42.4", "text_config": {
        "_name_or_path": "nvidia/NV-Embed-v2", "architectures": ["MistralModel"],
        "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
        "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
        "max_position_embeddings": 32768, "model_type": "bidir_mistral",
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8,
        "pad_token_id": null, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
        "sliding_window": 4096, "tie_word_embeddings": false, "torch_dtype": "float32",
        "use_cache": true, "vocab_size": 32000}}""")
V1 = {"_name_or_path": "nvidia/NV-Embed-v1"}
NV_EMBED_V1 = NV_EMBED_V2 | V1 | {"text_config": NV_EMBED_V2["text_config"] | V1}
del NV_EMBED_V1["hidden_size"]  # the one key that v1 lacks

BERT = json.loads("""{
    "architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1, "initializer_range": 0.02, "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512, "model_type": "bert", "num_attention_heads": 12,
    "pad_token_id": 0, "position_embedding_type": "absolute", "type_vocab_size": 2,
    "use_cache": true, "vocab_size": 30522}""")
MINILM = BERT | json.loads("""{
    "_name_or_path": "nreimers/MiniLM-L6-H384-uncased", "gradient_checkpointing": false,
    "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6,
    "transformers_version": "4.8.2"}""")
# The stella configs are inferred from file sizes and from a sibling model.
STELLA_BASE_EN = BERT | json.loads("""{
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "torch_dtype": "float16"}""")
STELLA_BASE_ZH = STELLA_BASE_EN | {"max_position_embeddings": 1024, "vocab_size": 21128}
STELLA_LARGE_ZH = STELLA_BASE_ZH | json.loads("""{
    "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
    "num_hidden_layers": 24}""")

# Shapes of the BERT family, by the number of their parameters.
BERT_SMALL = MINILM | {"num_hidden_layers": 12}
BERT_BASE = BERT | json.loads("""{
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}""")
BERT_LARGE = BERT | json.loads("""{
    "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
    "num_hidden_layers": 24}""")
BERT_SMALL_ZH = BERT | json.loads("""{
    "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8,
    "num_hidden_layers": 4, "vocab_size": 21128}""")
BERT_BASE_ZH, BERT_LARGE_ZH = BERT_BASE | {"vocab_size": 21128}, BERT_LARGE | {"vocab_size": 21128}

MPNET = json.loads("""{
    "_name_or_path": "microsoft/mpnet-base", "architectures": ["MPNetForMaskedLM"],
    "attention_probs_dropout_prob": 0.1, "bos_token_id": 0, "eos_token_id": 2,
    "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 768,
    "initializer_range": 0.02, "intermediate_size": 3072, "layer_norm_eps": 1e-05,
    "max_position_embeddings": 514, "model_type": "mpnet", "num_attention_heads": 12,
    "num_hidden_layers": 12, "pad_token_id": 1, "relative_attention_num_buckets": 32,
    "transformers_version": "4.8.2", "vocab_size": 30527}""")
# Of the XLM-RoBERTa and Qwen3 configs only the keys that matter, as sizes and cards have them.
E5_LARGE = BERT | json.loads("""{
    "architectures": ["XLMRobertaModel"], "bos_token_id": 0, "eos_token_id": 2,
    "hidden_size": 1024, "intermediate_size": 4096, "layer_norm_eps": 1e-05,
    "max_position_embeddings": 514, "model_type": "xlm-roberta", "num_attention_heads": 16,
    "num_hidden_layers": 24, "pad_token_id": 1, "type_vocab_size": 1, "vocab_size": 250002}""")
E5_BASE = E5_LARGE | json.loads("""{
    "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
    "num_hidden_layers": 12}""")
BGE_M3 = E5_LARGE | {"max_position_embeddings": 8194}
QWEN3_0_6B = json.loads("""{
    "architectures": ["Qwen3ForCausalLM"], "attention_bias": false, "attention_dropout": 0.0,
    "bos_token_id": 151643, "eos_token_id": 151643, "head_dim": 128, "hidden_act": "silu",
    "hidden_size": 1024, "initializer_range": 0.02, "intermediate_size": 3072,
    "max_position_embeddings": 32768, "max_window_layers": 28, "model_type": "qwen3",
    "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null,
    "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.51.3",
    "use_cache": true, "use_sliding_window": false, "vocab_size": 151669}""")
QWEN3_4B = QWEN3_0_6B | json.loads("""{
    "hidden_size": 2560, "intermediate_size": 9728, "max_window_layers": 36,
    "num_attention_heads": 32, "num_hidden_layers": 36, "vocab_size": 151665}""")
QWEN3_8B = QWEN3_4B | json.loads("""{
    "hidden_size": 4096, "intermediate_size": 12288, "tie_word_embeddings": false}""")

# Of these, too, only the keys that matter.
MODERNBERT = json.loads("""{
    "global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "hidden_activation": "gelu",
    "hidden_size": 768, "intermediate_size": 1152, "local_attention": 128,
    "local_rope_theta": 10000.0, "max_position_embeddings": 8192, "model_type": "modernbert",
    "norm_eps": 1e-05, "num_attention_heads": 12, "num_hidden_layers": 22,
    "torch_dtype": "float16", "vocab_size": 50368}""")
MODERNBERT_SMALL = MODERNBERT | json.loads("""{
    "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 12}""")
EMBEDDINGGEMMA = json.loads("""{
    "head_dim": 256, "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 768,
    "intermediate_size": 1152, "max_position_embeddings": 2048, "model_type": "gemma3_text",
    "num_attention_heads": 3, "num_hidden_layers": 24, "num_key_value_heads": 1,
    "query_pre_attn_scalar": 256, "rms_norm_eps": 1e-06, "rope_local_base_freq": 10000.0,
    "rope_theta": 1000000.0, "sliding_window": 512, "use_bidirectional_attention": true,
    "vocab_size": 262144}""")
NOMIC_1_5 = json.loads("""{
    "activation_function": "swiglu", "layer_norm_epsilon": 1e-12, "model_type": "nomic_bert",
    "n_embd": 768, "n_head": 12, "n_inner": 3072, "n_layer": 12, "n_positions": 8192,
    "rotary_emb_base": 1000, "type_vocab_size": 2, "vocab_size": 30528}""")
MISTRAL = json.loads("""{
    "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336,
    "max_position_embeddings": 32768, "model_type": "mistral", "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0, "sliding_window": 4096, "torch_dtype": "float16",
    "vocab_size": 32000}""")
NEMOTRON = MISTRAL | json.loads("""{
    "max_position_embeddings": 131072, "model_type": "llama_bidirec", "pooling": "avg",
    "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                     "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "rope_theta": 500000.0, "torch_dtype": "bfloat16", "vocab_size": 128256}""")
del NEMOTRON["sliding_window"]

# Of tokenizer_config.json only the keys that matter to encoding.
QWEN2_TOKENIZER = json.loads("""{
    "add_eos_token": true, "add_prefix_space": false,
    "auto_map": {"AutoTokenizer": ["tokenization_qwen.Qwen2Tokenizer",
                                   "tokenization_qwen.Qwen2TokenizerFast"]},
    "bos_token": null, "eos_token": "<|endoftext|>", "model_max_length": 32768,
    "pad_token": "<|endoftext|>", "tokenizer_class": "Qwen2Tokenizer", "unk_token": null}""")
QWEN3_TOKENIZER = QWEN2_TOKENIZER | {
    "add_eos_token": False,
    "eos_token": "<|im_end|>",
    "model_max_length": 131072,
}
MISTRAL_TOKENIZER = json.loads("""{
    "add_bos_token": true, "add_eos_token": false, "bos_token": "<s>", "eos_token": "</s>",
    "legacy": true, "model_max_length": 1000000000000000019884624838656, "pad_token": "</s>",
    "tokenizer_class": "LlamaTokenizer", "unk_token": "<unk>"}""")
BERT_TOKENIZER = json.loads("""{
    "cls_token": "[CLS]", "do_lower_case": true, "mask_token": "[MASK]", "model_max_length": 512,
    "pad_token": "[PAD]", "sep_token": "[SEP]", "tokenizer_class": "BertTokenizer",
    "unk_token": "[UNK]"}""")
STELLA_400M_TOKENIZER = BERT_TOKENIZER | {"max_length": 8000, "model_max_length": 32768}
GTE_TOKENIZER = BERT_TOKENIZER | {"model_max_length": 32768}
# Lower case and length limit of the stella-zh files are not known.
ZH_TOKENIZER = BERT_TOKENIZER | {"model_max_length": 1000000000000000019884624838656}

# config_sentence_transformers.json; the GTE models' versions are not known.
RETRIEVE = "Instruct: Given a web search query, retrieve relevant passages that answer the query"
SIMILAR = "Instruct: Retrieve semantically similar text"
ST_3 = {"sentence_transformers": "3.0.1", "transformers": "4.42.3", "pytorch": "2.3.1+cu121"}
ST_2_7 = {"sentence_transformers": "2.7.0", "transformers": "4.37.2", "pytorch": "2.2.0+cu121"}
ST_2_0 = {"sentence_transformers": "2.0.0", "transformers": "4.6.1", "pytorch": "1.8.1"}
MINILM_SETTINGS = {"__version__": ST_2_0}
NO_PROMPTS = {"__version__": ST_2_7, "prompts": {}, "default_prompt_name": None}
GTE_PROMPTS = NO_PROMPTS | {"prompts": {"query": f"{RETRIEVE}\nQuery: "}}
STELLA_PROMPTS = {
    "__version__": ST_3,
    "prompts": {"s2p_query": f"{RETRIEVE}.\nQuery: ", "s2s_query": f"{SIMILAR}.\nQuery: "},
    "default_prompt_name": None,
    "similarity_fn_name": "cosine",
}


QWEN3_PROMPTS = NO_PROMPTS | {"prompts": {"query": f"{RETRIEVE}\nQuery:", "document": ""}}
ARCTIC_PROMPTS = NO_PROMPTS | {"prompts": {"query": "query: "}}


class Modules(NamedTuple):
    """What Sentence-Transformers adds to a backbone."""

    pooling: str
    max_seq_length: int
    last: str | None
    settings: dict
    include_prompt: bool | None = True  # None: an older pooling file, without the last three keys


STELLA_1_5B = Modules("mean_tokens", 512, "2_Dense_1024", STELLA_PROMPTS)
STELLA_400M = Modules("mean_tokens", 512, "2_Dense_1024", STELLA_PROMPTS, include_prompt=None)
NV_V2 = Modules("mean_tokens", 32768, "2_Normalize", NO_PROMPTS, include_prompt=False)
NV_V1 = NV_V2._replace(max_seq_length=4096)
GTE_LAST = Modules("lasttoken", 32768, "2_Normalize", GTE_PROMPTS)
GTE_CLS = Modules("cls_token", 8192, None, NO_PROMPTS)
MINILM_MEAN = Modules("mean_tokens", 256, "2_Normalize", MINILM_SETTINGS, include_prompt=None)


MPNET_MEAN = MINILM_MEAN._replace(max_seq_length=384)
E5_MEAN = MINILM_MEAN._replace(max_seq_length=512)
BGE_CLS = Modules("cls_token", 8192, "2_Normalize", NO_PROMPTS, include_prompt=None)
ARCTIC_CLS = BGE_CLS._replace(settings=ARCTIC_PROMPTS)
QWEN3_LAST = Modules("lasttoken", 32768, "2_Normalize", QWEN3_PROMPTS)
BERT_CLS = BGE_CLS._replace(max_seq_length=512)
LONG_MEAN = MINILM_MEAN._replace(max_seq_length=8192)
ZH_V3_MEAN = E5_MEAN._replace(last="2_Dense")


class Model(NamedTuple):
    tensors: Callable[[dict], Iterator[Tensor]]
    config: dict
    tokenizer: Callable[[], Tokenizer]
    tokenizer_config: dict
    modules: Modules | None = None  # infgrad's early repositories have no such files
    max_shard_bytes: int = 5 * 10**9  # the usual limit of the Hub's writers
    heads: Mapping[str, int] = {}  # folders of Dense modules, the size of a vector behind each


# 2_Dense repeats 2_Dense_8192 in the 1.5B repository; for the 400M one this is inferred.
HEADS = {"2_Dense": 8192} | {f"2_Dense_{n}": n for n in (256, 768, 1024, 2048, 4096, 6144, 8192)}
ZH_V3_HEAD = {"2_Dense": 1792}

stella_400m = partial(new, prefix="new.", pooler=True)
gte_qwen2 = partial(qwen2, lm_head=True)
eos_tokenizer = partial(qwen2_tokenizer, append_eos=True)
# Both files really do pad every text to one length.
padding_512 = partial(bert_tokenizer, fixed_length=512)
padding_128 = partial(bert_tokenizer, fixed_length=128)
mistral = partial(decoder, prefix="", qkv_bias=False)
zh_tokenizer = partial(bert_tokenizer, 21128)
# Not of the kind that these two have, but with as many pieces.
mpnet_tokenizer = partial(bert_tokenizer, 30527)
xlm_roberta_tokenizer = partial(bert_tokenizer, 250002)

MODELS = {
    # Published as one file of 6.2 GB.
    "stella-1.5b": Model(
        qwen2, QWEN2, eos_tokenizer, QWEN2_TOKENIZER, STELLA_1_5B, 10**10, heads=HEADS
    ),
    "stella-400m": Model(
        stella_400m, NEW, padding_512, STELLA_400M_TOKENIZER, STELLA_400M, heads=HEADS
    ),
    # The tensor names of NV-Embed-v1 are inferred from v2's.
    "nv-embed-v2": Model(nv_embed, NV_EMBED_V2, mistral_tokenizer, MISTRAL_TOKENIZER, NV_V2),
    "nv-embed-v1": Model(nv_embed, NV_EMBED_V1, mistral_tokenizer, MISTRAL_TOKENIZER, NV_V1),
    "gte-qwen2-1.5b": Model(gte_qwen2, GTE_QWEN2, qwen2_tokenizer, QWEN2_TOKENIZER, GTE_LAST),
    "gte-qwen2-7b": Model(gte_qwen2, GTE_QWEN2_7B, qwen2_tokenizer, QWEN2_TOKENIZER, GTE_LAST),
    # Whether these two files prefix their names with "new." is not known.
    "gte-base-en-v1.5": Model(new, GTE_BASE, bert_tokenizer, GTE_TOKENIZER, GTE_CLS),
    "gte-large-en-v1.5": Model(new, GTE_LARGE, bert_tokenizer, GTE_TOKENIZER, GTE_CLS),
    "stella-base-zh": Model(bert, STELLA_BASE_ZH, zh_tokenizer, ZH_TOKENIZER),
    "stella-large-zh": Model(bert, STELLA_LARGE_ZH, zh_tokenizer, ZH_TOKENIZER),
    "stella-base-zh-v2": Model(bert, STELLA_BASE_ZH, zh_tokenizer, ZH_TOKENIZER),
    "stella-large-zh-v2": Model(bert, STELLA_LARGE_ZH, zh_tokenizer, ZH_TOKENIZER),
    "stella-base-zh-v3": Model(
        bert, STELLA_BASE_ZH, zh_tokenizer, ZH_TOKENIZER, ZH_V3_MEAN, heads=ZH_V3_HEAD
    ),
    "stella-large-zh-v3": Model(
        bert, BERT_LARGE_ZH, zh_tokenizer, ZH_TOKENIZER, ZH_V3_MEAN, heads=ZH_V3_HEAD
    ),
    "stella-mrl-zh-v3.5": Model(
        bert, BERT_LARGE_ZH, zh_tokenizer, ZH_TOKENIZER, ZH_V3_MEAN, heads=ZH_V3_HEAD
    ),
    "stella-base-en-v2": Model(bert, STELLA_BASE_EN, bert_tokenizer, BERT_TOKENIZER),
    "all-minilm-l6-v2": Model(bert, MINILM, padding_128, BERT_TOKENIZER, MINILM_MEAN),
    "all-mpnet-base-v2": Model(mpnet, MPNET, mpnet_tokenizer, BERT_TOKENIZER, MPNET_MEAN),
    "qwen3-embedding-0.6b": Model(qwen3, QWEN3_0_6B, eos_tokenizer, QWEN3_TOKENIZER, QWEN3_LAST),
    "qwen3-embedding-4b": Model(qwen3, QWEN3_4B, eos_tokenizer, QWEN3_TOKENIZER, QWEN3_LAST),
    "qwen3-embedding-8b": Model(qwen3, QWEN3_8B, eos_tokenizer, QWEN3_TOKENIZER, QWEN3_LAST),
    "bge-m3": Model(bert, BGE_M3, xlm_roberta_tokenizer, ZH_TOKENIZER, BGE_CLS),
    "multilingual-e5-base": Model(bert, E5_BASE, xlm_roberta_tokenizer, ZH_TOKENIZER, E5_MEAN),
    "multilingual-e5-large": Model(bert, E5_LARGE, xlm_roberta_tokenizer, ZH_TOKENIZER, E5_MEAN),
    "e5-large-instruct": Model(bert, E5_LARGE, xlm_roberta_tokenizer, ZH_TOKENIZER, E5_MEAN),
    "arctic-embed-l-v2.0": Model(bert, BGE_M3, xlm_roberta_tokenizer, ZH_TOKENIZER, ARCTIC_CLS),
}
# Of these only the shape is known to be theirs.
for names, tensors, config, modules in (
    ("all-minilm-l12-v2 e5-small-v2 gte-small", bert, BERT_SMALL, E5_MEAN),
    ("e5-base-v2 gte-base", bert, BERT_BASE, E5_MEAN),
    ("e5-large-v2 gte-large", bert, BERT_LARGE, E5_MEAN),
    ("gte-small-zh", bert, BERT_SMALL_ZH | {"num_hidden_layers": 6}, E5_MEAN),
    ("gte-base-zh", bert, BERT_BASE_ZH, E5_MEAN),
    ("gte-large-zh", bert, BERT_LARGE_ZH, E5_MEAN),
    ("multilingual-e5-small", bert, BERT_SMALL | {"vocab_size": 250037}, E5_MEAN),
    ("arctic-embed-xs", bert, MINILM, BERT_CLS),
    ("bge-small-en-v1.5 arctic-embed-s", bert, BERT_SMALL, BERT_CLS),
    ("bge-base-en-v1.5 arctic-embed-m arctic-embed-m-v1.5", bert, BERT_BASE, BERT_CLS),
    (
        "bge-large-en-v1.5 mxbai-embed-large-v1 uae-large-v1 arctic-embed-l",
        bert,
        BERT_LARGE,
        BERT_CLS,
    ),
    ("bge-small-zh-v1.5", bert, BERT_SMALL_ZH, BERT_CLS),
    ("bge-base-zh-v1.5", bert, BERT_BASE_ZH, BERT_CLS),
    ("bge-large-zh-v1.5", bert, BERT_LARGE_ZH, BERT_CLS),
    ("labse", bert, BERT_BASE | {"vocab_size": 501153}, BERT_CLS._replace(max_seq_length=256)),
    ("gte-modernbert-base granite-r2", modernbert, MODERNBERT, BGE_CLS),
    ("granite-small-r2", modernbert, MODERNBERT_SMALL, BGE_CLS),
    ("modernbert-embed-base", modernbert, MODERNBERT, LONG_MEAN),
    ("nomic-embed-v1.5", nomic_bert, NOMIC_1_5, LONG_MEAN),
    ("embeddinggemma-300m", gemma3, EMBEDDINGGEMMA, LONG_MEAN),
    ("e5-mistral-7b sfr-mistral sfr-embedding-2 linq-mistral", mistral, MISTRAL, QWEN3_LAST),
    ("nemotron-8b", mistral, NEMOTRON, LONG_MEAN),
):
    tokenizer = partial(bert_tokenizer, config["vocab_size"])
    MODELS |= {
        name: Model(tensors, config, tokenizer, BERT_TOKENIZER, modules) for name in names.split()
    }


def module_files(modules: Modules, width: int) -> dict[str, Any]:
    modes = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens"]
    pooling: dict[str, Any] = {"word_embedding_dimension": width}
    if modules.include_prompt is not None:
        modes += ["weightedmean_tokens", "lasttoken"]
        pooling["include_prompt"] = modules.include_prompt
    pooling |= {f"pooling_mode_{mode}": mode == modules.pooling for mode in modes}
    chain = [("", "Transformer"), ("1_Pooling", "Pooling")]
    if modules.last:
        chain.append((modules.last, modules.last.split("_")[1]))
    prefix = "sentence_transformers.models."
    limits = {"max_seq_length": modules.max_seq_length, "do_lower_case": False}
    return {
        "modules.json": [
            {"idx": index, "name": str(index), "path": path, "type": prefix + kind}
            for index, (path, kind) in enumerate(chain)
        ],
        "1_Pooling/config.json": pooling,
        "sentence_bert_config.json": limits,
        "config_sentence_transformers.json": modules.settings,
    }


# ---- writing -----------------------------------------------------------------------------------

BLOCK = 2**22 - 3  # a prime number of values, so that a matrix tiled with them repeats no row
PIECE = 2**18  # values scaled at a time: small enough to stay in the processor's cache
CODES = {"float32": "F32", "float16": "F16", "int64": "I64"}


def values(tensor: Tensor, block: np.ndarray) -> Iterator[np.ndarray]:
    """The values of one tensor, a piece at a time, so that no tensor is ever held whole."""
    left = math.prod(tensor.shape)
    if tensor.kind == "positions":
        yield np.arange(left, dtype=tensor.dtype)
        return
    mean = 1.0 if tensor.kind == "norm" else 0.0
    # 1/sqrt(inputs) keeps activations near the size of their inputs, also in float16.
    std = tensor.shape[1] ** -0.5 if tensor.kind == "matrix" else 0.02
    start = zlib.crc32(f"{tensor.name} {tensor.shape}".encode()) % BLOCK
    while left:
        piece = block[start : start + min(left, PIECE)]
        yield (mean + std * piece).astype(tensor.dtype, copy=False)
        left -= len(piece)
        start = (start + len(piece)) % BLOCK


def write_safetensors(path: Path, tensors: list[Tensor], block: np.ndarray) -> None:
    # The format's own writer sorts by falling dtype size, then by name, and aligns to 8 bytes.
    tensors = sorted(tensors, key=lambda t: (-np.dtype(t.dtype).itemsize, t.name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        offsets = [end, end := end + tensor.size_bytes]
        header[tensor.name] = {
            "dtype": CODES[tensor.dtype],
            "shape": tensor.shape,
            "data_offsets": offsets,
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            for piece in values(tensor, block):
                file.write(piece)
    print(f"{path.stat().st_size:14,} bytes {len(tensors):4} tensors  {path}")


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def split(tensors: list[Tensor], max_shard_bytes: int) -> list[list[Tensor]]:
    """Shards in state-dict order, as the Hub's writers cut them."""
    shards: list[list[Tensor]] = [[]]
    room = max_shard_bytes
    for tensor in tensors:
        if tensor.size_bytes > room and shards[-1]:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(tensor)
        room -= tensor.size_bytes
    return shards


def write_backbone(out: Path, shards: list[list[Tensor]], block: np.ndarray) -> None:
    if len(shards) == 1:
        write_safetensors(out / "model.safetensors", shards[0], block)
        return
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_safetensors(out / name, shard, block)
        weight_map |= {tensor.name: name for tensor in shard}
    total_size = sum(tensor.size_bytes for shard in shards for tensor in shard)
    index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
    write_json(out / "model.safetensors.index.json", index)


def write_head(folder: Path, inputs: int, outputs: int, block: np.ndarray) -> None:
    config = {"in_features": inputs, "out_features": outputs, "bias": True}
    config["activation_function"] = "torch.nn.modules.linear.Identity"
    write_json(folder / "config.json", config)
    write_safetensors(folder / "model.safetensors", [*linear("linear", outputs, inputs)], block)


def main(
    name: Annotated[str, typer.Argument(help="one of: " + ", ".join(MODELS))],
    out: Annotated[Path, typer.Argument(help="a new or empty folder")],
    layers: Annotated[int | None, typer.Option(min=1, help="fewer layers than published")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    tokenizer: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="a genuine tokenizer.json")
    ] = None,
) -> None:
    """Write a checkpoint of random weights in the exact layout of a published model."""
    if name not in MODELS:
        sys.exit(f"error: unknown name {name!r}; known: {', '.join(MODELS)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        sys.exit(f"error: {out} exists and is not an empty folder")
    model = MODELS[name]
    config = copy.deepcopy(model.config)
    backbone = config.get("text_config", config)
    counts = "n_layer" if "n_layer" in backbone else "num_hidden_layers"
    if layers:
        backbone[counts] = layers
    width = backbone.get("hidden_size", backbone.get("n_embd"))

    warning = "These weights are random: good only for measuring memory, speed and loading."
    if not tokenizer:
        warning += "\ntokenizer.json is a stand-in that cuts text into single characters or bytes."
    command = f"scripts/random_checkpoint.py {name} --layers {backbone[counts]}"
    readme = f"# Not {name}\n\n{warning}\nWritten by `{command} --seed {seed}` of mlx-stella.\n"
    out.mkdir(parents=True, exist_ok=True)
    (out / "README.md").write_text(readme)  # first, so that a half-written folder says it too

    files = {"config.json": config, "tokenizer_config.json": model.tokenizer_config}
    if model.modules:
        files |= module_files(model.modules, width)
    for path, content in files.items():
        write_json(out / path, content)
    if tokenizer:
        shutil.copyfile(tokenizer, out / "tokenizer.json")
    else:
        model.tokenizer().save(str(out / "tokenizer.json"))

    block = np.random.default_rng(seed).standard_normal(BLOCK, dtype=np.float32)
    tensors = list(model.tensors(config))
    if config.get("torch_dtype") in ("float16", "bfloat16"):  # NumPy has no bfloat16
        tensors = [t if t.dtype == "int64" else t._replace(dtype="float16") for t in tensors]
    write_backbone(out, split(tensors, model.max_shard_bytes), block)
    for folder, outputs in model.heads.items():
        write_head(out / folder, width, outputs, block)
    print(warning)


if __name__ == "__main__":
    typer.run(main)
