"""Kills an indexer at random moments until it is done; run by test_index_crash.py.

    python kill_indexer.py FOLDER START WORK SEED KILLS

Each life begins with a copy of the index START (none, if it is missing) and ends when an indexer
comes through. One process imports most of what LanceDB needs and forks an indexer for each
attempt, so that one costs a third of a second; LanceDB itself, which has threads, is imported
after the fork. The indexer dies by SIGKILL, which no handler sees. Prints a JSON list of the
lives: the index, its number of kills, and how many texts were embedded.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import lance_namespace  # noqa: F401
import numpy as np  # noqa: F401
import pyarrow.dataset  # noqa: F401
import pydantic  # noqa: F401

BATCH = 8


def main(folder: Path, start: Path, work: Path, seed: int, kills: int) -> None:
    chance = random.Random(seed)
    longest, lives = 0.1, []
    while sum(life["kills"] for life in lives) < kills:
        uri, log = work / f"life{len(lives)}", work / f"life{len(lives)}.log"
        if start.exists():
            shutil.copytree(start, uri)
        log.touch()
        life = {"index": str(uri), "kills": 0}
        while True:
            awake, wake = os.pipe()
            process = os.fork()
            if process == 0:
                attempt(folder, uri, log, wake)
            os.close(wake)
            os.read(awake, 1)
            os.close(awake)
            time.sleep(chance.uniform(0, longest))
            os.kill(process, signal.SIGKILL)
            if not os.WIFSIGNALED(status := os.waitpid(process, 0)[1]):
                assert status == 0
                longest *= 0.7
                break
            life["kills"] += 1
            longest *= 1.2  # so that it gets through some time
        lives.append(life | {"embedded": len(log.read_text().split())})
    print(json.dumps(lives))


def attempt(folder: Path, uri: Path, log: Path, wake: int) -> None:
    """Index, and note each text before it is embedded; never returns."""
    from indexing import embed, run_index

    from mlx_stella.retrieval import indexing

    indexing.FIRST_BATCH = indexing.LARGEST_BATCH = BATCH
    os.write(wake, b"!")

    def logged(texts):
        with log.open("a") as file:
            file.write("text\n" * len(texts))
        time.sleep(0.002)
        return embed(texts)

    status = 1
    try:
        run_index(uri, folder, embed=logged)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), int(sys.argv[4]), int(sys.argv[5]))
