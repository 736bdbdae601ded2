"""Questions about people: the calls lead to the answer, in any town."""

from collections import Counter

import pytest

from minillm.recipes.look_ups import KINDS, PARENT, UNKNOWN, LookUpSource
from minillm.recipes.town_tools import NOTHING, look_up_in
from minillm.town.world import World

WORLD = World("another town")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_calls_lead_to_the_answer(language):
    look_up = look_up_in(WORLD)
    for question in LookUpSource(WORLD, language).block(0):
        *hops, (person, relation) = question.calls
        for child, parent in hops:  # the second call is about the result of the first
            assert look_up(child, parent) == person
            assert PARENT[parent][language].format(s=child) in question.text
        if question.kind == "stranger":
            with pytest.raises(ValueError, match="nobody called"):
                look_up(person, relation)
            assert question.answer == UNKNOWN[language]
        elif (result := look_up(person, relation)) == NOTHING[language]:
            assert question.answer == UNKNOWN[language]
        else:
            assert person in question.answer and result in question.answer
        assert (hops or [question.calls[0]])[0][0] in question.text


def test_all_kinds_come_about_as_often_as_they_should():
    source = LookUpSource(WORLD)
    kinds = Counter(each.kind for index in range(8) for each in source.block(index))
    for kind, share in KINDS.items():
        assert kinds[kind] / 512 == pytest.approx(share, abs=0.08)
    assert source.block(0) == LookUpSource(WORLD).block(0) != source.block(0, "another")


def test_most_questions_have_an_answer_but_not_all():
    answers = [each.answer for n in range(4) for each in LookUpSource(World(), "zh").block(n)]
    assert 0.08 < answers.count(UNKNOWN["zh"]) / 256 < 0.3


def test_what_cannot_be_asked_for_is_refused():
    with pytest.raises(ValueError, match='language must be "en" or "zh"'):
        LookUpSource(WORLD, "fr")
    with pytest.raises(ValueError, match="counted from 0; got -1"):
        LookUpSource(WORLD).block(-1)
