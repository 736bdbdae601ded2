"""minillm.bench.leaderboard: questions with one right answer, and orders that are sure or not."""

import json

import pytest
import torch

from minillm.bench import leaderboard as bench
from minillm.bench._run import Finished
from minillm.measure.evaluate import Result
from minillm.serve.template import Message
from minillm.town.facts import FactTable
from minillm.town.paraphrases import N_PARAPHRASES
from minillm.town.request_words import SEEN_WORDINGS
from minillm.town.requests import HELD_OUT
from minillm.town.world import World
from minillm.tune.chat import TEMPLATE, Answer
from tests.bench.test__tuned import a_base

END = (256,)


@pytest.fixture(scope="module")
def tasks():
    return bench.questions(40)


# --- questions -----------------------------------------------------------------------------------
def test_every_task_has_its_questions_and_the_oracle_answers_all(tasks):
    assert tuple(tasks) == bench.TASKS
    for asked in tasks.values():
        assert len(asked) == 40
        assert all(map(bench.is_right, asked, bench.oracle(asked)))
        assert all(each.truth in each.options for each in asked if each.options)


def test_held_out_requests_are_new_in_combination_alone(tasks):
    for each in tasks["held out"]:
        assert each.request.combination in HELD_OUT
        assert each.request.wording[0] in SEEN_WORDINGS
    assert not any(each.request.combination in HELD_OUT for each in tasks["easy"])


def test_one_option_of_four_is_a_fact(tasks):
    table = FactTable(World())
    people = {person: [f for f in table.facts if f.subject == person] for person in table.people}
    for each in tasks["facts"][:10]:
        assert len(set(each.options)) == bench.N_OPTIONS
        true = {
            table.say(fact, "en", paraphrase)
            for person, facts in people.items()
            if person in each.truth
            for fact in facts
            for paraphrase in range(N_PARAPHRASES)
        }
        assert set(each.options) & true == {each.truth}


def test_a_prompt_ends_where_the_answer_begins(tasks):
    for each in tasks["arithmetic"]:
        assert each.prompt.endswith("Answer:")
        assert each.truth.isdigit()
    for each in tasks["lists"]:
        assert each.prompt.endswith(":")
        assert bench.up_to_stop(f" {each.truth}. And so on.") == each.truth
    for each in tasks["word order"]:
        whole, exchanged = each.options
        assert sorted(whole.split()) == sorted(exchanged.split())
        assert whole != exchanged


def test_the_guesser_is_near_chance():
    tasks = bench.questions(150)
    shares = {
        name: sum(map(bench.is_right, asked, bench.guesser(asked))) / 150
        for name, asked in tasks.items()
    }
    assert shares["facts"] == pytest.approx(0.25, abs=0.12)
    assert shares["word order"] == pytest.approx(0.5, abs=0.14)
    assert max(shares[name] for name in ("easy", "held out", "arithmetic", "lists")) < 0.2


# --- models --------------------------------------------------------------------------------------
def test_log_probs_are_those_of_each_text_alone_whatever_the_padding():
    base = a_base()
    texts = ("ab", "abcdef", "b")
    values = bench.log_probs(base.model, base.tokenizer, END, "", texts)
    for text, value in zip(texts, values, strict=True):
        ids = [*END, *text.encode()]
        with torch.no_grad():
            table = base.model(torch.tensor([ids[:-1]])).log_softmax(-1)[0]
        assert value == pytest.approx(sum(table[i, ids[i + 1]].item() for i in range(len(text))))


def test_requests_go_through_the_chat_template_and_continuations_do_not(monkeypatch, tasks):
    base, talks = a_base(), []

    def answers(model, tokenizer, conversations, template, **how):
        talks.extend(conversations)
        return [Answer("yes", ended=number > 0) for number in range(len(conversations))]

    monkeypatch.setattr(bench.chat, "answers", answers)
    monkeypatch.setattr(bench, "generate", lambda model, prompts, *_, **__: [[65]] * len(prompts))
    ask = lambda asked, template=TEMPLATE: bench.model_answers(  # noqa: E731
        base.model, base.tokenizer, template, END, asked
    )
    assert ask(tasks["easy"][:3]) == ["", "yes", "yes"]  # one came to no end
    assert talks == [(Message("user", each.prompt),) for each in tasks["easy"][:3]]
    assert ask(tasks["easy"][:3], None) == ["A"] * 3
    assert ask([bench.Question("plum", "A"), bench.Question("plum" * 60, "A")]) == ["A", ""]


# --- the order -----------------------------------------------------------------------------------
def result(n_right, n=100):
    return [Result("", tuple(range(n)), (), tuple(i < n_right for i in range(n)))]


def test_a_large_gap_is_sure_and_a_small_one_is_not():
    ordered = bench.order({"weak": result(20), "strong": result(80), "close": result(79)})
    assert ordered["models"] == ["strong", "close", "weak"]
    assert ordered["swapped"]["weak over close"] == 0
    # strong is right wherever close is, and once more: that question is missing from 1 in e draws
    assert ordered["swapped"]["close over strong"] == pytest.approx(0.37 / 2, abs=0.04)
    assert ordered["another"] == 0


def test_equal_models_are_ordered_by_chance():
    other = [Result("", tuple(range(100)), (), tuple(i >= 50 for i in range(100)))]
    ordered = bench.order({"a": result(50), "b": other})
    assert ordered["another"] == pytest.approx(0.5, abs=0.08)


def test_all_runs_and_its_figures_are_json(monkeypatch, capsys):
    base = a_base()
    monkeypatch.setattr(
        bench.checkpoints, "open_model", lambda place: (base.model, base.tokenizer, END)
    )
    monkeypatch.setattr(bench.template, "load", lambda *_: None)
    monkeypatch.setattr(bench, "N_TOKENS", 2)
    figures = bench.run(quick=True, finished=Finished(), models={"empty": "here"})
    assert json.loads(json.dumps(figures)) == figures
    assert figures["macro"]["oracle"]["value"] == 1
    assert figures["order"]["models"] == ["empty"]
    assert "word order" in capsys.readouterr().out
