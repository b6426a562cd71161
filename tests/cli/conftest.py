"""The corpus of ``mlx-stella demo --corpus``, made small: all of it takes ten seconds to embed."""

from pathlib import Path

import pytest

from mlx_stella.cli import corpus


@pytest.fixture
def small_clone(tmp_path_factory, monkeypatch) -> Path:
    """A clone with a short README.md, one page and one file of the search."""
    clone = tmp_path_factory.mktemp("clone")
    for name, text in (
        ("pyproject.toml", ""),
        ("README.md", "# mlx-stella\n\nText embeddings.\n"),
        ("docs/converting.md", "# Converting\n\nTo 4 bits: `mlx-stella convert`.\n"),
        ("mlx_stella/retrieval/ranking.py", "def fuse(rankings):\n    return rankings[0]\n"),
    ):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text(text)
    monkeypatch.setattr(corpus, "_PACKAGE", clone / "mlx_stella")
    return clone
