"""Real clients against a real server: each package's own code, in an environment of its own.

A client is run by the Python that runs the tests where that has it, else by the environment of its
name in the folder that MLX_STELLA_CLIENTS says; else its test is skipped. Nothing is installed
here. What each needs is in its script's name and in ``CLIENTS``.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import distance, load_tiny

SCRIPTS = Path(__file__).parent / "clients"
TEXTS = ["green tea", "The keys are in the car.", "where are my keys?"]
DIM = 256
CLOSE = 1e-5
"""The server is another process; its batches may be padded otherwise."""

CLIENTS = {
    "openai_python": ("openai", "openai"),
    "langchain_python": ("langchain", "langchain_ollama"),
    "llamaindex_python": ("llamaindex", "llama_index.embeddings.ollama"),
    "ollama_python": ("ollama", "ollama"),
    "cohere_python": ("cohere", "cohere"),
    "hub_python": ("hub", "huggingface_hub.inference"),
    "litellm_python": ("litellm", "litellm"),
    "openai_node": ("npm", "openai"),
    "langchain_node": ("npm", "@langchain/openai"),
    "ollama_node": ("npm", "ollama"),
}
"""Script -> its environment, and the package that has to be there."""

REFUSED = {
    "model": (404, "is not served here"),
    "dimensions": (400, "17 dimensions; remedy: one of"),
    "input_type": (400, "no prompt is for 'nonsense'"),
    "tokens": (400, "check_embedding_ctx_length=False"),
}


def is_here(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # one that it would lie in is missing
        return False


def command(client: str) -> tuple[list[str], Path]:
    """What runs a client's script, and where; skips where there is nothing."""
    environment, package = CLIENTS[client]
    place = Path(os.environ.get("MLX_STELLA_CLIENTS", "/nonexistent"), environment)
    if client.endswith("_node"):
        if not shutil.which("node") or not (place / "node_modules" / package).is_dir():
            pytest.skip(f"no node with {package} in $MLX_STELLA_CLIENTS/{environment}")
        return ["node", str(SCRIPTS / f"{client}.mjs")], place
    python = place / "bin/python"
    if not python.exists():
        if not is_here(package):
            pytest.skip(f"no {package} here or in $MLX_STELLA_CLIENTS/{environment}")
        python = Path(sys.executable)
    return [str(python), str(SCRIPTS / f"{client}.py")], SCRIPTS


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_gets_the_librarys_vectors(client, running):
    words, folder = command(client)
    asked = {"url": running.url, "model": running.model, "texts": TEXTS, "dim": DIM}
    done = subprocess.run(
        words,
        input=json.dumps(asked | {"prompt_name": "s2p_query"}),
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=120,
        env={k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "HF_HUB_OFFLINE")},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout)
    model = load_tiny(running.model)
    plain = ("plain", "floats", "later", "like", "ollama", "latest")
    expected = {
        **dict.fromkeys(plain, model.encode(TEXTS)),
        **dict.fromkeys(("query", "suffix"), model.encode_query(TEXTS)),
        "small": model.encode(TEXTS, dim=DIM),
        "raw": model.encode(TEXTS, normalize=False),
    }
    vectors = told.keys() & expected.keys()
    assert vectors >= {"plain"}
    for name in vectors:
        assert distance(told[name], expected[name]) < CLOSE, name
    for name, (status, message) in told.get("refused", {}).items():
        assert status == REFUSED[name][0] and REFUSED[name][1] in message, name
    if "similar" in told:
        first, *others = model.encode(TEXTS)
        assert told["similar"] == pytest.approx(list(others @ first), abs=CLOSE)
    names = told.get("models", []) + told.get("running", [])
    assert all(name.startswith(running.model) for name in names)
    assert told.get("capabilities", ["embedding"]) == ["embedding"]


def test_schemathesis_finds_no_fault_of_the_server(running, tmp_path):
    """That a model has no prompt or size of a name, its description cannot say: 400 is right."""
    folder = os.environ.get("MLX_STELLA_CLIENTS", "/nonexistent")
    program = shutil.which("schemathesis", path=f"{folder}/schemathesis/bin")
    if program is None:
        pytest.skip("no schemathesis in $MLX_STELLA_CLIENTS/schemathesis")
    words = ["run", f"{running.url}/openapi.json", "--max-examples", "20", "--seed", "1"]
    words += ["--phases", "coverage,fuzzing", "--exclude-checks"]
    words += ["positive_data_acceptance,allow_header_conformance"]
    done = subprocess.run([program, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-5000:]
