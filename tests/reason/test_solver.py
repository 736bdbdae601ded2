from itertools import islice

import pytest
import torch

from minillm.reason import solver
from minillm.reason.solver import SolverConfig
from minillm.serve.sample import SampleConfig
from minillm.town import cups
from minillm.town.cups import CupSource
from minillm.train.losses import language_loss

ONE = CupSource((1,))
CONFIG = SolverConfig(d_model=32, n_tokens=60_000, batch_size=32)


@pytest.fixture(scope="module")
def model():
    return solver.train(solver.pairs_of(ONE, "steps", CONFIG), CONFIG, context_length=32)


# --- by hand --------------------------------------------------------------------------------------
def test_rows_are_filled_up_and_only_solutions_are_learned():
    batch = solver.batch_of([("A B ?", "= B ."), ("?", "A")])
    assert cups.decode(batch.tokens[0].tolist()) == "A B ? = B"
    assert cups.decode(batch.targets[0].tolist()) == "B ? = B ."
    assert batch.loss_mask.int().tolist() == [[0, 0, 1, 1, 1], [1, 0, 0, 0, 0]]


def test_what_is_read_between_is_not_learned():
    turns = ("A ?", "B C", "D E", "A .")
    batch = solver.batch_of([turns, ("A ?", "B")])
    assert batch.loss_mask.int().tolist() == [[0, 1, 1, 0, 0, 1, 1], [0, 1, 0, 0, 0, 0, 0]]
    whole = solver.batch_of([(turns[0], " ".join(turns[1:])), ("A ?", "B")])
    assert torch.equal(batch.tokens, whole.tokens)
    assert torch.equal(batch.targets, whole.targets)
    assert whole.loss_mask[0].int().tolist() == [0, 1, 1, 1, 1, 1, 1]


def test_a_batch_of_any_size_takes_the_next_problems_of_the_stream():
    config = SolverConfig(batch_size=48, seed=3)
    pairs_at = solver.pairs_of(ONE, "direct", config)
    together = [pair for step in range(3) for pair in pairs_at(step)]
    stream = islice(ONE.problems("training 3"), 144)
    assert together == [(each.question(), each.completion("direct")) for each in stream]


def test_a_run_is_as_long_as_its_tokens():
    steps = []
    for style in ("direct", "steps"):
        count = []
        config = SolverConfig(d_model=16, n_layers=1, n_tokens=6_000)
        pairs_at = solver.pairs_of(ONE, style, config)
        solver.train(pairs_at, config, context_length=32, watch=count.append)
        steps.append(len(count))
    lengths = [
        len(cups.encode(" ".join(solver.pairs_of(ONE, s)(0)[0]))) for s in ("direct", "steps")
    ]
    assert steps == [round(6_000 / 64 / length) for length in lengths]


# --- twin -----------------------------------------------------------------------------------------
def test_padding_changes_no_loss(model):
    pairs = [("A B C D E 1-2 ?", "= B A C D E ."), ("A B C D E ?", "= A .")]
    together = language_loss(model, solver.batch_of(pairs)).nats
    apart = sum(language_loss(model, solver.batch_of([pair])).nats for pair in pairs)
    torch.testing.assert_close(together, apart)


def test_samples_come_question_by_question(model):
    questions = [each.question() for each in islice(ONE.problems("test"), 2)]
    hot = SampleConfig(temperature=1.0)
    several = solver.solve(model, questions, hot, n_samples=3, n_tokens=20)
    assert [len(texts) for texts in several] == [3, 3]
    assert several == solver.solve(model, questions, hot, n_samples=3, n_tokens=20)
    assert several[0] != several[1]


# --- law ------------------------------------------------------------------------------------------
def test_it_learns(model):
    batch = solver.batch_of([(p.question(), p.completion("steps")) for p in ONE.block(0, "test")])
    total, begin = (language_loss(m, batch) for m in (model, CONFIG.build(32)))
    assert total.nats < 0.4 * begin.nats


def test_who_is_cut_off_has_no_full_stop(model):
    ((text,),) = solver.solve(model, ["A B C D E 1-2 ?"], n_tokens=2)
    assert len(text.split()) == 2
    assert not text.endswith(".")


# --- bad input ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("attempt", "match"),
    [
        (lambda m: SolverConfig(n_tokens=0), "at least 1"),
        (lambda m: solver.batch_of([(" ", "A")]), "each pair a question"),
        (lambda m: solver.solve(m, []), "there must be a question"),
        (lambda m: solver.solve(m, ["A ?"], n_samples=2), "at temperature 0 all samples"),
        (
            lambda m: solver.train(solver.pairs_of(CupSource((8,)), "steps"), context_length=32),
            "at most 32 tokens, the context_length; got 6",
        ),
    ],
)
def test_refusals(model, attempt, match):
    with pytest.raises(ValueError, match=match):
        attempt(model)
