"""What an index needs from the program that keeps its vectors: the protocol, and what passes it.

All truth about what is done lies in the rows: a file is done when the row of its last chunk is
there and none before it is missing. There is no second record that could disagree.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mlx_stella.errors import InputError
from mlx_stella.machine.packages import require
from mlx_stella.retrieval.chunking import Chunk
from mlx_stella.retrieval.scanning import Key

FILTER_FIELDS = ("file", "heading", "record")

_REF = re.compile("[0-9a-f]{1,64}-[0-9]{1,18}-[0-9a-f]{12}")


@dataclass(frozen=True)
class StoredChunk:
    """A chunk as it is stored, beside its vector.

    Attributes:
        key: of the file; content_hash: of the file's bytes.
        number: of the chunk in its file, counted from 0; is_last: it is the file's last.
    """

    key: Key
    content_hash: str
    number: int
    is_last: bool
    chunk: Chunk

    @property
    def ref(self) -> str:
        """A short name of the row that holds for good, of characters that need no quoting in URLs.

        It is content_hash, number, and a hash of the key that tells copies of a file apart.
        """
        key = hashlib.blake2b(f"{self.key.root}\0{self.key.name}".encode(), digest_size=6)
        return f"{self.content_hash}-{self.number}-{key.hexdigest()}"

    def to_fields(self) -> dict[str, str | int | bool]:
        """What a database keeps of it."""
        return {
            "root": self.key.root,
            "file": self.key.name,
            "content_hash": self.content_hash,
            "number": self.number,
            "is_last": self.is_last,
            "text": self.chunk.text,
            "text_hash": self.chunk.text_hash,
            "start_line": self.chunk.start_line,
            "end_line": self.chunk.end_line,
            "heading": self.chunk.heading,
            "record": self.chunk.record,
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> "StoredChunk":
        """Raises: KeyError: a field is missing."""
        chunk = (fields[name] for name in ("text", "start_line", "end_line", "heading", "record"))
        key = Key(fields["root"], fields["file"])
        version = (fields["content_hash"], fields["number"], fields["is_last"])
        return cls(key, *version, Chunk(*chunk))


@dataclass(frozen=True)
class State:
    """How much of one version of a file is stored: its first ``chunks`` chunks."""

    key: Key
    content_hash: str
    chunks: int
    is_complete: bool


@dataclass(frozen=True)
class Hit:
    """A passage that was found.

    Attributes:
        score: the cosine; of a search by words the store's own, of a hybrid one a fusion of both.
        row: the passage as it is stored; the properties are what is of use of it.
    """

    score: float
    row: StoredChunk

    @property
    def text(self) -> str:
        """The passage."""
        return self.row.chunk.text

    @property
    def root(self) -> str:
        """The folder that was indexed, an absolute path."""
        return self.row.key.root

    @property
    def file(self) -> str:
        """The file's name below the root, with forward slashes."""
        return self.row.key.name

    @property
    def lines(self) -> tuple[int, int]:
        """The first and the last line of the passage in its file, counted from 1."""
        return self.row.chunk.start_line, self.row.chunk.end_line

    @property
    def heading(self) -> str:
        """The headings above it, "A > B"; of code the definition it lies in."""
        return self.row.chunk.heading

    @property
    def record(self) -> str:
        """The id of the row it is from, in a file of rows; else ""."""
        return self.row.chunk.record

    @property
    def ref(self) -> str:
        """What ``Index.read`` and ``Index.similar`` find the passage by."""
        return self.row.ref


@dataclass(frozen=True)
class Filter:
    """Only rows whose field matches a pattern, in which * and ? stand for any characters."""

    field: str
    pattern: str


def parse_filter(text: str) -> Filter:
    """``file=docs/*`` as a filter.

    Raises:
        InputError: there is no = in it, or the field is unknown.
    """
    field, equals, pattern = text.partition("=")
    if not equals or field not in FILTER_FIELDS:
        raise InputError(
            "not understood",
            where=f"filter {text!r}",
            remedy="FIELD=PATTERN with * and ?, such as 'file=docs/*'; fields are "
            f"{', '.join(FILTER_FIELDS)}",
        )
    return Filter(field, pattern)


def is_ref(text: str) -> bool:
    """Whether a text has the form of :attr:`StoredChunk.ref`."""
    return bool(_REF.fullmatch(text))


def version_of(ref: str) -> tuple[str, int]:
    """The content_hash and the number in a ref, which only copies of a file share."""
    content_hash, number, _ = ref.split("-")
    return content_hash, int(number)


def parse_filters(texts: Sequence[str]) -> list[Filter]:
    """Each as :func:`parse_filter`.

    Raises:
        InputError: they are one string, or one of them is not understood.
    """
    if isinstance(texts, str):
        raise InputError("filters are a string", remedy=f"a list, [{texts!r}]")
    return [parse_filter(text) for text in texts]


class Store(Protocol):
    """Keeps rows and their vectors, and small notes beside them. One process writes at a time."""

    uri: str

    def read_note(self, name: str) -> dict[str, Any] | None:
        """A note, or None where there is none."""

    def write_note(self, name: str, value: dict[str, Any]) -> None:
        """Keep a note in the place of one of the same name, at once or not at all."""

    def states(self) -> Iterator[State]:
        """Each version of each file that rows are stored of."""

    def add(self, rows: Sequence[StoredChunk], vectors: np.ndarray) -> None:
        """Keep rows and vectors (rows, dim) float32, in an order that leaves no gaps in a file."""

    def delete(self, key: Key, content_hashes: Sequence[str]) -> None:
        """Remove the rows of some versions of a file."""

    def vectors(self, text_hashes: Sequence[str]) -> dict[str, np.ndarray]:
        """The vectors (dim,) of those texts that are stored."""

    def row(self, ref: str) -> StoredChunk | None:
        """The row of a ref; None where there is none."""

    def rows_of(
        self, name: str, root: str | None = None, lines: tuple[int, int] | None = None
    ) -> list[StoredChunk]:
        """The rows of a file, of all its versions, in no particular order.

        Args:
            root: None for the files of that name below any root.
            lines: only rows that touch these, first and last.
        """

    def count(self) -> int:
        """The number of rows."""

    def finish(self) -> None:
        """Make searches fast, where that pays; called at the end of every run."""

    def search(
        self, vector: np.ndarray, top: int, filters: Sequence[Filter], exact: bool
    ) -> list[Hit]:
        """The nearest rows to a unit vector, best first; exact looks at every one."""

    def search_words(self, words: str, top: int, filters: Sequence[Filter]) -> list[Hit]:
        """The rows that hold rare words of a question, best first."""

    def blocks(self) -> Iterator[tuple[list[StoredChunk], np.ndarray]]:
        """All rows and their vectors (n, dim), some at a time, in no particular order."""


def open_store(uri: str) -> Store:
    """The store of an address: qdrant+http://..., or LanceDB's: a folder or s3://...

    Raises:
        MissingExtraError: what the search needs, or Qdrant's client, is not installed.
        InputError, StoreError: there can be no index at this address.
    """
    require("search")
    if not uri:
        raise InputError("no address of an index", remedy="name a folder")
    if uri.startswith("qdrant") and "://" in uri:
        require("qdrant")
        from mlx_stella.retrieval.qdrant import QdrantStore

        return QdrantStore(uri)
    from mlx_stella.retrieval.lance import LanceStore

    return LanceStore(uri)
