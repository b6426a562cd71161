"""What scripts/make_tiny.py makes: config, tokenizer and texts of each family, as published."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from tiny_tokenizers import (
    LINES,
    bert,
    byte_level,
    gemma,
    llama,
    mistral,
    modernbert,
    unigram,
    word_piece,
)
from tokenizers import Tokenizer

TEXTS = [
    *LINES[:12],
    "naïve café — 東京 🚀 ２０２４ ﬁne Ⅷ",
    "a <pad> in the middle, <pad> and again",
    "tabs\tand  \u00a0 spaces ",
    "x" * 300,
    " ".join(LINES),
]
QUERY = (
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
)


class Family(NamedTuple):
    config: dict[str, Any]
    tokenizer: Callable[[int], Tokenizer]
    tokenizer_config: dict[str, Any]
    pooling: str
    max_seq_length: int
    prompts: dict[str, str]  # of the cases, "none" besides
    dtype: torch.dtype = torch.float32
    ships_prompts: bool = False
    lengths: tuple[int, ...] = ()  # of texts beside those of all, in tokens
    dense: tuple[int, ...] = ()  # sizes of what Dense modules give
    norm_mean: float = 1.0
    embedding_std: float = 1.0
    gain: float = 1.5  # of matrices
    read_as: dict[str, Any] | None = None  # by transformers, where it does not know the config

    @property
    def known_config(self) -> dict[str, Any]:
        return self.read_as or self.config


ROBERTA_TOKENS = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
ROBERTA_TOKENS |= {"pad_token": "<pad>", "mask_token": "<mask>"}

FAMILIES = {
    # BAAI/bge-m3, with the positions of intfloat/multilingual-e5-base
    "xlm-roberta": Family(
        json.loads("""{
            "architectures": ["XLMRobertaModel"], "attention_probs_dropout_prob": 0.1,
            "bos_token_id": 0, "classifier_dropout": null, "eos_token_id": 2, "hidden_act": "gelu",
            "hidden_dropout_prob": 0.1, "hidden_size": 48, "initializer_range": 0.02,
            "intermediate_size": 96, "layer_norm_eps": 1e-05, "max_position_embeddings": 514,
            "model_type": "xlm-roberta", "num_attention_heads": 4, "num_hidden_layers": 2,
            "output_past": true, "pad_token_id": 1, "position_embedding_type": "absolute",
            "torch_dtype": "float32", "transformers_version": "4.33.0", "type_vocab_size": 1,
            "use_cache": true, "vocab_size": 500}"""),
        unigram,
        ROBERTA_TOKENS | {"unk_token": "<unk>", "tokenizer_class": "XLMRobertaTokenizer"},
        "cls_token",
        512,
        {"query": "query: "},
    ),
    # sentence-transformers/all-mpnet-base-v2
    "mpnet": Family(
        json.loads("""{
            "architectures": ["MPNetForMaskedLM"], "attention_probs_dropout_prob": 0.1,
            "bos_token_id": 0, "eos_token_id": 2, "hidden_act": "gelu", "hidden_dropout_prob": 0.1,
            "hidden_size": 48, "initializer_range": 0.02, "intermediate_size": 96,
            "layer_norm_eps": 1e-05, "max_position_embeddings": 514, "model_type": "mpnet",
            "num_attention_heads": 4, "num_hidden_layers": 2, "pad_token_id": 1,
            "relative_attention_num_buckets": 32, "transformers_version": "4.8.2",
            "vocab_size": 500}"""),
        word_piece,
        ROBERTA_TOKENS
        | {"unk_token": "[UNK]", "do_lower_case": True, "model_max_length": 512}
        | {"tokenizer_class": "MPNetTokenizer"},
        "mean_tokens",
        384,
        {},
    ),
    # Qwen/Qwen3-Embedding-0.6B
    "qwen3": Family(
        json.loads("""{
            "architectures": ["Qwen3ForCausalLM"], "attention_bias": false,
            "attention_dropout": 0.0, "bos_token_id": 498, "eos_token_id": 498, "head_dim": 16,
            "hidden_act": "silu", "hidden_size": 48, "initializer_range": 0.02,
            "intermediate_size": 80, "max_position_embeddings": 32768, "max_window_layers": 2,
            "model_type": "qwen3", "num_attention_heads": 4, "num_hidden_layers": 2,
            "num_key_value_heads": 2, "rms_norm_eps": 1e-06, "rope_scaling": null,
            "rope_theta": 1000000, "sliding_window": null, "tie_word_embeddings": true,
            "torch_dtype": "bfloat16", "transformers_version": "4.51.3", "use_cache": true,
            "use_sliding_window": false, "vocab_size": 503}"""),
        byte_level,
        {"add_bos_token": False, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
        | {"model_max_length": 131072, "tokenizer_class": "Qwen2Tokenizer"},
        "lasttoken",
        700,
        {"query": QUERY},
        torch.bfloat16,
        ships_prompts=True,
    ),
    # Alibaba-NLP/gte-modernbert-base
    "modernbert": Family(
        json.loads("""{
            "architectures": ["ModernBertModel"], "attention_bias": false,
            "attention_dropout": 0.0, "bos_token_id": 497, "classifier_activation": "gelu",
            "classifier_bias": false, "classifier_dropout": 0.0, "classifier_pooling": "mean",
            "cls_token_id": 497, "decoder_bias": true, "deterministic_flash_attn": false,
            "embedding_dropout": 0.0, "eos_token_id": 498, "global_attn_every_n_layers": 3,
            "global_rope_theta": 160000.0, "gradient_checkpointing": false,
            "hidden_activation": "gelu", "hidden_size": 48, "initializer_cutoff_factor": 2.0,
            "initializer_range": 0.02, "intermediate_size": 80, "layer_norm_eps": 1e-05,
            "local_attention": 128, "local_rope_theta": 10000.0, "max_position_embeddings": 8192,
            "mlp_bias": false, "mlp_dropout": 0.0, "model_type": "modernbert", "norm_bias": false,
            "norm_eps": 1e-05, "num_attention_heads": 4, "num_hidden_layers": 4,
            "pad_token_id": 499, "position_embedding_type": "absolute",
            "reference_compile": null, "repad_logits_with_grad": false, "sep_token_id": 498,
            "sparse_pred_ignore_index": -100, "sparse_prediction": false,
            "tie_word_embeddings": true, "torch_dtype": "float16",
            "transformers_version": "4.48.0", "vocab_size": 503}"""),
        modernbert,
        {"cls_token": "[CLS]", "mask_token": "[MASK]", "model_max_length": 8192}
        | {"pad_token": "[PAD]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
        | {"tokenizer_class": "PreTrainedTokenizerFast"},
        "cls_token",
        700,
        {},
        torch.float16,
        lengths=(64, 65, 66, 67, 127, 128, 129),
        gain=1.0,
    ),
    # google/embeddinggemma-300m
    "gemma3": Family(
        json.loads("""{
            "_sliding_window_pattern": 6, "architectures": ["Gemma3TextModel"],
            "attention_bias": false, "attention_dropout": 0.0, "attn_logit_softcapping": null,
            "bos_token_id": 2, "dtype": "float32", "eos_token_id": 1,
            "final_logit_softcapping": null, "head_dim": 16,
            "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 48,
            "initializer_range": 0.02, "intermediate_size": 80,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
            "max_position_embeddings": 2048, "model_type": "gemma3_text",
            "num_attention_heads": 4, "num_hidden_layers": 3, "num_key_value_heads": 1,
            "pad_token_id": 0, "query_pre_attn_scalar": 16, "rms_norm_eps": 1e-06,
            "rope_local_base_freq": 10000.0, "rope_scaling": null, "rope_theta": 1000000.0,
            "sliding_window": 512, "transformers_version": "4.57.0.dev0",
            "use_bidirectional_attention": true, "use_cache": true, "vocab_size": 503}"""),
        gemma,
        {"add_bos_token": True, "add_eos_token": True, "bos_token": "<bos>", "eos_token": "<eos>"}
        | {"model_max_length": 2048, "pad_token": "<pad>", "unk_token": "<unk>"}
        | {"tokenizer_class": "GemmaTokenizer"},
        "mean_tokens",
        700,
        {"query": "task: search result | query: ", "document": "title: none | text: "},
        ships_prompts=True,
        lengths=(255, 256, 257, 258, 259, 511, 512, 513),
        dense=(96, 48),
        norm_mean=0.0,
        embedding_std=0.15,  # times the root of 48
    ),
    # nomic-ai/nomic-embed-text-v1.5
    "nomic-bert": Family(
        json.loads("""{
            "activation_function": "swiglu", "architectures": ["NomicBertModel"],
            "attn_pdrop": 0.0, "bos_token_id": null, "causal": false, "dense_seq_output": true,
            "embd_pdrop": 0.0, "eos_token_id": null, "fused_bias_fc": true,
            "fused_dropout_add_ln": true, "initializer_range": 0.02, "layer_norm_epsilon": 1e-12,
            "max_trained_positions": 2048, "mlp_fc1_bias": false, "mlp_fc2_bias": false,
            "model_type": "nomic_bert", "n_embd": 48, "n_head": 4, "n_inner": 80, "n_layer": 2,
            "n_positions": 8192, "pad_vocab_size_multiple": 64, "parallel_block": false,
            "parallel_block_tied_norm": false, "prenorm": false, "qkv_proj_bias": false,
            "reorder_and_upcast_attn": false, "resid_pdrop": 0.0, "rotary_emb_base": 1000,
            "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": false,
            "rotary_emb_scale_base": null, "rotary_scaling_factor": null,
            "scale_attn_by_inverse_layer_idx": false, "scale_attn_weights": true,
            "summary_activation": null, "summary_first_dropout": 0.0,
            "summary_proj_to_labels": true, "summary_type": "cls_index", "summary_use_proj": true,
            "torch_dtype": "float32", "transformers_version": "4.37.2", "type_vocab_size": 2,
            "use_cache": true, "use_flash_attn": true, "use_rms_norm": false,
            "use_xentropy": true, "vocab_size": 512}"""),
        bert,
        {"cls_token": "[CLS]", "do_lower_case": True, "mask_token": "[MASK]"}
        | {"model_max_length": 8192, "pad_token": "[PAD]", "sep_token": "[SEP]"}
        | {"tokenizer_class": "BertTokenizer", "unk_token": "[UNK]"},
        "mean_tokens",
        700,
        {"query": "search_query: ", "document": "search_document: "},
        read_as={
            "model_type": "nomic_bert",
            "hidden_size": 48,
            "intermediate_size": 80,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "rope_parameters": {"rope_theta": 1000.0, "rope_type": "default"},
            "vocab_size": 512,
        },
    ),
    # intfloat/e5-mistral-7b-instruct, with a shorter window
    "mistral": Family(
        json.loads("""{
            "architectures": ["MistralModel"], "bos_token_id": 1, "eos_token_id": 2,
            "hidden_act": "silu", "hidden_size": 48, "initializer_range": 0.02,
            "intermediate_size": 80, "max_position_embeddings": 32768, "model_type": "mistral",
            "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2,
            "pad_token_id": 2, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
            "sliding_window": 256, "tie_word_embeddings": false, "torch_dtype": "float16",
            "transformers_version": "4.34.0", "use_cache": false, "vocab_size": 503}"""),
        mistral,
        {"add_bos_token": True, "add_eos_token": True, "bos_token": "<s>", "eos_token": "</s>"}
        | {"model_max_length": 4096, "pad_token": "</s>", "unk_token": "<unk>"}
        | {"tokenizer_class": "PreTrainedTokenizerFast"},
        "lasttoken",
        700,
        {"query": QUERY + " "},
        torch.float16,
        lengths=(255, 256, 257, 258),
        gain=1.0,
    ),
    # nvidia/llama-embed-nemotron-8b, stretched from a shorter length
    "llama": Family(
        json.loads("""{
            "architectures": ["LlamaBidirectionalModel"], "attention_bias": false,
            "attention_dropout": 0.0,
            "auto_map": {"AutoModel": "llama_bidirectional_model.LlamaBidirectionalModel"},
            "bos_token_id": 1, "eos_token_id": 2, "head_dim": 16, "hidden_act": "silu",
            "hidden_size": 48, "initializer_range": 0.02, "intermediate_size": 80,
            "max_position_embeddings": 131072, "mlp_bias": false, "model_type": "llama_bidirec",
            "num_attention_heads": 4, "num_hidden_layers": 2, "num_key_value_heads": 2,
            "pooling": "avg", "pretraining_tp": 1, "rms_norm_eps": 1e-05,
            "rope_scaling": {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
                             "original_max_position_embeddings": 128, "rope_type": "llama3"},
            "rope_theta": 10000.0, "temperature": 1.0, "tie_word_embeddings": false,
            "torch_dtype": "bfloat16", "transformers_version": "4.44.2", "use_cache": true,
            "vocab_size": 503}"""),
        llama,
        {"bos_token": "<s>", "eos_token": "</s>", "model_max_length": 131072}
        | {"pad_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"},
        "mean_tokens",
        700,
        {"query": QUERY + " "},
        torch.bfloat16,
        ships_prompts=True,
        read_as={
            "model_type": "llama",
            "head_dim": 16,
            "hidden_size": 48,
            "intermediate_size": 80,
            "is_causal": False,
            "num_attention_heads": 4,
            "num_hidden_layers": 2,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-05,
            "rope_parameters": {
                "factor": 8.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 128,
                "rope_theta": 10000.0,
                "rope_type": "llama3",
            },
            "vocab_size": 503,
        },
    ),
}
