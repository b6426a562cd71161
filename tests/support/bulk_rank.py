"""One rank of a launch, for test_bulk_ranks.py: ``mlx-stella embed`` with small, slow parts.

    python bulk_rank.py LOG PART_SECONDS EMBED_ARGUMENTS...

Adds a line "rank/size part" to LOG for each part it begins.
"""

import sys
import time
from contextlib import contextmanager

from mlx_stella.bulk import parts, ranks, run
from mlx_stella.cli import main

log, part_seconds = sys.argv.pop(1), float(sys.argv.pop(1))
run.PART_ROWS = 16
writing, launched = parts.writing, ranks.launched
here = []


def remember():
    here.append(launched())
    return here[0]


@contextmanager
def logged(folder, number, manifest):
    with open(log, "a") as file:
        file.write(f"{here[0].rank}/{here[0].size} {number}\n")
    with writing(folder, number, manifest) as part:
        yield part
        time.sleep(part_seconds)


parts.writing, ranks.launched = logged, remember
main()
