"""What is measured on ranks that share a model: equality, counts and bytes."""

import sys

import pytest
import torch

from minillm.experts.moe import MoEConfig
from minillm.parallel.cluster import run
from minillm.parallel.data import share
from minillm.parallel.measured import N_ROWS, N_TOKENS
from minillm.parallel.schedule import Action, Event, Timeline
from tests.parallel import rank_functions_model_measured

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="ranks need Linux or macOS")


@pytest.fixture(scope="module")
def two_ranks():
    return run(rank_functions_model_measured.everything, 2, time_limit=300.0)


def test_a_block_calls_two_all_reduces_each_way_and_sends_the_stream_twice(two_ranks):
    stream = N_ROWS * N_TOKENS * 64 * 4  # a ring of two sends each vector once
    for rank in two_ranks:
        of_tensor = rank["tensor"]
        assert of_tensor["forward"] == of_tensor["backward"] == {"allreduce": 2}
        assert of_tensor["sent"] == rank["sequence"]["sent"] == 2 * stream
        assert of_tensor["whole"] - of_tensor["held"] == of_tensor["held"] - 2 * 64  # two norms


def test_with_the_stream_cut_there_are_four_halves_and_half_of_the_tokens(two_ranks):
    for rank in two_ranks:
        assert sum(rank["sequence"]["forward"].values()) == 4
        assert 2 * rank["sequence"]["stream"] == rank["tensor"]["stream"] == N_TOKENS


def test_weights_end_as_those_of_one_process(two_ranks):
    for rank in two_ranks:
        for way in ("tensor", "sequence"):
            assert rank[way]["float64"] < 1e-12
            assert rank[way]["float32"] < 1e-4
        for schedule in ("GPipe", "1F1B"):
            assert rank["pipeline"][schedule]["weights"] < 1e-12
            losses = rank["pipeline"][schedule]["losses"]
            assert losses == pytest.approx(rank["pipeline"]["alone"]["losses"], rel=1e-12)


def test_stages_keep_what_their_events_tell(two_ranks):
    assert two_ranks[0]["pipeline"]["GPipe"]["most_alive"] == [4, 4]
    assert two_ranks[0]["pipeline"]["1F1B"]["most_alive"] == [2, 1]
    for schedule in ("GPipe", "1F1B"):
        of_ranks = two_ranks[0]["pipeline"][schedule]
        events = [Event(s, Action(kind, n), *times) for s, kind, n, *times in of_ranks["events"]]
        assert len(events) == 2 * 2 * 4
        assert Timeline(events).live == of_ranks["most_alive"]


def test_ring_and_experts_equal_the_whole_and_send_what_must_travel(two_ranks):
    away = [rank["experts"]["away"] for rank in two_ranks]
    torch.manual_seed(0)
    layer = MoEConfig(n_experts=8, top_k=2, d_expert=32).build(16, dtype=torch.float64)
    _, routing = layer(share(torch.randn(4, 32, 16, dtype=torch.float64), 0, 2))
    assert away[0] == routing.tokens_per_expert[4:].sum()
    for rank in two_ranks:
        assert max(rank["ring"]["values"], rank["ring"]["gradients"]) < 1e-5
        assert 2 * rank["ring"]["sent"] == rank["ring"]["all_keys"]
        of_experts = rank["experts"]
        assert max(of_experts["output"], of_experts["gradients"]) < 1e-12
        assert 2 * of_experts["held"] == of_experts["whole"]
        # tokens and answers of 16 numbers of 8 bytes, and how many come to 4 experts
        assert of_experts["sent"] == 16 * 8 * sum(away) + 4 * 8
