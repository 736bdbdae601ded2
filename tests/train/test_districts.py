import math

import numpy as np
import pytest
import torch
from torch import nn

from minillm.experts.moe import MoE, moe_loss
from minillm.model.ffn import SwiGLU
from minillm.train import districts
from minillm.train.districts import DENSE, HASHED, Contender, experts

TWO = experts(8, top_k=2, norm_topk=True)


@pytest.fixture(scope="module")
def held_out():
    return districts.rows(32, "held out")


def quick(contender, held_out, n_steps=4):
    return districts.trained(
        contender, held_out, n_steps=n_steps, seed=1, held_out=held_out, every=2
    )


# --- by hand ------------------------------------------------------------------------------------
def test_an_expert_for_each_district_tells_all_and_an_even_one_nothing():
    assert districts.information(torch.eye(8) * 7) == pytest.approx(1.0)
    assert districts.information(torch.eye(8).repeat(1, 4)) == pytest.approx(1.0)  # four for each
    assert districts.information(torch.full((8, 32), 3)) == pytest.approx(0.0, abs=1e-12)


def test_two_experts_for_eight_districts_tell_one_bit_of_three():
    halves = torch.eye(2, dtype=torch.int64).repeat_interleave(4, dim=0)
    assert districts.information(halves) == pytest.approx(1 / 3)


def test_a_model_that_knows_nothing_has_the_logarithm_of_the_vocabulary(held_out):
    model = districts.built(DENSE, seed=0)
    nn.init.zeros_(model.head.weight)
    expected = math.log(40) - held_out.nll
    assert districts.above_entropy(model, held_out) == pytest.approx(expected, abs=1e-5)


# --- twin ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "contender",
    [Contender(ffn=TWO), Contender(ffn=experts(8), balance_weight=0.0, z=0.0)],
    ids=["two", "no balance"],
)
def test_what_is_made_small_is_moe_loss(held_out, contender):
    model = districts.built(contender.ffn, seed=0)
    total, routings = districts.loss_of(model, held_out.tokens, held_out.districts, contender)
    weights = {"balance_weight": contender.balance_weight, "z": contender.z}
    expected = moe_loss(model, held_out.tokens, **weights)
    assert total.mean.item() == pytest.approx(expected.mean.item(), rel=1e-6)
    assert len(routings) == 2


@pytest.mark.parametrize("top_k", [1, 2])
def test_tokens_are_counted_where_a_hook_sees_them(held_out, top_k):
    model = districts.built(experts(4, top_k=top_k), seed=0)
    seen = []
    for block in model.blocks:
        for expert in block.ffn.experts:
            expert.register_forward_hook(lambda _, x, __: seen.append(len(x[0])))
    tables = districts.sent(model, held_out)
    assert [n for table in tables for n in table.sum(dim=0).tolist() if n] == seen
    for table in tables:
        assert table.sum(dim=1).tolist() == [top_k * len(held_out.tokens) // 8 * 64] * 8


# --- law ----------------------------------------------------------------------------------------
def test_a_row_is_a_districts_token_and_64_symbols_of_its_source(held_out):
    assert held_out.tokens.shape == (32, 65)
    assert torch.equal(held_out.tokens[:, 0], 32 + held_out.districts)
    assert torch.bincount(held_out.districts).tolist() == [4] * 8
    nll = [
        -districts.sources()[k].log_probs(row[None, 1:].numpy()).mean()
        for row, k in zip(held_out.tokens, held_out.districts, strict=True)
    ]
    assert held_out.nll == pytest.approx(np.mean(nll))


def test_rows_depend_on_their_key_alone(held_out):
    again, other = districts.rows(32, "held out"), districts.rows(32, "train", 1)
    assert torch.equal(again.tokens, held_out.tokens)
    assert not torch.equal(other.tokens, held_out.tokens)
    assert not torch.equal(districts.rows(32, "train", 2).tokens, other.tokens)


def test_a_district_has_its_own_rows_and_may_be_known_by_another_number(held_out):
    for number, rows in ((3, held_out.of(3)), (0, held_out.of(3, known_as=0))):
        assert torch.equal(rows.tokens, held_out.tokens[12:16])
        assert rows.districts.tolist() == [number] * 4


def test_hashed_experts_know_the_district(held_out):
    tables = districts.sent(districts.built(HASHED, seed=0), held_out)
    assert [table.tolist() for table in tables] == [(torch.eye(8).long() * 4 * 64).tolist()] * 2
    assert districts.sent(districts.built(DENSE, seed=0), held_out) == []


def test_the_same_seed_learns_the_same_and_is_measured_every_so_many_steps(held_out):
    one, same = (quick(Contender(ffn=experts(2)), held_out, n_steps=6) for _ in range(2))
    assert one.curve == same.curve
    assert len(one.curve) == 3
    assert one.curve[2] < one.curve[0]


@pytest.mark.parametrize("norm_topk", [True, False])
def test_an_up_cycled_model_is_dense_for_the_first_half(held_out, monkeypatch, norm_topk):
    pairs, real = [], districts.grown

    def seen(dense, ffn, seed):
        pairs.append((dense, real(dense, ffn, seed)))
        return pairs[0][1]

    monkeypatch.setattr(districts, "grown", seen)
    run = quick(Contender(ffn=experts(8, norm_topk=norm_topk), from_dense=True), held_out)
    ((dense, sparse),) = pairs
    assert isinstance(dense.blocks[0].ffn, SwiGLU)
    assert isinstance(sparse.blocks[0].ffn, MoE)
    assert sparse.blocks[0].ffn.norm_topk is norm_topk
    assert run.model is sparse
    assert run.curve[0] == quick(Contender(ffn=DENSE), held_out).curve[0]
    assert run.curve[0] == districts.above_entropy(dense, held_out)  # and it stays as it was


def test_an_up_cycled_model_begins_as_the_dense_one_nearly_so_where_its_weight_is_p(held_out):
    dense = districts.built(DENSE, seed=0)
    goal = districts.above_entropy(dense, held_out)
    exact = districts.above_entropy(districts.grown(dense, TWO, 0), held_out)
    by_p = districts.grown(dense, experts(8), 0)
    assert exact == pytest.approx(goal, abs=1e-5)
    assert districts.above_entropy(by_p, held_out) == pytest.approx(goal, abs=0.2)


def test_a_kept_state_makes_the_first_step_after_the_change_another_one(held_out):
    fresh, kept = (
        quick(Contender(ffn=TWO, from_dense=True, keep_state=keep), held_out)
        for keep in (False, True)
    )
    assert fresh.curve[0] == kept.curve[0]
    assert kept.curve[1] < fresh.curve[1]  # no second warm-up


def test_a_bias_balances_and_no_other_contender_has_one(held_out):
    by_bias = Contender(ffn=experts(8), balance_weight=0.0, bias_rate=0.01)
    moved = quick(by_bias, held_out).model.blocks[1].ffn.expert_bias
    assert moved.abs().max().item() == pytest.approx(0.04)  # never two steps against each other
    still = quick(Contender(ffn=experts(8)), held_out).model.blocks[1].ffn.expert_bias
    assert still.abs().max() == 0
