"""minillm.town.mystery: clues that leave one person, and an answer under seal."""

import random
import re

import pytest
from scipy.stats import chisquare

from minillm.town import mystery
from minillm.town.mystery import invent_mystery, tinytown_mystery
from minillm.town.world import World


def test_exactly_one_of_the_suspects_did_it():
    found = tinytown_mystery()
    assert sum(found.accuse(name) for name in found.suspects) == 1
    assert {"Joe", "Kai", "Wen", "Mei"} <= {n for n in found.suspects if not found.accuse(n)}


def test_all_suspects_live_in_the_town():
    for world in (World(), World("Ada")):
        assert set(world.mystery.suspects) <= {person.name for person in world.people}


def test_the_answer_is_not_in_the_clear():
    assert re.fullmatch("[0-9a-f]{64}", tinytown_mystery().sealed)


def test_someone_who_is_no_suspect_cannot_be_accused():
    with pytest.raises(ValueError, match="'Bean' is no suspect; there are Mei"):
        tinytown_mystery().accuse("Bean")


def test_two_suspects_are_too_few():
    with pytest.raises(ValueError, match="at least 3 suspects; got 2"):
        invent_mystery(["Ada", "Bob"], random.Random(0))


@pytest.mark.parametrize("seed", range(40))
def test_the_three_clues_of_an_invented_mystery_leave_the_one_who_did_it(seed):
    suspects = ["Ada", "Bob", "Cid", "Dee", "Eve"]
    found = invent_mystery(suspects, random.Random(seed))
    left = [name for name in suspects if all(name in clue for clue in found.clues)]
    assert [name for name in suspects if found.accuse(name)] == left
    assert len(left) == 1


def test_anybody_may_have_done_it_as_likely_as_any_other():
    suspects = ["Ada", "Bob", "Cid", "Dee", "Eve"]
    found = [invent_mystery(suspects, random.Random(f"law/{seed}")) for seed in range(1000)]
    counts = [sum(mystery.accuse(name) for mystery in found) for name in suspects]
    assert sum(counts) == 1000
    assert chisquare(counts).pvalue > 0.001


def test_the_seal_does_not_depend_on_spaces_or_capitals():
    assert mystery.seal("Ada B") == mystery.seal("  ada  b")
    assert mystery.seal("Ada") != mystery.seal("Adb")
