"""minillm.bench.experts: the benchmark runs, and its arithmetic is right."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from minillm.bench import experts as bench
from minillm.experts.moe import MoE, moe_loss
from minillm.model.config import TransformerConfig
from minillm.model.ffn import SwiGLU


@pytest.fixture(scope="module")
def held_out():
    return bench.texts(bench.QUICK.n_held_out, "held out")


def small(ffn):
    return TransformerConfig(
        vocab_size=bench.VOCAB_SIZE, d_model=24, n_layers=2, context_length=bench.N_TOKENS, ffn=ffn
    ).build(seed=0)


def finished(name, held_out, **changed):
    """A contender after a quick run, on the rows by which it is judged."""
    work = replace(bench.QUICK, **changed)
    return bench.trained(bench.CONTENDERS[name], 1, work, held_out, held_out)


# --- by hand ------------------------------------------------------------------------------------
def test_the_goal_is_met_on_the_line_between_two_measurements():
    curve = [4.0, 2.0, 1.0, 0.5]  # after 25, 50, 75 and 100 % of the steps
    assert bench.crossing(curve, goal=2.5) == pytest.approx(0.25 + 0.25 * 0.75)
    assert bench.crossing(curve, goal=0.6) == pytest.approx(0.75 + 0.25 * 0.8)
    assert bench.crossing(curve, goal=1.0) == pytest.approx(0.75)


def test_a_goal_is_met_at_the_first_measurement_or_at_the_end_or_never():
    curve = [4.0, 2.0, 1.0, 0.5]
    assert bench.crossing(curve, goal=9.0) == 0.25
    assert bench.crossing(curve, goal=0.5) == 1.0
    assert bench.crossing(curve, goal=0.4) is None
    assert bench.crossing([4.0, 1.0, 3.0, 1.5], goal=1.5) == pytest.approx(0.25 + 0.25 * 5 / 6)


def test_an_expert_for_each_district_tells_all_and_an_even_one_nothing():
    assert bench.information(torch.eye(8) * 7) == pytest.approx(1.0)
    assert bench.information(torch.eye(8).repeat(1, 4)) == pytest.approx(1.0)  # four for each
    assert bench.information(torch.full((8, 32), 3)) == pytest.approx(0.0, abs=1e-12)
    assert bench.information(torch.arange(1, 9)[:, None] * torch.tensor([1, 2])) == pytest.approx(
        0.0, abs=1e-12
    )


def test_two_experts_for_eight_districts_tell_one_bit_of_three():
    halves = torch.eye(2, dtype=torch.int64).repeat_interleave(4, dim=0)
    assert bench.information(halves) == pytest.approx(1 / 3)


def test_a_model_that_knows_nothing_pays_the_logarithm_of_the_vocabulary(held_out):
    model = small(bench.DENSE)
    nn.init.zeros_(model.head.weight)
    expected = math.log(40) - held_out.nll
    assert bench.loss_above_entropy(model, held_out) == pytest.approx(expected, abs=1e-5)


def test_one_expert_of_a_hashed_layer_is_active_as_one_of_a_routed_one():
    one = 3 * 24 * bench.D_FF
    dense, routes, hashed = (
        bench.parameters(small(ffn)) for ffn in (bench.DENSE, bench.experts(8), bench.HASHED)
    )
    assert dense.active == dense.total == hashed.active
    assert hashed.total == dense.total + 2 * 7 * one
    assert (routes.total, routes.active) == (hashed.total + 2 * 8 * 24, dense.active + 2 * 8 * 24)


def test_what_is_told_are_the_crossings_and_shares_of_all_seeds(held_out, monkeypatch):
    runs = [
        bench.Run(small(bench.experts(2)), [3.0, 1.0]),
        bench.Run(small(bench.experts(2)), [3.0, 2.5]),
    ]
    tables = [[torch.tensor([[6, 2]] * 8), torch.eye(2, dtype=torch.int64).repeat(4, 1)]] * 2
    monkeypatch.setattr(bench, "sent", lambda model, held_out: tables.pop())
    found = bench.figures_of(runs, [2.0, 2.0], held_out)
    assert found["curves"] == [[3.0, 1.0], [3.0, 2.5]]
    assert found["steps"] == [pytest.approx(0.75), None]
    assert found["shares"] == [[1.0, 0.0], [0.0, 1.0]] * 4  # the last block's
    assert found["information"] == [pytest.approx(1 / 3)] * 2
    assert found["largest_share"] == [0.75] * 2  # the first block's
    assert bench.line("2", found).split()[3:5] == ["1.750", "never"]


# --- twin ---------------------------------------------------------------------------------------
def test_what_is_made_small_is_moe_loss(held_out):
    for name in ("8", "8, no balance", "8, by bias"):
        contender = bench.CONTENDERS[name]
        model = small(contender.ffn)
        total, routings = bench.loss_of(model, held_out.tokens, held_out.districts, contender)
        expected = moe_loss(
            model, held_out.tokens, balance_weight=contender.balance_weight, z=contender.z
        )
        assert total.mean.item() == pytest.approx(expected.mean.item(), rel=1e-6)
        assert len(routings) == 2


def test_tokens_are_counted_where_a_hook_sees_them(held_out):
    model = small(bench.experts(4))
    seen = []
    for block in model.blocks:
        for expert in block.ffn.experts:
            expert.register_forward_hook(lambda _, x, __: seen.append(len(x[0])))
    tables = bench.sent(model, held_out)
    assert [n for table in tables for n in table.sum(dim=0).tolist() if n] == seen
    for table in tables:
        assert table.sum(dim=1).tolist() == [len(held_out.tokens) // 8 * 64] * 8


# --- law ----------------------------------------------------------------------------------------
def test_a_row_is_a_districts_token_and_64_symbols_that_its_source_says(held_out):
    assert held_out.tokens.shape == (32, 65)
    assert torch.equal(held_out.tokens[:, 0], 32 + held_out.districts)
    assert torch.bincount(held_out.districts).tolist() == [4] * 8
    prices = [
        -bench.sources()[k].log_probs(row[None, 1:].numpy()).mean()
        for row, k in zip(held_out.tokens, held_out.districts, strict=True)
    ]
    assert held_out.nll == pytest.approx(np.mean(prices))


def test_rows_depend_on_their_key_alone(held_out):
    again, other = bench.texts(32, "held out"), bench.texts(32, "train", 1)
    assert torch.equal(again.tokens, held_out.tokens)
    assert not torch.equal(other.tokens, held_out.tokens)
    assert not torch.equal(bench.texts(32, "train", 2).tokens, other.tokens)


def test_hashed_experts_know_the_district(held_out):
    tables = bench.sent(small(bench.HASHED), held_out)
    assert [table.tolist() for table in tables] == [(torch.eye(8).long() * 4 * 64).tolist()] * 2
    assert bench.sent(small(bench.DENSE), held_out) == []


def test_the_same_seed_learns_the_same_and_is_measured_every_so_many_steps(held_out):
    one, same = (finished("2", held_out, n_steps=6) for _ in range(2))
    assert one.curve == same.curve
    assert len(one.curve) == 3
    assert one.curve[2] < one.curve[0]
    assert finished("2", held_out).curve == one.curve[:2]


def test_an_up_cycled_model_is_dense_for_the_first_half(held_out, monkeypatch):
    grown, real = [], bench.upcycle

    def seen(model, config, *, seed):
        grown.append((model, real(model, config, seed=seed)))
        return grown[0][1]

    monkeypatch.setattr(bench, "upcycle", seen)
    found = finished("8, up-cycled", held_out)
    ((dense, sparse),) = grown
    assert isinstance(dense.blocks[0].ffn, SwiGLU)
    assert isinstance(sparse.blocks[0].ffn, MoE)
    assert found.model is sparse
    assert found.curve[0] == finished("dense", held_out).curve[0]
    assert found.curve[0] == bench.loss_above_entropy(dense, held_out)  # and it stays as it was
    assert bench.loss_above_entropy(sparse, held_out) == found.curve[1] != found.curve[0]


def test_a_bias_balances_and_no_other_contender_has_one(held_out):
    moved = finished("8, by bias", held_out).model.blocks[1].ffn.expert_bias
    assert moved.abs().max().item() == pytest.approx(0.04)  # never two steps against each other
    assert finished("8", held_out).model.blocks[1].ffn.expert_bias.abs().max() == 0


def test_a_quick_run_returns_and_prints_every_figure(capsys):
    figures = bench.run(quick=True)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("4 steps of 32 rows, seeds (1,); the sources pay ")
    assert list(figures) == list(bench.CONTENDERS)
    told = {"curves", "steps", "ms", "parameters", "active"}
    routes = {"shares", "information", "largest_share"}
    for name, found in figures.items():
        assert set(found) == (told if name == "dense" else told | routes)
        assert [len(curve) for curve in found["curves"]] == [2]
        expected = bench.crossing(found["curves"][0], figures["dense"]["curves"][0][-1])
        assert found["steps"] == [expected]
        assert 0 < found["active"] <= found["parameters"]
        assert found["ms"] > 0 and any(
            line.startswith(name) and " ms a step, " in line for line in said[2:]
        )
        line = next(line for line in said[2:] if line.startswith(f"{name} "))
        assert line == bench.line(name, found)
        if name == "dense":
            continue
        n_experts = 8 if name == "hashed" else int(name.split(",")[0])
        assert [len(row) for row in found["shares"]] == [n_experts] * 8
        assert [sum(row) for row in found["shares"]] == pytest.approx([1.0] * 8)
        assert 0 <= found["information"][0] <= 1
        assert 1 / n_experts <= found["largest_share"][0] <= 1
    assert figures["dense"]["steps"][0] == 1.0
    assert figures["hashed"]["information"] == pytest.approx([1.0])
