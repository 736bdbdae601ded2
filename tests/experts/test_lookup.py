import math
from dataclasses import replace

import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from minillm.experts.lookup import (
    LookupFFN,
    LookupFFNConfig,
    addresses,
    bh4,
    hadamard,
    lookup,
    lookup_flops,
    lookup_naive,
    lookup_soft,
    row_bits,
    row_weights,
    swiglu_flops,
    with_rows,
)
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.model.ffn import SwiGLUConfig

MODEL = TransformerConfig(
    vocab_size=30,
    context_length=16,
    d_model=16,
    n_layers=2,
    mixer=AttentionConfig(n_heads=2),
    ffn=(SwiGLUConfig(), LookupFFNConfig(n_tables=3, bits=4)),
    initial_std=0.5,
)


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def close(found, expected, tolerance=1e-6):
    torch.testing.assert_close(
        found, expected, rtol=0, atol=tolerance * expected.abs().max().item()
    )


CONFIGS = pytest.mark.parametrize(
    "config",
    [
        LookupFFNConfig(n_tables=3, bits=4),
        LookupFFNConfig(n_tables=3, bits=4, soft=True),
        LookupFFNConfig(n_tables=5, bits=4, block_width=4),
    ],
    ids=["hard", "soft", "bh4"],
)


# --- by hand -----------------------------------------------------------------------------------
def test_signs_spell_the_row_and_sizes_weigh_it():
    # signs + - : bits 1 and 0, the number 1; the weight is (0.5 + 2) σ(1) σ(4)
    z = torch.tensor([[0.5, -2.0]])
    assert addresses(z).tolist() == [1]
    y = lookup(z, torch.tensor([[[1.0], [10.0], [100.0], [1000.0]]]))
    assert y.item() == pytest.approx(2.5 * sigmoid(1) * sigmoid(4) * 10)


def test_rows_of_several_tables_are_added():
    # one bit each: + reads row 1 of the first table, - row 0 of the second
    z = torch.tensor([[3.0], [-1.0]])
    y = lookup(z, torch.tensor([[[5.0], [7.0]], [[11.0], [13.0]]]))
    assert y.item() == pytest.approx(3 * sigmoid(6) * 7 + 1 * sigmoid(2) * 11)


def test_softly_every_row_speaks_and_rows_on_the_other_side_speak_against():
    z = torch.tensor([[0.5, -2.0]])
    rows = [(-0.5, 2), (0.5, 2), (-0.5, -2), (0.5, -2)]  # ⟨z, S⟩ by parts, for --, +-, -+, ++
    expected = [(a + b) * sigmoid(2 * a) * sigmoid(2 * b) for a, b in rows]
    assert row_weights(z).flatten().tolist() == pytest.approx(expected, abs=1e-6)
    y = lookup_soft(z, torch.tensor([[[1.0], [10.0], [100.0], [1000.0]]]))
    assert y.item() == pytest.approx(
        sum(w * row for w, row in zip(expected, (1, 10, 100, 1000), strict=True)), rel=1e-5
    )


def test_hadamard_of_four_numbers():
    # a+b+c+d, a-b+c-d, a+b-c-d, a-b-c+d, over 2
    y = hadamard(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert y.tolist() == [5.0, -1.0, -2.0, 0.0]


def test_flops_of_width_64_and_what_is_saved():
    # 2·64·64 to project, 64 biases, 6·64 for weights, 2·8·64 to add 8 rows
    assert lookup_flops(64, n_tables=8, bits=8) == 8192 + 64 + 384 + 1024
    assert swiglu_flops(64, 176) == 6 * 64 * 176 + 5 * 176
    assert lookup_flops(64, 8, 8) <= swiglu_flops(64, 176) / 4
    # BH4: 64 numbers are one copy: 4 · (2·64·8 + 64·6)
    assert lookup_flops(64, 8, 8, block_width=8) == 4 * (1024 + 384) + 64 + 384 + 1024
    assert lookup_flops(64, 9, 8, block_width=8) == 8 * (1024 + 384) + 72 + 432 + 1152  # two copies


# --- twin --------------------------------------------------------------------------------------
@pytest.mark.parametrize("bits", [1, 3, 6])
def test_fetching_the_addressed_rows_is_dropping_all_but_the_loudest_with_all_gradients(bits):
    outcomes = []
    for function in (lookup, lookup_naive):
        z = numbers(2, 5, 4, bits).requires_grad_()
        tables = numbers(4, 2**bits, 6, seed=1).requires_grad_()
        y = function(z, tables)
        y.backward(numbers(2, 5, 6, seed=2))
        outcomes.append((y.detach(), z.grad, tables.grad))
    for fast, naive in zip(*outcomes, strict=True):
        close(fast, naive, 1e-5)


def test_butterflies_are_the_matrix_of_signs():
    x = numbers(3, 16)
    matrix = torch.tensor(scipy.linalg.hadamard(16), dtype=torch.float32) / 4
    close(hadamard(x), x @ matrix)


def test_bh4_is_the_product_of_its_eight_matrices():
    x, blocks = numbers(5, 8), numbers(3, 4, 2, 4, 4, seed=1)
    mix = torch.tensor(scipy.linalg.hadamard(8), dtype=torch.float32) / math.sqrt(8)
    whole = []
    for copy in blocks:
        matrix = torch.eye(8)
        for factor in copy:
            matrix = matrix @ torch.block_diag(*factor) @ mix
        whole.append(x @ matrix)
    close(bh4(x, blocks), torch.cat(whole, dim=-1), 1e-5)


@CONFIGS
def test_the_layer_is_its_projection_and_a_lookup(config):
    layer, x = config.build(16), numbers(2, 3, 16, seed=3)
    z = layer.project(x)
    assert z.shape == (2, 3, config.n_tables, config.bits)
    y, routing = layer(x)
    close(y, (lookup_soft if config.soft else lookup_naive)(z, layer.tables), 1e-5)
    assert routing is None


# --- reference ---------------------------------------------------------------------------------
@pytest.mark.parametrize("bits", [1, 2, 5])
def test_the_softmax_over_all_rows_is_a_product_of_sigmoids(bits):
    z = numbers(7, 3, bits).double()
    towards = z[..., None, :] * (2 * row_bits(bits).double() - 1)
    chances = torch.sigmoid(2 * towards).prod(dim=-1)
    close(row_weights(z), towards.sum(dim=-1) * chances, 1e-12)


def test_the_products_of_matrices_that_torch_counts_are_those_of_the_formula():
    x = torch.ones(1, 1, 64)
    for config, others in (
        (LookupFFNConfig(), 64 + 6 * 64 + 2 * 8 * 64),
        (LookupFFNConfig(block_width=8), 64 + 6 * 64 + 2 * 8 * 64 + 4 * 64 * 6),
    ):
        with FlopCounterMode(display=False) as counter:
            config.build(64).project(x)
        flops = lookup_flops(64, config.n_tables, config.bits, config.block_width)
        assert counter.get_total_flops() == flops - others
    with FlopCounterMode(display=False) as counter:
        SwiGLUConfig().build(64)(x)
    assert counter.get_total_flops() == swiglu_flops(64, 176) - 5 * 176


# --- law ---------------------------------------------------------------------------------------
@given(st.integers(1, 8), st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_the_addressed_row_is_the_loudest_and_chances_sum_to_one(bits, seed):
    z = numbers(20, 2, bits, seed=seed)
    weights = row_weights(z)
    assert torch.equal(weights.argmax(dim=-1), addresses(z))
    towards = z @ (2 * row_bits(bits).float() - 1).T
    close((weights / towards).sum(dim=-1), torch.ones(20, 2), 1e-4)


@given(st.integers(0, 6), st.integers(0, 999))
@settings(max_examples=20, deadline=None)
def test_hadamard_twice_gives_back_and_keeps_lengths(log_width, seed):
    x = numbers(3, 2**log_width, seed=seed)
    close(hadamard(hadamard(x)), x, 1e-5)
    close(hadamard(x).norm(dim=-1), x.norm(dim=-1), 1e-5)


def test_only_rows_that_were_read_get_a_gradient():
    layer, x = LookupFFNConfig(n_tables=4, bits=6).build(16), numbers(2, 10, 16)
    layer(x)[0].square().sum().backward()
    changed = layer.tables.grad.abs().sum(dim=-1) > 0
    read = torch.zeros(4, 64, dtype=torch.bool)
    rows = addresses(layer.project(x)).reshape(-1, 4)
    for table in range(4):
        read[table, rows[:, table]] = True
    assert torch.equal(changed, read)
    assert changed.sum() <= 4 * 20
    layer.zero_grad()
    lookup_soft(layer.project(x), layer.tables).square().sum().backward()
    assert (layer.tables.grad.abs().sum(dim=-1) > 0).all()


@CONFIGS
def test_every_number_of_x_and_of_the_projection_gets_a_gradient(config):
    layer, x = config.build(16), numbers(2, 40, 16).requires_grad_()
    layer(x)[0].square().sum().backward()
    for tensor in (x, layer.bias):
        assert (tensor.grad != 0).all()
    used = layer.projection.grad.abs().flatten(-2).sum(dim=-1)
    assert (used > 0).all()


@pytest.mark.parametrize("block_width", [None, 1, 8])
def test_a_normed_x_is_projected_to_numbers_of_size_one(block_width):
    layer = LookupFFNConfig(n_tables=64, bits=8, block_width=block_width).build(64)
    z = layer.project(torch.nn.functional.rms_norm(numbers(4, 50, 64), (64,)))
    assert 0.4 < z.square().mean().sqrt().item() < 2.5


@CONFIGS
def test_each_token_works_by_itself(config):
    layer, x = config.build(16), numbers(2, 3, 16)
    before, _ = layer(x)
    x[1, 1] += 1
    changed = ((layer(x)[0] - before).abs() > 1e-6).any(dim=-1)
    assert changed.tolist() == [[False] * 3, [False, True, False]]


def test_numbers_far_from_zero_make_soft_rows_hard_and_near_zero_they_do_not():
    tables = numbers(3, 16, 8)
    for factor, same in ((20.0, True), (0.1, False)):
        z = factor * (numbers(9, 3, 4, seed=1).sign() + 0.1 * numbers(9, 3, 4, seed=2))
        hard, soft = lookup(z, tables), lookup_soft(z, tables)
        assert ((hard - soft).norm() < 1e-3 * soft.norm()).item() == same


def test_a_twin_shares_all_numbers():
    model = MODEL.build(seed=0)
    twin = with_rows(model, soft=True)
    ours, theirs = dict(model.named_parameters()), dict(twin.named_parameters())
    assert all(ours[name] is theirs[name] for name in ours | theirs)
    assert (twin.blocks[1].ffn.soft, model.blocks[1].ffn.soft) == (True, False)


def test_first_numbers_are_those_of_the_seed_and_initialise_leaves_them_alone():
    one, two, other = (MODEL.build(seed=seed).blocks[1].ffn for seed in (0, 0, 1))
    assert torch.equal(one.projection, two.projection)
    assert not torch.equal(one.projection, other.projection)
    assert 0.15 < one.projection.std().item() < 0.35  # 1 / √16, whatever initial_std is
    assert 0.018 < one.tables.std().item() < 0.022
    assert not one.bias.any()


@CONFIGS
def test_device_and_dtype_are_arguments(config):
    layer = config.build(16, device="meta", dtype=torch.bfloat16)
    assert {(p.device.type, p.dtype) for p in layer.parameters()} == {("meta", torch.bfloat16)}
    y, _ = layer(torch.empty(1, 2, 16, device="meta", dtype=torch.bfloat16))
    assert (y.device.type, y.dtype, y.shape) == ("meta", torch.bfloat16, (1, 2, 16))
    assert config.build(16, dtype=torch.bfloat16)(numbers(1, 2, 16).bfloat16())[0].shape == y.shape


# --- what stops it -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: LookupFFNConfig(n_tables=0), "n_tables must be at least 1; got 0"),
        (lambda: LookupFFNConfig(bits=0), "bits must be at least 1; got 0"),
        (lambda: LookupFFNConfig(bits=17), "at most 16, a table of 65536 rows; got 17"),
        (lambda: LookupFFNConfig(block_width=-1), "block_width must be at least 1; got -1"),
        (lambda: LookupFFNConfig().build(0), "d_model must be at least 1; got 0"),
        (lambda: LookupFFNConfig(block_width=4).build(24), "a power of two and a multiple"),
        (lambda: LookupFFNConfig(block_width=3).build(16), "block_width, 3; got 16"),
        (
            lambda: with_rows(replace(MODEL, ffn=SwiGLUConfig()).build(), soft=True),
            "this needs a model with LookupFFN layers; got one without",
        ),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)


def test_it_shows_what_it_is():
    assert str(LookupFFN(8, 2, 3)) == "LookupFFN(8, n_tables=2, rows=8, soft=False)"
