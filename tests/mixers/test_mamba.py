import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import cont2discrete
from transformers.models.mamba.configuration_mamba import MambaConfig as TheirConfig
from transformers.models.mamba.modeling_mamba import MambaMixer

from minillm.mixers.mamba import MambaConfig, discretise, selective_scan, selective_scan_naive
from minillm.mixers.recurrent_state import State
from minillm.mixers.scan import scan, scan_naive, scan_parallel
from minillm.model.attention import Context
from minillm.model.config import TransformerConfig
from minillm.model.masks import window
from minillm.serve.sample import SampleConfig, generate

B, T, E, N = 2, 13, 6, 4
BOTH = pytest.mark.parametrize("selective", [True, False])
FORMS = {
    "sequential": selective_scan,
    "sequential, in fives": partial(selective_scan, form=scan, chunk_tokens=5),
    "parallel": partial(selective_scan, form=scan_parallel),
    "parallel, in fives": partial(selective_scan, form=scan_parallel, chunk_tokens=5),
    "naive, one by one": partial(selective_scan, form=scan_naive, chunk_tokens=1),
}


def numbers(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def scan_inputs(selective=True, dtype=torch.float64, n_tokens=T):
    """x, Δ, A, B, C, skip, h_0"""
    parts = [
        numbers(B, n_tokens, E, seed=1),
        numbers(B, n_tokens, E, seed=2).sigmoid(),
        -numbers(E, N, seed=3).exp(),
        numbers(*((B, n_tokens, N) if selective else (E, N)), seed=4),
        numbers(*((B, n_tokens, N) if selective else (E, N)), seed=5),
        numbers(E, seed=6),
        numbers(B, N, E, seed=7),
    ]
    return [part.to(dtype) for part in parts]


def layer_of(selective=True, **options):
    """A layer whose every part matters: random weights of size 1/2, and Δ around 1/2."""
    options = {"d_state": N, "dt_rank": 3 if selective else None} | options
    layer = MambaConfig(selective=selective, **options).build(d_model=8)
    with torch.no_grad():
        for seed, parameter in enumerate(layer.parameters()):
            parameter.copy_(numbers(*parameter.shape, seed=seed) / 2)
    return layer


def context_of(n_tokens, first=0):
    return Context(positions=torch.arange(first, first + n_tokens))


def close(one, other, tolerance=1e-5):
    torch.testing.assert_close(one, other, rtol=0, atol=tolerance * other.abs().max().item())


# --- by hand -----------------------------------------------------------------------------------
def test_a_token_that_lasts_ln_2_leaves_half_of_a_store_of_rate_1_and_a_quarter_at_rate_2():
    delta = torch.tensor([[[math.log(2)]]])
    stays, enters = discretise(delta, torch.tensor([[-1.0, -2.0]]), torch.tensor([[[10.0, 1.0]]]))
    assert stays.flatten().tolist() == pytest.approx([0.5, 0.25])
    assert enters.flatten().tolist() == pytest.approx([10 * math.log(2), math.log(2)])


@pytest.mark.parametrize("form", [selective_scan_naive, *FORMS.values()])
def test_two_stores_three_tokens_by_hand(form):
    # A = -1 and -2; Δ = 1, 0, ln 2; B = (1, 2), any, 0; C reads one store, both, both; skip 10
    scanned = form(
        torch.tensor([[[3.0], [5.0], [7.0]]]),
        torch.tensor([[[1.0], [0.0], [math.log(2)]]]),
        torch.tensor([[-1.0, -2.0]]),
        torch.tensor([[[1.0, 2.0], [9.0, 9.0], [0.0, 0.0]]]),
        torch.tensor([[[1.0, 0.0], [1.0, 1.0], [1.0, 1.0]]]),
        torch.tensor([10.0]),
    )
    # h: (3, 6); Δ = 0 leaves it; then a half and a quarter are left
    assert scanned.values.flatten().tolist() == pytest.approx([3 + 30, 9 + 50, 1.5 + 1.5 + 70])
    assert scanned.last.flatten().tolist() == pytest.approx([1.5, 1.5])


def test_a_layer_of_one_number_by_hand():
    layer = MambaConfig(d_state=1, expand=1, d_conv=2, dt_rank=1).build(d_model=1)
    with torch.no_grad():
        layer.in_proj.weight.copy_(torch.tensor([[1.0], [2.0]]))  # x, and the gate
        layer.conv1d_weight.copy_(torch.tensor([[0.5], [1.0]]))
        layer.conv1d_bias.fill_(0.25)
        layer.x_proj.weight.copy_(torch.tensor([[1.0], [3.0], [-2.0]]))  # for Δ, for B, for C
        layer.dt_proj_weight.fill_(0.5)
        layer.dt_proj_bias.fill_(-1.0)
        layer.A_log.fill_(math.log(0.75))
        layer.D.fill_(4.0)
        layer.out_proj.weight.fill_(1.5)

    def silu(number):
        return number / (1 + math.exp(-number))

    h, before, expected = 0.0, 0.0, []
    for u in (1.0, -2.0, 0.5):
        x = silu(0.5 * before + u + 0.25)
        before = u
        delta = math.log1p(math.exp(0.5 * x - 1))
        h = math.exp(-0.75 * delta) * h + delta * 3 * x * x
        expected.append(1.5 * (-2 * x * h + 4 * x) * silu(2 * u))
    y = layer(torch.tensor([[[1.0], [-2.0], [0.5]]]), context_of(3))
    assert y.flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_first_weights_are_those_of_the_paper_and_stay_when_a_model_is_initialised():
    config = TransformerConfig(vocab_size=9, d_model=64, n_layers=1, mixer=MambaConfig())
    mixer = config.build(seed=0).blocks[0].mixer
    assert -mixer.A_log[0].exp().detach() == pytest.approx(-torch.arange(1.0, 17.0))
    assert mixer.A_log.shape == (128, 16)
    assert mixer.D.tolist() == [1.0] * 128
    delta = torch.nn.functional.softplus(mixer.dt_proj_bias.detach())
    assert 0.001 <= delta.min() < 0.002
    assert 0.05 < delta.max() <= 0.1 + 1e-6
    assert 0.3 < (delta < 0.01).float().mean() < 0.7  # as many below as above, on a log scale
    many = MambaConfig(d_state=1, expand=64, dt_rank=1).build(d_model=64)
    longest = torch.nn.functional.softplus(many.dt_proj_bias.detach()).max().item()
    assert longest == pytest.approx(0.1, rel=0.04)
    assert 0.9 * 0.5 < mixer.dt_proj_weight.abs().max() <= 0.5  # rank 4
    assert 0.9 * 0.5 < mixer.conv1d_weight.abs().max() <= 0.5  # 4 tokens
    assert mixer.out_proj.weight.std().item() == pytest.approx(0.02 / math.sqrt(2), rel=0.1)


@BOTH
def test_state_bytes_are_the_formula_after_any_number_of_tokens(selective):
    for dtype, per_parameter in ((torch.float32, 4), (torch.bfloat16, 2)):
        config = MambaConfig(d_state=3, expand=2, d_conv=4, selective=selective)
        layer = config.build(d_model=8, dtype=dtype)
        cache = layer.new_cache(batch_size=5, max_length=7)
        for n_tokens in (0, 1, 50):
            if n_tokens:
                layer(numbers(5, n_tokens, 8, dtype=dtype), context_of(n_tokens), cache)
            assert cache.n_bytes == 5 * 16 * (3 * per_parameter + 3 * 4)
        assert cache.n_tokens == 51
        assert cache["h"].untyped_storage().nbytes() == cache["h"].nbytes  # nothing hidden behind
        assert cache["last"].untyped_storage().nbytes() == cache["last"].nbytes


# --- twin --------------------------------------------------------------------------------------
@BOTH
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_each_form_is_the_naive_scan_with_all_gradients(form, selective):
    outcomes = []
    for each in (selective_scan_naive, form):
        parts = [part.requires_grad_() for part in scan_inputs(selective)]
        values, last = each(*parts)
        ((values * numbers(B, T, E, dtype=torch.float64)).sum() + last.square().sum()).backward()
        outcomes.append((values.detach(), last.detach(), *(part.grad for part in parts)))
    for naive, other in zip(*outcomes, strict=True):
        close(other, naive, 1e-12)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_in_float32_the_forms_agree_over_two_hundred_tokens(form):
    parts = scan_inputs(dtype=torch.float32, n_tokens=200)
    values, last = form(*parts)
    naive = selective_scan_naive(*parts)
    close(values, naive.values)
    close(last, naive.last)


@BOTH
@pytest.mark.parametrize("d_conv", [1, 2, 4])
def test_token_by_token_and_in_pieces_is_the_whole(selective, d_conv):
    layer = layer_of(selective, d_conv=d_conv)
    x = numbers(2, 21, 8)
    whole = layer(x, context_of(21))
    for lengths in ([1] * 21, [21], [2, 9, 1, 1, 8], [16, 5]):
        cache, first, pieces = layer.new_cache(2, 4), 0, []
        for n_tokens in lengths:
            piece = x[:, first : first + n_tokens]
            pieces.append(layer(piece, context_of(n_tokens, first), cache))
            first += n_tokens
        close(torch.cat(pieces, dim=1), whole)
        assert cache.n_tokens == 21


@BOTH
def test_a_model_writes_after_prompts_of_different_lengths_as_after_each_alone(selective):
    mixer = MambaConfig(d_state=N, selective=selective)
    config = TransformerConfig(
        vocab_size=17, context_length=40, d_model=16, n_layers=2, mixer=mixer
    )
    model = config.build(seed=3)
    with torch.no_grad():
        for block in model.blocks:  # so that what comes before decides
            for linear in (block.mixer.in_proj, block.mixer.out_proj):
                linear.weight.mul_(20)
    prompts = [[3], [5, 1, 2, 8, 13, 2, 11], [1, 4, 9]]
    greedy = SampleConfig(temperature=0.0)
    together = generate(model, prompts, greedy, n_tokens=12)
    alone = [generate(model, [prompt], greedy, n_tokens=12)[0] for prompt in prompts]
    assert together == alone
    assert len({tuple(row) for row in together}) == 3


@BOTH
def test_fillers_write_nothing_wherever_they_stand_in_the_row(selective):
    layer = layer_of(selective, d_conv=1)
    x = numbers(1, 9, 8)
    is_token = torch.tensor([[False, False, True, True, False, True, True, True, False]])
    positions = torch.arange(9)
    mask = (positions[:, None] >= positions) & is_token[:, None, None, :]
    cache, alone = layer.new_cache(1, 9), layer.new_cache(1, 9)
    filled = layer(x, Context(positions=positions, mask=mask), cache)
    only = layer(x[is_token][None], context_of(5), alone)
    close(filled[is_token][None], only)
    close(cache["h"], alone["h"])


# --- reference ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("d_model", "expand", "d_state", "d_conv", "dt_rank"), [(16, 2, 16, 4, 1), (12, 3, 5, 2, 4)]
)
def test_it_is_the_mixer_of_transformers(d_model, expand, d_state, d_conv, dt_rank):
    theirs = MambaMixer(
        TheirConfig(
            hidden_size=d_model,
            state_size=d_state,
            expand=expand,
            conv_kernel=d_conv,
            time_step_rank=dt_rank,
            num_hidden_layers=1,
        ),
        layer_idx=0,
    )
    ours = MambaConfig(d_state=d_state, expand=expand, d_conv=d_conv, dt_rank=dt_rank).build(
        d_model
    )
    with torch.no_grad():
        for seed, parameter in enumerate(theirs.parameters()):
            parameter.copy_(numbers(*parameter.shape, seed=seed) / 2)
        ours.in_proj.weight.copy_(theirs.in_proj.weight)
        ours.conv1d_weight.copy_(theirs.conv1d.weight[:, 0].T)
        ours.conv1d_bias.copy_(theirs.conv1d.bias)
        ours.x_proj.weight.copy_(theirs.x_proj.weight)
        ours.dt_proj_weight.copy_(theirs.dt_proj.weight)
        ours.dt_proj_bias.copy_(theirs.dt_proj.bias)
        ours.A_log.copy_(theirs.A_log)
        ours.D.copy_(theirs.D)
        ours.out_proj.weight.copy_(theirs.out_proj.weight)
        x = numbers(2, 19, d_model, seed=9)
        close(ours(x, context_of(19)), theirs(x), 1e-4)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


def test_steps_are_scipys_zero_order_hold_exactly_for_A_and_nearly_for_B():
    for delta, tolerance in ((0.5, 0.25), (0.01, 0.005)):  # Euler's error is about half of Δ |A|
        rate, into = -1.0, 3.0
        system = tuple(np.array([[number]]) for number in (rate, into, 1.0, 0.0))
        exact_A, exact_B, *_ = cont2discrete(system, delta, "zoh")
        stays, enters = discretise(
            torch.full((1, 1, 1), delta, dtype=torch.float64),
            torch.full((1, 1), rate, dtype=torch.float64),
            torch.full((1, 1, 1), into, dtype=torch.float64),
        )
        assert stays.item() == pytest.approx(exact_A.item(), rel=1e-12)
        error = enters.item() / exact_B.item() - 1
        assert 0.5 * tolerance < error < 1.2 * tolerance


# --- law ---------------------------------------------------------------------------------------
@given(st.integers(1, 20), st.integers(1, 25), st.booleans(), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_any_length_in_chunks_of_any_size_is_the_whole(n_tokens, chunk_tokens, selective, seed):
    parts = scan_inputs(selective, n_tokens=n_tokens)
    parts[0] = numbers(B, n_tokens, E, seed=seed, dtype=torch.float64)
    chunked = selective_scan(*parts, chunk_tokens=chunk_tokens)
    for ours, naive in zip(chunked, selective_scan_naive(*parts), strict=True):
        torch.testing.assert_close(ours, naive)


@BOTH
def test_no_later_token_is_seen(selective):
    layer = layer_of(selective)
    x = numbers(1, 12, 8)
    changed = x.clone()
    changed[:, 7] += 1
    differs = (layer(x, context_of(12)) != layer(changed, context_of(12))).any(dim=2)[0]
    assert differs.tolist() == [False] * 7 + [True] * 5


def test_tokens_without_time_leave_the_state_and_a_long_one_clears_it():
    x, delta, A, B_, C, D, first = scan_inputs()
    delta[:, :] = 0
    assert torch.equal(selective_scan(x, delta, A, B_, C, D, first).last, first)
    delta[:, -1] = 1e4
    scanned = selective_scan(x, delta, A, B_, C, D, first)
    other = selective_scan(x, delta, A, B_, C, D, 2 * first)
    assert torch.equal(scanned.last, other.last)  # nothing is left of what was there
    close(scanned.last, 1e4 * B_[:, -1, :, None] * x[:, -1, None])


def test_constants_treat_all_tokens_alike_and_a_selection_does_not():
    """The sum of two texts is scanned as the sum of both: only where nothing selects."""
    one, two = numbers(1, 9, 16), numbers(1, 9, 16, seed=1)
    for selective in (False, True):
        layer = layer_of(selective)

        def scanned(values, layer=layer):
            delta, B_, C = layer.selected(values)
            A = -layer.A_log.exp()
            return selective_scan(values, delta, A, B_, C, layer.D).values

        together, apart = scanned(one + two), scanned(one) + scanned(two)
        assert torch.allclose(together, apart, atol=1e-4) is (not selective)


@BOTH
def test_every_parameter_is_reached_and_the_chunks_change_no_gradient(selective):
    gradients = []
    for chunk_tokens in (1, 5, 64):
        layer = layer_of(selective, chunk_tokens=chunk_tokens)
        layer(numbers(2, 17, 8, seed=50), context_of(17)).square().sum().backward()
        gradients.append({name: p.grad for name, p in layer.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient.abs().max() > 0
        for others in gradients[1:]:
            close(others[name], gradient)


def test_half_precision_keeps_a_state_that_fades_slowly_in_float32():
    layer = MambaConfig(d_state=N).build(d_model=16, dtype=torch.bfloat16)
    cache = layer.new_cache(1, 1)
    y = layer(numbers(1, 5, 16, dtype=torch.bfloat16), context_of(5), cache)
    assert (y.dtype, cache["h"].dtype, cache["last"].dtype) == (
        torch.bfloat16,
        torch.float32,
        torch.bfloat16,
    )
    upcast = MambaConfig(d_state=N).build(d_model=16)
    upcast.load_state_dict(layer.state_dict())
    close(y.float(), upcast(numbers(1, 5, 16), context_of(5)), 0.05)


@BOTH
def test_it_can_be_counted_on_the_device_meta(selective):
    layer = MambaConfig(selective=selective).build(d_model=4096, device="meta")
    E, N = 8192, 16
    chosen = (256 + 2 * N) * E + 256 * E if selective else 2 * E * N
    expected = 3 * 4096 * E + 4 * E + E + E * N + E + E + chosen
    assert sum(p.numel() for p in layer.parameters()) == expected
    x = torch.empty(1, 3, 4096, device="meta")
    assert layer(x, context_of(3)).shape == (1, 3, 4096)


# --- what stops it -----------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["d_state", "expand", "d_conv", "dt_rank", "chunk_tokens"])
def test_counts_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1; got 0"):
        MambaConfig(**{name: 0})


def test_a_width_or_a_chunk_of_nothing_is_refused():
    with pytest.raises(ValueError, match="d_model must be at least 1; got 0"):
        MambaConfig().build(d_model=0)
    with pytest.raises(ValueError, match="chunk_tokens must be None or at least 1; got 0"):
        selective_scan(*scan_inputs(), chunk_tokens=0)


def test_a_cache_of_another_mixer_or_batch_and_a_window_are_refused():
    layer, x = layer_of(), numbers(2, 3, 8)
    with pytest.raises(ValueError, match="Mamba needs a cache from its own new_cache; got one of"):
        layer(x, context_of(3), State("RWKV", {"sum": torch.zeros(2, 3)}))
    with pytest.raises(ValueError, match="state of Mamba is for 5 rows; got tokens of 2"):
        layer(x, context_of(3), layer.new_cache(5, 1))
    positions = torch.arange(3)
    with pytest.raises(ValueError, match=r"knows causal & padding only"):
        layer(x, Context(positions=positions, mask=window(positions, positions, 2)))
