"""Values of a table as fields of a dataclass: what is missing, unknown or of another type."""

import json
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.recipes.plain_values import make, plain, renamed


@dataclass(frozen=True, kw_only=True)
class Row:
    name: str
    n_steps: int = 1
    rate: float = 1.0
    dry: bool = False
    files: tuple[str, ...] = ()
    limit: int | None = None


@settings(max_examples=30)
@given(
    st.builds(
        Row,
        name=st.text(),
        n_steps=st.integers(-(2**31), 2**31),
        rate=st.floats(-1e9, 1e9),
        dry=st.booleans(),
        files=st.lists(st.text()).map(tuple),
        limit=st.none() | st.integers(0, 9),
    )
)
def test_what_json_keeps_of_a_dataclass_makes_it_again(row):
    assert make(Row, json.loads(json.dumps(plain(vars(row)))), "row") == row


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (3, r"\[row\] must be a table of names and values; got 3"),
        ({}, r"\[row\] needs 'name'"),
        ({"name": "a", "nme": "b"}, r"\[row\] has no key nme; there are name, n_steps"),
        ({"name": "a", "width": 1}, "width is d_model now"),
        ({"name": "a", "n_steps": True}, "row.n_steps must be a whole number; got True"),
        ({"name": "a", "rate": "high"}, "row.rate must be a number; got 'high'"),
        ({"name": "a", "dry": 1}, "row.dry must be true or false; got 1"),
        ({"name": "a", "files": [1]}, "row.files must be a list of texts"),
        ({"name": "a", "limit": 2**40}, "row.limit must be a finite number of at most"),
        ({"name": 1}, "row.name must be a text; got 1"),
    ],
)
def test_what_a_table_cannot_say_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        make(Row, values, "row")


def test_a_key_that_never_changed_is_not_among_those_that_did():
    assert renamed(["seed"]) == ""
