"""Kills a program at random moments until it is done; used by kill_indexer.py and kill_bulk.py.

One process imports what the program needs, or most of it, and forks an attempt each time, which
costs a third of a second at most. The attempt dies by SIGKILL, which no handler sees.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from support import ROOT, SUPPORT, TESTS

SEED = 7

Attempt = Callable[[Path, Path, Callable[[], None]], None]


def run_killer(script: str, arguments: list[Path], kills: int) -> list[dict]:
    """The lives that one of the two scripts led, which were ended at least that often."""
    done = subprocess.run(
        [sys.executable, SUPPORT / script, *arguments, str(SEED), str(kills)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{TESTS}"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sum(life["kills"] for life in found) >= kills
    return found


def lives(attempt: Attempt, start: Path, work: Path, seed: int, kills: int) -> list[dict]:
    """Lives of an output: each begins as a copy of START, if there is one, and ends complete.

    Args:
        attempt: called after the fork with the output, a file to log in, and what it has to call
            when it begins; brings the output up to date.

    Returns:
        Objects with ``output``, ``kills``, and how many lines were logged as ``embedded``.
    """
    chance = random.Random(seed)
    longest, found = 0.1, []
    while sum(life["kills"] for life in found) < kills:
        output, log = work / f"life{len(found)}", work / f"life{len(found)}.log"
        if start.exists():
            shutil.copytree(start, output)
        log.touch()
        life = {"output": str(output), "kills": 0}
        while True:
            awake, wake = os.pipe()
            process = os.fork()
            if process == 0:
                _try(attempt, output, log, wake)
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
        found.append(life | {"embedded": len(log.read_text().split())})
    return found


def _try(attempt: Attempt, output: Path, log: Path, wake: int) -> None:
    """One attempt, in a process of its own; never returns."""
    status = 1
    try:
        attempt(output, log, lambda: os.write(wake, b"!"))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
