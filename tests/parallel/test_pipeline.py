import sys
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from minillm.experts.moe import MoEConfig
from minillm.optim.muon import Muon
from minillm.parallel.cluster import run
from minillm.parallel.pipeline import shard, stage_blocks
from minillm.train.loop import TrainState
from tests.parallel import rank_functions_pipeline as ranks

needs_gloo = pytest.mark.skipif(sys.platform == "win32", reason="ranks need Linux or macOS")


@cache
def of_two() -> list[dict]:
    return run(ranks.two_ranks, 2, time_limit=300)


@cache
def of_four() -> list[dict]:
    return run(ranks.four_ranks, 4, time_limit=300)


def assert_twin(of_ranks: list[dict], name: str) -> None:
    for facts in of_ranks:
        twin = facts[name]
        assert twin["held-out tokens"][0] == twin["held-out tokens"][1]
        for what in ("steps", "filled", "gone on", "held out"):
            assert twin[what] < 1e-9, (name, what, twin[what])


# --- by hand --------------------------------------------------------------------------------------
@needs_gloo
def test_the_first_stage_has_the_table_of_tokens_and_the_last_the_head_or_the_table_too():
    first, last = of_two()
    assert first["1f1b"]["parts"] == first["tied"]["parts"] == ["blocks", "embedding"]
    assert last["1f1b"]["parts"] == ["blocks", "head", "norm"]
    assert last["tied"]["parts"] == ["blocks", "embedding", "norm"]
    assert [each["tied"]["blocks"] for each in (first, last)] == [[0, 1], [2]]


@needs_gloo
def test_gpipe_keeps_all_micro_batches_and_1f1b_as_many_as_stages_are_left():
    assert [each["gpipe"]["alive"] for each in of_four()] == [8, 8, 8, 8]
    assert [each["1f1b"]["alive"] for each in of_four()] == [4, 3, 2, 1]


# --- twin -----------------------------------------------------------------------------------------
@needs_gloo
@pytest.mark.parametrize("name", ["gpipe", "1f1b", "tied", "torch's AdamW"])
def test_two_stages_train_as_one_process_does_and_one_goes_on_from_them(name):
    assert_twin(of_two(), name)


@needs_gloo
@pytest.mark.parametrize("name", ["gpipe", "1f1b", "pp=2,dp=2"])
def test_four_ranks_train_as_one_process_does(name):
    assert_twin(of_four(), name)


# --- law ------------------------------------------------------------------------------------------
@given(st.integers(1, 40), st.integers(1, 40))
def test_stages_have_all_blocks_in_order_and_as_many_as_the_next_or_one_more(n_blocks, n_stages):
    if n_stages > n_blocks:
        with pytest.raises(ValueError, match=f"at most pp={n_blocks}"):
            stage_blocks(n_blocks, n_stages)
        return
    parts = stage_blocks(n_blocks, n_stages)
    assert [n for part in parts for n in part] == list(range(n_blocks))
    sizes = [len(part) for part in parts]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1


# --- bad input ------------------------------------------------------------------------------------
def test_experts_and_rules_for_whole_matrices_are_refused_by_name():
    with pytest.raises(ValueError, match="block 0 is a mixture of experts"):
        shard(ranks.state(replace(ranks.CONFIG, ffn=MoEConfig(n_experts=2, top_k=1))))
    matrices = [
        each.weight for each in ranks.state().model.modules() if isinstance(each, nn.Linear)
    ]
    with pytest.raises(ValueError, match=r"Muon remembers .* pp works with Adam, AdamW"):
        shard(TrainState(nn.Identity(), Muon(matrices, lr=0.1)))
