"""Servers as processes: two starts at once, ports that are taken, killed, ended while busy."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("uvicorn")

from support import CHECKPOINTS, ROOT

TINY = "tiny-stella-400m"
MODEL = str(CHECKPOINTS / TINY)


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.fixture
def uds() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a socket's path has 104 bytes
        yield Path(folder, "folder", "serve.sock")


@contextlib.contextmanager
def started(uds: Path, port: int, model: str = MODEL) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-m", "mlx_stella", "serve", "--model", model]
    process = subprocess.Popen(
        [*command, f"--port={port}", f"--uds={uds}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def get(port: int, path: str, host: str = "127.0.0.1") -> int | None:
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def wait_until_ready(port: int) -> None:
    end = time.monotonic() + 60
    while get(port, "/ready") != 200:
        assert time.monotonic() < end
        time.sleep(0.05)


def ended(process: subprocess.Popen) -> tuple[int, str]:
    """Exit status and the words on stderr; there are none on stdout."""
    output, error = process.communicate(timeout=60)
    assert not output
    return process.returncode, error


def ask(connection: http.client.HTTPConnection, texts) -> dict:
    body = json.dumps({"model": TINY, "input": texts})
    connection.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 200
    return json.loads(answer.read())


def test_two_starts_at_once_a_kill_and_an_end_while_busy(uds, port):
    with contextlib.ExitStack() as stack:
        both = [stack.enter_context(started(uds, port)) for _ in range(2)]
        wait_until_ready(port)
        end = time.monotonic() + 30
        while all(process.poll() is None for process in both) and time.monotonic() < end:
            time.sleep(0.05)
        (second,) = [process for process in both if process.poll() is not None]
        (first,) = [process for process in both if process is not second]
        line = f"mlx-stella: port {port}: a server of mlx-stella is there; nothing to do\n"
        assert ended(second) == (0, line)
        assert get(port, "/health", "::1") in (200, None)  # None where there is no IPv6
        mode = uds.stat().st_mode & 0o777
        assert mode == 0o600 and uds.parent.stat().st_mode & 0o777 == 0o700
        cut_off = []

        def wait_in_vain() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            try:
                ask(connection, [f"{number} " + "leaves " * 400 for number in range(500)])
            except (OSError, http.client.HTTPException) as error:
                cut_off.append(error)

        busy = [threading.Thread(target=wait_in_vain) for _ in range(2)]
        for thread in busy:
            thread.start()
        time.sleep(0.3)
        first.kill()
        first.wait()
        for thread in busy:
            thread.join()
        assert len(cut_off) == 2 and uds.exists()

        process = stack.enter_context(started(uds, port))
        wait_until_ready(port)
        with socket.socket(socket.AF_UNIX) as channel:
            channel.connect(str(uds))
            connection = http.client.HTTPConnection("localhost")
            connection.sock = channel
            assert len(ask(connection, "x")["data"]) == 1

        answered, begun = [], threading.Semaphore(0)

        def upload(number: int) -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            texts = [f"{number} tea " + "leaves " * 60 for number in range(200)]
            connection.connect()
            begun.release()
            answered.append(len(ask(connection, texts)["data"]))

        threads = [threading.Thread(target=upload, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for _ in threads:
            begun.acquire()
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert answered == [200] * 3
        status, words = ended(process)
        assert status == 0 and words.count("\n") == 1 and "is served at" in words, words
        assert not uds.exists()


def test_a_port_that_another_program_has(uds):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                other.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        with started(uds, port) as process:
            line = f"mlx-stella: port {port}: another program listens there; "
            assert ended(process) == (1, f"{line}remedy: --port, another one\n")


def test_a_model_that_cannot_be_loaded_ends_the_server(tmp_path, uds, port):
    broken = shutil.copytree(MODEL, tmp_path / "broken")
    (weights,) = broken.glob("*.safetensors")
    size = weights.stat().st_size
    with weights.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size - size // 2))  # NaN
    with started(uds, port, model=str(broken)) as process:
        status, words = ended(process)
        assert status == 1 and words.startswith("mlx-stella: ") and words.count("\n") == 1
    with started(uds, port, model="no-such-model") as process:
        status, words = ended(process)
        assert status == 1 and "no-such-model" in words and words.count("\n") == 1


REFUSED = [
    (["--host", "0.0.0.0"], "--api-key"),
    (["--alias", "ada"], "NAME=VALUE"),
    (["--keep-alive", "soon"], "5m"),
    (["--uds", "/proc/no.sock"], "no socket can be there"),
    (["--uds", "/tmp/" + "x" * 200], "no socket can be there"),
    (["--host", "192.0.2.1", "--api-key", "k"], "cannot listen there"),
]


@pytest.mark.parametrize("arguments, words", REFUSED, ids=lambda value: str(value)[:20])
def test_what_cannot_be_served_is_one_line(tmp_path, port, arguments, words):
    from support.commands import fail

    assert words in fail("serve", "--port", str(port), *arguments, cwd=tmp_path, model=MODEL)
