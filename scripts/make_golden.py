"""Make reference vectors with torch and sentence-transformers, for a test-suite that needs neither.

    $ pip install torch sentence-transformers
    $ python scripts/make_golden.py sentence-transformers/all-MiniLM-L6-v2 \\
          tests/golden/minilm_texts.npz --texts tests/golden/texts.txt
    tests/golden/minilm_texts.npz: 40 vectors of 384 dimensions, from 2 to 256 tokens

The texts are the lines of a .txt (the newline alone ends a line, an empty line is an empty text)
or the `text` fields of a BEIR corpus .jsonl. Every text is embedded alone, in float64 on the CPU,
and the vectors have unit length. A directory is read without the network. The .npz holds no text:

    vectors  float32 (N, dim)
    ids      the corpus' `_id`s, or line numbers from "1"
    sha256   first 16 hex digits of the SHA-256 of each text, without the prompt, in UTF-8
    lengths  int32, tokens of each text after truncation, special ones and prompt included
    meta     JSON: model, prompt, max_seq_length and the versions of the libraries
"""

import argparse
import hashlib
import json
from collections.abc import Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

LIBRARIES = ("torch", "sentence-transformers", "transformers", "tokenizers", "numpy")


def read_texts(path: Path) -> Iterator[tuple[str, str]]:
    """Pairs of id and text."""
    if path.suffix not in (".txt", ".jsonl"):
        raise SystemExit(f"{path}: neither .txt nor .jsonl")
    # newline="\n": no other character, such as a carriage return, is changed or ends a line.
    with path.open(encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            if path.suffix == ".jsonl":
                document = json.loads(line)
                yield document["_id"], document["text"]
            else:
                yield str(number), line.removesuffix("\n")


def embed(model: SentenceTransformer, texts: list[str], prompt: str) -> torch.Tensor:
    """Unit vectors, float64 (N, dim). One text a batch: padding cannot touch a reference.

    What transformers itself fixes to float32 stays so: none of BERT, Qwen2's norms and rope angles.
    """
    # normalize_embeddings stands in for a missing Normalize, and after one it changes nothing.
    options = {"batch_size": 1, "convert_to_tensor": True, "normalize_embeddings": True}
    vectors = model.encode(texts, prompt=prompt, **options)
    if vectors.dtype != torch.float64:
        raise SystemExit(f"the model gave {vectors.dtype}: one of its modules leaves float64")
    return vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="sentence-transformers directory or Hub id")
    parser.add_argument("out", type=Path, metavar="OUT.npz")
    parser.add_argument("--texts", type=Path, required=True, help=".txt or BEIR corpus .jsonl")
    parser.add_argument("--limit", type=int, help="only the first LIMIT texts")
    # Not None, which would let sentence-transformers apply a model's default prompt unasked.
    parser.add_argument("--prompt", default="", help="prefix of every text (default: none)")
    parser.add_argument("--name", help="model name to store (default: Hub id or directory's name)")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT.npz")
    args = parser.parse_args()
    if args.out.exists() and not args.overwrite:
        parser.error(f"{args.out}: exists; remedy: another name, or --overwrite")

    ids, texts = zip(*islice(read_texts(args.texts), args.limit), strict=True)
    is_local = Path(args.model).is_dir()
    model = SentenceTransformer(args.model, device="cpu", local_files_only=is_local).double()
    vectors = embed(model, list(texts), args.prompt)
    tokens = [model.preprocess([text], prompt=args.prompt) for text in texts]
    lengths = np.array([row["attention_mask"].sum() for row in tokens], np.int32)
    meta = {
        "model": args.name or (Path(args.model).resolve().name if is_local else args.model),
        "prompt": args.prompt,
        "max_seq_length": model.max_seq_length,
        "versions": {library: version(library) for library in LIBRARIES},
    }
    np.savez_compressed(
        args.out,
        vectors=vectors.numpy().astype(np.float32),
        ids=np.array(ids),
        sha256=np.array([hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]),
        lengths=lengths,
        meta=np.array(json.dumps(meta)),
    )
    size, dim = vectors.shape
    span = f"from {lengths.min()} to {lengths.max()} tokens"
    print(f"{args.out}: {size} vectors of {dim} dimensions, {span}")


if __name__ == "__main__":
    main()
