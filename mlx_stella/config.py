"""JSON files of a checkpoint, which nobody vouches for: read, and kept from leading elsewhere."""

import json
import math
import stat
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from mlx_stella.errors import ConfigError

MAX_JSON_BYTES = 16 * 2**20
"""A larger file of settings is refused before it is read; published ones have some kilobytes."""


def read_json(path: Path) -> Any:
    """The parsed content of a JSON file.

    Raises:
        ConfigError: the file is missing, not a regular one, too large, not JSON, gives a key
            twice, or holds text that is no valid Unicode.
    """
    require_regular(path, MAX_JSON_BYTES)
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text, object_pairs_hook=_unique)
        if "\\u" in text:  # an escape may spell half of a character, which cannot be stored
            json.dumps(data, ensure_ascii=False).encode()
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"not readable as JSON ({error})", where=path, remedy="download it again"
        ) from None
    return data


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A table; of a key that is there twice, programs differ in which they take."""
    table = dict(pairs)
    if len(table) < len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {key!r} is there twice")
    return table


def require_regular(path: Path, limit: int | None = None) -> None:
    """Refuse what is no regular file, such as a pipe, which hangs, or a device, which has no end.

    Raises:
        ConfigError: it is missing, of another kind, or has more bytes than ``limit``.
    """
    try:
        found = path.stat()
    except OSError as error:
        fault = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise ConfigError(
            f"{fault}", where=path, remedy="point to a complete checkpoint directory"
        ) from None
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError("not a regular file", where=path, remedy="download it again")
    if limit is not None and found.st_size > limit:
        raise ConfigError(
            f"has {found.st_size:,} bytes, more than the {limit:,} that are read",
            where=path,
            remedy="use a checkpoint as published",
        )


def read_object(path: Path) -> dict[str, Any]:
    """The parsed content of a JSON file that must hold an object; same errors as read_json."""
    data = read_json(path)
    if not isinstance(data, dict):
        raise ConfigError(f"holds a {type(data).__name__}, not an object", where=path)
    return data


def is_positive(value: Any) -> TypeGuard[int | float]:
    """Whether a value from JSON is a positive, finite number."""
    return type(value) in (int, float) and 0 < value < 1e30 and math.isfinite(value)


def inside(directory: Path, relative: str, file: Path) -> Path:
    """``directory / relative``, refusing a path that leaves the checkpoint's directory.

    Raises:
        ConfigError: the path is absolute or climbs out; ``file`` is where it was read.
    """
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or "\\" in relative or "\0" in relative:
        raise ConfigError(f"refused the path {relative!r}, which leaves the checkpoint", where=file)
    return directory / path
