"""minillm.bench.instruct_lab: what is drawn, what is counted, and that it runs from end to end."""

import json
from itertools import islice

import pytest

from minillm.bench import instruct_lab as bench
from minillm.bench._run import Finished
from minillm.bench._tuned import Base
from minillm.town.requests import SEEN, grade, pair
from minillm.tune.chat import TEMPLATE
from tests.bench.test__tuned import a_base


# --- minimal pairs -------------------------------------------------------------------------------
def test_pairs_differ_in_the_operation_alone_and_none_is_held_out():
    for request, other in islice(bench.pairs_of(0), 100):
        assert other == pair(request)
        assert {request.combination, other.combination} <= set(SEEN)


def test_both_ways_draw_equally_many_from_the_same_pairs():
    together = bench.pair_requests(200, 0, together=True)
    single = bench.pair_requests(200, 0, together=False)
    assert len(together) == len(single) == 200
    assert all(one in (pair(two), None) or pair(one) == two for one, two in _by_two(together))
    assert len({each.items for each in single}) > 1.5 * len({each.items for each in together})
    pool = [each for both in islice(bench.pairs_of(0), 200) for each in both]
    assert set(map(str, single)) <= set(map(str, pool))


def _by_two(requests):
    return zip(requests[::2], requests[1::2], strict=True)


def test_a_pair_is_right_if_both_its_requests_are(monkeypatch):
    monkeypatch.setattr(Base, "tune", lambda *_, **__: None)
    right = iter([True, True, True, False, False, True, False, False])
    answers = lambda base, model, each: [c[0].content for c in each]  # noqa: E731
    monkeypatch.setattr(Base, "answers", answers)
    monkeypatch.setattr("minillm.bench._tuned.is_right", lambda *_: next(right))
    row = bench.measure_pairs(a_base(n_questions=8), ("pairs", 4), 0)
    assert (row["single"]["n_right"], row["both"]) == (4, {"n_right": 1, "n": 4})


# --- JSON ----------------------------------------------------------------------------------------
def test_the_grammar_allows_the_style_of_the_training_data_and_the_schema_its_own():
    base = a_base()
    free, schema, grammar = bench.constraints(base).values()
    assert free is None
    answer = bench.some(50, 0, combinations=[("reverse", "none", "json")])[0].answer
    dense = json.dumps(json.loads(answer), separators=(",", ":"))
    end = TEMPLATE.stop_ids(base.tokenizer)[0]
    for constraint, good in ((grammar, answer), (schema, dense)):
        for token in good.encode():
            constraint = constraint.after(token)
        assert constraint.allowed()[end]
    for constraint, bad in ((grammar, dense), (schema, answer)):
        with pytest.raises(ValueError, match="not allowed here"):
            for token in bad.encode():
                constraint = constraint.after(token)


# --- personas ------------------------------------------------------------------------------------
def test_the_two_shops_never_agree():
    prices = bench.prices_of(0)
    assert prices["Mei"].keys() == prices["Bao"].keys()
    assert all(prices["Mei"][good] != prices["Bao"][good] for good in prices["Mei"])
    assert prices != bench.prices_of(1)


@pytest.mark.parametrize("way, leaks", [("system message", 0), ("no message", 32)])
def test_a_model_that_knows_only_what_it_is_told_leaks_where_nobody_speaks(monkeypatch, way, leaks):
    prices = bench.prices_of(3)

    def answers(base, model, conversations):
        """Right where a message says who speaks; else Mei's prices."""
        spoken = []
        for messages in conversations:
            person = messages[0].content[8:-1] if messages[0].role == "system" else "Mei"
            good = next(g for g in prices["Mei"] if messages[-1].content.endswith(f" of {g}."))
            spoken.append(f"{prices[person][good]} coins.")
        return spoken

    monkeypatch.setattr(Base, "tune", lambda *_, **__: None)
    monkeypatch.setattr(Base, "answers", answers)
    row = bench.measure_persona(a_base(), way, 3)
    assert row[way]["leak"] == {"n_right": leaks, "n": 64}
    assert row[way]["own"] == {"n_right": 64 - leaks, "n": 64}
    assert row["left out"]["leak"]["n_right"] == 32


# --- wordings, and all together ------------------------------------------------------------------
def test_the_gain_is_of_matched_over_mismatched_wordings():
    def cell(n_right):
        return {"n_right": n_right, "n": 10}

    rows = [
        {"way": [0, 1], "asked in (0, 1)": cell(9), "asked in (2, 3)": cell(3)},
        {"way": [2, 3], "asked in (0, 1)": cell(4), "asked in (2, 3)": cell(8)},
    ]
    gained = bench.conclude_prompts(rows)
    assert gained["gain, asked in (2, 3)"]["mean"] == pytest.approx(0.5)
    assert gained["gain, asked in (0, 1)"]["mean"] == pytest.approx(0.5)


def test_every_experiment_runs_and_its_figures_are_json(monkeypatch, capsys):
    monkeypatch.setattr(Base, "tune", lambda base, *_, **__: base.model)
    monkeypatch.setattr(bench, "N_TOKENS", 2)
    monkeypatch.setattr("minillm.bench._tuned.N_TOKENS", 2)
    finished = Finished()
    figures = bench.run(quick=True, base=a_base(), finished=finished)
    assert figures.keys() == bench.EXPERIMENTS.keys() == bench.WAYS.keys()
    assert json.loads(json.dumps(finished.results)) == finished.results
    again = bench.run(quick=True, base=a_base(), finished=finished, only="prompts")
    assert again == {"prompts": figures["prompts"]}
    assert "gain, asked in (2, 3)" in capsys.readouterr().out
    assert grade(bench.some(1, 0)[0], "").right is False


def test_an_experiment_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no experiment 'plums'; there are pairs, json"):
        bench.run(only="plums")
