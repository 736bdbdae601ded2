"""Errands: what each action does, shortest ways, and that a view is all there is to know."""

import re
from collections import deque
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.town import map
from minillm.town.map import SLACK, Errand, Task, draw_errand, right_action
from minillm.town.world import World

WORLD = World()
WORLDS = (WORLD, World(1), World("plum"))
PLUMS = Task(
    world=WORLD,
    good="plums",
    person="Joe",
    start="well",
    home="mill",
    shops=("bakery", "forge"),
    stocked=frozenset({"forge"}),
    most_steps=20,
)


def act(errand, *actions):
    for action in actions:
        errand = errand.after(action)
    return errand


def carried_out(errand):
    """The errand after everything that the oracle does."""
    while not errand.done:
        errand = errand.after(right_action(errand))
    return errand


def from_view(view):
    """What is to be done, from the text of a view alone: a twin of the oracle."""
    lines = view.split("\n")
    lessons = {line.removeprefix("lesson: ") for line in lines if line.startswith("lesson: ")}
    at = next(n for n, line in enumerate(lines) if line.startswith("task: "))
    task, held, shops, home = (lines[at + n] for n in (0, 2, 3, 4))
    good, person = re.fullmatch("task: bring (.+) to (.+)", task).groups()
    signs = shops.removeprefix(f"{good}: ").split("; ")
    open_signs = [each for each in signs if f"no {good} at {each.split(',')[0]}" not in lessons]
    sign, verb = (open_signs or ["nowhere"])[0], "take"
    if held == f"you have: {good}":
        sign, verb = home.removeprefix(f"{person}: "), "give"
    if sign == "nowhere":
        return f"give_up nobody has {good}"
    _, way, step = sign.partition(", by way of ")
    return f"go {step}" if way else f"{verb} {good}"


def fewest_by_search(task):
    """Breadth first over all places, with the good and without."""
    queue = deque([Errand(task, task.start)])
    known = {(task.start, False)}
    while queue:
        errand = queue.popleft()
        if errand.success:
            return errand.n_steps
        moves = [f"go {place}" for place in task.world.neighbours(errand.place)]
        for action in [*moves, f"take {task.good}", f"give {task.good}"]:
            new = errand.after(action)
            if new.end or (not new.remark and (new.place, new.has_good) not in known):
                known.add((new.place, new.has_good))
                queue.append(new)
    return None


errands = st.builds(
    lambda world, seed, shops: draw_errand(world, seed, n_shops=shops[0], n_stocked=shops[1]),
    st.sampled_from(WORLDS),
    st.integers(0, 10_000),
    st.sampled_from([(1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]),
)
words = st.sampled_from(["go", "take", "give", "give_up", "plums", "well", "\n", "<|end|>"])
texts = st.text(max_size=100) | st.lists(words, max_size=4).map(" ".join)


# --- by hand --------------------------------------------------------------------------------------
def test_an_errand_from_its_view_to_its_end():
    start = Errand(PLUMS, "well")
    assert start.view() == (
        "task: bring plums to Joe\nyou are at: well\nyou have: nothing\n"
        "plums: bakery, by way of market square; forge, by way of clinic\n"
        "Joe: mill, by way of market square"
    )
    in_vain = act(start, "go market square", "go bakery", "take plums")
    assert in_vain.view().split("\n")[3:] == [
        "plums: forge, by way of forge",
        "Joe: mill, by way of market square",
        "take plums: no plums at bakery",
    ]
    held = act(in_vain, "go forge", "take plums")
    assert (held.has_good, held.remark, held.done) == (True, "", False)
    home = act(held, "go bakery", "go market square", "go stone bridge", "go mill")
    end = act(home, "give plums")
    assert (end.end, end.success, end.done, end.n_steps) == ("delivered", True, True, 10)
    assert PLUMS.n_shortest == 8  # by way of the clinic, for who knows that the bakery has none


@pytest.mark.parametrize(
    ("action", "remark"),
    [
        ("go mill", "no road leads there from well"),
        ("take plums", "no plums at well"),
        ("take pears", "the errand is about plums"),
        ("give plums", "you do not have it"),
        ("dance\non <|end|>", "an action is go PLACE, take GOOD, give GOOD or give_up REASON"),
    ],
)
def test_what_cannot_be_done_costs_a_step_and_says_why(action, remark):
    start = Errand(PLUMS, "well")
    line = f"{action.replace(chr(10), ' ')}: {remark}"
    assert start.after(action) == replace(start, n_steps=1, remark=line)
    assert act(start, action, "go clinic").remark == ""


def test_who_asks_for_another_good_does_not_lose_the_sign():
    at_shop = replace(Errand(PLUMS, "forge"), has_good=True)
    assert act(at_shop, "take pears").shops == ["bakery", "forge"]
    assert act(at_shop, "give plums").remark == "give plums: Joe is not at forge"


def test_giving_up_is_right_where_nobody_has_the_good_and_only_there():
    start = Errand(PLUMS, "well")
    assert not act(start, "give_up it is late").success
    nowhere = replace(start, task=replace(PLUMS, stocked=frozenset()))
    assert nowhere.task.n_shortest is None
    assert act(nowhere, "give_up it is late").success
    assert carried_out(nowhere).end == "gave up"


def test_when_the_steps_are_used_up_it_is_over():
    start = Errand(replace(PLUMS, most_steps=2), "well")
    late = act(start, "go clinic", "go well")
    assert (late.done, late.success, late.end) == (True, False, "")


def test_if_every_action_fails_one_comes_to_another_place_and_gets_nothing():
    start = Errand(replace(PLUMS, failure_rate=1.0, stocked=frozenset({"bakery"})), "bakery")
    lost = act(start, "go forge")
    assert lost.place in {*WORLD.neighbours("bakery")} - {"forge"}
    assert lost.remark == "go forge: you lost your way"
    assert act(start, "take plums").remark == "take plums: it slipped from your hands"
    assert not act(start, "take plums").has_good
    single = next(each.name for each in WORLD.places if len(WORLD.neighbours(each.name)) == 1)
    (other,) = WORLD.neighbours(single)
    assert act(replace(start, place=single), f"go {other}").place == other


def test_a_detour_is_too_long_for_who_asks_in_the_first_shop():
    for seed in range(20):
        errand = draw_errand(WORLD, seed, n_shops=2, detour=True)
        assert not carried_out(errand).success
        first = errand.task.shops[0]
        told = replace(errand, lessons=(f"no {errand.task.good} at {first}",))
        assert carried_out(told).success
        assert carried_out(told).n_steps == errand.task.most_steps - SLACK


def test_good_and_person_can_be_asked_for():
    errands = [draw_errand(WORLD, seed, good="plums", person="Joe") for seed in range(20)]
    assert {str(errand.task) for errand in errands} == {"bring plums to Joe"}
    assert {errand.task.home for errand in errands} == {WORLD.person("Joe").home}
    assert len({errand.task.start for errand in errands}) > 5


# --- bad input ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"failure_rate": 2.0}, "a probability from 0 to 1; got 2.0"),
        ({"failure_rate": float("nan")}, "a probability from 0 to 1; got nan"),
        ({"most_steps": 0}, "at least 1; got 0"),
        ({"start": "moon"}, "Place 'moon' is not in this town"),
    ],
)
def test_a_task_that_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(PLUMS, **change)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"n_stocked": 2}, "n_stocked from 0 to n_shops .* got 1 and 2"),
        ({"n_shops": 1, "detour": True}, "with a detour at least 1, and less than n_shops"),
        ({"n_shops": 18}, "from 1 to 17"),
        ({"good": "plum"}, "one of this town, plums, pears, .*; got 'plum'"),
        ({"person": "Joey"}, "Person 'Joey' is not in this town"),
        ({"fewest_steps": 99}, "at least 99 steps with 1 shops; none was met in 20 draws"),
    ],
)
def test_an_errand_that_the_town_does_not_have_is_refused(asked, message, monkeypatch):
    monkeypatch.setattr(map, "MOST_TRIES", 20)
    with pytest.raises(ValueError, match=message):
        draw_errand(WORLD, 0, **asked)


# --- twin -----------------------------------------------------------------------------------------
@given(errands, st.lists(st.tuples(st.integers(0, 3), texts), max_size=8), st.data())
def test_what_is_to_be_done_follows_from_the_view_alone(errand, steps, data):
    shops = data.draw(st.sets(st.sampled_from(errand.task.shops)))
    errand = replace(errand, lessons=tuple(f"no {errand.task.good} at {each}" for each in shops))
    errand = replace(errand, task=replace(errand.task, failure_rate=0.3))
    for kind, text in steps:
        assert from_view(errand.view()) == right_action(errand)
        errand = errand.after(text if kind == 0 else right_action(errand))


# --- reference ------------------------------------------------------------------------------------
@pytest.mark.parametrize(("world", "n_equal"), [(WORLDS[1], 60), (WORLD, 50)])
def test_the_oracle_takes_no_fewer_steps_than_a_search_over_all_states_finds(world, n_equal):
    """In the first town the quickest ways have the fewest roads, in Tinytown not always."""
    tasks = [draw_errand(world, seed).task for seed in range(60)]
    taken = [carried_out(Errand(task, task.start)).n_steps for task in tasks]
    fewest = [fewest_by_search(task) for task in tasks]
    assert [task.n_shortest for task in tasks] == taken
    assert all(a >= b for a, b in zip(taken, fewest, strict=True))
    assert sum(a == b for a, b in zip(taken, fewest, strict=True)) >= n_equal


# --- law ------------------------------------------------------------------------------------------
@given(errands)
def test_where_nothing_fails_the_oracle_ends_well(errand):
    end = carried_out(errand)
    assert end.success
    assert end.end == ("delivered" if errand.task.stocked else "gave up")


@given(errands, st.lists(texts, max_size=12))
def test_no_text_raises_and_each_costs_a_step(errand, actions):
    for n, action in enumerate(actions, 1):
        errand = errand.after(action)
        assert errand.n_steps == n
        assert len(errand.view().split("\n")) == 5 + bool(errand.remark)


def test_the_same_seed_is_the_same_errand_with_the_same_failures():
    one, other, third = (draw_errand(WORLD, seed, failure_rate=0.5) for seed in (3, 3, 4))
    assert carried_out(one) == carried_out(other) != carried_out(third)
