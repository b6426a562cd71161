"""What tests of all rooms share. Nothing here imports MLX before a model is loaded."""

import json
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from mlx_stella import Encoder

TESTS = Path(__file__).parent.parent
ROOT = TESTS.parent
CHECKPOINTS = TESTS / "checkpoints"
SHARED = ROOT.parent / "shared"
SUPPORT = TESTS / "support"

any_bytes_in_names = pytest.mark.skipif(
    sys.platform == "darwin", reason="names of files are UTF-8 on macOS"
)

LENT = (
    "tiny-stella-1.5b",
    "tiny-gte-qwen2",
    "tiny-stella-400m",
    "tiny-gte-en-v1.5",
    "tiny-nv-embed",
    "tiny-stella-zh-v2",
)
"""Tiny checkpoints that were made elsewhere, and lie in the folder ../shared, too."""

TINY = (
    *LENT,
    "tiny-xlm-roberta",
    "tiny-mpnet",
    "tiny-qwen3",
    "tiny-modernbert",
    "tiny-gemma3",
    "tiny-nomic-bert",
    "tiny-mistral",
    "tiny-llama",
)
"""All of them; scripts/make_tiny.py made the others."""

DTYPES = ("float32", "float16", "bfloat16")

TOLERANCES = {"float32": 2e-5, "float16": 5e-3, "bfloat16": 4e-2}
"""Relative L2 distance of unit vectors to the float64 reference: the one table of the suite."""


@cache
def load_tiny(name: str, dtype: str = "float32") -> "Encoder":
    from mlx_stella import StellaWarning, load

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
