"""What a server that runs already does for a verb, so that no model is loaded for it here.

It is asked if it answers on this user's socket, is of this version, and has the model in the dtype
that the verb would load: then it gives what the verb itself would give. Whatever fails is told in
a note, and the verb does its work alone.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from mlx_stella import __version__
from mlx_stella.checkpoint import hub
from mlx_stella.checkpoint.origin import fingerprint
from mlx_stella.checkpoint.prompts import Prompts
from mlx_stella.errors import InputError, StellaWarning
from mlx_stella.machine.runtime import socket_path
from mlx_stella.server import client
from mlx_stella.server.client import Passage, RunningServer, ServerFault

if TYPE_CHECKING:
    from mlx_stella.retrieval.manifest import IndexManifest

T = TypeVar("T")

FEW_TEXTS, FEW_CHARACTERS = 64, 100_000
"""So much `embed` sends to a server. More takes longer than loading a model does: it would stand
in the way of whoever else asks the server, and here it has a bar and no limit of time."""


class Warm:
    """A server that can be asked in place of a model; nothing is asked of it after its first fault.

    Args:
        dtype: that the user wants, None for the one that suits this machine.
    """

    def __init__(self, server: RunningServer, status: Mapping[str, Any], dtype: str | None):
        self._server: RunningServer | None = server
        self._status = status
        self._dtype = dtype or status.get("default_dtype")

    def search(
        self, uri: str, questions: Sequence[str], options: Mapping[str, Any]
    ) -> list[list[Passage]] | None:
        """The hits of each question, of an index that the server serves; None of others."""
        wanted = client.uri_hash(uri)
        found = self._first("indexes", lambda index: index.get("uri_hash") == wanted)
        if found is None:
            return None
        return self._ask(
            lambda server: server.search(str(found.get("label")), questions, options),
            questions,
            found,
        )

    def embed_questions(
        self, manifest: "IndexManifest", questions: Sequence[str], task: str | None
    ) -> "memoryview[float] | None":
        """Vectors (n, width) float32 of questions to an index; None if its model is not served."""
        wanted = manifest.origin.fingerprint
        model = self._first("models", lambda model: model.get("fingerprint") == wanted)
        words = {"input_type": "query"} if task is None else _of_task(task, model)
        if model is None or words is None:
            return None
        request = {
            "model": model.get("id"),
            "dimensions": manifest.dim,
            "truncate_dim": manifest.truncate_dim,
            **words,
        }
        return self._ask(lambda server: server.embed(questions, request), questions, model)

    def embed(
        self, name: str, texts: Sequence[str], options: Mapping[str, Any]
    ) -> "memoryview[float] | None":
        """Vectors (n, dim) float32 of a few texts; None of more, or if the model is not served.

        Args:
            options: of the request: dimensions, task and so on.
        """
        if not 0 < len(texts) <= FEW_TEXTS or sum(map(len, texts)) > FEW_CHARACTERS:
            return None
        if (directory := hub.glance(name)) is None:
            return None
        # By its place, too: where a checkpoint tells no prompts, they go by the folder's name.
        place = client.uri_hash(str(directory))
        model = self._first("models", lambda model: model.get("directory_hash") == place)
        try:
            if model is None or model.get("fingerprint") != fingerprint(directory):
                return None
        except OSError:
            return None  # loading it will tell
        if self._status.get("default_prompt") is not None:
            return None  # the server has words for texts that come without some
        request = {**options, "model": model.get("id")}
        if (task := request.pop("task", None)) is not None:
            if (words := _of_task(task, model)) is None:
                return None
            request |= words
        return self._ask(lambda server: server.embed(texts, request), texts, model)

    def _first(
        self, kind: str, fits: Callable[[Mapping[str, Any]], bool]
    ) -> Mapping[str, Any] | None:
        """The first of the server's indexes or models that fits, and is of the dtype."""
        entries = self._status.get(kind)
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and fits(entry) and entry.get("dtype") == self._dtype:
                return entry
        return None

    def _ask(
        self,
        ask: Callable[[RunningServer], tuple[T, int]],
        texts: Sequence[str],
        entry: Mapping[str, Any],
    ) -> T | None:
        """What the server answers; of texts that it cut the user hears as if it was done here."""
        if self._server is None:
            return None
        try:
            found, cut = ask(self._server)
        except ServerFault as fault:
            if fault.status != 400:  # then the verb meets the same fault, and says it better
                _tell(fault)
            self._server = None
            return None
        if cut:
            limit = entry.get("max_tokens")
            note = f"{cut} of {len(texts)} texts were cut to {limit} tokens"
            warnings.warn(note, StellaWarning, stacklevel=4)
        return found


def _of_task(task: str, model: Mapping[str, Any] | None) -> Mapping[str, str | None] | None:
    """The query prompt of a task as a request says it; None if the model is known to have none."""
    known = model.get("prompts") if model else None
    names = [name for name in known if isinstance(name, str)] if isinstance(known, list) else []
    try:
        return {"prompt_name": Prompts(dict.fromkeys(names, "")).for_query(task)}
    except InputError:
        return None  # told where it is done


def find(dtype: str | None) -> Warm | None:
    """The server of this user, if one of this version answers."""
    try:
        server = client.find()
        status = server.status() if server else {}
        if server and status.get("version") != __version__:
            raise ServerFault(f"is of version {status.get('version')}, this is {__version__}")
    except ServerFault as fault:
        _tell(fault)
        return None
    return Warm(server, status, dtype) if server else None


def _tell(fault: ServerFault) -> None:
    warnings.warn(
        f"the server at {socket_path()} {fault}; done without it", StellaWarning, stacklevel=3
    )
