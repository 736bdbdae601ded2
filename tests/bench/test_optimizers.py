"""minillm.bench.optimizers: the benchmark runs, and its arithmetic is right."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from minillm.bench import optimizers as bench
from minillm.model.config import tiny
from minillm.optim.lion import Lion

ALL_SEARCHES = pytest.mark.parametrize("search", bench.SEARCHES.values(), ids=bench.SEARCHES)


@pytest.fixture(scope="module")
def race():
    return bench.Race(n_steps=2, n_held_out=1)


# --- by hand ------------------------------------------------------------------------------------
def test_rates_lie_around_what_is_advised():
    assert bench.around(4.0) == (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


def test_what_an_optimizer_remembers_is_counted_in_bytes():
    weights = [nn.Parameter(torch.ones(3, 5)), nn.Parameter(torch.ones(7, dtype=torch.float64))]
    optimizer = Lion(weights)
    assert bench.state_bytes(optimizer) == 0
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert bench.state_bytes(optimizer) == 4 * 15 + 8 * 7  # one number a weight
    optimizer.state[weights[0]]["n_steps"] = 3  # no tensor
    assert bench.state_bytes(optimizer) == 4 * 15 + 8 * 7
    assert bench.weight_bytes(nn.ParameterList(weights)) == 4 * 15 + 8 * 7


def test_a_model_that_knows_nothing_pays_the_logarithm_of_the_vocabulary_a_token(race):
    model = race.model(seed=0)
    nn.init.zeros_(model.embedding.weight)  # tied: all logits are 0
    n_tokens = (race.held_out[:, 1:] != race.pad).sum().item()
    nll = n_tokens * math.log(1024) / 64
    expected = 100 * (nll / race.source_price - 1)
    assert race.loss_above_entropy(model) == pytest.approx(expected, rel=1e-5)


def test_a_row_is_a_sentence_between_two_marks(race):
    sentences = race.grammar.block(0, seed="train 3")
    rows = race.batch_at(0, seed=3)
    assert len(rows) == 64
    for row, sentence in zip(rows.tolist(), sentences, strict=True):
        end = row.index(race.end, 1)
        assert row[0] == race.end
        assert race.tokenizer.decode(row[1:end]) == sentence.text
        assert set(row[end + 1 :]) <= {race.pad}


# --- law ----------------------------------------------------------------------------------------
@ALL_SEARCHES
def test_each_gets_six_rates_and_two_values_and_moves_every_parameter(search):
    assert len(search.rates) == 6
    assert [high / low for low, high in pairwise(search.rates)] == [2.0] * 5
    assert len(set(search.values)) == 2
    model = tiny(50).build(seed=0)
    for value in search.values:
        optimizer = search.build(model, search.rates[0], value)
        grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
        assert sorted(grouped) == sorted(id(p) for p in model.parameters())
        assert optimizer.param_groups[0]["lr"] == search.rates[0]
        decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
        assert decays[id(model.blocks[0].ffn.down.weight)] > 0
        assert decays[id(model.norm.weight)] == 0
    one, other = ([*search.build(model, 0.1, v).param_groups] for v in search.values)
    options = [[{k: v for k, v in g.items() if k != "params"} for g in gs] for gs in (one, other)]
    assert options[0] != options[1]  # the second option reaches the optimizer


def test_a_quick_run_returns_and_prints_every_figure(capsys):
    figures = bench.run(quick=True)
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("2 steps, the grammar pays ")
    assert list(figures) == list(bench.SEARCHES)
    for name, found in figures.items():
        search = bench.SEARCHES[name]
        line = next(line for line in said if line.startswith(f"{name} "))
        assert len(found["runs"]) == 2
        assert (found["rate"], found["option"]) == (search.rates[0], search.option)
        assert len(found["loss_above_entropy"]) == 1
        assert found["loss_above_entropy"][0] > 0
        assert line.endswith(f" {found['loss_above_entropy'][0]:.2f} %")
        assert line.split()[1] == f"{found['state']:.3f}"
    # AdamW keeps two numbers a weight, Lion one, Muon one for hidden matrices, the rest far less
    states = {name: found["state"] for name, found in figures.items()}
    assert (states["AdamW"], states["Lion"]) == (2.0, 1.0)
    assert 1 < states["Muon"] < 2
    assert states["Adafactor"] < 0.1


def test_the_best_of_twelve_is_run_again_with_other_seeds(race, monkeypatch):
    search = bench.SEARCHES["Lion"]
    asked = []

    def pretended(race, search, rate, value, seed):
        asked.append((rate, value, seed))
        good = (rate, value) == (search.rates[4], search.values[1])
        return {"loss_above_entropy": 1.0 + seed if good else math.inf, "state": 1.0}

    monkeypatch.setattr(bench, "SEARCHES", {"Lion": search})
    monkeypatch.setattr(bench.Race, "run", pretended)
    monkeypatch.setattr(bench, "Race", lambda: race)
    found = bench.run()["Lion"]
    assert len({each[:2] for each in asked[:12]}) == 12
    assert {each[2] for each in asked[:12]} == {0}
    assert asked[12:] == [(search.rates[4], search.values[1], seed) for seed in (1, 2, 3)]
    assert (found["rate"], found["value"]) == (search.rates[4], search.values[1])
    assert found["loss_above_entropy"] == [2.0, 3.0, 4.0]
    assert len(found["runs"]) == 12


def test_a_run_that_breaks_is_worse_than_any(race, monkeypatch):
    search, plain = bench.SEARCHES["AdamW"], race.loss

    def no_number(model, tokens):
        total = plain(model, tokens)
        return bench.Total(total.nats * math.nan, total.n_tokens)

    monkeypatch.setattr(race, "loss_above_entropy", lambda model: math.nan)
    assert race.run(search, 4e-3, 0.95, seed=0)["loss_above_entropy"] == math.inf
    monkeypatch.setattr(
        race, "loss_above_entropy", lambda model: pytest.fail("the loop did not give up")
    )
    monkeypatch.setattr(race, "loss", no_number)
    monkeypatch.setattr(race, "n_steps", 9)
    assert race.run(search, 4e-3, 0.95, seed=0)["loss_above_entropy"] == math.inf
