"""From a name to a model: find it, open it, choose its type, load it."""

import os
import warnings
from pathlib import Path

import mlx.core as mx

from mlx_stella.checkpoint import hub
from mlx_stella.checkpoint.checkpoint import open_checkpoint
from mlx_stella.checkpoint.origin import Origin
from mlx_stella.checkpoint.weights import DTYPES
from mlx_stella.encoding.encoder import Encoder
from mlx_stella.errors import InputError, ModelNotFoundError, StellaWarning, StoreError
from mlx_stella.machine import blas
from mlx_stella.models.quantized import stays_packed


def load(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    dtype: str | None = None,
    memory_limit: int | None = None,
) -> Encoder:
    """Load a model.

    Args:
        name: an alias ("stella-1.5b"), a Hub id ("NovaSearch/stella_en_1.5B_v5") or a directory.
        revision: branch, tag or commit on the Hub.
        dtype: "float16", "bfloat16" or "float32" for the matrices and the operands of their
            products; everything that is summed or normalised is float32 in any case. None takes
            float16 on a GPU (half the memory of float32, eight times as precise as bfloat16,
            which M1 and M2 only emulate) and float32 on a CPU, where MLX has no fast half products.
            A quantized matrix stays as it is on a GPU, and is expanded to this type on a CPU.
        memory_limit: bytes that weights and batches may take together. Batches are made smaller
            to fit; a text that does not fit alone is an error. MLX's own limit is set to it, too.

    Raises:
        ModelNotFoundError: the name leads to no checkpoint.
        CheckpointError: the checkpoint cannot be used.
        InputError: the dtype is unknown, or the weights exceed the memory limit.
    """
    if dtype is not None and dtype not in tuple(DTYPES):
        raise InputError(f"dtype {dtype!r} is unknown", remedy=f"one of {', '.join(DTYPES)}")
    dtype = dtype or default_dtype()
    # Some GPUs would round operands of float32 to TF32's 10 bits (CUDA, Apple's M5), and attention
    # and Dense heads are float32 whatever the dtype; half products stay as fast as they are. MLX
    # reads this once, before the process's first product; a value set by the user stands.
    os.environ.setdefault("MLX_ENABLE_TF32", "0")
    blas.warn_if_slow()
    source = hub.resolve(name, revision)
    entry = source.entry
    checkpoint = open_checkpoint(source.directory, entry)
    if entry and entry.licence_notice:
        warnings.warn(entry.licence_notice, StellaWarning, stacklevel=2)
    if checkpoint.is_quantized and not stays_packed():
        warnings.warn(
            f"quantized weights are expanded to {dtype}, as MLX has no fast products with them on "
            f"a CPU: {checkpoint.memory_bytes(dtype) / 1e9:.2f} GB",
            StellaWarning,
            stacklevel=2,
        )
    return Encoder(checkpoint, dtype, memory_limit=memory_limit)


def load_recorded(
    name: str,
    made: Origin | None,
    dtype: str | None,
    memory_limit: int | None = None,
    *,
    where: object,
) -> Encoder:
    """Load the model that vectors were made with, at the commit it had then.

    Where that commit is not to be had, what the name leads to now is loaded: its weights may be
    the same, which the fingerprint tells.

    Args:
        name: what to load; the commit is that of the recorded name, and of no other.
        made: the model that is recorded with the vectors; None where there are none yet.
        where: they lie.

    Raises:
        StoreError: it is another model of the Hub, which would have to be fetched first.
        As ``load``.
    """
    is_other = made and made.revision and hub.repo_of(name) != hub.repo_of(made.model)
    if is_other and not hub.is_here(name):
        raise StoreError(
            f"its vectors are of {made}, not of {name}, whose numbers mean other things",
            where=where,
            remedy="that model, or another place",
        )
    if made and made.revision and name == made.model and not Path(name).is_dir():
        try:
            return load(name, revision=made.revision, dtype=dtype, memory_limit=memory_limit)
        except ModelNotFoundError:
            pass
    return load(name, dtype=dtype, memory_limit=memory_limit)


def default_dtype() -> str:
    """The type that suits this machine, see :func:`load`."""
    return "float16" if mx.default_device().type == mx.gpu else "float32"
