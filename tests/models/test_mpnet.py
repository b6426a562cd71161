"""The real all-mpnet-base-v2 against sentence-transformers in float64 (scripts/make_golden.py)."""

import pytest
from support import DTYPES, TOLERANCES
from support.golden import compare_corpus, compare_lines

from mlx_stella import Encoder, load

pytestmark = pytest.mark.real


@pytest.fixture(scope="module", params=DTYPES)
def mpnet(request, mpnet_directory) -> Encoder:
    return load(mpnet_directory, dtype=request.param)


def test_texts_of_many_kinds(mpnet):
    """In half types, which are slow on a CPU, the first of them."""
    count = None if mpnet.dtype == "float32" else 8
    compare_lines(mpnet, "mpnet_texts.npz", TOLERANCES["float32"], count)


@pytest.mark.shared
def test_package_descriptions(mpnet, shared):
    if mpnet.dtype != "float32":
        pytest.skip("half products are slow on a CPU; test_texts_of_many_kinds covers them")
    compare_corpus(mpnet, "mpnet_debian.npz", shared)
