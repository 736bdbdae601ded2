"""Town stories: who goes where with what, and after every sentence what is so.

    Mei has a kite and is at the bakery. Bao is at the well. Mei leaves the bakery and goes to the
    well. Mei gives Bao the kite at the well. Then Bao walks from the well to the mill. At the end,
    Bao has the kite and Mei is at the well and Bao is at the mill.

A story is a walk through states (状态, `minillm.town.story_state`): where each person is, who holds
each thing or where it lies. The next event is drawn among the kinds that can happen, each in
proportion to its weight w (`WEIGHTS`),

    p(kind | state) = w(kind) / sum of w over the kinds that can happen in the state

and then evenly among the events of that kind, save that a road to a neighbouring place counts four
times as much as a longer way. So `minillm.town.story_check`, which has the text alone, can be held
to the truth, and a model that has learned to spell can be asked whether it keeps track.

The last sentence says one of the things that are so, or all of them, in an order of its own. Three
stories in ten are roll calls (点名), in which nothing happens: four to six people, each somewhere
else, and at the end where all of them are. They ask for nothing but memory.

Most sentences say where something happens, and from where somebody goes. A pronoun (代词) stands
for the one person of the sentence before whom it fits. The twelve most famous people of the town,
from six years on, appear in proportion to their fame, under their unique names; a story has one
thing of a kind.

Paper: Weston et al. 2015, "Towards AI-Complete Question Answering: A Set of Prerequisite Toy
Tasks", arXiv:1502.05698, section 4, for text made by simulating a small world.
Differs: the story is itself the test, not a question about it; two languages.

Chapter: 05
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from typing import final

from minillm.town.chance import block_rng
from minillm.town.story_state import Event, State
from minillm.town.story_words import N_WAYS, things_of, words
from minillm.town.world import World

BLOCK = 64
YOUNGEST = 6  # years
WEIGHTS = {"go": 0.30, "take": 0.25, "give": 0.20, "put": 0.10, "meet": 0.08, "miss": 0.07}
N_CAST = 12  # people, the most famous of that age
N_PEOPLE = {2: 0.85, 3: 0.15}
N_THINGS = {1: 0.9, 2: 0.1}
N_PLACES = {2: 0.4, 3: 0.6}
FEWEST_SENTENCES, MOST_SENTENCES = 5, 8
SHARE_HELD = 0.5  # of the things that somebody has when the story begins
SHARE_PRONOUNS = 0.15  # of the sentences in which a pronoun is clear
SHARE_SHORT_ENDS = 0.25  # of the last sentences, which say one thing instead of all
SHARE_ROLL_CALLS = 0.3  # of the stories, in which nothing happens: who is where, told twice
N_ROLL_CALL = (4, 5, 6)  # people in such a story
SHARE_PLAIN = 0.1  # of what happens, told without where, or from where one goes
ROAD_COUNTS = 4
LANGUAGES = {"en": ("en",), "zh": ("zh",), "both": ("en", "zh")}


@final
@dataclass(frozen=True)
class Story:
    """A story and its truth.

    Args:
        text: 5 to 8 sentences, in a roll call 5 to 7.
        language: "en" or "zh".
        events: one a sentence, but one a clause of the last sentence.
        states: after each event.
        ways: number of the wording of each sentence.
    """

    text: str
    language: str
    events: tuple[Event, ...]
    states: tuple[State, ...]
    ways: tuple[int, ...] = field(repr=False)


def possible(
    state: State, near: Mapping[str, Sequence[str]], last: Event | None = None
) -> dict[str, list[tuple]]:
    """What can happen next, by kind, as (person, thing, place, other); all go from where they are.

    Nothing is undone or done again at once: no two events in a row of one kind share a person or
    a thing, and nobody puts down what was just picked up, or the other way round.

    Args:
        state: in which it is to happen.
        near: the places of the story, each with the others to which one may go from there; one
            that stands there more than once is as many times more likely.
        last: the event before.

    Example:
        >>> state = State(people=(("Mei", "well"),), lying=(("kite", "well"),))
        >>> possible(state, {"well": ["mill"], "mill": ["well"]})
        {'go': [('Mei', None, 'mill', None)], 'take': [('Mei', 'kite', 'well', None)]}
    """
    places = dict(state.people)
    holders, events = dict(state.held), {}
    things = [*holders, *dict(state.lying)]
    where = {thing: state.place_of(thing) for thing in things}

    for person, here in places.items():
        others = [name for name, place in places.items() if place == here and name != person]
        can = [("go", person, None, place, None) for place in near[here]]
        can += [("meet", person, None, here, other) for other in others]
        for thing in things:
            if where[thing] != here:
                can.append(("miss", person, thing, here, None))
            elif thing not in holders:
                can.append(("take", person, thing, here, None))
            elif holders[thing] == person:
                can.append(("put", person, thing, here, None))
                can += [("give", person, thing, here, other) for other in others]
        for kind, *what in can:
            if last is None or not _undoes(last, kind, *what):
                events.setdefault(kind, []).append(tuple(what))
    return events


@final
@dataclass(frozen=True)
class StorySource:
    """Stories without end, in blocks of 64.

    Args:
        world: the town.
        language: "en", "zh", or "both", which takes one or the other for each story.

    Raises:
        ValueError: another language.

    Example:
        >>> story = StorySource(World()).block(0)[0]
        >>> story.text[:35]
        'Dan waits at the pottery. Joe waits'
    """

    world: World
    language: str = "en"

    def __post_init__(self) -> None:
        if self.language not in LANGUAGES:
            raise ValueError(f'language must be "en", "zh" or "both"; got {self.language!r}')

    def block(self, index: int, seed: int | str = 0) -> list[Story]:
        """The 64 stories number 64·index to 64·index + 63 of a stream.

        Args:
            index: 0, 1, 2, …
            seed: another seed, another stream.

        Raises:
            ValueError: a negative index.
        """
        rng = block_rng(f"stories/{self.world.seed}/{self.language}/{seed}/{index}", index)
        return [self._story(rng) for _ in range(BLOCK)]

    @cached_property
    def _cast(self) -> tuple[list[str], list[float]]:
        """Who may appear, and their cumulated fame."""
        rows = zip(self.world.people, self.world.fame, strict=True)
        grown = [(person.name, fame) for person, fame in rows if person.age >= YOUNGEST]
        cast = sorted(grown, key=lambda row: -row[1])[:N_CAST]
        return [name for name, _ in cast], list(accumulate(fame for _, fame in cast))

    def _story(self, rng: random.Random) -> Story:
        language = rng.choice(LANGUAGES[self.language])
        near = self._map(rng)
        calls_roll = rng.random() < SHARE_ROLL_CALLS
        plan = self._roll_call(rng) if calls_roll else self._plan(rng, list(near))
        events, states = [], [State()]
        for event in plan:
            events.append(event or _next(rng, states[-1], near, events[-1]))
            states.append(states[-1].after(events[-1]))
        ends = _ends(rng, states[-1], 0.0 if calls_roll else SHARE_SHORT_ENDS)
        text, ways = self._tell(rng, events, ends, language)
        states += [states[-1]] * len(ends)
        return Story(text, language, (*events, *ends), tuple(states[1:]), ways)

    def _map(self, rng: random.Random) -> dict[str, list[str]]:
        """Two or three places joined by roads, each with the others, neighbours four times."""
        n_places = _draw(rng, N_PLACES)
        places = [rng.choice(self.world.places).name]
        while len(places) < n_places:
            place = rng.choice(tuple(self.world.neighbours(rng.choice(places))))
            if place not in places:
                places.append(place)
        near = {}
        for a in places:
            roads = self.world.neighbours(a)
            others = [b for b in places if b != a]
            near[a] = [b for b in others for _ in range(ROAD_COUNTS if b in roads else 1)]
        return near

    def _roll_call(self, rng: random.Random) -> list[Event]:
        """Everybody introduced, each somewhere else, and nothing that happens."""
        people = self._people(rng, rng.choice(N_ROLL_CALL))
        places = rng.sample(self.world.places, len(people))
        return [
            Event("introduce", name, place=place.name)
            for name, place in zip(people, places, strict=True)
        ]

    def _plan(self, rng: random.Random, places: list[str]) -> list[Event | None]:
        """The introductions, and None for whatever can happen then."""
        opening, late = self._opening(rng, places)
        n_opening = len(opening) + len(late)
        # At least two things happen between the introductions and the end.
        n_all = rng.randint(max(FEWEST_SENTENCES, n_opening + 3), MOST_SENTENCES)
        plan: list[Event | None] = [None] * (n_all - n_opening - 1)
        arrives = rng.randrange(len(plan))
        return [*opening, *plan[:arrives], *late, *plan[arrives:]]

    def _people(self, rng: random.Random, n_people: int) -> list[str]:
        cast, fame = self._cast
        people: list[str] = []
        while len(people) < n_people:
            (i,) = rng.choices(range(len(cast)), cum_weights=fame)
            while cast[i] in people:  # who was drawn already sends the next in fame
                i = (i + 1) % len(cast)
            people.append(cast[i])
        return people

    def _opening(self, rng: random.Random, places: list[str]) -> tuple[list[Event], list[Event]]:
        """The introductions, and that of a third person, who comes later."""
        people = self._people(rng, _draw(rng, N_PEOPLE))
        has, lying = {}, []
        for thing in rng.sample(things_of(self.world), _draw(rng, N_THINGS)):
            free = [name for name in people if name not in has]
            if rng.random() < SHARE_HELD and free:
                has[rng.choice(free)] = thing
            else:
                lying.append(Event("lie", thing=thing, place=rng.choice(places)))
        starts = (places[0], places[1], rng.choice(places))  # so two places are always named
        come = [
            Event("bring" if name in has else "introduce", name, has.get(name), place)
            for name, place in zip(people, starts, strict=False)
        ]
        opening = come[:2] + lying
        rng.shuffle(opening)
        return opening, come[2:]

    def _tell(
        self, rng: random.Random, events: list[Event], ends: list[Event], language: str
    ) -> tuple[str, tuple[int, ...]]:
        spoken, ways, sentences = words(self.world, language), [], []
        before: list[str] = []
        for event in events:
            names, way = event.names, rng.randrange(N_WAYS)
            if event.kind in WEIGHTS:
                way = 0 if rng.random() < SHARE_PLAIN else rng.randrange(1, N_WAYS)
            if event.kind in WEIGHTS and event.person in before:
                pronoun = self.world.person(event.person).pronoun
                fits = [name for name in before if self.world.person(name).pronoun == pronoun]
                if len(fits) == 1 and rng.random() < SHARE_PRONOUNS:
                    names["person"] = pronoun
            before = [name for name in (event.person, event.other) if name is not None]
            sentences.append(spoken.say(event.kind, names, way))
            ways.append(way)
        ways.append(rng.randrange(N_WAYS))
        sentences.append(spoken.say_end([(end.kind, end.names) for end in ends], ways[-1]))
        return ("" if language == "zh" else " ").join(sentences), tuple(ways)


def _draw(rng: random.Random, weights: Mapping[int, float]) -> int:
    return rng.choices(list(weights), list(weights.values()))[0]


def _next(rng: random.Random, state: State, near: dict[str, list[str]], last: Event) -> Event:
    can = possible(state, near, last)
    (kind,) = rng.choices(list(can), [WEIGHTS[kind] for kind in can])
    event = Event(kind, *rng.choice(can[kind]))
    if kind == "go":
        return replace(event, origin=state.place_of(event.person))
    return event


def _undoes(last: Event, kind: str, person: str, thing: str | None, _, other: str | None) -> bool:
    moved = thing is not None and thing == last.thing
    if kind == last.kind:
        return moved or bool({person, other} & {last.person, last.other} - {None})
    return moved and {kind, last.kind} == {"take", "put"}


def _ends(rng: random.Random, state: State, share_short: float) -> list[Event]:
    """One of the things that are so, or all of them."""
    so = [Event("end-at", person, place=place) for person, place in state.people]
    so += [Event("end-has", person, thing) for thing, person in state.held]
    so += [Event("end-lies", thing=thing, place=place) for thing, place in state.lying]
    return rng.sample(so, 1 if rng.random() < share_short else len(so))
