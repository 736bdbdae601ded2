"""What is measured on ranks: equality, bytes and seconds."""

import sys

import pytest

from minillm.parallel import measured
from minillm.parallel.cluster import run
from minillm.parallel.collectives import ring_seconds
from minillm.parallel.zero import bytes_per_rank
from tests.parallel import rank_functions_measured

needs_gloo = pytest.mark.skipif(sys.platform == "win32", reason="ranks need Linux or macOS")


@pytest.fixture(scope="module")
def two_ranks():
    return run(rank_functions_measured.everything, 2, time_limit=300.0)


# --- by hand --------------------------------------------------------------------------------------
@needs_gloo
def test_the_ring_of_two_adds_1_and_10_of_everything(two_ranks):
    for rank in two_ranks:
        # each rank sends half of 4 numbers of 4 bytes, twice
        assert rank["sum"] == {"sum": [11, 22, 33, 44], "bytes_sent": 16, "n_messages": 2}


@needs_gloo
def test_bytes_held_are_the_formulas(two_ranks):
    for rank in two_ranks:
        for of_passes in rank["stages"]:
            for stage, held in enumerate(of_passes):
                n = held["n_parameters"]
                total = held["weights"] + held["gradients"] + held["optimizer"]
                assert total == pytest.approx(bytes_per_rank(n, 2, stage), rel=0.02)
                assert held["gradients"] == pytest.approx(
                    2 * n / (2 if stage >= 2 else 1), rel=0.02
                )
                assert held["optimizer"] == pytest.approx(12 * n / (2 if stage else 1), rel=0.02)
        once = rank["stages"][0]
        weights = [held["most_weights"] / once[0]["weights"] for held in once]
        assert weights[:3] == [1, 1, 1]
        assert 0.5 < weights[3] < 1


@needs_gloo
def test_bytes_sent_are_two_halves_of_a_ring_or_three_where_weights_are_cut(two_ranks):
    for rank in two_ranks:
        once, twice = ([held["sent"] for held in stages] for stages in rank["stages"])
        n_half = 2 * rank["stages"][0][0]["n_parameters"] / 2  # bfloat16, (N - 1) / N
        # stages 1 and 2 send gradients and then weights; stage 3 weights twice, but for the rest
        assert once[:3] == pytest.approx([2 * n_half] * 3, rel=0.01)
        assert 2.5 * n_half < once[3] < 3 * n_half
        # only gradients of stage 2, and all of stage 3, are sent anew in each backward pass
        assert twice[:2] == pytest.approx([2 * n_half] * 2, rel=0.01)
        assert twice[2] == pytest.approx(3 * n_half, rel=0.01)
        assert 1.6 * once[3] < twice[3] < 2 * once[3]


# --- twin -----------------------------------------------------------------------------------------
@needs_gloo
def test_every_way_ends_where_one_process_ends(two_ranks):
    for rank in two_ranks:
        assert set(rank["equality"]) == {"dp", "fsdp", *(f"zero {stage}" for stage in range(4))}
        for way in rank["equality"].values():
            assert way["float64"] < 1e-12
            assert way["float32"] < 1e-5
        assert max(way["float32"] for way in rank["equality"].values()) > 0  # was compared


# --- law ------------------------------------------------------------------------------------------
@needs_gloo
def test_sizes_are_timed_in_bytes(two_ranks):
    for rank in two_ranks:
        (small, first), (large, second) = rank["times"]
        assert (small, large) == (8, 256)
        assert min(first, second) > 0


@pytest.mark.parametrize("n_ranks", [2, 5])
def test_latency_and_bandwidth_are_recovered_from_exact_times(n_ranks):
    exact = [
        [n_bytes, ring_seconds(n_bytes, n_ranks, latency=3e-4, bandwidth=2e8)]
        for n_bytes in (10.0, 1e4, 1e6, 1e8)
    ]
    assert measured.fit_ring(exact, n_ranks) == pytest.approx((3e-4, 2e8), rel=1e-6)
