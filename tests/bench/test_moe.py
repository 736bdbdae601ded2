"""minillm.bench.moe: the benchmark runs, and its arithmetic is right."""

import sys

import pytest
import torch

from minillm.bench import moe as bench
from minillm.bench.model import verdict


# --- by hand ------------------------------------------------------------------------------------
def test_a_twice_as_long_and_a_half_as_long_time_cancel_out():
    assert bench.geometric_mean([2.0, 0.5, 1.0]) == pytest.approx(1.0)
    assert bench.geometric_mean([4.0, 1.0]) == pytest.approx(2.0)


def test_the_dense_layer_is_as_wide_as_a_tokens_two_experts():
    layers = bench.contenders(24, 8, [])
    assert layers["ours"].experts[0].down.in_features == 64  # 8/3 · 24
    assert layers["dense"].down.in_features == 128


# --- law ----------------------------------------------------------------------------------------
def test_a_quick_run_returns_and_prints_every_figure(capsys):
    figures = bench.run(quick=True)
    printed = capsys.readouterr().out.splitlines()
    who = {"ours", "eager", "grouped_mm", "dense", "by_theirs", "by_dense"}
    expected = {"n_threads", bench.SLOW}
    for n_experts in bench.N_EXPERTS:
        expected |= {f"{n_experts}_{side}" for side in bench.TARGETS}
        for n_tokens, d_model in bench.QUICK.sizes:
            for what in bench.PASSES:
                case = f"{n_tokens}x{d_model}_{n_experts}_{what}"
                expected |= {f"{case}_{each}" for each in who}
                ours, dense = figures[f"{case}_ours"], figures[f"{case}_dense"]
                fastest = min(figures[f"{case}_eager"], figures[f"{case}_grouped_mm"])
                assert figures[f"{case}_by_theirs"] == pytest.approx(fastest / ours)
                assert figures[f"{case}_by_dense"] == pytest.approx(ours / dense)
                start = f"  {n_tokens} × {d_model}, {n_experts:>2} {what} "
                line = next(x for x in printed if x.startswith(start))
                for side, target in bench.TARGETS.items():
                    ratio = figures[f"{case}_by_{side}"]
                    assert f"{ratio:.2f} {verdict(ratio, *target)}" in line
    assert set(figures) >= expected  # on a machine with more implementations, more
    assert all(value > 0 for value in figures.values())
    assert any(x.startswith("  batched_mm: ") and x.endswith("left out") for x in printed)
    assert printed[-1].startswith(f"  16 experts, geometric mean: {figures['16_theirs']:.2f} ")


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm", "batched_mm"])
def test_both_sides_hold_the_same_weights_and_give_the_same(implementation):
    layers, x = bench.contenders(16, 8, [implementation]), bench.noise(20, 16)
    ours, theirs = layers["ours"], layers[implementation]
    assert theirs.experts.config._experts_implementation == implementation
    n_ours, n_theirs = (sum(p.numel() for p in layer.parameters()) for layer in (ours, theirs))
    assert n_ours == n_theirs
    torch.testing.assert_close(bench.answer(theirs, x), ours(x)[0])


def test_a_pass_that_trains_reaches_every_weight_and_leaves_no_gradients():
    layer, x = bench.contenders(16, 8, [])["ours"], bench.noise(64, 16)
    reached = []
    for parameter in layer.parameters():
        parameter.register_hook(lambda gradient: reached.append(gradient.abs().sum().item()))
    bench.train(layer, x)()
    assert len(reached) == 1 + 2 * 8
    assert min(reached) > 0
    assert all(parameter.grad is None for parameter in layer.parameters())
    assert not x.requires_grad
    modes = []
    layer.register_forward_hook(lambda *_: modes.append(torch.is_grad_enabled()))
    bench.forward(layer, x)()
    bench.train(layer, x)()
    assert modes == [False, True]


def test_what_cannot_run_is_left_out_and_it_is_said(capsys):
    assert bench.runnable(["eager", "on paper"]) == ["eager"]
    assert "  on paper: left out, " in capsys.readouterr().out


def test_seconds_are_those_of_one_pass(monkeypatch):
    monkeypatch.setattr(bench, "least", lambda works, n: dict.fromkeys(works, 6.0))
    work = bench.Work(sizes=((8, 16), (16, 16)), n_repeats=1, n_done=4)
    for n_tokens, expected in ((8, 1.5), (16, 3.0), (64, 6.0)):  # done 4 times, 2 times, once
        took = bench.compared(n_tokens, 16, 8, "forward", ["eager"], work)
        assert took == dict.fromkeys(("ours", "eager", "dense"), expected)


# --- what stops it ------------------------------------------------------------------------------
def test_layers_that_differ_are_not_compared():
    layers, x = bench.contenders(16, 8, ["eager"]), bench.noise(20, 16)
    bench.check_equal(layers["ours"], layers["eager"], x)
    with torch.no_grad():
        layers["eager"].experts.down_proj.mul_(1.01)
    with pytest.raises(AssertionError, match="the answers differ by"):
        bench.check_equal(layers["ours"], layers["eager"], x)


def test_without_transformers_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match="pip install transformers"):
        bench.run(quick=True)
