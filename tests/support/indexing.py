"""An index without a model, for tests: vectors are drawn by the hash of the text."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mlx_stella.checkpoint.tokenization import Tokenizer
from mlx_stella.retrieval.chunking import Chunker
from mlx_stella.retrieval.lance import LanceStore
from mlx_stella.retrieval.scanning import scan
from mlx_stella.retrieval.store import Store
from mlx_stella.retrieval.updating import UpdateReport, update_rows
from support import CHECKPOINTS

DIM = 16
_FILE = CHECKPOINTS / "tiny-stella-400m" / "tokenizer.json"
TOKENIZER = Tokenizer(_FILE, {}, eos_as_text=False)


def embed(texts: Sequence[str]) -> np.ndarray:
    """Unit vectors (n, DIM) float32; the same text, the same vector."""
    seeds = [hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts]
    rows = [np.random.default_rng(list(seed)).normal(size=DIM) for seed in seeds]
    return np.array([row / np.linalg.norm(row) for row in rows], np.float32)


def store_of(uri: Path | str) -> Store:
    """As `open_store` chooses it, without importing MLX: kill_indexer.py starts many processes."""
    if "://" not in str(uri):
        return LanceStore(str(uri))
    from mlx_stella.retrieval.qdrant import QdrantStore

    return QdrantStore(str(uri))


def run_index(
    uri: Path | str, *paths: Path, embed=embed, tell=lambda *_: None, **options
) -> UpdateReport:
    """Index folders with chunks of 32 tokens."""
    fields = options.pop("fields", ())
    chunker = Chunker(TOKENIZER, 32, 4)
    return update_rows(store_of(uri), scan(paths, **options), fields, chunker, embed, tell)


def contents(uri: Path | str) -> list[tuple]:
    """All that an index holds, in order of file and chunk."""
    found = []
    for rows, vectors in store_of(uri).blocks():
        found += [(row, vector.tobytes()) for row, vector in zip(rows, vectors, strict=True)]
    return sorted(found, key=lambda pair: (pair[0].key, pair[0].content_hash, pair[0].number))
