"""minillm.town.parse: all trees of a sentence."""

import math
import random

import pytest

from minillm.town.grammar import Grammar, town_grammar
from minillm.town.parse import log_prob, parse, tree_log_prob
from minillm.town.world import World

GRAMMAR = town_grammar(World())
SENTENCES = [sentence for index in range(40, 80) for sentence in GRAMMAR.block(index)]
# "the cat sees the cat near the cat near …" has as many trees as there are ways to hang it up
AMBIGUOUS = Grammar(
    {
        "S": [(1.0, ("N",))],
        "N": [(0.7, ("x",)), (0.3, ("x", "P"))],
        "P": [(0.6, ("+", "N")), (0.4, ("+", "N", "P"))],
    }
)

# --- by hand ---


def test_the_tree_of_a_small_sentence():
    (tree,) = parse(GRAMMAR, ["Mei", "sings", "."])
    assert tree == ("S", ("CLAUSE", ("NAME_A", "Mei"), ("VP_1_A", ("SLEEP_1", "sings"))), ".")


def test_an_ambiguous_sentence_has_all_its_trees():
    assert len(parse(AMBIGUOUS, ["x", "+", "x"])) == 1
    assert len(parse(AMBIGUOUS, ["x", "+", "x", "+", "x"])) == 2
    p = 0.3 * 0.6 * 0.3 * 0.6 * 0.7 + 0.3 * 0.4 * 0.7 * 0.6 * 0.7
    assert log_prob(AMBIGUOUS, ["x", "+", "x", "+", "x"]) == pytest.approx(math.log(p))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Mei",
        "Mei sing .",
        "the girls sings .",
        "Mei sings",
        "Mei sings . Mei sings .",
        "a girls sings .",
        "Mei sells loaves .",
        "does Mei sings ?",
        "the girl who sing sleeps .",
        "the girls who sing sleeps .",
    ],
)
def test_what_is_no_sentence_has_no_tree(text):
    assert parse(GRAMMAR, text.split()) == ()
    with pytest.raises(ValueError, match="the grammar does not have the sentence"):
        log_prob(GRAMMAR, text.split())


def test_a_word_outside_the_alphabet_is_named():
    with pytest.raises(ValueError, match="'railway', word 2 of 4, is outside the alphabet"):
        parse(GRAMMAR, ["Mei", "sees", "railway", "."])


def test_a_text_instead_of_words_is_refused():
    with pytest.raises(ValueError, match="not one text: use unspell"):
        parse(GRAMMAR, "Mei sings.")


def test_a_tree_of_another_grammar_is_refused():
    with pytest.raises(ValueError, match="S → x is no rule"):
        tree_log_prob(GRAMMAR, ("S", "x"))


# --- twin ---


def all_trees(grammar, symbol, n):
    """Every tree of a symbol with at most n words: the brute force."""
    if symbol not in grammar.rules:
        return [symbol] if n >= 1 else []
    found = []
    for _, right in grammar.rules[symbol]:
        rows = [((symbol,), 0)]
        for i, part in enumerate(right):
            rest = len(right) - i - 1
            rows = [
                ((*tree, child), size + words(child))
                for tree, size in rows
                for child in all_trees(grammar, part, n - size - rest)
            ]
        found += [tree for tree, _ in rows]
    return found


def words(tree):
    return 1 if isinstance(tree, str) else sum(map(words, tree[1:]))


def leaves(tree):
    return (tree,) if isinstance(tree, str) else sum(map(leaves, tree[1:]), ())


def test_parsing_finds_the_trees_that_brute_force_finds():
    by_sentence = {}
    for tree in all_trees(AMBIGUOUS, "S", 9):
        by_sentence.setdefault(leaves(tree), set()).add(tree)
    assert max(map(len, by_sentence.values())) > 5
    for sentence, trees in by_sentence.items():
        found = parse(AMBIGUOUS, sentence)
        assert len(found) == len(trees) and set(found) == trees


# --- law ---


def test_every_sample_has_exactly_one_parse_and_it_is_its_own_tree():
    assert len(SENTENCES) == 2560
    for sentence in SENTENCES:
        assert parse(GRAMMAR, sentence.tokens) == (sentence.tree,), sentence.text


def test_corrupted_samples_are_rejected_or_are_other_sentences():
    rng = random.Random(0)
    rejected = 0
    for sentence in SENTENCES[:1000]:
        tokens = list(sentence.tokens)
        i = rng.randrange(len(tokens) - 1)
        kind = rng.choice(("drop", "double", "swap", "replace"))
        if kind == "drop":
            del tokens[i]
        elif kind == "double":
            tokens.insert(i, tokens[i])
        elif kind == "swap":
            tokens[i], tokens[i + 1] = tokens[i + 1], tokens[i]
        else:
            tokens[i] = rng.choice(GRAMMAR.alphabet)
        trees = parse(GRAMMAR, tokens)
        assert len(trees) <= 1
        for tree in trees:
            assert list(leaves(tree)) == tokens
        rejected += not trees
    assert rejected > 700


def test_a_sentence_without_its_full_stop_is_never_one():
    assert all(parse(GRAMMAR, sentence.tokens[:-1]) == () for sentence in SENTENCES[:300])
