"""Indexing takes no more memory for the last ten thousand chunks than for the first."""

import json
import subprocess
import sys

import pytest
from support import TESTS

pytest.importorskip("lancedb")

# In a process of its own, for its peak is that of all that ran in it before.
INDEX = """
import json, sys
from pathlib import Path
import numpy as np
from support.indexing import run_index
from mlx_stella.machine.process_memory import peak_resident_bytes
from mlx_stella.retrieval import lance, updating

lance.INDEX_ROWS = 10**9  # the index for approximate search is made after the last peak is told
updating.FIRST_BATCH = updating.LARGEST_BATCH = 64
folder, peaks, chance = Path(sys.argv[1]), {}, np.random.default_rng(0)

def embed(texts):
    vectors = chance.standard_normal((len(texts), 1024), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

def tell(files, chunks):
    peaks[chunks] = peak_resident_bytes()

run_index(folder / "idx", folder / "texts.jsonl", embed=embed, tell=tell)
print(json.dumps(peaks))
"""


@pytest.mark.slow
def test_memory_is_flat(tmp_path):
    with (tmp_path / "texts.jsonl").open("w") as file:
        for number in range(10_000):
            file.write(json.dumps({"text": f"the {number}. cup of green tea " * 3}) + "\n")
    command = [sys.executable, "-c", INDEX, tmp_path]
    done = subprocess.run(command, cwd=TESTS, check=True, capture_output=True, text=True)
    peaks = {int(chunks): peak for chunks, peak in json.loads(done.stdout).items()}
    early = max(peak for chunks, peak in peaks.items() if chunks <= 10_240)
    assert max(peaks) >= 20_000
    assert max(peaks.values()) < 1.05 * early
