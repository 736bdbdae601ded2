"""minillm.town.story_check: what the text alone gives away."""

import random
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minillm.town import stories
from minillm.town.stories import StorySource
from minillm.town.story_check import check, share_read
from minillm.town.story_state import Event
from minillm.town.story_words import sentences, things_of, words
from minillm.town.world import World

WORLD = World()
STORIES = {
    language: [s for index in range(10) for s in StorySource(WORLD, language).block(index)]
    for language in ("en", "zh")
}
BEGIN = "Mei has a kite and is at the well. Bao is at the mill. A jar lies at the mill. "

# --- by hand ---


def test_a_story_is_finished_when_it_says_what_is_so_in_the_end():
    assert not check("", WORLD).finished
    assert not check(BEGIN, WORLD).finished
    assert check(BEGIN + "In the end, Mei has the kite.", WORLD).finished
    assert not check("In the end, Mei has the kite. " + BEGIN, WORLD).finished


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "Bao picks up the kite at the well.",
            "Bao picks up the kite at the well, but Bao is at the mill",
        ),
        ("Bao picks up the kite.", "Bao picks up the kite at the mill, but the kite is with Mei"),
        (
            "Mei picks up the jar.",
            "Mei picks up the jar at the well, but the jar lies at the mill",
        ),
        (
            "Mei gives the kite to Bao.",
            "Mei gives Bao the kite at the well, but Bao is at the mill",
        ),
        ("Mei meets Bao.", "Mei says hello to Bao at the well, but Bao is at the mill"),
        (
            "Mei greets Bao at the mill.",
            "Mei says hello to Bao at the mill, but Mei is at the well",
        ),
        (
            "Mei goes to the well.",
            "Mei leaves the well and goes to the well, but Mei is at the well already",
        ),
        (
            "Mei leaves the hill and goes to the mill.",
            "Mei leaves the hill and goes to the mill, but Mei is at the well",
        ),
        (
            "Then Bao walks from the well to the hill.",
            "Bao leaves the well and goes to the hill, but Bao is at the mill",
        ),
        (
            "Bao cannot find the jar at the mill.",
            "Bao looks for the jar at the mill in vain, but the jar lies at the mill",
        ),
        ("Dan goes to the well.", "Dan goes to the well, but Dan was never introduced"),
        ("Mei puts down the bun.", "Mei puts the bun down at the well, but the bun was never in"),
        ("At the end, Bao has the kite.", "Bao has the kite, but the kite is with Mei"),
        ("At the end, the kite lies at the well.", "The kite lies at the well, but the kite is w"),
        (
            "At the end, Mei has the kite and Mei is at the mill.",
            "Mei is at the mill, but Mei is at the well",
        ),
        ("Then he walks from the mill to the well.", "'he' fits nobody in the sentence before"),
        ("Mei stands at the mill.", "Mei is at the mill, but Mei is at the well"),
    ],
)
def test_each_kind_of_contradiction_is_found_and_explained(text, problem):
    report = check(BEGIN + text, WORLD)
    assert len(report.contradictions) == len(report.problems) == 1
    assert report.contradictions[0].removeprefix("sentence 4: ").startswith(problem)
    assert not report.consistent


@pytest.mark.parametrize(
    "sentence", ["Mei leaves {} and goes to {}.", "Then Mei walks from {} to {}."]
)
def test_a_right_from_is_no_contradiction_and_a_wrong_one_is_one(sentence):
    assert check(BEGIN + sentence.format("the well", "the mill"), WORLD).problems == ()
    wrong = check(BEGIN + sentence.format("the hill", "the mill"), WORLD)
    assert len(wrong.contradictions) == len(wrong.problems) == 1
    assert wrong.states[-1].place_of("Mei") == "mill"


def test_where_it_happens_and_from_where_one_goes_are_filled_in_if_they_are_not_said():
    report = check(BEGIN + "Mei goes to the mill. Mei puts down the kite.", WORLD)
    assert report.problems == ()
    assert report.events[-2:] == (
        Event("go", "Mei", place="mill", origin="well"),
        Event("put", "Mei", "kite", place="mill"),
    )
    assert check(BEGIN + "Dan goes to the well.", WORLD).events[-1].origin is None


def test_a_roll_call_is_held_to_every_name_of_its_end():
    text = (
        "Mei is at the well. Bao waits at the mill. Tan stands at the hill. Dan is in Plum Lane. "
    )
    end = "At the end, Dan is in Plum Lane and Mei is at the well and {} is at the mill"
    end += " and Tan is at the hill."
    assert check(text + end.format("Bao"), WORLD).consistent
    assert check(text + end.format("Tan"), WORLD).contradictions == (
        "sentence 5: Tan is at the mill, but Tan is at the hill",
    )


def test_the_same_in_chinese():
    text = "小梅带着一只风筝在水井边。大宝在磨坊。小梅把风筝给了大宝。"
    report = check(text, WORLD)
    assert report.problems == (
        "sentence 3: Mei gives Bao the kite at the well, but Bao is at the mill",
    )
    begin = "小梅带着一只风筝在水井边。大宝在磨坊。"
    assert check(begin + "小梅离开水井边，去了磨坊。", WORLD).problems == ()
    assert check(begin + "然后大宝从水井边走到钟楼。", WORLD).problems == (
        "sentence 3: Bao leaves the well and goes to the clock tower, but Bao is at the mill",
    )


def test_one_slip_is_counted_once():
    text = BEGIN + (
        "Bao picks up the kite. He goes to the hill. He puts down the kite. "
        "At the end, the kite lies at the hill and Bao is at the hill."
    )
    assert len(check(text, WORLD).problems) == 1


def test_a_pronoun_is_the_one_whom_it_fits():
    text = BEGIN + "Mei goes to the mill. She gives Bao the kite at the mill."
    text += " He leaves the kite at the mill."
    report = check(text + " At the end, Mei is at the mill.", WORLD)
    assert report.consistent
    assert [event.person for event in report.events[3:]] == ["Mei", "Mei", "Bao", "Mei"]


def test_a_pronoun_that_fits_two_is_the_one_who_acted():
    text = (
        "Mei is at the well. Tan is at the well. Mei greets Tan at the well. She goes to the mill."
    )
    assert check(text, WORLD).events[-1].person == "Mei"


def test_after_the_end_nothing_happens():
    text = BEGIN + "At the end, Mei has the kite. Mei goes to the mill."
    assert check(text, WORLD).contradictions == (
        "sentence 5: Mei leaves the well and goes to the mill, but the end was told before",
    )
    assert check(
        BEGIN + "At the end, Mei has the kite. Finally, Bao is at the mill.", WORLD
    ).consistent


def test_what_cannot_be_read_is_told_from_what_contradicts():
    report = check(BEGIN + "Bob goes to the well. Mei gives Bao. At the end, Mei has", WORLD)
    assert report.contradictions == ()
    assert report.unreadable == (
        "sentence 4: 'Bob goes to the well.' has words that no story of this town has: Bob",
        "sentence 5: 'Mei gives Bao.' is said in none of the stories' wordings",
    )
    assert report.incomplete == ("sentence 6 is cut off after 'At the end, Mei has'",)
    assert report.n_sentences == 5
    assert check("小梅走走走。", WORLD).unreadable != ()


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_text_is_incomplete(text):
    assert check(text, WORLD).incomplete == ("sentence 1 is missing: the text is empty",)


def test_a_story_does_not_change_its_language():
    assert check(BEGIN + "大宝在磨坊。 Bao goes to the hill.", WORLD).unreadable != ()


# --- twin: a second bookkeeper, who knows the rules in another way ---


def possible_story(events):
    """Whether a row of events can happen: one table of where everything is, things in hands being
    at "@" and the name."""
    where = {}

    def is_at(name):
        spot = where.get(name, "")
        return where.get(spot[1:], "") if spot.startswith("@") else spot

    for e in events:
        kind, who, thing, place, other = e.kind, e.person, e.thing, e.place, e.other
        new = kind in ("introduce", "bring", "lie")
        subjects = [name for name in (who, thing, other) if name]
        if not new and any(name not in where for name in subjects):
            return False
        match kind:
            case "introduce":
                fine = where.get(who, place) == place
            case "bring":
                fine = where.get(who, place) == place and where.get(thing, "@" + who) == "@" + who
            case "lie":
                fine = where.get(thing, place) == place
            case "go":
                fine = where[who] == e.origin != place
            case "take":
                fine = where[who] == place == where[thing]
            case "put":
                fine = where[who] == place and where[thing] == "@" + who
            case "give":
                fine = where[thing] == "@" + who and where[who] == where[other] == place
                fine = fine and who != other
            case "meet":
                fine = where[who] == where[other] == place and who != other
            case "miss":
                fine = where[who] == place != is_at(thing)
            case "end-at":
                fine = where[who] == place
            case "end-has":
                fine = where[thing] == "@" + who
            case "end-lies":
                fine = where[thing] == place
        if not fine:
            return False
        if kind in ("introduce", "bring", "go"):
            where[who] = place
        if kind in ("bring", "take"):
            where[thing] = "@" + who
        if kind in ("lie", "put"):
            where[thing] = place
        if kind == "give":
            where[thing] = "@" + other
    return True


def told(events, language):
    """The events in wordings that say all, without pronouns."""
    spoken = words(WORLD, language)
    ways = {"go": 1, "take": 1, "put": 1, "give": 2, "meet": 2, "miss": 1}
    ends = [(e.kind, e.names) for e in events if e.kind.startswith("end-")]
    said = [spoken.say(e.kind, e.names, ways.get(e.kind, 0)) for e in events[: -len(ends)]]
    return ("" if language == "zh" else " ").join([*said, spoken.say_end(ends)])


def corrupt(story, kind, rng):
    """The events with one thing wrong with them, or None if this story has no place for it."""
    events = list(story.events)
    acts = [
        i for i, e in enumerate(events) if e.kind in ("go", "take", "put", "give", "meet", "miss")
    ]
    people = [name for name, _ in story.states[-1].people]
    walks = [i for i in acts if events[i].kind == "go"]
    if not acts and kind != "end":  # a roll call
        return None
    match kind:
        case "actor":
            i = rng.choice(acts)
            others = [name for name in people if name not in (events[i].person, events[i].other)]
            if not others:
                return None
            events[i] = replace(events[i], person=rng.choice(others))
        case "place":
            i = rng.choice(acts)
            others = [place.name for place in WORLD.places if place.name != events[i].place]
            events[i] = replace(events[i], place=rng.choice(others))
        case "thing":
            acts = [i for i in acts if events[i].thing]
            if not acts:
                return None
            i = rng.choice(acts)
            others = [thing for thing in things_of(WORLD) if thing != events[i].thing]
            events[i] = replace(events[i], thing=rng.choice(others))
        case "drop":
            if not walks:
                return None
            del events[rng.choice(walks)]
        case "origin":
            if not walks:
                return None
            i = rng.choice(walks)
            others = [place.name for place in WORLD.places if place.name != events[i].origin]
            events[i] = replace(events[i], origin=rng.choice(others))
        case "order":
            i = rng.choice(acts)
            if i + 1 not in acts:
                return None
            events[i], events[i + 1] = events[i + 1], events[i]
        case "end":
            e = events[-1]
            if e.kind == "end-has":
                events[-1] = replace(e, person=rng.choice([n for n in people if n != e.person]))
            else:
                others = [place.name for place in WORLD.places if place.name != e.place]
                events[-1] = replace(e, place=rng.choice(others))
    return events


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("kind", ["actor", "place", "thing", "drop", "origin", "order", "end"])
def test_a_corruption_that_changes_the_truth_is_found_and_no_other(kind, language):
    rng, n_false, n_found, n_true, n_accepted = random.Random(f"{kind}/{language}"), 0, 0, 0, 0
    for story in STORIES[language][:160]:
        events = corrupt(story, kind, rng)
        if events is None:
            continue
        report = check(told(events, language), WORLD)
        assert not report.unreadable
        if possible_story(events):
            n_true += 1
            n_accepted += report.consistent
        else:
            n_false += 1
            n_found += bool(report.contradictions)
    assert n_false >= 20
    assert n_found == n_false
    assert n_accepted == n_true


@pytest.mark.parametrize("language", ["en", "zh"])
def test_both_bookkeepers_accept_what_the_town_tells(language):
    for story in STORIES[language][:160]:
        assert possible_story(story.events)
        assert check(told(story.events, language), WORLD).consistent


def test_a_wrong_last_sentence_is_found_in_the_text_as_it_is_told():
    rng, n_found, n_all = random.Random(0), 0, 0
    for story in STORIES["en"][:160]:
        whole, _ = sentences(story.text, "en")
        ends = [e for e in story.events if e.kind == "end-at"]
        if ends:
            lie = rng.choice([p.name for p in WORLD.places if p.name != ends[-1].place])
            end = [("end-at", ends[-1].names | {"place": lie})]
            text = " ".join([*whole[:-1], words(WORLD, "en").say_end(end)])
            n_all += 1
            n_found += len(check(text, WORLD).contradictions) == 1
    assert n_all >= 80
    assert n_found == n_all


# --- reference ---


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_story_of_the_town_is_accepted_and_its_truth_is_found_from_the_text(language):
    for story in STORIES[language]:
        report = check(story.text, WORLD)
        assert report.problems == ()
        assert report.events == story.events
        assert report.states == story.states
        assert report.n_sentences == len(story.ways)


def test_the_story_at_the_head_of_the_stories_module_is_one():
    text = " ".join(stories.__doc__.split("\n\n")[1].split())
    report = check(text, WORLD)
    assert report.consistent
    assert report.finished
    assert report.n_sentences == 6


def test_another_town_cannot_be_read_here():
    elsewhere = World("your name")
    other = StorySource(elsewhere).block(0)
    assert all(check(story.text, elsewhere).consistent for story in other)
    assert all(check(story.text, WORLD).unreadable for story in other)


# --- law ---


@given(st.sampled_from(STORIES["en"] + STORIES["zh"]), st.data())
def test_a_story_that_is_cut_off_is_incomplete_and_its_beginning_is_true(story, data):
    end = data.draw(st.integers(1, len(story.text) - 1))
    report = check(story.text[:end], WORLD)
    assert report.contradictions == report.unreadable == ()
    assert bool(report.incomplete) == (story.text[:end].strip()[-1] not in ".。")
    assert report.events == story.events[: len(report.events)]


# --- what stops it ---


@given(st.text(max_size=60))
@example("There is {a} {at}.")
def test_no_text_stops_the_checker(text):
    report = check(text, WORLD)
    assert not report.consistent
    assert len(report.problems) >= 1


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_share_that_was_read_is_of_sentences_in_a_row_in_either_language(language):
    one, two, *_ = (story.text for story in STORIES[language])
    assert [share_read([one], [two, one], n) for n in (1, 2, 3)] == [1, 1, 1]
    (first, *rest), _ = sentences(one, language)
    turned = ("" if language == "zh" else " ").join([*rest, first])
    assert share_read([turned], [one]) == 1
    assert share_read([turned], [one], 2) == (len(rest) - 1) / len(rest)
    assert share_read([one], [two], 4) == share_read([""], [one]) == 0
