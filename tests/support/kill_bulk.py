"""Kills an embedding run at random moments until it is done; run by test_bulk_crash.py.

    python kill_bulk.py INPUT WORK SEED KILLS

The model is loaded after the fork, as MLX has threads. Prints a JSON list of what
:func:`killing.lives` returns.
"""

import json
import sys
from functools import partial
from pathlib import Path

from mlx_stella import load
from support.bulk import CHECKPOINT, PART_ROWS, run_bulk
from support.killing import lives


def attempt(input: Path, output: Path, log: Path, ready) -> None:
    """Embed, and note each text before it is embedded."""
    encoder = load(CHECKPOINT, dtype="float32")
    stream = encoder.encode_stream
    ready()

    def logged(texts, **options):
        for text in texts:
            with log.open("a") as file:
                file.write("text\n")
            yield text

    encoder.encode_stream = lambda texts, **options: stream(logged(texts), **options)
    run_bulk(input, output, encoder, PART_ROWS)


if __name__ == "__main__":
    input, work = map(Path, sys.argv[1:3])
    print(json.dumps(lives(partial(attempt, input), work / "none", work, *map(int, sys.argv[3:]))))
