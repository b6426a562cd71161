"""What a layer asks of a GPU: kernels, and the bytes they move beside those of products.

Read off the graph that MLX is given; nothing is computed. MLX writes compiled functions into an
exported graph operation by operation, and takes ``mx.fast`` apart where the device is a CPU; both
stand there as one primitive while they are counted.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from mlx_stella.models.layers import Backbone
from mlx_stella.models.products import Fused, Product

_VIEWS = frozenset(
    "Broadcast ExpandDims Flatten Reshape Slice Split Squeeze StopGradient Transpose "
    "Unflatten".split()
)
FAST = {
    "layer_norm": "LayerNorm",
    "rms_norm": "RMSNorm",
    "scaled_dot_product_attention": "ScaledDotProductAttention",
}
"""Functions of ``mx.fast`` that the models use, and what they are on a GPU."""

_PRODUCTS = frozenset("AddMM Matmul QuantizedMatmul ScaledDotProductAttention".split())


@dataclass(frozen=True)
class Kernel:
    """A name, and the bytes that it reads and writes; 0 for products and attention."""

    name: str
    bytes: int


def of_layer(backbone: Backbone, hidden_size: int, length: int) -> list[Kernel]:
    """The kernels of a backbone's first layer for one text of ``length`` tokens."""

    def layer(x: mx.array) -> mx.array:
        for step in islice(backbone.steps(length, None), 2):  # attention and MLP
            x = step(x)
        return x

    backbone.steps(length, None).__next__()  # rotary tables are made once, not in every graph
    return of_graph(layer, mx.zeros((1, length, hidden_size)))


def of_graph(function: Callable[[mx.array], mx.array], x: mx.array) -> list[Kernel]:
    """The kernels of a function's graph, in the order in which MLX would run them."""
    parts: list[dict[str, Any]] = []
    mx.eval(x)
    with _each_one_primitive():
        mx.export_function(parts.append, function, x)
    held: dict[str, int] = {}  # bytes in memory: of a view, at most those that it shows
    names: dict[str, str] = {}
    kernels = []
    for part in parts:
        if part["type"] == "inputs":
            held |= {name: _nbytes(shape, dtype) for name, shape, dtype in part["inputs"]}
        elif part["type"] == "constants":
            for name, array in part["constants"]:
                held[name] = array.nbytes
                if array.dtype == mx.uint8 and array.ndim == 1:
                    names[name] = bytes(array.tolist()).decode()
        elif part["type"] == "primitive":
            sizes = {name: _nbytes(shape, dtype) for name, shape, dtype in part["outputs"]}
            inputs = {name for name, _, _ in part["inputs"]}
            if part["name"] in _VIEWS:
                source = sum(held[name] for name in inputs)
                held |= {name: min(size, source) for name, size in sizes.items()}
                continue
            held |= sizes
            if part["name"] == "Depends":  # see one_primitive
                blank, label = (name for name, _, _ in part["inputs"][:2])
                name, inputs = names[label], inputs - {blank, label}
            else:
                name = part["name"]
            moved = sum(held[key] for key in inputs) + sum(sizes.values())
            kernels.append(Kernel(name, 0 if name in _PRODUCTS else moved))
    return kernels


def stand_in(function: str) -> Callable[..., mx.array]:
    """One of :data:`FAST` for graphs: a primitive, an output like the first argument."""
    return lambda x, *others, **options: one_primitive(FAST[function], x, [x, others, options])


def one_primitive(name: str, output: mx.array, inputs: Any) -> mx.array:
    """An array like ``output`` that depends on all arrays in ``inputs`` by one named primitive."""
    # Depends has no name of its own to give; an array of its letters goes first.
    label = mx.array(list(name.encode()), mx.uint8)
    blank = mx.broadcast_to(mx.array(0, output.dtype), output.shape)
    arrays = [value for value in dict(tree_flatten(inputs)).values() if isinstance(value, mx.array)]
    return mx.depends([blank], [label, *arrays])[0]


@contextmanager
def _each_one_primitive() -> Iterator[None]:
    call = Fused.__call__
    fast = {function: getattr(mx.fast, function) for function in FAST}

    def as_one(self: Fused, *arguments: Product | mx.array | None) -> mx.array:
        return one_primitive(self.__name__.strip("_"), call(self, *arguments), arguments)

    Fused.__call__ = as_one  # type: ignore[method-assign]  # until the count is done
    for function in FAST:
        setattr(mx.fast, function, stand_in(function))
    try:
        yield
    finally:
        Fused.__call__ = call  # type: ignore[method-assign]  # what it was
        for function, original in fast.items():
            setattr(mx.fast, function, original)


def _nbytes(shape: tuple[int, ...], dtype: mx.Dtype) -> int:
    return mx.broadcast_to(mx.array(0, dtype), shape).nbytes
