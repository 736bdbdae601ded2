"""Ring attention: the result of plain attention, with a block of scores at a time."""

import sys

import pytest
import torch

from minillm.measure.memory_meter import Meter
from minillm.parallel.cluster import run
from minillm.parallel.collectives import in_lockstep
from minillm.parallel.sequence import (
    PartialAttention,
    merged,
    ring_attention,
    ring_attention_backward_steps,
    ring_attention_steps,
)
from tests.parallel import rank_functions_sequence
from tests.parallel.rank_functions_sequence import heads, whole

needs_gloo = pytest.mark.skipif(sys.platform == "win32", reason="ranks need Linux or macOS")
PLANS = [(1, True), (2, True), (3, True), (4, True), (4, False)]


def rings(n_ranks: int, causal: bool, tensors: list[torch.Tensor]):
    """Both trips of all ranks in this process: the values, the gradients, what was sent."""
    parts = [[x.chunk(n_ranks, dim=2)[rank] for x in tensors] for rank in range(n_ranks)]
    there = in_lockstep(
        [
            ring_attention_steps(*part[:3], rank, n_ranks, causal=causal)
            for rank, part in enumerate(parts)
        ]
    )
    back = in_lockstep(
        [
            ring_attention_backward_steps(
                *part[:3], attended, part[3], rank, n_ranks, causal=causal
            )
            for rank, (part, attended) in enumerate(zip(parts, there.results, strict=True))
        ]
    )
    values = torch.cat([attended.values for attended in there.results], dim=2)
    gradients = [torch.cat(each, dim=2) for each in zip(*back.results, strict=True)]
    return [values, *gradients], there.bytes_sent, back.bytes_sent


# --- by hand --------------------------------------------------------------------------------------
def test_two_softmaxes_count_by_their_totals_even_where_exp_overflows():
    values, logs = torch.tensor([0.0, 4.0]), torch.tensor([1000.0, 1000.0 + torch.tensor(3).log()])
    parts = [
        PartialAttention(v.view(1, 1, 1, 1), s.view(1, 1, 1, 1))
        for v, s in zip(values, logs, strict=True)
    ]
    both = merged(*parts)
    torch.testing.assert_close(both.values.item(), 3.0, rtol=1e-4, atol=0)  # 1/4 · 0 + 3/4 · 4
    torch.testing.assert_close(both.logsumexp.item(), 1000 + 1.3863, rtol=1e-6, atol=0)


# --- twin -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(("n_ranks", "causal"), PLANS)
def test_the_ring_gives_plain_attention_and_its_gradients(n_ranks, causal):
    tensors = heads(12)
    results, *_ = rings(n_ranks, causal, tensors)
    for result, expected in zip(results, whole(tensors, causal), strict=True):
        assert (result - expected).abs().max() < 1e-12 * expected.abs().max()


def test_in_float32_the_difference_is_rounding():
    tensors = heads(64, torch.float32)
    results, *_ = rings(4, True, tensors)
    for result, expected in zip(results, whole(tensors, True), strict=True):
        assert (result - expected).abs().max() < 1e-5 * expected.abs().max()


@needs_gloo
def test_between_processes_too():
    for rank in run(rank_functions_sequence.two_ranks, 2, time_limit=200):
        assert rank["causal"] < 1e-12 and rank["all"] < 1e-12
        block = 2 * 2 * 6 * 6 * 8  # B · G · T/P · K numbers of 8 bytes
        assert rank["bytes"] == [2 * block, 2 * 4 * block]  # k, v; twice those and their gradients


# --- law ------------------------------------------------------------------------------------------
def test_no_more_scores_are_alive_than_those_of_one_block():
    n_heads, n_tokens, n_ranks = 2, 64, 4
    q, k, v = torch.randn(3, 1, n_heads, n_tokens, 2).unbind()
    parts = [[x.chunk(n_ranks, dim=2)[rank] for x in (q, k, v)] for rank in range(n_ranks)]
    ranks = [ring_attention_steps(*part, rank, n_ranks) for rank, part in enumerate(parts)]
    with Meter() as meter:
        in_lockstep(ranks)
    block = n_heads * (n_tokens // n_ranks) ** 2
    assert meter.largest == block
    # scores, their exponentials and a step between, of one rank at a time; all else grows with T
    assert meter.peak <= 3 * block + 12 * q.numel()


def test_each_rank_sends_its_keys_and_values_to_all_but_one():
    tensors = heads(12)
    _, there, back = rings(4, True, tensors)
    keys_and_values = sum(x.numel() * 8 for x in tensors[1:3])
    assert there == [keys_and_values * 3 // 4] * 4
    assert back == [2 * keys_and_values] * 4  # with gradients, and once more to be at home


# --- refusals -------------------------------------------------------------------------------------
def test_keys_of_other_tokens_than_the_queries_are_refused():
    q, k, v, _ = heads(12)
    with pytest.raises(ValueError, match=r"H a multiple of G; got \[2, 4, 6, 6\], \[2, 2, 12, 6\]"):
        ring_attention(q[:, :, :6], k, v)
    with pytest.raises(ValueError, match="queries, keys and values of the same tokens"):
        ring_attention(q[:, :3], k, v)
