"""The real all-MiniLM-L6-v2 against torch in float64 (scripts/make_golden.py)."""

import hashlib
import json
import warnings

import numpy as np
import pytest
from support import DTYPES, TESTS, TOLERANCES, distance

from mlx_stella import Encoder, StellaWarning, load

pytestmark = pytest.mark.real


@pytest.fixture(scope="module", params=DTYPES)
def minilm(request, minilm_directory) -> Encoder:
    return load(minilm_directory, dtype=request.param)


def compare(model: Encoder, golden, texts: list[str]) -> None:
    digests = [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]
    assert digests == golden["sha256"].tolist(), "these are not the texts of the golden"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StellaWarning)
        vectors = model.encode(texts)
    tolerance = 1e-5 if model.dtype == "float32" else TOLERANCES[model.dtype]
    assert distance(vectors, golden["vectors"]) <= tolerance


def test_texts_of_many_kinds(minilm):
    text = (TESTS / "golden/texts.txt").read_bytes().decode().removesuffix("\n")
    compare(minilm, np.load(TESTS / "golden/minilm_texts.npz"), text.split("\n"))


@pytest.mark.shared
def test_package_descriptions(minilm, shared):
    golden = np.load(TESTS / "golden/minilm_debian.npz")
    wanted = golden["ids"].tolist()
    if minilm.dtype != "float32":
        pytest.skip("half products are slow on a CPU; test_texts_of_many_kinds covers them")
    with (shared / "corpus/debian/corpus.jsonl").open(encoding="utf-8") as file:
        records = {record["_id"]: record["text"] for record in map(json.loads, file)}
    compare(minilm, golden, [records[key] for key in wanted])
