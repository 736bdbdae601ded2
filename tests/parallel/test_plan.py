import itertools
from dataclasses import replace

import pytest

from minillm.parallel import plan as module
from minillm.parallel.memory_plan import memory_plan
from minillm.parallel.plan import (
    Cluster,
    Cut,
    ModelShape,
    best_plan,
    best_plan_naive,
    block_cost,
    estimate,
)

SMALL = ModelShape(
    n_layers=12, d_model=96, n_heads=8, vocab_size=500, context_length=64, batch_size=24
)
FAST = Cluster(
    n_ranks=8,
    ranks_per_machine=4,
    peak_flops_per_second=1e12,
    utilisation=0.5,
    inside_bytes_per_second=1e10,
    between_bytes_per_second=1e9,
    latency_seconds=1e-6,
)
GPT3 = ModelShape(
    n_layers=96, d_model=12288, n_heads=96, vocab_size=50257, context_length=2048, batch_size=1536
)
A100 = Cluster(
    n_ranks=64,
    ranks_per_machine=8,
    peak_flops_per_second=312e12,
    utilisation=0.5,
    inside_bytes_per_second=300e9,
    between_bytes_per_second=25e9,
)


def silent(cluster):
    """Links that take no time worth naming."""
    return replace(
        cluster,
        inside_bytes_per_second=1e30,
        between_bytes_per_second=1e30,
        latency_seconds=1e-30,
    )


# --- by hand ---
def test_one_rank_computes_6_n_d_flops_and_recomputing_takes_a_third_more():
    alone = replace(silent(FAST), n_ranks=1)
    kept = estimate(SMALL, alone, Cut(1, 1, 1, 4, recompute=False))
    again = estimate(SMALL, alone, Cut(1, 1, 1, 4, recompute=True))
    assert kept.seconds == pytest.approx(6 * SMALL.n_parameters * 24 * 64 / 0.5e12)
    assert again.seconds / kept.seconds == pytest.approx(4 / 3)


@pytest.mark.parametrize(("pp", "m"), [(2, 1), (4, 3), (4, 12)])
def test_the_bubble_is_p_minus_1_over_m(pp, m):
    seconds = [
        estimate(SMALL, silent(FAST), Cut(8 // n, 1, n, micro, recompute=False)).seconds
        for n, micro in ((1, 1), (pp, m))
    ]
    assert seconds[1] / seconds[0] - 1 == pytest.approx((pp - 1) / m)


def test_communication_by_hand():
    cut = Cut(dp=2, tp=2, pp=2, n_micro_batches=3, recompute=False)
    extra = estimate(SMALL, FAST, cut).seconds - estimate(SMALL, silent(FAST), cut).seconds
    stream = 2 * 4 * 64 * 96  # 16 bits, 24 / (2 · 3) sequences, 64 tokens, D
    all_reduce = 2 * (1e-6 + stream / 2 / 1e10)  # of two ranks of one machine
    gradients = 2 * (1e-6 + 2 * SMALL.n_parameters / 4 / 2 / 1e10)
    slot = 6 * 4 * all_reduce + 2 * (1e-6 + stream / 1e9)  # 6 blocks; the next stage is far
    assert extra == pytest.approx((3 + 1) * slot + gradients)


def test_memory_by_hand():
    numbers = 4 * 64 * 96
    block = 10 * numbers + (24 * numbers + 5 * 8 * 4 * 64**2) // 2
    state = 16 * SMALL.n_parameters / 4
    kept = estimate(SMALL, FAST, Cut(2, 2, 2, 3, recompute=False))
    again = estimate(SMALL, FAST, Cut(2, 2, 2, 3, recompute=True))
    assert kept.n_bytes == pytest.approx(state + 2 * 6 * block, abs=1)  # 2 micro-batches alive
    assert again.n_bytes == pytest.approx(state + 2 * 6 * 2 * numbers + block, abs=1)
    zero1 = estimate(SMALL, FAST, Cut(2, 2, 2, 3, recompute=False), zero_stage=1)
    assert kept.n_bytes - zero1.n_bytes == pytest.approx(6 * SMALL.n_parameters / 4, abs=1)


# --- twin ---
@pytest.mark.parametrize(
    ("n_ranks", "batch_size", "zero_stage", "slow"),
    [
        case
        for case in itertools.product((1, 4, 8, 12, 16), (8, 24), (0, 1), (1, 30))
        if case[:2] != (12, 8)
    ],
)
def test_the_search_equals_brute_force_under_every_limit(n_ranks, batch_size, zero_stage, slow):
    cluster = replace(FAST, n_ranks=n_ranks, between_bytes_per_second=1e9 / slow)
    shape = replace(SMALL, batch_size=batch_size)
    sizes = sorted(
        {
            estimate(shape, cluster, cut, zero_stage=zero_stage).n_bytes
            for cut in module._cuts(shape, cluster, zero_stage)
        }
    )
    for limit in (sizes[0], sizes[len(sizes) // 3], sizes[-1]):
        plan = best_plan(shape, cluster, limit, zero_stage=zero_stage)
        assert plan == best_plan_naive(shape, cluster, limit, zero_stage=zero_stage)
        assert plan.n_bytes <= limit
        assert plan.dp * plan.tp * plan.pp == n_ranks


def test_all_cuts_divide_and_none_is_missing():
    cluster = replace(FAST, n_ranks=12, ranks_per_machine=6)
    expected = {
        (dp, tp, pp, m, recompute)
        for dp, tp, pp in itertools.product(range(1, 13), repeat=3)
        for m in range(1, 25)
        for recompute in (False, True)
        if dp * tp * pp == 12 and 6 % tp == 0 and 8 % tp == 0 and 12 % pp == 0
        if 24 % (dp * m) == 0
    }
    cuts = list(module._cuts(SMALL, cluster, 0))
    assert set(cuts) == expected and len(cuts) == len(expected)


def test_the_search_looks_at_fewer_cuts_than_there_are(monkeypatch):
    seen = []
    monkeypatch.setattr(module, "estimate", lambda *a, **k: seen.append(a) or estimate(*a, **k))
    module.best_plan(GPT3, A100, 1e15)
    assert len(seen) < len(list(module._cuts(GPT3, A100, 0))) / 4


# --- what is known of GPT-3 ---
def test_gpt3_fits_64_cards_of_80_gb_only_recomputed_and_not_40_gb():
    plan = best_plan(GPT3, A100, 80e9)
    assert plan == best_plan_naive(GPT3, A100, 80e9)
    assert plan.recompute and plan.n_bytes < 80e9
    assert plan.seconds > 1.2 * best_plan(GPT3, A100, 1e15).seconds
    with pytest.raises(
        ValueError, match=r"into 40 GB a rank. The nearest needs 49.1 GB: dp=1, tp=8"
    ):
        best_plan(GPT3, A100, 40e9)


def test_a_block_of_gpt3_is_recomputed_sooner_than_it_crosses_the_bus():
    block = block_cost(GPT3, A100, n_sequences=1, host_bytes_per_second=25e9)
    assert block.forward_seconds < block.offload_seconds
    plan = memory_plan([block] * 96, 30 * 10**9)
    assert "offload" not in plan.choices
    assert plan.choices.count("keep") == (30 * 10**9 - 96 * block.input_bytes) // (
        block.activation_bytes - block.input_bytes
    )
    quick = block_cost(GPT3, A100, n_sequences=1, host_bytes_per_second=1e12)
    assert "recompute" not in memory_plan([quick] * 96, 30 * 10**9).choices


# --- bad input ---
def test_what_cannot_be_is_refused_with_how_to_mend_it():
    with pytest.raises(ValueError, match="n_heads divide d_model"):
        replace(SMALL, n_heads=7)
    with pytest.raises(ValueError, match="do not fill machines of 4"):
        replace(FAST, n_ranks=6)
    with pytest.raises(ValueError, match="utilisation at most 1"):
        replace(FAST, utilisation=50)
    with pytest.raises(ValueError, match="zero_stage must be 0 or 1; got 3"):
        best_plan(SMALL, FAST, 1e12, zero_stage=3)
    with pytest.raises(ValueError, match="no cut uses all ranks"):
        best_plan(replace(SMALL, n_layers=3, n_heads=3, batch_size=3), FAST, 1e12)
