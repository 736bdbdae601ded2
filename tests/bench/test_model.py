"""minillm.bench.model: the benchmark runs, and its arithmetic is right."""

import sys
from dataclasses import replace

import pytest
import torch
import transformers
from torch import nn

from minillm.bench import model as bench

TINY = replace(bench.TOYS["1m"].config, n_layers=1)


# --- by hand ------------------------------------------------------------------------------------
def test_less_time_more_tokens_and_fewer_elements_are_compared_each_in_its_way():
    assert bench.compared("write_1", 2.0, 5.0)["write_1"] == 2.5
    assert bench.compared("train_compiled", 30.0, 20.0)["train_compiled"] == 1.5
    found = bench.compared("peak", 80.0, 100.0)
    assert found == {"peak_ours": 80.0, "peak_theirs": 100.0, "peak": 0.8}


@pytest.mark.parametrize(
    ("ratio", "bound", "expected"),
    [
        (1.2, "at least", "at least 1.2: met"),
        (1.19, "at least", "at least 1.2: MISSED"),
        (1.2, "at most", "at most 1.2: met"),
        (1.21, "at most", "at most 1.2: MISSED"),
    ],
)
def test_a_target_is_met_from_its_own_value_on(ratio, bound, expected):
    assert bench.verdict(ratio, bound, 1.2) == expected


def test_a_step_is_done_as_often_as_asked():
    done = []
    bench.repeated(lambda: done.append(1), 3)()
    assert done == [1, 1, 1]


def test_the_time_to_compile_is_what_the_first_step_takes_beyond_the_second(monkeypatch):
    ticks = iter([0.0, 9.0, 10.0, 12.0])
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(ticks))
    assert bench.seconds_to_compile(lambda: None) == 7.0


def test_a_step_is_one_of_adamw_and_leaves_no_gradients():
    line = nn.Linear(1, 1, bias=False)
    nn.init.constant_(line.weight, 1.0)
    bench.training_step(line, lambda model, x: bench.Total(model(x).sum(), 1), torch.ones(1, 1))()
    # AdamW's first step is the learning rate, after a weight decay of 0.01 of it
    expected = 1 - 0.01 * bench.LEARNING_RATE - bench.LEARNING_RATE
    assert line.weight.item() == pytest.approx(expected, abs=1e-7)
    assert line.weight.grad is None


# --- law ----------------------------------------------------------------------------------------
def test_a_quick_run_returns_and_prints_every_figure(capsys):
    figures = bench.run(quick=True)
    printed = capsys.readouterr().out
    blocks = dict(zip(("1m", "10m"), printed.split("10m: "), strict=True))
    compared = {what for what in bench.TARGETS if "compiled" not in what}
    sides = {f"{what}_{side}" for what in compared for side in ("ours", "theirs")}
    assert set(figures) == compared | sides | {"n_threads"}
    assert all(value > 0 for value in figures.values())
    for what in compared:
        shape, _, kind = what.partition("_")
        line = next(x for x in blocks[shape].splitlines() if x.startswith(f"  {kind},"))
        assert f"{figures[what]:.2f}   {bench.verdict(figures[what], *bench.TARGETS[what])}" in line


def test_the_targets_shapes_are_those_of_the_course():
    sizes = {name: shape.batch_size * shape.n_tokens for name, shape in bench.SHAPES.items()}
    assert sizes == {"1m": 2048, "10m": 2048}
    for shape in bench.SHAPES.values():
        assert shape.config.context_length >= bench.N_PROMPT + bench.FULL.n_written
    assert {what.partition("_")[0] for what in bench.TARGETS} == bench.SHAPES.keys()


def test_both_sides_hold_the_same_numbers_and_the_same_hidden_width():
    ours = TINY.build(seed=3)
    theirs = bench.opened_by(transformers, ours)
    assert theirs.config._attn_implementation == "sdpa"
    d_ff = ours.blocks[0].ffn.down.in_features
    assert theirs.config.intermediate_size == d_ff == 176  # 8/3 · 64, a multiple of 8
    assert torch.equal(theirs.lm_head.weight, ours.head.weight)
    tokens = bench.drawn(64, 2, 9)
    assert bench.loss_of_theirs(theirs, tokens).mean.item() == pytest.approx(
        bench.loss(ours, tokens).mean.item(), rel=1e-5
    )
    assert bench.loss_in_chunks(ours, tokens).mean.item() == pytest.approx(
        bench.loss(ours, tokens).mean.item(), rel=1e-5
    )


def test_bars_of_transformers_are_as_they_were(monkeypatch):
    logging = transformers.utils.logging
    for before in (True, False):
        monkeypatch.setattr(logging, "_tqdm_active", before)
        with bench.no_bars(logging):
            assert not logging.is_progress_bar_enabled()
        assert logging.is_progress_bar_enabled() == before
        logging.enable_progress_bar()


# --- what stops it ------------------------------------------------------------------------------
def test_models_that_differ_are_not_compared():
    ours, others = TINY.build(seed=0), TINY.build(seed=1)
    theirs = bench.opened_by(transformers, others)
    with pytest.raises(AssertionError, match="row 0: minillm wrote"):
        bench.compare_writing(ours, theirs, 1, bench.QUICK)
    with pytest.raises(AssertionError, match="the losses are"):
        bench.compare_training(ours, theirs, bench.TOYS["1m"], bench.QUICK)


def test_without_a_compiler_the_rest_is_compared_and_it_is_said(monkeypatch, capsys):
    def fails():
        raise bench.InductorError(RuntimeError("No working C++ compiler found"), None)

    assert bench.seconds_to_compile(fails) is None
    assert "not compiled: RuntimeError: No working C++ compiler found" in capsys.readouterr().out
    monkeypatch.setattr(bench, "seconds_to_compile", lambda step: None)
    ours = TINY.build(seed=0)
    theirs = bench.opened_by(transformers, ours)
    shape, work = bench.TOYS["1m"], replace(bench.QUICK, compiled=True)
    trained = bench.compare_training(ours, theirs, shape, work)
    written = bench.compare_writing(ours, theirs, 1, work)
    assert "train" in trained
    assert "write_1" in written
    assert not [what for what in trained | written if "compiled" in what]


def test_without_transformers_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match="pip install transformers"):
        bench.run(quick=True)
