"""What made the vectors of an index, so that no other model ever answers from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import numpy as np

from mlx_stella.checkpoint import origin
from mlx_stella.checkpoint.origin import Origin
from mlx_stella.encoding.encoder import Encoder
from mlx_stella.errors import InputError, StoreError
from mlx_stella.retrieval.notes import damaged
from mlx_stella.retrieval.store import Store

FORMAT = 1
"""Of the index's tables; another number is another layout."""

MANIFEST = "stamp"
"""The note that holds it; the name is part of the format."""

MAX_CHUNK_TOKENS = 512
"""Where a model reads more at once, chunks are still no longer: passages, not books."""


@dataclass(frozen=True)
class IndexManifest:
    """What an index records about its vectors.

    Attributes:
        format: see FORMAT; version: of the package that made it.
        origin: the model; where JSON is concerned its three fields stand among the others.
        dim: the size of the Dense head's vectors; dtype: what they were made in.
        prompt: what stood before each chunk.
        chunk_tokens, overlap: how texts were cut.
        truncate_dim: how many numbers of each vector were kept; None for all.
    """

    format: int
    version: str
    origin: Origin
    dim: int
    dtype: str
    prompt: str
    chunk_tokens: int
    overlap: int
    truncate_dim: int | None = None

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return self.dim if self.truncate_dim is None else self.truncate_dim

    def embedder(self, encoder: Encoder, prompt: str) -> Callable[[Sequence[str]], np.ndarray]:
        """What gives n texts, chunks or questions, vectors (n, width) float32 as this index has.

        Raises:
            InputError: the model has no such dim.
        """
        # Whether it was trained to be cut was told when the index was made, so not again.
        settings = replace(
            encoder.settings(prompt=prompt, dim=self.dim), truncate_dim=self.truncate_dim
        )
        return lambda texts: cast(np.ndarray, encoder.encode(texts, settings=settings))

    def to_json(self) -> dict[str, Any]:
        return origin.to_json(self)

    @classmethod
    def from_json(cls, data: dict[str, Any], uri: str) -> "IndexManifest":
        """Raises: StoreError: an index of another version, or none."""
        if data.get("format") != FORMAT:
            raise StoreError(
                f"an index of format {data.get('format')!r}, made by version "
                f"{data.get('version', 'unknown')}; this one reads {FORMAT}",
                where=uri,
                remedy="make it anew",
            )
        try:
            made = origin.from_json(cls, data)
            if 1 <= made.width <= made.dim:
                return made
            fault = f"its record is damaged, {made.width} of {made.dim} numbers are kept"
        except KeyError as error:
            fault = f"its record lacks {error}"
        except TypeError as error:
            fault = f"its record is damaged, {error}"
        raise StoreError(fault, where=uri, remedy="make it anew")


@dataclass(frozen=True)
class Asked:
    """Settings that somebody asks for: None for what the index has, or the default for a new one.

    Attributes:
        dim: size of the vectors; by default the model's. truncate_dim: what is left of them.
        chunk_tokens: by default all that the model reads, up to MAX_CHUNK_TOKENS.
        overlap: by default an eighth of that; dtype: see :func:`mlx_stella.load`.
    """

    dim: int | None = None
    chunk_tokens: int | None = None
    overlap: int | None = None
    dtype: str | None = None
    truncate_dim: int | None = None

    def check(self, made: IndexManifest, uri: str) -> None:
        """Refuse to go on with other settings than an index was made with.

        Raises:
            StoreError: naming what differs.
        """
        names = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        origin.refuse_differences(made, self, names, uri)


def read_manifest(store: Store) -> IndexManifest | None:
    """What made an index's vectors; None where there is no index yet."""
    note = store.read_note(MANIFEST)
    if not isinstance(note, dict | None):
        raise damaged(store, MANIFEST)
    return None if note is None else IndexManifest.from_json(note, store.uri)


def begin(store: Store, encoder: Encoder, name: str, asked: Asked, version: str) -> IndexManifest:
    """The manifest to write rows by: that of the index, or one that is written for a new index.

    Args:
        name: what the encoder was loaded by; version: of this package.

    Raises:
        StoreError: the index is of another model or other settings.
        InputError: as :func:`make_manifest`.
    """
    made = read_manifest(store)
    if made is None:
        made = make_manifest(encoder, name, asked, version)
        store.write_note(MANIFEST, made.to_json())
        return made
    check_model(made, encoder, store.uri)
    asked.check(made, store.uri)
    wanted = make_manifest(
        encoder, name, Asked(made.dim, made.chunk_tokens, made.overlap), made.version
    )
    origin.refuse_differences(made, wanted, ("dtype", "prompt"), store.uri)
    return made


def make_manifest(encoder: Encoder, name: str, asked: Asked, version: str) -> IndexManifest:
    """The manifest of an index to be made by a model.

    Raises:
        InputError: the model has no such vectors, or cannot read such chunks.
    """
    settings = encoder.settings(
        prompt=encoder.document_prompt, dim=asked.dim, truncate_dim=asked.truncate_dim
    )
    (dim,) = settings.sizes
    room = encoder.document_room
    chunk_tokens, overlap = asked.chunk_tokens, asked.overlap
    if chunk_tokens is None:
        chunk_tokens = min(room, MAX_CHUNK_TOKENS)
    if not 1 <= chunk_tokens <= room:
        raise InputError(f"chunks of {chunk_tokens} tokens", remedy=f"from 1 to {room}")
    if overlap is None:
        overlap = chunk_tokens // 8
    if not 0 <= overlap < chunk_tokens:
        raise InputError(f"an overlap of {overlap} tokens", remedy=f"from 0 to {chunk_tokens - 1}")
    return IndexManifest(
        format=FORMAT,
        version=version,
        origin=Origin.of(name, encoder.checkpoint.directory),
        dim=dim,
        dtype=encoder.dtype,
        prompt=settings.prefix,
        chunk_tokens=chunk_tokens,
        overlap=overlap,
        truncate_dim=settings.truncate_dim,
    )


def check_model(made: IndexManifest, encoder: Encoder, uri: str) -> None:
    """Refuse to ask an index with another model, or to add to it.

    Raises:
        StoreError: naming both.
    """
    directory = encoder.checkpoint.directory
    if (found := origin.fingerprint(directory)) != made.origin.fingerprint:
        raise StoreError(
            f"its vectors are of {made.origin}, not of {directory} ({found[:8]}), whose numbers "
            "mean other things",
            where=uri,
            remedy="that model, or index again",
        )
