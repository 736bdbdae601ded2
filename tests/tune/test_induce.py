"""minillm.tune.induce: tasks without words, proposals, two scores, successive halving."""

import random
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.model.config import TransformerConfig
from minillm.text.tokenizer import Tokenizer
from minillm.town.lists import Item
from minillm.town.request_words import LISTS
from minillm.town.requests import COMBINATIONS, HELD_OUT, SEEN, ask
from minillm.town.world import World
from minillm.tune import induce as module
from minillm.tune.chat import TEMPLATE, Answer, Message, example
from minillm.tune.induce import (
    HIGHEST,
    N_SHOWN,
    Candidate,
    Demonstration,
    demonstration,
    draw_request,
    execution_accuracy,
    induce,
    instruction_of,
    log_prob,
    on_other_lists,
    prompt,
    propose,
    question,
    reversed_examples,
)

WORLD = World()
TOKENIZER = Tokenizer((), TEMPLATE.special_tokens)
SHOWN = [Demonstration(f"plums, {word}", word) for word in ("pears", "buns", "eggs", "tea")]
drawn = st.builds(
    lambda combination, seed, language, ways: (
        draw_request(WORLD, random.Random(seed), combination, language=language, wording=ways),
        random.Random(-1 - seed),
    ),
    st.sampled_from(COMBINATIONS),
    st.integers(0, 99),
    st.sampled_from(["en", "zh"]),
    st.tuples(st.integers(0, 4), st.integers(0, 4)),
)


def a_model():
    config = TransformerConfig(vocab_size=260, context_length=256, d_model=16, n_layers=1)
    return config.build(seed=0)


@pytest.fixture
def answered(monkeypatch):
    """What was asked, in place of a model that answers; `replies` says how."""

    def answers(model, tokenizer, conversations, **kwargs):
        calls.append(([each[-1].content for each in conversations], kwargs))
        return [calls.reply(number, each[-1].content) for number, each in enumerate(conversations)]

    class Calls(list):
        reply = None

    calls = Calls()
    monkeypatch.setattr(module, "answers", answers)
    return calls


# --- tasks --------------------------------------------------------------------------------------
@given(drawn)
def test_list_and_instruction_are_the_whole_request(pair):
    request, _ = pair
    listed = demonstration(request).listed
    sentence = LISTS[request.language][request.wording[0]].format(items=listed)
    space = "" if request.language == "zh" else " "
    assert sentence + space + instruction_of(request) == request.text


@settings(max_examples=40)
@given(drawn)
def test_other_lists_have_the_same_request_and_suit_it(pair):
    request, rng = pair
    others = on_other_lists(request, WORLD, rng, 3)
    assert {instruction_of(each) for each in others} == {instruction_of(request)}
    assert {each.combination for each in others} == {request.combination}
    for each in others:
        assert 3 <= len(each.items) <= 6
        assert len(set(each.items)) == len(each.items)
        if each.combination[1] == "number":
            assert each.argument[0] < len(each.items)
        if each.operation in ("append", "prepend"):
            assert each.argument[0] not in each.items
        if each.operation == "replace":
            assert each.argument[1] not in each.items


@given(drawn)
def test_numbers_are_small_and_the_combination_is_the_one_asked_for(pair):
    request, _ = pair
    assert all(x <= HIGHEST for x in request.argument if isinstance(x, int))
    one_word = request.operation in ("count", "nth", "contains", "after", "before")
    if one_word and request.constraint == "commas":
        assert request.wording[1] == 0


def test_what_is_asked_for_stands_on_about_half_of_the_lists():
    items = Item("plums", "李子"), Item("pears", "梨"), Item("buns", "小圆面包")
    request = ask("contains", items[:1], items)
    answers = [each.answer for each in on_other_lists(request, WORLD, random.Random(0), 40)]
    assert 10 < Counter(answers)["yes"] < 30


# --- proposals ----------------------------------------------------------------------------------
def test_the_proposer_learns_the_instruction_alone():
    examples = reversed_examples(WORLD, TOKENIZER, 6)
    assert examples == reversed_examples(WORLD, TOKENIZER, 6)
    assert examples != reversed_examples(WORLD, TOKENIZER, 6, seed=1)
    for each in examples:
        text = TOKENIZER.decode(each.ids)
        answer = TOKENIZER.decode(
            [i for i, learned in zip(each.ids, each.loss_mask, strict=True) if learned]
        )
        assert text.count("The list: ") == text.count(" Answer: ") == N_SHOWN
        assert text.endswith(f"What was asked?<|end|><|assistant|>{answer}")
        assert answer.endswith("<|end|>")


def test_reversed_examples_have_only_the_combinations_and_wordings_they_are_given():
    one = [("reverse", "none", "json")]
    for wording, text in ((0, "Turn the list around. As JSON."), (4, "Write them down from the")):
        some = reversed_examples(WORLD, TOKENIZER, 3, combinations=one, wordings=[wording])
        assert all(f"<|assistant|>{text}" in TOKENIZER.decode(each.ids) for each in some)
    chinese = reversed_examples(WORLD, TOKENIZER, 1, language="zh", combinations=one)
    assert "单子：" in TOKENIZER.decode(chinese[0].ids)


def test_demonstrations_of_seen_combinations_are_the_default(monkeypatch):
    combinations = []

    def recorded(world, rng, combination, **kwargs):
        combinations.append(combination)
        return draw_request(world, rng, combination, **kwargs)

    monkeypatch.setattr(module, "draw_request", recorded)
    reversed_examples(WORLD, TOKENIZER, 40)
    assert set(combinations) <= set(SEEN)
    assert not set(combinations) & HELD_OUT


def test_proposals_come_once_each_the_most_frequent_first(answered):
    texts = ["Count.", "Turn.", "Turn. ", "", "Never ends", "Turn."]
    answered.reply = lambda number, _: Answer(texts[number], number != 4)
    assert propose(None, TOKENIZER, SHOWN, 6, temperature=0.5, seed=3) == ["Turn.", "Count."]
    questions, how = answered[0]
    assert how["config"].temperature == 0.5
    assert how["seed"] == 3
    assert len(set(questions)) > 1  # each sees a draw of its own
    assert all(text.count("Answer: ") == N_SHOWN for text in questions)


def test_a_proposal_needs_demonstrations():
    with pytest.raises(ValueError, match="got 2 and"):
        propose(None, TOKENIZER, SHOWN[:2])
    with pytest.raises(ValueError, match="n = 0"):
        propose(None, TOKENIZER, SHOWN, 0)


def test_proposals_are_written_by_a_model():
    assert propose(a_model(), TOKENIZER, SHOWN, 2, n_tokens=3) == []  # it never ends


def test_a_chinese_question_is_chinese():
    content = question([Demonstration("李子、梨", "梨", "zh")]).content
    assert content == "单子：李子、梨。回答：梨\n要求是什么？"
    assert prompt("数一数。", Demonstration("李子、梨", "两", "zh")).content == (
        "单子：李子、梨。数一数。"
    )


# --- scores -------------------------------------------------------------------------------------
def test_an_answer_is_right_if_it_is_the_same_text_and_has_ended(answered):
    replies = ["pears", "buns ", "Eggs", "tea", "pears", "buns", "eggs", "tea, tea"]
    answered.reply = lambda number, _: Answer(replies[number], number != 3)
    assert execution_accuracy(None, TOKENIZER, ["Last.", "First."], SHOWN) == [0.5, 0.75]
    questions, how = answered[0]
    assert questions[0] == "The list: plums, pears. Last."
    assert questions[4] == "The list: plums, pears. First."
    assert how["n_tokens"] == len("pears") + 1  # and the end


def test_log_prob_is_the_mean_over_tokens_then_over_demonstrations():
    model, texts = a_model(), ["Count them.", "Say the list backwards, please."]
    expected = []
    for text in texts:
        means = []
        for shown in SHOWN:
            messages = [prompt(text, shown), Message("assistant", shown.answer)]
            ids = torch.tensor(example(messages, TOKENIZER).ids)
            log_probs = model(ids[None, :-1])[0].log_softmax(dim=-1)
            each = log_probs.gather(1, ids[1:, None])[-len(shown.answer) - 1 :]
            means.append(each.mean().item())
        expected.append(sum(means) / len(means))
    assert log_prob(model, TOKENIZER, texts, SHOWN) == pytest.approx(expected, abs=1e-4)


def test_log_prob_does_not_depend_on_what_is_scored_beside_it(monkeypatch):
    model, texts = a_model(), ["Count.", "Turn the list around.", "Say it."]
    together = log_prob(model, TOKENIZER, texts, SHOWN)
    monkeypatch.setattr(module, "AT_ONCE", 3)
    assert log_prob(model, TOKENIZER, texts, SHOWN) == pytest.approx(together, abs=1e-4)


@pytest.mark.parametrize("score", [execution_accuracy, log_prob])
def test_a_score_needs_a_demonstration(score):
    with pytest.raises(ValueError, match="at least one demonstration"):
        score(None, TOKENIZER, ["Count."], [])


# --- selection ----------------------------------------------------------------------------------
@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=20),
    st.integers(1, 20),
    st.integers(1, 5),
)
def test_the_best_wins_and_all_come_back(values, n, n_first):
    texts = [f"{number} {value}" for number, value in enumerate(values)]
    shown = [Demonstration(str(i), "") for i in range(n)]
    tried = Counter()

    def score(some, demonstrations):
        tried.update((text, each.listed) for text in some for each in demonstrations)
        return [float(text.split()[1]) for text in some]

    candidates = induce(texts, shown, score, n_first=n_first)
    assert sorted(each.instruction for each in candidates) == sorted(texts)
    best = candidates[0]
    assert best.instruction == texts[values.index(max(values))]  # of equals the earlier
    assert best.score == pytest.approx(max(values))
    assert best.n_demonstrations == n
    assert set(tried.values()) == {1}  # no instruction is tried on the same twice
    for each in candidates:
        assert sum(text == each.instruction for text, _ in tried) == each.n_demonstrations


def test_half_of_them_go_on_to_twice_the_demonstrations():
    calls = []

    def score(some, demonstrations):
        calls.append((len(some), len(demonstrations)))
        return [0.0] * len(some)

    induce([str(i) for i in range(5)], SHOWN * 4, score, n_first=4)
    assert calls == [(5, 4), (3, 4), (2, 8)]


def test_a_later_round_may_overtake():
    def score(some, demonstrations):
        late = demonstrations[0].listed != SHOWN[0].listed
        return [{"a": 1.0, "b": 0.9}[text] - late * (text == "a") for text in some]

    first = induce(["a", "b"], SHOWN, score, n_first=4)[0]
    assert first == Candidate("a", 1.0, 4)
    candidates = induce(["a", "b", "b", "b"], SHOWN, score, n_first=1)
    assert candidates[0].instruction == "b"


def test_nothing_to_choose_from_is_refused():
    for texts, shown, n_first in ([], SHOWN, 4), (["a"], [], 4), (["a"], SHOWN, 0):
        with pytest.raises(ValueError, match="n_first of at least 1"):
            induce(texts, shown, lambda some, _: [0.0] * len(some), n_first=n_first)
