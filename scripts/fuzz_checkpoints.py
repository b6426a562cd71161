"""Load damaged checkpoints until something other than a model or one line comes out.

    $ python scripts/fuzz_checkpoints.py --seed 1 --minutes 10
    ... checkpoints, ... loaded, ... refused, 0 found

Each of the tiny checkpoints of the tests is damaged in one to three places and loaded in a process
of its own that may take 4 GB and 20 seconds. What is found is printed with its number, which
repeats it: --seed 1 --only NUMBER.
"""

import argparse
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / part) for part in ("tests", ".")]

from support import CHECKPOINTS, TINY  # noqa: E402
from support.hostile import MUTATIONS, mutate  # noqa: E402

_SECONDS = 20
_BYTES = 4 * 2**30
_TOGETHER = 25
"""Checkpoints a process loads before the next begins: MLX is imported once for them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--only", type=int, help="one checkpoint, by its number")
    parser.add_argument("--numbers", type=int, nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.numbers or arguments.only is not None:
        _load_all(arguments.seed, arguments.numbers or [arguments.only])
        return
    counts = {"loaded": 0, "refused": 0, "found": 0}
    number, end = 0, time.monotonic() + arguments.minutes * 60
    while time.monotonic() < end:
        pending = list(range(number, number + _TOGETHER))
        number += _TOGETHER
        while pending:
            pending = _run(arguments.seed, pending, counts)
    print(f"{number} checkpoints, " + ", ".join(f"{n} {what}" for what, n in counts.items()))
    sys.exit(counts["found"] > 0)


def _run(seed: int, numbers: list[int], counts: dict[str, int]) -> list[int]:
    """Load some in a process of their own; what is left where it died or took too long."""
    command = [sys.executable, __file__, "--seed", str(seed), "--numbers", *map(str, numbers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        output, _ = process.communicate(timeout=_SECONDS + len(numbers))
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        output += f"\nnothing after {_SECONDS} s"
    done = 0
    for line in output.splitlines():
        word = line.split(" ", 1)[0]
        if word in counts:
            done += 1
            counts[word] += 1
            if word == "found":
                print(line, flush=True)
    if done < len(numbers):
        counts["found"] += 1
        print(f"found {numbers[done]}: the process ended\n{output[-2000:]}", flush=True)
        done += 1
    return numbers[done:]


def _load_all(seed: int, numbers: list[int]) -> None:
    from mlx_stella import StellaError, load

    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))
    for number in numbers:
        chance = random.Random(f"{seed} {number}")
        with tempfile.TemporaryDirectory() as folder:
            name = chance.choice(TINY)
            directory = Path(shutil.copytree(CHECKPOINTS / name, Path(folder) / name))
            told = []
            for _ in range(chance.randint(1, 3)):
                try:
                    told.append(mutate(directory, chance.choice(list(MUTATIONS)), chance))
                except (LookupError, ValueError, TypeError, OSError, RecursionError, struct.error):
                    break  # what is damaged already cannot always be damaged more
            try:
                load(directory, dtype="float32").encode(["a text", "<s> and </s>", ""])
                outcome = "loaded"
            except StellaError as error:
                outcome = "refused" if "\n" not in str(error) else f"found lines {error!r}"
            except Exception as error:
                outcome = f"found {type(error).__name__}: {error!r:.200}"
            strange = [path.name for path in Path(folder).iterdir() if path != directory]
            if strange:
                outcome = f"found {strange} beside the checkpoint"
        print(f"{outcome} {number}: {'; '.join(told)}".replace("\n", " "), flush=True)


if __name__ == "__main__":
    main()
