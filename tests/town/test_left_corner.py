"""minillm.town.left_corner: the Bayes-optimal next word."""

import math

import pytest

from minillm.town import parse
from minillm.town.grammar import Grammar, town_grammar
from minillm.town.left_corner import begin, left_corners
from minillm.town.world import World

GRAMMAR = town_grammar(World())
SENTENCES = [sentence for index in range(80, 88) for sentence in GRAMMAR.block(index)]
# Ambiguous on purpose, and with unit rules: "x + x + x" has two trees.
AMBIGUOUS = Grammar(
    {
        "S": [(0.8, ("N",)), (0.2, ("N", "end"))],
        "N": [(0.7, ("x",)), (0.3, ("x", "P"))],
        "P": [(0.6, ("+", "N")), (0.4, ("+", "N", "P"))],
    }
)

# --- by hand ---


def test_left_corners_are_written_out_through_all_symbols():
    corners = left_corners(AMBIGUOUS)
    assert corners["N"]["x"] == ((0.7, ()), (0.3, ("P",)))
    weights = {rest: p for p, rest in corners["S"]["x"]}
    assert weights == pytest.approx({(): 0.56, ("P",): 0.24, ("end",): 0.14, ("P", "end"): 0.06})


def test_what_follows_x_is_the_sum_on_paper():
    # after x: it was all (0.56), "end" comes (0.14), or P does (0.3), which begins with "+"
    assert AMBIGUOUS.next_token(["x"]) == pytest.approx({None: 0.56, "end": 0.14, "+": 0.3})


def test_two_ways_that_meet_again_are_added_up():
    # after "s a" it was an A (0.3) or a B (0.7), and both go on with c
    meet = Grammar(
        {
            "S": [(0.3, ("s", "A", "T")), (0.7, ("s", "B", "T"))],
            "A": [(0.5, ("a",)), (0.5, ("b",))],
            "B": [(1.0, ("a",))],
            "T": [(0.9, ("c",)), (0.1, ("d",))],
        }
    )
    assert meet.next_token(["s", "a"]) == pytest.approx({"c": 0.9, "d": 0.1})
    assert meet.log_prob(["s", "a", "c"]) == pytest.approx(math.log(0.85 * 0.9))


def test_nothing_follows_a_full_stop_but_the_end():
    assert GRAMMAR.next_token(["Mei", "sings", "."]) == pytest.approx({None: 1.0})


def test_the_verb_agrees_with_a_far_subject():
    likely = GRAMMAR.next_token(["the", "girls", "who", "see", "the", "cat"])
    assert {"sing", "are"} <= set(likely) and not {"sings", "is"} & set(likely)


@pytest.mark.parametrize("call", [GRAMMAR.log_prob, GRAMMAR.next_token])
def test_where_a_sentence_leaves_the_grammar_is_said(call):
    with pytest.raises(ValueError) as caught:
        call(["the", "girls", "sings", "."])
    assert "goes on with 'sings' after 'the girls' (word 2)" in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        GRAMMAR.log_prob,
        GRAMMAR.log_probs,
        GRAMMAR.next_token,
        lambda tokens: list(GRAMMAR.next_tokens(tokens)),
    ],
)
def test_a_word_outside_the_alphabet_is_named(call):
    with pytest.raises(ValueError, match="'railway', word 1 of 2, is outside the alphabet"):
        call(["the", "railway"])
    with pytest.raises(ValueError, match="not one text: use unspell"):
        call("Mei sings.")


def test_a_sentence_that_stops_too_soon_is_refused():
    with pytest.raises(ValueError, match="goes on with the end after 'Mei sings'"):
        GRAMMAR.log_prob(["Mei", "sings"])
    with pytest.raises(ValueError, match="goes on with the end after 'the beginning'"):
        GRAMMAR.log_prob([])


# --- twin ---


def sentences_up_to(grammar, n):
    """Every sentence of at most n words with its probability, by leftmost rewriting."""
    found, queue = {}, [((grammar.start,), 1.0)]
    while queue:
        row, p = queue.pop()
        i = next((i for i, part in enumerate(row) if part in grammar.rules), None)
        if i is None:
            found[row] = found.get(row, 0.0) + p
            continue
        for q, right in grammar.rules[row[i]]:
            new = (*row[:i], *right, *row[i + 1 :])
            if len(new) <= n:
                queue.append((new, p * q))
    return found


def test_the_inside_probability_equals_brute_force():
    found = sentences_up_to(AMBIGUOUS, 10)
    assert len(found) == 10
    for sentence, p in found.items():
        assert AMBIGUOUS.log_prob(sentence) == pytest.approx(math.log(p), rel=1e-12)


def test_the_next_word_equals_enumeration():
    finite = Grammar(
        {
            "S": [(0.5, ("A", "B")), (0.3, ("A",)), (0.2, ("B", "A", "c"))],
            "A": [(0.6, ("a",)), (0.4, ("a", "B"))],
            "B": [(0.3, ("b",)), (0.7, ("a", "b"))],
        }
    )
    everything = sentences_up_to(finite, 20)
    assert math.fsum(everything.values()) == pytest.approx(1)
    prefixes = {sentence[:n] for sentence in everything for n in range(len(sentence) + 1)}
    assert len(prefixes) > 15
    for prefix in prefixes:
        n = len(prefix)
        mass = {}
        for sentence, p in everything.items():
            if sentence[:n] == prefix:
                following = sentence[n] if len(sentence) > n else None
                mass[following] = mass.get(following, 0.0) + p
        total = sum(mass.values())
        expected = {word: p / total for word, p in mass.items()}
        assert finite.next_token(prefix) == pytest.approx(expected, rel=1e-12)


def test_left_to_right_equals_the_sum_over_trees():
    for sentence in SENTENCES[:200]:
        chained = GRAMMAR.log_prob(sentence.tokens)
        assert chained == pytest.approx(parse.log_prob(GRAMMAR, sentence.tokens), rel=1e-12)
        assert chained == pytest.approx(sentence.log_prob, rel=1e-12)


# --- law ---


def test_the_next_word_sums_to_one_and_chains_to_the_sentences_probability():
    n_words = 0
    for sentence in SENTENCES[:240]:
        total = 0.0
        following = [*sentence.tokens, None]
        for word, likely in zip(following, GRAMMAR.next_tokens(sentence.tokens), strict=True):
            assert math.fsum(likely.values()) == pytest.approx(1, abs=1e-12)
            total += math.log(likely[word])
            n_words += 1
        assert total == pytest.approx(sentence.log_prob, rel=1e-11)
    assert n_words > 2000


def test_log_probs_add_up_and_say_the_end_too():
    for sentence in SENTENCES[:100]:
        logs = GRAMMAR.log_probs(sentence.tokens)
        assert len(logs) == len(sentence.tokens) + 1
        assert logs[-1] == pytest.approx(0, abs=1e-12)
        assert math.fsum(logs) == pytest.approx(sentence.log_prob, rel=1e-12)


def test_a_sentence_of_hundreds_of_words_does_not_underflow():
    chain = Grammar({"S": [(0.5, ("a", "S")), (0.25, ("b", "S")), (0.25, ("c",))]})
    expected = 600 * math.log(0.25) + math.log(0.25)
    assert expected < math.log(5e-324)
    assert chain.log_prob(["b"] * 600 + ["c"]) == pytest.approx(expected)


def test_stacks_that_are_equal_are_added_up():
    # Each a may or may not want a b in the end: 2^n ways, but only n + 1 stacks S b … b.
    both = Grammar({"S": [(0.3, ("a", "S", "b")), (0.3, ("a", "S")), (0.4, ("c",))]})
    state = begin(both)
    for _ in range(40):
        state = state.then("a")
    assert len(state.stacks) == 41
    assert math.fsum(state.then("c").next_token().values()) == pytest.approx(1)


def test_a_prefix_is_a_value_that_can_be_continued_twice():
    state = begin(GRAMMAR).then("Mei")
    sings, sleeps = state.then("sings"), state.then("sleeps")
    assert state.tokens == ("Mei",)
    assert sings.then(".").end() != sleeps.then(".").end()
