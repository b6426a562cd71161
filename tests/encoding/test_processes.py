"""A process with a model ends with its own status, and a child forked from it is told the truth."""

import os
import subprocess
import sys

import pytest
from support import CHECKPOINTS, ROOT

LOAD = f"""
import os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore")
from mlx_stella import StellaError, load
model = load({str(CHECKPOINTS / "tiny-stella-400m")!r}, dtype="float32")
"""


def run(script: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", LOAD + script],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("texts", ['["tea"]', '["green tea and coffee " * 50] * 64'])
def test_a_process_ends_while_a_daemon_thread_encodes(texts):
    script = f"""
def work():
    while True:
        model.encode({texts})
threading.Thread(target=work, daemon=True).start()
time.sleep(0.3)
sys.exit(7)
"""
    assert run(script) == (7, "", "")


LOADING = """
def work():
    while True:
        load(model.checkpoint.directory, dtype="float32")
"""
PYTHON_AFTER_LOADING = """
def work():
    load(model.checkpoint.directory, dtype="float32")
    while True: pass
"""
PYTHON_AFTER_KERNELS = """
from mlx_stella.models import cpu
cpu.is_needed = lambda: False  # kernels are compiled, as on a GPU
def work():
    model.encode("tea")
    while True: pass
"""


@pytest.mark.parametrize(
    "work",
    [LOADING, PYTHON_AFTER_LOADING, PYTHON_AFTER_KERNELS],
    ids=["loading", "python after loading", "python after kernels"],
)
def test_a_process_ends_while_daemon_threads_that_use_mlx_go_on(work):
    script = """
for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.5)
sys.exit(7)
"""
    assert run(work + script) == (7, "", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    "call",
    [
        "model.encode('tea')",
        "next(model.encode_stream(['tea']))",
        "model.prepare(['tea'], settings)",
        "load(model.checkpoint.directory)",
    ],
)
def test_a_child_forked_after_loading_refuses(call):
    script = f"""
settings = model.settings()
model.encode("tea")
if not (child := os.fork()):
    signal.alarm(20)
    try:
        {call}
    except StellaError as error:
        print(error, flush=True)
    os._exit(0)
print(os.waitpid(child, 0)[1], model.encode("tea").shape)
"""
    status, output, _ = run(script)
    told, ended = output.splitlines()
    assert status == 0 and ended == "0 (1024,)"
    assert "forked after process" in told and "remedy: load after the fork only, or start" in told
