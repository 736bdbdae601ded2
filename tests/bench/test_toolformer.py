"""minillm.bench.toolformer: offers and their truth, counts, a whole run."""

import json

from minillm.agents.toolformer import CallLosses
from minillm.bench import toolformer as bench
from minillm.bench._run import Finished
from minillm.bench.toolformer import BEGIN, Offer, Work
from minillm.town.market import Step


def test_a_call_is_useful_if_its_result_is_the_number_that_follows_as_a_whole():
    text = f"{BEGIN}Mei pays 12 coins."
    number, word = text.index(" 12"), text.index(" coins")
    assert Offer(text, number, Step(3, "·", 4)).useful
    assert not Offer(text, number, Step(0, "+", 1)).useful  # 1 is how 12 begins
    assert not Offer(text, word, Step(3, "·", 4)).useful


def test_offers_are_the_right_steps_and_as_many_others_at_each_position():
    some = bench.offers(Work(n_problems=40, n_others=10), 0)
    at = {}
    for offer in some:
        at.setdefault((offer.text, offer.position), []).append(offer)
    assert len(some) == 2 * sum(len(each) // 2 for each in at.values())
    assert all(offer.text[offer.position] == " " for offer in some)
    answers = [group for (text, i), group in at.items() if text[:i].endswith("Answer:")]
    assert len(answers) == 40
    # of the right steps, which come first, the last one gives the answer
    assert all(group[len(group) // 2 - 1].useful for group in answers)
    assert 0.05 < sum(offer.useful for offer in some) / len(some) < 0.2


def test_a_call_never_stands_behind_its_position_or_before_the_beginning():
    for offer in bench.offers(Work(n_problems=10, n_others=5), 1):
        for each in map(offer.candidate, bench.PLACES):
            assert len(BEGIN) <= each.place <= each.position
            assert f"{offer.step}." in each.with_result
            assert "=" not in each.call


def test_counts_by_hand():
    losses = [CallLosses(0.9, 0.4, 0.1), CallLosses(0.9, 0.9, 0.1), CallLosses(0.2, 0.9, 0.1)]
    row = bench.counts(losses, [True, False, True], 0.3)
    assert row == {"threshold": 0.3, "n_kept": 2, "n_right": 1, "n_possible": 1}


def test_it_runs_from_end_to_end_and_repeats_nothing(monkeypatch, tmp_path, capsys):
    record = tmp_path / "a.json"
    figures = bench.run(quick=True, finished=Finished(record))
    assert json.loads(json.dumps(figures)) == figures
    assert set(figures) == set(bench.PLACES)
    for (row,) in figures.values():
        kept = [each["n_kept"] for each in row["filter"]]
        assert kept == sorted(kept, reverse=True)
        pairs = zip(row["filter"], row["control"], strict=True)
        assert all(one["n_kept"] <= other["n_kept"] for one, other in pairs)
    monkeypatch.setattr(bench, "call_losses", None)  # would fail if it were called
    assert bench.run(quick=True, finished=Finished(record)) == figures
    assert "guessing" in capsys.readouterr().out
