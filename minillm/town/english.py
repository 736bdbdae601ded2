"""Town English: the words and the rules, as a table for `minillm.town.grammar`, and its spelling.

What makes it a language and not a list: clauses (分句) whose verb agrees with its subject, nested
relative clauses ("the girl who sees the cat"), clauses inside clauses ("Mei says that …"), pairs
joined by "and", questions. What makes it unambiguous: whatever could belong to two places may stand
in one of them only. "at the well" belongs to the nearest verb, since a verb whose object ends in a
relative clause takes no place; "and" joins two names, two verbs without a relative clause, or,
after a comma, two clauses.

The names follow the town's fame. What is for sale where is a fact of the town, so "sells" is used
for nothing else; all other verbs tell of passing things that contradict no fact.

Symbols carry what must agree: VP_1_A is what a single person of group A does. People are in group A
or B by turns of fame, and an object comes from the other group, so that nobody meets themselves.

Chapter: 02
"""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from minillm.town.tinytown import JOBS

if TYPE_CHECKING:
    from minillm.town.world import World

Alternatives = list[tuple[float, tuple[str, ...]]]

# Verbs in their base form, which is also the form after many.
SLEEP = "sing sleep laugh work wait dance whistle cook sneeze dream"
SEE = "see help visit thank follow greet watch remember trust"
BUY = "buy carry want count bring weigh need borrow wash hide"
GIVE = "give send lend"
WALK = "walk go run return"
SAY = "say think hope believe"
ONE = "child girl boy woman man neighbour pupil friend dog cat hen duck"
MANY = "children girls boys women men neighbours pupils friends dogs cats hens ducks"
KIND = "young small tall quiet clever shy brave"
LOOK = "fresh red new cheap yellow heavy blue"
FEEL = "tired happy late hungry busy cold wet angry"
WHEN = "today|again|at noon|in the morning|every day|at night|on Saturday"
_THIRD = {"go": "goes", "watch": "watches", "wash": "washes", "carry": "carries"}


def third(verb: str) -> str:
    """The form after one: "she walks".

    Example:
        >>> third("walk"), third("carry")
        ('walks', 'carries')
    """
    return _THIRD.get(verb, verb + "s")


def zipf(phrases: Iterable[str], exponent: float = 0.7) -> Alternatives:
    """Alternatives whose probability falls with their place in the list.

    Example:
        >>> zipf(["the", "some"], exponent=1)
        [(0.6666666666666666, ('the',)), (0.3333333333333333, ('some',))]
    """
    phrases = [tuple(phrase.split()) for phrase in phrases]
    return share([((i + 1) ** -exponent, phrase) for i, phrase in enumerate(phrases)])


def share(weighted: Iterable[tuple[float, Sequence[str]]]) -> Alternatives:
    """Turn weights into probabilities; the same phrase twice is added up."""
    weights: dict[tuple[str, ...], float] = {}
    for weight, phrase in weighted:
        weights[tuple(phrase)] = weights.get(tuple(phrase), 0.0) + weight
    total = sum(weights.values())
    return [(weight / total, phrase) for phrase, weight in weights.items()]


def table(text: str, **names: str) -> Alternatives:
    """Read alternatives as they are written: "3 NAME sings | 1 NAME sleeps"; weights, not shares.

    Example:
        >>> table("3 NAME sings | 1 NAME sleeps")
        [(0.75, ('NAME', 'sings')), (0.25, ('NAME', 'sleeps'))]
    """
    rows = [row.split() for row in text.format(**names).split("|")]
    return share([(float(weight), phrase) for weight, *phrase in rows])


def english_rules(world: "World") -> dict[str, Alternatives]:
    """The rules of a town's English; the start symbol is S.

    Args:
        world: gives people with their fame, places, goods, and who sells what.
    """
    rules = _words(world)
    rules["S"] = table(
        "50 CLAUSE . | 12 CLAUSE , LINK CLAUSE . | 6 when it SKY , CLAUSE . | 6 WHEN , CLAUSE . "
        "| 20 QUESTION ?"
    )
    rules["LINK"] = table("3 and | 3 but | 2 so")
    rules["SKY"] = table("3 rains | 2 snows | 1 is FEEL")
    rules["CLAUSE"] = table(
        "30 NAME_A VP_1_A | 22 NAME_B VP_1_B | 18 WHO_1 VP_1_X | 12 WHO_2 VP_2_X | 7 PAIR VP_2_P "
        "| 14 SALE | 4 there is ONE WHERE | 2 there are SOME MANY_BAR WHERE | 2 it SKY"
    )
    for number, noun in (("1", "THE_ONE"), ("2", "THE_MANY")):
        rules[f"WHO_{number}"] = table("8 {noun} | 2 {noun} REL_{n}", noun=noun, n=number)
        rules[f"REL_{number}"] = table(
            "4 who SLEEP_{v} | 2 who SLEEP_{v} WHERE | 3 who SEE_{v} WHOM_X | 2 who BUY_{v} GOODS "
            "| 2 who WALK_{v} to PLACE | 1 who BE_{v} STATE | 2 whom NAME_A SEE_1 "
            "| 1 whom NAME_B SEE_1 | 1 who SEE_{v} WHOM_REL",
            v=number,
        )  # fmt: skip
    rules["THE_ONE"] = table("4 the JOB | 6 ONE | 4 the ONE_BAR | 1 this ONE_BAR")
    rules["ONE"] = table("1 a ONE_BAR")
    rules["THE_MANY"] = table("6 the MANY_BAR | 2 these MANY_BAR | 3 SOME MANY_BAR")
    rules["ONE_BAR"] = table("7 CHILD | 3 KIND ONE_BAR")
    rules["MANY_BAR"] = table("7 CHILDREN | 3 KIND MANY_BAR")
    rules["PAIR"] = table("1 NAME_A and NAME_B")
    rules["WHOM_REL"] = table("3 THE_ONE REL_1 | 1 THE_MANY REL_2")
    common = "3 the JOB | 2 the ONE_BAR | 1 ONE | 2 the MANY_BAR | 1 SOME MANY_BAR"
    rules["WHOM_A"] = table(f"6 NAME_B | {common}")
    rules["WHOM_B"] = table(f"6 NAME_A | {common}")
    rules["WHOM_X"] = table(f"4 NAME_A | 3 NAME_B | 1 PAIR | {common}")
    rules["WHOM_P"] = table(common)
    for number, groups in (("1", "ABX"), ("2", "XP"), ("0", "ABXP")):
        for group in groups:
            rules[f"VP_{number}_{group}"] = _verb_phrase(number, group)
            rules[f"DO_{number}_{group}"] = table(
                "3 SLEEP_{n} | 3 SEE_{n} WHOM_{g} | 3 BUY_{n} GOODS | 1 WALK_{n} to PLACE",
                n=number, g=group,
            )  # fmt: skip
    rules["WHERE"] = table("5 at PLACE | 2 near PLACE | 1 behind PLACE | 1 by PLACE")
    rules["STATE"] = table("6 FEEL | 2 very FEEL | 3 WHERE")
    rules["GOODS"] = table(
        "6 STUFF | 3 LOOK STUFF | 2 the STUFF | 2 some STUFF | 3 a PLUM | 1 an APPLE "
        "| 3 NUMBER PLUMS | 1 a LOOK PLUM"
    )
    rules["NUMBER"] = zipf(["two", "three", "four", "five", "six", "ten"])
    rules["QUESTION"] = table(
        "5 does NAME_A VP_0_A | 4 does NAME_B VP_0_B | 3 does WHO_1 VP_0_X | 2 do WHO_2 VP_0_X "
        "| 1 do PAIR VP_0_P | 6 who VP_1_X | 3 who sells STUFF | 4 where does NAME BUY_0 GOODS "
        "| 3 where does NAME SLEEP_0 | 3 what does NAME BUY_0 | 2 why does NAME SLEEP_0 "
        "| 3 is NAME STATE | 2 is WHO_1 STATE | 1 are WHO_2 STATE | 3 whom does NAME SEE_0 "
        "| 1 are PAIR STATE | 2 what does SELLER sell"
    )
    return {symbol: rules[symbol] for symbol in _reachable(rules)}


def _verb_phrase(number: str, group: str) -> Alternatives:
    phrase = table(
        "12 SLEEP_{n} | 10 SLEEP_{n} WHERE | 6 SLEEP_{n} WHEN | 14 SEE_{n} WHOM_{g} "
        "| 5 SEE_{n} WHOM_{g} WHERE | 3 SEE_{n} WHOM_{g} WHEN | 4 SEE_{n} WHOM_REL "
        "| 13 BUY_{n} GOODS | 5 BUY_{n} GOODS WHERE | 3 BUY_{n} GOODS WHEN | 3 BUY_{n} STOCK "
        "| 6 GIVE_{n} GOODS to WHOM_{g} | 8 WALK_{n} to PLACE | 8 BE_{n} STATE "
        "| 5 SAY_{n} that CLAUSE | 4 DO_{n}_{g} and DO_{n}_{g}",
        n=number, g=group,
    )  # fmt: skip
    return share((p, right) for p, right in phrase if right[0] != "BE_0")


def _words(world: "World") -> dict[str, Alternatives]:
    rules: dict[str, Alternatives] = {}
    for symbol, verbs in (
        ("SLEEP", SLEEP), ("SEE", SEE), ("BUY", BUY), ("GIVE", GIVE), ("WALK", WALK), ("SAY", SAY)
    ):  # fmt: skip
        rules[f"{symbol}_0"] = rules[f"{symbol}_2"] = zipf(verbs.split())
        rules[f"{symbol}_1"] = zipf(map(third, verbs.split()))
    rules["BE_1"], rules["BE_2"] = [(1.0, ("is",))], [(1.0, ("are",))]
    rules["CHILD"], rules["CHILDREN"] = zipf(ONE.split()), zipf(MANY.split())
    rules["KIND"], rules["LOOK"], rules["FEEL"] = (zipf(w.split()) for w in (KIND, LOOK, FEEL))
    rules["WHEN"] = zipf(WHEN.split("|"))
    rules["SOME"] = zipf(["some", "two", "three", "many"])
    rules["JOB"] = zipf(JOBS)
    lanes = [p.name if p.name.endswith("Lane") else f"the {p.name}" for p in world.places]
    rules["PLACE"] = zipf(lanes)

    known = list(zip(world.people, world.fame, strict=True))
    called: dict[str, float] = {}
    for person, fame in known:
        name = person.title if person.called == person.name else person.called
        called[name] = called.get(name, 0.0) + fame
    names = list(called.items())
    for group, members in (("A", names[::2]), ("B", names[1::2])):
        rules[f"NAME_{group}"] = share((fame, name.split()) for name, fame in members)
    a, b = (sum(fame for _, fame in members) for members in (names[::2], names[1::2]))
    rules["NAME"] = [(a / (a + b), ("NAME_A",)), (b / (a + b), ("NAME_B",))]

    sales, stocks, sellers = [], [], []
    for person, fame in known:
        if not person.sells:
            continue
        symbol, name = f"STOCK_{person.job.upper().replace(' ', '_')}", person.title.split()
        rules[symbol] = zipf([world.good(good).general for good in person.sells])
        sales.append((fame, (*name, "sells", symbol)))
        stocks.append((fame, ("the", symbol, "that", *name, "sells")))
        sellers.append((fame, name))
    rules["SALE"], rules["STOCK"], rules["SELLER"] = share(sales), share(stocks), share(sellers)

    rules["STUFF"] = zipf([good.general for good in world.goods], 0.4)
    countable = [good for good in world.goods if good.name != good.general]
    vowel = [good.name for good in countable if good.name[0] in "aeiou"]
    rules["APPLE"] = zipf(vowel)
    rules["PLUM"] = zipf([good.name for good in countable if good.name not in vowel], 0.4)
    single = [
        g.general for g in countable if " of " not in g.name and not g.name.startswith("dozen")
    ]
    rules["PLUMS"] = zipf(single, 0.4)
    return rules


def _reachable(rules: dict[str, Alternatives]) -> list[str]:
    order = ["S"]
    for symbol in order:
        for _, right in rules[symbol]:
            order += [p for p in dict.fromkeys(right) if p in rules and p not in order]
    return order


def spell(tokens: Sequence[str]) -> str:
    """Write a row of words as text.

    Example:
        >>> spell(["the", "girl", "sings", ",", "but", "Mei", "sleeps", "."])
        'The girl sings, but Mei sleeps.'
    """
    text = re.sub(r" (?=[.,?](?: |$))", "", " ".join(tokens))
    return text[:1].upper() + text[1:]


def unspell(text: str, alphabet: Collection[str]) -> tuple[str, ...]:
    """The row of words that one sentence of text was written from.

    Args:
        text: one sentence.
        alphabet: the grammar's words; they tell whether the first word is a name.

    Example:
        >>> unspell("The girl sings.", ["the", "girl", "sings", "."])
        ('the', 'girl', 'sings', '.')
    """
    tokens = re.findall(r"[^\s.,?]+|[.,?]", text)
    if tokens and tokens[0] not in alphabet:  # a name keeps its capital, another word had none
        small = tokens[0][0].lower() + tokens[0][1:]
        tokens[0] = small if small in alphabet else tokens[0]
    return tuple(tokens)
