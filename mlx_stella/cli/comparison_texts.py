"""Texts to compare two models on, or to calibrate on: a file of the user's, or the built-in set.

Of the built-in set every other text is for the one, the others for the other.
"""

from importlib.resources import files
from pathlib import Path

from mlx_stella.cli.texts import read_records
from mlx_stella.conversion.calibration import Texts
from mlx_stella.errors import InputError


def evaluation_texts(source: str | None) -> Texts:
    """Raises InputError if the file cannot be read or holds fewer than two texts."""
    return _texts(source, built_in=slice(1, None, 2))


def calibration_texts(source: str | None) -> Texts:
    """Raises InputError if the file cannot be read or holds fewer than two texts."""
    return _texts(source, built_in=slice(0, None, 2))


def _texts(source: str | None, built_in: slice) -> Texts:
    if source is None:
        lines = files("mlx_stella.conversion").joinpath("texts.txt").read_text("utf-8")
        return Texts(lines.splitlines()[built_in], "the built-in set")
    texts = [record.text for record in read_records(None, source, None)]
    if len(texts) < 2:
        raise InputError(f"{len(texts)} texts are too few", where=source, remedy="some hundred")
    return Texts(texts, Path(source).name)
