"""Where a model lies: directory | alias | Hub id -> local directory.

The cache comes first: a model that is there, whole, is used without asking the network, so that
work stays private and goes on offline. Only what a checkpoint consists of is downloaded: JSON
files and safetensors; pytorch_model.bin and vocab.txt only where there is nothing better.
"""

import difflib
import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path

from mlx_stella.checkpoint import catalog, transfer
from mlx_stella.config import inside, read_json, read_object
from mlx_stella.errors import ConfigError, HubUnreachableError, ModelNotFoundError

UNFINISHED = "UNFINISHED"
"""A file in a folder that is being written; one that was left behind is never loaded."""


@dataclass(frozen=True)
class FoundModel:
    """A local directory, and the catalogue's entry if the model is one of those.

    ``repo`` is its Hub id, or that of the model it was converted from; None where unknown.
    """

    directory: Path
    entry: catalog.Entry | None
    repo: str | None = None


def resolve(name: str | os.PathLike[str], revision: str | None = None) -> FoundModel:
    """Find a model, downloading it if it is neither a directory nor in the cache.

    Raises:
        ModelNotFoundError: the name is unknown, or the Hub refused or could not be reached.
    """
    if not isinstance(name, (str, os.PathLike)) or not os.fspath(name):
        raise ModelNotFoundError(
            "no name of a model", where=f"{name!r}", remedy="an alias, id or directory"
        )
    text = os.fspath(name)
    path = Path(os.path.expanduser(text))
    if os.path.isdir(path):
        if revision is not None:
            raise ModelNotFoundError("a directory has no revisions", where=text, remedy="drop it")
        return _local(path)
    entry = catalog.find(text)
    if entry is None and not re.fullmatch(r"[\w][\w.-]*/[\w][\w.-]*", text):
        raise ModelNotFoundError("no such directory or model", where=text, remedy=_hint(text))
    if (found := _here(text, revision)) is not None:
        return found
    return _local(_download(repo_of(text), revision), repo_of(text))


def repo_of(name: str) -> str:
    """The Hub id of a name that is no directory."""
    entry = catalog.find(name)
    return entry.repo if entry else name


def is_here(name: str) -> bool:
    """Whether :func:`resolve` would not have to ask the network."""
    return os.path.isdir(os.path.expanduser(name)) or _here(name, None) is not None


def _here(name: str, revision: str | None) -> FoundModel | None:
    """A model in the Hub's cache or in an installed package."""
    entry = catalog.find(name)
    for repo in entry.repos if entry else (name,):
        if (directory := _cached(repo, revision)) is not None:
            return _local(directory, repo)
    if revision is None and (directory := packaged(name)) is not None:
        return FoundModel(directory, entry, entry.repo if entry else None)
    return None


def glance(name: str, revision: str = "") -> Path | None:
    """Where :func:`resolve` would find a model, looked up without the Hub's client in milliseconds.

    Nobody has looked whether the model is there as a whole; None where only ``resolve`` can tell.

    Args:
        revision: a commit on the Hub; "" for what the main branch is in the cache.
    """
    path = Path(os.path.expanduser(name))
    if os.path.isdir(path):
        return path
    entry = catalog.find(name)
    for repo in entry.repos if entry else (name,):
        folder = _cache_folder() / f"models--{repo.replace('/', '--')}"
        try:
            commit = revision or (folder / "refs" / "main").read_text().strip()
        except (OSError, ValueError):
            continue
        if os.path.isdir(folder / "snapshots" / commit):
            return folder / "snapshots" / commit
    return packaged(name)


def _cache_folder() -> Path:
    """As the Hub's client reads it from the environment."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("HF_HOME", f"{cache}/huggingface")
    folder = os.environ.get("HUGGINGFACE_HUB_CACHE", f"{home}/hub")
    return Path(os.path.expanduser(os.path.expandvars(os.environ.get("HF_HUB_CACHE", folder))))


def packaged(name: str) -> Path | None:
    """The model inside an installed Python package, for those the catalogue knows one for."""
    entry = catalog.find(name)
    if entry is None or entry.package is None:
        return None
    spec = importlib.util.find_spec(entry.package)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "model"


def _local(path: Path, repo: str | None = None) -> FoundModel:
    """A directory as a source; what was converted from a known model is still that model.

    Raises:
        ModelNotFoundError: an interrupted conversion left it.
    """
    if (path / UNFINISHED).exists():
        raise ModelNotFoundError(
            "left unfinished by a conversion", where=path, remedy="run the conversion again"
        )
    if (proof := path / "conversion.json").exists():
        original = read_object(proof).get("source")
        return FoundModel(path, catalog.find(str(original)), original)
    entry = catalog.find(repo) if repo else catalog.find_folder(path.resolve().name)
    repo = repo or _cached_repo(path)
    entry = entry or (catalog.find(repo) if repo else None)
    return FoundModel(path, entry, repo or (entry.repo if entry else None))


def _cached_repo(path: Path) -> str | None:
    """The Hub id of a snapshot in the Hub's cache, .../models--owner--name/snapshots/commit."""
    for part in path.resolve().parts:
        if part.startswith("models--"):
            return part.removeprefix("models--").replace("--", "/", 1)
    return None


def _cached(repo: str, revision: str | None) -> Path | None:
    """The cached snapshot of a repository, if it is whole."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = snapshot_download(
            repo,
            revision=revision,
            local_files_only=True,
            allow_patterns=transfer.FILES,  # what else the Hub listed is not missed
            ignore_patterns=transfer.SKIP,
        )
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None
    directory = Path(found)
    return directory if _is_whole(directory, repo, revision) else None


def _is_whole(directory: Path, repo: str, revision: str | None) -> bool:
    """Whether a snapshot holds all of a checkpoint.

    Other programs fill the same cache with less: transformers leaves out modules.json and what it
    lists, without which pooling and heads would be guessed. Where the repository has no
    modules.json, the cache must know that from the Hub.
    """
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

    backbone, folders = directory, {}  # folders of the modules: whether weights belong in it
    if (modules := directory / "modules.json").exists():
        try:
            for module in read_json(modules):
                kind = str(module["type"]).rsplit(".", 1)[-1]
                if kind in ("Transformer", "Pooling", "Dense"):
                    folder = inside(directory, str(module["path"]), modules)
                    folders[folder] = kind != "Pooling"
                    backbone = folder if kind == "Transformer" else backbone
        except (ConfigError, TypeError, KeyError):
            return True  # whole but malformed: opening it says how
    elif try_to_load_from_cache(repo, "modules.json", revision=revision) is not _CACHED_NO_EXIST:
        return False
    folders[backbone] = True
    if not any((backbone / name).exists() for name in ("tokenizer.json", "vocab.txt")):
        return False
    return all(_has_files(folder, needs_weights) for folder, needs_weights in folders.items())


def _has_files(folder: Path, needs_weights: bool) -> bool:
    """Whether a module's folder holds its config and, where they belong there, all its weights."""
    if not (folder / "config.json").exists():
        return False
    if not needs_weights:
        return True
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).exists():
            return True
        if (index := folder / f"{name}.index.json").exists():
            try:
                shards = {str(shard) for shard in read_object(index)["weight_map"].values()}
            except (ConfigError, KeyError, AttributeError):
                return True  # as above
            if all((folder / shard).exists() for shard in shards):
                return True
    return False


def _download(repo: str, revision: str | None) -> Path:
    try:
        directory = transfer.download(repo, revision)
    except HubUnreachableError as error:
        raise HubUnreachableError(
            f"not in the cache, and {error.fault}", where=error.where, remedy=_what_is_at_hand()
        ) from None
    if not _is_whole(directory, repo, revision):
        raise HubUnreachableError(
            "not in the cache as a whole (config.json, tokenizer.json, weights), and the Hub "
            "gives no more",
            where=repo,
            remedy=_what_is_at_hand(),
        )
    return directory


def _hint(name: str) -> str:
    aliases = [entry.alias for entry in catalog.MODELS]
    if close := difflib.get_close_matches(name.lower(), aliases, n=1):
        return f"did you mean {close[0]}?"
    return "a directory, a Hub id (owner/name), or an alias that `mlx-stella models` lists"


def _what_is_at_hand() -> str:
    at_hand = [
        entry.alias
        for entry in catalog.MODELS
        if packaged(entry.alias) or any(_cached(repo, None) for repo in entry.repos)
    ]
    if at_hand:
        return f"go online once, or use what is at hand: {' or '.join(at_hand)}"
    return "go online once, or give a directory: no known model is at hand"


def upload(directory: Path, repo: str) -> str:
    """Put a directory on the Hub, into a repository that is made if there is none; its address.

    Raises:
        ModelNotFoundError: the Hub refuses, or gives no answer that is understood.
    """
    try:
        return transfer.upload(directory, repo)
    except ModelNotFoundError as error:
        raise type(error)(
            f"not uploaded: {error.fault}; {directory} is whole",
            where=error.where,
            remedy=f"hf auth login, then hf upload {repo} {directory}",
        ) from None
