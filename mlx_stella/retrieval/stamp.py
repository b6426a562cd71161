"""What made the vectors of an index, so that no other model ever answers from them."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from mlx_stella.encoder import Encoder
from mlx_stella.errors import InputError, ModelNotFoundError, StoreError
from mlx_stella.loading import load

FORMAT = 1
"""Of the index's tables; another number is another layout."""

MAX_CHUNK_TOKENS = 512
"""Where a model reads more at once, chunks are still no longer: passages, not books."""

_SETTINGS = {
    "config.json",
    "modules.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
}
_WEIGHTS = {".safetensors", ".bin"}
_SAMPLE_BYTES = 2**20


@dataclass(frozen=True)
class Stamp:
    """What an index records about its vectors.

    Attributes:
        format: see FORMAT; version: of the package that made it.
        model: the name to load it by; revision: the commit on the Hub, where that is known.
        fingerprint: a hash of the checkpoint's settings and samples of its weights.
        dim: the size of the vectors, which names the Dense head; dtype: what they were made in.
        prompt: what stood before each chunk.
        chunk_tokens, overlap: how texts were cut.
    """

    format: int
    version: str
    model: str
    revision: str
    fingerprint: str
    dim: int
    dtype: str
    prompt: str
    chunk_tokens: int
    overlap: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any], uri: str) -> "Stamp":
        """Raises: StoreError: an index of another version, or none."""
        if data.get("format") != FORMAT:
            raise StoreError(
                f"{uri}: an index of format {data.get('format')!r}, made by version "
                f"{data.get('version', 'unknown')}; this one reads {FORMAT}; remedy: make it anew"
            )
        try:
            return cls(**{field.name: data[field.name] for field in fields(cls)})
        except KeyError as error:
            raise StoreError(f"{uri}: its stamp lacks {error}; remedy: make it anew") from None


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
            f"this model has no vectors of {dim} dimensions; remedy: one of "
            f"{', '.join(map(str, encoder.dims))}"
        )
    room = encoder.document_room
    if chunk_tokens is None:
        chunk_tokens = min(room, MAX_CHUNK_TOKENS)
    if not 1 <= chunk_tokens <= room:
        raise InputError(f"chunks of {chunk_tokens} tokens; remedy: from 1 to {room}")
    if overlap is None:
        overlap = chunk_tokens // 8
    if not 0 <= overlap < chunk_tokens:
        raise InputError(f"an overlap of {overlap} tokens; remedy: from 0 to {chunk_tokens - 1}")
    directory = encoder.checkpoint.directory
    return Stamp(
        format=FORMAT,
        version=version,
        model=absolute(name),
        revision=revision_of(directory),
        fingerprint=fingerprint(directory),
        dim=dim,
        dtype=encoder.dtype,
        prompt=encoder.document_prompt,
        chunk_tokens=chunk_tokens,
        overlap=overlap,
    )


class Origin(Protocol):
    """What a stamp and a manifest both record of the model."""

    @property
    def model(self) -> str: ...

    @property
    def revision(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...


def load_recorded(
    name: str, made: Origin | None, dtype: str | None, memory_limit: int | None = None
) -> Encoder:
    """Load the model that vectors were made with, at the commit it had then.

    Where that commit is not to be had, what the name leads to now is loaded: its weights may be
    the same, which the fingerprint tells.

    Args:
        name: what to load; the commit is that of the recorded name, and of no other.
        made: what is recorded with the vectors; None where there are none yet.

    Raises:
        As ``load``.
    """
    if made and made.revision and name == made.model and not Path(name).is_dir():
        try:
            return load(name, revision=made.revision, dtype=dtype, memory_limit=memory_limit)
        except ModelNotFoundError:
            pass
    return load(name, dtype=dtype, memory_limit=memory_limit)


def check_settings(stamp: Stamp, wanted: Stamp, uri: str) -> None:
    """Refuse to add vectors of the same model but another making.

    Raises:
        StoreError: naming what differs.
    """
    refuse_differences(stamp, wanted, ("dim", "dtype", "prompt", "chunk_tokens", "overlap"), uri)


def refuse_differences(made: object, wanted: object, names: Sequence[str], uri: str) -> None:
    """Compare attributes of what was made and of what is wanted.

    Raises:
        StoreError: naming the first that differs.
    """
    for name in names:
        old, new = getattr(made, name), getattr(wanted, name)
        if old != new:
            raise StoreError(
                f"{uri}: was made with {name.replace('_', ' ')} {old!r}, not {new!r}; remedy: the "
                "same again, or another place"
            )


def check_model(stamp: Stamp, encoder: Encoder, uri: str) -> None:
    """Refuse to ask an index with another model, or to add to it.

    Raises:
        StoreError: naming both.
    """
    directory = encoder.checkpoint.directory
    if (found := fingerprint(directory)) != stamp.fingerprint:
        raise StoreError(
            f"{uri}: its vectors are of {described(stamp)}, not of {directory} ({found[:8]}), "
            "whose numbers mean other things; remedy: that model, or index again"
        )


def described(origin: Origin) -> str:
    """A model for people: its name, commit and the start of its fingerprint."""
    revision = f" at {origin.revision[:12]}" if origin.revision else ""
    return f"{origin.model}{revision} ({origin.fingerprint[:8]})"


def fingerprint(directory: Path) -> str:
    """A hash of a checkpoint: its settings whole, of its weights sizes and both ends."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(_checkpoint_files(directory)):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(directory).as_posix()} {size}\n".encode())
        with path.open("rb") as file:
            if path.suffix == ".json" or size <= 2 * _SAMPLE_BYTES:
                digest.update(file.read())
            else:
                digest.update(file.read(_SAMPLE_BYTES))
                file.seek(-_SAMPLE_BYTES, 2)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def revision_of(directory: Path) -> str:
    """The commit of a snapshot in the Hub's cache, else ""."""
    return directory.name if directory.parent.name == "snapshots" else ""


def _checkpoint_files(directory: Path) -> Iterator[Path]:
    for pattern in ("*", "*/*"):
        for path in directory.glob(pattern):
            if path.parent.name in ("onnx", "openvino"):
                continue
            if path.name in _SETTINGS or path.suffix in _WEIGHTS:
                yield path


def absolute(name: str) -> str:
    """What a model was loaded by; a folder with its whole path."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name
