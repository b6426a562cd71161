from hypothesis import given
from hypothesis import strategies as st

from mlx_stella.encoding.batching import plan

lengths_lists = st.lists(st.integers(1, 700), max_size=200)


@given(lengths_lists, st.integers(1, 9000))
def test_each_row_occurs_once_and_no_batch_exceeds_the_budget(lengths, budget):
    batches = plan(lengths, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[row] for row in batch) * len(batch) <= budget


@given(lengths_lists)
def test_batches_beyond_a_small_one_pad_at_most_a_fifth(lengths):
    for batch in plan(lengths, 8192):
        cost = max(lengths[row] for row in batch) * len(batch)
        assert cost <= 512 or sum(lengths[row] for row in batch) >= 0.8 * cost


def test_the_largest_batch_comes_first():
    batches = plan([3, 500, 20, 499, 21], 8192)
    assert batches[0] == [1, 3]
