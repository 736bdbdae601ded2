import math
import time
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.baselines.ngram import (
    AddK,
    KneserNey,
    bits_per_byte,
    checked_tokens,
    continuation_counts,
    count_grams,
    estimate_discount,
    kneser_ney_naive,
    perplexity,
)

# Six short rows: `Francisco` three times, but only ever after `San`.
WORDS = ["San", "Francisco", "red", "glasses", "new"]
SAN, FRANCISCO, RED, GLASSES, NEW = range(5)
ROWS = [[SAN, FRANCISCO]] * 3 + [[RED, GLASSES], [NEW, GLASSES]]


# --- by hand -----------------------------------------------------------------------------------
def test_pairs_are_counted_with_a_mark_before_each_row():
    start = 5
    assert count_grams(ROWS, 2, 5) == {
        (start, SAN): 3,
        (SAN, FRANCISCO): 3,
        (start, RED): 1,
        (RED, GLASSES): 1,
        (start, NEW): 1,
        (NEW, GLASSES): 1,
    }
    assert count_grams([[SAN]], 3, 5) == {(start, start, SAN): 1}


def test_francisco_is_more_frequent_but_glasses_has_more_surroundings():
    pairs = count_grams(ROWS, 2, 5)
    assert continuation_counts(pairs) == {
        (SAN,): 1,
        (FRANCISCO,): 1,
        (RED,): 1,
        (GLASSES,): 2,
        (NEW,): 1,
    }


def test_the_discount_is_that_of_ney_essen_and_kneser():
    # the pairs: four are counted once, none twice, two three times
    assert estimate_discount(count_grams(ROWS, 2, 5)) == 4 / (4 + 2 * 0)
    assert estimate_discount(Counter({(0,): 1, (1,): 1, (2,): 1, (3,): 2})) == 3 / 5
    assert estimate_discount(Counter({(0,): 2, (1,): 7})) == 0.5  # no information: our choice


def test_kneser_ney_expects_glasses_where_a_unigram_expects_francisco():
    # On paper, D = 1/2. Lower order: 6 kinds of pairs; five words, so λ = 1/2 · 5 / 6 and
    # p(glasses) = (2 - 1/2)/6 + 5/12 · 1/5 = 1/3; of the others (1 - 1/2)/6 + 1/12 = 1/6.
    model = KneserNey(ROWS, 5, 2, discount=0.5)
    new_context = model.next_token([GLASSES])  # nothing ever followed: all to the lower order
    assert new_context == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 3, 1 / 6])
    # After San: three times Francisco, one kind. λ = 1/2 · 1/3.
    assert model.next_token([SAN]) == pytest.approx(
        [1 / 36, (3 - 0.5) / 3 + 1 / 36, 1 / 36, 1 / 18, 1 / 36]
    )
    # A row begins with San 3 times of 5, in three kinds of ways: λ = 1/2 · 3/5.
    assert model.next_token([])[SAN] == pytest.approx((3 - 0.5) / 5 + 0.3 / 6)
    unigram = AddK(ROWS, 5, 1, k=0.01).next_token([])
    assert unigram[FRANCISCO] > unigram[GLASSES]


def test_absolute_discounting_expects_francisco_as_often_as_it_came():
    # On paper, D = 1/2. Ten words: San 3, Francisco 3, red 1, glasses 2, new 1. Five kinds pass on
    # 1/2 · 5/10, a fifth of it to each: p(Francisco) = (3 - 1/2)/10 + 1/20.
    plain = [0.3, 0.3, 0.1, 0.2, 0.1]
    model = KneserNey(ROWS, 5, 2, discount=0.5, continuation=False)
    assert model.next_token([GLASSES]) == pytest.approx(plain)
    after_san = model.next_token([SAN])
    assert after_san[FRANCISCO] == pytest.approx((3 - 0.5) / 3 + plain[FRANCISCO] / 6)
    assert model.log_probs([[SAN, FRANCISCO]])[0][1] == pytest.approx(
        math.log(after_san[FRANCISCO])
    )
    assert plain[FRANCISCO] > KneserNey(ROWS, 5, 2, discount=0.5).next_token([GLASSES])[FRANCISCO]


def test_each_order_has_its_own_discount():
    # pairs: n1 = 4, n2 = 0. Continuation counts: four words once, one twice: 4 / (4 + 2).
    assert KneserNey(ROWS, 5, 2).discounts == pytest.approx((2 / 3, 1.0))


def test_add_k_is_a_count_and_k_over_a_total_and_k_times_the_vocabulary():
    model = AddK(ROWS, 5, 2, k=0.5)
    assert model.next_token([SAN]) == pytest.approx(np.array([0.5, 3.5, 0.5, 0.5, 0.5]) / 5.5)
    assert model.next_token([GLASSES]) == pytest.approx([0.2] * 5)
    assert AddK(ROWS, 5, 1, k=1).next_token([]) == pytest.approx(np.array([4, 4, 2, 3, 2]) / 15)


def test_perplexity_of_a_die_is_six_and_a_byte_of_four_coins_needs_four_bits():
    assert perplexity(np.log([1 / 6] * 10)) == pytest.approx(6)
    assert perplexity([-709.0]) == pytest.approx(math.exp(709))
    assert perplexity([-710.0]) == perplexity([-np.inf]) == math.inf
    assert bits_per_byte(np.log([1 / 2] * 8), n_bytes=2) == pytest.approx(4)


# --- twin --------------------------------------------------------------------------------------
some_rows = st.lists(st.lists(st.integers(0, 3), max_size=8), min_size=1, max_size=6).filter(
    lambda rows: any(rows)
)


@given(
    some_rows,
    st.integers(1, 4),
    st.lists(st.integers(0, 3), max_size=5),
    st.sampled_from([None, 0.25, 1.0]),
)
@settings(max_examples=100, deadline=None)
def test_arrays_predict_what_dictionaries_predict(rows, order, prefix, discount):
    model = KneserNey(rows, 4, order, discount)
    plain = kneser_ney_naive(rows, 4, order, prefix, discount)
    assert model.next_token(prefix) == pytest.approx(plain, rel=1e-12)


@given(some_rows, some_rows, st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_a_whole_text_at_once_is_token_by_token(rows, others, order):
    for model in (KneserNey(rows, 4, order), AddK(rows, 4, order, k=0.1)):
        one_by_one = [
            math.log(model.next_token(row[:place])[token])
            for row in others
            for place, token in enumerate(row)
        ]
        assert model.log_probs(others).ravel() == pytest.approx(one_by_one, rel=1e-12)


def test_add_k_is_its_fraction_for_every_pair():
    rows = np.random.default_rng(0).integers(0, 4, size=(5, 9))
    counts = count_grams(rows, 2, 4)
    model = AddK(rows, 4, 2, k=2)
    for before in range(4):
        total = sum(counts[before, token] for token in range(4)) + 8
        exact = [Fraction(counts[before, token] + 2, total) for token in range(4)]
        assert model.next_token([before]) == pytest.approx([float(p) for p in exact])


# --- law ---------------------------------------------------------------------------------------
@given(some_rows, st.integers(1, 5), st.lists(st.integers(0, 6), max_size=6))
@settings(max_examples=150, deadline=None)
def test_predictions_sum_to_one_and_nothing_is_impossible(rows, order, prefix):
    for model in (KneserNey(rows, 7, order), AddK(rows, 7, order)):
        p = model.next_token(prefix)  # tokens 4, 5, 6 were never seen
        assert p.sum() == pytest.approx(1)
        assert p.min() > 0


@given(some_rows, st.integers(2, 4))
@settings(max_examples=100, deadline=None)
def test_continuation_counts_add_up_to_the_kinds_of_grams(rows, order):
    grams = count_grams(rows, order, 4)
    assert sum(continuation_counts(grams).values()) == len(grams)
    assert continuation_counts(Counter(dict.fromkeys(grams, 7))) == continuation_counts(grams)


@given(some_rows, st.integers(1, 3), st.randoms())
@settings(max_examples=50, deadline=None)
def test_the_order_of_the_rows_does_not_matter(rows, order, random):
    mixed = random.sample(rows, len(rows))
    expected = KneserNey(rows, 4, order).next_token([1, 2])
    assert KneserNey(mixed, 4, order).next_token([1, 2]).tolist() == expected.tolist()


def test_only_the_last_tokens_count():
    rows = np.random.default_rng(0).integers(0, 4, size=(20, 30))
    model = KneserNey(rows, 4, 3)
    assert model.next_token([0, 0, 1, 2]).tolist() == model.next_token([3, 1, 2]).tolist()
    assert model.next_token([1, 2]).tolist() != model.next_token([0, 2]).tolist()


def test_answers_have_the_shape_of_the_rows():
    rows = np.random.default_rng(0).integers(0, 4, size=(3, 5))
    model = KneserNey(rows, 4, 2)
    assert model.log_probs(rows).shape == model.log_probs(rows.tolist()).shape == (3, 5)
    assert model.log_probs(rows[1]).tolist() == model.log_probs(rows)[1].tolist()
    assert model.log_probs([[0, 1], [2]]).shape == (3,)


def test_kneser_ney_comes_closer_to_the_source_than_add_one_and_never_below_it():
    rng = np.random.default_rng(1)
    table = rng.dirichlet(np.full(16, 0.2), size=(16, 16))
    rows = [rng.integers(0, 16, size=(2, 400)).T]
    for uniform in rng.random((60, 400)):
        before, last = rows[0][:, -2], rows[0][:, -1]
        token = (table[before, last].cumsum(axis=1) < uniform[:, None]).sum(axis=1).clip(max=15)
        rows[0] = np.column_stack([rows[0], token])
    learn, held = rows[0][:300], rows[0][300:]
    own = np.log(table[held[:, :-2], held[:, 1:-1], held[:, 2:]])
    gaps = {}
    for name, model in {
        "unigram": KneserNey(learn, 16, 1),
        "bigram": KneserNey(learn, 16, 2),
        "add-one": AddK(learn, 16, 3),
        "kneser-ney": KneserNey(learn, 16, 3),
    }.items():
        by_row = (own - model.log_probs(held)[:, 2:]).mean(axis=1)
        gaps[name] = by_row.mean()
        assert gaps[name] >= -3 * by_row.std(ddof=1) / len(by_row) ** 0.5
    assert gaps["kneser-ney"] < gaps["add-one"] < gaps["bigram"] < gaps["unigram"]


def test_four_times_as_many_tokens_take_about_four_times_as_long():
    def seconds(n_rows):
        rows = np.random.default_rng(0).integers(0, 500, size=(n_rows, 1000))
        took = []
        for _ in range(2):
            begin = time.process_time()
            KneserNey(rows, 500, 5).log_probs(rows)
            took.append(time.process_time() - begin)
        return min(took)

    assert seconds(100) < 8 * seconds(25) + 0.02  # 16 times if it were quadratic


# --- bad input ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: AddK(ROWS, 4, 2), "token 4 at place 0 is outside the vocabulary of 4"),
        (lambda: AddK(ROWS, 5, 2).next_token([5]), "token 5 at place 0 is outside"),
        (lambda: AddK(ROWS, 5, 2).log_probs([[0, 7]]), "token 7 at place 1 is outside"),
        (lambda: KneserNey(ROWS, 5, 2).next_token([5]), "token 5 at place 0 is outside"),
        (lambda: KneserNey(ROWS, 5, 2).log_probs([[0, -1]]), "token -1 at place 1 is outside"),
        (lambda: KneserNey([[0], [1, 5]], 5, 2), "row 1: token 5 at place 1 is outside"),
        (lambda: count_grams(ROWS, 2, 4), "token 4 at place 0 is outside the vocabulary of 4"),
        (lambda: kneser_ney_naive(ROWS, 5, 2, [5]), "token 5 at place 0 is outside"),
        (lambda: KneserNey([[], []], 5, 2), "no token in these rows"),
        (lambda: KneserNey([], 5, 1), "no token in these rows"),
        (lambda: KneserNey(ROWS, 5, 0), "at least 1; got 0 and 5"),
        (lambda: KneserNey(ROWS, 0, 2), "at least 1; got 2 and 0"),
        (lambda: KneserNey(ROWS, 50_000, 5), "order can be at most 4; got 5"),
        (lambda: KneserNey(ROWS, 5, 2, discount=0), "discount must be above 0"),
        (lambda: KneserNey(ROWS, 5, 2, discount=1.5), "at most 1; got 1.5"),
        (lambda: AddK(ROWS, 5, 2, k=0), "k must be a finite number above 0; got 0"),
        (lambda: AddK([[0.5]], 5, 2), "a row must be integers"),
        (lambda: checked_tokens([[1]], 5), r"got the shape [1, 1]"),
        (lambda: perplexity([]), "at least one"),
        (lambda: bits_per_byte([], 3), "at least one"),
        (lambda: perplexity([-1.0, np.nan]), "that of token 1 is nan"),
        (lambda: bits_per_byte([np.inf], 3), "that of token 0 is inf"),
        (lambda: bits_per_byte([-1.0], 0), "n_bytes must be at least 1"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)


def test_the_largest_order_that_is_promised_works():
    assert KneserNey(ROWS, 50_000, 4).next_token([SAN])[FRANCISCO] > 0
