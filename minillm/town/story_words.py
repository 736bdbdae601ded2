"""How a story says what happens, three ways in English and in Chinese, and how that is read.

A sentence is a wording (措辞) with its blanks filled in, and a wording is known by what is left
when every name in a sentence is replaced by its blank:

    "Mei gives the kite to Bao."  →  "{p} gives {t} to {p}."  →  give: person, thing, other

So reading is one substitution and one look-up. What was read is said again and must come out
letter by letter the same; anything else is not a sentence of the town.

Paper: none.
Differs: none.

Chapter: 05
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import final

from minillm.town.paraphrases import BESIDE
from minillm.town.world import World

N_WAYS = 3
# p person, o the other person, t the thing, a one of it ("a kite"), l place, at "at the well",
# f the place from where somebody goes. Every wording begins with who or what, not with where.
# Of what happens, from "go" on, wording 0 does not say where it happens or from where somebody
# goes; wordings 1 and 2 do.
WAYS = {
    "en": {
        "introduce": ("{p} is {at}.", "{p} waits {at}.", "{p} stands {at}."),
        "bring": (
            "{p} has {a} and is {at}.",
            "{p} has {a} and waits {at}.",
            "{p} stands with {a} {at}.",
        ),
        "lie": ("{a} lies {at}.", "there is {a} {at}.", "somebody has left {a} {at}."),
        "go": (
            "{p} goes to {l}.",
            "then {p} walks from {f} to {l}.",
            "{p} leaves {f} and goes to {l}.",
        ),
        "take": ("{p} picks up {t}.", "{p} picks up {t} {at}.", "{p} takes {t} {at}."),
        "put": ("{p} puts down {t}.", "{p} puts {t} down {at}.", "{p} leaves {t} {at}."),
        "give": ("{p} gives {t} to {o}.", "{p} gives {o} {t} {at}.", "{p} hands {t} to {o} {at}."),
        "meet": ("{p} meets {o}.", "{p} says hello to {o} {at}.", "{p} greets {o} {at}."),
        "miss": (
            "{p} looks for {t}, but it is not there.",
            "{p} looks for {t} {at} in vain.",
            "{p} cannot find {t} {at}.",
        ),
    },
    "zh": {
        "introduce": ("{p}在{l}。", "{p}今天在{l}。", "{p}站在{l}。"),
        "bring": ("{p}有{a}，在{l}。", "{p}带着{a}在{l}。", "{p}拿着{a}站在{l}。"),
        "lie": ("{a}在{l}。", "{a}放在{l}。", "有{a}放在{l}。"),
        "go": ("{p}去了{l}。", "然后{p}从{f}走到{l}。", "{p}离开{f}，去了{l}。"),
        "take": ("{p}拿起{t}。", "{p}在{l}拿起{t}。", "{p}在{l}拿走了{t}。"),
        "put": ("{p}放下{t}。", "{p}把{t}放在{l}。", "{p}把{t}留在{l}。"),
        "give": ("{p}把{t}给了{o}。", "{p}在{l}给了{o}{t}。", "{p}在{l}把{t}递给{o}。"),
        "meet": ("{p}遇见{o}。", "{p}在{l}向{o}问好。", "{p}在{l}和{o}打招呼。"),
        "miss": ("{p}找{t}，可是这里没有。", "{p}在{l}找{t}，没有找到。", "{p}在{l}找不到{t}。"),
    },
}
# The last sentence: an opening, and what is so in the end, one clause or several.
OPENINGS = {
    "en": ("at the end, ", "in the end, ", "finally, "),
    "zh": ("最后，", "到最后，", "一天结束时，"),
}
CLAUSES = {
    "en": {"end-at": "{p} is {at}", "end-has": "{p} has {t}", "end-lies": "{t} lies {at}"},
    "zh": {"end-at": "{p}在{l}", "end-has": "{p}拿着{t}", "end-lies": "{t}放在{l}"},
}
AND = {"en": " and ", "zh": "，"}
STOP = {"en": ".", "zh": "。"}
PRONOUNS = {"en": {"she": "she", "he": "he"}, "zh": {"she": "她", "he": "他"}}
UNCOUNTED = ("ointment", "cough syrup", "dozen nails")  # nobody says "an ointment lies there"
# The wording that says where, or from where.
WITH_PLACE = {"go": 2, "take": 1, "put": 1, "give": 1, "meet": 1, "miss": 1}
FIELDS = {
    "p": "person",
    "o": "other",
    "t": "thing",
    "a": "thing",
    "l": "place",
    "at": "place",
    "f": "origin",
}
_BLANK = re.compile(r"{(\w+)}")


def things_of(world: World) -> tuple[str, ...]:
    """What can be carried about in a story: goods of which one says "a kite".

    A "dish of pickled radish" is left out too: stories are short.

    Example:
        >>> len(things_of(World())), "kite" in things_of(World())
        (22, True)
    """
    names = (good.name for good in world.goods)
    return tuple(name for name in names if name not in UNCOUNTED and " of " not in name)


def at(place: str) -> str:
    """A place as English speaks of being there.

    Example:
        >>> at("well"), at("Plum Lane")
        ('at the well', 'in Plum Lane')
    """
    return f"in {place}" if place.endswith(" Lane") else f"at the {place}"


@final
@dataclass(frozen=True)
class Reading:
    """What a sentence, or a clause of the last one, says.

    Args:
        kind: of event, a key of `WAYS` or `CLAUSES`.
        names: "person", "other", "thing", "place", "origin", as far as they are said; a person
            may be "she" or "he".
        way: number of the wording, or of the opening of a last sentence.
    """

    kind: str
    names: Mapping[str, str]
    way: int


@final
@dataclass(frozen=True)
class Words:
    """The words of a town in one language; `words(world, language)` keeps them.

    Args:
        world: the town, whose people are called by their unique names.
        language: "en" or "zh".

    Raises:
        ValueError: another language.

    Example:
        >>> spoken = Words(World(), "en")
        >>> spoken.say("go", {"person": "Mei", "origin": "well", "place": "mill"}, way=1)
        'Then Mei walks from the well to the mill.'
        >>> spoken.read("Mei goes to the mill.")
        (Reading(kind='go', names={'person': 'Mei', 'place': 'mill'}, way=0),)
    """

    world: World
    language: str

    def __post_init__(self) -> None:
        if self.language not in WAYS:
            raise ValueError(
                f'stories are told in "en" (English) and "zh" (Chinese); got {self.language!r}'
            )

    def say(self, kind: str, names: Mapping[str, str], way: int = 0) -> str:
        """An event as a sentence.

        Args:
            kind: a key of `WAYS`.
            names: of the person, the thing, the place, the other, the origin, as far as the
                wording needs them.
            way: 0 to 2.

        Raises:
            ValueError: a kind, way or name that does not exist, or a name that is needed.
        """
        ways = WAYS[self.language]
        if kind not in ways:
            raise ValueError(f"no event {kind!r}; there are {', '.join(ways)}")
        if not 0 <= way < N_WAYS:
            raise ValueError(f"way must be 0 to {N_WAYS - 1}; got {way}")
        return _begin(self._fill(ways[kind][way], names))

    def say_end(self, clauses: list[tuple[str, Mapping[str, str]]], way: int = 0) -> str:
        """The last sentence, from (kind, names) of each clause.

        Example:
            >>> Words(World(), "en").say_end([("end-has", {"person": "Bao", "thing": "kite"})])
            'At the end, Bao has the kite.'
        """
        parts = [self._fill(CLAUSES[self.language][kind], names) for kind, names in clauses]
        language = self.language
        return _begin(OPENINGS[language][way] + AND[language].join(parts) + STOP[language])

    def say_plainly(self, kind: str, names: Mapping[str, str]) -> str:
        """An event of any kind as part of a longer sentence, with where, or from where, if known.

        Example:
            >>> Words(World(), "en").say_plainly("take", {"person": "Mei", "thing": "kite"})
            'Mei picks up the kite'
        """
        if kind in CLAUSES[self.language]:
            return _begin(self._fill(CLAUSES[self.language][kind], names))
        known = ("origin" if kind == "go" else "place") in names
        way = WITH_PLACE.get(kind, 0) if known else 0
        return self.say(kind, names, way)[: -len(STOP[self.language])]

    def read(self, sentence: str) -> tuple[Reading, ...]:
        """What a sentence says; several clauses for a last sentence, none if it is not ours."""
        readings = self._find(sentence)
        if not readings:
            return ()
        if readings[0].kind in WAYS[self.language]:
            again = self.say(readings[0].kind, readings[0].names, readings[0].way)
        else:
            again = self.say_end([(part.kind, part.names) for part in readings], readings[0].way)
        return readings if again == sentence else ()

    def parted(self, text: str) -> list[str]:
        """A text cut before and after every name, pronoun and place: joined, they are the text.

        For a tokenizer that learns pieces from it. Chinese has no spaces; without this a frequent
        half of a sentence would become one piece.

        Example:
            >>> Words(World(), "zh").parted("小梅在集市。")
            ['小梅', '在', '集市', '。']
        """
        pieces, begin = [], 0
        for name in self._pattern.finditer(text):
            pieces += [text[begin : name.start()], name[0]]
            begin = name.end()
        return [piece for piece in (*pieces, text[begin:]) if piece]

    def unknown(self, sentence: str) -> list[str]:
        """The words of an English sentence that no sentence of this town has.

        Example:
            >>> Words(World(), "en").unknown("Bob eats the kite.")
            ['Bob', 'eats']
        """
        if self.language == "zh":
            return []
        tokens = re.findall(r"\w+", sentence)
        return [word for word in tokens if word.lower() not in self._vocabulary]

    @cached_property
    def _vocabulary(self) -> frozenset[str]:
        known = [*self._skeletons, *OPENINGS["en"], *AND.values(), *self._tokens]
        return frozenset(re.findall(r"\w+", " ".join(known).lower()))

    def _fill(self, template: str, names: Mapping[str, str]) -> str:
        forms: dict[str, str] = {}
        for field, name in names.items():
            if (field, name) not in self._forms:
                raise ValueError(f"no {field} {name!r} that a story can speak of in this town")
            forms |= self._forms[field, name]
        try:
            return template.format_map(forms)
        except KeyError as missing:
            needed = FIELDS[missing.args[0]]
            raise ValueError(f"{template!r} needs the name of the {needed}") from None

    @cached_property
    def _forms(self) -> dict[tuple[str, str], dict[str, str]]:
        """(field, name): what stands in each blank."""
        chinese = self.language == "zh"
        forms = {}
        people = {p.name: p.chinese if chinese else p.name for p in self.world.people}
        for name, word in (people | PRONOUNS[self.language]).items():
            forms["person", name], forms["other", name] = {"p": word}, {"o": word}
        for name in things_of(self.world):
            good = self.world.good(name)
            an = f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
            one = f"一{good.measure}{good.chinese}"
            forms["thing", name] = (
                {"t": good.chinese, "a": one} if chinese else {"t": f"the {name}", "a": an}
            )
        for place in self.world.places:
            there, where = BESIDE.get(place.chinese, place.chinese), at(place.name)
            to = there if chinese else where.partition(" ")[2]
            forms["place", place.name] = {"l": to} if chinese else {"l": to, "at": where}
            forms["origin", place.name] = {"f": to}
        return forms

    @cached_property
    def _tokens(self) -> dict[str, tuple[str, str]]:
        """Each form, in small letters and as a sentence begins with it: (blank, name)."""
        tokens = {}
        for (field, name), forms in self._forms.items():
            if field not in ("other", "origin"):  # they look like a person and a place
                for blank, form in forms.items():
                    tokens[form] = tokens[_begin(form)] = (blank, name)
        return tokens

    @cached_property
    def _pattern(self) -> re.Pattern:
        longest_first = sorted(self._tokens, key=lambda form: (-len(form), form))
        either = "|".join(re.escape(form) for form in longest_first)
        return re.compile(rf"\b(?:{either})\b" if self.language == "en" else either)

    @cached_property
    def _skeletons(self) -> dict[str, tuple[str, int, list[str]]]:
        """What is left of a wording without its names: (kind, way, the fields in their order)."""
        rows = [(k, way, t) for k, ts in WAYS[self.language].items() for way, t in enumerate(ts)]
        rows += [(kind, 0, template) for kind, template in CLAUSES[self.language].items()]
        return {
            template.replace("{o}", "{p}").replace("{f}", "{l}"): (
                kind,
                way,
                [FIELDS[blank] for blank in _BLANK.findall(template)],
            )
            for kind, way, template in rows
        }

    def _find(self, sentence: str) -> tuple[Reading, ...]:
        stop = STOP[self.language]
        for way, opening in enumerate(OPENINGS[self.language]):
            if sentence.startswith(_begin(opening)) and sentence.endswith(stop):
                clauses = sentence[len(opening) : -len(stop)].split(AND[self.language])
                readings = [self._look_up(clause, way) for clause in clauses]
                return tuple(readings) if all(readings) else ()
        reading = self._look_up(sentence)
        return (reading,) if reading and reading.kind in WAYS[self.language] else ()

    def _look_up(self, sentence: str, opening: int | None = None) -> Reading | None:
        names = [self._tokens[form][1] for form in self._pattern.findall(sentence)]
        skeleton = self._pattern.sub(lambda form: f"{{{self._tokens[form[0]][0]}}}", sentence)
        skeleton = skeleton[:1].lower() + skeleton[1:]
        if skeleton not in self._skeletons:
            return None
        kind, way, fields = self._skeletons[skeleton]
        # A text that itself says "{p}" has fewer names than blanks.
        if (opening is not None) != (kind in CLAUSES[self.language]) or len(names) < len(fields):
            return None
        named = dict(zip(fields, names, strict=True))
        return Reading(kind, named, way if opening is None else opening)


@lru_cache(maxsize=16)
def words(world: World, language: str) -> Words:
    """The words of a town, made once.

    Example:
        >>> words(World(), "zh").say("give", {"person": "Mei", "thing": "kite", "other": "Bao"})
        '小梅把风筝给了大宝。'
    """
    return Words(world, language)


def sentences(text: str, language: str) -> tuple[list[str], str]:
    """A text cut after every full stop, and what is left over.

    Example:
        >>> sentences("Mei is at the mill. She goes", "en")
        (['Mei is at the mill.'], 'She goes')
    """
    stop = STOP[language]
    *whole, rest = text.split(stop)
    return [sentence.strip() + stop for sentence in whole], rest.strip()


def _begin(text: str) -> str:
    return text[:1].upper() + text[1:]
