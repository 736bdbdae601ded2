"""minillm.town.stories: stories whose every state is known."""

from collections import Counter
from dataclasses import replace
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from minillm.town.stories import (
    N_PEOPLE,
    N_THINGS,
    SHARE_SHORT_ENDS,
    WEIGHTS,
    Event,
    State,
    StorySource,
    possible,
)
from minillm.town.story_words import N_WAYS
from minillm.town.world import World

WORLD = World()
STORIES = {
    language: [s for index in range(20) for s in StorySource(WORLD, language).block(index)]
    for language in ("en", "zh")
}
BOTH = [story for stories in STORIES.values() for story in stories]
START = State(
    people=(("Bao", "mill"), ("Mei", "well"), ("Tan", "well")),
    held=(("kite", "Mei"),),
    lying=(("jar", "well"), ("plum", "mill")),
)

# --- by hand ---


@pytest.mark.parametrize(
    ("event", "people", "held", "lying"),
    [
        (Event("go", "Mei", place="hill"), {"Mei": "hill"}, {}, {}),
        (Event("take", "Tan", "jar", "well"), {}, {"jar": "Tan"}, {"jar": None}),
        (Event("put", "Mei", "kite"), {}, {"kite": None}, {"kite": "well"}),
        (Event("give", "Mei", "kite", other="Tan"), {}, {"kite": "Tan"}, {}),
        (Event("meet", "Mei", place="well", other="Tan"), {}, {}, {}),
        (Event("miss", "Tan", "plum", "well"), {}, {}, {}),
        (Event("introduce", "Dan", place="hill"), {"Dan": "hill"}, {}, {}),
        (Event("introduce", "Mei", place="well"), {}, {}, {}),
        (Event("bring", "Dan", "bun", "hill"), {"Dan": "hill"}, {"bun": "Dan"}, {}),
        (Event("lie", thing="bun", place="hill"), {}, {}, {"bun": "hill"}),
        (Event("end-has", "Mei", "kite"), {}, {}, {}),
        (Event("end-at", "Bao", place="mill"), {}, {}, {}),
        (Event("end-lies", thing="jar", place="well"), {}, {}, {}),
    ],
)
def test_an_event_changes_what_it_says_and_nothing_else(event, people, held, lying):
    after = START.after(event)
    for before, now, changes in (
        (START.people, after.people, people),
        (START.held, after.held, held),
        (START.lying, after.lying, lying),
    ):
        expected = {k: v for k, v in (dict(before) | changes).items() if v is not None}
        assert dict(now) == expected


IMPOSSIBLE = [
    (Event("go", "Mei", place="well"), "Mei is at the well already"),
    (Event("go", "Dan", place="well"), "Dan was never introduced"),
    (Event("take", "Bao", "jar"), "the jar lies at the well"),
    (Event("take", "Tan", "kite"), "the kite is with Mei"),
    (Event("take", "Tan", "jar", "mill"), "Tan is at the well"),
    (Event("take", "Tan", "bun"), "the bun was never introduced"),
    (Event("put", "Tan", "kite"), "the kite is with Mei"),
    (Event("put", "Tan", "jar"), "the jar lies at the well"),
    (Event("put", "Mei", "kite", "hill"), "Mei is at the well"),
    (Event("give", "Tan", "kite", other="Mei"), "the kite is with Mei"),
    (Event("give", "Mei", "kite", other="Bao"), "Bao is at the mill"),
    (Event("give", "Mei", "kite", other="Mei"), "it takes two people"),
    (Event("give", "Mei", "kite", other="Dan"), "Dan was never introduced"),
    (Event("meet", "Mei", other="Bao"), "Bao is at the mill"),
    (Event("miss", "Tan", "jar"), "the jar lies at the well"),
    (Event("miss", "Tan", "kite"), "the kite is with Mei"),
    (Event("miss", "Mei", "kite"), "the kite is with Mei"),
    (Event("introduce", "Mei", place="mill"), "Mei is at the well"),
    (Event("bring", "Dan", "kite", "well"), "the kite is with Mei"),
    (Event("lie", thing="kite", place="well"), "the kite is with Mei"),
    (Event("lie", thing="jar", place="mill"), "the jar lies at the well"),
    (Event("end-has", "Tan", "kite"), "the kite is with Mei"),
    (Event("end-at", "Tan", place="mill"), "Tan is at the well"),
    (Event("end-lies", thing="kite", place="well"), "the kite is with Mei"),
    (Event("end-lies", thing="jar", place="mill"), "the jar lies at the well"),
]


@pytest.mark.parametrize(("event", "reason"), IMPOSSIBLE)
def test_what_cannot_happen_says_what_is_so_instead(event, reason):
    assert START.problem(event) == reason
    with pytest.raises(ValueError, match=f"cannot happen: {reason}"):
        START.after(event)


@pytest.mark.parametrize("event", [event for event, _ in IMPOSSIBLE])
def test_what_is_believed_is_so_afterwards_and_can_be_said_in_the_end(event):
    after = START.believing(event)
    if event.kind in ("go", "introduce"):
        assert after.place_of(event.person) == event.place
    elif event.kind in ("take", "bring"):
        assert after.problem(Event("end-has", event.person, event.thing)) in (
            None,
            "Dan was never introduced",
        )
    elif event.kind == "give":
        assert dict(after.held)[event.thing] == event.other
    elif event.kind in ("put", "lie"):
        assert event.thing in dict(after.lying)
    assert not set(dict(after.held)) & set(dict(after.lying))


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


# --- law ---


def test_stories_are_short_and_have_two_places_or_more():
    for story in BOTH:
        assert 5 <= len(story.ways) <= 9
        places = {event.place for event in story.events} - {None}
        people = {event.person for event in story.events} - {None}
        things = {event.thing for event in story.events} - {None}
        assert 2 <= len(places) <= 4
        assert 2 <= len(people) <= 3
        assert 1 <= len(things) <= 3
        assert story.events[-1].kind.startswith("end-")
    n_words = [len(story.text.split()) for story in STORIES["en"]]
    assert max(n_words) <= 95
    assert 50 < fmean(n_words) < 62
    assert max(len(story.text) for story in STORIES["zh"]) <= 140


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


def test_numbers_wordings_and_ends_are_drawn_as_stated():
    tables = [
        (Counter(way for story in BOTH for way in story.ways), dict.fromkeys(range(N_WAYS), 1 / 3)),
        (Counter(len(story.states[-1].people) for story in BOTH), N_PEOPLE),
        (
            Counter(len(story.states[-1].held) + len(story.states[-1].lying) for story in BOTH),
            N_THINGS,
        ),
        (
            Counter(sum(e.kind.startswith("end-") for e in story.events) for story in BOTH),
            {1: SHARE_SHORT_ENDS, 2: 1 - SHARE_SHORT_ENDS},
        ),
    ]
    for counts, shares in tables:
        expected = [share * counts.total() for share in shares.values()]
        assert sum(counts[key] for key in shares) == counts.total()
        assert chisquare([counts[key] for key in shares], expected).pvalue > 0.001


def test_people_walk_along_roads_more_often_than_not():
    walks = []
    for story in BOTH:
        states = (State(), *story.states)
        for event, state in zip(story.events, states, strict=False):
            if event.kind == "go":
                walks.append(event.place in WORLD.neighbours(state.place_of(event.person)))
    assert 0.75 < fmean(walks) < 1


def test_the_famous_are_told_of_most_and_small_children_not_at_all():
    told = Counter(person for story in BOTH for person, _ in story.states[-1].people)
    assert [name for name, _ in told.most_common(2)] == ["Mei", "Bao"]
    assert min(WORLD.person(name).age for name in told) >= 6


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


def test_what_is_no_language_index_or_event_is_named():
    with pytest.raises(ValueError, match='"en", "zh" or "both"; got \'fr\''):
        StorySource(WORLD, "fr")
    with pytest.raises(ValueError, match="counted from 0; got -1"):
        StorySource(WORLD).block(-1)
    with pytest.raises(ValueError, match="no event 'eat'; there are go, take"):
        START.after(replace(Event("take", "Mei", "kite"), kind="eat"))
