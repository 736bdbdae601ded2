"""minillm.bench.mixers: the benchmark runs, and its arithmetic is right."""

import pytest
import torch
from torch import nn

from minillm.bench import mixers as bench
from minillm.bench.model import verdict

ALL_MIXERS = pytest.mark.parametrize("config", bench.MIXERS.values(), ids=bench.MIXERS)


# --- by hand ------------------------------------------------------------------------------------
def test_of_several_rounds_the_least_time_counts(monkeypatch):
    ticks = iter([0.0, 3.0, 3.0, 8.0, 8.0, 12.0, 12.0, 13.0])  # a 3, b 5, a 4, b 1
    monkeypatch.setattr("minillm.bench.bpe.time.perf_counter", lambda: next(ticks))
    assert bench.least({"a": lambda: None, "b": lambda: None}, 2) == {"a": 3.0, "b": 1.0}


@pytest.mark.parametrize("power", [0, 1, 2])
def test_a_slope_is_the_power_and_the_factor_is_none_of_its_business(power):
    values = {n: 3.0 * n**power for n in (256, 512, 2048)}
    assert bench.slope(values, long=256) == pytest.approx(power, abs=1e-12)


def test_short_texts_do_not_count_for_the_slope():
    values = {256: 99.0, 1024: 1.0, 2048: 2.0}
    assert bench.slope(values, long=1024) == pytest.approx(1.0)
    assert bench.slope(values, long=256) < 0


def test_keys_and_values_of_eight_tokens_and_room_for_one_more():
    cache = bench.filled(bench.MIXERS["attention"].build(bench.D_MODEL), bench.noise(8))
    assert cache.n_tokens == 8
    assert cache.n_bytes == 2 * 9 * bench.D_MODEL * 4


# --- twin ---------------------------------------------------------------------------------------
@ALL_MIXERS
def test_one_more_token_is_the_last_of_the_whole_text(config):
    layer = config.build(bench.D_MODEL)
    with torch.no_grad():
        bench.check_next(layer, 33)


# --- law ----------------------------------------------------------------------------------------
@ALL_MIXERS
def test_steps_leave_a_cache_of_the_same_size_and_attention_where_it_was(config):
    layer, x = config.build(bench.D_MODEL), bench.noise(10)
    with torch.no_grad():
        cache = bench.filled(layer, x[:, :9])
        n_bytes = cache.n_bytes
        step = bench.steps(layer, x[:, 9:], cache, 9, n_steps=3)
        first, second = step(), step()
    assert cache.n_bytes == n_bytes
    if isinstance(cache, bench.KVCache):
        assert cache.n_tokens == 9
        assert torch.equal(first, second)
    else:
        assert cache.n_tokens == 9 + 2 * 3


def test_a_quick_run_returns_and_prints_every_figure(capsys):
    figures = bench.run(quick=True)
    printed = capsys.readouterr().out
    slopes = {f"{name}_{cost}" for name in bench.MIXERS for cost in bench.COSTS}
    lengths = {f"{slope}_{n}" for slope in slopes for n in bench.QUICK.lengths}
    assert set(figures) == slopes | lengths | {"n_threads"}
    assert set(bench.TARGETS) <= slopes
    assert all(figures[name] > 0 for name in lengths)
    for name in bench.MIXERS:
        *tables, last = (x for x in printed.splitlines() if x.startswith(f"  {name} "))
        assert len(tables) == len(bench.COSTS)
        assert f"{figures[f'{name}_prefill']:.2f}" in last
        for cost in bench.COSTS:
            if target := bench.TARGETS.get(f"{name}_{cost}"):
                said = f"{cost} {verdict(round(figures[f'{name}_{cost}'], 2), *target)}"
                assert said in last
    # bytes are no matter of chance: a token's keys and values, or nothing
    for name in bench.MIXERS:
        keeps = name in ("attention", "sparse")
        assert figures[f"{name}_cache"] == pytest.approx(1.0 if keeps else 0.0, abs=0.03)


def test_milliseconds_are_those_of_one_step(monkeypatch):
    layers = {"linear": bench.MIXERS["linear"].build(bench.D_MODEL)}
    monkeypatch.setattr(bench, "race", lambda works, n: dict.fromkeys(works, 0.008))
    with torch.no_grad():
        found = bench.costs(layers, bench.Work(lengths=(16,), long=1, n_repeats=1, n_steps=4))
    assert found["linear_prefill_16"] == 8.0
    assert found["linear_decode_16"] == 2.0


# --- what stops it ------------------------------------------------------------------------------
def test_a_mixer_that_forgets_its_cache_is_not_timed():
    class Forgets(nn.Module):
        def new_cache(self, batch_size, max_length):
            return None

        def forward(self, x, context, cache=None):
            return x.cumsum(dim=1)

    with pytest.raises(AssertionError, match="Forgets: a token after 4 differs by"):
        bench.check_next(Forgets(), 4)
