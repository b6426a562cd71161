"""Text embeddings on Apple silicon: Stella, GTE, NV-Embed and BERT models on MLX.

from mlx_stella import load
model = load("stella-400m")
vectors = model.encode_document(["Green tea is made from unoxidised leaves."])
"""

from importlib import import_module
from typing import TYPE_CHECKING

from mlx_stella.machine import blas

blas.prefer_fast_blas()  # before anything imports mlx.core; see blas.py

from mlx_stella.errors import (  # noqa: E402
    CheckpointError,
    ConfigError,
    HubUnreachableError,
    InputError,
    MemoryLimitError,
    MissingExtraError,
    ModelNotFoundError,
    OutputError,
    StellaError,
    StellaWarning,
    StoreError,
    TextTooLongError,
    VectorError,
    WeightsError,
)

if TYPE_CHECKING:
    from mlx_stella.encoding.encoder import Encoder
    from mlx_stella.encoding.prepared import Prepared
    from mlx_stella.encoding.settings import Settings
    from mlx_stella.loading import load
    from mlx_stella.retrieval.index import Index
    from mlx_stella.retrieval.store import Hit

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "ConfigError",
    "Encoder",
    "Hit",
    "HubUnreachableError",
    "Index",
    "InputError",
    "MemoryLimitError",
    "MissingExtraError",
    "ModelNotFoundError",
    "OutputError",
    "Prepared",
    "Settings",
    "StellaError",
    "StellaWarning",
    "StoreError",
    "TextTooLongError",
    "VectorError",
    "WeightsError",
    "load",
]


_LATE = {
    "Encoder": "mlx_stella.encoding.encoder",
    "Hit": "mlx_stella.retrieval.store",
    "Index": "mlx_stella.retrieval.index",
    "Prepared": "mlx_stella.encoding.prepared",
    "Settings": "mlx_stella.encoding.settings",
    "load": "mlx_stella.loading",
}


def __getattr__(name: str) -> object:
    """Import what needs MLX when it is first asked for: ``--help`` does not need it."""
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATE[name]), name)
