"""Packages that only some verbs need, and what to install where they are missing."""

import importlib.util

from mlx_stella.errors import MissingExtraError

EXTRAS = {
    "search": ("lancedb", "pyarrow", "semantic_text_splitter", "pypdf", "pathspec"),
    "qdrant": ("qdrant_client",),
}
"""The extras of pyproject.toml, and packages that show that they are installed."""


def require(extra: str) -> None:
    """Refuse at once what would fail later.

    Raises:
        MissingExtraError: a package of the extra is not installed.
    """
    missing = [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            "not installed", where=", ".join(missing), remedy=f"pip install 'mlx-stella[{extra}]'"
        )
