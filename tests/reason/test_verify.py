"""Verifiers: what they read, exact labels, what is learned, and how a chain is scored."""

from itertools import islice
from math import prod

import pytest
import torch

from minillm.reason.solver import SolverConfig
from minillm.reason.verify import (
    Reading,
    Verifier,
    batch_of,
    labels_of,
    readings_of,
    train_verifier,
)
from minillm.town import cups
from minillm.town.cups import CupSource, Problem
from minillm.train.losses import language_loss

PROBLEM = Problem("CABED", ((1, 3), (2, 4)))
RIGHT = PROBLEM.completion("steps")
V = len(cups.VOCABULARY)
SMALL = SolverConfig(d_model=32, n_layers=1, n_tokens=1)


def read(text, level="step"):
    """Each reading with the letters of its labels."""
    pairs = zip(readings_of(PROBLEM, text, level), labels_of(PROBLEM, text, level), strict=True)
    return [
        (each.given, each.written, "".join("BG"[label] for label in labels))
        for each, labels in pairs
    ]


# --- by hand --------------------------------------------------------------------------------------
def test_a_step_is_read_with_the_swap_that_is_due_and_what_was_written_before_it():
    # the second thing of the second step is wrong; what follows from it is right
    assert read("1-3 B A C E D 2-4 B A C E D = B A C E D .") == [
        ("1-3 C A B E D", "1-3 B A C E D", "GGGGGG"),
        ("2-4 B A C E D", "2-4 B A C E D", "GGBBBB"),
        ("? B A C E D", "= B A C E D .", "GGGGGGG"),
    ]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (RIGHT, ["GGGGGG", "GGGGGG", "GGGGGGG"]),
        (
            "1-3 B A C E D 2-3 B C A E D = B C A E D .",
            ["GGGGGG", "BBBBBB", "GGGGGGG"],
        ),  # another swap
        ("1-3 B A C E D = B A C E D .", ["GGGGGG", "BBBBBBB"]),  # a swap is still due
        (f"{RIGHT[:28]} 2-4 B A C E D = B A C E D .", ["GGGGGG", "GGGGGG", "BBBBBB", "GGGGGGG"]),
        ("1-3 B A C E D 2-4 B E", ["GGGGGG", "GGB"]),  # cut off within a step
        ("1-3 B A C C D 2-4 B C C A D", ["GGGGBB", "BBBBBB"]),  # a row that cannot be
        ("= C A B E D .", ["BBBBBBB"]),
    ],
)
def test_labels_of_steps(text, labels):
    assert [letters for _, _, letters in read(text)] == labels


def test_the_whole_is_read_at_once_with_the_label_of_its_answer():
    assert read(RIGHT, "answer") == [(PROBLEM.question(), RIGHT, "G" * 19)]
    assert read("1-3 B A", "answer") == [(PROBLEM.question(), "1-3 B A", "BBB")]


def test_what_was_written_is_learned_and_neither_what_is_given_nor_padding():
    batch = batch_of([Reading("A ?", "B C"), Reading("D", "E")], [(True, False), (True,)])
    assert batch.tokens.tolist() == [cups.encode("A ? B C"), [*cups.encode("D E"), 0, 0]]
    assert batch.loss_mask.int().tolist() == [[0, 0, 1, 1], [0, 1, 0, 0]]
    assert batch.targets[batch.loss_mask].tolist() == [V + 1, V, V + 1]


def test_a_score_is_the_product_of_the_two_labels_own_probabilities():
    model = SMALL.build(64, n_more=2)
    chains = [readings_of(PROBLEM, text, "step") for text in (RIGHT, "1-3 B A", "2-4 A")]
    expected = []
    for chain in chains:
        logits = [
            model(torch.tensor([cups.encode(f"{each.given} {each.written}")]))[0, -1]
            for each in chain
        ]
        expected.append(prod(each[V:].softmax(0)[1].item() for each in logits))
    assert Verifier(model).scores(chains) == pytest.approx(expected, rel=1e-5)


def test_a_probability_is_put_right_for_how_often_readings_are_good():
    model, reading = SMALL.build(64, n_more=2), readings_of(PROBLEM, RIGHT, "answer")
    (p,) = Verifier(model).probabilities(reading)
    (mostly_good,) = Verifier(model, 0.9).probabilities(reading)
    assert mostly_good / (1 - mostly_good) == pytest.approx(9 * p / (1 - p), rel=1e-4)


# --- law ------------------------------------------------------------------------------------------
def test_right_solutions_are_good_in_every_word():
    for problem in islice(CupSource((1, 4)).problems(), 32):
        for level in ("answer", "step"):
            assert all(map(all, labels_of(problem, problem.completion("steps"), level)))


def test_it_learns_from_good_and_bad_equally_often():
    readings = [Reading("A", "B")] * 30 + [Reading("A", "C")] * 2
    labels = [(True,)] * 30 + [(False,)] * 2
    config = SolverConfig(d_model=16, n_layers=1, n_tokens=8_000, batch_size=16)
    verifier = train_verifier(readings, labels, config, context_length=8)
    good, bad = verifier.probabilities([Reading("A", "B"), Reading("A", "C")])
    assert verifier.share_good == 30 / 32
    assert good > 0.9 and bad < 0.7
    assert not verifier.model.training
    balanced = batch_of([readings[0], readings[-1]], [labels[0], labels[-1]])
    assert language_loss(verifier.model, balanced).nats < 2 * 0.3


# --- bad input ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("readings", "labels", "reason"),
    [
        ([], [], "at least one reading, each with labels"),
        ([Reading("A", "B")], [], "got 1 readings and labels for 0"),
        (
            [Reading("A", "B C")],
            [(True,)],
            "reading 0 has 3 words, 2 of them written, and 1 labels",
        ),
        ([Reading("A " * 200, "B")], [(True,)], "at most 160 words, the context_length"),
        ([Reading("A", "B")] * 2, [(True,)] * 2, "all are good. Sample chains"),
        ([Reading("A", "B")], [(False,)], "all are bad. Sample chains"),
    ],
)
def test_what_nothing_can_be_learned_of(readings, labels, reason):
    with pytest.raises(ValueError, match=reason):
        train_verifier(readings, labels, SMALL)


def test_what_cannot_be_read():
    with pytest.raises(ValueError, match="at least one word"):
        readings_of(PROBLEM, " ", "step")
    with pytest.raises(ValueError, match="one of answer, step; got 19 words and 'token'"):
        labels_of(PROBLEM, RIGHT, "token")
