"""minillm.town.story_state: what is so, and what keeps an event from happening."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.town.story_state import FIELDS, HERE, Event, State

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
        (Event("go", "Mei", place="hill", origin="well"), {"Mei": "hill"}, {}, {}),
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
    (Event("go", "Mei", place="hill", origin="mill"), "Mei is at the well"),
    (Event("go", "Mei", place="well", origin="mill"), "Mei is at the well"),
    (Event("go", "Dan", place="well"), "Dan was never introduced"),
    (Event("go", "Dan", place="well", origin="mill"), "Dan was never introduced"),
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


@pytest.mark.parametrize(
    ("name", "place"),
    [("Mei", "well"), ("kite", "well"), ("plum", "mill"), ("Dan", None), ("bun", None)],
)
def test_people_things_in_hands_and_things_by_themselves_are_somewhere(name, place):
    assert START.place_of(name) == place


def test_an_event_names_what_is_filled_in():
    walk = Event("go", "Mei", place="hill", origin="well")
    assert walk.names == {"person": "Mei", "place": "hill", "origin": "well"}
    assert Event("lie", thing="bun", place="hill").names == {"thing": "bun", "place": "hill"}


# --- law ---

PEOPLE, THINGS, PLACES = ("Bao", "Mei", "Tan", "Dan"), ("kite", "jar", "bun"), ("mill", "well")
EVENTS = st.builds(
    Event,
    st.sampled_from(("go", *HERE)),
    st.sampled_from(PEOPLE),
    st.sampled_from(THINGS),
    st.sampled_from((*PLACES, "hill")),
    st.sampled_from(PEOPLE),
    st.sampled_from((None, *PLACES)),
).map(lambda e: replace(e, **{name: None for name in FIELDS if name not in NEEDED[e.kind]}))
NEEDED = {
    "go": ("person", "place", "origin"),
    "take": ("person", "thing", "place"),
    "put": ("person", "thing", "place"),
    "give": ("person", "thing", "place", "other"),
    "meet": ("person", "place", "other"),
    "miss": ("person", "thing", "place"),
}


@given(st.lists(EVENTS, max_size=8))
def test_whatever_is_believed_a_thing_is_in_one_hand_or_one_place_and_rows_are_sorted(events):
    state = START
    for event in events:
        possible = state.problem(event) is None
        after = state.believing(event)
        assert not possible or after == state.after(event)
        assert not set(dict(after.held)) & set(dict(after.lying))
        for row in (after.people, after.held, after.lying):
            assert list(row) == sorted(row)
            assert len(dict(row)) == len(row)
        state = after


@given(EVENTS.filter(lambda event: event.kind == "go"))
def test_nobody_goes_from_elsewhere_and_an_origin_that_is_not_said_forbids_nothing(walk):
    silent, here = START.problem(replace(walk, origin=None)), START.place_of(walk.person)
    if silent is None:
        assert (START.problem(walk) is None) == (walk.origin in (None, here))
    else:
        assert START.problem(walk) is not None


# --- what stops it ---


def test_what_is_no_event_is_named():
    with pytest.raises(ValueError, match="no event 'eat'; there are go, take"):
        START.after(replace(Event("take", "Mei", "kite"), kind="eat"))
