"""minillm.town.grammar: sentences whose every probability is known."""

import math
import random
from collections import Counter
from statistics import fmean, stdev

import pytest
from scipy.stats import chisquare

from minillm.town.grammar import Grammar, town_grammar
from minillm.town.parse import tree_log_prob
from minillm.town.world import World

GRAMMAR = town_grammar(World())
SENTENCES = [sentence for index in range(150) for sentence in GRAMMAR.block(index)]
TOY = Grammar(
    {
        "S": [(1.0, ("NP", "VP"))],
        "NP": [(0.7, ("Mei",)), (0.3, ("Bao",))],
        "VP": [(0.5, ("sings",)), (0.25, ("sees", "NP")), (0.25, ("says", "S"))],
    }
)

# --- by hand ---


def test_the_entropy_of_a_toy_is_the_one_on_paper():
    # NP: h = -0.7 ln 0.7 - 0.3 ln 0.3. VP: 1.5 ln 2, plus a quarter of NP, plus a quarter of S.
    # S = NP + VP = NP + 1.5 ln 2 + NP/4 + S/4, so S = (5/4 NP + 1.5 ln 2) · 4/3
    noun = -0.7 * math.log(0.7) - 0.3 * math.log(0.3)
    assert TOY.entropy() == pytest.approx((1.25 * noun + 1.5 * math.log(2)) * 4 / 3, rel=1e-12)
    # length: S = 1 + (1/2 · 1 + 1/4 · 2 + 1/4 · (1 + S)), so S = 3
    assert TOY.expected_length() == pytest.approx(3, rel=1e-12)


def test_a_sentence_says_its_probability_and_its_tree():
    sentences = [TOY.sample(random.Random(seed)) for seed in range(50)]
    short = next(s for s in sentences if s.tokens == ("Bao", "sings"))
    assert short.log_prob == pytest.approx(math.log(0.3 * 0.5))
    assert short.tree == ("S", ("NP", "Bao"), ("VP", "sings"))


def test_a_sum_of_one_up_to_rounding_is_one():
    assert Grammar({"S": [(0.1, (w,)) for w in "abcdefghij"]}).entropy() == pytest.approx(
        math.log(10)
    )


BAD = {
    "of S's 2 alternatives must sum to 1; they sum to 0.9": {"S": [(0.5, ("a",)), (0.4, ("b",))]},
    "of NP's 3 alternatives must sum to 1; they sum to 1.1": {
        "S": [(1.0, ("NP", "sings"))],
        "NP": [(0.5, ("Mei",)), (0.5, ("Bao",)), (0.1, ("Joe",))],
    },
    "probability -0.5; it must be above 0": {"S": [(1.5, ("a",)), (-0.5, ("b",))]},
    "probability 0.0": {"S": [(1.0, ("a",)), (0.0, ("b",))]},
    "probability nan": {"S": [(float("nan"), ("a",))]},
    "they sum to inf": {"S": [(float("inf"), ("a",))]},
    "uses the symbol NP, which has no rule": {"S": [(1.0, ("NP", "a"))]},
    "uses the symbol V, which": {"S": [(1.0, ("a", "V"))]},
    "can contain LOST: unreachable": {"S": [(1.0, ("a",))], "LOST": [(1.0, ("b",))]},
    "can contain A, B: unreachable from S; use or remove the rules of A": {
        "S": [(1.0, ("a",))],
        "A": [(0.5, ("b", "B")), (0.5, ("a",))],
        "B": [(1.0, ("b", "A"))],
    },
    "loop S → S": {"S": [(0.5, ("S", "a")), (0.5, ("a",))]},
    "loop B → B": {
        "S": [(1.0, ("a", "A"))],
        "A": [(0.5, ("a",)), (0.5, ("B",))],
        "B": [(0.5, ("b",)), (0.5, ("B", "c"))],
    },
    "loop A → B → A": {
        "S": [(1.0, ("a", "A"))],
        "A": [(0.5, ("B", "a")), (0.5, ("a",))],
        "B": [(1.0, ("A", "b"))],
    },
    "infinite: around S each round of rewriting leaves 1 ": {
        "S": [(0.5, ("a",)), (0.5, ("a", "S", "S"))]
    },
    "infinite: around S each round of rewriting leaves 1.2": {
        "S": [(0.4, ("a",)), (0.6, ("a", "S", "S"))]
    },
    "infinite: around LIST each round of rewriting leaves 1.2": {
        "S": [(1.0, ("a", "LIST", "LIST", "LIST", "LIST"))],
        "LIST": [(0.4, ("b",)), (0.6, ("b", "LIST", "LIST"))],
    },
    "the alternatives that lead from LIST back to LIST": {
        "S": [(0.5, ("a", "LIST", "LIST", "LIST", "LIST")), (0.5, ("a", "S"))],
        "LIST": [(0.4, ("b",)), (0.6, ("b", "LIST", "LIST"))],
    },
    "S has an empty alternative": {"S": [(1.0, ())]},
    "S → a is there twice": {"S": [(0.5, ("a",)), (0.5, ("a",))]},
    "start symbol 'S' has no rule": {"T": [(1.0, ("a",))]},
    "S's 0 alternatives must sum to 1": {"S": []},
}


@pytest.mark.parametrize("message", BAD)
def test_a_grammar_that_is_none_says_why(message):
    with pytest.raises(ValueError) as caught:
        Grammar(BAD[message])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "rules",
    [
        {"S": [(1.0, ("a", "S"))]},
        {"S": [(1.0, ("a", "A"))], "A": [(1.0, ("b", "B"))], "B": [(1.0, ("c", "S"))]},
    ],
)
def test_rules_that_never_end_are_refused(rules):
    with pytest.raises(ValueError, match=r"length is infinite: around S .* leaves 1 "):
        Grammar(rules)


def test_a_grammar_that_nearly_grows_is_one_and_its_length_is_known():
    # one S leaves 2 · 0.4 S and a word, so its length is 1 / (1 - 0.8)
    assert Grammar({"S": [(0.6, ("a",)), (0.4, ("a", "S", "S"))]}).expected_length() == (
        pytest.approx(5)
    )


def test_a_block_is_counted_from_zero():
    with pytest.raises(ValueError, match="counted from 0; got -1"):
        GRAMMAR.block(-1)


# --- twin ---


def test_monte_carlo_agrees_with_the_closed_forms_within_one_percent():
    losses = [-sentence.log_prob for sentence in SENTENCES]
    error = stdev(losses) / math.sqrt(len(losses))
    assert abs(fmean(losses) - GRAMMAR.entropy()) < min(0.01 * GRAMMAR.entropy(), 3 * error)
    length = fmean(len(sentence.tokens) for sentence in SENTENCES)
    assert length == pytest.approx(GRAMMAR.expected_length(), rel=0.01)


def test_a_sentences_probability_is_the_product_over_its_tree():
    for sentence in SENTENCES[:1000]:
        assert tree_log_prob(GRAMMAR, sentence.tree) == pytest.approx(sentence.log_prob, rel=1e-12)


def test_a_deep_tree_needs_no_deep_stack():
    deep = Grammar({"S": [(0.9999, ("a", "S")), (0.0001, ("b",))]})
    longest = max(
        (deep.sample(random.Random(seed)) for seed in range(5)), key=lambda s: len(s.tokens)
    )
    assert len(longest.tokens) > 5000
    node, depth = longest.tree, 1
    while len(node) == 3:
        node, depth = node[2], depth + 1
    assert depth == len(longest.tokens)


# --- law ---


def test_a_block_is_a_function_of_its_number_and_seed():
    assert GRAMMAR.block(3) == town_grammar(World()).block(3)
    assert GRAMMAR.block(3) != GRAMMAR.block(4)
    assert GRAMMAR.block(3) != GRAMMAR.block(3, seed=1)
    assert len(GRAMMAR.block(0, seed="exam")) == 64


def test_rules_are_used_as_often_as_they_say():
    used = Counter(number for sentence in SENTENCES for number in sentence.derivation)
    by_symbol = {}
    for number, (symbol, p, _) in enumerate(GRAMMAR.numbered):
        by_symbol.setdefault(symbol, []).append((used[number], p))
    p_values = []
    for rows in by_symbol.values():
        total = sum(count for count, _ in rows)
        # rare alternatives are put together, so that each cell expects at least 5
        common = [(count, total * p) for count, p in rows if total * p >= 5]
        rest = [(count, total * p) for count, p in rows if total * p < 5]
        if sum(expected for _, expected in rest) >= 5:
            common.append(tuple(map(sum, zip(*rest, strict=True))))
        elif rest and common:
            count, expected = common.pop()
            common.append(tuple(map(sum, zip((count, expected), *rest, strict=True))))
        if len(common) > 1:
            p_values.append(chisquare(*zip(*common, strict=True)).pvalue)
    assert len(p_values) > 60
    assert min(p_values) > 0.001 / 10
    assert 0.35 < fmean(p_values) < 0.65  # neither too far from the law nor too near it


def test_the_mean_log_loss_of_the_source_is_its_entropy_for_other_towns_too():
    grammar = town_grammar(World("Ada", fame_exponent=0.5))
    losses = [-s.log_prob for index in range(60) for s in grammar.block(index)]
    assert abs(fmean(losses) - grammar.entropy()) < 3 * stdev(losses) / math.sqrt(len(losses))
