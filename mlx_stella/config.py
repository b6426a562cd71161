"""JSON files of a checkpoint, which nobody vouches for: read, and kept from leading elsewhere."""

import json
import math
from pathlib import Path, PurePosixPath
from typing import Any

from mlx_stella.errors import ConfigError


def read_json(path: Path) -> Any:
    """The parsed content of a JSON file.

    Raises:
        ConfigError: the file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            "no such file", where=path, remedy="point to a complete checkpoint directory"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"not readable as JSON ({error})", where=path, remedy="download it again"
        ) from None


def read_object(path: Path) -> dict[str, Any]:
    """The parsed content of a JSON file that must hold an object; same errors as read_json."""
    data = read_json(path)
    if not isinstance(data, dict):
        raise ConfigError(f"holds a {type(data).__name__}, not an object", where=path)
    return data


def is_positive(value: Any) -> bool:
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
