"""The texts on which two models are compared: a file of the user's, or the built-in set."""

from importlib.resources import files
from pathlib import Path

from mlx_stella.cli.texts import read_records
from mlx_stella.conversion.convert import Texts
from mlx_stella.errors import InputError


def evaluation_texts(source: str | None) -> Texts:
    """Raises InputError if the file cannot be read or holds fewer than two texts."""
    if source is None:
        lines = files("mlx_stella.conversion").joinpath("texts.txt").read_text("utf-8")
        # The other half is what calibration takes.
        return Texts(lines.splitlines()[1::2], "the built-in set")
    texts = [record.text for record in read_records(None, source, None)]
    if len(texts) < 2:
        raise InputError(f"{source}: {len(texts)} texts are too few; remedy: some hundred")
    return Texts(texts, Path(source).name)
