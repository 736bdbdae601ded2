import sys
from functools import cache

import pytest

from minillm.parallel.cluster import run
from minillm.parallel.micro_batches import Pipelined
from minillm.parallel.schedule import one_forward_one_backward
from tests.parallel import rank_functions_micro_batches as ranks

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="ranks need Linux or macOS")


@cache
def facts(name: str) -> list:
    """Of each rank."""
    return [of_rank[name] for of_rank in everything()]


@cache
def everything() -> list[dict]:
    return run(ranks.two_ranks, 2, time_limit=300)


# --- by hand --------------------------------------------------------------------------------------
def test_a_micro_batch_is_let_go_after_its_backward_pass():
    # F0 F1 B0 F2 B1 F3 B2 B3, and F0 B0 F1 B1 F2 B2 F3 B3
    assert facts("activations") == [[1, 2, 1, 2, 1, 2, 1, 0], [1, 0, 1, 0, 1, 0, 1, 0]]
    assert facts("live") == facts("alive") == [2, 1]


def test_what_was_done_is_the_schedule():
    orders = [[str(each) for each in one_forward_one_backward(n, 2, 4)] for n in range(2)]
    assert facts("order") == orders


def test_without_gradients_there_are_forward_passes_alone_over_as_many_micro_batches_as_fit():
    assert facts("forward only") == [["forward 0"], ["forward 0"]]
    assert facts("held out") == pytest.approx(facts("again"), rel=1e-12)


# --- reference ------------------------------------------------------------------------------------
def test_loss_and_gradients_are_those_of_torchs_own_pipeline():
    for differences in facts("torch"):
        assert max(differences) < 1e-12


# --- bad input: every rank refuses before it sends, so that none waits ----------------------------
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rows", "n_micro=3 for 8 rows"),
        ("deadlock", "stage 0 waits to do backward 1 for backward 1 of stage 1"),
        ("multiplied", "multiplied by 0.5"),
    ],
)
def test_what_cannot_be_is_refused_on_every_rank(name, words):
    assert all(words in text for text in facts(name)), facts(name)


def test_there_is_at_least_one_micro_batch():
    with pytest.raises(ValueError, match="n_micro=0"):
        Pipelined(0)
