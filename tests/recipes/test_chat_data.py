"""Conversations that a recipe reads: parts, what is refused, and text that stays text."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.recipes import chat_data
from minillm.recipes.chat_data import AgentData, ChatData, Named, RequestData, StepsData, ToolData
from minillm.recipes.data import LifeData
from minillm.serve.template import Message
from minillm.town import requests
from minillm.town.market import read_answer
from minillm.town.requests import HELD_OUT, RequestSource
from minillm.town.world import World
from minillm.tune.chat import TEMPLATE, TOOL_TEMPLATE, check
from tests.recipes.tiny_parent import TOKENIZER

PAIR = [{"role": "user", "content": "Mei?"}, {"role": "assistant", "content": "A baker."}]


def written(folder, *conversations):
    file = folder / "chats.jsonl"
    lines = [json.dumps({"messages": each}) for each in conversations]
    file.write_text("\n".join(lines), encoding="utf-8")
    return str(file)


# --- files ---------------------------------------------------------------------------------------
def test_the_last_share_is_held_out_and_nothing_is_lost(tmp_path):
    turns = [[PAIR[0], PAIR[1] | {"content": str(n)}] for n in range(8)]
    data = ChatData(files=(written(tmp_path, *turns),), held_out=0.25)
    parts = [data.conversations(part, TEMPLATE) for part in ("train", "held out")]
    assert [[each.messages[1].content for each in part] for part in parts] == [
        ["0", "1", "2", "3", "4", "5"],
        ["6", "7"],
    ]
    assert parts[1][0].place.endswith("chats.jsonl, conversation 7")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([PAIR[0]], "line 2: .*must have a message of the assistant"),
        ([PAIR[0] | {"content": " "}, PAIR[1]], "line 2: message 0, the user's, is empty"),
        ([PAIR[0] | {"role": "owner"}, PAIR[1]], "line 2: the role of message 0 must be one of"),
        ([{"role": "user"}, PAIR[1]], 'line 2: a conversation must be {"messages"'),
    ],
)
def test_a_bad_line_is_named_by_its_file_and_number(tmp_path, bad, message):
    data = ChatData(files=(written(tmp_path, PAIR, bad),))
    with pytest.raises(ValueError, match=r"chats\.jsonl, " + message):
        data.conversations("train", TEMPLATE)


def test_one_conversation_cannot_be_both_parts(tmp_path):
    with pytest.raises(ValueError, match=r"at least 2 conversations, .*chats\.jsonl has 1"):
        ChatData(files=(written(tmp_path, PAIR),)).conversations("train", TEMPLATE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ChatData(), "conversations must be in files, a list"),
        (lambda: ChatData(files="a.jsonl"), "a list such as .*got files = 'a.jsonl'"),
        (lambda: ChatData(files=("a",), held_out=1), "share between 0 and 1; got 1"),
        (lambda: RequestData(request_blocks=0), "request_blocks and held_out_blocks must be at"),
        (lambda: RequestData(letter_blocks=-1), "letter_blocks at least 0; got 100, 2 and -1"),
        (lambda: StepsData(letter_blocks=-1), "letter_blocks at least 0; got 100, 2 and -1"),
        (lambda: StepsData(problem_blocks=0), "problem_blocks must be at least 1 .*got 0 and 10"),
        (lambda: StepsData(replay_blocks=-1), "replay_blocks at least 0; got 100 and -1"),
        (lambda: ToolData(request_blocks=0), "request_blocks and held_out_blocks must be at"),
        (lambda: ToolData(sum_blocks=0), "sum_blocks and look_up_blocks must be .*got 0, 100 and"),
    ],
)
def test_what_the_data_cannot_be_is_said(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_conversation_beyond_the_context_is_named_with_its_tokens():
    messages = (Message("user", "Mei?"), Message("assistant", "ab" * 40))
    long = Named("chats.jsonl, conversation 3", messages)
    with pytest.raises(ValueError, match=r"chats\.jsonl, conversation 3 has \d+ tokens, .* of 32"):
        chat_data.examples([long], TEMPLATE, TOKENIZER, 32)
    [whole] = chat_data.examples([long], TEMPLATE, TOKENIZER, 300)
    n_tokens = len(whole.ids)
    assert chat_data.examples([long], TEMPLATE, TOKENIZER, n_tokens - 1) == [whole]
    with pytest.raises(ValueError, match=f"has {n_tokens} tokens"):
        chat_data.examples([long], TEMPLATE, TOKENIZER, n_tokens - 2)


def test_a_conversation_that_nobody_can_learn_from_is_named():
    with pytest.raises(ValueError, match=r"request 3: .*must have a message of the assistant"):
        chat_data.examples([Named("request 3", (Message("user", "?"),))], TEMPLATE, TOKENIZER, 32)


# --- requests ------------------------------------------------------------------------------------
def turns(every):
    """Where it comes from, what is asked and what is answered, of each turn."""
    for place, messages in every:
        for name, asks, answers in zip(
            place.split(", "), messages[::2], messages[1::2], strict=True
        ):
            assert (asks.role, answers.role) == ("user", "assistant")
            yield name, asks.content, answers.content


def test_requests_come_with_their_right_answers_and_letters_with_their_replies():
    data = RequestData(request_blocks=1, letter_blocks=1, held_out_blocks=1)
    every = data.conversations("train", TEMPLATE)
    assert {len(messages) for _, messages in every} == {2, 4, 6}
    answers = {asks: answer for name, asks, answer in turns(every) if name != "letter"}
    for language in ("en", "zh"):
        for request in RequestSource(World(), language).block(0, "train"):
            assert requests.grade(request, answers.pop(request.text)).right
            assert request.combination not in HELD_OUT
    assert not answers


def test_letters_have_the_same_share_of_both_parts():
    data = RequestData(request_blocks=8, letter_blocks=1, held_out_blocks=2, languages=("en",))
    for part, n_blocks in (("train", 8), ("held out", 2)):
        names = [name for name, _, _ in turns(data.conversations(part, TEMPLATE))]
        assert names.count("letter") == 8 * n_blocks and len(names) == 72 * n_blocks


def test_what_is_held_out_is_no_text_that_is_trained_on():
    data = RequestData(request_blocks=2, letter_blocks=1, held_out_blocks=1)
    train, held_out = (
        {each.messages for each in data.conversations(part, TEMPLATE)}
        for part in ("train", "held out")
    )
    assert len(held_out - train) > 0.9 * len(held_out)


# --- problems, and texts that are read again -----------------------------------------------------
SMALL = StepsData(
    problem_blocks=1, request_blocks=1, letter_blocks=0, replay_blocks=1, held_out_blocks=1
)


def test_problems_come_half_with_the_trigger_and_steps_and_half_without():
    every = list(turns(SMALL.conversations("train", TEMPLATE)))
    kinds = Counter(name.split(" 0")[0] for name, _, _ in every)
    assert kinds == {"request": 128, "problem": 128, "problem with steps": 128}
    for name, asks, answer in every:
        has_trigger = asks.endswith(("Let's think step by step.", "请一步一步地思考。"))
        assert has_trigger == (name == "problem with steps")
        assert answer.startswith(("Steps: ", "步骤：")) == has_trigger
        assert name.startswith("request") or read_answer(answer) is not None
    asked = {name: {asks[:30] for kind, asks, _ in every if kind == name} for name in kinds}
    assert len(asked["problem"] & asked["problem with steps"]) < 32  # other problems


def test_requests_are_those_of_the_requests_alone_and_what_is_held_out_has_the_same_shares():
    data = StepsData(problem_blocks=2, request_blocks=4, letter_blocks=1, languages=("en",))
    alone = RequestData(request_blocks=4, letter_blocks=1, languages=("en",))
    for part, n_blocks in (("train", 4), ("held out", 2)):
        every = list(turns(data.conversations(part, TEMPLATE)))
        requested = [each for each in every if not each[0].startswith("problem")]
        assert sorted(requested) == sorted(turns(alone.conversations(part, TEMPLATE)))
        assert len(every) - len(requested) == 64 * n_blocks


def test_texts_of_the_base_are_read_again_as_they_were():
    replay = StepsData(request_blocks=20, replay_blocks=1, languages=("en",))
    kinds = ("story", "fact", "market", "worked", "list", "letter")
    base = LifeData(**{f"{kind}_blocks": 2 for kind in kinds}, languages=("en",))
    for part in ("train", "held out"):
        texts = replay.texts(part)
        assert len(texts) == 64 * len(kinds)
        assert {*texts} <= {*base.documents(part)}
    assert StepsData(replay_blocks=0).texts("train") == []


def test_of_a_text_every_token_is_learned_and_it_is_cut_at_the_context():
    end_id = TOKENIZER.special_ids["<|endoftext|>"]
    ids = TOKENIZER.encode("Mei sells red plums.")
    whole, cut = (
        chat_data.text_examples(["Mei sells red plums."], TOKENIZER, end_id, length)[0]
        for length in (len(ids) + 1, 4)
    )
    assert whole.ids == (end_id, *ids, end_id)
    assert cut.ids == whole.ids[:5]
    assert cut.loss_mask == (False, True, True, True, True)


# --- tools ---------------------------------------------------------------------------------------
def test_questions_for_tools_stand_beside_requests_and_few_calls_are_in_a_conversation():
    data = ToolData(
        sum_blocks=2, look_up_blocks=4, request_blocks=2, letter_blocks=0, held_out_blocks=1,
        languages=("en",),
    )  # fmt: skip
    for part, n_blocks in (("train", 2), ("held out", 1)):
        every = data.conversations(part, TOOL_TEMPLATE)
        kinds = Counter(name.split(" ")[0] for place, _ in every for name in place.split(", "))
        assert kinds == {"request": 64 * n_blocks, "sum": 64 * n_blocks, "look-up": 128 * n_blocks}
        for _, messages in every:
            check(messages, TOOL_TEMPLATE)
            roles = Counter(message.role for message in messages)
            assert roles["call"] == roles["result"] <= 2
            assert 1 <= roles["user"] == roles["assistant"] <= 2


# --- errands -------------------------------------------------------------------------------------
def test_decisions_stand_beside_requests_and_most_blocks_are_of_a_town_of_their_own():
    data = AgentData(
        errand_blocks=4, request_blocks=2, letter_blocks=0, held_out_blocks=1, languages=("en",)
    )
    texts = []
    for part, n_blocks in (("train", 2), ("held out", 1)):
        every = data.conversations(part, TOOL_TEMPLATE)
        errands = [each for each in every if each.place.startswith("errand ")]
        counts = Counter(each.place for each in errands)
        assert counts == {f"errand {index}": 64 for index in range(2 * n_blocks)}
        kinds = Counter(n.split(" ")[0] for each in every for n in each.place.split(", "))
        assert kinds == {"errand": 128 * n_blocks, "request": 64 * n_blocks}
        for _, messages in every:
            check(messages, TOOL_TEMPLATE)
        texts.append({messages for place, messages in errands})
    assert not texts[0] & texts[1]
    at_home = {good.general for good in World().goods}
    people = {person.name for person in World().people}
    for place, messages in data.conversations("train", TOOL_TEMPLATE)[:256]:
        task = next(line for line in messages[0].content.split("\n") if line.startswith("task: "))
        good, person = task.removeprefix("task: bring ").split(" to ")
        assert good in at_home
        if place == "errand 3":
            assert person in people
    with pytest.raises(ValueError, match="errand_blocks must be at least 1"):
        AgentData(errand_blocks=0)


# --- law -----------------------------------------------------------------------------------------
spelled = st.lists(st.sampled_from([*TOKENIZER.special_ids, "Mei", " ", "<|", "|>"]), min_size=1)


@given(spelled.map("".join), spelled.map("".join))
def test_special_tokens_that_a_message_spells_never_become_control_tokens(asks, answers):
    if not (asks.strip() and answers.strip()):
        return
    messages = (Message("user", asks), Message("assistant", answers))
    [one] = chat_data.examples([Named("", messages)], TEMPLATE, TOKENIZER, 10_000)
    special = {number: token for token, number in TOKENIZER.special_ids.items()}
    controls = Counter(special[token] for token in one.ids if token in special)
    assert controls == {"<|user|>": 1, "<|assistant|>": 1, "<|end|>": 2}
    assert TOKENIZER.decode(one.ids) == f"<|user|>{asks}<|end|><|assistant|>{answers}<|end|>"
