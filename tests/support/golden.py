"""Vectors of a real model against those that scripts/make_golden.py wrote for the same texts."""

import hashlib
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from support import TESTS, TOLERANCES, distance

if TYPE_CHECKING:
    from mlx_stella import Encoder

_LINES = (TESTS / "golden/texts.txt").read_bytes().decode().removesuffix("\n").split("\n")


def compare_lines(model: "Encoder", name: str, float32: float, count: int | None = None) -> None:
    """The lines of golden/texts.txt, or so many of them, with golden/NAME.npz."""
    _compare(model, np.load(TESTS / "golden" / name), _LINES[:count], float32)


def compare_corpus(model: "Encoder", name: str, shared: Path) -> None:
    """Descriptions of packages with golden/NAME.npz, within 1e-5."""
    golden = np.load(TESTS / "golden" / name)
    with (shared / "corpus/debian/corpus.jsonl").open(encoding="utf-8") as file:
        records = {record["_id"]: record["text"] for record in map(json.loads, file)}
    _compare(model, golden, [records[key] for key in golden["ids"].tolist()], 1e-5)


def _compare(model: "Encoder", golden, texts: list[str], float32: float) -> None:
    from mlx_stella import StellaWarning

    digests = [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]
    assert digests == golden["sha256"].tolist()[: len(texts)], "not the texts of the golden"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StellaWarning)
        vectors = model.encode(texts)
    tolerance = float32 if model.dtype == "float32" else TOLERANCES[model.dtype]
    assert distance(vectors, golden["vectors"][: len(texts)]) <= tolerance
