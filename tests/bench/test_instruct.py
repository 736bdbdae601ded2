"""minillm.bench.instruct: kinds that were met, texts that go on, and that it runs to the end."""

import json
from itertools import pairwise

from minillm.bench import instruct as bench
from minillm.bench._run import Finished
from minillm.bench._tuned import QUESTIONS, some
from minillm.town.requests import HELD_OUT, SEEN
from tests.bench.test__tuned import a_base


def test_more_kinds_hold_the_fewer_and_other_seeds_others():
    chosen = [set(bench.chosen(n, 0)) for n in bench.KINDS_OF_INSTRUCTION]
    assert all(few < more for few, more in pairwise(chosen))
    assert chosen[-1] == set(SEEN) and chosen[0] != set(bench.chosen(4, 1))


def test_an_operation_counts_as_met_with_its_argument_and_with_its_form():
    request = some(1, QUESTIONS, combinations=sorted(HELD_OUT))[0]
    operation, argument, form = request.combination
    same = [each for each in SEEN if each[:2] == (operation, argument)]
    others = [each for each in SEEN if each[:2] != (operation, argument)]
    form_elsewhere = [each for each in others if each[2] == form]
    assert bench.is_met(request, [same[0], form_elsewhere[0]])
    assert not bench.is_met(request, form_elsewhere)
    assert not bench.is_met(request, [each for each in same if each[2] != form])


def test_a_text_goes_on_rightly_where_the_operation_is_carried_out(monkeypatch):
    base, asked = a_base(n_questions=40), []

    def right(base, model, prompts, end):
        asked.extend(prompts)
        return [" plums" if "first:" in prompt else " nonsense" for prompt in prompts]

    monkeypatch.setattr(bench, "_continued", right)
    assert bench.skill(base, base.model)["n"] == 40
    assert all(
        prompt.startswith("Mei writes a list: ") and prompt == prompt.rstrip() for prompt in asked
    )
    firsts = [prompt for prompt in asked[:40] if "The first:" in prompt]
    n_plums = sum(prompt.startswith("Mei writes a list: plums,") for prompt in firsts)
    assert bench.skill(base, base.model)["n_right"] == n_plums


def test_shots_that_leave_no_room_fall_out_oldest_first():
    base = a_base(context_length=400)
    one, *shots = some(5, 0)
    left = bench.fitting(base, shots, one)
    assert 0 < len(left) < 4 and left == shots[-len(left) :]
    n_tokens = len(bench._as_text(left, one).encode())
    assert n_tokens + bench.ROOM + 6 * len(left) <= 400
    assert len(bench._as_text(shots[-len(left) - 1 :], one).encode()) + bench.ROOM > 380


def test_it_runs_from_end_to_end_and_repeats_nothing(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "open_base", lambda: a_base(context_length=260))
    monkeypatch.setattr(bench, "EXAMPLES", (3,))
    monkeypatch.setattr(bench, "N_SHOTS", 1)
    monkeypatch.setattr(bench, "ROOM", 4)
    monkeypatch.setattr(bench._tuned, "N_TOKENS", 4)
    record = tmp_path / "a.json"
    figures = bench.run(quick=True, finished=Finished(record))
    assert json.loads(json.dumps(figures)) == figures
    (row,) = figures["count"]
    assert row["n"] == len(SEEN) and row["both met"]["n"] + row["one is new"]["n"] == 4
    assert set(row["shots"]) == {"n_shots, seen", "n_shots, held out"} | {
        f"{who}, {kind}, {n}"
        for who in ("base", "tuned")
        for kind in ("seen", "held out")
        for n in (0, 1)
    }
    monkeypatch.setattr(bench, "of_count", None)  # would fail if it were called
    assert bench.run(quick=True, finished=Finished(record)) == figures
    assert "skill of the base" in capsys.readouterr().out
