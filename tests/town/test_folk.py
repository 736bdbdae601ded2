"""minillm.town.folk: the cast, and households around it."""

import random

import pytest

from minillm.town.folk import common_likes, homes, invent, read_cast
from minillm.town.names import names
from minillm.town.terrain import read_places
from minillm.town.tinytown import JOBS

PLACES = [place.name for place in read_places()]
STOCK = {"baker": ("bun", "loaf")}

# --- by hand ---


def test_a_keeper_sells_and_a_helper_does_not():
    people = invent(60, names(60, 1), PLACES, STOCK, random.Random(1), tinytown=False)
    bakers = [person for person in people if person.job == "baker"]
    assert [p.sells for p in bakers if p.keeper] == [("bun", "loaf")]
    assert {p.works_as for p in bakers} == {"baker", "baker's helper"}
    assert all(p.sells == () for p in bakers if not p.keeper)


def test_nobody_else_likes_what_belongs_to_one_of_the_cast():
    assert "his pencil" in {person.likes for person in read_cast({})}
    assert "his pencil" not in common_likes()


def test_nobody_lives_on_the_hill_or_on_the_bridge():
    assert not {"hill", "stone bridge"} & set(homes(PLACES, tinytown=False))


# --- law ---


@pytest.mark.parametrize("n", [12, 13, 20, 103, 500])
@pytest.mark.parametrize("seed", range(5))
def test_every_job_has_one_keeper_and_families_hang_together(n, seed):
    people = invent(n, names(n, seed), PLACES, STOCK, random.Random(seed), tinytown=False)
    assert len(people) == n
    assert sorted(p.job for p in people if p.keeper) == sorted(JOBS)
    by_name = {person.name: person for person in people}
    for person in people:
        for parent in person.parents:
            assert person.name in by_name[parent].children
            assert by_name[parent].home == person.home
            assert by_name[parent].age >= person.age + 20
        for child in person.children:
            assert person.name in by_name[child].parents
        assert (person.job == "pupil") == (6 <= person.age <= 15)
