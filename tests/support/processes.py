"""The command line as a user types it: in a process of its own, by its output and exit status."""

import os
import subprocess
import sys
from pathlib import Path

from support import CHECKPOINTS

STELLA = str(CHECKPOINTS / "tiny-stella-1.5b")
COMMAND = Path(sys.executable).parent / "mlx-stella"


def run(*arguments: str, stdin: str | bytes = "", model: str | None = STELLA, cwd=None, **env: str):
    environment = {k: v for k, v in os.environ.items() if k != "MLX_STELLA_MODEL"} | env
    if model is not None:
        environment["MLX_STELLA_MODEL"] = model
    return subprocess.run(
        [COMMAND, *arguments],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        env=environment,
        cwd=cwd,
        timeout=120,
    )


def succeed(*arguments: str, **options) -> str:
    done = run(*arguments, **options)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def fail(*arguments: str, status: int = 1, **options) -> str:
    """The one line a failing command leaves on stderr; nothing of it on stdout."""
    done = run(*arguments, **options)
    error = done.stderr.decode()
    assert done.returncode == status, error
    assert done.stdout == b"" and "Traceback" not in error
    if status == 1:
        assert error.startswith("mlx-stella: ") and error.count("\n") == 1, error
    return error
