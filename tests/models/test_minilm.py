"""The real all-MiniLM-L6-v2 against torch in float64 (scripts/make_golden.py)."""

import pytest
from support import DTYPES
from support.golden import compare_corpus, compare_lines

from mlx_stella import Encoder, load

pytestmark = pytest.mark.real


@pytest.fixture(scope="module", params=DTYPES)
def minilm(request, minilm_directory) -> Encoder:
    return load(minilm_directory, dtype=request.param)


def test_texts_of_many_kinds(minilm):
    compare_lines(minilm, "minilm_texts.npz", 1e-5)


@pytest.mark.shared
def test_package_descriptions(minilm, shared):
    if minilm.dtype != "float32":
        pytest.skip("half products are slow on a CPU; test_texts_of_many_kinds covers them")
    compare_corpus(minilm, "minilm_debian.npz", shared)
