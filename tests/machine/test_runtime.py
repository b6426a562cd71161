"""Where a running server is found: a folder of the user's own, whatever the environment says."""

import sys
from pathlib import Path

import pytest

from mlx_stella.machine import runtime


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_the_socket_lies_in_a_folder_of_the_users(monkeypatch, tmp_path, system):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for name in ("MLX_STELLA_SOCKET", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    folder = {"linux": ".cache", "darwin": "Library/Caches"}[system]
    default = tmp_path / folder / "mlx-stella/serve.sock"
    assert runtime.socket_path() == default
    monkeypatch.setenv("XDG_RUNTIME_DIR", "relative")
    assert runtime.socket_path() == default
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    expected = Path("/run/user/1000/mlx-stella/serve.sock") if system == "linux" else default
    assert runtime.socket_path() == expected
