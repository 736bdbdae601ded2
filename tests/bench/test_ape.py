"""minillm.bench.ape: what instructions mean, and which one is chosen, beside those of people."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.bench import _tuned
from minillm.bench import ape as bench
from minillm.bench._run import Finished
from minillm.model.config import TransformerConfig
from minillm.text.tokenizer import Tokenizer
from minillm.town.lists import Item
from minillm.town.requests import COMBINATIONS, HELD_OUT, ask
from minillm.town.world import World
from minillm.tune import induce
from minillm.tune.chat import TEMPLATE, Answer

WORLD = World()
PLUMS, PEARS, BUNS, EGGS = ITEMS = (
    Item("plums", "李子"),
    Item("pears", "梨"),
    Item("buns", "小圆面包"),
    Item("knives", "刀"),
)
LISTS = (ITEMS, ITEMS[::-1], ITEMS[1:])
drawn = st.builds(
    lambda combination, seed, language, ways: induce.draw_request(
        WORLD, random.Random(seed), combination, language=language, wording=ways
    ),
    st.sampled_from(COMBINATIONS),
    st.integers(0, 99),
    st.sampled_from(["en", "zh"]),
    st.tuples(st.integers(0, 4), st.integers(0, 4)),
)


def a_base():
    tokenizer = Tokenizer((), TEMPLATE.special_tokens)
    config = TransformerConfig(vocab_size=260, context_length=700, d_model=16, n_layers=1)
    return _tuned.Base(config.build(seed=0), tokenizer)


# --- meaning ------------------------------------------------------------------------------------
@settings(max_examples=30)
@given(drawn)
def test_a_request_means_what_it_asks_for(request):
    step = (request.operation, request.argument, request.constraint)
    text = induce.instruction_of(request)
    assert step in bench.readings(text, request.language, WORLD)
    others = induce.on_other_lists(request, WORLD, random.Random(0), 3)
    assert bench.is_right(text, others, WORLD)


def test_another_spelling_of_the_same_is_right_and_another_meaning_is_not():
    requests = [ask("without", (1,), items, "json") for items in LISTS]
    right = ("Leave out the first. As JSON.", "Skip the first. Use JSON.")
    assert all(bench.is_right(text, requests, WORLD) for text in right)
    for text in (
        "Leave out the second. As JSON.",
        "Leave out the first. In brackets.",
        "Leave out the first.",
        "Leave out. As JSON.",
        "Give me the first. As JSON.",
        "as JSON.",
        "",
    ):
        assert not bench.is_right(text, requests, WORLD)


def test_one_list_where_it_is_wrong_is_enough():
    requests = [ask("last", (), items) for items in (ITEMS, ITEMS[::-1])]
    assert bench.is_right("Give me the fourth.", requests, WORLD)
    assert not bench.is_right("Give me the fourth.", [*requests, ask("last", (), ITEMS[1:])], WORLD)


def test_what_an_instruction_names_must_stand_on_the_list():
    requests = [ask("without", (1,), items) for items in (ITEMS, (PLUMS, BUNS, PEARS))]
    assert bench.is_right("Give me all of them but plums.", requests, WORLD)
    other = ask("without", (1,), ITEMS[1:])
    assert not bench.is_right("Give me all of them but plums.", [*requests, other], WORLD)


def test_arguments_that_do_not_fit_are_no_reading():
    assert bench.readings("Swap plums and pears.", "en", WORLD)
    assert bench.readings("Swap the first and the third.", "en", WORLD)
    assert not bench.readings("Swap plums and the third.", "en", WORLD)
    assert bench.readings("Replace the first by plums.", "en", WORLD)
    assert not bench.readings("Replace plums by the first.", "en", WORLD)
    assert not bench.readings("Give me plums.", "en", WORLD)


# --- one task -----------------------------------------------------------------------------------
def test_half_of_the_tasks_are_held_out_and_seeds_differ():
    size = bench.Size(n_tasks=10)
    drawn_tasks = bench.tasks(WORLD, size, 0)
    assert [each.combination in HELD_OUT for each in drawn_tasks] == [True] * 5 + [False] * 5
    assert len({each.combination for each in drawn_tasks}) == 10
    assert drawn_tasks == bench.tasks(WORLD, size, 0) != bench.tasks(WORLD, size, 1)


@pytest.mark.parametrize(("operation", "form"), [("reverse", "commas"), ("count", "commas")])
def test_people_ask_in_five_ways(operation, form):
    texts = bench.human_wordings(ask(operation, (), ITEMS, form))
    assert len(set(texts)) == 5
    assert all(bench.is_right(text, [ask(operation, (), ITEMS, form)], WORLD) for text in texts)


def test_the_follower_chooses_among_proposals(monkeypatch):
    task, size = ask("reverse", (), ITEMS, "json"), bench.Size(n_demonstrations=4, n_fresh=5)
    right, wrong = "Say them backwards. As JSON.", "Say them backwards."
    seen = []

    def answers(model, tokenizer, conversations, **kwargs):
        if model == "proposer":
            return [Answer(right if n % 3 == 0 else wrong, True) for n in range(len(conversations))]
        contents = [each[-1].content for each in conversations]
        seen.append(len(contents))
        answered = []
        for content in contents:
            words = content.split(": ")[1].split(". ")[0].split(", ")
            good = right in content or "Use JSON" in content  # one of the five human wordings
            quoted = ", ".join(f'"{word}"' for word in reversed(words))
            answered.append(Answer(f"[{quoted}]" if good else "?", True))
        return answered

    def log_prob(model, tokenizer, texts, demonstrations):
        return [-1.0 * len(text) for text in texts]

    monkeypatch.setattr(induce, "answers", answers)
    monkeypatch.setitem(bench.SCORES, "log_prob", log_prob)
    row = bench.measure(
        lambda: ("follower", "proposer"), Tokenizer((), ()), WORLD, task, size, seed=0
    )
    assert seen == [2 * 4, (3 + 5) * 5]
    assert (row["n_proposals"], row["random"], row["any"]) == (2, 0.5, True)
    assert row["accuracy"] == {"instruction": right, "right": True, "accuracy": 1.0}
    assert row["log_prob"] == {"instruction": wrong, "right": False, "accuracy": 0.0}
    assert row["frequent"]["instruction"] == wrong
    assert row["human"] == [0.0, 0.0, 0.0, 0.0, 1.0]
    assert row["held_out"] == (task.combination in HELD_OUT)


# --- the whole ----------------------------------------------------------------------------------
def test_all_of_it_runs_and_goes_on_after_a_stop(monkeypatch, capsys):
    small = bench.Size(
        n_tasks=2, n_proposals=2, n_demonstrations=3, n_fresh=1, n_examples=2,
        n_steps=2,
    )  # fmt: skip
    monkeypatch.setattr(bench, "QUICK", small)
    monkeypatch.setattr(_tuned, "open_base", lambda place: a_base())
    finished = Finished()
    figures = bench.run(quick=True, finished=finished)
    assert list(finished.results) == ["seed 0, task 0", "seed 0, task 1"]
    assert [row["held_out"] for row in figures["tasks"]] == [True, False]
    assert len(figures["shares"]) == 3 * 3
    assert "held out" in capsys.readouterr().out
    monkeypatch.setattr(bench, "tune", lambda *_: pytest.fail("it is tuned again"))
    assert bench.run(quick=True, finished=finished) == figures


def test_shares_are_of_tasks_and_compare_with_the_median_wording():
    def row(right, accuracy, held_out):
        choice = {"right": right, "accuracy": accuracy}
        return dict.fromkeys(("frequent", *bench.SCORES), choice) | {
            "held_out": held_out, "human": [0.0, 0.2, 0.5, 0.9, 1.0], "random": 0.25, "any": True,
        }  # fmt: skip

    rows = [row(True, 0.5, False), row(True, 0.6, True), row(False, 0.4, True)]
    lines = {(each["group"], each["choice"]): each for each in bench.shares(rows)}
    every, held = lines["all", "accuracy"], lines["held out", "accuracy"]
    assert (every["n_tasks"], held["n_tasks"]) == (3, 2)
    assert every["right"] == pytest.approx(2 / 3)
    assert every["as_good_as_people"] == pytest.approx(2 / 3)
    assert (held["right"], held["as_good_as_people"]) == (0.5, 0.5)
    assert every["human"] == 0.5
    assert every["accuracy"] == pytest.approx(0.5)
