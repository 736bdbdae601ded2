import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.serve.protocol import Call, choice_seed
from minillm.serve.refusal import RequestError
from minillm.serve.served_model import NOT_TUNED, ServedModel
from minillm.serve.template import ChatTemplate, Message, Role
from minillm.serve.tool_calls import Function, Offer
from minillm.text.fast import to_tokenizers_json
from minillm.text.tokenizer import Tokenizer

END = "<|end|>"
TOKENIZER = JsonTokenizer(json.loads(to_tokenizers_json(Tokenizer(((104, 105),), (END,)))))
END_ID = TOKENIZER.special_ids[END]
TEMPLATE = ChatTemplate(
    roles={"user": Role(suffix="|"), "assistant": Role(end=END)},
    special_tokens=(END,),
    stop=("user:",),
)
PLAIN = ServedModel(
    name="m", tokenizer=TOKENIZER, context_length=10, vocab_size=260, suppress_tokens=(258, 259)
)
TUNED = replace(PLAIN, chat_template=TEMPLATE, stop_ids=(3,), about="A toy.")
SPECIAL = (END, "<|call|>")
TOOLS = replace(
    PLAIN,
    tokenizer=JsonTokenizer(json.loads(to_tokenizers_json(Tokenizer(((104, 105),), SPECIAL)))),
    context_length=200,
    suppress_tokens=(),
    chat_template=ChatTemplate(
        roles={
            "user": Role(end=END),
            "assistant": Role(end=END),
            "call": Role(prefix="<|call|>", end=END),
            "result": Role(end=END),
        },
        special_tokens=SPECIAL,
    ),
)
SPECIAL_IDS = TOOLS.tokenizer.special_ids.values()
CALL = TOOLS.tokenizer.special_ids["<|call|>"]
NOW = Function("now", {"type": "object", "properties": {}})
TEXT = Call(chat=False, model="m", prompts=("hi",), n_tokens=4, seed=5)
TALK = Call(chat=True, model="m", prompts=((Message("user", "hi"),),), seed=5)


def refused(served, call):
    with pytest.raises(RequestError) as error:
        served.requests(call)
    return str(error.value), error.value.param


def test_a_text_is_ordinary_text_and_ids_are_as_they_are():
    call = replace(TEXT, prompts=("hi", "<|e", (END_ID, 256)))
    prompts = [request.prompt for request in PLAIN.requests(call)]
    assert prompts == [(256,), tuple(b"<|e"), (END_ID, 256)]
    long = replace(PLAIN, context_length=99)
    assert END_ID not in long.requests(replace(TEXT, prompts=(END,)))[0].prompt


def test_a_text_begins_with_what_begins_every_text():
    class Begins:
        special_ids, begin_ids = {END: END_ID}, (END_ID,)

        def encode(self, text, allowed_special=()):
            return [END_ID, 7] if text == "begun" else [7]

    served = replace(PLAIN, tokenizer=Begins())
    for text in ("new", "begun"):
        assert served.requests(replace(TEXT, prompts=(text,)))[0].prompt == (END_ID, 7)


def test_each_prompt_has_its_n_answers_whose_seeds_differ():
    requests = PLAIN.requests(replace(TEXT, prompts=("hi", "h"), n=2))
    seeds = [choice_seed(5, 0), choice_seed(5, 1)]
    assert [(r.prompt, r.seed) for r in requests] == [
        (prompt, seed) for prompt in ((256,), (104,)) for seed in seeds
    ]
    drawn = [PLAIN.requests(replace(TEXT, seed=None))[0].seed for _ in range(2)]
    assert drawn[0] != drawn[1]


def test_a_chat_ends_with_the_models_end_the_templates_and_the_clients():
    (request,) = TUNED.requests(replace(TALK, stop=("x",)))
    assert (request.prompt, request.n_tokens) == ((256, ord("|")), 8)
    assert (request.stop_ids, request.stop) == ((3, END_ID), ("x", "user:"))
    assert request.config.suppress_tokens == (258, 259)
    (request,) = TUNED.requests(TEXT)
    assert (request.stop_ids, request.stop, request.n_tokens) == ((3,), (), 4)


def test_what_it_is_says_whether_it_was_tuned_for_chat():
    assert PLAIN.description == NOT_TUNED
    assert TUNED.description == "A toy."
    assert (PLAIN.as_object()["chat_tuned"], TUNED.as_object()["chat_tuned"]) == (False, True)


def test_a_schema_is_kept_to_and_ends_with_the_end_token():
    served = replace(PLAIN, stop_ids=(END_ID,))
    (request,) = served.requests(replace(TEXT, schema={"enum": [7]}))
    assert request.constraint.allowed().nonzero().flatten().tolist() == [ord("7")]
    after = request.constraint.after(ord("7"))
    assert after.allowed().nonzero().flatten().tolist() == [END_ID]


# --- tools ----------------------------------------------------------------------------------------
def test_tools_let_an_answer_be_a_call_and_without_them_it_is_text():
    assert (TOOLS.call_id, TUNED.call_id, PLAIN.call_id) == (CALL, None, None)
    assert TOOLS.as_object()["calls_tools"]
    offers = replace(TALK, tools=Offer((NOW,)))
    (request,) = TOOLS.requests(offers)
    assert CALL not in request.config.suppress_tokens
    assert request.constraint.allowed().all()
    assert not request.constraint.after(ord("{")).allowed()[CALL]
    calls = request.constraint.after(CALL)
    for byte in b'{"name":"now","arguments":{}}':
        calls = calls.after(byte)
    assert calls.allowed().nonzero().flatten().tolist() == [END_ID]
    (request,) = TOOLS.requests(TALK)
    assert (request.constraint, request.config.suppress_tokens) == (None, (CALL,))


def test_a_required_call_has_no_other_first_token_and_a_schema_rules_what_is_no_call():
    must = replace(TALK, tools=Offer((NOW,), True), schema={"enum": [7]})
    (request,) = TOOLS.requests(must)
    assert request.constraint.allowed().nonzero().flatten().tolist() == [CALL]
    may = replace(must, tools=Offer((NOW,)))
    (request,) = TOOLS.requests(may)
    assert request.constraint.allowed().nonzero().flatten().tolist() == [ord("7"), CALL]
    assert request.constraint.after(ord("7")).allowed().nonzero().flatten().tolist() == [END_ID]


@given(st.lists(st.sampled_from([*SPECIAL, "hi", "红"]), max_size=5).map("".join))
def test_what_a_result_spells_is_never_a_special_token(text):
    talk = (Message("user", "hi"), Message("call", text), Message("result", text))
    (request,) = TOOLS.requests(replace(TALK, prompts=(talk,)))
    special = [token for token in request.prompt if token in SPECIAL_IDS]
    assert special == [END_ID, CALL, END_ID, END_ID]
    ids = TOOLS.tokenizer.encode(text)
    assert list(request.prompt[-len(ids) - 1 : -1]) == ids


def test_what_does_not_fit_is_refused_with_the_numbers():
    message, param = refused(PLAIN, replace(TEXT, prompts=("h" * 7,)))
    assert "up to 10 tokens together; the prompt has 7, and 4 more are asked for" in message
    assert ("at most 3" in message, param) == (True, "prompt")
    assert (
        "has 10. Shorten it" in refused(PLAIN, replace(TEXT, prompts=("h" * 10,), n_tokens=None))[0]
    )


@pytest.mark.parametrize(
    ("call", "words", "param"),
    [
        (replace(TEXT, prompts=("",)), "the prompt is empty", "prompt"),
        (replace(TEXT, prompts=("\ud800",)), "surrogate", "prompt"),
        (replace(TALK, prompts=((Message("tool", "7"),),)), "got 'tool'", "messages"),
        (replace(TEXT, schema={"pattern": "a"}), "pattern", "response_format"),
        (replace(TALK, tools=Offer((NOW,))), "no roles call and result", "tools"),
    ],
)
def test_what_cannot_be_is_refused_with_the_field(call, words, param):
    message, named = refused(TUNED, call)
    assert words in message
    assert named == param


def test_another_model_is_not_here():
    with pytest.raises(RequestError, match="this server has 'm'") as error:
        PLAIN.check_name("gpt")
    assert (error.value.status, error.value.code) == (404, "model_not_found")
    with pytest.raises(ValueError, match="needs a name"):
        replace(PLAIN, name="")
