"""minillm.town.story_words: what is said can be read back."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.town.names import SYLLABLES
from minillm.town.story_words import (
    CLAUSES,
    N_WAYS,
    OPENINGS,
    WAYS,
    Reading,
    Words,
    sentences,
    things_of,
    words,
)
from minillm.town.world import World

WORLD = World()
PEOPLE = [person.name for person in WORLD.people]
PLACES = [place.name for place in WORLD.places]
GOODS = list(things_of(WORLD))

# --- by hand ---


@pytest.mark.parametrize(
    ("kind", "way", "english", "chinese"),
    [
        ("introduce", 0, "Mei is in Plum Lane.", "小梅在李子巷。"),
        ("bring", 1, "Mei is in Plum Lane and has an egg.", "小梅在李子巷，手里有一个茶叶蛋。"),
        ("lie", 2, "In Plum Lane lies an egg.", "有一个茶叶蛋放在李子巷。"),
        ("go", 1, "Then Mei walks to Plum Lane.", "然后小梅走到李子巷。"),
        ("take", 1, "Mei picks up the egg in Plum Lane.", "小梅在李子巷拿起茶叶蛋。"),
        ("put", 0, "Mei puts down the egg.", "小梅放下茶叶蛋。"),
        ("give", 1, "Mei gives Bao the egg.", "小梅给了大宝茶叶蛋。"),
        ("meet", 1, "Mei says hello to Bao.", "小梅向大宝问好。"),
        ("miss", 0, "Mei looks for the egg, but it is not there.", "小梅找茶叶蛋，可是这里没有。"),
    ],
)
def test_events_are_said_as_people_say_them(kind, way, english, chinese):
    names = {"person": "Mei", "thing": "egg", "place": "Plum Lane", "other": "Bao"}
    assert words(WORLD, "en").say(kind, names, way) == english
    assert words(WORLD, "zh").say(kind, names, way) == chinese


def test_the_end_is_one_sentence_of_one_or_two_clauses():
    clauses = [
        ("end-has", {"person": "Bao", "thing": "kite"}),
        ("end-at", {"person": "Mei", "place": "clock tower"}),
    ]
    english, chinese = words(WORLD, "en"), words(WORLD, "zh")
    assert english.say_end(clauses) == "At the end, Bao has the kite and Mei is at the clock tower."
    assert chinese.say_end(clauses, 2) == "一天结束时，大宝拿着风筝，小梅在钟楼。"
    assert [(r.kind, r.names, r.way) for r in chinese.read(chinese.say_end(clauses, 2))] == [
        (*clause, 2) for clause in clauses
    ]


def test_a_pronoun_is_read_as_one():
    assert words(WORLD, "en").read("She goes to the well.") == (
        Reading("go", {"person": "she", "place": "well"}, 0),
    )
    assert words(WORLD, "zh").read("他去了水井边。") == (
        Reading("go", {"person": "he", "place": "well"}, 0),
    )


@pytest.mark.parametrize(
    "sentence",
    [
        "mei goes to the well.",
        "Mei goes to the well",
        "Mei goes to well.",
        "Mei goes to the Plum Lane.",
        "Mei is in the well.",
        "Mei is at Plum Lane.",
        "Bob goes to the well.",
        "Mei goes to the moon.",
        "Mei picks up a kite.",
        "a kite lies at the well.",
        "A egg lies at the well.",
        "Then she walks  to the well.",
        "Then She walks to the well.",
        "Mei goes to the kite.",
        "Mei gives the well to Bao.",
        "At the end, Mei goes to the well.",
        "At the end, Mei has the kite.and",
        "Mei has the kite.",
        "At the end, .",
        "小梅去了水井边。",
        ".",
        "",
    ],
)
def test_what_is_nearly_a_sentence_is_none(sentence):
    assert words(WORLD, "en").read(sentence) == ()


# --- twin ---


def all_names(i):
    return {
        "person": PEOPLE[i % len(PEOPLE)],
        "other": PEOPLE[(i * 7 + 1) % len(PEOPLE)],
        "thing": GOODS[i % len(GOODS)],
        "place": PLACES[(i // 3) % len(PLACES)],
    }


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(
    "world", [WORLD, World("Ada"), World(7, n_people=200)], ids=["tinytown", "Ada", "7"]
)
def test_what_is_said_is_read(world, language):
    spoken = words(world, language)
    people = [person.name for person in world.people]
    places = [place.name for place in world.places]
    for i, (kind, way) in product(range(len(people)), product(WAYS[language], range(N_WAYS))):
        names = all_names(i) | {
            "person": people[i],
            "other": people[i - 1],
            "place": places[i % len(places)],
        }
        (reading,) = spoken.read(spoken.say(kind, names, way))
        assert (reading.kind, reading.way) == (kind, way)
        assert reading.names.items() <= names.items()


# --- reference ---


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_event_has_three_different_wordings_that_name_whom_it_needs(language):
    for kind, ways in WAYS[language].items():
        assert len(set(ways)) == N_WAYS, kind
        assert all(("{p}" in way) == (kind != "lie") for way in ways)
        assert all(("{o}" in way) == (kind in ("give", "meet")) for way in ways)
    assert set(WAYS["en"]) == set(WAYS["zh"])
    assert set(CLAUSES["en"]) == set(CLAUSES["zh"])
    assert len(set(OPENINGS[language])) == N_WAYS


def test_no_chinese_name_can_run_into_the_words_around_it():
    # Names are made of these characters; wordings use none of them beside a blank.
    said = [*sum(WAYS["zh"].values(), ()), *CLAUSES["zh"].values()]
    beside = {part[:1] for way in said for part in way.split("}")[1:]}
    beside |= {part[-1:] for way in said for part in way.split("{")[:-1]}
    assert not (beside - {""}) & set("".join(SYLLABLES.values()))


# --- law ---

CLAUSE = st.one_of(
    st.tuples(st.just("end-at"), st.sampled_from(PEOPLE), st.sampled_from(PLACES)),
    st.tuples(st.just("end-has"), st.sampled_from(PEOPLE), st.sampled_from(GOODS)),
    st.tuples(st.just("end-lies"), st.sampled_from(GOODS), st.sampled_from(PLACES)),
)
OF = {
    "end-at": ("person", "place"),
    "end-has": ("person", "thing"),
    "end-lies": ("thing", "place"),
}


@given(st.lists(CLAUSE, min_size=1, max_size=3), st.sampled_from(["en", "zh"]), st.integers(0, 2))
def test_every_end_is_read_as_it_was_said(clauses, language, way):
    spoken = words(WORLD, language)
    named = [(kind, dict(zip(OF[kind], names, strict=True))) for kind, *names in clauses]
    read = spoken.read(spoken.say_end(named, way))
    assert [(part.kind, part.names, part.way) for part in read] == [(*c, way) for c in named]


@given(st.text(max_size=40))
def test_any_text_can_be_cut_and_read(text):
    for language in ("en", "zh"):
        whole, rest = sentences(text, language)
        for sentence in [*whole, rest]:
            words(WORLD, language).read(sentence)
        assert "".join([*whole, rest]).split() == text.split() or " " in text or not text.strip()


# --- what stops it ---


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("eat", {"person": "Mei"}), "no event 'eat'; there are introduce"),
        (("go", {"person": "Mei", "place": "well"}, 3), "way must be 0 to 2; got 3"),
        (("go", {"person": "Bob", "place": "well"}), "no person 'Bob'"),
        (("go", {"person": "Mei", "place": "moon"}), "no place 'moon'"),
        (("take", {"person": "Mei", "thing": "ointment"}), "no thing 'ointment' that a story"),
        (("go", {"person": "Mei"}), "needs the name of a place"),
    ],
)
def test_what_is_wrong_is_named(arguments, says):
    with pytest.raises(ValueError, match=says):
        words(WORLD, "en").say(*arguments)


def test_a_third_language_is_refused():
    with pytest.raises(ValueError, match=r'told in "en" \(English\) and "zh" .* got \'fr\''):
        Words(WORLD, "fr")
