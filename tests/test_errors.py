"""Errors carry their parts; the text is made of them in one place."""

import copy
import pickle

import pytest

from mlx_stella import InputError, StellaError, StoreError, VectorError


@pytest.mark.parametrize(
    "error, text",
    [
        (StellaError("gone"), "gone"),
        (InputError("empty", remedy="ask something"), "empty; remedy: ask something"),
        (StoreError("no index", where="a.index"), "a.index: no index"),
        (VectorError("not finite", row=3), "text 3: not finite"),
        (
            InputError("not JSON", where="a.jsonl", row=0, remedy="mend it"),
            "a.jsonl: text 0: not JSON; remedy: mend it",
        ),
    ],
)
def test_the_text_is_made_of_the_parts(error, text):
    assert str(error) == text
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert (type(other), str(other)) == (type(error), text)


def test_a_place_within_another():
    inner = InputError("not CSV", where="line 3", remedy="mend it")
    outer = inner.within("a.csv")
    assert type(outer) is InputError
    assert str(outer) == "a.csv: line 3: not CSV; remedy: mend it"
    assert outer.reason == "not CSV; remedy: mend it"
    assert str(InputError("empty", row=2).within("a.txt")) == "a.txt: text 2: empty"
