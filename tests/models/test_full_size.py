"""Loading in bounded memory, on the full layout of stella-400m with random weights (1.9 GB)."""

import os
import shutil
import subprocess
import sys

import pytest
from support import ROOT

from mlx_stella import load
from mlx_stella.checkpoint.catalog import MODELS

SCRIPT = ROOT / "scripts" / "random_checkpoint.py"

# Runs in a process of its own, whose peak resident memory the last line tells.
MEASURE = """
import sys
from mlx_stella import load
from mlx_stella.machine.process_memory import peak_resident_bytes
model = load(sys.argv[1], dtype=sys.argv[2])
assert model.dims == (256, 768, 1024, 2048, 4096, 6144, 8192)
print(peak_resident_bytes())
"""


@pytest.fixture(scope="module")
def stella_400m(tmp_path_factory):
    directory = tmp_path_factory.mktemp("full") / "stella-400m"
    if shutil.disk_usage(directory.parent).free < 6e9:
        pytest.skip("less than 6 GB of disk are free")
    subprocess.run([sys.executable, SCRIPT, "stella-400m", directory], check=True)
    yield directory
    shutil.rmtree(directory)


def test_info_reads_no_weights(stella_400m):
    command = [sys.executable, "-m", "mlx_stella", "info", str(stella_400m)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    assert "434.1 M" in output and "1.74 GB, tensors: 270 F32" in output
    assert "256, 768, 1024 (default), 2048, 4096, 6144, 8192" in output


@pytest.mark.parametrize("dtype, weights_bytes", [("float16", 0.87e9), ("float32", 1.74e9)])
def test_loading_takes_the_weights_and_little_more(stella_400m, dtype, weights_bytes):
    command = [sys.executable, "-c", MEASURE, str(stella_400m), dtype]
    peak = int(subprocess.run(command, capture_output=True, check=True, env=os.environ).stdout)
    assert peak < weights_bytes + 0.5e9


def test_the_script_knows_every_model_of_the_catalogue(tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, "nope", tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert all(entry.alias in done.stderr for entry in MODELS)


@pytest.mark.parametrize(
    "name",
    [
        "stella-base-zh",
        "gte-base-en-v1.5",
        "all-minilm-l6-v2",
        "qwen3-embedding-0.6b",
        "gte-modernbert-base",
    ],
)
def test_other_layouts_load_too(name, tmp_path):
    command = [sys.executable, SCRIPT, name, tmp_path / name, "--layers", "1"]
    subprocess.run(command, check=True)
    assert load(tmp_path / name).encode(["a", "some text"]).shape[0] == 2
