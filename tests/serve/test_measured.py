from dataclasses import replace
from statistics import median

import pytest
import torch

from minillm.model.config import tiny
from minillm.serve import measured
from minillm.serve.engine import EngineConfig


def test_a_larger_model_has_more_bytes_and_every_pass_takes_time():
    small, large = measured.time_tokens(widths=(16, 32), n_repeats=1)
    assert small.n_bytes < large.n_bytes
    assert min(small[1:]) > 0


def test_every_token_is_written_whoever_waits_for_whom():
    requests = measured.random_requests(seed=1, n_requests=12, mean=4)
    n_tokens = sum(request.n_tokens for request in requests)
    runs = [
        measured.play(requests, EngineConfig(max_batch=3, static=static, share_prefixes=False))
        for static in (True, False)
    ]
    for run in runs:
        assert sum(map(len, run.steps)) == n_tokens  # the first step also reads the prompt
        assert run.n_stored[-1] == run.n_blocks[-1] == 0
        assert all(0 <= n <= 16 * b for n, b in zip(run.n_stored, run.n_blocks, strict=True))
    assert len(runs[1].steps) < len(runs[0].steps)


def test_steps_are_those_of_the_slots_that_are_free_first():
    lengths = [3, 1, 1, 2]
    requests = [measured.Request(prompt=(7,), n_tokens=n, config=measured.GREEDY) for n in lengths]
    steps = {
        static: len(measured.play(requests, EngineConfig(max_batch=2, static=static)).steps)
        for static in (True, False)
    }
    assert steps == {True: 5, False: 4}


def test_a_long_prompt_makes_one_step_long_or_several_a_little():
    whole, parts = measured.step_times(1024), measured.step_times(64)
    assert len(whole) == len(parts) == 59
    assert whole[20] > 2 * median(whole)


def test_a_draft_that_is_the_target_is_always_right():
    model = tiny(vocab_size=50).build(seed=0)
    gained = measured.gain(model, model, [[7, 3], [4]], n_drafted=(1, 3), n_tokens=13)
    assert gained.same and gained.alpha == pytest.approx(1)
    assert gained.tokens_per_call == {1: 2, 3: 4}
    assert set(gained.seconds) == {0, 1, 3}


def test_only_the_residual_gives_the_targets_distribution():
    p, q = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.2, 0.3, 0.5])
    assert measured.chi_square(p, q, n=5000) > 0.001
    assert measured.chi_square(p, q, rule="p", n=5000) < 1e-9


def test_a_long_prompt_stalls_the_others_unless_it_is_cut_or_read_elsewhere():
    longest = {name: max(each.gaps[0]) for name, each in measured.stall().items()}
    assert longest["prefill first"] > 3 * longest["chunked"] > 3 * longest["apart"]


def test_at_a_rate_with_stalls_the_tail_of_gaps_is_shortest_apart():
    gaps = measured.tail_gaps(rate=2.0, seeds=(0,))
    assert gaps["prefill first"] > gaps["chunked"] > gaps["apart"]


def test_a_strict_promise_is_kept_at_a_higher_rate_apart(monkeypatch):
    monkeypatch.setattr(measured, "WORK", replace(measured.WORK, n_requests=40))
    monkeypatch.setattr(measured, "N_MACHINES", 2)
    ways = measured.best_rates(seeds=(0,), ttft=3, tpot=5, gap=5)
    assert 0 < ways.prefill_first.goodput < ways.apart.goodput
