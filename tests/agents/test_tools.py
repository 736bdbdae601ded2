import json
import time
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.agents.calculator import calculate
from minillm.agents.tools import (
    Call,
    Result,
    Tool,
    Toolbox,
    converse,
    read_call,
    tool,
    write_with_calls,
)
from minillm.reason.solver import SolverConfig, train
from minillm.serve.schema import schema_grammar
from minillm.serve.template import Message


def find(person: str, relation: Literal["home", "job"] = "home") -> str:
    """Look somebody
    up.

    It is a longer text.

    Args:
        person: whose name
            it is: "Mei".
        relation: which.

    Returns:
        nothing: much.
    """
    return f"{person}'s {relation}"


def wait(seconds: float) -> str:
    """Wait."""
    time.sleep(seconds)
    return "done"


def shout(n: int) -> str:
    """A long text."""
    return "a" * n


def numbers(n: int, up: bool = True) -> list[int]:
    """Some numbers."""
    return [*range(n)] if up else [*range(n)][::-1]


def add(terms: list[int]) -> int:
    """Add."""
    return sum(terms)


def fail(how: Literal["exit", "division", "value", "type"]) -> str:
    """Go wrong."""
    if how == "type":
        return {1}  # type: ignore[return-value]
    raise {"exit": SystemExit(3), "division": ZeroDivisionError("by 0"), "value": ValueError("no")}[
        how
    ]


FIND = {
    "type": "object",
    "properties": {
        "person": {"type": "string", "description": 'whose name it is: "Mei".'},
        "relation": {"type": "string", "enum": ["home", "job"], "description": "which."},
    },
    "required": ["person"],
    "additionalProperties": False,
}
BOX = Toolbox([*map(tool, (calculate, wait, shout, numbers, add, fail, find))], 300, 0.3)


# --- by hand --------------------------------------------------------------------------------------
def test_a_tool_is_what_hints_and_docstring_say():
    assert tool(find) == Tool(
        name="find", description="Look somebody up.", parameters=FIND, function=find
    )


def test_results_by_hand():
    assert BOX.call(Call("calculate", {"expression": "3 * 4"})) == Result("12", True)
    assert BOX.call('{"name": "numbers", "arguments": {"n": 3, "up": false}}').text == "[2,1,0]"
    assert BOX.call(Call("find", {"person": "梅"})).text == "梅's home"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("plums", 'a call must be JSON such as {"name"'),
        ('{"name":"calculate"}', "with these two names"),
        ('{"name":"calculate","arguments":{},"id":3}', "with these two names"),
        ('{"name":"a","name":"b","arguments":{}}', "stands twice"),
        ("[" * 9_000, 'a call must be JSON such as {"name"'),  # nested too deeply for most Pythons
        ("[" * 10_001, "at most 10000 characters; it has 10001"),
        (Call("paint", {}), "there is no tool paint; there are calculate, wait"),
        (Call("find", {}), "find takes person, relation; 'person' is missing"),
        (Call("find", {"person": "Mei", "age": 3}), "got 'age'"),
        (Call("find", {"person": "Mei", "relation": "pet"}), "one of home, job; got 'pet'"),
        (Call("numbers", {"n": True}), "n must be of type integer; got true"),
        (Call("add", {"terms": [1, "2"]}), 'terms[1] must be of type integer; got "2"'),
        (Call("numbers", {"n": 2.5}), "n must be of type integer; got 2.5"),
        (Call("calculate", {"expression": "3 / 0"}), "calculate failed: a number cannot"),
        (Call("fail", {"how": "exit"}), "fail failed: SystemExit: 3"),
        (Call("fail", {"how": "division"}), "fail failed: ZeroDivisionError: by 0"),
        (Call("fail", {"how": "type"}), "fail failed: TypeError"),
        (Call("wait", {"seconds": 2}), "wait was given up after 0.3 seconds"),
    ],
)
def test_what_goes_wrong_is_said_and_not_raised(call, text):
    begin = time.monotonic()
    result = BOX.call(call)
    assert not result.ok
    assert text in result.text
    assert time.monotonic() - begin < 1.5


def test_a_megabyte_is_cut_and_says_so():
    result = BOX.call(Call("shout", {"n": 2**20}))
    assert result == Result(
        "a" * 300 + " … (cut: 1048576 characters, of which 300 are shown)", True
    )


def test_half_a_character_becomes_a_question_mark():
    assert BOX.call(Call("find", {"person": "\ud83d"})).text == "?'s home"


def test_a_conversation_ends_after_so_many_calls():
    asked = [Message("user", "Go on.")]
    again = Message("call", Call("numbers", {"n": 1}).text)
    messages = converse(lambda _: again, asked, BOX, most_calls=2)
    result = Message("result", "[0]")
    assert messages[:-2] == [*asked, again, result, again, result, again]
    assert messages[-2:] == [
        Message("result", "not run: at most 2 calls are allowed"),
        Message("assistant", "(stopped: no answer after 2 calls)"),
    ]
    assert converse(lambda _: Message("assistant", "No."), asked, BOX)[1:] == [
        Message("assistant", "No.")
    ]


# --- a solver that calls ------------------------------------------------------------------------
class Words:
    """Three questions: a call, two calls, none."""

    VOCABULARY = ("_", ".", "[", "]", ";", *"abcdefgh")

    def encode(self, text):
        return [self.VOCABULARY.index(word) for word in text.split()]

    def decode(self, ids):
        return " ".join(self.VOCABULARY[i] for i in ids)


ROWS = [
    ("a", "[ d ]", "e ;", "e ."),
    ("b", "[ d ]", "e ;", "[ f ]", "g ;", "g ."),
    ("c", "h ."),
]


@pytest.fixture(scope="module")
def model():
    config = SolverConfig(d_model=32, n_layers=1, n_tokens=2_500, batch_size=3)
    return train(lambda step: ROWS, config, context_length=16, words=Words())


def test_results_are_put_behind_calls(model):
    calls = []

    def run(call):
        calls.append(call)
        return {"d": "e", "f": "g"}[call]

    texts = write_with_calls(model, ["a", "b", "c"], run, Words(), most_calls=2)
    assert texts == [" ".join(row[1:]) for row in ROWS]
    assert calls == ["d", "d", "f"]
    texts = write_with_calls(model, ["a", "b", "c"], run, Words(), most_calls=1)
    assert texts == ["[ d ] e ; e .", "[ d ] e ; [ f ]", "h ."]


def test_who_has_no_room_left_stays_without_an_answer(model):
    texts = write_with_calls(model, ["a", "c"], lambda _: "e " * 20, Words())
    assert not texts[0].endswith(".")
    assert texts[1] == "h ."


# --- reference ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        (Call("find", {"person": "Mei", "relation": "job"}).text, True),
        (Call("numbers", {"n": 3}).text, True),
        (Call("find", {"person": "Mei", "relation": "pet"}).text, False),
        (Call("add", {"terms": [1, 2]}).text, True),
        (Call("add", {"terms": [1, "2"]}).text, False),
        (Call("paint", {}).text, False),
    ],
)
def test_the_schema_allows_what_the_toolbox_takes(text, allowed):
    assert schema_grammar(BOX.schema()).accepts(text) is allowed
    assert BOX.call(text).ok is allowed


def test_specs_are_those_of_openai():
    spec = BOX.function_specs()[-1]
    assert spec["type"] == "function"
    assert spec["function"] == {
        "name": "find",
        "description": "Look somebody up.",
        "parameters": FIND,
    }
    assert json.dumps(BOX.function_specs())


# --- law ------------------------------------------------------------------------------------------
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
    max_leaves=5,
)


@settings(max_examples=40)
@given(st.text(), st.dictionaries(st.text(), JSON, max_size=3))
def test_a_call_is_read_as_it_was_written(name, arguments):
    assert read_call(Call(name, arguments).text) == Call(name, arguments)


@settings(max_examples=40)
@given(st.sampled_from(["calculate", "numbers", "find"]), st.text() | JSON)
def test_nothing_that_a_model_writes_is_raised(name, value):
    texts = [value] if isinstance(value, str) else []
    for key in ("expression", "person", "n"):
        if not (isinstance(value, int) and value > 99):
            texts.append(Call(name, {key: value}).text)
    for text in texts:
        result = BOX.call(text)
        assert result.text.encode()


# --- bad input ------------------------------------------------------------------------------------
def _no_docstring(n: int) -> str:
    return ""


@pytest.mark.parametrize(
    ("attempt", "match"),
    [
        (lambda: tool(_no_docstring), "needs a docstring"),
        (lambda: tool(schema_grammar), "schema must have the type hint str, int"),
        (lambda: Toolbox([]), "at least one tool"),
        (lambda: Toolbox([tool(find)] * 2), "a name for each"),
        (lambda: converse(lambda _: Message("user", ""), [Message("user", "")], BOX), "got 'user'"),
    ],
)
def test_refusals(attempt, match):
    with pytest.raises(ValueError, match=match):
        attempt()
