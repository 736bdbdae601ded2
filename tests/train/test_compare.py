"""minillm.train.compare: a task is the same for every optimizer, and a run says what it cost."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from minillm.data.corpus import reader
from minillm.optim.build import build
from minillm.optim.lion import Lion
from minillm.optim.step import Total
from minillm.train import compare


@pytest.fixture(scope="module")
def town():
    return compare.sentences(n_held_out=1)


@pytest.fixture(scope="module")
def letters():
    return compare.real_text(reader("en"), vocab_size=256)


def adamw(model):
    return build(model, "AdamW", 4e-3)


class Poison(torch.optim.SGD):
    def __init__(self, model):
        super().__init__(model.parameters(), lr=0.1)

    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.fill_(math.nan)


# --- by hand ------------------------------------------------------------------------------------
def test_what_an_optimizer_keeps_is_counted_in_bytes():
    weights = [nn.Parameter(torch.ones(3, 5)), nn.Parameter(torch.ones(7, dtype=torch.float64))]
    optimizer = Lion(weights)
    assert compare.state_bytes(optimizer) == 0
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert compare.state_bytes(optimizer) == 4 * 15 + 8 * 7  # one number a weight
    optimizer.state[weights[0]]["n_steps"] = 3  # no tensor
    assert compare.state_bytes(optimizer) == 4 * 15 + 8 * 7
    assert compare.weight_bytes(nn.ParameterList(weights)) == 4 * 15 + 8 * 7


def test_a_model_that_knows_nothing_has_the_logarithm_of_the_vocabulary_as_its_loss(town):
    model = town.model(0)
    nn.init.zeros_(model.embedding.weight)  # tied: all logits are 0
    assert town.held_out_loss(model) == pytest.approx(math.log(1024), rel=1e-5)


def test_above_the_entropy_is_in_percent_of_the_floor(town):
    done = compare.attempt(town, adamw, n_steps=2)
    assert done.above_entropy == pytest.approx(100 * (done.loss - town.floor) / town.floor)
    assert len(done.curve) == 2


def test_a_held_out_paragraph_is_never_learned_and_a_double_counts_once():
    paragraphs = [f"paragraph {n} " + "plum " * 30 for n in range(10)]
    task = compare.real_text("\n\n".join([*paragraphs, paragraphs[0]]), vocab_size=256)
    seen = "".join(
        chr(i) for n in range(4) for i in task.batch_at(n, 0).tokens.flatten() if i < 256
    )
    unseen = "".join(chr(i) for i in task.held_out[0].tokens.flatten() if i < 256)
    assert "paragraph 0" in seen
    assert "paragraph 4" in unseen
    assert "paragraph 4" not in seen
    assert "paragraph 0" not in unseen


# --- law ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("fixture", ["town", "letters"])
def test_a_run_is_repeated_by_its_seed_and_another_seed_is_another_run(fixture, request):
    task = request.getfixturevalue(fixture)
    one, again, other = (compare.attempt(task, adamw, n_steps=2, seed=s) for s in (1, 1, 2))
    assert one == again
    assert one.curve != other.curve


def test_a_run_that_breaks_is_worse_than_any(town):
    def no_number(model, batch):
        total = town.loss(model, batch)
        return Total(total.nats * math.nan, total.n_tokens)

    assert compare.attempt(replace(town, loss=no_number), adamw, n_steps=9).loss == math.inf
    assert compare.attempt(town, Poison, n_steps=1).loss == math.inf  # NaN only at the end
