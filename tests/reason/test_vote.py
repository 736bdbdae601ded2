"""Votes: who wins, in ties too, and what a majority of k will bring."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.reason.vote import Vote, expected_accuracy, is_wrong_mode, majority, shares, weighted

answers = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=12)


@given(answers)
def test_the_commonest_answer_wins_as_a_counter_has_it(given_answers):
    vote = majority(given_answers)
    counter = Counter(each for each in given_answers if each is not None)
    assert vote.counts == counter and list(vote.counts) == list(counter)
    assert vote.n_none == given_answers.count(None)
    # Counter orders equal counts by first appearance too
    assert vote.answer == (counter.most_common(1)[0][0] if counter else None)
    assert vote.tied == (list(counter.values()).count(max(counter.values(), default=0)) > 1)


def test_in_a_tie_the_answer_given_first_wins_and_it_is_known_to_be_a_tie():
    assert majority(["b", "a", "a", "b", "c"]) == Vote("b", {"b": 2, "a": 2, "c": 1}, 0, True)
    assert weighted(["b", "a"], [0.5, 0.5]).answer == "b" and weighted(["b", "a"], [0, 0]).tied


def test_no_answer_never_wins_unless_there_is_no_other():
    assert majority([None, None, None, 12]).answer == 12
    assert majority([None, None]) == Vote(None, {}, 2, False)
    assert weighted([None, 12], [0.9, 0.0]).answer == 12


@given(answers, st.integers(1, 5))
def test_weights_that_are_all_alike_change_no_winner(given_answers, weight):
    vote, plain = weighted(given_answers, [weight] * len(given_answers)), majority(given_answers)
    assert (vote.answer, vote.tied) == (plain.answer, plain.tied)


def test_one_that_is_trusted_outweighs_two_that_are_doubted():
    assert weighted([12, 14, 14], [0.9, 0.3, 0.2]).answer == 12
    assert weighted([12, 14, 14], [0.9, 0.5, 0.5]).answer == 14


def test_one_vote_is_right_as_often_as_the_distribution_says():
    probabilities = {12: 0.3, 14: 0.5, None: 0.2}
    assert expected_accuracy(probabilities, 12, 1, n_draws=4000) == pytest.approx(0.3, abs=0.025)


def test_three_votes_of_two_answers_are_right_as_the_binomial_law_says():
    p = 0.7  # two or three of three
    predicted = expected_accuracy({"right": p, "wrong": 1 - p}, "right", 3, n_draws=4000)
    assert predicted == pytest.approx(p**3 + 3 * p**2 * (1 - p), abs=0.025)


def test_a_tie_goes_to_the_first_drawn_which_is_either_equally_often():
    assert expected_accuracy({1: 0.5, 2: 0.5}, 1, 2, n_draws=4000) == pytest.approx(0.5, abs=0.025)


def test_more_votes_help_where_the_mode_is_right_and_harm_where_it_is_wrong():
    good, bad = {12: 0.45, 14: 0.35, 15: 0.2}, {12: 0.35, 14: 0.45, 15: 0.2}
    rising = [expected_accuracy(good, 12, k) for k in (1, 5, 41)]
    falling = [expected_accuracy(bad, 12, k) for k in (1, 5, 41)]
    assert rising == sorted(rising) and falling == sorted(falling, reverse=True)
    assert not is_wrong_mode(good, 12) and is_wrong_mode(bad, 12)


def test_no_answer_is_no_wrong_mode_and_a_tie_is_none():
    assert not is_wrong_mode({None: 0.8, 12: 0.2}, 12) and not is_wrong_mode({12: 0.5, 14: 0.5}, 12)
    assert is_wrong_mode({14: 1.0}, 12) and not is_wrong_mode({None: 1.0}, 12)


def test_the_same_seed_gives_the_same_prediction():
    some = shares([1, 1, 2, None])
    assert some == {1: 0.5, 2: 0.25, None: 0.25}
    one, same, other = (expected_accuracy(some, 1, 5, seed=seed) for seed in (0, 0, "other"))
    assert one == same != other


@pytest.mark.parametrize(
    "call, reason",
    [
        (lambda: majority([]), "at least one answer"),
        (lambda: weighted([1, 2], [1.0]), "2 answers and 1 weights"),
        (lambda: weighted([1, 2], [1.0, -0.5]), "weight 1 is -0.5. Give probabilities"),
        (lambda: weighted([1], [float("nan")]), "weight 0 is nan"),
        (lambda: shares([]), "at least one answer"),
        (lambda: expected_accuracy({1: 1.0}, 1, 0), "k and n_draws must be at least 1; got 0"),
        (lambda: expected_accuracy({1: 0.5, 2: 0.4}, 1, 3), "sum to 0.9"),
        (lambda: is_wrong_mode({1: 1.5, 2: -0.5}, 1), "go from -0.5"),
        (lambda: is_wrong_mode({}, 1), "`shares` makes them"),
    ],
)
def test_what_cannot_be_voted_on_is_refused(call, reason):
    with pytest.raises(ValueError, match=reason):
        call()
