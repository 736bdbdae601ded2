"""minillm.town.english: the words and the rules of town English."""

import re

import pytest

from minillm.text.bpe import train
from minillm.town.english import english_rules, share, spell, table, third, unspell, zipf
from minillm.town.grammar import town_grammar
from minillm.town.world import World, sealed_town

GRAMMAR = town_grammar(World())
SENTENCES = [sentence for index in range(60) for sentence in GRAMMAR.block(index)]

# --- by hand ---


def test_weights_become_probabilities_and_repeats_are_added_up():
    assert share([(1, ["a"]), (2, ["b"]), (1, ["a"])]) == [(0.5, ("a",)), (0.5, ("b",))]
    assert table("1 {x} | 3 y z", x="NP") == [(0.25, ("NP",)), (0.75, ("y", "z"))]
    assert [p for p, _ in zipf(["a", "b", "c"], 1)] == pytest.approx([6 / 11, 3 / 11, 2 / 11])


def test_a_verb_takes_its_ending():
    assert [third(v) for v in ("sing", "go", "wash", "carry")] == [
        "sings",
        "goes",
        "washes",
        "carries",
    ]


def test_text_is_written_as_people_write_it():
    assert spell(["does", "Mei", "sing", "?"]) == "Does Mei sing?"
    assert unspell("When it rains, Mei sings.", ["when", "it", "rains", "Mei", "sings"]) == (
        "when", "it", "rains", ",", "Mei", "sings", ".",
    )  # fmt: skip


def test_an_unknown_first_word_keeps_its_capital():
    assert unspell("Zed sings.", GRAMMAR.words)[0] == "Zed"


# --- law ---


def test_spelling_can_be_undone():
    for sentence in SENTENCES:
        assert unspell(sentence.text, GRAMMAR.words) == sentence.tokens


def test_no_word_that_begins_a_sentence_is_a_name_but_for_its_capital():
    first = GRAMMAR.first_words["S"]
    assert {"the", "does", "Mei"} <= first
    names = {word.lower() for word in GRAMMAR.words if word[0].isupper()}
    assert "doctor" in names
    assert not names & {word for word in first if word[0].islower()}


def test_verbs_agree_with_their_subjects():
    text = "\n".join(sentence.text for sentence in SENTENCES)
    assert re.search(r"^The girls? \w+", text, flags=re.MULTILINE)
    assert not re.search(
        r"^(The|These|Some) \w+(ren|rls|oys|men|gs|ts) (is|sings|sees|buys)\b", text, re.M
    )
    assert not re.search(r"^(The|This|A) (girl|boy|man|cat) (are|sing|see|buy)\b", text, re.M)
    assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text)


def test_nobody_sells_what_the_town_says_they_do_not_sell():
    world = World()
    for sentence in SENTENCES:
        if "sells" in sentence.tokens and sentence.tokens[0] != "who":
            at = sentence.tokens.index("sells")
            seller = world.person(sentence.tokens[at - 1])
            general = {world.good(good).general for good in seller.sells}
            assert any(good in " ".join(sentence.tokens) for good in general), sentence.text


def test_the_sentences_want_a_vocabulary_of_about_a_thousand():
    text = " ".join(s.text for index in range(250) for s in GRAMMAR.block(index))
    assert 350 <= len(GRAMMAR.alphabet) <= 450
    assert 950 <= train(text, None).vocab_size <= 1150


@pytest.mark.parametrize(
    "world", [sealed_town(), World("x", n_people=12), World(n_people=500, ambiguity=0.5)]
)
def test_every_town_has_a_grammar_with_the_same_rules_and_other_names(world):
    grammar = town_grammar(world)
    assert set(grammar.rules) == set(GRAMMAR.rules)
    shared = len(grammar.words & GRAMMAR.words)
    assert shared >= 250
    for sentence in grammar.block(0):
        assert len(grammar.parse(sentence.tokens)) == 1


def test_names_follow_fame():
    world = World()
    rules = english_rules(world)
    p = {right: p for p, right in rules["NAME_A"]}
    assert p[("Mei",)] / p[("Joe",)] == pytest.approx(world.fame[0] / world.fame[2])
