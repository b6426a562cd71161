"""Every case of the tiny checkpoints against vectors computed in float64 by an independent port."""

import json

import numpy as np
import pytest
from support import CHECKPOINTS, DTYPES, LENT, TINY, TOLERANCES, distance, load_tiny


def prompts_of(name: str) -> list[tuple[str, str, list[int | None]]]:
    """(key, prompt, dims) of a checkpoint's cases, the dims of one prompt together."""
    groups: dict[tuple[str, str], list[int | None]] = {}
    for case in json.loads((CHECKPOINTS / name / "cases.json").read_text())["cases"]:
        groups.setdefault((case["key"].split("/")[0], case["prompt"]), []).append(case["dim"])
    return [(key, prompt, dims) for (key, prompt), dims in groups.items()]


CASES = [(name, *prompt) for name in TINY for prompt in prompts_of(name)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "key", "prompt", "dims"), CASES, ids=[f"{case[0]}-{case[1]}" for case in CASES]
)
@pytest.mark.filterwarnings("ignore::mlx_stella.StellaWarning")
@pytest.mark.usefixtures("form")
def test_vectors(name, key, prompt, dims, dtype):
    texts = json.loads((CHECKPOINTS / name / "cases.json").read_text())["texts"]
    expected = np.load(CHECKPOINTS / name / "expected.npz")
    model = load_tiny(name, dtype)
    vectors = model.encode(texts, prompt=prompt, dims=[dim or model.default_dim for dim in dims])
    for dim in dims:
        reference = expected[f"{key}/{dim or 'backbone'}"]
        assert distance(vectors[dim or model.default_dim], reference) <= TOLERANCES[dtype], dim


@pytest.mark.parametrize(
    ("name", "key", "prompt", "dims"), CASES, ids=[f"{case[0]}-{case[1]}" for case in CASES]
)
def test_token_ids(name, key, prompt, dims):
    texts = json.loads((CHECKPOINTS / name / "cases.json").read_text())["texts"]
    expected = np.load(CHECKPOINTS / name / "expected.npz")
    checkpoint = load_tiny(name).checkpoint
    tokens = checkpoint.load_tokenizer().encode(texts, prompt, checkpoint.max_seq_length)
    assert [len(text.ids) for text in tokens] == expected[f"{key}/lengths"].tolist()
    assert [i for text in tokens for i in text.ids] == expected[f"{key}/ids"].tolist()


@pytest.mark.shared
@pytest.mark.parametrize("name", LENT)
def test_the_copies_here_are_those_of_shared(name, shared):
    theirs = np.load(shared / "checkpoints" / name / "expected.npz")
    ours = np.load(CHECKPOINTS / name / "expected.npz")
    assert {key for key in theirs.files if not key.endswith("/raw")} == set(ours.files)
    for key in ours.files:
        np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-7, atol=1e-7)


@pytest.mark.shared
@pytest.mark.parametrize("name", LENT)
@pytest.mark.filterwarnings("ignore::mlx_stella.StellaWarning")
def test_vectors_before_normalising(name, shared):
    theirs = np.load(shared / "checkpoints" / name / "expected.npz")
    cases = json.loads((CHECKPOINTS / name / "cases.json").read_text())
    model = load_tiny(name)
    for case in cases["cases"]:
        vectors = model.encode(
            cases["texts"], prompt=case["prompt"], dim=case["dim"], normalize=False
        )
        assert distance(vectors, theirs[case["key"] + "/raw"]) <= TOLERANCES["float32"]
