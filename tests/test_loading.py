"""What ``load`` sets before the first product."""

import os

import mlx.core as mx
import pytest
from support import CHECKPOINTS, DTYPES

from mlx_stella import load


@pytest.mark.parametrize("dtype", DTYPES)
def test_float32_products_are_not_rounded_to_tf32_in_any_type(monkeypatch, dtype):
    monkeypatch.delenv("MLX_ENABLE_TF32")
    load(CHECKPOINTS / "tiny-stella-zh-v2", dtype=dtype)
    assert os.environ["MLX_ENABLE_TF32"] == "0"


def test_a_value_of_the_user_stands(monkeypatch):
    monkeypatch.setenv("MLX_ENABLE_TF32", "1")
    load(CHECKPOINTS / "tiny-stella-zh-v2", dtype="float16")
    assert os.environ["MLX_ENABLE_TF32"] == "1"


def test_random_numbers_of_the_caller_go_on_as_they_were():
    mx.random.seed(3)
    expected = mx.random.uniform().item()
    mx.random.seed(3)
    load(CHECKPOINTS / "tiny-stella-zh-v2")
    assert mx.random.uniform().item() == expected
