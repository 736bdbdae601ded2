import copy
from dataclasses import dataclass, replace
from itertools import islice
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.agents import imitate
from minillm.agents.imitate import Trace, follow, labelled, run
from minillm.reason.solver import SolverConfig
from minillm.serve.sample import SampleConfig

VOCABULARY = ("_", ".", "door", "ditch", "in", "left", "right", "climb", "sing", *"0123456789")
WORDS = SimpleNamespace(
    VOCABULARY=VOCABULARY,
    encode=lambda text: [VOCABULARY.index(word) for word in text.split()],
    decode=lambda ids: " ".join(VOCABULARY[n] for n in ids),
)


@dataclass(frozen=True)
class Corridor:
    """A way of doors; behind each the right action is the one of its colour, else one falls."""

    doors: tuple[str, ...]
    at: int = 0
    fallen: bool = False
    left: int = 12

    @property
    def done(self):
        return self.at == len(self.doors) or not self.left

    @property
    def success(self):
        return self.at == len(self.doors)

    def view(self):
        return "in ditch" if self.fallen else f"door {int(self.doors[self.at] == 'left')}"

    def after(self, action):
        fewer = replace(self, left=self.left - 1)
        if self.fallen:
            return replace(fewer, fallen=action != "climb")
        if action == self.doors[self.at]:
            return replace(fewer, at=self.at + 1)
        return replace(fewer, fallen=True)


def expert(state):
    return "climb" if state.fallen else state.doors[state.at]


STARTS = [Corridor(doors) for doors in (("left", "right"), ("right",), ("left", "left", "right"))]


def by_heart(pairs):
    """A learner that knows the views it has seen, and sings elsewhere."""
    table = {view: action.removesuffix(" .") for view, action in pairs}
    return lambda states, n_actions: [table.get(state.view(), "sing") for state in states]


def always_left(states, n_actions):
    return ["left" for _ in states]


# --- by hand --------------------------------------------------------------------------------------
def test_episodes_end_when_they_are_done_or_when_there_are_no_more_actions():
    traces = run(follow(expert), STARTS)
    assert [trace.actions for trace in traces] == [start.doors for start in STARTS]
    assert [len(trace.states) for trace in traces] == [3, 2, 4]
    assert imitate.success_rate(traces) == 1
    assert imitate.success_rate(run(follow(expert), STARTS, 2)) == pytest.approx(2 / 3)


def test_labels_are_what_was_done_or_what_the_expert_would_have_done():
    (trace,) = run(always_left, STARTS[1:2], 2)
    assert labelled([trace]) == [("door 0", "left ."), ("in ditch", "left .")]
    assert labelled([trace], expert) == [("door 0", "right ."), ("in ditch", "climb .")]


def test_dagger_learns_what_to_do_where_the_expert_never_was_and_its_control_does_not():
    def starts_at(number):  # at first there are left doors alone
        return STARTS[:2] if number else [Corridor(("left",) * 3)]

    def policies(**options):
        return list(islice(imitate.dagger(expert, starts_at, by_heart, n_states=3, **options), 2))

    own, control = policies(), policies(own_states=False)
    states = [STARTS[0], STARTS[1], replace(STARTS[0], fallen=True)]  # left, right, in the ditch
    assert own[0](states, 0) == control[0](states, 0) == ["left", "sing", "sing"]
    assert own[1](states, 0) == ["left", "right", "climb"]
    assert control[1](states, 0) == ["left", "right", "sing"]


def test_product_all_right_and_success_differ_by_correlation_and_by_recovery():
    starts = [Corridor(("left", "left")), Corridor(("right", "right"))]
    traces = run(follow(expert), starts)
    figures = imitate.compounding(always_left, traces)
    # each step is right in one of two, always in the same path; nobody climbs out
    assert figures == imitate.Compounding(0.5, 0.25, 0.5, 0.5)
    # in groups by the first door nothing is left to chance
    grouped = imitate.compounding(always_left, traces, lambda start: start.doors[0])
    assert grouped.product == 0.5

    def climbs(states, n_actions):  # wrong at its first action, and makes it good
        return [expert(s) if s.left < 12 else "sing" for s in states]

    assert imitate.compounding(climbs, traces) == imitate.Compounding(0.5, 0.0, 0.0, 1.0)


def test_the_first_of_the_highest_scores_wins():
    a, b, c = (Trace((), (name,)) for name in "abc")
    assert imitate.best_of([a, b, c], [0.0, 2.0, 2.0]) is b


# --- law ------------------------------------------------------------------------------------------
@given(st.floats(0, 1), st.integers(0, 9))
def test_slips_come_at_their_rate_and_are_a_function_of_the_seed(rate, seed):
    states = [Corridor(("left",))] * 400
    slips = imitate.noisy(follow(expert), lambda state, rng: "sing", rate, seed)
    actions = slips(states, 3)
    assert actions == slips(states, 3)
    assert actions.count("sing") / 400 == pytest.approx(rate, abs=0.12)


def test_a_model_is_cloned_and_its_samples_differ():
    pairs = labelled(run(follow(expert), STARTS))
    config = SolverConfig(d_model=16, n_layers=1, n_tokens=2000, batch_size=8)
    model = imitate.clone(pairs, WORDS, config, context_length=12)
    greedy = imitate.policy_of(model, WORDS, n_tokens=4)
    assert imitate.success_rate(run(greedy, STARTS)) == 1
    hot = imitate.policy_of(model, WORDS, SampleConfig(temperature=8.0), n_tokens=4)
    several = imitate.attempts(hot, STARTS, 3)
    assert [[trace.states[0] for trace in traces] for traces in several] == [
        [s] * 3 for s in STARTS
    ]
    assert several == imitate.attempts(hot, STARTS, 3)
    assert len({trace.actions for traces in several for trace in traces}) > 3


def test_every_epoch_reads_each_pair_once_and_learns_views_if_it_is_asked_to(monkeypatch):
    rows, masks = [], []

    def fit(model, loss, batch_at, n_steps, learning_rate, **options):
        for step in range(6):
            batch = batch_at(step)
            rows.extend(map(WORDS.decode, batch.tokens.tolist()))
            masks.append(batch.loss_mask)

    monkeypatch.setattr(imitate, "fit", fit)
    pairs = [(f"door {n}", "left .") for n in range(9)]
    imitate.clone(pairs, WORDS, SolverConfig(batch_size=3), views=True)
    assert sorted(rows[:9]) == sorted(rows[9:]) == [f"door {n} left" for n in range(9)]
    assert rows[:9] != rows[9:]
    assert all(mask.all() for mask in masks)  # all but the first word
    imitate.clone(pairs, WORDS, SolverConfig(batch_size=3))
    assert masks[-1].int().tolist() == [[0, 1, 1]] * 3


def test_a_clone_begins_where_another_model_ended_and_leaves_that_as_it_is():
    pairs = labelled(run(follow(expert), STARTS))
    config = SolverConfig(d_model=16, n_layers=1, n_tokens=500, batch_size=8, seed=1)
    start = config.build(12, WORDS)
    before = copy.deepcopy(start.state_dict())
    begun, new = (
        imitate.clone(pairs, WORDS, config, context_length=12, start=model).state_dict()
        for model in (start, None)
    )
    assert all(weight.equal(start.state_dict()[name]) for name, weight in before.items())
    assert all(weight.equal(new[name]) for name, weight in begun.items())


# --- bad input ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("attempt", "match"),
    [
        (lambda: run(lambda states, n: [], STARTS), "for 3 states it gave 0 actions"),
        (lambda: imitate.noisy(always_left, lambda s, r: "", 1.5), "probability from 0 to 1"),
        (lambda: imitate.clone([], WORDS), "at least one pair"),
        (
            lambda: imitate.clone([("door", "left .")], WORDS, views=True),
            "two words; got 'door'",
        ),
        (
            lambda: next(imitate.dagger(expert, lambda n: STARTS, by_heart, n_states=7)),
            "round 0 have 6",
        ),
        (lambda: imitate.best_of([], []), "0 attempts and 0 scores"),
    ],
)
def test_refusals(attempt, match):
    with pytest.raises(ValueError, match=match):
        attempt()
