"""Tensor parallelism: slices that add up to the whole, on real ranks."""

import re
import sys
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from minillm.experts.moe import MoEConfig
from minillm.model.attention import AttentionConfig
from minillm.model.ffn import SwiGLUConfig
from minillm.optim.muon import Muon
from minillm.parallel import tensor
from minillm.parallel.cluster import run
from minillm.parallel.tensor import Cut, joined, slice_of, vocabulary_nats, vocabulary_summary
from minillm.train.loop import TrainState
from tests.parallel import rank_functions_tensor
from tests.parallel.rank_functions_tensor import GROUPED, batch_at, state

needs_gloo = pytest.mark.skipif(sys.platform == "win32", reason="ranks need Linux or macOS")


@cache
def two_ranks() -> list[dict]:
    return run(rank_functions_tensor.two_ranks, 2, time_limit=200)


# --- by hand --------------------------------------------------------------------------------------
def test_a_rank_gets_whole_heads_of_queries_keys_and_values():
    heads = torch.arange(8.0)[:, None]  # 4 of q, 2 of k, 2 of v, one row each
    cut = Cut(0, (4, 2, 2))
    assert slice_of(heads, cut, 0, 2).flatten().tolist() == [0, 1, 4, 6]
    assert slice_of(heads, cut, 1, 2).flatten().tolist() == [2, 3, 5, 7]


# --- twin -----------------------------------------------------------------------------------------
@needs_gloo
def test_training_with_slices_is_training_with_the_whole():
    for rank in two_ranks():
        for name, difference in rank["twins"].items():
            assert difference < 1e-9, name


@needs_gloo
def test_slices_and_copies_of_the_data_together_are_still_the_whole():
    assert max(run(rank_functions_tensor.four_ranks, 4, time_limit=200)) < 1e-9


@needs_gloo
def test_a_sharded_model_writes_token_by_token_as_the_whole_one():
    assert all(rank["cached"] < 1e-9 for rank in two_ranks())


# --- reference ------------------------------------------------------------------------------------
@needs_gloo
def test_torch_counts_two_all_reduces_a_block_each_way():
    for rank in two_ranks():
        forward, backward = rank["block"]  # two blocks, and one for the table or the logits
        assert forward == {"allreduce": 2 * 2 + 1, "allgather_base": 1}
        assert backward == {"allreduce": 2 * 2 + 1}


@needs_gloo
def test_with_sequence_halves_of_all_reduces_send_as_many_bytes():
    for rank in two_ranks():
        forward, backward = rank["sequence"]
        assert forward == {"reduce_scatter_base": 5, "allgather_base": 5 + 1}
        assert backward == {"reduce_scatter_base": 5, "allgather_base": 5}
        assert rank["sequence bytes"] == rank["block bytes"]


def test_the_loss_from_summaries_is_torchs():
    torch.manual_seed(0)
    logits, targets = torch.randn(5, 12).double() * 30, torch.randint(12, (5,))
    parts = [vocabulary_summary(part, targets, r) for r, part in enumerate(logits.chunk(3, 1))]
    expected = nn.functional.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(vocabulary_nats(torch.stack(parts)), expected)


# --- law ------------------------------------------------------------------------------------------
@given(st.integers(1, 4), st.integers(0, 1), st.lists(st.integers(1, 3), min_size=1, max_size=3))
def test_slices_joined_are_the_weight(n_ranks, axis, sections):
    cut = Cut(axis, tuple(n_ranks * size for size in sections))
    x = torch.randn(sum(cut.sections), 3)
    x = x.T if axis else x
    slices = torch.stack([slice_of(x, cut, rank, n_ranks) for rank in range(n_ranks)])
    assert torch.equal(joined(slices, cut), x)


@needs_gloo
def test_a_rank_holds_its_slices_and_never_the_logits_of_all_words():
    for rank in two_ranks():
        whole = replace(GROUPED, vocab_size=4000).build()
        for name, parameter in whole.named_parameters():
            held = torch.Size(rank["shapes"][name]).numel()
            assert held == parameter.numel() // (1 if "norm" in name else 2), name
        assert rank["largest"] == 4 * 8 * 4000 // 2  # B · T · V / P


# --- refusals -------------------------------------------------------------------------------------
THREE_HEADS = replace(
    GROUPED, mixer=AttentionConfig(n_heads=3, d_head=4), ffn=SwiGLUConfig(d_ff=24)
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 10}, "3 tensor-parallel ranks must divide vocab_size; got 10"),
        ({"mixer": replace(THREE_HEADS.mixer, n_kv_heads=1)}, "n_kv_heads of block 0; got 1"),
        ({"ffn": MoEConfig()}, "block 0 has Attention and MoE.*minillm.parallel.expert"),
    ],
)
def test_what_cannot_be_cut_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=re.compile(message, re.DOTALL)):
        tensor.shard(state(replace(THREE_HEADS, **change)), SimpleNamespace(rank=0, n_ranks=3))


def test_an_optimizer_of_whole_matrices_is_refused():
    model = GROUPED.build()
    muon = Muon([p for p in model.blocks.parameters() if p.ndim == 2], lr=0.1)
    with pytest.raises(ValueError, match="Muon looks at whole matrices"):
        tensor.shard(TrainState(model, muon), SimpleNamespace(rank=0, n_ranks=2))


def test_the_loss_refuses_a_plain_model_and_tokens_that_cannot_be_dealt_out():
    with pytest.raises(ValueError, match="language_loss is made"):
        tensor.loss(GROUPED.build(), batch_at(0))
    three = SimpleNamespace(rank=0, n_ranks=3)
    sharded = tensor.shard(state(THREE_HEADS), three, sequence=True)
    with pytest.raises(ValueError, match="3 ranks must divide the tokens of a row; got 8"):
        tensor.loss(sharded.model, batch_at(0))
