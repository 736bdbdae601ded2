"""Evol-Instruct: what each operator changes and leaves alone, and what is thrown out."""

import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minillm.town.chains import HELD_OUT_PAIRS, MOST_STEPS, ChainSource, chain, step_pairs
from minillm.town.lists import Item
from minillm.town.requests import HELD_OUT, Grade, RequestSource, ask, grade
from minillm.town.steps import argument_kind
from minillm.town.world import World
from minillm.tune.evolve import (
    OPERATORS,
    REASONS,
    broaden,
    concretise,
    constrain,
    deepen,
    evolve,
    keep,
)

WORLD = World()
SEEDS = {language: RequestSource(WORLD, language).block(0) for language in ("en", "zh")}
CHAINS = {language: ChainSource(WORLD, language).block(0) for language in ("en", "zh")}
PLUMS, EGGS = Item("plums", "李子"), Item("eggs", "茶叶蛋")
ITEMS = PLUMS, Item("pears", "梨"), EGGS
originals = st.builds(
    lambda pool, language, number: pool[language][number],
    st.sampled_from([SEEDS, CHAINS]),
    st.sampled_from(["en", "zh"]),
    st.integers(0, 63),
)
seeds = st.integers(0, 10**6)


# --- by hand -----------------------------------------------------------------------------------
def test_a_step_goes_behind_a_list_and_before_one_word():
    rngs = [random.Random(n) for n in range(20)]
    behind = [deepen(ask("reverse", (), ITEMS), rng, WORLD) for rng in rngs]
    before = [deepen(ask("count", (), ITEMS), rng, WORLD) for rng in rngs]
    assert {each.steps[0] for each in behind if each} == {("reverse", ())}
    assert {each.steps[-1] for each in before if each} == {("count", ())}
    assert {each.wording[0] for each in behind if each} == {0}
    assert deepen(ask("all", (), ITEMS), random.Random(0), WORLD) is None
    three = chain([("reverse", ()), ("append", (Item("tea", "茶"),)), ("count", ())], ITEMS)
    assert deepen(three, random.Random(0), WORLD) is None


def test_a_more_particular_argument_is_a_number_for_none_and_an_ordinal_for_an_item():
    number = concretise(ask("first", (), ITEMS), random.Random(0), WORLD)
    assert number.steps == (("first", (2,)),)
    places = concretise(ask("swap", (PLUMS, EGGS), ITEMS), random.Random(0), WORLD)
    assert argument_kind(*places.steps[0]) == "ordinal"
    assert concretise(ask("reverse", (), ITEMS), random.Random(0), WORLD) is None
    # of a chain, the first step can be the one, for the list as it is then
    asked = chain([("swap", (PLUMS, EGGS)), ("first", (2,))], ITEMS)
    other = concretise(asked, random.Random(1), WORLD)
    assert argument_kind(*other.steps[0]) == "ordinal"
    assert other.steps[1] == ("first", (2,))


@pytest.mark.parametrize(
    ("evolved", "reason"),
    [
        (None, "cannot be done"),
        (ask("nth", (1,), ITEMS), "same text"),
        (ask("last", (3,), ITEMS), "too long"),
        (chain([("append", (Item("tea", "茶"),)), ("nth", (1,))], ITEMS), "same answer"),
        (ask("reverse", (), ITEMS), "in the pool"),
        (ask("nth", (1,), ITEMS[::2]), None),  # as the answer to another list it is new
        (ask("first", (), ITEMS, "json"), None),
    ],
)
def test_each_reason_to_throw_out_an_evolved_request(evolved, reason):
    pool = {ask("reverse", (), ITEMS).text}
    long = ask("last", (3,), ITEMS).text
    original = ask("first", (), ITEMS)
    assert keep(evolved, original, pool, is_too_long=lambda each: each.text == long) == reason
    assert reason is None or reason in REASONS


# --- law ---------------------------------------------------------------------------------------
@settings(max_examples=60, deadline=None)
@given(originals, st.sampled_from(OPERATORS), seeds)
def test_what_evolves_is_answered_rightly_and_is_none_of_the_exam(original, operator, seed):
    evolved = operator(original, random.Random(seed), WORLD)
    assume(evolved is not None)
    assert grade(evolved, evolved.answer) == Grade(content=True, form=True)
    assert evolved.combination not in HELD_OUT
    assert not HELD_OUT_PAIRS.intersection(step_pairs(evolved.steps))
    assert evolved.language == original.language
    assert evolved == operator(original, random.Random(seed), WORLD)


@settings(max_examples=60, deadline=None)
@given(originals, seeds)
def test_in_depth_the_list_stays_and_one_thing_changes(original, seed):
    deeper, other_form, particular = (
        operator(original, random.Random(seed), WORLD)
        for operator in (deepen, constrain, concretise)
    )
    if deeper is not None:
        assert (deeper.items, deeper.constraint) == (original.items, original.constraint)
        assert len(deeper.steps) == len(original.steps) + 1 <= MOST_STEPS
        assert any(
            deeper.steps[:i] + deeper.steps[i + 1 :] == original.steps
            for i in range(len(deeper.steps))
        )
    if other_form is not None:
        assert (other_form.items, other_form.steps) == (original.items, original.steps)
        assert other_form.constraint != original.constraint
    if particular is not None:
        assert (particular.items, particular.constraint) == (original.items, original.constraint)
        pairs = list(zip(original.steps, particular.steps, strict=True))
        assert all(before[0] == after[0] for before, after in pairs)
        assert sum(before != after for before, after in pairs) == 1


@settings(max_examples=30, deadline=None)
@given(originals, seeds)
def test_in_breadth_the_number_of_steps_stays(original, seed):
    other = broaden(original, random.Random(seed), WORLD)
    assert len(other.steps) == len(original.steps)
    assert other.items != original.items


# --- the loop ----------------------------------------------------------------------------------
def test_the_pool_begins_with_the_seeds_and_holds_no_copy():
    some = SEEDS["en"][:20]
    evolution = evolve(some, WORLD, n=120)
    assert evolution == evolve(some, WORLD, n=120) != evolve(some, WORLD, n=120, seed=1)
    assert evolution.instructions[:20] == tuple(some)
    assert evolution.origins[:20] == ("seed",) * 20
    assert set(evolution.origins[20:]) == {operator.__name__ for operator in OPERATORS}
    assert len({each.text for each in evolution.instructions}) == 120
    assert {len(each.steps) for each in evolution.instructions} == {1, 2, 3}
    assert set(evolution.eliminated) <= set(REASONS)
    assert min(evolution.eliminated.values()) > 0


def test_without_elimination_only_what_cannot_be_done_is_missing():
    some = [ask("nth", (2,), ITEMS)] * 3
    evolution = evolve(some, WORLD, n=40, operators=[constrain, deepen], eliminate=False)
    assert set(evolution.eliminated) == {"cannot be done"}
    assert len({each.text for each in evolution.instructions}) < 38
    alike = evolve(some, WORLD, n=10, operators=[constrain])
    assert alike.eliminated["in the pool"] > 0
    assert len({each.text for each in alike.instructions}) == 8


def test_what_was_thrown_out_is_tried_again_and_the_rest_goes_on_from_itself():
    seen = []

    def once(request, rng, world):
        seen.append(request)
        return None if len(seen) == 1 else broaden(request, rng, world)

    evolution = evolve([SEEDS["en"][0]], WORLD, n=3, operators=[once])
    assert seen == [SEEDS["en"][0], *evolution.instructions[:2]]
    assert evolution.eliminated == {"cannot be done": 1}
    assert evolution.origins == ("seed", "once", "once")


# --- what stops it -----------------------------------------------------------------------------
def test_no_seeds_and_operators_that_bring_nothing_new_are_refused():
    with pytest.raises(ValueError, match="1 to n = 5 seeds, and an operator; got 0 and 4"):
        evolve([], WORLD, n=5)
    with pytest.raises(ValueError, match="got 64 and 4"):
        evolve(SEEDS["en"], WORLD, n=5)
    with pytest.raises(ValueError, match=r"nothing new beyond 1 instructions; .*\['concretise'\]"):
        evolve([ask("reverse", (), ITEMS)], WORLD, n=5, operators=[concretise])
