"""Expert parallelism: experts on several ranks, and the numbers of one layer."""

import re
import sys
from functools import cache
from types import SimpleNamespace

import pytest
import torch

from minillm.experts.moe import MoEConfig
from minillm.model.config import tiny
from minillm.optim.muon import Muon
from minillm.parallel import expert
from minillm.parallel.cluster import run
from minillm.parallel.expert import ExpertParallel, own_experts
from minillm.train.loop import TrainState
from tests.parallel import rank_functions_expert

needs_gloo = pytest.mark.skipif(sys.platform == "win32", reason="ranks need Linux or macOS")
LAYERS = ("spread", "all to one")


@cache
def two_ranks() -> list[dict]:
    return run(rank_functions_expert.two_ranks, 2, time_limit=200)


# --- by hand --------------------------------------------------------------------------------------
def test_experts_are_dealt_out_one_run_after_the_other():
    assert [list(own_experts(6, rank, 3)) for rank in range(3)] == [[0, 1], [2, 3], [4, 5]]


# --- twin -----------------------------------------------------------------------------------------
@needs_gloo
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_on_two_ranks_is_the_single_layer_in_output_and_gradients(name):
    for rank in two_ranks():
        differences = {key: n for key, n in rank[name].items() if not key.startswith("bytes")}
        assert len(differences) == 2 + 3 + 2 * 2  # y, x; router, shared; two experts
        for key, difference in differences.items():
            assert difference < 1e-9, key


@needs_gloo
def test_training_with_experts_dealt_out_is_training_with_all():
    assert all(rank["training"] < 1e-9 for rank in two_ranks())


# --- law ------------------------------------------------------------------------------------------
@needs_gloo
def test_only_tokens_of_other_ranks_experts_travel_and_their_answers():
    ranks, counts = two_ranks(), 2 * 8  # how many go to each of two experts, 8 bytes a number
    for name in LAYERS:
        to_others = [rank[name]["bytes of tokens"] for rank in ranks]
        for rank, other in ((0, 1), (1, 0)):  # answers go to the rank whose tokens came
            expected = to_others[rank] // 2 + to_others[other] // 2 + counts
            assert ranks[rank][name]["bytes"] == expected
    assert ranks[0]["all to one"]["bytes of tokens"] == 0 < to_others[1]


# --- refusals -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MoEConfig(n_experts=4), "3 expert-parallel ranks must divide .* got 4.*n_experts=3"),
        (MoEConfig(n_experts=3, router="switch", top_k=1), "got router='switch' and capacity_fac"),
    ],
)
def test_a_layer_that_cannot_be_dealt_out_is_refused(config, message):
    ranks = SimpleNamespace(rank=0, n_ranks=3)
    with pytest.raises(ValueError, match=re.compile(message, re.DOTALL)):
        ExpertParallel(config.build(d_model=8), ranks)


def test_a_state_without_experts_or_with_an_optimizer_of_matrices_is_refused():
    model, ranks = tiny(12).build(), SimpleNamespace(rank=0, n_ranks=1)
    muon = Muon([p for p in model.blocks.parameters() if p.ndim == 2], lr=0.1)
    for optimizer, message in (
        (torch.optim.SGD(model.parameters(), lr=0.1), "no block of this model has experts"),
        (muon, "got Muon"),
    ):
        with pytest.raises(ValueError, match=message):
            expert.shard(TrainState(model, optimizer), ranks, ranks)
