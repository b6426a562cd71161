"""What made the vectors of an index, so that no other model ever answers from them."""

from dataclasses import dataclass
from typing import Any

from mlx_stella.checkpoint import origin
from mlx_stella.checkpoint.origin import Origin
from mlx_stella.encoding.encoder import Encoder
from mlx_stella.errors import InputError, StoreError

FORMAT = 1
"""Of the index's tables; another number is another layout."""

MAX_CHUNK_TOKENS = 512
"""Where a model reads more at once, chunks are still no longer: passages, not books."""


@dataclass(frozen=True)
class Stamp:
    """What an index records about its vectors.

    Attributes:
        format: see FORMAT; version: of the package that made it.
        origin: the model; where JSON is concerned its three fields stand among the others.
        dim: the size of the vectors, which names the Dense head; dtype: what they were made in.
        prompt: what stood before each chunk.
        chunk_tokens, overlap: how texts were cut.
    """

    format: int
    version: str
    origin: Origin
    dim: int
    dtype: str
    prompt: str
    chunk_tokens: int
    overlap: int

    def to_json(self) -> dict[str, Any]:
        return origin.to_json(self)

    @classmethod
    def from_json(cls, data: dict[str, Any], uri: str) -> "Stamp":
        """Raises: StoreError: an index of another version, or none."""
        if data.get("format") != FORMAT:
            raise StoreError(
                f"an index of format {data.get('format')!r}, made by version "
                f"{data.get('version', 'unknown')}; this one reads {FORMAT}",
                where=uri,
                remedy="make it anew",
            )
        try:
            return origin.from_json(cls, data)
        except KeyError as error:
            raise StoreError(f"its stamp lacks {error}", where=uri, remedy="make it anew") from None
        except TypeError as error:
            raise StoreError(
                f"its stamp is damaged, {error}", where=uri, remedy="make it anew"
            ) from None


def make_stamp(
    encoder: Encoder,
    name: str,
    version: str,
    dim: int | None,
    chunk_tokens: int | None,
    overlap: int | None,
) -> Stamp:
    """The stamp of an index to be made.

    Args:
        name: what the encoder was loaded by.
        dim: size of the vectors; None for the model's default.
        chunk_tokens: None for all that the model reads, up to MAX_CHUNK_TOKENS.
        overlap: None for an eighth of that.

    Raises:
        InputError: the model has no such dim, or cannot read such chunks.
    """
    dim = encoder.default_dim if dim is None else dim
    if dim not in encoder.dims:
        raise InputError(
            f"this model has no vectors of {dim} dimensions",
            remedy=f"one of {', '.join(map(str, encoder.dims))}",
        )
    room = encoder.document_room
    if chunk_tokens is None:
        chunk_tokens = min(room, MAX_CHUNK_TOKENS)
    if not 1 <= chunk_tokens <= room:
        raise InputError(f"chunks of {chunk_tokens} tokens", remedy=f"from 1 to {room}")
    if overlap is None:
        overlap = chunk_tokens // 8
    if not 0 <= overlap < chunk_tokens:
        raise InputError(f"an overlap of {overlap} tokens", remedy=f"from 0 to {chunk_tokens - 1}")
    return Stamp(
        format=FORMAT,
        version=version,
        origin=Origin.of(name, encoder.checkpoint.directory),
        dim=dim,
        dtype=encoder.dtype,
        prompt=encoder.document_prompt,
        chunk_tokens=chunk_tokens,
        overlap=overlap,
    )


def check_settings(stamp: Stamp, wanted: Stamp, uri: str) -> None:
    """Refuse to add vectors of the same model but another making.

    Raises:
        StoreError: naming what differs.
    """
    origin.refuse_differences(
        stamp, wanted, ("dim", "dtype", "prompt", "chunk_tokens", "overlap"), uri
    )


def check_model(stamp: Stamp, encoder: Encoder, uri: str) -> None:
    """Refuse to ask an index with another model, or to add to it.

    Raises:
        StoreError: naming both.
    """
    directory = encoder.checkpoint.directory
    if (found := origin.fingerprint(directory)) != stamp.origin.fingerprint:
        raise StoreError(
            f"its vectors are of {stamp.origin}, not of {directory} ({found[:8]}), whose numbers "
            "mean other things",
            where=uri,
            remedy="that model, or index again",
        )
