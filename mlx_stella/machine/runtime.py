"""Where a running server of this user is found by the user's other programs."""

import os
import sys
from pathlib import Path

DEFAULT_PORT = 7835
"""None that a server of models, a web framework or macOS itself takes by default."""


def socket_path() -> Path:
    """The Unix socket of the server that the command line asks, whether there is one or not.

    $MLX_STELLA_SOCKET; else in the folder that the system clears when the user leaves, where there
    is such a one, else in the user's cache.
    """
    if told := os.environ.get("MLX_STELLA_SOCKET"):
        return Path(told)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isabs(runtime) and sys.platform != "darwin":
        return Path(runtime, "mlx-stella", "serve.sock")
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/mlx-stella/serve.sock"
    cache = os.environ.get("XDG_CACHE_HOME")
    folder = Path(cache) if cache and os.path.isabs(cache) else Path.home() / ".cache"
    return folder / "mlx-stella" / "serve.sock"
