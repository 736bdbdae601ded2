"""minillm.town.stories: stories whose every state is known."""

import hashlib
import re
from collections import Counter
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from minillm.town.stories import (
    N_PEOPLE,
    N_ROLL_CALL,
    N_THINGS,
    SHARE_PLAIN,
    SHARE_PRONOUNS,
    SHARE_ROLL_CALLS,
    SHARE_SHORT_ENDS,
    WEIGHTS,
    StorySource,
    possible,
)
from minillm.town.story_state import Event, State
from minillm.town.story_words import N_WAYS, sentences
from minillm.town.world import World

WORLD = World()
STORIES = {
    language: [s for index in range(10) for s in StorySource(WORLD, language).block(index)]
    for language in ("en", "zh")
}
BOTH = [story for stories in STORIES.values() for story in stories]
ROLL_CALLS = [story for story in BOTH if not {event.kind for event in story.events} & set(WEIGHTS)]
EVENTFUL = [story for story in BOTH if {event.kind for event in story.events} & set(WEIGHTS)]

# --- by hand ---


def test_of_two_people_and_a_kite_all_that_can_happen_is_counted_on_paper():
    state = State(people=(("Bao", "mill"), ("Mei", "mill")), held=(("kite", "Mei"),))
    near = {"mill": ["hill"], "hill": ["mill"]}
    assert possible(state, near) == {
        "go": [("Bao", None, "hill", None), ("Mei", None, "hill", None)],
        "meet": [("Bao", None, "mill", "Mei"), ("Mei", None, "mill", "Bao")],
        "put": [("Mei", "kite", "mill", None)],
        "give": [("Mei", "kite", "mill", "Bao")],
    }
    taken = possible(state, near, Event("take", "Mei", "kite", "mill"))
    assert "put" not in taken
    assert "give" in taken
    greeted = possible(state, near, Event("meet", "Bao", None, "mill", "Mei"))
    assert "meet" not in greeted


# --- twin ---


def test_a_story_told_state_by_state_is_the_replay_of_its_events():
    for story in BOTH:
        state = State()
        for event, told in zip(story.events, story.states, strict=True):
            state = state.after(event)
            assert state == told


# --- reference ---


def test_blocks_are_counted_as_the_grammar_counts_them():
    source = StorySource(WORLD)
    alone = source.block(3)
    assert alone == STORIES["en"][3 * 64 : 4 * 64]
    assert alone == StorySource(World()).block(3)
    assert alone != source.block(4)
    assert alone != source.block(3, seed=1)
    assert len(source.block(0, seed="exam")) == 64


FROZEN = {
    ("tinytown", "en", 0, 0): "4aa3dd817925bfeb",
    ("tinytown", "en", 7, "train"): "f382ddaa09c8c1a4",
    ("tinytown", "zh", 0, 0): "b95b9da045ecfe57",
    ("tinytown", "zh", 7, "train"): "a67661b56f3c6af0",
    ("tinytown", "both", 0, 0): "7bc868005f8a3d8a",
    ("your name", "en", 0, 0): "0c5dd6abfe9c7bfa",
}


@pytest.mark.parametrize(("town", "language", "index", "seed"), FROZEN)
def test_the_text_of_no_story_has_changed_since_models_were_trained_on_it(
    town, language, index, seed
):
    block = StorySource(World(town), language).block(index, seed)
    text = "\n".join(story.text for story in block)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert digest == FROZEN[town, language, index, seed]


# --- law ---


def test_stories_are_short_and_have_two_places_or_more():
    for story in EVENTFUL:
        assert 5 <= len(story.ways) <= 8
        places = {event.place for event in story.events} - {None}
        people = {event.person for event in story.events} - {None}
        things = {event.thing for event in story.events} - {None}
        assert 2 <= len(places) <= 3
        assert 2 <= len(people) <= 3
        assert 1 <= len(things) <= 2
        assert sum(event.kind in WEIGHTS for event in story.events) >= 2
        assert story.events[-1].kind.startswith("end-")
    n_words = [len(story.text.split()) for story in STORIES["en"]]
    assert max(n_words) <= 95
    assert 58 < fmean(n_words) < 66
    assert max(len(story.text) for story in STORIES["zh"]) <= 140


def test_in_a_roll_call_nothing_happens_and_its_end_tells_of_everybody():
    shuffled = []
    for story in ROLL_CALLS:
        n_people = len(story.ways) - 1
        assert 4 <= n_people <= 6
        first, last = story.events[:n_people], story.events[n_people:]
        assert {event.kind for event in first} == {"introduce"}
        assert {event.kind for event in last} == {"end-at"}
        introduced = {event.person: event.place for event in first}
        assert len(introduced) == len(set(introduced.values())) == n_people
        assert len(last) == n_people
        assert {event.person: event.place for event in last} == introduced
        shuffled.append([e.person for e in first] != [e.person for e in last])
    assert fmean(shuffled) > 0.9
    assert binomtest(len(ROLL_CALLS), len(BOTH), SHARE_ROLL_CALLS).pvalue > 0.001


@pytest.mark.parametrize("language", ["en", "zh"])
def test_hardly_a_story_is_told_twice(language):
    texts = {story.text for story in STORIES[language]}
    assert len(texts) >= 0.99 * len(STORIES[language])


def near_of(story):
    """The map of a story is not told; which kinds can happen depends on it only through `go`,
    which can always happen to somebody."""
    places = sorted({event.place for event in story.events} - {None})
    return {a: [b for b in places if b != a] for a in places}


def test_events_happen_as_often_as_their_weights_say():
    happened = {}
    for story in BOTH:
        steps = zip(story.events, story.events[1:], story.states, strict=False)
        for last, event, state in steps:
            if event.kind in WEIGHTS:
                kinds = tuple(sorted(possible(state, near_of(story), last)))
                happened.setdefault(kinds, Counter())[event.kind] += 1
    p_values = []
    for kinds, counts in happened.items():
        assert set(counts) <= set(kinds)
        total = sum(WEIGHTS[kind] for kind in kinds)
        expected = [counts.total() * WEIGHTS[kind] / total for kind in kinds]
        if len(kinds) > 1 and min(expected) >= 5:
            p_values.append(chisquare([counts[kind] for kind in kinds], expected).pvalue)
    assert len(p_values) >= 8
    assert min(p_values) > 0.001 / len(p_values)
    assert 0.2 < fmean(p_values) < 0.8


def test_numbers_and_wordings_are_drawn_as_stated():
    told = [
        (event.kind, way)
        for story in BOTH
        for event, way in zip(story.events, story.ways[:-1], strict=False)
    ]
    evenly = dict.fromkeys(range(N_WAYS), 1 / N_WAYS)
    wordy = (1 - SHARE_PLAIN) / (N_WAYS - 1)
    lasts = [story.states[-1] for story in EVENTFUL]
    tables = [
        (Counter(way for kind, way in told if kind not in WEIGHTS), evenly),
        (Counter(story.ways[-1] for story in BOTH), evenly),
        (
            Counter(way for kind, way in told if kind in WEIGHTS),
            {0: SHARE_PLAIN, 1: wordy, 2: wordy},
        ),
        (Counter(len(state.people) for state in lasts), N_PEOPLE),
        (Counter(len(state.held) + len(state.lying) for state in lasts), N_THINGS),
        (
            Counter(len(story.states[-1].people) for story in ROLL_CALLS),
            dict.fromkeys(N_ROLL_CALL, 1 / len(N_ROLL_CALL)),
        ),
    ]
    for counts, shares in tables:
        expected = [share * counts.total() for share in shares.values()]
        assert sum(counts[key] for key in shares) == counts.total()
        assert chisquare([counts[key] for key in shares], expected).pvalue > 0.001


def test_the_end_says_one_of_the_things_that_are_so_or_each_of_them_once():
    n_short = 0
    for story in EVENTFUL:
        ends = [event for event in story.events if event.kind.startswith("end-")]
        assert len(set(ends)) == len(ends)
        state = story.states[-1]
        n_so = len(state.people) + len(state.held) + len(state.lying)
        assert len(ends) in (1, n_so)
        n_short += len(ends) == 1
    assert binomtest(n_short, len(EVENTFUL), SHARE_SHORT_ENDS).pvalue > 0.001


def test_pronouns_stand_where_they_are_clear_and_there_as_often_as_stated():
    n_clear = n_said = 0
    for story in BOTH:
        before = []
        told = sentences(story.text, story.language)[0][:-1]
        for event, sentence in zip(story.events, told, strict=False):
            said = bool(re.search(r"\b(she|he)\b|她|他", sentence, re.IGNORECASE))
            pronouns = [WORLD.person(name).pronoun for name in before]
            clear = (
                event.kind in WEIGHTS
                and event.person in before
                and pronouns.count(WORLD.person(event.person).pronoun) == 1
            )
            assert clear or not said
            n_clear, n_said = n_clear + clear, n_said + said
            before = [name for name in (event.person, event.other) if name]
    assert n_clear >= 800
    assert binomtest(n_said, n_clear, SHARE_PRONOUNS).pvalue > 0.001


def test_whoever_goes_comes_from_where_they_are_and_nobody_else_comes_from_anywhere():
    for story in BOTH:
        states = (State(), *story.states)
        for event, state in zip(story.events, states, strict=False):
            here = state.place_of(event.person) if event.kind == "go" else None
            assert event.origin == here


def test_people_walk_along_roads_more_often_than_not():
    walks = []
    for story in BOTH:
        states = (State(), *story.states)
        for event, state in zip(story.events, states, strict=False):
            if event.kind == "go":
                walks.append(event.place in WORLD.neighbours(state.place_of(event.person)))
    assert 0.75 < fmean(walks) < 1


def test_the_cast_are_the_twelve_most_famous_but_small_children_and_of_the_first_is_told_most():
    told = Counter(person for story in BOTH for person, _ in story.states[-1].people)
    assert [name for name, _ in told.most_common(2)] == ["Mei", "Bao"]
    assert min(WORLD.person(name).age for name in told) >= 6
    fame = {p.name: f for p, f in zip(WORLD.people, WORLD.fame, strict=True) if p.age >= 6}
    assert len(told) == 12
    assert min(fame[name] for name in told) > max(fame[name] for name in set(fame) - set(told))


def test_a_small_child_is_in_no_story_however_famous():
    famous = World(7)
    rows = sorted(zip(famous.fame, famous.people, strict=True), key=lambda row: -row[0])
    grown = [person.name for _, person in rows if person.age >= 6][:12]
    blocks = [StorySource(famous).block(index) for index in range(4)]
    told = {person for block in blocks for s in block for person, _ in s.states[-1].people}
    assert told == set(grown)


def test_two_towns_share_the_language_but_not_the_people():
    other = StorySource(World("your name")).block(0)
    here = {person.name for person in WORLD.people}
    for story in other:
        assert not here & {event.person for event in story.events}
    kinds = Counter(event.kind for story in other for event in story.events)
    assert set(WEIGHTS) <= set(kinds)


def test_both_tells_each_story_in_one_language():
    told = Counter(
        story.language for i in range(4) for story in StorySource(WORLD, "both").block(i)
    )
    assert 90 < told["en"] < 166
    assert told.total() == 256


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10**6), st.text(max_size=5), st.sampled_from(["en", "zh", "both"]))
def test_a_block_is_a_function_of_its_number_and_seed(index, seed, language):
    first = StorySource(WORLD, language)
    assert first.block(index, seed) == StorySource(WORLD, language).block(index, seed)


def test_nothing_is_undone_at_once():
    for story in BOTH:
        for a, b in zip(story.events, story.events[1:], strict=False):
            assert {a.kind, b.kind} != {"take", "put"} or a.thing != b.thing
            assert a.kind != b.kind or a.kind not in WEIGHTS or a.person != b.person


def test_people_whose_fame_leaves_no_chance_to_others_are_still_joined_by_them():
    lonely = StorySource(World(fame_exponent=300.0)).block(0)
    assert all("Mei" in dict(story.states[-1].people) for story in lonely)


# --- what stops it ---


def test_what_is_no_language_or_index_is_named():
    with pytest.raises(ValueError, match='"en", "zh" or "both"; got \'fr\''):
        StorySource(WORLD, "fr")
    with pytest.raises(ValueError, match="counted from 0; got -1"):
        StorySource(WORLD).block(-1)
