"""minillm.town.story_words: what is said can be read back."""

import re
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minillm.town.names import SYLLABLES
from minillm.town.paraphrases import BESIDE
from minillm.town.stories import WEIGHTS, StorySource
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
        ("introduce", 2, "Mei stands in Plum Lane.", "小梅站在李子巷。"),
        ("bring", 0, "Mei has an egg and is in Plum Lane.", "小梅有一个茶叶蛋，在李子巷。"),
        ("bring", 2, "Mei stands with an egg in Plum Lane.", "小梅拿着一个茶叶蛋站在李子巷。"),
        ("lie", 2, "Somebody has left an egg in Plum Lane.", "有一个茶叶蛋放在李子巷。"),
        ("go", 0, "Mei goes to Plum Lane.", "小梅去了李子巷。"),
        ("go", 1, "Then Mei walks from the well to Plum Lane.", "然后小梅从水井边走到李子巷。"),
        ("go", 2, "Mei leaves the well and goes to Plum Lane.", "小梅离开水井边，去了李子巷。"),
        ("take", 1, "Mei picks up the egg in Plum Lane.", "小梅在李子巷拿起茶叶蛋。"),
        ("put", 0, "Mei puts down the egg.", "小梅放下茶叶蛋。"),
        ("give", 1, "Mei gives Bao the egg in Plum Lane.", "小梅在李子巷给了大宝茶叶蛋。"),
        ("meet", 1, "Mei says hello to Bao in Plum Lane.", "小梅在李子巷向大宝问好。"),
        ("miss", 0, "Mei looks for the egg, but it is not there.", "小梅找茶叶蛋，可是这里没有。"),
    ],
)
def test_events_are_said_as_people_say_them(kind, way, english, chinese):
    names = {
        "person": "Mei",
        "thing": "egg",
        "place": "Plum Lane",
        "other": "Bao",
        "origin": "well",
    }
    assert words(WORLD, "en").say(kind, names, way) == english
    assert words(WORLD, "zh").say(kind, names, way) == chinese


@pytest.mark.parametrize(
    ("kind", "names", "said"),
    [
        ("go", {"place": "mill"}, "Mei goes to the mill"),
        ("go", {"place": "mill", "origin": "well"}, "Mei leaves the well and goes to the mill"),
        ("take", {"thing": "egg"}, "Mei picks up the egg"),
        ("take", {"thing": "egg", "place": "mill"}, "Mei picks up the egg at the mill"),
        ("give", {"thing": "egg", "other": "Bao"}, "Mei gives the egg to Bao"),
        (
            "give",
            {"thing": "egg", "other": "Bao", "place": "mill"},
            "Mei gives Bao the egg at the mill",
        ),
        ("meet", {"other": "Bao"}, "Mei meets Bao"),
        ("meet", {"other": "Bao", "place": "mill"}, "Mei says hello to Bao at the mill"),
        ("end-at", {"place": "mill"}, "Mei is at the mill"),
    ],
)
def test_an_event_is_said_plainly_with_where_or_from_where_if_that_is_known(kind, names, said):
    assert words(WORLD, "en").say_plainly(kind, {"person": "Mei", **names}) == said


def test_a_text_is_cut_around_names_of_all_kinds():
    chinese, english = words(WORLD, "zh"), words(WORLD, "en")
    assert chinese.parted("然后她从水井边走到李子巷。小梅拿起茶叶蛋。") == [
        *("然后", "她", "从", "水井边", "走到", "李子巷", "。"),
        *("小梅", "拿起", "茶叶蛋", "。"),
    ]
    assert english.parted("There is an egg at the well.") == [
        "There is ",
        "an egg",
        " ",
        "at the well",
        ".",
    ]
    assert chinese.parted("") == []


def test_the_end_is_one_sentence_of_one_clause_or_several():
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
    assert english.say_end(clauses[:1], 2) == "Finally, Bao has the kite."


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
        "Then she walks  from the mill to the well.",
        "Then She walks from the mill to the well.",
        "Then she walks to the well.",
        "Mei leaves the mill.",
        "Mei leaves mill and goes to the well.",
        "At the well stands Mei.",
        "{p} goes to {l}.",
        "There is {a} {at}.",
        "At the end, {p} has {t}.",
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
        "origin": PLACES[(i // 3 + 1) % len(PLACES)],
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
            "origin": places[i // 2 % len(places)],
        }
        (reading,) = spoken.read(spoken.say(kind, names, way))
        assert (reading.kind, reading.way) == (kind, way)
        assert reading.names.items() <= names.items()


@pytest.mark.parametrize("world", [WORLD, World(7, n_people=200)], ids=["tinytown", "7"])
def test_a_parted_sentence_is_its_template_with_every_blank_a_piece(world):
    spoken, goods = words(world, "zh"), things_of(world)

    def in_chinese(place):
        return BESIDE.get(place.chinese, place.chinese)

    for i, person in enumerate(world.people):
        good, other = world.good(goods[i % len(goods)]), world.people[i - 1]
        place, origin = (
            world.places[i % len(world.places)],
            world.places[i // 2 % len(world.places)],
        )
        names = {
            "person": person.name,
            "other": other.name,
            "thing": good.name,
            "place": place.name,
            "origin": origin.name,
        }
        forms = {
            "p": person.chinese,
            "o": other.chinese,
            "t": good.chinese,
            "a": f"一{good.measure}{good.chinese}",
            "l": in_chinese(place),
            "f": in_chinese(origin),
        }
        for kind, way in product(WAYS["zh"], range(N_WAYS)):
            parts = re.split(r"{(\w+)}", WAYS["zh"][kind][way])
            parts[1::2] = [forms[blank] for blank in parts[1::2]]
            assert spoken.parted(spoken.say(kind, names, way)) == [part for part in parts if part]


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


@pytest.mark.parametrize("language", ["en", "zh"])
def test_wording_0_of_what_happens_does_not_say_where_and_the_others_do(language):
    for kind in WEIGHTS:
        where = r"{f}" if kind == "go" else r"{(l|at)}"
        said = [bool(re.search(where, way)) for way in WAYS[language][kind]]
        assert said == [False, True, True], kind
    for kind in ("introduce", "bring", "lie", "go"):
        assert all(re.search(r"{(l|at)}", way) for way in WAYS[language][kind])


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_wording_and_clause_begins_with_who_or_what_and_not_with_where(language):
    for way in [*sum(WAYS[language].values(), ()), *CLAUSES[language].values()]:
        blanks = re.findall(r"{(\w+)}", way)
        assert blanks[0] in ("p", "a", "t")
        assert set(blanks[1:]) & {"l", "at", "t", "a", "o"}


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


@given(st.lists(CLAUSE, min_size=1, max_size=6), st.sampled_from(["en", "zh"]), st.integers(0, 2))
def test_every_end_is_read_as_it_was_said(clauses, language, way):
    spoken = words(WORLD, language)
    named = [(kind, dict(zip(OF[kind], names, strict=True))) for kind, *names in clauses]
    read = spoken.read(spoken.say_end(named, way))
    assert [(part.kind, part.names, part.way) for part in read] == [(*c, way) for c in named]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_parts_of_a_story_are_the_story_and_every_name_in_it_is_a_part(language):
    spoken = words(WORLD, language)
    for story in StorySource(WORLD, language).block(0):
        parts = spoken.parted(story.text)
        assert "".join(parts) == story.text
        for name, _ in story.states[-1].people:
            form = WORLD.person(name).chinese if language == "zh" else name
            assert parts.count(form) == story.text.count(form) > 0


@given(st.text(max_size=40))
def test_the_parts_of_any_text_are_the_text(text):
    for language in ("en", "zh"):
        parts = words(WORLD, language).parted(text)
        assert "".join(parts) == text
        assert "" not in parts


@given(st.text(max_size=40))
@example("There is {a} {at}.")
@example(".\x850")  # a line end of other machines, which is white space
def test_any_text_can_be_cut_and_read(text):
    for language in ("en", "zh"):
        whole, rest = sentences(text, language)
        for sentence in [*whole, rest]:
            words(WORLD, language).read(sentence)
        # only white space is left out, at the ends of sentences
        assert "".join("".join([*whole, rest]).split()) == "".join(text.split())


# --- what stops it ---


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("eat", {"person": "Mei"}), "no event 'eat'; there are introduce"),
        (("go", {"person": "Mei", "place": "well"}, 3), "way must be 0 to 2; got 3"),
        (("go", {"person": "Bob", "place": "well"}), "no person 'Bob'"),
        (("go", {"person": "Mei", "place": "moon"}), "no place 'moon'"),
        (("take", {"person": "Mei", "thing": "ointment"}), "no thing 'ointment' that a story"),
        (("go", {"person": "Mei"}), "needs the name of the place"),
        (("go", {"person": "Mei", "place": "well"}, 1), "needs the name of the origin"),
        (("go", {"person": "Mei", "place": "well", "origin": "moon"}, 1), "no origin 'moon'"),
    ],
)
def test_what_is_wrong_is_named(arguments, says):
    with pytest.raises(ValueError, match=says):
        words(WORLD, "en").say(*arguments)


def test_a_third_language_is_refused():
    with pytest.raises(ValueError, match=r'told in "en" \(English\) and "zh" .* got \'fr\''):
        Words(WORLD, "fr")
