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
import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from make_golden import embed
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from tiny_families import FAMILIES, TEXTS, Family
from tiny_tokenizers import LINES
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel
from transformers.models.modernbert import modeling_modernbert
from transformers.models.qwen3.modeling_qwen3 import apply_rotary_pos_emb

# ---- weights -----------------------------------------------------------------------------------


def weights(family: Family) -> dict[str, torch.Tensor]:
    """Random tensors by the names that they are published with."""
    model = AutoModel.from_config(AutoConfig.for_model(**family.known_config))
    random = torch.Generator().manual_seed(0)
    tensors = {}
    for name, old in model.state_dict().items():
        noise = torch.randn(old.shape, generator=random)
        if "norm" in name.lower() and name.endswith("weight"):
            tensor = family.norm_mean + 0.3 * noise
        elif old.ndim == 1:
            tensor = 0.3 * noise
        elif "relative" in name:
            tensor = 1.5 * noise
        elif "embed" in name:
            tensor = family.embedding_std * noise
        else:
            tensor = family.gain * noise / old.shape[1] ** 0.5
        tensors[name] = tensor.to(family.dtype)
    if family.read_as is None:
        return tensors
    model.load_state_dict(tensors)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)  # by other names than it has them
        return load_file(Path(folder) / "model.safetensors")


class Norm(torch.nn.Module):
    """RMSNorm in the type of its input, which transformers fixes to float32."""

    def __init__(self, old: torch.nn.Module):
        super().__init__()
        is_gemma = type(old).__name__.startswith("Gemma")
        self.weight = 1 + old.weight if is_gemma else old.weight
        self.eps = old.eps if is_gemma else old.variance_epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


class Rotary(torch.nn.Module):
    """Rotary angles in float64, which transformers fixes to float32."""

    def __init__(self, old: torch.nn.Module):
        super().__init__()
        config = old.config
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        settings = config.rope_parameters
        kinds = {None: settings} if "rope_type" in settings else settings
        self.frequencies = {kind: frequencies(one, size) for kind, one in kinds.items()}
        for kind, found in self.frequencies.items():
            theirs = getattr(old, f"{kind}_inv_freq" if kind else "inv_freq")
            torch.testing.assert_close(found, theirs.double(), rtol=1e-6, atol=0.0)

    def forward(
        self, x: torch.Tensor, position_ids: torch.Tensor, layer_type: str | None = None
    ) -> tuple[torch.Tensor, ...]:
        angles = (position_ids[..., None] * self.frequencies[layer_type]).repeat(1, 1, 2)
        return angles.cos(), angles.sin()


def frequencies(settings: dict, size: int) -> torch.Tensor:
    """Of the pairs of a head, in float64; "llama3" after transformers' modeling_rope_utils.py."""
    found = settings["rope_theta"] ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
    if settings["rope_type"] == "llama3":
        length, factor = settings["original_max_position_embeddings"], settings["factor"]
        low, high = settings["low_freq_factor"], settings["high_freq_factor"]
        for pair, wave in enumerate(2 * torch.pi / found):
            if wave > length / low:
                found[pair] /= factor
            elif wave > length / high:
                share = (length / wave - low) / (high - low)
                found[pair] *= (1 - share) / factor + share
    return found


def lift(module: torch.nn.Module) -> None:
    """Put the two above in the places of transformers' own, throughout."""
    modeling_modernbert.apply_rotary_pos_emb = apply_rotary_pos_emb  # its own rotates in float32
    for name, child in module.named_children():
        if type(child).__name__.endswith("RMSNorm"):
            setattr(module, name, Norm(child))
        elif type(child).__name__.endswith("RotaryEmbedding"):
            setattr(module, name, Rotary(child))
        else:
            if hasattr(child, "is_causal") and getattr(child.config, "is_causal", True) is False:
                child.is_causal = False
            lift(child)


# ---- files -------------------------------------------------------------------------------------


def write_checkpoint(family: Family, out: Path) -> None:
    modes = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "lasttoken"]
    pooling = {f"pooling_mode_{mode}": mode == family.pooling for mode in modes}
    pooling |= {"word_embedding_dimension": family.known_config["hidden_size"]}
    settings = {"__version__": {"sentence_transformers": "2.7.0"}}
    if family.ships_prompts:
        prompts = family.prompts | {"document": family.prompts.get("document", "")}
        settings |= {"prompts": prompts, "default_prompt_name": None}
    chain = {"": "Transformer", "1_Pooling": "Pooling"}
    chain |= {f"{number}_Dense": "Dense" for number, _ in enumerate(family.dense, start=2)}
    chain[f"{len(chain)}_Normalize"] = "Normalize"
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
    save_file(weights(family), out / "model.safetensors", {"format": "pt"})
    inputs = family.known_config["hidden_size"]
    for number, outputs in enumerate(family.dense, start=2):
        write_dense(out / f"{number}_Dense", inputs, outputs)
        inputs = outputs


def write_dense(folder: Path, inputs: int, outputs: int) -> None:
    """A Dense module without bias."""
    config = {"in_features": inputs, "out_features": outputs, "bias": False}
    config["activation_function"] = "torch.nn.modules.linear.Identity"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    random = torch.Generator().manual_seed(outputs)
    weight = torch.randn((outputs, inputs), generator=random) / inputs**0.5
    save_file({"linear.weight": weight}, folder / "model.safetensors", {"format": "pt"})


def texts_of(family: Family, tokenizer: Tokenizer) -> list[str]:
    """Those of all families, and beginnings of a long one with as many tokens as asked for."""
    whole = " ".join(LINES)
    beginnings = [whole[:end].rstrip() for end in range(100, len(whole))] if family.lengths else []
    lengths = [len(encoding) for encoding in tokenizer.encode_batch(beginnings)]
    return [*TEXTS, *(beginnings[lengths.index(length)] for length in family.lengths)]


def write_expected(family: Family, out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(out, folder, dirs_exist_ok=True)
        (Path(folder) / "config.json").write_text(json.dumps(family.known_config))
        model = SentenceTransformer(folder, device="cpu", local_files_only=True).double()
    lift(model)
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(family.max_seq_length)
    texts = texts_of(family, tokenizer)
    cases, arrays = [], {}
    for name, prompt in {"none": "", **family.prompts}.items():
        ids = [encoding.ids for encoding in tokenizer.encode_batch([prompt + t for t in texts])]
        for row, text in enumerate(texts):
            theirs = model.preprocess([text], prompt=prompt)["input_ids"][0].tolist()
            if theirs != ids[row]:
                sys.exit(f"{text[:40]!r}: transformers does not read tokenizer.json as it is")
        key = f"{name}/backbone"
        cases.append({"prompt_name": None, "prompt": prompt, "dim": None, "key": key})
        arrays[key] = embed(model, texts, prompt).numpy().astype(np.float32)
        arrays[f"{name}/ids"] = np.concatenate(ids).astype(np.int32)
        arrays[f"{name}/lengths"] = np.array([len(row) for row in ids], np.int32)
    facts = {"texts": texts, "pooling": family.pooling, "max_seq_length": family.max_seq_length}
    text = json.dumps(facts | {"cases": cases}, indent=1, ensure_ascii=False)
    (out / "cases.json").write_text(text + "\n")
    np.savez_compressed(out / "expected.npz", **arrays)
    lengths = arrays["none/lengths"]
    span = f"{len(texts)} texts of {lengths.min()} to {lengths.max()} tokens"
    print(f"{out}: {span}, {arrays[key].shape[1]} dimensions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("out", type=Path, metavar="OUT", help="its directory")
    args = parser.parse_args()
    write_checkpoint(FAMILIES[args.family], args.out)
    write_expected(FAMILIES[args.family], args.out)


if __name__ == "__main__":
    main()
