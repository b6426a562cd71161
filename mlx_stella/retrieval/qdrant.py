"""Rows and vectors in a Qdrant server, for an index that several machines ask.

A row's id is drawn from its file, version and number, so that a row sent twice is there once.
Conditions are objects of Qdrant's client; nothing is built from text.
"""

import fnmatch
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException

from mlx_stella.errors import InputError, StoreError
from mlx_stella.retrieval.scanning import Key
from mlx_stella.retrieval.store import (
    FILTER_FIELDS,
    Filter,
    Hit,
    State,
    StoredChunk,
    version_of,
)

SCHEMES = ("qdrant+http", "qdrant+https")
API_KEY = "QDRANT_API_KEY"
"""The environment variable that holds the key, which an address would show to everyone."""

LEAST_VERSION = (1, 20)
"""Of the server: from here on it ranks rows by their words."""

REQUEST_ROWS = 100
"""Rows in a request: 17 MB with vectors of 8192 dimensions, and the server takes 32."""

_TIMEOUT_S = 60
_MARK = {"made by": "mlx-stella"}
_KEYWORDS = ("root", "content_hash", "text_hash", *FILTER_FIELDS)
_NUMBERS = ("number", "start_line", "end_line")
_NAME = re.compile(r"(?!\.+$)[\w.-]+", re.ASCII)


def connect(url: str) -> QdrantClient:
    """A client of the server at http(s)://host:port."""
    api_key = os.environ.get(API_KEY) or None
    return QdrantClient(url, api_key=api_key, timeout=_TIMEOUT_S, check_compatibility=False)


class QdrantStore:
    """A store in a collection of Qdrant; see :class:`mlx_stella.retrieval.store.Store`.

    Notes lie in a second collection, which has the name of the first and "-notes" behind it.

    Raises:
        InputError: the address is not understood.
        StoreError: the server does not answer or is too old, or the collection is somebody else's.
    """

    def __init__(self, uri: str):
        self.uri = uri
        url, self._rows = _parse(uri)
        self._notes = f"{self._rows}-notes"
        self._found: set[str] = set()
        self._is_indexed = False
        with self._faults():
            self._client = connect(url)
            version = self._client.info().version
            is_old = tuple(map(int, version.split(".")[:2])) < LEAST_VERSION
        if is_old:
            least = ".".join(map(str, LEAST_VERSION))
            raise StoreError(f"Qdrant {version} is too old", where=uri, remedy=f"{least} or newer")

    def read_note(self, name: str) -> dict[str, Any] | None:
        if not self._exists(self._notes):
            return None
        with self._faults():
            found = self._client.retrieve(self._notes, [_id(name)])
            return json.loads(_fields(found[0])["value"]) if found else None

    def write_note(self, name: str, value: dict[str, Any]) -> None:
        if not self._exists(self._notes):
            with self._faults():
                self._client.create_collection(self._notes, vectors_config={}, metadata=_MARK)
        payload = {"name": name, "value": json.dumps(value)}
        with self._faults():
            point = models.PointStruct(id=_id(name), vector={}, payload=payload)
            self._client.upsert(self._notes, [point], wait=True)

    def states(self) -> Iterator[State]:
        # A server of many shards may have lost some rows of a request: a version with a gap
        # counts as not begun, and what is there of it is overwritten.
        seen: dict[tuple[str, str, str], tuple[int, int, bool]] = {}
        fields = ["root", "file", "content_hash", "number", "is_last"]
        for points in self._pages(payload=fields):
            for point in points:
                root, name, content_hash, number, is_last = (_fields(point)[f] for f in fields)
                count, highest, is_whole = seen.get((root, name, content_hash), (0, -1, False))
                state = (count + 1, max(highest, number), is_whole or is_last)
                seen[root, name, content_hash] = state
        for (root, name, content_hash), (count, highest, is_whole) in seen.items():
            chunks = count if count == highest + 1 else 0
            yield State(Key(root, name), content_hash, chunks, is_whole and chunks > 0)

    def add(self, rows: Sequence[StoredChunk], vectors: np.ndarray) -> None:
        self._prepare(vectors.shape[1])
        for start in range(0, len(rows), REQUEST_ROWS):
            part = slice(start, start + REQUEST_ROWS)
            points = [
                models.PointStruct(
                    id=_id(row.key.root, row.key.name, row.content_hash, str(row.number)),
                    vector=vector,
                    payload=row.to_fields(),
                )
                for row, vector in zip(rows[part], vectors[part].tolist(), strict=True)
            ]
            with self._faults():
                self._client.upsert(self._rows, points, wait=True)

    def delete(self, key: Key, content_hashes: Sequence[str]) -> None:
        if content_hashes and self._exists(self._rows):
            conditions: list[models.Condition] = [
                _is_one_of("root", [key.root]),
                _is_one_of("file", [key.name]),
                _is_one_of("content_hash", content_hashes),
            ]
            with self._faults():
                chosen = models.FilterSelector(filter=models.Filter(must=conditions))
                self._client.delete(self._rows, chosen, wait=True)

    def vectors(self, text_hashes: Sequence[str]) -> dict[str, np.ndarray]:
        found = {}
        for start in range(0, len(text_hashes), REQUEST_ROWS):
            condition = _is_one_of("text_hash", text_hashes[start : start + REQUEST_ROWS])
            for points in self._pages([condition], payload=["text_hash"], with_vectors=True):
                for point in points:
                    found[_fields(point)["text_hash"]] = np.array(point.vector, np.float32)
        return found

    def row(self, ref: str) -> StoredChunk | None:
        content_hash, number = version_of(ref)
        is_number = models.FieldCondition(key="number", match=models.MatchValue(value=number))
        copies = self._select([_is_one_of("content_hash", [content_hash]), is_number])
        return next((row for row in copies if row.ref == ref), None)

    def rows_of(
        self, name: str, root: str | None = None, lines: tuple[int, int] | None = None
    ) -> list[StoredChunk]:
        conditions = [_is_one_of("file", [name])]
        if root is not None:
            conditions.append(_is_one_of("root", [root]))
        if lines is not None:
            first, last = lines
            for field, limits in (
                ("start_line", models.Range(lte=last)),
                ("end_line", models.Range(gte=first)),
            ):
                conditions.append(models.FieldCondition(key=field, range=limits))
        return self._select(conditions)

    def _select(self, conditions: Sequence[models.FieldCondition]) -> list[StoredChunk]:
        """The rows that meet all conditions."""
        found = []
        for points in self._pages(conditions):
            with self._faults():
                found += [StoredChunk.from_fields(_fields(point)) for point in points]
        return found

    def count(self) -> int:
        if not self._exists(self._rows):
            return 0
        with self._faults():
            return self._client.count(self._rows, exact=True).count

    def finish(self) -> None:
        """Nothing to do: the server builds its indexes itself, as rows come."""

    def search(
        self, vector: np.ndarray, top: int, filters: Sequence[Filter], exact: bool
    ) -> list[Hit]:
        query = np.asarray(vector, np.float32).tolist()
        return self._query(query, top, filters, search_params=models.SearchParams(exact=exact))

    def search_words(self, words: str, top: int, filters: Sequence[Filter]) -> list[Hit]:
        if not words.strip():
            return []
        return self._query(models.TextQuery(text=words), top, filters, using="text")

    def blocks(self) -> Iterator[tuple[list[StoredChunk], np.ndarray]]:
        for points in self._pages(with_vectors=True):
            with self._faults():
                rows = [StoredChunk.from_fields(_fields(point)) for point in points]
                vectors = np.array([point.vector for point in points], np.float32)
            yield rows, vectors

    def _query(self, query: Any, top: int, filters: Sequence[Filter], **options: Any) -> list[Hit]:
        if not self._exists(self._rows):
            return []
        with self._faults():
            conditions: list[models.Condition] = [self._condition(wanted) for wanted in filters]
            found = self._client.query_points(
                self._rows,
                query=query,
                limit=top,
                query_filter=models.Filter(must=conditions),
                **options,
            )
            return [
                Hit(point.score, StoredChunk.from_fields(_fields(point))) for point in found.points
            ]

    def _condition(self, wanted: Filter) -> models.FieldCondition:
        """A pattern as the values that match it: Qdrant has no patterns, but lists values."""
        limit = max(1, self._client.count(self._rows, exact=True).count)
        values = self._client.facet(self._rows, wanted.field, limit=limit, exact=True).hits
        pattern = wanted.pattern.replace("[", "[[]")
        names = [hit.value for hit in values if isinstance(hit.value, str)]
        return _is_one_of(wanted.field, [n for n in names if fnmatch.fnmatchcase(n, pattern)])

    def _pages(
        self,
        conditions: Sequence[models.FieldCondition] = (),
        payload: list[str] | bool = True,
        with_vectors: bool = False,
    ) -> Iterator[list[models.Record]]:
        """All rows that meet the conditions, a request at a time."""
        if not self._exists(self._rows):
            return
        offset = None
        while True:
            with self._faults():
                points, offset = self._client.scroll(
                    self._rows,
                    models.Filter(must=list(conditions)),
                    limit=REQUEST_ROWS if with_vectors else 100 * REQUEST_ROWS,
                    offset=offset,
                    with_payload=payload,
                    with_vectors=with_vectors,
                )
            if points:
                yield points
            if offset is None:
                return

    def _exists(self, collection: str) -> bool:
        """Whether a collection is there.

        Raises:
            StoreError: it is, but somebody else made it.
        """
        if collection in self._found:
            return True
        with self._faults():
            if not self._client.collection_exists(collection):
                return False
            metadata = self._client.get_collection(collection).config.metadata or {}
        if not _MARK.items() <= metadata.items():
            raise StoreError(
                f"no index, the collection {collection!r} holds something else",
                where=self.uri,
                remedy="another name",
            )
        self._found.add(collection)
        return True

    def _prepare(self, dim: int) -> None:
        """Make the collection and its indexes of payloads, once in a process.

        An earlier one may have been killed in between, so indexes are always asked for.
        """
        if self._is_indexed:
            return
        if not self._exists(self._rows):
            # Rows are unit vectors: their dot product is the cosine, and is not normalised anew.
            params = models.VectorParams(size=dim, distance=models.Distance.DOT)
            with self._faults():
                self._client.create_collection(self._rows, vectors_config=params, metadata=_MARK)
        text = models.TextIndexParams(type=models.TextIndexType.TEXT, scoring=True)
        schemas: dict[str, models.PayloadSchemaType | models.TextIndexParams] = {
            **dict.fromkeys(_KEYWORDS, models.PayloadSchemaType.KEYWORD),
            **dict.fromkeys(_NUMBERS, models.PayloadSchemaType.INTEGER),
            "text": text,
        }
        with self._faults():
            for field, schema in schemas.items():
                self._client.create_payload_index(self._rows, field, schema, wait=True)
        self._is_indexed = True

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Errors of the client and the server as one that says what to do."""
        try:
            yield
        except (ApiException, ValueError, KeyError, TypeError) as error:
            fault, remedy = _explained(error)
            raise StoreError(fault, where=self.uri, remedy=remedy) from None


def _parse(uri: str) -> tuple[str, str]:
    """The server's address and the collection's name.

    Raises:
        InputError: naming what is wrong; an address with a password is not repeated.
    """
    parts = urlsplit(uri)
    if parts.username is not None or parts.password is not None or parts.query:
        raise InputError(
            "--to and INDEX take an address without a password", remedy=f"export {API_KEY}=..."
        )
    name = parts.path.strip("/")
    try:
        port = parts.port or 6333
    except ValueError:
        port = 0
    if parts.scheme not in SCHEMES or not (parts.hostname and port) or not _NAME.fullmatch(name):
        raise InputError(
            "not understood",
            where=uri,
            remedy="qdrant+http://HOST:6333/COLLECTION, the collection's name of letters, "
            "digits, '-', '_' and '.'",
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme.removeprefix('qdrant+')}://{host}:{port}", name


def _explained(error: Exception) -> tuple[str, str]:
    """Fault and remedy in words."""
    source = getattr(error, "source", error)  # what the client met
    status = getattr(error, "status_code", None)
    message = " ".join(str(source).split())[:200]
    if isinstance(error, ResponseHandlingException) and not isinstance(source, ValueError):
        return f"the server does not answer ({message})", "start it, or mend the address"
    if status in (401, 403):
        return "the server refuses the key", f"export {API_KEY}=..., one that may do this"
    if "no space left" in message.lower():
        return "the server's disk is full", "free some space and run it again"
    if isinstance(source, ValueError) or status == 404:
        return f"no answer of Qdrant's ({message})", "mend the address"
    return f"the server cannot do this ({message})", "see its log, then run it again"


def _id(*parts: str) -> str:
    """A UUID, the same for the same parts."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(f"{len(part)} {part}".encode())
    return str(uuid.UUID(bytes=digest.digest()))


def _fields(point: models.Record | models.ScoredPoint) -> dict[str, Any]:
    """What a row holds; None of the client's is a row that holds nothing."""
    return point.payload or {}


def _is_one_of(field: str, values: Sequence[str]) -> models.FieldCondition:
    return models.FieldCondition(key=field, match=models.MatchAny(any=list(values)))
