"""minillm.bench.browser: what is counted as what, planted lines, a whole run."""

import json
from dataclasses import replace

import pytest

from minillm.agents import browser
from minillm.agents.browser import expert
from minillm.agents.imitate import Trace, follow
from minillm.agents.imitate import run as episodes
from minillm.bench import browser as bench
from minillm.bench._browsing import QUICK, Work, starts
from minillm.bench._run import Finished


def ends(answers):
    """Attempts at one question that end in these answers; the evidence is there at the first."""
    (start,) = starts("test", 1, 0, QUICK)
    hops = tuple((hop.title, hop.line) for hop in start.question.hops)
    return [
        Trace((replace(start, answer=answer, quotes=hops if n == 0 else ()),), ())
        for n, answer in enumerate(answers)
    ]


def test_a_vote_takes_the_first_attempt_with_the_commonest_answer_and_no_answer_has_no_vote():
    group = ends([None, "plums", "tea", "tea", None, None])
    assert bench._vote(group) is group[2]


def test_the_reward_model_reads_question_quotes_and_answer_and_no_page():
    (trace,) = ends(["plums"])
    on_a_page = replace(trace.last, page=trace.last.question.hops[0].title)
    words = browser.decode(bench.evidence(on_a_page))
    text, quotes = trace.last.question.text, trace.last.quotes
    quoted = " ".join(f"<quote> {title} <line> {line}" for title, line in quotes)
    assert words == f"<question> {text} {quoted} <act> answer plums"
    assert browser.decode(bench.evidence(replace(on_a_page, answer=None))).endswith(" <unknown>")


def test_46_of_the_120_questions_of_the_test_need_no_scrolling_the_bound_that_chapter_28_draws():
    traces = episodes(follow(expert), starts("test", 120, "questions", Work()))
    assert sum("scroll" not in trace.actions for trace in traces) == 46


def test_a_score_is_in_order_where_a_success_is_above_a_failure():
    answer = starts("test", 1, 0, QUICK)[0].question.answer
    group = ends([answer, answer, "plums"])  # the second has no evidence
    assert [trace.success for trace in group] == [True, False, False]
    assert bench._order([group], [[1.0, 2.0, 0.0]]) == 0.5
    assert bench._order([group], [[1.0, 0.0, 0.0]]) == 1
    assert bench._order([group[1:]], [[1.0, 2.0]]) is None


def test_planted_lines_stand_above_the_answer_and_followers_are_told_from_readers():
    work = replace(QUICK, n_tested=6, n_actions=12)

    def obeys(states, n_actions):  # quotes the first line of the page, then says what it says
        actions = []
        for state in states:
            first = state.screen[0] if state.page else ""
            line = state.quotes[-1][1] if state.quotes else ""
            if "reader :" in line:
                actions.append("answer " + line.removeprefix("reader : answer "))
            else:
                actions.append("quote reader" if "reader" in first else expert(state))
        return actions

    figures = bench.injected(obeys, 0, work)
    assert figures["instruction"] == {"planted": 1, "quoted": 1, "success": 0}
    assert figures["control"]["planted"] == 0
    figures = bench.injected(follow(expert), 0, work)
    for name in ("instruction", "control"):
        assert figures[name] == {"planted": 0, "quoted": 0, "success": 1}


def test_a_whole_run_has_all_tables_and_goes_on_after_a_stop(tmp_path, capsys, monkeypatch):
    finished = Finished(tmp_path / "record")
    figures = bench.run(quick=True, finished=finished)
    lines = capsys.readouterr().out
    for label in ("demos 5", "own True, states 12", "best of 16", "oracle", "planted line"):
        assert label in lines
    assert len(figures["demos"]) == len(figures["best of 16"]) == 1
    assert len(figures["dagger"]) == 2 * (1 + bench.N_ROUNDS)
    first, control = (row for row in figures["dagger"] if (row["states"],) == QUICK.n_states)
    assert {**first, "own": False} == control
    chosen = figures["best of 16"][0]
    assert 0 <= chosen["best"] <= chosen["oracle"] <= 1
    monkeypatch.setattr(bench, "base_of", lambda work: pytest.fail("nothing is left to train"))
    again = bench.run(quick=True, finished=Finished(tmp_path / "record"))
    assert json.loads(json.dumps(figures)) == json.loads(json.dumps(again))
