import json

import jsonschema
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minillm.serve.constrain import json_schema
from minillm.serve.refusal import RequestError
from minillm.serve.tool_calls import (
    AnyText,
    CallOrText,
    Function,
    Offer,
    call_schema,
    call_text,
    offer,
    split_call,
)
from minillm.text.tokenizer import Tokenizer

TOKENIZER = Tokenizer((), ("<|call|>", "<|end|>"))
CALL_ID, END_ID, VOCAB = 256, 257, 258
FRUIT = {"type": "object", "properties": {"fruit": {"enum": ["plum", "红"]}}, "required": ["fruit"]}
SELL, NOW = Function("sell", FRUIT), Function("now", {"type": "object", "properties": {}})
TOOLS = [
    {"type": "function", "function": {"name": "sell", "parameters": FRUIT, "strict": True}},
    {"type": "function", "function": {"name": "now", "description": "The time."}},
]
CALLS = json_schema(call_schema([SELL, NOW]), TOKENIZER, [END_ID], VOCAB)


def allowed(constraint):
    return constraint.allowed().nonzero().flatten().tolist()


# --- by hand --------------------------------------------------------------------------------------
def test_a_choice_says_which_functions_and_whether_one_must_be_called():
    def choice(value):
        return offer({"tools": TOOLS, "tool_choice": value})

    assert choice(None) == choice("auto") == Offer((SELL, NOW))
    assert choice("required") == Offer((SELL, NOW), True)
    assert choice({"type": "function", "function": {"name": "now"}}) == Offer((NOW,), True)
    assert choice("none") == offer({}) == offer({"tools": []}) == Offer()


def test_after_the_call_token_stands_one_of_the_calls():
    auto = CallOrText(CALL_ID, CALLS, AnyText(VOCAB, CALL_ID))
    assert auto.allowed().all()
    text = auto.after(ord("A"))
    assert allowed(text) == [token for token in range(VOCAB) if token != CALL_ID]
    assert text.after(ord("b")) == text
    calls = auto.after(CALL_ID)
    for byte in call_text("sell", {"fruit": "红"}).encode():
        assert calls.allowed()[byte]
        calls = calls.after(byte)
    assert allowed(calls) == [END_ID]
    assert torch.equal(auto.allowed(), auto.allowed())  # a copy each time


def test_a_required_call_can_begin_with_the_call_token_alone():
    required = CallOrText(CALL_ID, CALLS, None)
    assert allowed(required) == [CALL_ID]
    assert allowed(required.after(CALL_ID)) == [ord("{")]
    with pytest.raises(ValueError, match="65 is not allowed"):
        required.after(65)
    with pytest.raises(ValueError, match="256 is not allowed"):
        AnyText(VOCAB, CALL_ID).after(CALL_ID)


def test_a_text_under_a_schema_may_be_a_call_instead():
    number = json_schema({"enum": [7]}, TOKENIZER, [END_ID], VOCAB)
    either = CallOrText(CALL_ID, CALLS, number)
    assert allowed(either) == [ord("7"), CALL_ID]
    assert allowed(either.after(ord("7"))) == [END_ID]


# --- reference, law -------------------------------------------------------------------------------
def test_the_schema_is_one_that_other_readers_know():
    schema = call_schema([SELL, NOW])
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate({"name": "sell", "arguments": {"fruit": "plum"}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"name": "sell", "arguments": {"fruit": "pear"}}, schema)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab"), inner, max_size=2),
)


@given(st.text("ab红_", min_size=1), st.dictionaries(st.text("ab红"), values, max_size=3))
def test_a_call_reads_as_it_was_written_and_no_beginning_of_it_does(name, arguments):
    text = call_text(name, arguments)
    assert split_call(text) == (name, arguments)
    assert json.loads(text) == {"name": name, "arguments": arguments}
    assert {split_call(text[:n]) for n in range(len(text))} == {None}


# --- bad input ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"tools": {"name": "now"}}, "tools"),
        ({"tools": TOOLS * 65}, "tools"),
        ({"tools": [{"type": "custom", "custom": {"name": "now"}}]}, "tools.0"),
        ({"tools": [TOOLS[0] | {"type": "custom"}]}, "tools.0.function.name"),
        ({"tools": [*TOOLS, TOOLS[0]]}, "tools.2.function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
        (
            {"tools": [{"type": "function", "function": {"name": "a", "parameters": []}}]},
            "tools.0.function.parameters",
        ),
        ({"tools": TOOLS, "tool_choice": "always"}, "tool_choice"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "no"}}},
            "tool_choice",
        ),
        ({"tool_choice": "required"}, "tool_choice"),
    ],
)
def test_what_is_wrong_is_named(body, param):
    with pytest.raises(RequestError) as error:
        offer(body)
    assert error.value.param == param


@pytest.mark.parametrize("text", ["", "[]", '{"name": 7, "arguments": {}}', '{"name": "a"}', "7"])
def test_what_is_no_call_is_none(text):
    assert split_call(text) is None
