"""A server in a process of its own, as a user starts it, for all tests that only talk to it."""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import CHECKPOINTS
from support.processes import COMMAND

TINY = "tiny-stella-400m"


@dataclass(frozen=True)
class Running:
    """Where it is, and what it serves."""

    url: str
    model: str
    socket: Path

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])


@pytest.fixture(scope="session")
def running() -> Iterator[Running]:
    pytest.importorskip("fastapi")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a socket's path has 104 bytes
        socket = Path(folder, "s")
        words = ["serve", "--model", str(CHECKPOINTS / TINY), "--port", "0", "--uds", str(socket)]
        words += ["--dtype", "float32", "--alias", f"text-embedding-ada-002={TINY}"]
        process = subprocess.Popen([COMMAND, *words], stderr=subprocess.PIPE, text=True)
        try:
            heard = []
            for line in process.stderr:
                heard.append(line)
                if found := re.search(r"served at (http://127\.0\.0\.1:\d+)", line):
                    break
            else:
                pytest.fail("".join(heard))
            yield Running(found[1], TINY, socket)
        finally:
            process.terminate()
            assert process.wait(60) in (0, -15, 143), process.stderr.read()
