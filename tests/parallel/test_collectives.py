"""Collectives: what all ranks end with, and what each sends; in lockstep, and between processes."""

import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minillm.parallel.cluster import run
from minillm.parallel.collectives import (
    all_gather_steps,
    all_reduce_steps,
    in_lockstep,
    reduce_scatter_steps,
    ring_seconds,
)
from tests.parallel import rank_functions_collectives
from tests.parallel.rank_functions_collectives import N_CHUNK


def together(steps, vectors):
    return in_lockstep([steps(x, rank, len(vectors)) for rank, x in enumerate(vectors)])


@st.composite
def vectors(draw):
    """One for each of N ranks, of a length that N divides."""
    n_ranks, n_chunk = draw(st.integers(1, 6)), draw(st.integers(0, 4))
    return torch.randn(n_ranks, n_ranks * n_chunk, dtype=torch.float64)


# --- by hand --------------------------------------------------------------------------------------
def test_three_ranks_add_up_chunk_by_chunk():
    three = list(torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0], [100.0, 200.0, 300.0]]))
    parts = together(reduce_scatter_steps, three)
    assert [part.tolist() for part in parts.results] == [[111], [222], [333]]
    assert parts.bytes_sent == [8, 8, 8]  # two chunks of one number of 4 bytes
    # what leaves rank 1 first is the chunk that rank 0 will own, and goes by way of rank 2
    assert next(reduce_scatter_steps(three[1], 1, 3)).tolist() == [10]


def test_the_time_of_a_ring_is_messages_and_bytes():
    # 2 · 3 messages of 0.5 s and of 8 / 4 bytes at 4 bytes a second
    assert ring_seconds(8, 4, latency=0.5, bandwidth=4) == 2 * 3 * (0.5 + 0.5)
    assert ring_seconds(8, 4, latency=0.5, bandwidth=4, n_rounds=1) == 3.0
    assert ring_seconds(8, 1, latency=0.5, bandwidth=4) == 0


# --- twin -----------------------------------------------------------------------------------------
@pytest.mark.skipif(sys.platform == "win32", reason="ranks need Linux or macOS")
@pytest.mark.parametrize("n_ranks", [2, 3])
def test_between_processes_our_rings_are_torchs_collectives(n_ranks):
    ranks = run(rank_functions_collectives.compared, n_ranks, time_limit=300.0)
    for rank, result in enumerate(ranks):
        wrong = [place for place, equal in result["equal"].items() if not equal]
        assert wrong == result["changed"] == []
        sizes = {n_ranks} if rank == 1 and n_ranks == 3 else {2, n_ranks}  # of its groups
        assert len(result["equal"]) == len(sizes) * 9
        n_messages, n_bytes = n_ranks - 1, (n_ranks - 1) * N_CHUNK * 4
        assert result["reduce_scatter"] == [n_bytes, n_messages]
        assert result["all_gather"] == [n_bytes * n_ranks, n_messages]  # its part was as long
        assert result["all_reduce"] == [2 * n_bytes, 2 * n_messages]


# --- law ------------------------------------------------------------------------------------------
@given(vectors())
def test_every_rank_ends_with_the_sum_and_sends_its_share(ranks):
    n_ranks, length = ranks.shape
    before, total = ranks.clone(), ranks.sum(dim=0)
    whole = together(all_reduce_steps, list(ranks))
    assert all(torch.equal(result, whole.results[0]) for result in whole.results)
    torch.testing.assert_close(whole.results[0], total)
    half = (n_ranks - 1) * length // n_ranks * 8
    assert whole.bytes_sent == [2 * half] * n_ranks
    parts = together(reduce_scatter_steps, list(ranks))
    torch.testing.assert_close(torch.cat(parts.results), total)
    assert parts.bytes_sent == [half] * n_ranks
    assert torch.equal(ranks, before)
    parts.results[0].zero_()  # is its own memory
    assert torch.equal(ranks, before)


@given(vectors())
def test_every_rank_ends_with_all_parts(ranks):
    n_ranks, length = ranks.shape
    gathered = together(all_gather_steps, list(ranks))
    assert all(torch.equal(result, ranks.flatten()) for result in gathered.results)
    assert gathered.bytes_sent == [(n_ranks - 1) * length * 8] * n_ranks


# --- refusals -------------------------------------------------------------------------------------
@pytest.mark.parametrize("steps", [reduce_scatter_steps, all_reduce_steps])
def test_what_cannot_be_cut_into_equal_chunks_is_refused(steps):
    with pytest.raises(ValueError, match="a ring of 3 ranks needs a vector whose length 3 divides"):
        next(steps(torch.zeros(4), 0, 3))


def test_ranks_that_do_not_end_together_are_refused():
    x = torch.zeros(2)
    with pytest.raises(ValueError, match="1 of 2 ranks still send while the others have ended"):
        in_lockstep([all_reduce_steps(x, 0, 2), all_gather_steps(x, 1, 2)])
