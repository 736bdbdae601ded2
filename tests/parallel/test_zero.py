"""ZeRO: training with parts of everything is training with everything."""

import sys
from dataclasses import replace

import pytest
import torch

from minillm.experts.moe import MoEConfig
from minillm.optim.adafactor import Adafactor
from minillm.optim.came import CAME
from minillm.optim.groups import hidden_matrices_and_others
from minillm.optim.muon import Muon
from minillm.parallel import fsdp, zero
from minillm.parallel.cluster import run
from minillm.parallel.zero import bytes_per_rank
from minillm.train.loop import TrainState
from tests.parallel import rank_functions_zero
from tests.parallel.rank_functions_zero import CONFIG, OPTIMIZERS

needs_gloo = pytest.mark.skipif(sys.platform == "win32", reason="ranks need Linux or macOS")


@pytest.fixture(scope="module")
def two_ranks():
    return run(rank_functions_zero.zeros, 2, time_limit=300.0)


def check(result):
    """A way of training found what one process finds, and ended where that ends."""
    moments = ("middle", "end", "cut anew", "alone")
    assert max(result[moment] for moment in moments if moment in result) < 1e-12
    for found, expected in zip(result["steps"], result["expected"], strict=True):
        assert found[:3] == expected[:3]
        assert found[3:] == pytest.approx(expected[3:], rel=1e-12)  # loss and gradient norm
    assert [step[2] for step in result["steps"]] == [None, "the loss is nan", None]  # on one rank
    assert result["steps"][0][4] > 0.1  # was clipped


# --- by hand --------------------------------------------------------------------------------------
def test_bytes_of_a_rank_by_stage():
    # 2 weights, 2 gradients, 12 state; of 10 parameters and 4 ranks
    assert [bytes_per_rank(10, 4, stage) for stage in range(4)] == [160, 70, 55, 40]
    assert [bytes_per_rank(10, 1, stage) for stage in range(4)] == [160] * 4


class Pair:
    """Collectives of rank 1 of 2, of which nothing is asked."""

    rank, n_ranks = 1, 2


def plain(dtype=torch.bfloat16):
    model = CONFIG.build(dtype=dtype)
    return TrainState(model, torch.optim.AdamW(model.parameters()))


@pytest.mark.parametrize("stage", range(4))
def test_a_rank_holds_its_part_of_what_its_stage_cuts(stage):
    n_block = sum(p.numel() for p in CONFIG.build().blocks[0].parameters())
    n = 2 * (n_block + n_block % 2) + 11 * 9 + 9  # two blocks; the table, and the last norm
    held = zero.held_bytes(zero.shard(plain(), Pair(), stage))
    weights, master = 2 * n / (2 if stage == 3 else 1), 4 * n / (2 if stage else 1)
    assert held == {"weights": weights, "gradients": 0, "optimizer": master}
    held = zero.held_bytes(zero.shard(plain(torch.float32), Pair(), stage))  # its own master copy
    assert held == {"weights": 2 * weights, "gradients": 0, "optimizer": 0}


# --- twin -----------------------------------------------------------------------------------------
@needs_gloo
@pytest.mark.parametrize("way", ["dp", *(f"stage {n}" for n in range(4)), *list(OPTIMIZERS)[1:]])
def test_training_in_parts_is_training_as_one(two_ranks, way):
    for rank in two_ranks:
        assert rank["counts"][0] != rank["counts"][1]  # ranks have different numbers of tokens
        check(rank["ways"][way])


# --- law ------------------------------------------------------------------------------------------
@needs_gloo
def test_in_stage_3_only_the_block_at_work_and_the_rest_are_whole(two_ranks):
    for rank in two_ranks:
        alive = rank["alive"]
        *blocks, table = alive["matrices"]
        *gains, norm = alive["others"]
        assert alive["before"] == (sum(alive["matrices"]) + sum(alive["others"])) / 2
        # its part of all, and all of one block and of what belongs to none
        assert alive["most"] == alive["before"] + blocks[0] + gains[0] + table + norm


# --- refusals -------------------------------------------------------------------------------------
@pytest.mark.parametrize("optimizer", [Muon, Adafactor, CAME])
@pytest.mark.parametrize("cut", [lambda state: zero.shard(state, Pair(), 1), fsdp.shard])
def test_optimizers_that_look_at_whole_matrices_are_refused_by_name(cut, optimizer):
    matrices, _ = hidden_matrices_and_others(CONFIG.build())
    words = f"{optimizer.__name__} looks at whole matrices, .*works with Adam, AdamW"
    with pytest.raises(ValueError, match=words):
        cut(TrainState(CONFIG.build(), optimizer(matrices, lr=0.1)))


@pytest.mark.parametrize("stage", [-1, 4])
def test_a_stage_that_is_none_is_refused(stage):
    with pytest.raises(ValueError, match=f"stages 0 to 3; got {stage}"):
        zero.shard(plain(), Pair(), stage)
    with pytest.raises(ValueError, match=f"stages are 0 to 3, ranks at least 1; got {stage} and 2"):
        bytes_per_rank(1, 2, stage)
    with pytest.raises(ValueError, match="got 1 and 0"):
        bytes_per_rank(1, 0, 1)


# --- what is not used -----------------------------------------------------------------------------
class One:
    """Collectives of a single rank."""

    rank, n_ranks = 0, 1

    def all_reduce(self, x):
        return x.clone()

    reduce_scatter = all_gather = all_reduce


class Halves(torch.nn.Module):
    """A model of one block with two numbers, of which a loss may use one alone."""

    def __init__(self):
        super().__init__()
        block = torch.nn.Module()
        block.ffn = None
        block.a, block.b = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
        self.blocks = torch.nn.ModuleList([block])


@pytest.mark.parametrize("stage", range(3))
def test_a_parameter_that_a_step_does_not_use_costs_no_other_its_gradient(stage):
    state = TrainState(model := Halves(), torch.optim.SGD(model.parameters(), lr=0.0))
    state = zero.shard(state, One(), stage)
    [block] = model.blocks
    for uses_b, expected in ((False, [1.0, 1.0, 0.0, 0.0]), (True, [1.0] * 4)):
        (block.a.sum() + (block.b.sum() if uses_b else 0.0)).backward()
        [gradient] = state.reduction.gradients(model)
        assert gradient.tolist() == expected
        state.reduction.clear()


def test_a_mixture_of_experts_is_refused_whose_ranks_would_send_different_units():
    model = replace(CONFIG, ffn=MoEConfig(n_experts=2, top_k=1)).build(seed=0)
    state = TrainState(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(ValueError, match=r"block 0 is a mixture of experts.*parallelism \(dp\)"):
        zero.shard(state, One(), 1)
