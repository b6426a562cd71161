"""A text's vector is the same alone and in company, for every family and dtype."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import DTYPES, TINY, distance, load_tiny

# Lengths around the multiples of 32 at which kernels change, up to 600.
LENGTHS = (1, 2, 7, 31, 32, 33, 63, 64, 96, 127, 128, 129, 255, 256, 257, 320, 511, 512, 513, 600)
# What is compiled are elementwise kernels, which know no lengths: some short ones and a long one.
COMPILED_LENGTHS = (1, 2, 7, 31, 32, 33, 64, 129)

# The same products in other shapes: rounding of the last digit, far below the goldens' tolerance.
COMPANY_TOLERANCES = {"float32": 5e-6, "float16": 1e-3, "bfloat16": 8e-3}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", TINY)
def test_alone_and_in_random_batches(name, dtype, form):
    model = load_tiny(name, dtype)
    rng = np.random.default_rng(sum(map(ord, name + dtype)))
    lengths = COMPILED_LENGTHS if form == "compiled" else LENGTHS
    lengths = [length for length in lengths if length <= model.checkpoint.max_positions]
    rows = [rng.integers(5, 500, size=length).tolist() for length in lengths]
    dims = [model.default_dim]
    alone = [np.array(model._forward([row], 0, dims, True)[0])[0] for row in rows]
    order = rng.permutation(len(rows))
    for company in np.array_split(order, 5):
        together = np.array(model._forward([rows[i] for i in company], 0, dims, True)[0])
        for row, vector in zip(company, together, strict=True):
            assert distance(vector, alone[row]) <= COMPANY_TOLERANCES[dtype], lengths[row]


words = st.lists(st.sampled_from(["a", "deep", "green tea", "é", "🚀", "x" * 40]), max_size=30)


@pytest.mark.parametrize("name", TINY)
@settings(max_examples=12, deadline=None)
@given(st.lists(words.map(" ".join), min_size=1, max_size=8), st.integers(1, 600), st.randoms())
def test_order_and_budget_do_not_matter(name, texts, max_batch_tokens, random):
    model = load_tiny(name)
    alone = np.stack([model.encode(text) for text in texts])
    order = list(range(len(texts)))
    random.shuffle(order)
    shuffled = model.encode([texts[i] for i in order], max_batch_tokens=max_batch_tokens)
    assert distance(shuffled, alone[order]) <= COMPANY_TOLERANCES["float32"]
