"""What a folder of parts was made of and how, so that no run adds to it what does not fit."""

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path

from mlx_stella.bulk.input_file import InputFile
from mlx_stella.checkpoint import origin
from mlx_stella.checkpoint.origin import Origin
from mlx_stella.encoding.encoder import Encoder
from mlx_stella.encoding.settings import Settings
from mlx_stella.errors import StoreError
from mlx_stella.files import atomic

NAME = "manifest.json"
FORMAT = 1
"""Of the folder; another number is another layout."""

_TOLD = ("version", "input", "model", "revision")
"""Said to people; the same content and the same weights may come by other names."""


@dataclass(frozen=True)
class Manifest:
    """What a folder of parts records.

    Attributes:
        format: see FORMAT; version: of the package that made it.
        input, input_bytes, input_blake2b, field: the file, and its column.
        rows: of the input; part_rows: of each part but the last.
        origin: the model.
        dim: the size of the Dense head's vectors; dtype: what they were made in.
        prompt, normalize, max_length, on_long: as in ``Settings``, where a prompt is a prefix.
        truncate_dim: as there.
    """

    format: int
    version: str
    input: str
    input_bytes: int
    input_blake2b: str
    field: str
    rows: int
    part_rows: int
    origin: Origin
    dim: int
    dtype: str
    prompt: str
    normalize: bool
    max_length: int
    on_long: str
    truncate_dim: int | None = None

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return self.dim if self.truncate_dim is None else self.truncate_dim

    @property
    def parts(self) -> int:
        """How many there are; one, and empty, where there are no rows."""
        return max(1, -(-self.rows // self.part_rows))

    def rows_of(self, part: int) -> range:
        """The numbers of the rows of a part."""
        return range(part * self.part_rows, min((part + 1) * self.part_rows, self.rows))

    @property
    def identity(self) -> str:
        """A hash of all that makes the vectors what they are; each part carries it."""
        told = {name: value for name, value in origin.to_json(self).items() if name not in _TOLD}
        return hashlib.blake2b(json.dumps(told).encode(), digest_size=16).hexdigest()


def read(folder: Path) -> Manifest | None:
    """The manifest of a folder; None where the folder is new or empty.

    Raises:
        StoreError: it is of another version or damaged, or the folder holds something else.
    """
    path = folder / NAME
    try:
        data = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):  # of the latter the lock says more
        if any(not entry.name.startswith(".") for entry in folder.glob("*")):
            raise StoreError(
                f"holds files, but no {NAME}", where=folder, remedy="a new or an empty folder"
            ) from None
        return None
    except (ValueError, RecursionError):
        data = None
    except OSError as error:
        raise StoreError(error.strerror, where=path, remedy="check the path") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise StoreError("not of this version", where=path, remedy="another folder")
    try:
        made = origin.from_json(Manifest, data)
    except KeyError as error:
        raise StoreError(f"lacks {error}", where=path, remedy="another folder") from None
    except TypeError as error:
        raise _damaged(path, str(error)) from None
    for name, least in (("rows", 0), ("part_rows", 1), ("dim", 1)):
        if not least <= getattr(made, name) < 2**63:
            raise _damaged(path, f"{name} is {getattr(made, name)}")
    if not 1 <= made.width <= made.dim:
        raise _damaged(path, f"truncate_dim is {made.truncate_dim}")
    return made


def _damaged(path: Path, what: str) -> StoreError:
    return StoreError(f"damaged, {what}", where=path, remedy="another folder")


def settle(
    folder: Path,
    source: InputFile,
    encoder: Encoder,
    name: str,
    version: str,
    part_rows: int,
    settings: Settings,
) -> Manifest:
    """The manifest of a folder, written if there is none yet.

    Args:
        name: what the encoder was loaded by.
        settings: what the encoder is called with; one size.

    Raises:
        StoreError: the folder was made of something else, or otherwise; the difference is named.
        InputError: the source cannot be read.
        OutputError: it cannot be written.
    """
    made = read(folder)
    if made is None:
        rows = source.count()
    else:  # what is of another input is refused below, uncounted
        is_known = (made.input_blake2b, made.field) == (source.blake2b, source.field)
        rows = made.rows if is_known else 0
    (dim,) = settings.sizes
    wanted = Manifest(
        format=FORMAT,
        version=version,
        input=source.path.name,
        input_bytes=source.size_bytes,
        input_blake2b=source.blake2b,
        field=source.field,
        rows=rows,
        part_rows=made.part_rows if made else part_rows,
        origin=Origin.of(name, encoder.checkpoint.directory),
        dim=dim,
        dtype=encoder.dtype,
        prompt=settings.prefix,
        normalize=settings.normalize,
        max_length=settings.max_length,
        on_long=settings.on_long,
        truncate_dim=settings.truncate_dim,
    )
    if made is None:
        text = json.dumps(origin.to_json(wanted), indent=2) + "\n"
        atomic.write_text(folder / NAME, text)
        return wanted
    if made.input_blake2b != wanted.input_blake2b:
        raise StoreError(
            f"was made of other content than {source.path} has",
            where=folder,
            remedy="another folder",
        )
    if made.origin.fingerprint != wanted.origin.fingerprint:
        raise StoreError(
            f"was made with {made.origin}, not {wanted.origin}",
            where=folder,
            remedy="that model, or another folder",
        )
    names = [f.name for f in fields(Manifest) if f.name not in (*_TOLD, "origin")]
    origin.refuse_differences(made, wanted, names, str(folder))
    return made
