"""Where a model lies: directory | alias | Hub id -> local directory. The only network code.

The cache comes first: a model that is there, whole, is used without asking the network, so that
work stays private and goes on offline. Only what a checkpoint consists of is downloaded: JSON
files and safetensors, and pytorch_model.bin only where there is nothing else.
"""

import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path

from mlx_stella import catalog
from mlx_stella.config import read_object
from mlx_stella.errors import ConfigError, HubUnreachableError, ModelNotFoundError

_FILES = ["*.json", "*.safetensors"]
_PICKLES = ["*.json", "pytorch_model.bin", "*/pytorch_model.bin"]
_SKIP = ["onnx/*", "openvino/*", ".*", "consolidated*"]


@dataclass(frozen=True)
class Source:
    """A local directory, and the catalogue's entry if the model is one of those."""

    directory: Path
    entry: catalog.Entry | None


def resolve(name: str | os.PathLike[str], revision: str | None = None) -> Source:
    """Find a model, downloading it if it is neither a directory nor in the cache.

    Raises:
        ModelNotFoundError: the name is unknown, or the Hub refused or could not be reached.
    """
    text = os.fspath(name)
    path = Path(text).expanduser()
    if path.is_dir():
        return Source(path, catalog.find_folder(path.resolve().name) or _cached_entry(path))
    entry = catalog.find(text)
    if entry is None and not re.fullmatch(r"[\w][\w.-]*/[\w][\w.-]*", text):
        aliases = ", ".join(known.alias for known in catalog.MODELS)
        raise ModelNotFoundError(
            f"{text}: no such directory, alias or Hub id (owner/name); aliases: {aliases}"
        )
    repos = entry.repos if entry else (text,)
    for repo in repos:
        if (directory := _cached(repo, revision)) is not None:
            return Source(directory, entry)
    if (directory := packaged(text)) is not None:
        return Source(directory, entry)
    return Source(_download(repos[0], revision), entry)


def packaged(name: str) -> Path | None:
    """The model inside an installed Python package, for those the catalogue knows one for."""
    entry = catalog.find(name)
    if entry is None or entry.package is None:
        return None
    spec = importlib.util.find_spec(entry.package)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "model"


def _cached_entry(path: Path) -> catalog.Entry | None:
    """The entry of a snapshot inside the Hub's cache, .../models--owner--name/snapshots/commit."""
    for part in path.resolve().parts:
        if part.startswith("models--"):
            return catalog.find(part.removeprefix("models--").replace("--", "/", 1))
    return None


def _cached(repo: str, revision: str | None) -> Path | None:
    """The cached snapshot of a repository, if it is whole."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        directory = Path(snapshot_download(repo, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None
    return directory if _is_whole(directory) else None


def _is_whole(directory: Path) -> bool:
    if not all((directory / name).exists() for name in ("config.json", "tokenizer.json")):
        return False
    index = directory / "model.safetensors.index.json"
    if index.exists():
        try:
            shards = set(read_object(index)["weight_map"].values())
        except (ConfigError, KeyError, AttributeError, TypeError):
            return False
        return all((directory / str(shard)).exists() for shard in shards)
    return any((directory / name).exists() for name in ("model.safetensors", "pytorch_model.bin"))


def _download(repo: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    def fetch(patterns: list[str]) -> Path:
        return Path(
            snapshot_download(
                repo, revision=revision, allow_patterns=patterns, ignore_patterns=_SKIP
            )
        )

    try:
        directory = fetch(_FILES)
        if not any(directory.glob("*.safetensors")):
            directory = fetch(_PICKLES)
    except GatedRepoError:
        remedy = f"accept its licence at https://huggingface.co/{repo}, then run: hf auth login"
        raise ModelNotFoundError(f"{repo}: the Hub wants you to log in; remedy: {remedy}") from None
    except RevisionNotFoundError:
        raise ModelNotFoundError(f"{repo}: the Hub has no revision {revision!r}") from None
    except RepositoryNotFoundError:
        raise ModelNotFoundError(
            f"{repo}: the Hub has no such repository, or it is private; remedy: check the name, "
            "or run: hf auth login"
        ) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise HubUnreachableError(
            f"{repo}: not in the cache, and the Hub cannot be reached ({reason}); "
            f"{_what_is_at_hand()}"
        ) from None
    if not _is_whole(directory):
        raise HubUnreachableError(
            f"{repo}: not in the cache as a whole (config.json, tokenizer.json, weights), and the "
            f"Hub gives no more; {_what_is_at_hand()}"
        )
    return directory


def _what_is_at_hand() -> str:
    at_hand = [
        entry.alias
        for entry in catalog.MODELS
        if packaged(entry.alias) or any(_cached(repo, None) for repo in entry.repos)
    ]
    if at_hand:
        return f"remedy: use what is at hand ({', '.join(at_hand)}), a directory, or go online once"
    return "no known model is at hand; remedy: go online once, or give a directory"
