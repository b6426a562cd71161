"""A question's whole command line, with the server that runs and without, by turns.

mlx-stella serve --index notes=notes.index, in another terminal; then, of the median of ten each:

$ python scripts/bench_start.py notes.index "where did I leave my keys?"
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

RUNS = 10


def seconds(words: list[str]) -> tuple[float, float, bytes]:
    """Wall time and CPU time of a command, and what it printed."""
    before, start = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "mlx_stella", *words], capture_output=True)
    wall, after = time.perf_counter() - start, os.times()
    if done.returncode or done.stderr:
        sys.exit(done.stderr.decode() or f"exit status {done.returncode}")
    used = after.children_user + after.children_system
    return wall, used - before.children_user - before.children_system, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index")
    parser.add_argument("question")
    arguments = parser.parse_args()
    there = ["search", arguments.index, arguments.question, "--json"]
    here = [*there, "--no-server"]
    if seconds(there)[2] != seconds(here)[2]:  # both warm up
        sys.exit("the server's answer differs")
    timed = [(seconds(there)[:2], seconds(here)[:2]) for _ in range(RUNS)]
    walls = [statistics.median(pair[side][0] for pair in timed) for side in (0, 1)]
    cpus = [statistics.median(pair[side][1] for pair in timed) for side in (0, 1)]
    for name, wall, cpu in zip(("server", "alone"), walls, cpus, strict=True):
        print(f"{name:8} {wall:.2f} s, of which {cpu:.2f} s of this machine's cores")
    print(f"ratio    {walls[1] / walls[0]:.1f}")


if __name__ == "__main__":
    main()
