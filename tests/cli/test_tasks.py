"""--task puts a task's prompt before questions; what demo prints, and in which form."""

import json
import shutil

import numpy as np
import pytest
from support import CHECKPOINTS, load_tiny
from support.commands import TEXTS, fail, succeed, write

NV = str(CHECKPOINTS / "tiny-nv-embed")
QUESTION = "Where are the keys?"


@pytest.fixture
def stella():
    return load_tiny("tiny-stella-1.5b")


def embedding(output: str) -> np.ndarray:
    """Of a line that embed or demo prints."""
    return np.array(json.loads(output.split("mbedding")[1].lstrip('": ').rstrip("}\n")))


@pytest.mark.parametrize("task", ["s2p", "s2s"])
def test_embed(stella, tmp_path, task):
    expected = stella.encode_query(QUESTION, task=task, dim=256)
    output = succeed("embed", QUESTION, "--task", task, "--dim", "256", cwd=tmp_path)
    np.testing.assert_allclose(embedding(output), expected, rtol=1e-6)


def test_embed_into_a_folder(stella, tmp_path):
    parts = pytest.importorskip("mlx_stella.bulk.parts", reason="needs pyarrow")
    (tmp_path / "in.txt").write_text(f"{QUESTION}\n")
    arguments = ("--input", "in.txt", "--output", "out/", "--dim", "256")
    succeed("embed", *arguments, "--task", "s2s", cwd=tmp_path)
    made = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert made["prompt"] == stella.prompts["s2s_query"]
    expected = stella.encode_query([QUESTION], task="s2s", dim=256)
    np.testing.assert_array_equal(parts.read_vectors(tmp_path / "out")[1], expected)
    error = fail("embed", *arguments, "--task", "s2p", cwd=tmp_path)
    assert "was made with prompt" in error


def test_similarity(stella, tmp_path):
    query = stella.encode_query(QUESTION, task="s2p")
    passage = "They are in the car."
    output = succeed("similarity", QUESTION, passage, "--task", "s2p", cwd=tmp_path)
    expected = query @ stella.encode_document(passage)
    assert float(output) == pytest.approx(expected, abs=1e-4)
    output = succeed("similarity", QUESTION, passage, "--task", "s2s", cwd=tmp_path)
    alike = stella.encode_query([QUESTION, passage], task="s2s")
    assert float(output) == pytest.approx(alike[0] @ alike[1], abs=1e-4)
    nv = load_tiny("tiny-nv-embed").encode([QUESTION, passage], prompt_name="sts")
    output = succeed("similarity", QUESTION, passage, "--task", "sts", cwd=tmp_path, model=NV)
    assert float(output) == pytest.approx(nv[0] @ nv[1], abs=1e-4)


def test_search(stella, tmp_path):
    pytest.importorskip("lancedb")
    write(tmp_path / "notes", TEXTS)
    succeed("index", "notes", "--to", "idx", "--dim", "256", cwd=tmp_path)
    scores = {}
    for task in ("s2p", "s2s"):
        output = succeed("search", "idx", QUESTION, "--task", task, "--json", cwd=tmp_path)
        hits = json.loads(output)
        passages = stella.encode_document([hit["text"] for hit in hits], dim=256)
        scores[task] = passages @ stella.encode_query(QUESTION, task=task, dim=256)
        np.testing.assert_allclose([hit["score"] for hit in hits], scores[task], atol=1e-5)
    assert abs(scores["s2p"] - scores["s2s"]).max() > 1e-3
    error = fail("search", "idx", "a", "--task", "sts", cwd=tmp_path)
    assert "no query prompt for task 'sts'" in error


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (("embed", "a", "--task", "nope"), "no query prompt for task 'nope'; remedy: one of s2p_"),
        (("embed", "a", "--task", "s2s", "--prompt", "x"), "give it or a prompt, not both"),
        (("similarity", "a", "b", "--task", "nope"), "no query prompt for task 'nope'"),
        (("demo", "--query", "a", "--prompt", "b"), "--prompt embeds a text alone; remedy"),
        (("demo", "--task", "s2s", "--prompt", "b"), "--prompt embeds a text alone; remedy"),
        (("demo", "--raw"), "--raw is of one text's vector; remedy: give --query or --prompt"),
    ],
)
def test_what_is_refused(tmp_path, arguments, pattern):
    model = ("--model", str(CHECKPOINTS / "tiny-stella-1.5b"))
    assert pattern in fail(*arguments, *model, cwd=tmp_path)


def test_demo_prints_a_question_s_vector_and_says_which(stella, tmp_path):
    words = ("demo", "--model", str(CHECKPOINTS / "tiny-stella-1.5b"), "--query", QUESTION)
    output = succeed(*words, cwd=tmp_path)
    assert "Vector: of unit length" in output and "1024 dimensions" in output
    np.testing.assert_allclose(embedding(output), stella.encode_query(QUESTION), rtol=1e-6)
    output = succeed(*words, "--raw", "--dim", "256", "--task", "s2s", cwd=tmp_path)
    assert "Vector: as it leaves the head, not normalised" in output
    assert "256 dimensions" in output
    raw = stella.encode_query(QUESTION, task="s2s", dim=256, normalize=False)
    np.testing.assert_allclose(embedding(output), raw, rtol=1e-6)


def test_demo_of_a_text_without_an_instruction(tmp_path):
    output = succeed("demo", "--model", NV, "--prompt", "Here is a test sentence", cwd=tmp_path)
    expected = load_tiny("tiny-nv-embed").encode("Here is a test sentence")
    np.testing.assert_allclose(embedding(output), expected, rtol=1e-6)
    assert "Text: Here is a test sentence" in output


def test_demo_compares_with_the_card_only_what_the_card_has(tmp_path):
    folder = shutil.copytree(CHECKPOINTS / "tiny-stella-400m", tmp_path / "stella_en_400M_v5")
    words = ("demo", "--model", str(folder))
    for same in ((), ("--task", "s2p"), ("--dim", "1024")):
        assert "largest difference" in succeed(*words, *same, cwd=tmp_path)
    for other in (("--task", "s2s"), ("--dim", "256")):
        output = succeed(*words, *other, cwd=tmp_path)
        assert "largest difference" not in output and output.count("Answer: ") == 2
    assert "its card names them" in fail(*words, "--dim", "512", cwd=tmp_path)
