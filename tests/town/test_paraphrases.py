import re

import pytest

from minillm.town.paraphrases import MEASURES, N_PARAPHRASES, OCCUPATIONS, PARAPHRASES, say
from minillm.town.tinytown import JOBS, LIKES, OWNS
from minillm.town.world import RELATIONS, World

WORLD = World()
PEOPLE = {person.name: person for person in WORLD.people}


def told(*triple, language="en", paraphrase=0):
    return say(WORLD, PEOPLE, triple, language, paraphrase)


# --- by hand -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("triple", "paraphrase", "english", "chinese"),
    [
        (
            ("Ming", "lives-in", "tea house"),
            2,
            "At the tea house lives Ming.",
            "茶馆是小明住的地方。",
        ),
        (("Ming", "works-as", "pupil"), 0, "Ming is a pupil.", "小明是小学生。"),
        (
            ("Mei", "works-as", "miller's helper"),
            0,
            "Mei is a miller's helper.",
            "小梅是磨坊主的帮手。",
        ),
        (("Lan", "parent-of", "Bean"), 0, "Lan is the mother of Bean.", "阿兰是豆豆的妈妈。"),
        (("Joe", "parent-of", "Bean"), 3, "Joe has a child called Bean.", "豆豆的爸爸叫阿乔。"),
        (("Wen", "likes", "his pencil"), 2, "What Wen likes is his pencil.", None),
        (
            ("Tan", "sells", "dish of pickled radish"),
            0,
            "Tan sells pickled radish.",
            "谭奶奶卖腌萝卜。",
        ),
        (("Kai", "owns", "three cats"), 1, "Three cats belong to Kai.", "三只猫是老凯的。"),
        (("Kai", "owns", "three cats"), 0, "Kai owns three cats.", "老凯有三只猫。"),
        (
            ("Mei", "owns", "orchard's trees"),
            1,
            "The orchard's trees belong to Mei.",
            "果园的树是小梅的。",
        ),
        (("Mei", "owns", "umbrella"), 0, "Mei owns an umbrella.", "小梅有一把雨伞。"),
        (
            ("Lin", "born-in", "well"),
            3,
            "It was at the well that Lin was born.",
            "水井边是林老师出生的地方。",
        ),
    ],
)
def test_facts_are_said_as_people_say_them(triple, paraphrase, english, chinese):
    assert told(*triple, paraphrase=paraphrase) == english
    if chinese:
        assert told(*triple, language="zh", paraphrase=paraphrase) == chinese


def test_people_are_called_as_the_town_calls_them():
    world = World(ambiguity=1.0)
    people = {person.name: person for person in world.people}
    bao = people["Bao"]
    assert bao.called == "Mei"
    assert say(world, people, ("Bao", "works-as", "baker")) == "Mei is a baker."
    assert say(world, people, ("Bao", "works-as", "baker"), "zh") == "小梅是面包师。"
    called = people["Bean"].called
    assert say(world, people, ("Joe", "parent-of", "Bean")).endswith(f"of {called}.")


# --- twin --------------------------------------------------------------------------------------


def test_both_languages_say_every_relation_in_as_many_ways():
    assert set(PARAPHRASES) == {"en", "zh"}
    for ways in PARAPHRASES.values():
        assert tuple(ways) == RELATIONS
        assert {len(set(templates)) for templates in ways.values()} == {N_PARAPHRASES}


# --- law ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_way_names_subject_and_object_once_and_some_the_object_first(language):
    for relation, templates in PARAPHRASES[language].items():
        first = []
        for template in templates:
            fields = [f for f in re.findall(r"{(\w+)}", template) if f not in ("belongs", "parent")]
            assert len(fields) == 2, template
            assert fields.count("s") == 1, template
            first.append(fields[0])
        assert 2 <= first.count("s") < N_PARAPHRASES, relation


def test_every_thing_and_occupation_has_its_words():
    assert len(OCCUPATIONS) == 2 * len(JOBS) + 1 == len(set(OCCUPATIONS.values()))
    countable = [thing for things in MEASURES.values() for thing in things]
    assert len(countable) == len(set(countable))
    assert set(countable) <= set(OWNS.values())
    for thing in OWNS:
        for paraphrase in range(N_PARAPHRASES):
            chinese = told("Mei", "owns", thing, language="zh", paraphrase=paraphrase)
            assert OWNS[thing] in chinese
    assert all(
        told("Mei", "likes", thing, language="zh") == f"小梅喜欢{LIKES[thing]}。" for thing in LIKES
    )


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((("Mei", "likes", "thunder"), "fr"), r'told in "en" \(English\) .* got \'fr\''),
        ((("Mei", "hates", "thunder"),), "no relation 'hates'; there are lives-in"),
        ((("Mei", "likes", "thunder"), "en", 4), "paraphrase must be 0 to 3; got 4"),
        ((("Mei", "likes", "thunder"), "zh", -1), "paraphrase must be 0 to 3; got -1"),
        ((("Nobody", "likes", "thunder"),), "Person 'Nobody' is not in this town"),
        ((("Mei", "parent-of", "Nobody"),), "Person 'Nobody'"),
        (
            (("Mei", "likes", "tax"),),
            "'tax' cannot be the object of likes; there is a certain blue",
        ),
        ((("Mei", "owns", "moon"), "zh"), "'moon' cannot be the object of owns"),
        ((("Mei", "works-as", "king"),), "'king' cannot be the object of works-as"),
        ((("Mei", "lives-in", "moon"),), "Place 'moon'"),
        ((("Mei", "sells", "moon"),), "Good 'moon'"),
    ],
)
def test_what_is_wrong_is_named(arguments, says):
    with pytest.raises(ValueError, match=says):
        say(WORLD, PEOPLE, *arguments)
