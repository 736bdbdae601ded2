"""minillm.town.world: a town from a seed."""

import re
from collections import Counter
from dataclasses import FrozenInstanceError, replace
from itertools import pairwise

import pytest
from scipy.stats import chisquare

from minillm.town.facts import FactTable
from minillm.town.grammar import town_grammar
from minillm.town.world import RELATIONS, World, sealed_town

# --- by hand ---


def test_the_default_town_has_what_the_course_counts_on():
    world = World()
    assert (len(world.people), len(world.places), len(world.roads)) == (103, 18, 20)
    assert len(world.goods) == 32 and all(isinstance(good.price, int) for good in world.goods)


def test_fame_is_zipfs_law():
    assert World(n_people=15, fame_exponent=0).fame == pytest.approx([1 / 15] * 15)
    fame = World(fame_exponent=2).fame
    assert fame[0] / fame[9] == pytest.approx(100)
    assert sum(fame) == pytest.approx(1)


def test_each_relation_has_its_objects():
    world = World()
    found = [world.objects("Hu", relation) for relation in RELATIONS]
    assert found == [("Duck Lane",), ("ferryman",), (), ("riddles",), (), ("boat",), ("ferry",)]
    assert world.objects("Su", "born-in") == ()
    assert world.objects("Tan", "parent-of") == ("Kai",)
    assert world.objects("Jun", "sells") == ("tile", "cup", "bowl", "jar", "teapot")


def test_without_the_knobs_everything_stays_and_is_called_what_it_is():
    world = World()
    assert world.on_day(50) == world.people
    assert all(person.called == person.name for person in world.people)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"n_people": 14}, "at least 15 .the cast of the reader.; got 14"),
        ({"seed": "x", "n_people": 11}, "at least 12 .one for each job.; got 11"),
        ({"fame_exponent": -1.0}, "fame_exponent must be 0 or more; got -1.0"),
        ({"fame_exponent": float("nan")}, "got nan"),
        ({"fame_exponent": float("inf")}, "got inf"),
        ({"ambiguity": 1.5}, "ambiguity is a share .* got 1.5"),
        ({"change_rate": 2}, "change_rate is a share"),
        ({"seed": ""}, "seed must be a number or a name, not ''"),
        ({"seed": 1.5}, "not 1.5"),
        ({"seed": True}, "not True"),
    ],
)
def test_a_knob_out_of_its_range_is_named(knobs, message):
    with pytest.raises(ValueError, match=message):
        World(**knobs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: w.person("Zed"), "Person 'Zed' is not in this town; there is Mei, Bao"),
        (lambda w: w.place("prison"), "Place 'prison'"),
        (lambda w: w.good("gold"), "Good 'gold'"),
        (lambda w: w.distance("well", "prison"), "no place 'prison'"),
        (lambda w: w.objects("Mei", "hates"), "no relation 'hates'; there are lives-in"),
        (lambda w: w.on_day(-1), "counted from 0; got -1"),
    ],
)
def test_what_is_not_in_town_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(World())


def test_a_world_is_a_value():
    assert World(3) == World(3) and hash(World(3)) == hash(World(3))
    with pytest.raises(FrozenInstanceError):
        World().seed = "other"


# --- twin ---


def test_the_same_seed_makes_the_same_town_and_7_is_seven():
    for seed in ("Ada", 7):
        one, two = World(seed), World(str(seed))
        assert (one.people, one.roads, one.goods) == (two.people, two.roads, two.goods)
        assert one.mystery == two.mystery


# --- law ---


@pytest.mark.parametrize("seed", ["Ada", 7, "小明", sealed_town().seed])
def test_another_town_shares_the_language_but_not_the_facts(seed):
    home, away = World(), World(seed)
    assert [g.name for g in away.goods] == [g.name for g in home.goods]
    assert [g.price for g in away.goods] != [g.price for g in home.goods]
    assert len({p.name for p in away.places} & {p.name for p in home.places}) >= 16
    assert away.roads != home.roads
    assert len({p.name for p in away.people} & {p.name for p in home.people}) < 12
    assert all(away.distance(a.name, "well") == away.distance("well", a.name) for a in away.places)


def test_nobody_of_the_sealed_town_lives_in_tinytown():
    sealed, home = sealed_town(), World()
    for form in ("name", "chinese"):
        assert not {getattr(p, form) for p in sealed.people} & {
            getattr(p, form) for p in home.people
        }


def test_the_sealed_town_is_one_town_without_knobs_and_shares_no_fact_and_no_name():
    sealed, home = sealed_town(), World()
    assert sealed == sealed_town() and sealed == World(sealed.seed)
    assert not set(FactTable(sealed).facts) & set(FactTable(home).facts)
    assert sealed.mystery.clues != home.mystery.clues
    assert sum(sealed.mystery.accuse(name) for name in sealed.mystery.suspects) == 1
    assert set(sealed.mystery.suspects) <= {person.name for person in sealed.people}
    names = {person.name for person in (*sealed.people, *home.people)}
    assert not names & town_grammar(sealed).words & town_grammar(home).words


@pytest.mark.parametrize("seed", ["tinytown", "Ada"])
def test_a_knob_changes_what_it_says_and_nothing_else(seed):
    plain = World(seed)
    for knobs in ({"change_rate": 0.5}, {"fame_exponent": 2.0}):
        turned = World(seed, **knobs)
        for part in ("people", "places", "roads", "goods", "mystery"):
            assert getattr(turned, part) == getattr(plain, part)
        assert (turned.fame == plain.fame) == ("fame_exponent" not in knobs)
    turned = World(seed, ambiguity=0.5)
    assert turned.people != plain.people
    assert tuple(replace(p, called=p.name) for p in turned.people) == plain.people


def test_a_knob_at_its_end_holds_for_everybody():
    world = World(n_people=50, ambiguity=1.0, change_rate=1.0)
    assert {person.called for person in world.people} == {"Mei"}
    for before, after in zip(world.people, world.on_day(1), strict=True):
        assert before != after


@pytest.mark.parametrize("n_people", [15, 16, 100, 2500])
def test_no_two_people_share_a_name_in_either_language(n_people):
    people = World(n_people=n_people).people
    assert len({p.name for p in people}) == len({p.chinese for p in people}) == n_people


def test_ambiguity_gives_a_share_of_people_the_name_of_someone_more_famous():
    world = World(n_people=1000, ambiguity=0.3)
    rank = {person.name: i for i, person in enumerate(world.people)}
    others = [(rank[p.name], rank[p.called]) for p in world.people if p.called != p.name]
    assert all(famous < mine for mine, famous in others)
    n = len(others)  # of 999: nobody is more famous than the first
    assert chisquare([n, 999 - n], [0.3 * 999, 0.7 * 999]).pvalue > 0.001


def test_each_day_the_stated_share_changes_and_half_of_them_move_house():
    world = World(n_people=1000, change_rate=0.1)
    days = [world.on_day(day) for day in range(8)]
    assert days[0] == world.people
    kinds = Counter()
    for before, after in pairwise(days):
        for a, b in zip(before, after, strict=True):
            kinds[a.home != b.home, a.likes != b.likes] += 1
            assert replace(b, home=a.home, likes=a.likes) == a
    assert set(kinds) == {(False, False), (True, False), (False, True)}
    found = [kinds[False, False], kinds[True, False], kinds[False, True]]
    assert chisquare(found, [6300, 350, 350]).pvalue > 0.001


def test_a_printed_town_names_its_people_prices_and_question():
    text = str(World("Ada", change_rate=0.5))
    assert "Tinytown" not in text and text.startswith("ADA")
    assert (
        World("Ada").people[0].name in text
        and "open question" in text
        and "change_rate 0.5" in text
    )
    assert re.search(r"loaf \d+", text)
    assert max(map(len, str(World()).splitlines())) <= 100
