"""The indexes that a server answers from: by label, in their newest state, their paths untold.

Clients name an index by its label and a file by its name below the folder that was indexed. What
an index says is data of strangers: its manifest names a model, which is looked for on this machine
only, and has to be the very one by its fingerprint.
"""

import os
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from mlx_stella.checkpoint import catalog, hub
from mlx_stella.checkpoint.origin import fingerprint
from mlx_stella.errors import InputError, StellaError, StoreError
from mlx_stella.retrieval.index import Index
from mlx_stella.retrieval.store import Hit, is_ref
from mlx_stella.server.client import uri_hash
from mlx_stella.server.faults import RequestError

_LABEL = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)
_LINES = re.compile(r"(.+)#L(\d{1,9})(?:-(\d{1,9}))?", re.DOTALL)
_ABSOLUTE = re.compile(r"(?:^|[\s'\"(,])(?:/|\w+://)")


class ServedIndex:
    """An index under its label; :meth:`opened` may be called from any thread.

    Attributes:
        label: what clients name it; uri: where it lies, which they are not told.
        uri_hash: of that, by which the command line on this machine knows it again.
    """

    def __init__(self, label: str, uri: str):
        self.label, self.uri, self.uri_hash = label, uri, uri_hash(uri)
        self._opening = threading.Lock()
        self._index: Index | None = None
        self._written: object = None

    def opened(self) -> Index:
        """The index as it is now.

        An open one sees the commits of others by itself, but not that it was removed and made
        anew, perhaps by another model. Each run of `mlx-stella index` writes notes: when they
        have been written, or where nobody can tell, it is opened again, which takes 10 ms.

        Raises:
            StoreError: there is none any more, or it cannot be used.
        """
        with self._opening:
            written = self._notes_written()
            if self._index is None or written is None or written != self._written:
                self._index = Index.open(self.uri)
                self._written = written
            return self._index

    def citation(self, hit: Hit) -> str:
        """A hit's place for people, "label/folder/file.md#L12-30"."""
        first, last = hit.lines
        return f"{self.label}/{hit.file}#L{first}-{last}"

    def untold(self, error: StellaError) -> StellaError:
        """The same error without a path of this machine: what might hold one is left out."""
        where = self.label if error.where == self.uri else error.where
        parts = [error.fault, error.remedy or "", where or ""]
        is_safe = not any(self.uri in part or _ABSOLUTE.search(part) for part in parts)
        if isinstance(error, StoreError) and "/" in error.fault:  # a library's words
            is_safe = False
        if is_safe:
            told = type(error)(error.fault, where=where, row=error.row, remedy=error.remedy)
        elif isinstance(error, InputError):
            told = InputError("is not to be found by this", where=self.label, remedy="a hit's id")
        else:
            remedy = "on the server: mlx-stella status"
            told = StoreError("the index cannot be used", where=self.label, remedy=remedy)
        return told

    def _notes_written(self) -> object:
        """What changes whenever the notes are written; None where only opening can tell."""
        try:
            state = os.stat(Path(self.uri, "notes.lance", "_versions"))
        except (OSError, ValueError):
            return None
        return state.st_ino, state.st_mtime_ns


class Indexes:
    """All of a server's, by label.

    Raises:
        InputError: a label cannot stand in an address.
        StoreError: an index is not there, or cannot be used.
    """

    def __init__(self, uris: Mapping[str, str]):
        self.all = [ServedIndex(label, uri) for label, uri in uris.items()]
        for index in self.all:
            if not _LABEL.fullmatch(index.label):
                remedy = "letters, digits, - _ and ."
                raise InputError("no label", where=f"{index.label!r}", remedy=remedy)
            index.opened()
        self._by_label = {index.label: index for index in self.all}

    def find(self, label: str | None) -> ServedIndex:
        """The index of a label; of None the one that there is.

        Raises:
            RequestError: there is none, or more than one.
        """
        known = ", ".join(self._by_label) or "start it with --index LABEL=URI"
        if label is None and len(self.all) == 1:
            return self.all[0]
        if label is None:
            raise RequestError("no index is named", param="index", remedy=known)
        if label not in self._by_label:
            fault = f"no index {label!r:.80} is served here"
            raise RequestError(fault, status=404, param="index", remedy=known)
        return self._by_label[label]

    def place(self, ref: str) -> "Place":
        """What a ref names: "label/ID", "label/file.md#L12-30", "label/file.md".

        Raises:
            RequestError: it is none, or of no index that is served.
        """
        label, slash, rest = ref.partition("/")
        index = self.find(label)
        if is_ref(rest):
            return Place(index, rest, None)
        if match := _LINES.fullmatch(rest):
            rest, first = match[1], int(match[2])
            lines = (first, int(match[3] or first))
        else:
            lines = None
        if not slash or not rest or rest.startswith("/") or ".." in rest.split("/"):
            remedy = quote(f"{label}/folder/file.md#L12-30")
            raise RequestError(f"no ref {ref!r:.80}", param="ref", remedy=f"such as {remedy}")
        return Place(index, rest, lines)


@dataclass(frozen=True)
class Place:
    """What a ref names.

    Attributes:
        index: it lies in this.
        what: the id of a passage, or the name of a file; lines: first and last, of a file.
    """

    index: ServedIndex
    what: str
    lines: tuple[int, int] | None

    @property
    def is_id(self) -> bool:
        """Whether it names a passage by its id, not a file."""
        return is_ref(self.what)


def recorded_models(uris: Iterable[str], sources: Iterable[str]) -> dict[str, str]:
    """The models of indexes that are served by none of the sources: directory -> alias, or "".

    Nothing is downloaded, and nothing is loaded: a server offers them on demand. A model that is
    not here, or not the same any more, is left out; searches of its index say so.

    Args:
        uris: of the indexes; sources: of the models that are served anyway.

    Raises:
        StoreError: an index is not there, or cannot be used.
    """
    known = {fingerprint(path) for name in sources if (path := hub.glance(name))}
    found = {}
    for uri in uris:
        made = Index.open(uri).manifest.origin
        path = hub.glance(made.model, made.revision)
        if made.fingerprint not in known and path and fingerprint(path) == made.fingerprint:
            known.add(made.fingerprint)
            entry = catalog.find(made.model)
            found[str(path)] = entry.alias if entry else ""
    return found
