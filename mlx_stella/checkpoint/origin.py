"""What identifies a model wherever its vectors or its weights are kept, and records that say so."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self, TypeVar, get_args

from mlx_stella.errors import StoreError

T = TypeVar("T")

_TOKENIZER = "tokenizer.json"
_SETTINGS = {
    "config.json",
    "modules.json",
    _TOKENIZER,
    "tokenizer_config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
}
_VOCABULARY = {"vocab.txt", "special_tokens_map.json"}  # read where there is no tokenizer.json
_WEIGHTS = {".safetensors", ".bin"}
_SAMPLE_BYTES = 2**20


@dataclass(frozen=True)
class Origin:
    """A model as an index, a folder of parts and a converted checkpoint record it.

    Attributes:
        model: the name to load it by; revision: the commit on the Hub, "" where it is not known.
        fingerprint: a hash of the checkpoint's settings and samples of its weights.
    """

    model: str
    revision: str
    fingerprint: str

    @classmethod
    def of(cls, name: str, directory: Path) -> Self:
        """The origin of a checkpoint that was loaded by a name; a folder gets its whole path."""
        whole = str(Path(name).resolve()) if Path(name).is_dir() else name
        return cls(whole, revision_of(directory), fingerprint(directory))

    def __str__(self) -> str:
        """For people: the name, the commit, and the start of the fingerprint."""
        revision = f" at {self.revision[:12]}" if self.revision else ""
        return f"{self.model}{revision} ({self.fingerprint[:8]})"


def to_json(record: Any) -> dict[str, Any]:
    """A dataclass with a field ``origin`` as JSON, where the origin's fields stand in its place.

    What has its default is left out, so that a field which a later version adds, with a default
    that says how it was before, changes no record that was made without it.
    """
    found: dict[str, Any] = {}
    defaults = {field.name: field.default for field in fields(record)}
    for name, value in asdict(record).items():
        if name == "origin":
            found |= value
        elif value != defaults[name]:
            found[name] = value
    return found


def from_json(cls: type[T], data: dict[str, Any]) -> T:
    """What :func:`to_json` made.

    Raises:
        KeyError: a field without a default is missing; TypeError: it is of another type. Both
            name it.
    """
    values: dict[str, Any] = {}
    for field in fields(cls):  # type: ignore[arg-type]
        if field.name == "origin":
            values["origin"] = from_json(Origin, data)
        elif field.name not in data and field.default is not MISSING:
            values[field.name] = field.default
        elif type(value := data[field.name]) not in (get_args(field.type) or (field.type,)):
            raise TypeError(f"{field.name} is {value!r:.40}")
        else:
            values[field.name] = value
    return cls(**values)


def refuse_differences(made: object, wanted: object, names: Sequence[str], uri: str) -> None:
    """Compare attributes of what was made and of what is wanted.

    Raises:
        StoreError: naming the first that differs.
    """
    for name in names:
        old, new = getattr(made, name), getattr(wanted, name)
        if old != new:
            raise StoreError(
                f"was made with {name.replace('_', ' ')} {old!r}, not {new!r}",
                where=uri,
                remedy="the same again, or another place",
            )


def fingerprint(directory: Path) -> str:
    """A hash of a checkpoint: its settings whole, of its weights sizes and both ends."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(_checkpoint_files(directory)):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(directory).as_posix()} {size}\n".encode())
        with path.open("rb") as file:
            if path.suffix not in _WEIGHTS or size <= 2 * _SAMPLE_BYTES:
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
            if path.parent.name in ("onnx", "openvino") or not path.is_file():
                continue
            is_vocabulary = path.name in _VOCABULARY and not (path.parent / _TOKENIZER).exists()
            if is_vocabulary or path.name in _SETTINGS or path.suffix in _WEIGHTS:
                yield path
