"""Packages that only some verbs need, and how to install them where they are missing."""

import importlib.util
import json
import shlex
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlx_stella.errors import MissingExtraError

EXTRAS = {
    "search": (
        *("lancedb", "pyarrow", "semantic_text_splitter", "pypdf"),
        *("markdown_it", "tree_sitter"),
    ),
    "qdrant": ("qdrant_client",),
    "serve": ("fastapi", "uvicorn", "httptools", "orjson", "prometheus_client"),
}
"""The extras of pyproject.toml, and packages that show that they are installed."""

# What an environment of its own is made by, told by the file that its maker leaves there.
_MAKERS = {
    "pipx_metadata.json": "pipx install --force",
    "uv-receipt.toml": "uv tool install --force",
}


def require(extra: str) -> None:
    """Refuse at once what would fail later.

    Raises:
        MissingExtraError: a package of the extra is not installed.
    """
    missing = [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            "not installed", where=", ".join(missing), remedy=installation(extra)
        )


def installation(extra: str) -> str:
    """The command that adds an extra to this installation, be it from a clone or from PyPI."""
    clone = Path(__file__).parents[2]
    if (clone / "pyproject.toml").is_file():  # run in its clone, or installed as editable
        options, origin = " --editable", str(clone)
    else:
        options, origin = "", _origin()
    return f"{_installer()}{options} {shlex.quote(f'{origin}[{extra}]')}"


def _installer() -> str:
    """Installs into the environment that runs this, whichever pip the shell would find."""
    for file, command in _MAKERS.items():
        if Path(sys.prefix, file).is_file():
            return command
    if importlib.util.find_spec("pip") is None:  # as in an environment that uv made
        return f"uv pip install --python {shlex.quote(sys.executable)}"
    found = shutil.which("pip")
    if found and Path(found).parent == Path(sys.executable).parent:
        return "pip install"
    return f"{shlex.quote(sys.executable)} -m pip install"


def _origin() -> str:
    """What pip was given: the path of a clone or a wheel, else the name on PyPI."""
    try:
        record = distribution("mlx-stella").read_text("direct_url.json")
    except PackageNotFoundError:
        record = None
    url = urlsplit(json.loads(record or "{}").get("url", ""))
    path = unquote(url.path)
    return path if url.scheme == "file" and Path(path).exists() else "mlx-stella"
