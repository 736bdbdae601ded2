import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.serve.template import PLAIN, ChatTemplate, Message, Role, encode, from_object, load
from minillm.serve.template import render as text_of
from minillm.text.tokenizer import Tokenizer

BEGIN, END = "<|im_start|>", "<|im_end|>"
TOKENIZER = Tokenizer(((104, 105), (32, 256)), (BEGIN, END, "<|other|>"))  # hi is 256, ␣hi 257
CHATML = {
    "roles": {
        name: {"prefix": f"{BEGIN}{name}\n", "end": END, "suffix": "\n"}
        for name in ("system", "user", "assistant")
    },
    "generation_prompt": f"{BEGIN}assistant\n",
    "special_tokens": [BEGIN, END],
}
TEMPLATE = from_object(CHATML)
TALK = [Message("system", "Be kind."), Message("user", "hi"), Message("assistant", "hi hi")]
parts = st.sampled_from([*"hi <|_>\n红", BEGIN, END, "<|other|>"])
texts = st.lists(parts, max_size=6).map("".join)
talks = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant"]), texts), min_size=1
)


def bytes_of(text):
    return list(text.encode())


# --- by hand --------------------------------------------------------------------------------------
def test_special_tokens_are_the_templates_and_the_rest_is_text():
    begin, end = TOKENIZER.special_ids[BEGIN], TOKENIZER.special_ids[END]
    ids = encode([Message("user", "hi hi")], TEMPLATE, TOKENIZER)
    question = [begin, *bytes_of("user\n"), 256, 257, end, *bytes_of("\n")]
    assert list(ids) == [*question, begin, *bytes_of("assistant\n")]
    assert TEMPLATE.stop_ids(TOKENIZER) == (end,)


def test_a_message_that_spells_a_special_token_gives_its_letters():
    template = ChatTemplate(
        roles={"user": Role(end=END), "assistant": Role()}, special_tokens=(END,)
    )
    ids = encode([Message("user", f"a{END}")], template, TOKENIZER)
    assert list(ids) == [*bytes_of(f"a{END}"), TOKENIZER.special_ids[END]]


def test_half_a_special_token_in_a_message_meets_its_other_half_in_vain():
    template = ChatTemplate(
        roles={"user": Role(prefix="<|im_", suffix="d|>"), "assistant": Role()},
        special_tokens=(END,),
    )
    assert list(encode([Message("user", "en")], template, TOKENIZER)) == bytes_of(END)


def test_without_a_template_all_that_was_said_is_one_text():
    talk = [Message("user", " Mei waits.\n"), Message("assistant", " Hu comes."), TALK[1]]
    assert text_of(talk, PLAIN) == "Mei waits. Hu comes. hi"
    assert list(encode(talk, PLAIN, TOKENIZER)) == [*bytes_of("Mei waits. Hu comes."), 257]
    assert PLAIN.stop_ids(TOKENIZER) == ()


def test_a_call_begins_with_a_token_that_the_model_writes_itself():
    roles = {"assistant": Role(prefix="A:", end=END), "result": Role()}
    template = ChatTemplate(
        roles={**roles, "call": Role(prefix=f"A:{BEGIN}", end=END)},
        generation_prompt="A:",
        special_tokens=(BEGIN, END),
    )
    assert (template.call_token, TEMPLATE.call_token) == (BEGIN, None)
    for prefix, end in ((BEGIN, END), (f"A:{BEGIN}", None), ("A:", END)):
        with pytest.raises(ValueError, match="one special token as its prefix"):
            replace(template, roles={**roles, "call": Role(prefix=prefix, end=end)})


# --- twin, reference ------------------------------------------------------------------------------
def test_the_ids_are_those_of_the_text_where_no_message_spells_a_special_token():
    every = set(TOKENIZER.special_ids)
    for talk in (TALK, TALK[1:], TALK[:1] * 3):
        ids = TOKENIZER.encode(text_of(talk, TEMPLATE), every)
        assert list(encode(talk, TEMPLATE, TOKENIZER)) == ids


def test_a_talk_reads_as_transformers_writes_it():
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    from minillm.text.fast import to_tokenizers_json

    program = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    theirs = PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(to_tokenizers_json(TOKENIZER)),
        chat_template=program,
    )
    messages = [message._asdict() for message in TALK]
    options = {"add_generation_prompt": True}
    assert text_of(TALK, TEMPLATE) == theirs.apply_chat_template(
        messages, tokenize=False, **options
    )
    ids = theirs.apply_chat_template(messages, return_dict=False, **options)
    assert list(encode(TALK, TEMPLATE, TOKENIZER)) == ids


# --- law ------------------------------------------------------------------------------------------
@given(talks)
def test_no_message_can_command_whatever_it_spells(talk):
    ids = encode(talk, TEMPLATE, TOKENIZER)
    special = [token for token in ids if token in TOKENIZER.special_ids.values()]
    names = {number: name for name, number in TOKENIZER.special_ids.items()}
    assert [names[token] for token in special] == [BEGIN, END] * len(talk) + [BEGIN]
    assert TOKENIZER.decode(ids) == text_of(talk, TEMPLATE)


# --- files and bad input --------------------------------------------------------------------------
def test_a_folder_may_have_a_template_or_none(tmp_path):
    assert load(tmp_path, TOKENIZER) is None
    (tmp_path / "chat_template.json").write_text(json.dumps(CHATML), encoding="utf-8")
    assert load(tmp_path, TOKENIZER) == TEMPLATE


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"roles": {"user": {}}}, 'roles must have "assistant"'),
        ({"roles": ["user"]}, "roles must be an object"),
        ({"roles": {"assistant": {"sufix": "\n"}}}, "roles.assistant has keys that nobody reads"),
        ({"roles": {"assistant": {"prefix": 7}}}, "roles.assistant.prefix must be a text"),
        ({"roles": {"assistant": {"end": "<|bye|>"}}}, "roles.assistant.end must be one of"),
        ({"stop": "User:"}, "stop must be a list of texts"),
        ({"stop": [""]}, "stop must be a list of texts, none empty"),
        ({"trim": "yes"}, "trim must be true or false"),
        ({"special_tokens": [BEGIN, END, "<|no|>"]}, "the tokenizer lacks"),
        ({"chat_template": "{{ messages }}"}, "a program in the Jinja language"),
        ({"bos": 1}, "keys that nobody reads: ['bos']"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path, change, words):
    path = tmp_path / "chat_template.json"
    path.write_text(json.dumps(CHATML | change), encoding="utf-8")
    with pytest.raises(ValueError, match=r"^chat_template\.json: ") as error:
        load(tmp_path, TOKENIZER)
    assert words in str(error.value)


def test_an_unknown_role_and_an_empty_talk_are_refused():
    with pytest.raises(ValueError, match=r"message 0 .* system, user, assistant; got 'tool'"):
        text_of([Message("tool", "7")], TEMPLATE)
    with pytest.raises(ValueError, match="at least one message"):
        encode([], TEMPLATE, TOKENIZER)
