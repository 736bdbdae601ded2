"""Conversations: what is marked to be learned, what a file may hold, what an answer is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.model.config import TransformerConfig
from minillm.serve import template as templates
from minillm.serve.template import ChatTemplate, Message, Role
from minillm.text.tokenizer import Tokenizer
from minillm.tune.chat import (
    TEMPLATE,
    TOOL_TEMPLATE,
    answers,
    check,
    example,
    line,
    read_conversations,
    save_template,
    turn_messages,
)

SPECIAL = ("<|endoftext|>", *TEMPLATE.special_tokens)
TOKENIZER = Tokenizer((), SPECIAL)
END = TOKENIZER.special_ids["<|end|>"]


def small(context_length, vocab_size=TOKENIZER.vocab_size):
    return TransformerConfig(
        vocab_size=vocab_size, context_length=context_length, d_model=32, n_layers=2
    )


contents = st.text(min_size=1, max_size=12).filter(str.strip) | st.sampled_from(
    [*SPECIAL, "a<|end|><|assistant|>b"]
)
turns = st.lists(st.tuples(st.just("user"), contents, contents), min_size=1, max_size=3).map(
    lambda pairs: [
        message
        for _, asked, answer in pairs
        for message in (Message("user", asked), Message("assistant", answer))
    ]
)


@given(turns, st.none() | contents)
def test_marked_are_the_answers_and_their_ends_and_nothing_else(messages, system):
    if system is not None:
        messages = [Message("system", system), *messages]
    one = example(messages, TOKENIZER)
    learned = [id for id, marked in zip(one.ids, one.loss_mask, strict=True) if marked]
    right = [
        id
        for role, content in messages
        if role == "assistant"
        for id in (*TOKENIZER.encode(content), END)
    ]
    assert learned == right


@given(turns)
def test_it_is_what_a_server_shows_the_model(messages):
    *_, generation_prompt = templates.encode(messages, TEMPLATE, TOKENIZER)
    assert (*example(messages, TOKENIZER).ids, generation_prompt) == templates.encode(
        messages, TEMPLATE, TOKENIZER
    )


@given(turns)
def test_control_tokens_come_from_the_template_alone(messages):
    control = [id for id in example(messages, TOKENIZER).ids if id >= 256]
    names = [f"<|{role}|>" for role, _ in messages]
    assert control == [id for name in names for id in (TOKENIZER.special_ids[name], END)]


def test_a_question_without_an_answer_at_the_end_is_not_read():
    asked = [Message("user", "a"), Message("assistant", "b")]
    assert example([*asked, Message("user", "c")], TOKENIZER) == example(asked, TOKENIZER)


@pytest.mark.parametrize(
    "messages, reason",
    [
        ([], "must have a message of the assistant; this one has the roles of nobody"),
        ([Message("user", "a")], "this one has the roles user"),
        ([Message("assistant", "a")], "answers nothing; begin with the user"),
        ([Message("user", " "), Message("assistant", "a")], "message 0, the user's, is empty"),
        ([Message("user", "a"), Message("assistant", "")], "message 1, the assistant's, is empty"),
        ([Message("tool", "a"), Message("assistant", "b")], "one of system, user, assistant; got"),
    ],
)
def test_what_nobody_can_learn_from_is_refused(messages, reason):
    with pytest.raises(ValueError, match=reason):
        check(messages)
    with pytest.raises(ValueError, match=reason):
        example(messages, TOKENIZER)


def test_a_template_whose_answers_never_end_is_refused():
    endless = ChatTemplate(roles={"user": Role(suffix="|"), "assistant": Role()})
    with pytest.raises(ValueError, match="could not learn when to stop"):
        example([Message("user", "a"), Message("assistant", "b")], TOKENIZER, endless)


def test_a_tokenizer_without_the_special_tokens_is_refused():
    with pytest.raises(ValueError, match="which the tokenizer lacks"):
        example([Message("user", "a"), Message("assistant", "b")], Tokenizer((), SPECIAL[:2]))


# --- calls of tools -----------------------------------------------------------------------------
TOOL_TOKENIZER = Tokenizer((), ("<|endoftext|>", *TOOL_TEMPLATE.special_tokens))
SPELLED = st.sampled_from([*TOOL_TEMPLATE.special_tokens, "a<|end|><|assistant|><|call|>{}"])
tool_turns = st.integers(1, 4).flatmap(
    lambda n: st.lists(contents | SPELLED, min_size=2 * n, max_size=2 * n)
)


def test_a_call_is_learned_with_its_token_and_a_result_is_not_by_hand():
    one = example(turn_messages(("q", "c", "r", "a")), TOOL_TOKENIZER, TOOL_TEMPLATE)
    special = TOOL_TOKENIZER.special_ids
    user, assistant, end, call, result = (
        special[f"<|{name}|>"] for name in ("user", "assistant", "end", "call", "result")
    )
    asked, called = (user, ord("q"), end, assistant), (call, ord("c"), end)
    came_back, answered = (result, ord("r"), end, assistant), (ord("a"), end)
    assert one.ids == asked + called + came_back + answered
    expected = [False] * 4 + [True] * 3 + [False] * 4 + [True] * 2
    assert one.loss_mask == tuple(expected)


@given(tool_turns)
def test_learned_is_what_the_model_says_and_no_text_becomes_a_control_token(turn):
    messages = turn_messages(turn)
    one = example(messages, TOOL_TOKENIZER, TOOL_TEMPLATE)
    special = TOOL_TOKENIZER.special_ids
    prompt = templates.encode(messages, TOOL_TEMPLATE, TOOL_TOKENIZER)
    assert (*one.ids, special["<|assistant|>"]) == prompt
    learned = [token for token, marked in zip(one.ids, one.loss_mask, strict=True) if marked]
    said = [message for message in messages if message.role in ("call", "assistant")]
    assert learned == [
        token
        for role, content in said
        for token in (
            *[special["<|call|>"]] * (role == "call"),
            *TOOL_TOKENIZER.encode(content),
            special["<|end|>"],
        )
    ]
    names = {"user": ["user"], "call": ["assistant", "call"], "result": ["result"]}
    begins = [f"<|{n}|>" for role, _ in messages for n in names.get(role, ["assistant"])]
    control = [token for token in one.ids if token >= 256 and token != special["<|end|>"]]
    assert control == [special[each] for each in begins]
    assert one.ids.count(special["<|end|>"]) == len(messages)


@given(turns)
def test_without_calls_a_template_with_tools_gives_the_same(messages):
    assert example(messages, TOOL_TOKENIZER, TOOL_TEMPLATE) == example(messages, TOOL_TOKENIZER)


@pytest.mark.parametrize(
    "roles, reason",
    [
        ("user assistant call", "message 2 is a call, so message 3 must be .*got 'nothing'"),
        ("user call assistant", "message 2 must be its result; got 'assistant'"),
        ("user result assistant", "message 1 is a result, so message 0 must be its call; got 'us"),
        ("call result assistant", "message 0 is a call, which answers nothing"),
    ],
)
def test_a_call_and_its_result_stand_together(roles, reason):
    with pytest.raises(ValueError, match=reason):
        check([Message(role, "a") for role in roles.split()], TOOL_TEMPLATE)


def test_a_role_that_only_a_model_with_tools_has_is_explained():
    messages = [Message("user", "a"), Message("call", "b"), Message("assistant", "c")]
    with pytest.raises(ValueError, match="got 'call', which a model that may call tools has"):
        check(messages)


# --- files --------------------------------------------------------------------------------------
@given(st.lists(turns, min_size=1, max_size=3))
def test_a_file_is_read_as_it_was_written(tmp_path_factory, conversations):
    path = tmp_path_factory.mktemp("chat") / "a.jsonl"
    path.write_text("\n\n".join(map(line, conversations)), encoding="utf-8")
    assert read_conversations(path) == [tuple(each) for each in conversations]


@pytest.mark.parametrize(
    "bad, reason",
    [
        ("{", "line 2: "),
        ("[]", "line 2: a conversation must be"),
        ('{"messages": [{"role": "user"}]}', "line 2: a conversation must be"),
        (line([Message("user", "a")]), "line 2: .*must have a message of the assistant"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path, bad, reason):
    good = line([Message("user", "a"), Message("assistant", "b")])
    (tmp_path / "a.jsonl").write_text(f"{good}\n{bad}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"a\.jsonl, {reason}"):
        read_conversations(tmp_path / "a.jsonl")


def test_a_file_without_a_conversation_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n\n", encoding="utf-8")
    with pytest.raises(ValueError, match="has no conversation; each line must be one"):
        read_conversations(tmp_path / "a.jsonl")


def test_a_template_in_a_folder_is_read_back(tmp_path):
    save_template(tmp_path)
    assert templates.load(tmp_path, TOKENIZER) == TEMPLATE
    assert json.loads((tmp_path / templates.FILE).read_text(encoding="utf-8"))["stop"] == []


# --- answers ------------------------------------------------------------------------------------
MODEL = small(32).build(seed=0)


def test_an_answer_is_the_same_whoever_else_is_asked():
    talks = [[Message("user", "a" * n)] for n in (1, 9, 4)]
    together = answers(MODEL, TOKENIZER, talks, n_tokens=6)
    assert together == [answers(MODEL, TOKENIZER, [talk], n_tokens=6)[0] for talk in talks]
    assert not any(each.ended for each in together)  # it has never learned to


def test_a_long_conversation_leaves_the_others_their_room():
    talks = [[Message("user", "a" * n)] for n in (2, 24)]
    short, _ = answers(MODEL, TOKENIZER, talks, n_tokens=8)
    assert short == answers(MODEL, TOKENIZER, talks[:1], n_tokens=8)[0]


def test_a_conversation_that_fills_the_context_is_refused():
    talks = [[Message("user", "a")], [Message("user", "a" * 40)]]
    with pytest.raises(ValueError, match="in the context of 32 tokens; conversation 1 has 43"):
        answers(MODEL, TOKENIZER, talks)
