"""Make a tiny checkpoint in a published layout, and the vectors that transformers gives for it.

    $ pip install torch sentence-transformers sentencepiece
    $ python scripts/make_tiny.py xlm-roberta tests/checkpoints/tiny-xlm-roberta
    tests/checkpoints/tiny-xlm-roberta: 17 texts of 2 to 512 tokens, 48 dimensions

Weights are random, and large enough that each part of the model shows in the vectors. Config,
names of tensors, modules and tokenizer are laid out as in the model that a family is named for. The
vectors are those of sentence-transformers in float64, each text alone (scripts/make_golden.py).
Beside the checkpoint two files say what is right:

    cases.json    the texts, and for each case its prompt, its size and its key
    expected.npz  KEY: unit vectors (N, dim) float32; PROMPT/ids and PROMPT/lengths: token ids
"""

import argparse
import io
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sentencepiece
import torch
from make_golden import embed
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModel

TESTS = Path(__file__).parent.parent / "tests"
LINES = (TESTS / "golden/texts.txt").read_bytes().decode().removesuffix("\n").split("\n")
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


# ---- tokenizers --------------------------------------------------------------------------------


def unigram(size: int) -> Tokenizer:
    """XLM-RoBERTa's: SentencePiece's pieces behind a compiled table of characters."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Precompiled(compiled_characters())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=size - 1, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.add_special_tokens([*special, "<mask>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return tokenizer


def compiled_characters() -> bytes:
    """A small table of SentencePiece's own making; the published ones hold all of NFKC."""
    rules = {"ﬁ": "fi", "Ⅷ": "VIII", "\u00a0": " ", "\t": " ", "ï": "i", "—": "-"}
    rules |= {chr(0xFF10 + digit): str(digit) for digit in range(10)}
    lines = (
        " ".join(f"{ord(c):X}" for c in old) + "\t" + " ".join(f"{ord(c):X}" for c in new)
        for old, new in rules.items()
    )
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as table:
        table.write("\n".join(lines) + "\n")
        table.flush()
        made = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["any text will do, only the table is taken"]),
            model_writer=made,
            model_type="char",
            vocab_size=30,
            hard_vocab_limit=False,
            normalization_rule_tsv=table.name,
            minloglevel=2,
        )
    proto = ModelProto.FromString(made.getvalue())
    return bytes(proto.normalizer_spec.precompiled_charsmap)


def word_piece(size: int) -> Tokenizer:
    """MPNet's: BERT's pieces between RoBERTa's special tokens, all padded to one length."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size - 1, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.add_special_tokens([*special, "<mask>"])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.enable_padding(length=128, pad_id=1, pad_token="<pad>")
    tokenizer.enable_truncation(128)
    return tokenizer


def byte_level(size: int) -> Tokenizer:
    """Qwen's: bytes and merges; the template appends the end of text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    words = Regex(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    options = {"add_prefix_space": False, "use_regex": False}
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(**options)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size - 2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_end|>"])
    end = tokenizer.token_to_id("<|endoftext|>")
    template = processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", end)]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(), template])
    return tokenizer


# ---- families ----------------------------------------------------------------------------------


class Family(NamedTuple):
    config: dict[str, Any]
    tokenizer: Callable[[int], Tokenizer]
    tokenizer_config: dict[str, Any]
    pooling: str
    max_seq_length: int
    prompts: dict[str, str]  # of the cases, "none" besides
    dtype: torch.dtype = torch.float32
    ships_prompts: bool = False


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
}


# ---- weights -----------------------------------------------------------------------------------


def weights(config: dict[str, Any], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Random tensors by the names that transformers gives them."""
    model = AutoModel.from_config(AutoConfig.for_model(**config))
    random = torch.Generator().manual_seed(0)
    tensors = {}
    for name, old in model.state_dict().items():
        noise = torch.randn(old.shape, generator=random)
        if "norm" in name.lower() and name.endswith("weight"):
            tensor = 1 + 0.3 * noise
        elif old.ndim == 1:
            tensor = 0.3 * noise
        elif "relative" in name:
            tensor = 1.5 * noise
        elif "embed" in name:
            tensor = noise
        else:
            tensor = 1.5 * noise / old.shape[1] ** 0.5
        tensors[name] = tensor.to(dtype)
    return tensors


class Norm(torch.nn.Module):
    """RMSNorm in the type of its input, which transformers fixes to float32."""

    def __init__(self, old: torch.nn.Module):
        super().__init__()
        self.weight, self.eps = old.weight, old.variance_epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


class Rotary(torch.nn.Module):
    """Rotary angles in float64, which transformers fixes to float32."""

    def __init__(self, old: torch.nn.Module):
        super().__init__()
        size, theta = old.config.head_dim, old.config.rope_parameters["rope_theta"]
        self.frequencies = theta ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)

    def forward(self, x: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        angles = (positions[..., None] * self.frequencies).repeat(1, 1, 2)
        return angles.cos(), angles.sin()


def lift(module: torch.nn.Module) -> None:
    """Put the two above in the places of transformers' own, throughout."""
    for name, child in module.named_children():
        if type(child).__name__.endswith("RMSNorm"):
            setattr(module, name, Norm(child))
        elif type(child).__name__.endswith("RotaryEmbedding"):
            setattr(module, name, Rotary(child))
        else:
            lift(child)


# ---- files -------------------------------------------------------------------------------------


def write_checkpoint(family: Family, out: Path) -> None:
    modes = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "lasttoken"]
    pooling = {f"pooling_mode_{mode}": mode == family.pooling for mode in modes}
    pooling |= {"word_embedding_dimension": family.config["hidden_size"]}
    settings = {"__version__": {"sentence_transformers": "2.7.0"}}
    if family.ships_prompts:
        settings |= {"prompts": {**family.prompts, "document": ""}, "default_prompt_name": None}
    chain = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    files = {
        "config.json": family.config,
        "tokenizer_config.json": family.tokenizer_config,
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(chain.items())
        ],
        "1_Pooling/config.json": pooling,
        "sentence_bert_config.json": {"max_seq_length": family.max_seq_length},
        "config_sentence_transformers.json": settings,
    }
    for name, content in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(json.dumps(content, indent=1) + "\n")
    family.tokenizer(family.config["vocab_size"]).save(str(out / "tokenizer.json"), pretty=False)
    tensors = weights(family.config, family.dtype)
    save_file(tensors, out / "model.safetensors", {"format": "pt"})


def write_expected(family: Family, out: Path) -> None:
    model = SentenceTransformer(str(out), device="cpu", local_files_only=True).double()
    lift(model)
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(family.max_seq_length)
    cases, arrays = [], {}
    for name, prompt in {"none": "", **family.prompts}.items():
        ids = [encoding.ids for encoding in tokenizer.encode_batch([prompt + t for t in TEXTS])]
        for row, text in enumerate(TEXTS):
            theirs = model.preprocess([text], prompt=prompt)["input_ids"][0].tolist()
            if theirs != ids[row]:
                sys.exit(f"{text[:40]!r}: transformers does not read tokenizer.json as it is")
        key = f"{name}/backbone"
        cases.append({"prompt_name": None, "prompt": prompt, "dim": None, "key": key})
        arrays[key] = embed(model, TEXTS, prompt).numpy().astype(np.float32)
        arrays[f"{name}/ids"] = np.concatenate(ids).astype(np.int32)
        arrays[f"{name}/lengths"] = np.array([len(row) for row in ids], np.int32)
    facts = {"texts": TEXTS, "pooling": family.pooling, "max_seq_length": family.max_seq_length}
    text = json.dumps(facts | {"cases": cases}, indent=1, ensure_ascii=False)
    (out / "cases.json").write_text(text + "\n")
    np.savez_compressed(out / "expected.npz", **arrays)
    lengths = arrays["none/lengths"]
    span = f"{len(TEXTS)} texts of {lengths.min()} to {lengths.max()} tokens"
    print(f"{out}: {span}, {family.config['hidden_size']} dimensions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("out", type=Path, metavar="OUT", help="its directory")
    args = parser.parse_args()
    write_checkpoint(FAMILIES[args.family], args.out)
    write_expected(FAMILIES[args.family], args.out)


if __name__ == "__main__":
    main()
