"""minillm.quant.qat: rounded weights with a gradient, the student, and what it learns."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minillm.data.packing import Packed
from minillm.model.config import tiny
from minillm.optim.build import build
from minillm.quant import apply, plan, rtn, store
from minillm.quant.qat import (
    FakeQuantize,
    QATConfig,
    distillation,
    fake_quantize,
    finish,
    logit_distillation,
    mean_cosine,
    prepare,
    token_contrast,
)
from minillm.quant.rtn import Grid
from minillm.train.loop import LoopConfig, TrainState, train

TENSOR = Grid(bits=2, granularity="tensor")
LEARNED = {"dynamic": "gamma", "clip": "clip"}


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def small_model(seed=0, **changed):
    config = replace(tiny(vocab_size=20), d_model=32, context_length=16, initial_std=0.2)
    return replace(config, **changed).build(seed=seed)


def packed(seed=0):
    generator = torch.Generator().manual_seed(seed)
    documents = torch.randint(1, 20, (20, 12), generator=generator)
    return Packed(documents.tolist(), end_id=0, context_length=16, batch_size=4)


# --- by hand --------------------------------------------------------------------------------------
def test_three_weights_of_which_one_is_beyond_the_clip():
    weight = torch.tensor([[3.0, -1.0, -0.5]], requires_grad=True)
    rounding = FakeQuantize(weight, TENSOR, QATConfig(gamma=4 / 3))
    rounded = rounding(weight)  # mean|w| is 1.5, so the clip is 2
    assert rounded.tolist() == [[2.0, 0.0, 0.0]]  # half-way goes to the even one
    (rounded * torch.tensor([[1.0, 10.0, 100.0]])).sum().backward()
    # of γ: mean|w| · sign beyond the clip, mean|w| · (round(u) - u) within, u = -1/2 and -1/4
    assert rounding.gamma.grad.item() == pytest.approx(1.5 * (1 + 10 * 0.5 + 100 * 0.25))
    # of w: straight through within, and by way of mean|w|, γ/3 · sign(w) · (1 + 5 + 25)
    through = 4 / 9 * 31
    expected = [through, 10 - through, 100 - through]
    assert weight.grad[0].tolist() == pytest.approx(expected)


def test_pact_learns_from_weights_beyond_the_clip_alone_and_min_max_clips_nothing():
    weight = torch.tensor([[3.0, -1.0, -0.5]])
    rounding = FakeQuantize(weight, TENSOR, QATConfig(scaling="clip", gamma=4 / 3))
    rounded = rounding(weight)
    assert rounded.tolist() == [[2.0, 0.0, 0.0]]
    (rounded * torch.tensor([[1.0, 10.0, 100.0]])).sum().backward()
    assert rounding.clip.grad.tolist() == [1.0]
    most = FakeQuantize(weight, TENSOR, QATConfig(scaling="max"))
    assert not list(most.parameters())
    assert most(weight).tolist() == [[3.0, 0.0, 0.0]]


def test_the_divergence_and_the_contrast_of_two_tokens():
    teacher = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log()
    student = torch.tensor([[0.8, 0.2], [0.9, 0.1]]).log()
    divergence = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)
    assert logit_distillation(student, teacher).item() == pytest.approx(divergence, rel=1e-5)
    states = torch.tensor([[[2.0, 0.0], [0.0, 5.0]]])
    turned = states.flip(1)  # each token's state is the other's: cosine 0 with its own
    for ours, own, other in ((states, 1, 0), (turned, 0, 1)):
        expected = -2 * math.log(math.exp(2 * own) / (math.exp(2 * own) + math.exp(2 * other)))
        contrast = token_contrast(ours, states, temperature=0.5)
        assert contrast.item() == pytest.approx(expected, rel=1e-5)


def test_the_mean_cosine_of_pairs_leaves_zeros_out():
    vectors = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 1.0], [0.0, 0.0], [-1.0, 0.0]])
    assert mean_cosine(vectors) == pytest.approx((1 + 0 - 1 + 0 - 1 + 0) / 6)
    assert mean_cosine(torch.ones(5, 3)) == pytest.approx(1)
    assert mean_cosine(torch.zeros(5, 3)) == 0


# --- twins ----------------------------------------------------------------------------------------
def test_the_gradient_of_gamma_is_that_of_finite_differences_with_the_rounding_error_held():
    weight, pull = (normal(48, seed=seed, dtype=torch.float64) for seed in (0, 1))
    size = weight.abs().mean()
    gamma = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    (fake_quantize(weight, gamma * size / 3, bits=3) * pull).sum().backward()
    x = weight / (1.5 * size / 3)
    error = x.clamp(-3, 3).round() - x.clamp(-3, 3)  # constants, as the estimator sees it

    def surrogate(gamma):
        scale = gamma * size / 3
        return (((weight / scale).clamp(-3, 3) + error) * scale * pull).sum().item()

    step = 1e-6
    difference = (surrogate(1.5 + step) - surrogate(1.5 - step)) / (2 * step)
    assert gamma.grad.item() == pytest.approx(difference, rel=1e-6)


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_min_max_without_training_is_rounding_to_nearest(bits):
    model = small_model()
    small, _ = finish(prepare(model, QATConfig(bits=bits, scaling="max")))
    for name, granularity in (("blocks.1.ffn.down", "tensor"), ("embedding", "channel")):
        grid = Grid(bits=bits, granularity=granularity)
        nearest = rtn.quantize(model.get_submodule(name).weight.detach(), grid)
        assert torch.equal(small.get_submodule(name).matrix.codes, nearest.codes)
        assert torch.equal(small.get_submodule(name).matrix.scales, nearest.scales)


@pytest.mark.parametrize(
    ("scaling", "tied"), [("dynamic", True), ("dynamic", False), ("max", True), ("clip", True)]
)
def test_what_is_finished_gives_the_students_logits_bit_for_bit_also_from_its_folder(
    scaling, tied, tmp_path
):
    teacher = small_model(tied_embeddings=tied)
    config = QATConfig(bits=3, scaling=scaling)
    student, rows = prepare(teacher, config), packed()
    state = TrainState(student, build(student, "AdamW", 0.01, weight_decay=0.0))
    list(train(state, distillation(teacher, config), rows.batch_at, LoopConfig(n_steps=2)))
    tokens = rows.batch_at(0).tokens
    expected = student(tokens)
    quantized = finish(student)
    assert torch.equal(quantized.model(tokens), expected)
    assert torch.equal(student(tokens), expected)  # it stays as it is
    store.save(quantized, tmp_path / "small")
    loaded = store.load(tmp_path / "small")
    assert torch.equal(loaded.model(tokens), expected)
    assert loaded.plan == quantized.plan


def test_the_plan_counts_every_matrix_and_the_bytes_that_it_takes():
    quantized = finish(prepare(small_model(), QATConfig(bits=2)))
    lines = {line.name: line for line in quantized.plan.lines}
    kept = [name for name, line in lines.items() if line.method == "kept"]
    assert kept == ["others"]
    assert lines["embedding"].method == "qat"
    assert lines["embedding"].bytes_after == 20 * 32 // 4 + 2 * 20  # a scale a row
    assert lines["blocks.0.mixer.qkv"].bytes_after == 96 * 32 // 4 + 2
    assert quantized.plan.bytes_before == sum(p.nbytes for p in small_model().parameters())


# --- laws -----------------------------------------------------------------------------------------
@given(st.integers(0, 99), st.sampled_from([2, 3, 4, 8]), st.floats(0.1, 4))
def test_there_are_2_to_the_bits_less_one_numbers_and_rounding_them_again_changes_nothing(
    seed, bits, gamma
):
    weight, scale = normal(3, 40, seed=seed), torch.tensor([gamma, 0.0, gamma / 8])
    rounded = fake_quantize(weight, scale, bits)
    n = 2 ** (bits - 1) - 1
    assert rounded[1].count_nonzero() == 0
    assert torch.equal(rounded[0], scale[0] * (rounded[0] / scale[0]).round())
    assert rounded.abs().amax(dim=-1).le(n * scale * (1 + 1e-6)).all()
    assert torch.equal(fake_quantize(rounded, scale, bits), rounded)


@pytest.mark.parametrize("scaling", ["dynamic", "max", "clip"])
def test_a_short_training_lowers_the_loss_and_the_scales_are_learned(scaling):
    teacher, rows = small_model(), packed()
    config = QATConfig(scaling=scaling)
    student, loss = prepare(teacher, config), distillation(teacher, config)
    before = {name: p.clone() for name, p in student.named_parameters()}
    state = TrainState(student, build(student, "AdamW", 0.02, weight_decay=0.0))
    losses = [
        metrics.loss
        for metrics in train(state, loss, lambda _: rows.batch_at(0), LoopConfig(n_steps=12))
    ]
    assert losses[-1] < 0.7 * losses[0]
    unchanged = [name for name, p in student.named_parameters() if torch.equal(p, before[name])]
    assert unchanged == []
    learned = [name for name in before if name.endswith(LEARNED.get(scaling, "nothing"))]
    assert len(learned) == (0 if scaling == "max" else 2 + 4 * 2)
    assert all(p.grad is None for p in teacher.parameters())


# --- bad input ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 5}, "bits must be one of 8, 4, 3, 2; got 5"),
        ({"scaling": "mean"}, "scaling must be one of dynamic, max, clip; got 'mean'"),
        ({"contrastive_weight": -1.0}, "contrastive_weight at least 0; got 1.5, 0.1 and -1.0"),
    ],
)
def test_configs_that_mean_nothing_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        QATConfig(**options)


def test_models_that_are_quantized_prepared_or_plain_are_refused_where_they_do_not_belong():
    model = small_model()
    small = apply.quantize(model, plan.plan(model, "rtn", Grid(bits=8))).model
    with pytest.raises(ValueError, match="quantized already"):
        prepare(small, QATConfig())
    student = prepare(model, QATConfig())
    with pytest.raises(ValueError, match="a student already"):
        prepare(student, QATConfig())
    with pytest.raises(ValueError, match="no student"):
        finish(model)
