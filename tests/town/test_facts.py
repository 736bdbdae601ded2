import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from minillm.town.facts import Fact, FactTable
from minillm.town.world import RELATIONS, World, sealed_town

TABLE = FactTable(World())
SENTENCES = [sentence for index in range(150) for sentence in TABLE.block(index, "tests")]


# --- by hand -----------------------------------------------------------------------------------


def test_the_facts_of_the_reader_are_there():
    assert {
        Fact("Mei", "sells", "plum"),
        Fact("Ann", "lives-in", "clock tower"),
        Fact("Tan", "parent-of", "Kai"),
        Fact("Hu", "born-in", "ferry"),
        Fact("Kai", "likes", "his three cats"),
        Fact("Dan", "owns", "goose"),
        Fact("Su", "works-as", "doctor"),
    } <= set(TABLE.facts)
    assert not [fact for fact in TABLE.facts if fact.subject == "Su" and fact.relation == "born-in"]


def test_a_fact_is_as_likely_as_its_subject_is_famous_by_the_number_of_facts():
    # Of 103 people, the nth has fame 1/n / (1 + 1/2 + … + 1/103); Mei has 12 facts, Bao 8.
    harmonic = sum(1 / n for n in range(1, 104))
    n_facts = Counter(fact.subject for fact in TABLE.facts)
    assert (n_facts["Mei"], n_facts["Bao"]) == (12, 8)
    assert TABLE.probability(Fact("Mei", "sells", "plum")) == pytest.approx(1 / harmonic / 12)
    assert TABLE.probability(Fact("Bao", "sells", "bun")) == pytest.approx(1 / 2 / harmonic / 8)


def test_the_bits_of_one_shop_are_those_of_choosing_its_goods_from_all():
    # The 12 keepers of the village sell 6, 4, 2, 0, 0, 2, 1, 5, 4, 4, 2 and 2 of 32 goods.
    bits = TABLE.bits()
    sold = [6, 4, 2, 2, 1, 5, 4, 4, 2, 2]
    assert bits["sells"] == pytest.approx(sum(math.log2(math.comb(32, m)) for m in sold))
    assert bits["lives-in"] == pytest.approx(103 * math.log2(18))
    assert tuple(bits) == RELATIONS


# --- twin --------------------------------------------------------------------------------------


def test_the_sentence_says_the_fact_that_stands_beside_it():
    for sentence in SENTENCES[:1000]:
        assert sentence.text == TABLE.say(sentence.fact, sentence.language, sentence.paraphrase)


# --- reference ---------------------------------------------------------------------------------


def test_facts_languages_and_paraphrases_come_as_often_as_stated():
    counts = Counter(sentence.fact for sentence in SENTENCES)
    found = np.array([counts[fact] for fact in TABLE.facts])
    expected = len(SENTENCES) * TABLE.probabilities
    large = expected >= 5
    found = [*found[large], found[~large].sum()]
    expected = [*expected[large], expected[~large].sum()]
    assert chisquare(found, expected).pvalue > 0.001
    ways = Counter((sentence.language, sentence.paraphrase) for sentence in SENTENCES)
    assert len(ways) == 8
    assert chisquare(list(ways.values())).pvalue > 0.001


# --- law ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [World(), sealed_town()], ids=["tinytown", "sealed"])
def test_no_two_facts_and_no_two_ways_give_the_same_sentence(world):
    table = FactTable(world)
    texts = Counter(
        table.say(fact, language, way)
        for fact in table.facts
        for language in ("en", "zh")
        for way in range(4)
    )
    assert set(texts.values()) == {1}
    assert {fact.relation for fact in table.facts} == set(RELATIONS)
    assert len(set(table.facts)) == len(table.facts)


def test_english_is_ascii_and_chinese_has_no_latin_letters():
    for sentence in SENTENCES:
        if sentence.language == "en":
            assert sentence.text.isascii()
            assert sentence.text[0].isupper()
            assert sentence.text[-1] == "."
            assert "  " not in sentence.text
        else:
            assert not any(character.isascii() for character in sentence.text)
            assert sentence.text[-1] == "。"


@given(st.integers(0, 2**40), st.one_of(st.integers(), st.text(max_size=8)))
@settings(max_examples=8, deadline=None)
def test_a_block_is_a_function_of_seed_and_index(index, seed):
    block = FactTable(World()).block(index, seed)
    assert len(block) == 64
    assert block == TABLE.block(index, seed)
    assert block != TABLE.block(index + 1, seed)


def test_what_is_held_back_is_not_said_and_the_facts_stay():
    all_ways = TABLE.block(5, "held")
    some = TABLE.block(5, "held", languages=("zh",), paraphrases=(0, 3))
    assert [sentence.fact for sentence in some] == [sentence.fact for sentence in all_ways]
    assert {(sentence.language, sentence.paraphrase) for sentence in some} == {("zh", 0), ("zh", 3)}


def test_another_town_has_other_facts_in_the_same_relations():
    other = FactTable(World("your name"))
    assert not set(other.facts) & set(TABLE.facts)
    assert {fact.relation for fact in other.facts} == set(RELATIONS)
    assert other.probabilities.sum() == pytest.approx(1)


def test_facts_change_with_the_day_if_the_town_changes():
    world = World(change_rate=0.2)
    today, later = FactTable(world), FactTable(world, day=3)
    assert set(today.facts) == set(TABLE.facts)
    changed = set(later.facts) - set(today.facts)
    assert changed
    assert {fact.relation for fact in changed} <= {"lives-in", "likes"}
    assert FactTable(World(), day=3).facts == TABLE.facts


def test_what_is_not_so_can_be_said_but_has_no_probability():
    wrong = Fact("Mei", "likes", "snow")
    assert TABLE.say(wrong) == "Mei likes snow."
    with pytest.raises(ValueError, match=r"not a fact of this town: Fact\(subject='Mei'"):
        TABLE.probability(wrong)


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: TABLE.block(-1), "index must be at least 0; got -1"),
        (lambda: TABLE.block(0, languages=()), "at least one language and one paraphrase"),
        (lambda: TABLE.block(0, paraphrases=()), "at least one language and one paraphrase"),
        (lambda: TABLE.block(0, languages=("fr",)), "got 'fr'"),
        (lambda: TABLE.block(0, paraphrases=[7]), "paraphrase must be 0 to 3; got 7"),
        (lambda: TABLE.block(0, seed=0.5), "whole number or a text"),
        (lambda: FactTable(World(), day=-1), "days are counted from 0; got -1"),
    ],
)
def test_what_is_wrong_is_named(make, says):
    with pytest.raises(ValueError, match=says):
        make()
