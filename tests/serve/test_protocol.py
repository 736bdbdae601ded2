import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.resources import Completions
from openai.resources.chat.completions import Completions as ChatCompletions

from minillm.serve.protocol import CHAT, COMPLETION, HARMLESS, choice_seed, parse
from minillm.serve.refusal import RequestError
from minillm.serve.template import Message

TEXT = {"model": "m", "prompt": "Mei"}
TALK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}


# --- by hand --------------------------------------------------------------------------------------
def test_what_is_left_out_has_openais_default():
    text, talk = parse(TEXT, chat=False), parse(TALK, chat=True)
    assert text.prompts == ("Mei",)
    assert talk.prompts == ((Message("user", "hi"),),)
    assert (text.n_tokens, talk.n_tokens) == (16, None)
    for call in (text, talk):
        assert (call.config.temperature, call.config.top_p, call.config.top_k) == (1, 1, None)
        assert (call.n, call.stop, call.seed, call.stream, call.schema) == (
            1,
            (),
            None,
            False,
            None,
        )
    nulls = dict.fromkeys(CHAT - {"model", "messages"})
    assert parse(TALK | nulls, chat=True) == talk


def test_every_field_reaches_the_call():
    options = {
        "max_tokens": 9, "temperature": 0.5, "top_p": 0.25, "stop": ["a", "b"], "seed": 7, "n": 3,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    call = parse(TEXT | options | {"logprobs": 2}, chat=False)
    assert (call.n_tokens, call.config.temperature, call.config.top_p) == (9, 0.5, 0.25)
    assert (call.stop, call.seed, call.n, call.stream) == (("a", "b"), 7, 3, True)
    assert (call.include_usage, call.n_logprobs) == (True, 2)
    more = {"logprobs": True, "top_logprobs": 4, "max_completion_tokens": 9}
    assert parse(TALK | options | more, chat=True).n_logprobs == 4
    assert parse(TALK | {"logprobs": True}, chat=True).n_logprobs == 0
    assert parse(TALK | {"logprobs": False}, chat=True).n_logprobs is None
    assert parse(TEXT | {"stop": "end"}, chat=False).stop == ("end",)


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("", ("",)),
        (["a", "b"], ("a", "b")),
        ([7, 3], ((7, 3),)),
        ([[7, 3], [4]], ((7, 3), (4,))),
    ],
)
def test_a_prompt_has_four_forms(prompt, prompts):
    assert parse(TEXT | {"prompt": prompt}, chat=False).prompts == prompts


def test_messages_may_come_in_parts_and_as_the_client_sends_an_answer_back():
    parts = [{"type": "text", "text": "Mei "}, {"type": "text", "text": "waits"}]
    answer = {"role": "assistant", "content": "ok", "refusal": None, "function_call": None}
    messages = [{"role": "developer", "content": "Be kind"}, {"role": "user", "content": parts}]
    call = parse(TALK | {"messages": [*messages, answer]}, chat=True)
    talk = [("system", "Be kind"), ("user", "Mei waits"), ("assistant", "ok")]
    assert [tuple(message) for message in call.prompts[0]] == talk


def test_a_format_is_text_any_object_or_a_schema():
    def schema(content):
        return parse(TALK | {"response_format": content}, chat=True).schema

    assert schema({"type": "text"}) is None
    assert schema({"type": "json_object"}) == {"type": "object"}
    named = {"name": "n", "schema": SCHEMA, "strict": True}
    assert schema({"type": "json_schema", "json_schema": named}) == SCHEMA


def test_tools_reach_the_call_of_a_chat():
    tools = [{"type": "function", "function": {"name": "now"}}]
    call = parse(TALK | {"tools": tools, "tool_choice": "required"}, chat=True)
    assert ([each.name for each in call.tools.functions], call.tools.required) == (["now"], True)
    assert parse(TALK | {"tools": tools, "tool_choice": "none"}, chat=True) == parse(
        TALK, chat=True
    )


def test_seeds_of_several_answers_differ_and_the_first_is_the_requests_own():
    assert len({choice_seed(seed, n) for seed in range(20) for n in range(8)}) == 160
    assert parse(TEXT | {"seed": -1}, chat=False).seed == 2**64 - 1


# --- bad input ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": None}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": ["hi"]}, "messages.0"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages.0.content",
        ),
        ({"messages": [{"role": "user", "content": "a", "name": "Bo"}]}, "messages.0.name"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "0"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": ""}, "stop"),
        ({"seed": 2**63}, "seed"),
        ({"n": 9}, "n"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"more": 1}}, "stream_options"),
        ({"logprobs": 3}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"presence_penalty": 0.1}, "presence_penalty"),
        ({"tools": [{"type": "function"}]}, "tools.0"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"top_k": 3}, "top_k"),
    ],
)
def test_a_field_that_is_wrong_is_named(change, param):
    with pytest.raises(RequestError) as error:
        parse(TALK | change, chat=True)
    assert (error.value.param, error.value.status) == (param, 400)
    assert error.value.as_object()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("prompt", [None, [], 7, ["a", 7], [[]], [True], {"text": "a"}])
def test_a_prompt_of_another_form_is_refused_and_so_is_a_body(prompt):
    with pytest.raises(RequestError, match="prompt must be a text, a list of texts"):
        parse(TEXT | {"prompt": prompt}, chat=False)
    with pytest.raises(RequestError, match="must be a JSON object; got a list"):
        parse([TEXT], chat=False)


def test_what_was_received_is_shown_but_not_at_any_length():
    with pytest.raises(RequestError) as error:
        parse(TEXT | {"stop": ["plum" * 1000] * 5}, chat=False)
    assert len(str(error.value)) < 250


# --- reference, law -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("create", "chat"), [(Completions.create, False), (ChatCompletions.create, True)]
)
def test_no_field_that_openais_client_can_send_is_ignored(create, chat):
    own = {"self", "extra_headers", "extra_query", "extra_body", "timeout"}
    body, known = (TALK, CHAT) if chat else (TEXT, COMPLETION)
    names = set(inspect.signature(create).parameters) - own
    assert known - {"response_format"} <= names
    for name in names:
        odd = body | {name: {"odd": 1}}
        if HARMLESS.get(name, ()) is None:
            assert parse(odd, chat=chat) == parse(body, chat=chat)
            continue
        with pytest.raises(RequestError) as error:
            parse(odd, chat=chat)
        assert error.value.param == name
        for value in HARMLESS.get(name, ()):
            assert parse(body | {name: value}, chat=chat) == parse(body, chat=chat)


leaves = st.none() | st.booleans() | st.integers(-1, 9) | st.floats() | st.text(max_size=2)
values = (
    leaves | st.lists(leaves, max_size=2) | st.dictionaries(st.just("type"), leaves, max_size=1)
)


@given(st.dictionaries(st.sampled_from(sorted(CHAT)), values, max_size=3), st.booleans())
def test_any_body_is_a_call_or_a_refusal(changes, chat):
    body = (TALK if chat else TEXT) | changes
    try:
        parse(body, chat=chat)
    except RequestError as error:
        assert error.param is None or error.param.partition(".")[0] in body
