"""Measure a model on this machine: how fast, in how much memory, and how close to the hardware.

The share of the peak compares the floating-point operations of a forward pass, counted from the
sizes of its products, with the fastest square product measured in the same run and type.
"""

import platform
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import cast

import mlx.core as mx

from mlx_stella.checkpoint.weights import DTYPES
from mlx_stella.encoding.batching import plan
from mlx_stella.encoding.encoder import Encoder
from mlx_stella.encoding.prepared import first_alike
from mlx_stella.encoding.settings import Settings
from mlx_stella.encoding.windows import windows
from mlx_stella.errors import StellaWarning
from mlx_stella.evaluation import kernels
from mlx_stella.models import cpu
from mlx_stella.models.layers import Backbone
from mlx_stella.models.products import Linear

_PEAK_SIZE = 2048  # rows and columns of the square product


@dataclass(frozen=True)
class Measurement:
    """One set of texts, embedded several times.

    Attributes:
        name: what was embedded.
        texts, tokens: of one run, equal texts once, as they are computed; padding not counted.
        padding: share of the computed tokens that were padding.
        seconds: of each run.
        peak_share: of the machine's measured peak in floating-point operations a second.
        peak_memory_bytes: the most that MLX held.
    """

    name: str
    texts: int
    tokens: int
    padding: float
    seconds: tuple[float, ...]
    peak_share: float
    peak_memory_bytes: int

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / statistics.median(self.seconds)

    @property
    def texts_per_second(self) -> float:
        return self.texts / statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Slowest run less fastest run, as a share of the median."""
        return (max(self.seconds) - min(self.seconds)) / statistics.median(self.seconds)


def machine() -> str:
    """A line about where this runs: device, memory, system, versions."""
    info = mx.device_info()
    name = info.get("device_name", platform.processor())
    memory = f", {int(info['memory_size']) / 2**30:.0f} GB" if "memory_size" in info else ""
    device = "GPU" if mx.default_device().type == mx.gpu else "CPU"
    versions = f"Python {platform.python_version()}, MLX {version('mlx')}"
    return f"{name}{memory} ({device}), {platform.system()} {platform.release()}, {versions}"


def peak_flops(dtype: str, runs: int = 5) -> float:
    """Floating-point operations a second of a square product, the fastest of some runs."""
    a, b = (mx.random.normal((_PEAK_SIZE, _PEAK_SIZE)).astype(DTYPES[dtype]) for _ in "ab")
    mx.eval(a, b)
    fastest = min(_time(lambda: mx.eval(a @ b)) for _ in range(runs))
    return 2 * _PEAK_SIZE**3 / fastest


def layer_cost(model: Encoder, length: int) -> dict[str, int] | None:
    """Kernels of the model's first layer on a GPU, and the bytes that they move.

    Returns:
        For a text of ``length`` tokens: "kernels", and "bytes_per_token" read and written beside
        products and attention. None on Linux's CPU, which computes in forms of its own.
    """
    if cpu.is_needed():
        return None
    found = kernels.of_layer(_backbone(model), model.checkpoint.args.hidden_size, length)
    moved = sum(kernel.bytes for kernel in found)
    return {"kernels": len(found), "bytes_per_token": round(moved / length)}


def texts_of_length(model: Encoder, length: int, count: int) -> list[str]:
    """Texts of little more than that many tokens; ``max_length`` cuts them to size."""
    phrase = "light on the water "
    settings = model.settings(max_length=model.checkpoint.max_positions)
    few, many = model.prepare([phrase, phrase * 9], settings).lengths
    repeats = -(-length * 8 // max(1, many - few))
    return [f"{number} " + phrase * repeats for number in range(count)]


def measure(
    model: Encoder,
    name: str,
    texts: Sequence[str],
    peak: float,
    *,
    max_length: int | None = None,
    max_batch_tokens: int | None = None,
    runs: int = 5,
) -> Measurement:
    """Embed the texts once to warm up and then ``runs`` times.

    Raises:
        InputError: as :meth:`Encoder.encode`.
    """
    settings = model.settings(max_length=max_length, max_batch_tokens=max_batch_tokens)

    def run() -> None:
        model.encode(texts, settings=settings)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StellaWarning)
        run()
        mx.reset_peak_memory()
        seconds = tuple(_time(run) for _ in range(runs))
    lengths, padded = _shapes(model, texts, settings)
    return Measurement(
        name=name,
        texts=len(lengths),
        tokens=sum(lengths),
        padding=1 - sum(lengths) / padded,
        seconds=seconds,
        peak_share=_flops(model, lengths) / statistics.median(seconds) / peak,
        peak_memory_bytes=mx.get_peak_memory(),
    )


def _shapes(model: Encoder, texts: Sequence[str], settings: Settings) -> tuple[list[int], int]:
    """Tokens of each text that is computed, and those computed for all, padding included."""
    lengths, padded = [], 0
    for _, rows in windows(texts):
        prepared = model.prepare(rows, settings)
        window = [prepared.lengths[row] for row in sorted(set(first_alike(prepared.ids)))]
        lengths += window
        padded += sum(window[batch[0]] * len(batch) for batch in plan(window, settings.budget))
    return lengths, padded


def _flops(model: Encoder, lengths: Sequence[int]) -> int:
    """Operations for texts of these lengths: two a weight and token, and those of attention."""
    args = model.checkpoint.args
    products = [module for module in _backbone(model).modules() if isinstance(module, Linear)]
    weights = sum(rows.size for product in products for rows in product.rows())
    attention = 4 * args.hidden_size * args.num_hidden_layers
    return sum(length * (2 * weights + attention * length) for length in lengths)


def _backbone(model: Encoder) -> Backbone:
    return cast(Backbone, model._backbone)  # not one that is streamed: `load` made it


def _time(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
