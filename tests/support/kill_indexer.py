"""Kills an indexer at random moments until it is done; run by test_index_crash.py.

    python kill_indexer.py FOLDER START WORK SEED KILLS

LanceDB is imported once, before the forks: it makes its threads anew in each child, and the parent
does nothing with it. Prints a JSON list of what :func:`killing.lives` returns.
"""

import json
import sys
import time
from functools import partial
from pathlib import Path

from mlx_stella.retrieval import lance, updating
from support.indexing import embed, run_index
from support.killing import lives

BATCH = 8


def attempt(folder: Path, uri: Path, log: Path, ready) -> None:
    """Index, and note each text before it is embedded."""
    updating.FIRST_BATCH = updating.LARGEST_BATCH = BATCH
    lance.HASHED_COMMITS = 3
    ready()

    def logged(texts):
        with log.open("a") as file:
            file.write("text\n" * len(texts))
        time.sleep(0.002)
        return embed(texts)

    run_index(uri, folder, embed=logged)


if __name__ == "__main__":
    folder, start, work = map(Path, sys.argv[1:4])
    print(json.dumps(lives(partial(attempt, folder), start, work, *map(int, sys.argv[4:]))))
