"""minillm.town.hearsay: what is said, beside what is so."""

import pytest
from scipy.stats import chisquare

from minillm.town.hearsay import liar_of, tell
from minillm.town.world import RELATIONS, World


def everything_said(world, relation="likes"):
    return [
        tell(world, speaker.name, subject.name, relation)
        for speaker in world.people
        for subject in world.people[:20]
    ]


def test_without_knobs_everybody_tells_the_truth():
    world = World(n_people=20)
    assert all(told.is_true for told in everything_said(world))
    assert tell(world, "Bao", "Mei", "sells").said in world.person("Mei").sells


def test_the_liar_is_the_only_one_who_says_what_is_not_so():
    world = World(n_people=30, liar=True)
    liar = liar_of(world).name
    for told in everything_said(world):
        assert told.is_true == (told.speaker != liar)


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_wrong_answer_is_an_answer_to_the_same_question(relation):
    world = World(liar=True)
    answers = {answer for p in world.people for answer in world.objects(p, relation)}
    subject = next(p for p in world.people if world.objects(p, relation))
    told = tell(world, liar_of(world).name, subject.name, relation)
    assert told.said in answers and told.said not in told.true


def test_the_same_question_gets_the_same_answer():
    world = World(rumours=0.5, liar=True)
    asked = [tell(world, "Bao", "Mei", "likes") for _ in range(3)]
    assert asked[0] == asked[1] == asked[2]


def test_a_rumour_is_one_wrong_answer_that_about_half_the_town_believes():
    world = World(rumours=1.0)
    told = [tell(world, person.name, "Mei", "likes") for person in world.people]
    wrong = {t.said for t in told if not t.is_true}
    assert len(wrong) == 1
    assert 35 <= sum(t.is_true for t in told) <= 68
    assert all(tell(world, p.name, p.name, "likes").is_true for p in world.people)


def test_rumours_and_their_believers_are_as_many_as_stated():
    # Of eight who are asked, somebody believes a rumour: but for one in 256 it is noticed.
    world = World(n_people=500, rumours=0.3)
    asked = world.people[:9]
    wrong = []
    for subject in world.people:
        others = [person for person in asked if person != subject][:8]
        wrong.append(sum(not tell(world, s.name, subject.name, "likes").is_true for s in others))
    rumours = [n for n in wrong if n]
    n = len(rumours)
    assert chisquare([n, 500 - n], [0.3 * 500, 0.7 * 500]).pvalue > 0.001
    assert chisquare([sum(rumours), 8 * n - sum(rumours)]).pvalue > 0.001


def test_a_liar_in_a_town_full_of_rumours_still_says_nothing_that_is_so():
    world = World(n_people=30, liar=True, rumours=1.0)
    liar = liar_of(world).name
    assert not any(tell(world, liar, p.name, "likes").is_true for p in world.people)


def test_a_question_without_an_answer_is_refused():
    with pytest.raises(ValueError, match="Su has no born-in"):
        tell(World(), "Mei", "Su", "born-in")
    with pytest.raises(ValueError, match="'Zed' is not in this town"):
        tell(World(), "Zed", "Su", "likes")
