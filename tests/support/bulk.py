"""Folders of small parts, for tests."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np

from mlx_stella import Encoder
from mlx_stella.bulk import run
from mlx_stella.bulk.input_file import InputFile
from mlx_stella.bulk.ranks import Ranks
from mlx_stella.bulk.run import BulkReport, embed_file
from support import TESTS

CHECKPOINT = TESTS / "checkpoints" / "tiny-stella-zh-v2"
PART_ROWS = 16


def run_bulk(
    input: Path, output: Path, encoder: Encoder, part_rows: int = PART_ROWS, **options
) -> BulkReport:
    """Embed a file into parts of a few rows, by one process."""
    with mock.patch.object(run, "PART_ROWS", part_rows):
        return embed_file(
            InputFile(input, options.pop("field", None)),
            output,
            encoder,
            str(CHECKPOINT),
            Ranks(),
            **options,
        )


def some_texts(count: int) -> list[str]:
    """Texts of one to thirty words, always the same."""
    chance = random.Random(0)
    words = (TESTS / "golden" / "texts.txt").read_text().split()
    return [" ".join(chance.choices(words, k=chance.randint(1, 30))) for _ in range(count)]


def write_jsonl(path: Path, texts: Sequence[str]) -> None:
    """A row a text, with an id."""
    rows = [{"id": f"d{number}", "text": text} for number, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the lock, which is there as long as the folder is."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether float32 arrays are equal to the last bit."""
    return a.shape == b.shape and bool((a.view(np.uint32) == b.view(np.uint32)).all())
