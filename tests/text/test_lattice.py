import itertools
import math
import random

import numpy as np
import pytest
from scipy.stats import chisquare

from minillm.text.lattice import (
    Lattice,
    best_segmentation,
    forward,
    sample_segmentation,
    segment_brute_force,
)


def random_pieces(seed, alphabet=b"abc", n_pieces=9):
    """Single bytes and a few longer pieces, with random probabilities that sum to one."""
    rng = random.Random(seed)
    longer = [
        bytes(letters) for n in (2, 3, 4) for letters in itertools.product(alphabet, repeat=n)
    ]
    tokens = [bytes([value]) for value in alphabet] + rng.sample(longer, n_pieces)
    weight = [rng.random() + 0.05 for _ in tokens]
    total = sum(weight)
    return {token: math.log(w / total) for token, w in zip(tokens, weight, strict=True)}


def random_words(seed, n_words, longest=12, alphabet=b"abc"):
    rng = random.Random(seed)
    return [bytes(rng.choices(alphabet, k=rng.randint(1, longest))) for _ in range(n_words)]


# --- by hand -----------------------------------------------------------------------------------


def test_the_cheaper_of_two_cuts_wins():
    log_prob = {b"a": -1.0, b"b": -2.0, b"ab": -2.5}
    assert best_segmentation(b"ab", log_prob, longest=2) == [b"ab"]  # -2.5 against -3
    log_prob[b"ab"] = -3.5
    assert best_segmentation(b"ab", log_prob, longest=2) == [b"a", b"b"]  # -3 against -3.5


def test_of_two_equal_cuts_the_one_with_the_longer_last_piece_wins():
    log_prob = {b"a": -1.0, b"b": -1.0, b"c": -1.0, b"ab": -1.5, b"bc": -1.5}
    assert best_segmentation(b"abc", log_prob, longest=2) == [b"a", b"bc"]


def test_three_bytes_and_all_pieces_make_four_segmentations():
    log_prob = dict.fromkeys([b"a", b"b", b"c", b"ab", b"bc", b"abc"], -1.0)
    found = segment_brute_force(b"abc", log_prob)
    assert found == {
        (b"a", b"b", b"c"): -3.0,
        (b"a", b"bc"): -2.0,
        (b"ab", b"c"): -2.0,
        (b"abc",): -1.0,
    }


def test_expected_counts_of_ab_are_two_thirds_and_one_third():
    # P("ab" whole) = 1/2 and P("a" "b") = 1/2 · 1/2: posteriors 2/3 and 1/3, of 6 occurrences.
    lattice = Lattice([b"ab"], [b"a", b"b", b"ab"])
    counts, whole = lattice.expected_counts(np.log([0.5, 0.5, 0.5]), np.array([6.0]))
    assert counts == pytest.approx([2, 2, 4])
    assert whole == pytest.approx([math.log(0.75)])


# --- twin: brute force is the specification ----------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_viterbi_finds_what_brute_force_finds(seed):
    log_prob = random_pieces(seed)
    for word in random_words(seed, n_words=30):
        found = segment_brute_force(word, log_prob)
        best = tuple(best_segmentation(word, log_prob, longest=4))
        # Pieces in another order sum to the same: which way is best is then up to rounding.
        assert found[best] == pytest.approx(max(found.values()), rel=1e-12, abs=0)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, 2.0])
def test_forward_sums_what_brute_force_lists(seed, alpha):
    log_prob = random_pieces(seed)
    for word in random_words(seed, n_words=10):
        listed = sum(
            math.exp(alpha * score) for score in segment_brute_force(word, log_prob).values()
        )
        assert forward(word, log_prob, 4, alpha)[-1] == pytest.approx(math.log(listed))


@pytest.mark.parametrize("seed", range(10))
def test_forward_backward_counts_what_brute_force_expects(seed):
    log_prob = random_pieces(seed)
    words = sorted(set(random_words(seed, n_words=25)))
    weights = np.arange(1.0, len(words) + 1)
    expected = dict.fromkeys(log_prob, 0.0)
    for word, weight in zip(words, weights, strict=True):
        found = {x: math.exp(score) for x, score in segment_brute_force(word, log_prob).items()}
        for tokens, probability in found.items():
            for token in tokens:
                expected[token] += weight * probability / sum(found.values())
    lattice = Lattice(words, log_prob)
    counts, whole = lattice.expected_counts(np.array(list(log_prob.values())), weights)
    assert counts == pytest.approx(list(expected.values()), rel=1e-9, abs=1e-12)
    assert whole == pytest.approx([forward(word, log_prob, 4)[-1] for word in words])


def test_a_lattice_without_whole_words_sums_the_other_segmentations():
    log_prob = random_pieces(3)
    words = [token for token in log_prob if len(token) > 1]
    others = Lattice(words, log_prob, whole=False)
    expected = []
    for word in words:
        found = segment_brute_force(word, log_prob)
        del found[(word,)]
        expected.append(math.log(sum(map(math.exp, found.values()))))
    assert others.log_likelihood(np.array(list(log_prob.values()))) == pytest.approx(expected)


def test_dropping_pieces_from_a_lattice_equals_building_it_without_them():
    log_prob = random_pieces(5)
    words = sorted(set(random_words(5, n_words=20)))
    alive = np.array([len(token) != 3 for token in log_prob])
    scores = np.array(list(log_prob.values()))
    cut = Lattice(words, log_prob)
    cut.keep_pieces(alive)
    small = Lattice(words, [token for token in log_prob if len(token) != 3])
    assert not alive.all()
    assert cut.log_likelihood(scores) == pytest.approx(small.log_likelihood(scores[alive]))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_sampled_segmentations_follow_the_exact_posterior(alpha):
    log_prob = random_pieces(1, alphabet=b"ab")
    word = b"abbabaab"
    weight = {
        x: math.exp(alpha * score) for x, score in segment_brute_force(word, log_prob).items()
    }
    total, n_draws = sum(weight.values()), 3000
    expected = {x: n_draws * w / total for x, w in weight.items()}
    drawn = dict.fromkeys(weight, 0)
    rng = np.random.default_rng(7)
    for _ in range(n_draws):
        drawn[tuple(sample_segmentation(word, log_prob, 4, alpha, rng))] += 1
    common = [x for x in weight if expected[x] >= 5]  # chi-square needs five in each cell
    rare = [x for x in weight if expected[x] < 5]
    observed = [drawn[x] for x in common] + [sum(drawn[x] for x in rare)] * bool(rare)
    theory = [expected[x] for x in common] + [sum(expected[x] for x in rare)] * bool(rare)
    assert len(common) >= 6
    assert chisquare(observed, theory).pvalue > 0.01


# --- law ---------------------------------------------------------------------------------------


def test_em_never_lowers_the_likelihood():
    # With one added to each byte's count, EM climbs log P(words) + sum over bytes of log p(byte).
    words = sorted(set(random_words(9, n_words=60)))
    tokens = [b"a", b"b", b"c", *sorted({w[i : i + 2] for w in words for i in range(len(w) - 1)})]
    lattice, weights = Lattice(words, tokens), np.arange(1.0, len(words) + 1)
    log_prob = np.full(len(tokens), -math.log(len(tokens)))
    climbed = []
    for _ in range(12):
        counts, whole = lattice.expected_counts(log_prob, weights)
        climbed.append(float(weights @ whole + log_prob[:3].sum()))
        counts[:3] += 1
        log_prob = np.log(np.maximum(counts, 1e-30) / counts.sum())
    assert all(after >= before - 1e-9 for before, after in itertools.pairwise(climbed))
    assert climbed[-1] > climbed[0] + 100


# --- errors teach ------------------------------------------------------------------------------


def test_a_word_that_no_pieces_spell_is_named():
    with pytest.raises(ValueError, match=r"through b'ab'.*after its byte 2.*b'b' to the pieces"):
        best_segmentation(b"ab", {b"a": -1.0}, longest=1)
    with pytest.raises(ValueError, match="no piece ends after its byte 2"):
        forward(b"ab", {b"a": -1.0}, longest=1)


def test_brute_force_refuses_a_long_word():
    with pytest.raises(ValueError, match="at most 20 bytes; this one has 21"):
        segment_brute_force(b"a" * 21, {b"a": -1.0})
