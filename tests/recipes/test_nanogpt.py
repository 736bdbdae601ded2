"""nanoGPT's model is GPT-2's, and its recipe is the one of its README."""

import math

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from minillm.recipes.nanogpt import NanoGPT, Recipe, optimizer

TOY = Recipe(d_model=16, n_layers=2, n_heads=2, context_length=12)


def built(recipe=TOY, vocab_size=19):
    """A model whose weights, gains too, are large enough to make a difference."""
    model, generator = NanoGPT(vocab_size, recipe), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
            if parameter.ndim == 1:
                parameter.add_(1)
    return model


def some_tokens(batch_size=2, n_tokens=12, vocab_size=19):
    return torch.randint(
        vocab_size, (batch_size, n_tokens), generator=torch.Generator().manual_seed(1)
    )


# --- by hand -----------------------------------------------------------------------------------
def test_for_sixty_five_letters_it_has_0_80_million_numbers():
    tables, block = (65 + 64) * 128, 12 * 128**2 + 2 * 128
    assert tables + 4 * block + 128 == 804_096
    assert sum(p.numel() for p in NanoGPT(65, Recipe()).parameters()) == 804_096


def test_first_weights_are_small_and_those_that_add_to_the_stream_smaller():
    model = NanoGPT(65, Recipe())
    block = model.blocks[3]
    for upcast in (model.tokens, model.positions, block.qkv, block.up):
        assert upcast.weight.std().item() == pytest.approx(0.02, rel=0.05)
    for narrow in (block.output, block.down):
        assert narrow.weight.std().item() == pytest.approx(0.02 / math.sqrt(8), rel=0.05)
    assert torch.equal(model.norm.weight, torch.ones(128))


def test_tables_and_matrices_decay_and_gains_do_not():
    model = NanoGPT(19, TOY)
    decays, stays = optimizer(model, TOY).param_groups
    assert (decays["weight_decay"], stays["weight_decay"]) == (0.1, 0.0)
    assert {p.ndim for p in stays["params"]} == {1}
    grouped = [id(p) for group in (decays, stays) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    for group in (decays, stays):
        assert (group["lr"], group["betas"]) == (1e-3, (0.9, 0.99))


# --- reference ---------------------------------------------------------------------------------
def gpt2(model, recipe, vocab_size):
    """transformers' GPT-2 with the same weights; its biases are zero."""
    config = GPT2Config(
        vocab_size=vocab_size, n_positions=recipe.context_length, n_embd=recipe.d_model,
        n_layer=recipe.n_layers, n_head=recipe.n_heads, activation_function="gelu",
        layer_norm_epsilon=1e-5, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=0, eos_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip
    theirs = GPT2LMHeadModel(config).eval()
    body = theirs.transformer
    pairs = [(body.wte, model.tokens), (body.wpe, model.positions), (body.ln_f, model.norm)]
    turned = []  # theirs are of [inputs, outputs]
    for block, ours in zip(body.h, model.blocks, strict=True):
        pairs += [(block.ln_1, ours.norm_1), (block.ln_2, ours.norm_2)]
        turned += [(block.attn.c_attn, ours.qkv), (block.attn.c_proj, ours.output)]
        turned += [(block.mlp.c_fc, ours.up), (block.mlp.c_proj, ours.down)]
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
        for their_part, our_part in pairs:
            their_part.weight.copy_(our_part.weight)
        for their_part, our_part in turned:
            their_part.weight.copy_(our_part.weight.T)
    return theirs


def test_with_its_weights_it_is_transformers_gpt_2():
    model = built()
    theirs = gpt2(model, TOY, 19)
    with torch.no_grad():
        for tokens in (some_tokens(), some_tokens(n_tokens=5)):
            expected = theirs(tokens).logits
            atol = 1e-5 * expected.abs().max().item()
            torch.testing.assert_close(model(tokens), expected, rtol=0, atol=atol)


def get_lr(it):
    """nanoGPT's schedule, as train.py of 2024 has it, with the README's numbers."""
    if it < 100:
        return 1e-3 * (it + 1) / (100 + 1)
    coefficient = 0.5 * (1 + math.cos(math.pi * (it - 100) / (2000 - 100)))
    return 1e-4 + coefficient * (1e-3 - 1e-4)


@pytest.mark.parametrize(("step", "ours"), [(0, 1e-5), (99, 1e-3), (100, 1e-3), (1999, 1e-4)])
def test_the_learning_rate_is_theirs_but_for_a_step(step, ours):
    rate = Recipe().learning_rate * Recipe().schedule()(step)
    assert rate == pytest.approx(ours, rel=1e-5)
    assert rate == pytest.approx(get_lr(step), rel=0.0101)
    everywhere = [1e-3 * Recipe().schedule()(n) - get_lr(n) for n in range(2000)]
    assert max(map(abs, everywhere)) < 1e-5  # 1 % of the peak, where the warm-up ends


# --- law ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("place", [1, 5, 11])
def test_a_later_letter_changes_nothing_before_it(place):
    model, tokens = built(), some_tokens()
    changed = tokens.clone()
    changed[:, place] = (tokens[:, place] + 1) % 19
    with torch.no_grad():
        moved = (model(tokens) - model(changed)).abs().amax(dim=(0, 2))
    assert moved[:place].max() == 0
    assert (moved[place:] > 1e-3).all()


def test_a_seed_means_the_same_weights_and_torchs_own_draws_stay_as_they_were():
    before = torch.random.get_rng_state()
    one, same, other = (NanoGPT(19, TOY, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.blocks[1].up.weight, same.blocks[1].up.weight)
    assert not torch.equal(one.blocks[1].up.weight, other.blocks[1].up.weight)
