from dataclasses import replace
from random import Random

from minillm.agents.browser import encode, expert
from minillm.agents.imitate import follow, labelled, noisy, run, success_rate
from minillm.bench import _browsing
from minillm.bench._browsing import QUICK, random_action, starts

WORK = replace(QUICK, n_actions=12)


def test_towns_of_the_test_are_none_of_the_training_and_questions_have_so_many_hops():
    seen, held_out = (starts(split, 6, 0, QUICK) for split in ("train", "test"))
    assert {len(state.question.hops) for state in seen} == {2}
    assert {len(state.question.hops) for state in starts("train", 6, 0, QUICK, 1)} == {1}
    assert seen == starts("train", 6, 0, QUICK) != starts("train", 6, 1, QUICK)
    people, others = (
        {name for name, page in states[0].library.pages.items() if "is aged" in str(page.lines)}
        for states in (seen, held_out)
    )
    assert len(people) >= QUICK.n_people
    assert not people & others


def test_random_actions_can_be_carried_out_and_are_of_every_kind():
    policy = noisy(follow(expert), random_action, 1.0)
    traces = run(policy, starts("train", 60, 0, WORK))
    verbs = {action.split()[0] for trace in traces for action in trace.actions}
    assert verbs == {"search", "click", "scroll", "quote", "answer"}
    assert not any(state.remark for trace in traces for state in trace.states)
    assert success_rate(traces) < 0.1
    state = traces[0].states[1]
    assert random_action(state, Random(3)) == random_action(state, Random(3))


def test_every_view_of_a_player_fits_into_the_context():
    policy = noisy(follow(expert), random_action, 0.5)
    pairs = labelled(run(policy, starts("train", 60, 1, WORK)))
    lengths = [(len(encode(view)), len(encode(action))) for view, action in pairs]
    assert max(map(sum, lengths)) + _browsing.N_TOKENS < _browsing.CONTEXT_LENGTH
    assert max(length for _, length in lengths) <= _browsing.N_TOKENS
