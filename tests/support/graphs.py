"""The forms that a GPU is given, on Linux: compiled where there is a C++ compiler."""

import io
import re

import mlx.core as mx
import pytest

from mlx_stella.evaluation.kernels import FAST, stand_in
from mlx_stella.models import cpu
from mlx_stella.models.products import Product

_VIEWS = re.compile(
    r"Broadcast|Flatten|Full|Reshape|Slice|Split|Squeeze|Transpose|Unflatten|"
    r"ExpandDims"
)


def use_compiled_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the forms of a GPU from here on, or skip the test where MLX cannot compile them."""
    monkeypatch.setattr(cpu, "is_needed", lambda: False)
    bias = mx.zeros(3)
    if primitives(Product(mx.zeros((2, 3), mx.float16), None, bias).finish()) == ["AsType", "Add"]:
        pytest.skip("MLX compiles nothing here: there is no C++ compiler")


def primitives(output: mx.array) -> list[str]:
    """The primitives of an array's graph as they would be run, views left out."""
    text = io.StringIO()
    mx.export_to_dot(text, output)
    names = re.findall(r'\[label ="(\w+)"', text.getvalue())
    return [name for name in names if not _VIEWS.fullmatch(name)]


def use_one_primitive_for_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """``mx.fast``, which a CPU takes apart, is in graphs what it is on a GPU: one primitive."""
    for function in FAST:
        monkeypatch.setattr(mx.fast, function, stand_in(function))
