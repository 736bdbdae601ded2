"""A reader who has only the text, and says where a story contradicts itself.

The sentences are read one after the other (`minillm.town.story_words`) and replayed as events
(`minillm.town.story_state`). An event that cannot happen in the state that the text has led to is a
contradiction (矛盾). After it the text is taken at its word, so that one slip is counted once:

    contradiction  somebody acts where they are not, has what another has, gives to somebody who is
                   elsewhere, goes from where they are not or to where they are, misses what is
                   there, was never introduced; or the last sentence is false, or is not the last
    unreadable     a sentence in none of the stories' wordings, or about nobody of this town
    incomplete     the text ends before its last sentence does

Paper: none.
Differs: none.

Chapter: 05
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

from minillm.town.story_state import HERE, Event, State
from minillm.town.story_words import PRONOUNS, Words, sentences, words
from minillm.town.world import World

FIRST_OF_CHINESE = "\u3000"  # 。 and all Chinese characters come after it, all English before


@final
@dataclass(frozen=True)
class Report:
    """What is wrong with a text, and what it says.

    Args:
        n_sentences: whole sentences.
        contradictions, unreadable, incomplete: each a sentence with the number of the place.
        events: that were read, whether they can have happened or not; where it happened, or from
            where somebody went, is filled in if it is not said.
        states: after each event.
    """

    n_sentences: int
    contradictions: tuple[str, ...]
    unreadable: tuple[str, ...]
    incomplete: tuple[str, ...]
    events: tuple[Event, ...]
    states: tuple[State, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """All that is wrong."""
        return self.contradictions + self.unreadable + self.incomplete

    @property
    def consistent(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def finished(self) -> bool:
        """Whether it ends as stories do: with what is so in the end."""
        return bool(self.events) and self.events[-1].kind.startswith("end-")


def check(text: str, world: World | None = None) -> Report:
    """Read a story and say where it contradicts itself.

    Args:
        text: English or Chinese, which the first letter tells.
        world: the town it is about; by default the course's own.

    Example:
        >>> begin = "Mei has a kite and is at the well. Bao is at the mill. "
        >>> check(begin + "She gives the kite to Bao.", World()).problems
        ("sentence 3: 'she' fits nobody in the sentence before",)
        >>> check(begin + "Mei gives the kite to Bao.", World()).problems
        ('sentence 3: Mei gives Bao the kite at the well, but Bao is at the mill',)
        >>> check(begin + "Bao leaves the hill and goes to the well.", World()).problems
        ('sentence 3: Bao leaves the hill and goes to the well, but Bao is at the mill',)
    """
    world = World() if world is None else world
    language = _language(text)
    spoken, english = words(world, language), words(world, "en")
    pronouns = {person.name: person.pronoun for person in world.people}
    whole, rest = sentences(text, language)
    contradictions, unreadable, incomplete = [], [], []
    events, states = [], []
    state, before, ended = State(), [], False
    for number, sentence in enumerate(whole, 1):
        readings = spoken.read(sentence)
        if not readings:
            unreadable.append(f"sentence {number}: {_why_unreadable(spoken, sentence)}")
            continue
        mentioned = []
        for reading in readings:
            names, lost = _resolve(reading.names, before, pronouns)
            if lost:
                word = PRONOUNS[language][lost]
                contradictions.append(
                    f"sentence {number}: {word!r} fits nobody in the sentence before"
                )
                continue
            event = _event(reading.kind, names, state)
            reason = state.problem(event)
            if ended and not event.kind.startswith("end-"):
                reason = "the end was told before"
            if reason:
                claim = english.say_plainly(event.kind, event.names)
                contradictions.append(f"sentence {number}: {claim}, but {reason}")
            state = state.believing(event)
            events.append(event)
            states.append(state)
            mentioned += [name for name in (event.person, event.other) if name]
        before = mentioned
        ended = ended or readings[0].kind.startswith("end-")
    if rest or not whole:
        cut = f"is cut off after {rest!r}" if rest else "is missing: the text is empty"
        incomplete.append(f"sentence {len(whole) + 1} {cut}")
    lists = (contradictions, unreadable, incomplete, events, states)
    return Report(len(whole), *map(tuple, lists))


def share_read(texts: Iterable[str], read: Iterable[str], n_sentences: int = 1) -> float:
    """Of all n neighbouring sentences of some texts, the share that also stands in texts once read.

    Args:
        texts: that are looked up.
        read: in which they are looked up.
        n_sentences: how many in a row have to agree, word for word.

    Example:
        >>> read = ["Mei is at the mill. Bao is at the well.", "Hu is at the forge."]
        >>> text = "Mei is at the mill. Hu is at the forge."
        >>> share_read([text], read), share_read([text], read, n_sentences=2)
        (1.0, 0.0)
    """
    known = {row for text in read for row in _in_a_row(text, n_sentences)}
    rows = [row for text in texts for row in _in_a_row(text, n_sentences)]
    return sum(row in known for row in rows) / max(1, len(rows))


def _in_a_row(text: str, n: int) -> list[tuple[str, ...]]:
    whole, _ = sentences(text, _language(text))
    return [tuple(whole[i : i + n]) for i in range(len(whole) - n + 1)]


def _language(text: str) -> str:
    return "zh" if text.strip()[:1] >= FIRST_OF_CHINESE else "en"


def _resolve(
    names: Mapping[str, str], before: Sequence[str], pronouns: Mapping[str, str]
) -> tuple[dict[str, str], str | None]:
    """The names with people in the place of pronouns, and the first pronoun that fits nobody.

    If one fits two people of the sentence before, it is the one who acted.
    """
    resolved = dict(names)
    for field in ("person", "other"):
        pronoun = names.get(field)
        if pronoun in PRONOUNS["en"]:
            fits = [name for name in before if pronouns[name] == pronoun]
            if not fits:
                return resolved, pronoun
            resolved[field] = fits[0]
    return resolved, None


def _event(kind: str, names: Mapping[str, str], state: State) -> Event:
    """Where somebody acts or comes from is where they are, if it is not said."""
    event = Event(kind, **names)
    if kind in HERE and event.place is None:
        return replace(event, place=state.place_of(event.person))
    if kind == "go" and event.origin is None:
        return replace(event, origin=state.place_of(event.person))
    return event


def _why_unreadable(spoken: Words, sentence: str) -> str:
    if unknown := spoken.unknown(sentence):
        return f"{sentence!r} has words that no story of this town has: {', '.join(unknown)}"
    return f"{sentence!r} is said in none of the stories' wordings"
