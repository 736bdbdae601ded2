import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.baselines.coder import (
    CODE_BITS,
    HALF,
    QUARTER,
    SHARES,
    Interval,
    decode,
    encode,
    gzip_bytes,
    shares,
    with_floor,
    xz_bytes,
)
from minillm.baselines.ngram import KneserNey


def always(*probabilities):
    """A source without memory."""
    p = np.array(probabilities)
    return lambda prefix: p


def bits(text):
    """Bytes of a string of 0 and 1, zeros after it."""
    return int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8))


WEIGHTS = np.random.default_rng(0).gamma(0.3, size=(6, 6, 5)) + 1e-3
TABLE = WEIGHTS / WEIGHTS.sum(axis=-1, keepdims=True)


def order_two(prefix):
    """A source of five symbols whose prediction depends on the last two, sharply."""
    return TABLE[([5, 5, *prefix[-2:]])[-2], prefix[-1] if prefix else 5]


# --- by hand -----------------------------------------------------------------------------------
def test_tokens_of_a_half_a_quarter_and_an_eighth_take_one_two_and_three_bits():
    # shares 0, 10, 110, 111: the code of Huffman; then "01", which stays inside any interval
    source = always(0.5, 0.25, 0.125, 0.125)
    assert encode([0, 1, 2, 3], source) == bits("01011011101")


def test_a_bit_that_is_not_known_yet_waits_for_the_next_one():
    # [1/4, 3/4) straddles the middle: pending. Its upper half [1/2, 3/4) is 1, then the opposite.
    source = always(0.25, 0.5, 0.25)
    interval = Interval()
    interval.narrow(SHARES // 4, 3 * SHARES // 4)
    assert (interval.n_pending, bytes(interval.bits)) == (1, b"")
    interval.narrow(SHARES // 2, SHARES)
    assert (interval.n_pending, bytes(interval.bits)) == (0, b"\1\0")
    # 1 is [.25, .75), then 2 is its last quarter [.625, .75), 101; then "01"
    assert encode([1, 2], source) == bits("10101")


def test_no_token_takes_two_bits():
    assert encode([], always(1.0)) == bits("01")
    assert decode(bits("01"), always(1.0), n_tokens=0) == []


def test_shares_are_probabilities_in_whole_parts_of_two_to_the_32():
    assert shares(np.array([0.5, 0.25, 0.25])).tolist() == [2**31, 2**30, 2**30]
    tiny = shares(np.array([1 - 2e-300, 1e-300, 1e-300]))
    assert tiny.tolist() == [2**32 - 2, 1, 1]


def test_the_rest_goes_to_the_likeliest_and_to_the_first_in_a_tie():
    assert shares(np.full(3, 1 / 3)).tolist() == [1431655766, 1431655765, 1431655765]


def test_a_floor_mixes_with_a_uniform_prediction():
    assert with_floor(always(1.0, 0.0), 0.5)([]).tolist() == [0.75, 0.25]


def test_gzip_and_xz_shrink_what_repeats_and_not_what_is_random():
    noise = np.random.default_rng(0).bytes(4000)
    for size in (gzip_bytes, xz_bytes):
        assert size(b"plum" * 1000) < 120
        assert 4000 <= size(noise) < 4100


# --- twin --------------------------------------------------------------------------------------
@given(st.lists(st.integers(0, 4), max_size=30))
@settings(max_examples=100, deadline=None)
def test_the_code_lies_in_the_interval_that_exact_fractions_give(tokens):
    low, width, slack = Fraction(0), Fraction(1), Fraction(0)
    for place, token in enumerate(tokens):
        parts = shares(order_two(tokens[:place])).tolist()
        slack += width / 2**59  # each end is rounded down to 61 or more bits of the interval
        low += width * Fraction(sum(parts[:token]), SHARES)
        width *= Fraction(parts[token], SHARES)
    code = encode(tokens, order_two)
    number = Fraction(int.from_bytes(code), 256 ** len(code))
    assert low - slack <= number < low + width + slack


# --- law ---------------------------------------------------------------------------------------
weights = st.one_of(st.floats(1e-12, 1e-9), st.floats(1e-6, 1.0), st.just(1e4))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_tokens_come_back_under_any_predictions(data):
    vocab_size = data.draw(st.integers(1, 6))
    tables = data.draw(
        st.lists(
            st.lists(weights, min_size=vocab_size, max_size=vocab_size), min_size=1, max_size=3
        )
    )
    tables = [np.array(table) / sum(table) for table in tables]
    tokens = data.draw(st.lists(st.integers(0, vocab_size - 1), max_size=60))

    def source(prefix):
        return tables[(sum(prefix[-3:]) + len(prefix)) % len(tables)]

    code = encode(tokens, source)
    assert decode(code, source, n_tokens=len(tokens)) == tokens
    loss = sum(-math.log2(source(tokens[:i])[token]) for i, token in enumerate(tokens))
    assert 8 * len(code) <= loss + 10  # a share is at least its probability, but for rounding


@given(st.lists(st.integers(0, 3), max_size=40), st.binary(min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_a_code_cut_off_or_lengthened_anywhere_is_refused(tokens, more):
    code = encode([*tokens, 4], order_two)
    for n_kept in range(len(code)):
        with pytest.raises(ValueError, match=r"cut off|no end token"):
            decode(code[:n_kept], order_two, n_tokens=len(tokens) + 1)
        with pytest.raises(ValueError, match=r"cut off|no end token"):
            decode(code[:n_kept], order_two, end=4, n_tokens=100)
    with pytest.raises(ValueError, match="goes on after the message"):
        decode(code + more, order_two, n_tokens=len(tokens) + 1)
    assert decode(code, order_two, end=4) == [*tokens, 4]


@given(st.lists(st.floats(1e-300, 1.0), min_size=1, max_size=50))
def test_shares_sum_to_all_and_everyone_has_one(given_weights):
    parts = shares(np.array(given_weights) / sum(given_weights))
    assert parts.sum() == SHARES
    assert parts.min() >= 1


@given(st.lists(st.tuples(st.integers(0, SHARES - 1), st.integers(1, 9)), max_size=200))
@settings(max_examples=60, deadline=None)
def test_an_interval_is_always_wider_than_a_quarter_before_it_is_cut(cuts):
    interval = Interval()
    for start, size in cuts:
        interval.narrow(start, min(start + size, SHARES))
        assert 0 <= interval.low < interval.high < 1 << CODE_BITS
        assert interval.high - interval.low >= QUARTER
        assert interval.low < HALF <= interval.high


def test_an_interval_around_the_middle_waits_for_as_long_as_it_must():
    middle = always(0.499, 0.002, 0.499)
    tokens = [1] * 1000 + [2, 0]
    code = encode(tokens, middle)
    assert decode(code, middle, n_tokens=len(tokens)) == tokens


@pytest.fixture(scope="module")
def spoken():
    rng = np.random.default_rng(0)
    tokens = []
    for uniform in rng.random(10_000):
        tokens.append(int(order_two(tokens).cumsum().searchsorted(uniform)))
    return tokens


def test_the_code_is_as_long_as_the_loss_to_a_byte_in_ten_thousand_tokens(spoken):
    log_p = [math.log2(order_two(spoken[max(0, i - 2) : i])[t]) for i, t in enumerate(spoken)]
    code = encode(spoken, order_two)
    assert decode(code, order_two, n_tokens=len(spoken)) == spoken
    assert -sum(log_p) <= 8 * len(code) <= -sum(log_p) + 16
    assert len(code) < min(gzip_bytes(bytes(spoken)), xz_bytes(bytes(spoken)))


def test_a_model_that_learned_by_counting_compresses_what_it_has_not_seen(spoken):
    model = KneserNey([spoken[:7000]], vocab_size=5, order=3)
    rest = spoken[7000:]
    code = encode(rest, model.next_token)
    loss_bits = -model.log_probs([rest]).sum() / math.log(2)
    assert decode(code, model.next_token, n_tokens=len(rest)) == rest
    assert 8 * len(code) == pytest.approx(loss_bits, rel=0.01)


# --- bad input ---------------------------------------------------------------------------------
def test_a_prediction_with_a_zero_is_refused_and_says_how_to_mend_it():
    with pytest.raises(ValueError, match=r"place 1: every token .* token 2 has 0\.0: .*with_floor"):
        encode([0, 0], lambda prefix: [0.5, 0.4, 0.1] if not prefix else [0.5, 0.5, 0.0])
    assert decode(encode([1], with_floor(always(1.0, 0.0))), with_floor(always(1.0, 0.0)), end=1)


def test_a_decoder_that_predicts_a_zero_is_refused_at_the_same_place():
    code = encode([0, 0], always(0.5, 0.5))
    with pytest.raises(ValueError, match=r"place 1: every token .* token 0 has 0\.0: .*with_floor"):
        decode(code, lambda prefix: [0.0, 1.0] if prefix else [0.5, 0.5], n_tokens=2)


@pytest.mark.parametrize(
    ("prediction", "words"),
    [
        ([0.5, 0.6], "must sum to one; they sum to 1.1"),
        ([0.5, float("nan")], "token 1 has nan"),
        ([1.5, -0.5], "token 1 has -0.5"),
        ([], "got the shape [0]"),
        ([[0.5, 0.5]], "got the shape [1, 2]"),
    ],
)
def test_what_is_no_distribution_is_refused(prediction, words):
    with pytest.raises(ValueError) as error:
        encode([0], always(*prediction) if prediction else lambda prefix: [])
    assert words in str(error.value)


@pytest.mark.parametrize("token", [-1, 2, 40])
def test_a_symbol_outside_the_alphabet_is_named(token):
    with pytest.raises(ValueError, match=rf"token {token} at place 1 is outside the alphabet"):
        encode([0, token], always(0.5, 0.5))


def test_decoding_needs_to_know_where_to_stop():
    with pytest.raises(ValueError, match="pass n_tokens, or end"):
        decode(b"@", always(0.5, 0.5))
    with pytest.raises(ValueError, match="at least 0; got -1"):
        decode(b"@", always(0.5, 0.5), n_tokens=-1)
    with pytest.raises(ValueError, match=r"end=2 is outside the alphabet.* 0 to 1"):
        decode(b"@", always(0.5, 0.5), end=2)
    with pytest.raises(ValueError, match="no end token 1 among the first 2"):
        decode(encode([0, 0], always(0.5, 0.5)), always(0.5, 0.5), end=1, n_tokens=2)


def test_a_code_that_ends_before_its_end_token_is_read_no_further():
    # Behind the last byte stand zeros, which give token 0 for ever. Seven of it are certain to
    # cost a bit, as 0.9^7 is the first below a half; the code has none.
    with pytest.raises(ValueError, match=r"cut off: its 0 bytes end before token 7 of"):
        decode(b"", always(0.9, 0.1), end=1, n_tokens=1000)


def test_a_code_read_with_other_predictions_is_refused_or_gives_other_tokens():
    tokens = [0, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    code = encode(tokens, always(0.5, 0.5))
    with pytest.raises(ValueError, match="other predictions"):
        decode(code, always(0.9, 0.1), n_tokens=len(tokens))
    with pytest.raises(ValueError, match="uniform_share must be between"):
        with_floor(always(1.0), 0)
