"""What is so in a story, and what happens in it: events that lead from one state to the next.

A state (状态) is three tables: where each person is, who holds each thing, where each other thing
lies. An event can happen in some states only,

    next state = after(state, event),  if nothing that is so keeps the event from happening

and whoever is told an event that cannot happen can still take it at its word.

Paper: Weston et al. 2015, "Towards AI-Complete Question Answering: A Set of Prerequisite Toy
Tasks", arXiv:1502.05698, section 4, for text made by simulating a small world.
Differs: what cannot happen says why.

Chapter: 05
"""

from dataclasses import dataclass
from typing import final

from minillm.town.story_words import at

FIELDS = ("person", "thing", "place", "other", "origin")  # of an event, that may be said
HERE = ("take", "put", "give", "meet", "miss")  # what happens where the person is

Pairs = tuple[tuple[str, str], ...]


@final
@dataclass(frozen=True, slots=True)
class Event:
    """Something that happens, or that the last sentence says is so; names as the world has them.

    Args:
        kind: "introduce", "bring" (introduced with a thing), "lie" (a thing introduced), "go",
            "take", "put", "give", "meet", "miss", "end-at", "end-has", "end-lies".
        person: who; None for "lie" and "end-lies".
        thing: with what.
        place: where, or to where one goes; None if it is not said.
        other: to whom a thing is given, or who is met.
        origin: from where one goes; None if it is not said.
    """

    kind: str
    person: str | None = None
    thing: str | None = None
    place: str | None = None
    other: str | None = None
    origin: str | None = None

    @property
    def names(self) -> dict[str, str]:
        """The fields that are filled in."""
        values = ((name, getattr(self, name)) for name in FIELDS)
        return {name: value for name, value in values if value is not None}


@final
@dataclass(frozen=True)
class State:
    """What is so at one moment; each row sorted, so that equal states are equal.

    Args:
        people: (person, place).
        held: (thing, person who holds it).
        lying: (thing, place where it lies).

    Example:
        >>> state = State().after(Event("bring", "Mei", "kite", "well"))
        >>> state = state.after(Event("introduce", "Bao", place="mill"))
        >>> state.place_of("kite")
        'well'
        >>> state.problem(Event("give", "Mei", "kite", other="Bao"))
        'Bao is at the mill'
    """

    people: Pairs = ()
    held: Pairs = ()
    lying: Pairs = ()

    def place_of(self, name: str) -> str | None:
        """Where a person is, or a thing, by itself or in somebody's hands; None if unknown."""
        people = dict(self.people)
        return people.get(dict(self.held).get(name, name)) or dict(self.lying).get(name)

    def after(self, event: Event) -> "State":
        """The next state.

        Raises:
            ValueError: the event cannot happen; the message says what is so instead.
        """
        if reason := self.problem(event):
            raise ValueError(f"{event} cannot happen: {reason}")
        return self.believing(event)

    def problem(self, event: Event) -> str | None:
        """What is so that keeps the event from happening, or None.

        What was introduced may be introduced again, if it is still so.
        """
        kind, person, thing = event.kind, event.person, event.thing
        holder, lies = dict(self.held).get(thing), dict(self.lying).get(thing)
        here = dict(self.people).get(person)
        known = holder is not None or lies is not None
        if kind in ("introduce", "bring", "lie"):
            if here not in (None, event.place):
                return f"{person} is {at(here)}"
            so = lies == event.place if kind == "lie" else holder == person
            return self._where(thing) if known and not so else None
        for name in (person, event.other):
            if name is not None and name not in dict(self.people):
                return f"{name} was never introduced"
        if thing is not None and not known:
            return f"the {thing} was never introduced"
        place = event.origin if kind == "go" else event.place if kind in HERE else None
        if place not in (None, here):
            return f"{person} is {at(here)}"
        if kind in ("put", "give", "end-has") and holder != person:
            return self._where(thing)
        match kind:
            case "put" | "end-has":
                return None
            case "go":
                return f"{person} is {at(here)} already" if event.place == here else None
            case "take":
                return self._where(thing) if lies != here else None
            case "give" | "meet":
                if event.other == person:
                    return "it takes two people"
                there = dict(self.people)[event.other]
                return f"{event.other} is {at(there)}" if there != here else None
            case "miss":
                return self._where(thing) if self.place_of(thing) == here else None
            case "end-at":
                return f"{person} is {at(here)}" if event.place != here else None
            case "end-lies":
                return self._where(thing) if lies != event.place else None
        raise ValueError(f"no event {kind!r}; there are {', '.join(('go', *HERE, 'introduce'))}, …")

    def believing(self, event: Event) -> "State":
        """The next state if the event is taken at its word, whether it can happen or not."""
        kind, person, thing = event.kind, event.person, event.thing
        if kind.startswith("end-"):
            return self
        people, held, lying = map(dict, (self.people, self.held, self.lying))
        if person is not None and event.place is not None:
            people[person] = event.place
        here = event.place or people.get(person)
        if thing is not None and kind != "miss":
            held.pop(thing, None)
            lying.pop(thing, None)
            if kind == "lie" or (kind == "put" and here is not None):
                lying[thing] = here
            else:
                held[thing] = event.other if kind == "give" else person
        if event.other is not None and here is not None:
            people[event.other] = here
        rows = (tuple(sorted(row.items())) for row in (people, held, lying))
        return State(*rows)

    def _where(self, thing: str) -> str:
        if thing in dict(self.held):
            return f"the {thing} is with {dict(self.held)[thing]}"
        return f"the {thing} lies {at(dict(self.lying)[thing])}"
