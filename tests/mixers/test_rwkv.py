import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import RwkvConfig as TheirConfig
from transformers.models.rwkv.modeling_rwkv import RwkvSelfAttention

from minillm.mixers.rwkv import (
    NOTHING,
    RWKVConfig,
    Sums,
    nothing_yet,
    wkv,
    wkv_naive,
    wkv_recurrent,
)
from minillm.model.attention import AttentionConfig, Context
from minillm.model.config import TransformerConfig
from minillm.model.masks import causal, window
from minillm.model.transformer import loss
from minillm.serve.sample import SampleConfig, generate
from minillm.train.plain import fit

FORMS = [wkv_naive, wkv_recurrent, wkv]
ALL = pytest.mark.parametrize("form", FORMS)


def numbers(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def column(*values):
    return torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1)


def plainly(n_tokens, first=0):
    return Context(positions=torch.arange(first, first + n_tokens))


def assert_near(found, expected, tolerance=1e-5):
    expected = expected.to(found.dtype)
    torch.testing.assert_close(
        found, expected, rtol=0, atol=tolerance * expected.abs().max().item()
    )


def layer_of(d_model=6, d_state=10, *, dtype=torch.float32):
    """A layer whose every number is drawn, so that none of them can be forgotten unseen."""
    layer = RWKVConfig(d_state=d_state).build(d_model, dtype=dtype)
    with torch.no_grad():
        for seed, parameter in enumerate(layer.parameters()):
            parameter.copy_(numbers(*parameter.shape, seed=seed, dtype=dtype))
    return layer


def model_of(**changes):
    config = TransformerConfig(
        vocab_size=20, context_length=64, d_model=16, n_layers=2, mixer=RWKVConfig(d_state=12)
    )
    return replace(config, **changes).build(seed=0)


# --- by hand -----------------------------------------------------------------------------------
@ALL
def test_older_values_weigh_less_and_the_newest_has_its_bonus(form):
    k, v = torch.zeros(1, 3, 1), column(4.0, 8.0, 5.0)
    decay, bonus = torch.tensor([math.log(2)]), torch.tensor([math.log(3)])
    values, sums = form(k, v, decay, bonus)
    # 4; (4 + 3 · 8) / (1 + 3) = 7; (4 / 2 + 8 + 3 · 5) / (1/2 + 1 + 3) = 25 / 4.5
    assert values.flatten().tolist() == pytest.approx([4.0, 7.0, 25 / 4.5])
    # the next token finds 4 / 4 + 8 / 2 + 5 = 10 of 1 / 4 + 1 / 2 + 1
    assert [part.item() for part in sums] == pytest.approx([10.0, 1.75, 0.0])


@ALL
def test_a_key_of_log_3_weighs_three_times_as_much(form):
    k, v = column(math.log(3), 0.0, 0.0), column(1.0, 9.0, 5.0)
    never = torch.full((1,), 1e-9)
    values = form(k, v, never, torch.zeros(1)).values
    # 1; (3 · 1 + 9) / 4; (3 · 1 + 9 + 5) / 5
    assert values.flatten().tolist() == pytest.approx([1.0, 3.0, 3.4])


@ALL
def test_keys_of_a_thousand_neither_overflow_nor_divide_zero_by_zero(form):
    k, v = column(-1000.0, -1000.0, 1000.0, 0.0, 999.0), column(1.0, 3.0, 7.0, 5.0, 11.0)
    decay = torch.tensor([1.0])
    values, sums = form(k, v, decay, torch.zeros(1))
    # 1; 2; the third alone; still the third alone; e^(1000 - 1) of 7 beside e^999 of 11
    assert values.flatten().tolist() == pytest.approx([1.0, 2.0, 7.0, 7.0, 9.0])
    # 1000, three tokens old, was reduced to 998: e^-1 of it beside 999
    assert sums.maximum.item() == pytest.approx(999.0)
    assert sums.denominator.item() == pytest.approx(1 + math.exp(-1))


@ALL
def test_what_was_before_is_read_and_fades(form):
    first = Sums(torch.tensor([[12.0]]), torch.tensor([[3.0]]), torch.tensor([[0.0]]))
    half, k, v = torch.tensor([math.log(2)]), torch.zeros(1, 2, 1), column(8.0, 1.0)
    values, sums = form(k, v, half, torch.zeros(1), first)
    # (12 + 8) / (3 + 1); (6 + 8 + 1) / (1.5 + 1 + 1)
    assert values.flatten().tolist() == pytest.approx([5.0, 15 / 3.5])
    assert (sums.numerator / sums.denominator).item() == pytest.approx(8 / 2.25)


def test_a_layer_mixes_with_the_token_before_gates_and_projects():
    layer = RWKVConfig().build(d_model=1)
    with torch.no_grad():
        layer.receptance.weight.fill_(math.log(3))
        layer.key.weight.fill_(0.0)
        layer.value.weight.fill_(2.0)
        layer.output.weight.fill_(10.0)
        layer.mixtures.copy_(torch.tensor([[1.0], [0.3], [0.5]]))
        layer.bonus.zero_()
        layer.log_decay.fill_(math.log(math.log(2)))
        y = layer(column(1.0, -1.0, 0.0), plainly(3)).flatten()
    # v = 2 · (x_t + x_(t-1)) / 2 = 1, 0, -1; wkv = 1, 1/2, (1/2 + 0 - 1) / 2.5
    # sigmoid(log 3 · x) = 3/4, 1/4, 1/2
    assert y.tolist() == pytest.approx([7.5, 1.25, -1.0], rel=1e-5)


def test_first_values_are_those_of_the_papers_first_layer():
    layer = RWKVConfig(d_state=3).build(d_model=4)
    assert layer.mixtures[0].tolist() == pytest.approx([0, 0.5, math.sqrt(0.5), math.sqrt(0.75)])
    assert layer.mixtures[1].tolist() == layer.mixtures[2].tolist() == [0, 0.25, 0.5, 0.75]
    assert layer.log_decay.tolist() == pytest.approx([-5, -5 + 8 * 0.5**0.7, 3])
    low = math.log(0.3)
    assert layer.bonus.tolist() == pytest.approx([low, low + 0.5, low - 0.5])
    model = model_of()  # `initialise` leaves them alone
    assert model.blocks[1].mixer.log_decay[[0, -1]].tolist() == [-5, 3]
    assert RWKVConfig(d_state=1).build(d_model=4).log_decay.tolist() == [-5]


# --- twin --------------------------------------------------------------------------------------
@pytest.mark.parametrize("n_tokens", [1, 2, 37])
@pytest.mark.parametrize("continued", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_three_forms_give_the_same_with_all_their_gradients(n_tokens, continued, dtype, tolerance):
    outcomes = []
    for form in FORMS:
        factory_kwargs = {"dtype": dtype}
        k = (3 * numbers(2, n_tokens, 5, **factory_kwargs)).requires_grad_()
        v = numbers(2, n_tokens, 5, seed=1, **factory_kwargs).requires_grad_()
        decay = torch.tensor([1e-4, 0.01, 0.3, 2.0, 30.0], **factory_kwargs).requires_grad_()
        bonus = numbers(5, seed=2, **factory_kwargs).requires_grad_()
        inputs = [k, v, decay, bonus]
        first = None
        if continued:
            numerator = numbers(2, 5, seed=3, **factory_kwargs).requires_grad_()
            denominator = (1 + numbers(2, 5, seed=4, **factory_kwargs).abs()).requires_grad_()
            first = Sums(numerator, denominator, 2 * numbers(2, 5, seed=5, **factory_kwargs))
            inputs += [numerator, denominator]
        values, sums = form(k, v, decay, bonus, first)
        assert values.dtype == sums.numerator.dtype == dtype
        expected = (values * numbers(2, n_tokens, 5, seed=6, **factory_kwargs)).sum()
        expected = expected + (sums.numerator * numbers(2, 5, seed=7, **factory_kwargs)).sum()
        expected = expected + (sums.denominator * numbers(2, 5, seed=8, **factory_kwargs)).sum()
        outcomes.append([values.detach(), *sums, *torch.autograd.grad(expected, inputs)])
    for others in outcomes[1:]:
        for naive, other in zip(outcomes[0], others, strict=True):
            assert_near(other.detach(), naive.detach(), tolerance)


def test_long_texts_of_large_keys_stay_exact_whatever_the_decay():
    decay = torch.tensor([1e-5, 1e-3, 0.1, 3.0, 20.0, 1000.0])
    k, v = 5 * numbers(1, 2048, 6), numbers(1, 2048, 6, seed=1)
    bonus = numbers(6, seed=2)
    with torch.no_grad():
        exact = wkv_recurrent(k.double(), v.double(), decay.double(), bonus.double())
        for form in (wkv_recurrent, wkv):
            found = form(k, v, decay, bonus)
            assert_near(found.values, exact.values)
            assert_near(found.sums[0] / found.sums[1], exact.sums[0] / exact.sums[1])
        two = slice(1, None, 3)  # two channels: the table has 2048² places for each
        table = wkv_naive(k[..., two], v[..., two], decay[two], bonus[two])
        assert_near(table.values, exact.values[..., two])


@ALL
@pytest.mark.parametrize("n_first", [1, 4, 8])
def test_two_pieces_are_the_whole(form, n_first):
    k, v = 4 * numbers(2, 9, 3), numbers(2, 9, 3, seed=1)
    decay, bonus = torch.tensor([0.01, 1.0, 9.0]), numbers(3, seed=2)
    whole = form(k, v, decay, bonus)
    before = form(k[:, :n_first], v[:, :n_first], decay, bonus)
    after = form(k[:, n_first:], v[:, n_first:], decay, bonus, before.sums)
    assert_near(torch.cat((before.values, after.values), dim=1), whole.values)
    for found, expected in zip(after.sums, whole.sums, strict=True):
        assert_near(found, expected)


@pytest.mark.parametrize("pieces", [[1] * 11, [5, 6], [1, 3, 7], [10, 1]])
def test_pieces_of_any_length_are_the_whole_text(pieces):
    model, tokens = model_of(), torch.arange(22).reshape(2, 11) % 20
    with torch.no_grad():
        whole, cache, found = model(tokens), model.new_cache(batch_size=2), []
        for piece in tokens.split(pieces, dim=1):
            found.append(model(piece, cache=cache))
    assert_near(torch.cat(found, dim=1), whole)
    assert cache[1].n_tokens == 11


def test_prompts_of_different_lengths_go_on_as_each_would_alone():
    model, prompts = model_of(), [[7, 3, 9, 1, 12, 5], [4], [2, 2, 8]]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8)  # or all prompts go on alike
    greedy = SampleConfig(temperature=0)
    together = generate(model, prompts, greedy, n_tokens=8)
    alone = [generate(model, [prompt], greedy, n_tokens=8)[0] for prompt in prompts]
    assert together == alone
    assert len({tuple(row) for row in alone}) == 3


def test_fillers_write_nothing():
    layer, x = layer_of(), numbers(2, 7, 6)
    is_token = torch.ones(2, 7, dtype=torch.bool)
    is_token[1, :4] = False
    positions = torch.arange(7)
    mask = causal(positions, positions)[None, None] & is_token[:, None, None]
    padded, alone = layer.new_cache(2, 7), layer.new_cache(1, 3)
    y = layer(x, Context(positions=positions, mask=mask), padded)
    torch.testing.assert_close(y[1:, 4:], layer(x[1:, 4:], plainly(3), alone))
    assert y.isfinite().all()  # padding read nothing, but not 0 / 0
    for name in ("last", *Sums._fields):
        torch.testing.assert_close(padded[name][1:], alone[name])
    # a first piece of padding alone
    pieces = layer.new_cache(2, 7)
    layer(x[:, :2], Context(positions=positions[:2], mask=mask[:, :, :2, :2]), pieces)
    rest = layer(x[:, 2:], Context(positions=positions[2:], mask=mask[:, :, 2:]), pieces)
    torch.testing.assert_close(rest[1, 2:], y[1, 4:])


# --- reference ---------------------------------------------------------------------------------
def theirs_and_ours(d_model=6, d_state=10):
    ours = layer_of(d_model, d_state)
    config = TheirConfig(
        hidden_size=d_model, attention_hidden_size=d_state, num_hidden_layers=1, vocab_size=20
    )
    theirs = RwkvSelfAttention(config, layer_id=0)
    with torch.no_grad():
        for name in ("receptance", "key", "value", "output"):
            getattr(theirs, name).weight.copy_(getattr(ours, name).weight)
        mixtures = (theirs.time_mix_receptance, theirs.time_mix_key, theirs.time_mix_value)
        for mixture, of_ours in zip(mixtures, ours.mixtures, strict=True):
            mixture.copy_(of_ours)
        theirs.time_decay.copy_(ours.log_decay)
        theirs.time_first.copy_(ours.bonus)
    return theirs, ours


def test_a_text_is_read_as_by_transformers_rwkv():
    theirs, ours = theirs_and_ours()
    x = numbers(2, 17, 6, seed=50)
    with torch.no_grad():
        assert_near(ours(x, plainly(17)), theirs(x)[0])


def test_token_by_token_it_is_transformers_rwkv_with_its_state():
    theirs, ours = theirs_and_ours()
    x = numbers(1, 9, 6, seed=50)  # one row: theirs mixes rows up where it is given one token
    state = [torch.zeros(1, 6, 1) for _ in range(2)] + [torch.zeros(1, 10, 1) for _ in range(3)]
    state[4] -= 1e30
    cache = ours.new_cache(1, 9)
    with torch.no_grad():
        for place, token in enumerate(x.split(1, dim=1)):
            expected, state = theirs(token, state=state, use_cache=True)
            assert_near(ours(token, plainly(1, place), cache), expected)
        assert_near(cache["last"][:, 0], state[1][:, :, 0])
        for name, part in zip(Sums._fields, state[2:], strict=True):
            assert_near(cache[name], part[:, :, 0])


# --- law ---------------------------------------------------------------------------------------
@given(st.integers(1, 12), st.floats(1e-6, 50), st.floats(-20, 20), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_weights_sum_to_one(n_tokens, decay, bonus, seed):
    k, v = 10 * numbers(1, n_tokens, 2, seed=seed), numbers(1, n_tokens, 2, seed=seed + 1)
    decay, bonus = torch.full((2,), decay), torch.full((2,), bonus)
    for form in FORMS:
        same = form(k, torch.full_like(v, 7.0), decay, bonus).values
        torch.testing.assert_close(same, torch.full_like(v, 7.0), rtol=1e-5, atol=0)
        values = form(k, v, decay, bonus).values  # and none is below 0
        assert (values <= v.cummax(dim=1).values + 1e-5).all()
        assert (values >= v.cummin(dim=1).values - 1e-5).all()


@given(st.integers(1, 12), st.floats(-500, 500), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_what_is_added_to_all_keys_changes_nothing(n_tokens, constant, seed):
    k, v = numbers(2, 1, n_tokens, 3, seed=seed, dtype=torch.float64)
    decay, bonus = numbers(2, 3, seed=seed + 1, dtype=torch.float64).exp()
    for form in FORMS:
        values, sums = form(k, v, decay, bonus)
        raised, higher = form(k + constant, v, decay, bonus)
        torch.testing.assert_close(raised, values)
        torch.testing.assert_close(higher.maximum, sums.maximum + constant)


@ALL
def test_without_decay_and_bonus_equal_keys_give_the_mean_of_all_so_far(form):
    v = numbers(2, 20, 3)
    values = form(torch.zeros_like(v), v, torch.full((3,), 1e-9), torch.zeros(3)).values
    assert_near(values, v.cumsum(dim=1) / torch.arange(1, 21)[:, None])


@ALL
def test_with_a_large_decay_only_the_last_two_tokens_are_left(form):
    v = numbers(2, 20, 3)
    values = form(torch.zeros_like(v), v, torch.full((3,), 100.0), torch.zeros(3)).values
    assert_near(values[:, 1:], (v[:, 1:] + v[:, :-1]) / 2)


def test_no_token_is_changed_by_a_later_one():
    layer, x = layer_of(), numbers(1, 8, 6).requires_grad_()
    layer(x, plainly(8))[0, 4].sum().backward()
    assert (x.grad[0, :5].abs().sum(dim=1) > 0).all()
    assert x.grad[0, 5:].abs().sum() == 0


def test_a_state_is_four_bytes_times_a_token_and_three_sums_after_any_text():
    layer = RWKVConfig(d_state=10).build(d_model=6)
    state = layer.new_cache(3, 1000)
    for n_tokens in (1, 5, 40):
        layer(numbers(3, n_tokens, 6), plainly(n_tokens), state)
        parts = [state[name] for name in ("last", *Sums._fields)]
        held = sum(part.untyped_storage().nbytes() for part in parts)  # no text hangs on to it
        assert state.n_bytes == held == 3 * 4 * (6 + 3 * 10)
    assert state.n_tokens == 46


def test_a_model_of_it_learns_to_tell_what_comes_next():
    model = model_of()
    rows = torch.randint(20, (8, 1), generator=torch.Generator().manual_seed(0))
    tokens = (rows + torch.arange(12) * (1 + rows % 3)) % 20  # steps of 1, 2 or 3
    losses = fit(model, loss, lambda step: tokens, 40, 1e-2)
    assert losses[0] == pytest.approx(math.log(20), abs=0.1)
    assert losses[-1] < 0.5
    loss(model, tokens).nats.backward()
    mixer = model.blocks[0].mixer
    assert all(parameter.grad.abs().sum() > 0 for parameter in mixer.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_sixteen_bits_the_sums_are_kept_in_thirty_two(dtype):
    layer, x = layer_of(dtype=dtype), numbers(2, 9, 6, dtype=dtype)
    state = layer.new_cache(2, 9)
    y = layer(x, plainly(9), state)
    assert (y.dtype, state["last"].dtype, state["numerator"].dtype) == (dtype, dtype, torch.float32)
    assert_near(y.float(), layer_of(dtype=dtype).float()(x.float(), plainly(9)), 5e-2)


def test_a_layer_of_no_numbers_can_be_built_and_asked_for_shapes():
    layer = RWKVConfig(d_state=10).build(6, device="meta", dtype=torch.bfloat16)
    assert {p.device.type for p in layer.parameters()} == {"meta"}
    assert layer(torch.empty(2, 3, 6, device="meta", dtype=torch.bfloat16), plainly(3)).shape == (
        (2, 3, 6)
    )
    model = TransformerConfig(vocab_size=20, mixer=RWKVConfig()).build(device="meta")
    assert model.blocks[0].mixer.mixtures.shape == (3, 128)


def test_before_the_first_token_there_is_nothing():
    sums = nothing_yet(torch.ones(2, 3))
    assert sums.numerator.abs().sum() == sums.denominator.abs().sum() == 0
    assert (sums.maximum == torch.tensor(NOTHING)).all()


# --- what stops it -----------------------------------------------------------------------------
def test_a_width_below_one_is_refused():
    with pytest.raises(ValueError, match="d_state must be at least 1; got 0"):
        RWKVConfig(d_state=0)
    with pytest.raises(ValueError, match="d_model must be at least 1; got 0"):
        RWKVConfig().build(d_model=0)


def test_the_cache_of_another_mixer_or_batch_is_refused():
    layer, x = layer_of(), numbers(2, 3, 6)
    attention = AttentionConfig(n_heads=1).build(d_model=6)
    with pytest.raises(ValueError, match=r"RWKV needs a cache from its own new_cache.*KVCache"):
        layer(x, plainly(3), attention.new_cache(2, 3))
    with pytest.raises(ValueError, match="this state of RWKV is for 3 rows; got tokens of 2"):
        layer(x, plainly(3), layer.new_cache(3, 3))


def test_a_mask_that_a_state_cannot_follow_is_refused():
    positions = torch.arange(5)
    with pytest.raises(ValueError, match="a recurrent mixer sees everything so far"):
        layer_of()(
            numbers(1, 5, 6), Context(positions=positions, mask=window(positions, positions, 2))
        )
