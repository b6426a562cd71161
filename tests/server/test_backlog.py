"""Who goes next: each text once, within its batch, within bounds, in turns; nobody starves."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("orjson")

from mlx_stella.encoding.batching import plan
from mlx_stella.server.backlog import PATIENCE, Backlog, BacklogFullError, Waiting

BUDGET = 64
MOST = 10**6


def request(lengths=(5,), client="a", group="g", interactive=True, size_bytes=1) -> Waiting:
    return Waiting(
        group=group,
        client=client,
        is_interactive=interactive,
        lengths=lengths,
        size_bytes=size_bytes,
        budget=BUDGET,
    )


requests = st.builds(
    request,
    lengths=st.lists(st.integers(1, 100), min_size=1, max_size=30),
    client=st.sampled_from("abc"),
    group=st.sampled_from("gh"),
    interactive=st.booleans(),
    size_bytes=st.integers(1, 100),
)
steps = st.lists(st.one_of(requests, st.just("take"), st.just("drop")), max_size=60)


def check_batch(taken, batches) -> None:
    assert len({waiting.group for waiting, _ in taken}) == 1
    assert len({waiting.is_interactive for waiting, _ in taken}) == 1
    lengths = [waiting.lengths[row] for waiting, rows in taken for row in rows]
    planned = plan(lengths, BUDGET)
    assert len(planned) <= batches
    for batch in planned:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= BUDGET


@settings(deadline=None)
@given(steps, st.integers(1, 3))
def test_each_text_is_taken_once_and_what_waits_is_what_is_counted(steps, batches):
    backlog = Backlog(MOST, MOST)
    waiting, taken, dropped = [], {}, set()

    def take() -> bool:
        found = backlog.take(batches)
        if found:
            check_batch(found, batches)
        for one, rows in found:
            assert one not in dropped
            taken.setdefault(one, []).extend(rows)
        return bool(found)

    for step in steps:
        if step == "take":
            take()
        elif step == "drop":
            if waiting:
                dropped.add(waiting[0])
                backlog.drop(waiting.pop(0))
        else:
            backlog.add(step)
            waiting.append(step)
        left = [one for one in waiting if one.rows]
        assert backlog.tokens == sum(one.tokens for one in left)
        assert backlog.size_bytes == sum(one.size_bytes for one in left)
    while take():
        pass
    assert not backlog and backlog.tokens == backlog.size_bytes == 0
    for one in waiting:
        assert sorted(taken[one]) == list(range(len(one.lengths)))


@settings(deadline=None)
@given(st.lists(requests, min_size=1, max_size=20), st.integers(1, 300), st.integers(1, 300))
def test_the_bounds_hold(given, most_tokens, most_bytes):
    backlog = Backlog(most_tokens, most_bytes)
    for one in given:
        before = backlog.tokens, backlog.size_bytes
        try:
            backlog.add(one)
        except BacklogFullError:
            assert (backlog.tokens, backlog.size_bytes) == before
            over = before[0] + one.tokens > most_tokens
            assert over or before[1] + one.size_bytes > most_bytes
        assert backlog.tokens <= most_tokens and backlog.size_bytes <= most_bytes


@pytest.mark.parametrize("client", ["a", "d"])  # the program that uploads, or another
def test_a_question_is_in_the_next_batch_however_much_bulk_there_is(client):
    backlog = Backlog(MOST, MOST)
    for uploading in "abc":
        backlog.add(request([20] * 500, uploading, interactive=False))
    backlog.take()
    question = request(client=client)
    backlog.add(question)
    assert backlog.take() == [(question, [0])]


def test_a_question_is_in_the_next_batch_however_many_another_client_asks():
    backlog = Backlog(MOST, MOST)
    for _ in range(1000):
        backlog.add(request([20], "upload"))
    backlog.take()
    question = request([20], "person")
    backlog.add(question)
    backlog.take()
    assert not question.rows


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 40))
def test_bulk_is_passed_over_so_often_and_no_more(clients, texts):
    backlog = Backlog(MOST, MOST)
    bulk = request([10] * texts, "bulk", interactive=False)
    backlog.add(bulk)
    for turn in range((PATIENCE + 1) * texts):
        for client in range(clients):
            backlog.add(request([BUDGET], str(client)))
        backlog.take()
        assert len(bulk.rows) <= texts - (turn + 1) // (PATIENCE + 1)
    assert not bulk.rows


@settings(deadline=None)
@given(st.lists(requests, min_size=1, max_size=30))
def test_no_client_is_passed_over_by_one_that_has_had_its_turn(given):
    """Of those who wait for the same, whoever was served last is served last again."""
    backlog = Backlog(MOST, MOST)
    for one in given:
        one.group, one.is_interactive = "g", True
        backlog.add(one)
    clients = {one.client for one in given}
    seen = set()
    while len(seen) < len(clients):
        waiting = {one.client for one in given if one.rows}
        served = [one.client for one, _ in backlog.take()]
        fresh = waiting - seen
        assert served[0] in fresh
        seen |= set(served)


def test_the_longest_texts_of_a_request_go_first_so_that_little_is_padded():
    backlog = Backlog(MOST, MOST)
    one = request([3, 30, 4, 29, 5, 31])
    backlog.add(one)
    assert backlog.take() == [(one, [5, 1])]
