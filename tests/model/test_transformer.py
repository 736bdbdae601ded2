import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from minillm.model.attention import AttentionConfig, Context
from minillm.model.config import TransformerConfig, tiny
from minillm.model.ffn import MLPConfig, Routing, SwiGLUConfig
from minillm.model.masks import causal, padding, prefix
from minillm.model.rope import RopeConfig
from minillm.model.transformer import Block, loss, zero_residual_projections
from minillm.train.plain import draw_rows, fit

TOY = TransformerConfig(
    vocab_size=19, context_length=16, d_model=8, n_layers=2, mixer=AttentionConfig(n_heads=2)
)
GROUPED = AttentionConfig(n_heads=4, n_kv_heads=2)
WIDE = AttentionConfig(n_heads=4, n_kv_heads=1, d_head=6)
KINDS = {
    "toy": TOY,
    "gqa": replace(TOY, mixer=GROUPED),
    "wide-heads": replace(TOY, mixer=WIDE, ffn=SwiGLUConfig(d_ff=5)),
    "tied": replace(TOY, mixer=GROUPED, tied_embeddings=True),
    "window-qk-norm": replace(TOY, mixer=AttentionConfig(window_tokens=3, qk_norm=True)),
    "mlp": replace(TOY, ffn=MLPConfig()),
}
ALL_KINDS = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS.keys())


def built(config, seed=0, dtype=torch.float32):
    """A model whose weights, gains too, are large enough to make a difference."""
    model = config.build(seed=seed, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
            if parameter.ndim == 1:
                parameter.add_(1)
    return model


def some_tokens(batch_size, n_tokens, vocab_size=19, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocab_size, (batch_size, n_tokens), generator=generator)


def assert_close(found, expected, tolerance=1e-5):
    """Equal up to a share of the largest value."""
    atol = tolerance * expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


# --- by hand -----------------------------------------------------------------------------------
class Adds(nn.Module):
    """A part that adds a number, whatever it is given, and says what it was given."""

    def __init__(self, number, mixes):
        super().__init__()
        self.number, self.mixes, self.given = number, mixes, []

    def forward(self, x, context, *cache):
        self.given.append((x, context))
        y = torch.full_like(x, self.number)
        return y if self.mixes else (y, None)


def test_a_block_adds_to_the_stream_and_gives_each_part_a_normed_copy():
    mixer, ffn, context = Adds(10.0, mixes=True), Adds(100.0, mixes=False), Context()
    block = Block(2, mixer, ffn, norm_epsilon=0.0)
    x, routing = block(torch.tensor([[[1.0, 7.0]]]), context)
    assert x.tolist() == [[[111.0, 117.0]]]
    assert routing is None
    (to_mixer, told_mixer), (to_ffn, told_ffn) = *mixer.given, *ffn.given
    assert told_mixer is told_ffn is context
    assert to_mixer.flatten().tolist() == pytest.approx([1 / 5, 7 / 5])  # √((1 + 49) / 2)
    after = math.sqrt((11**2 + 17**2) / 2)  # the FFN reads what the mixer has added to
    assert to_ffn.flatten().tolist() == pytest.approx([11 / after, 17 / after])


def test_without_parts_that_add_the_model_compares_a_token_with_all_others():
    # Blocks that add nothing leave the embedding: logits are its norm times the last matrix.
    model = replace(TOY, d_model=2, vocab_size=3, mixer=AttentionConfig(n_heads=1)).build()
    with torch.no_grad():
        for block in model.blocks:
            block.mixer.output.weight.zero_()
            block.ffn.down.weight.zero_()
        model.embedding.weight.copy_(torch.tensor([[1.0, 7.0], [3.0, 3.0], [7.0, -1.0]]))
        model.head.weight.copy_(torch.tensor([[5.0, 0.0], [0.0, 5.0], [1.0, 1.0]]))
    logits = model(torch.tensor([[0, 1, 2]]))[0]
    assert logits.flatten().tolist() == pytest.approx(
        [1, 7, 8 / 5, 5, 5, 2, 7, -1, 6 / 5], rel=1e-5
    )


@ALL_KINDS
def test_a_silenced_model_is_a_table_of_pairs_until_its_blocks_have_learned(config):
    model, before = built(config), built(config)
    zero_residual_projections(model)
    for (name, now), then in zip(model.named_parameters(), before.parameters(), strict=True):
        if name.endswith(("output.weight", "down.weight")):
            assert not now.any(), name
        else:
            assert torch.equal(now, then), name
    tokens = some_tokens(2, 9)
    assert torch.equal(model(tokens), model.logits(model.norm(model.embedding(tokens))))
    loss(model, tokens).mean.backward()  # and what is silent can learn to speak
    for block in model.blocks:
        assert block.mixer.output.weight.grad.any()
        assert block.ffn.down.weight.grad.any()


def test_equal_logits_cost_the_logarithm_of_the_vocabulary():
    model = TOY.build()
    with torch.no_grad():
        model.head.weight.zero_()
    assert loss(model, some_tokens(2, 9)).mean.item() == pytest.approx(math.log(19))


def test_a_token_that_is_ignored_is_read_but_not_predicted():
    model = built(TOY)
    tokens = torch.tensor([[3, 4, 5, 0, 0]])
    log_p = model(tokens)[0].log_softmax(dim=-1)
    costs = [-log_p[place, targets].item() for place, targets in enumerate([4, 5, 0, 0])]
    assert loss(model, tokens).mean.item() == pytest.approx(sum(costs) / 4, rel=1e-5)
    assert loss(model, tokens, ignore=0).mean.item() == pytest.approx(sum(costs[:2]) / 2, rel=1e-5)
    read = torch.tensor([[3, 0, 5]])  # the cost of 5 alone, after 3 and 0
    expected = -model(read)[0, 1].log_softmax(dim=-1)[5].item()
    assert loss(model, read, ignore=0).mean.item() == pytest.approx(expected, rel=1e-5)


# --- twin --------------------------------------------------------------------------------------
@ALL_KINDS
@pytest.mark.parametrize("chunks", [[1] * 9, [4, 1, 1, 3], [1, 8], [9]], ids=str)
def test_with_a_cache_it_is_as_without_token_by_token_and_in_chunks(config, chunks):
    model, tokens = built(config), some_tokens(2, 9)
    with torch.no_grad():
        whole = model(tokens)
        cache, parts, n_before = model.new_cache(2), [], 0
        for n_tokens in chunks:
            parts.append(model(tokens[:, n_before : n_before + n_tokens], cache=cache))
            n_before += n_tokens
            assert [part.n_tokens for part in cache] == [n_before] * 2
    assert_close(torch.cat(parts, dim=1), whole)


def padded(rows):
    """Rows of different lengths, right-aligned, and where tokens stand."""
    longest = max(map(len, rows))
    tokens = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    is_token = torch.tensor([[False] * (longest - len(row)) + [True] * len(row) for row in rows])
    return tokens, is_token, (is_token.cumsum(dim=1) - 1).clamp(min=0)


@ALL_KINDS
def test_a_left_padded_batch_is_its_rows_one_by_one_and_so_is_the_token_after(config):
    model = built(config)
    rows = [[5, 6, 7, 8, 9], [3, 4], [11]]
    tokens, is_token, positions = padded(rows)
    indices = torch.arange(tokens.shape[1])
    context = Context(positions=positions, mask=causal(indices, indices) & padding(is_token))
    next_tokens = torch.tensor([[1], [2], [3]])
    is_token = torch.cat([is_token, torch.ones(3, 1, dtype=torch.bool)], dim=1)
    one_more = Context(positions=positions[:, -1:] + 1, mask=padding(is_token))
    with torch.no_grad():
        cache = model.new_cache(3)
        first = model(tokens, context=context, cache=cache)
        second = model(next_tokens, context=one_more, cache=cache)
        for i, row in enumerate(rows):
            alone = model(torch.tensor([[*row, next_tokens[i].item()]]))[0]
            assert_close(first[i, -len(row) :], alone[:-1])
            assert_close(second[i], alone[-1:])


def steered(model, tokens, change, cache=None):
    """Logits, where what `change` makes of the first block's stream goes on in its place."""
    passing = model.layers(tokens, cache=cache)
    for n, (stream, _) in enumerate(passing):
        if n == 0:
            passing.send(0 * stream)  # what is sent in last counts, and no block is passed
            stream, _ = passing.send(change(stream))
    return model.logits(model.norm(stream))


@ALL_KINDS
def test_with_the_stream_of_another_text_sent_in_it_goes_on_as_for_that_text(config):
    model, tokens, others = built(config), some_tokens(2, 9), some_tokens(2, 9, seed=1)
    stream, _ = next(model.layers(others))
    assert torch.equal(steered(model, tokens, lambda x: stream), model(others))
    assert torch.equal(steered(model, tokens, lambda x: x), model(tokens))


@ALL_KINDS
def test_a_stream_replaced_after_block_1_goes_on_with_a_cache_as_without(config):
    model, tokens = built(config, dtype=torch.float64), some_tokens(2, 9)
    turned = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64)).Q
    with torch.no_grad():
        whole = steered(model, tokens, lambda x: x @ turned)
        cache = model.new_cache(2)
        parts = [
            steered(model, part, lambda x: x @ turned, cache)
            for part in tokens.split([4, 1, 4], dim=1)
        ]
    assert_close(torch.cat(parts, dim=1), whole, 1e-12)
    assert not torch.allclose(whole, model(tokens), rtol=0, atol=0.1)


def test_what_a_context_leaves_out_is_filled_in_and_what_it_holds_stays():
    model, tokens = built(TOY), some_tokens(2, 9)
    mask = causal(PLACES, PLACES) & (PLACES != 3)
    ffn = model.blocks[1].ffn = Adds(0.0, mixes=False)
    model(tokens)
    model(tokens, context=Context(mask=mask))
    model(tokens, context=Context(positions=PLACES + 3, tokens=tokens + 1))
    usual, masked, own = (context for _, context in ffn.given)
    assert usual.mask is None
    assert masked.mask is mask
    assert torch.equal(usual.positions, PLACES)
    assert torch.equal(usual.tokens, tokens)
    assert torch.equal(own.positions, PLACES + 3)
    assert torch.equal(own.tokens, tokens + 1)


def test_logits_of_one_place_are_those_of_all_places_there():
    for config in (TOY, KINDS["tied"]):
        model, tokens = built(config), some_tokens(2, 5)
        hidden = model.hidden(tokens)
        assert hidden.shape == (2, 5, 8)
        assert_close(model.logits(hidden[:, -1:]), model(tokens)[:, -1:])


def test_tied_embeddings_are_an_untied_model_whose_two_tables_are_equal():
    tied, untied = built(KINDS["tied"]), built(replace(KINDS["tied"], tied_embeddings=False))
    untied.load_state_dict({**tied.state_dict(), "head.weight": tied.embedding.weight})
    assert torch.equal(tied(some_tokens(1, 5)), untied(some_tokens(1, 5)))


# --- reference ---------------------------------------------------------------------------------
def llama(model):
    """transformers' Llama with our weights."""
    config, mixer = model.config, model.blocks[0].mixer
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.d_model,
            intermediate_size=model.blocks[0].ffn.down.in_features,
            num_hidden_layers=config.n_layers,
            num_attention_heads=mixer.n_heads,
            num_key_value_heads=mixer.n_kv_heads,
            head_dim=mixer.d_head,
            max_position_embeddings=config.context_length,
            rms_norm_eps=config.norm_epsilon,
            rope_parameters={"rope_type": "default", "rope_theta": config.mixer.rope.base},
            tie_word_embeddings=config.tied_embeddings,
            attn_implementation="eager",
        )
    )
    state = {
        "model.embed_tokens.weight": model.embedding.weight,
        "model.norm.weight": model.norm.weight,
        "lm_head.weight": (model.embedding if model.head is None else model.head).weight,
    }
    q, kv = mixer.n_heads * mixer.d_head, mixer.n_kv_heads * mixer.d_head
    for i, block in enumerate(model.blocks):
        wq, wk, wv = block.mixer.qkv.weight.split([q, kv, kv])
        gate, up = block.ffn.gate_up.weight.chunk(2)
        state |= {
            f"model.layers.{i}.{name}.weight": weight
            for name, weight in {
                "input_layernorm": block.mixer_norm.weight,
                "self_attn.q_proj": wq,
                "self_attn.k_proj": wk,
                "self_attn.v_proj": wv,
                "self_attn.o_proj": block.mixer.output.weight,
                "post_attention_layernorm": block.ffn_norm.weight,
                "mlp.gate_proj": gate,
                "mlp.up_proj": up,
                "mlp.down_proj": block.ffn.down.weight,
            }.items()
        }
    theirs.load_state_dict(state)
    return theirs.eval()


LLAMAS = pytest.mark.parametrize(
    "config",
    [
        TOY,
        replace(KINDS["gqa"], norm_epsilon=0.1),
        KINDS["wide-heads"],
        KINDS["tied"],
        replace(TOY, mixer=replace(GROUPED, rope=RopeConfig(base=100.0)), n_layers=3),
    ],
    ids=["toy", "gqa", "wide-heads", "tied", "base-100"],
)


@LLAMAS
def test_with_its_weights_it_is_transformers_llama(config):
    ours = built(config)
    theirs, tokens = llama(ours), some_tokens(3, 16)
    with torch.no_grad():
        assert_close(ours(tokens), theirs(tokens).logits, 1e-4)


@LLAMAS
def test_loss_and_gradients_are_those_of_transformers_llama(config):
    ours = built(config)
    theirs, tokens = llama(ours), some_tokens(3, 16)
    value, expected = loss(ours, tokens).mean, theirs(tokens, labels=tokens).loss
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    value.backward()
    expected.backward()
    grads = {name: p.grad for name, p in theirs.named_parameters()}
    assert_close(ours.embedding.weight.grad, grads["model.embed_tokens.weight"], 1e-4)
    for i, block in enumerate(ours.blocks):
        layer = f"model.layers.{i}"
        assert_close(block.mixer_norm.weight.grad, grads[f"{layer}.input_layernorm.weight"], 1e-4)
        names = [f"{layer}.self_attn.{name}_proj.weight" for name in "qkv"]
        assert_close(block.mixer.qkv.weight.grad, torch.cat([grads[n] for n in names]), 1e-4)
        assert_close(block.ffn.down.weight.grad, grads[f"{layer}.mlp.down_proj.weight"], 1e-4)


# --- law ---------------------------------------------------------------------------------------
PLACES = torch.arange(9)


def changed_places(model, mask, place):
    """Which logits of a row change when the token at `place` does."""
    tokens = some_tokens(1, 9)
    other = tokens.clone()
    other[0, place] = (other[0, place] + 1) % 19
    context = Context(positions=PLACES, mask=mask)
    with torch.no_grad():
        difference = (model(tokens, context=context) - model(other, context=context)).abs()
    return (difference.amax(dim=-1)[0] > 1e-6).tolist()


def test_one_block_three_masks_who_notices_a_changed_token():
    model = built(TOY)
    everybody = torch.ones(9, 9, dtype=torch.bool)
    first_six = prefix(PLACES, PLACES, torch.tensor([6]))
    # place 4 changes: GPT's later places notice, BERT's all, of T5's with a prefix of 6 all, too
    assert changed_places(model, None, 4) == [False] * 4 + [True] * 5
    assert changed_places(model, causal(PLACES, PLACES), 4) == [False] * 4 + [True] * 5
    assert changed_places(model, everybody, 4) == [True] * 9
    assert changed_places(model, first_six, 4) == [True] * 9
    # place 7 changes, beyond the prefix: nobody before it notices
    assert changed_places(model, first_six, 7) == [False] * 7 + [True] * 2
    assert changed_places(model, everybody, 7) == [True] * 9


@ALL_KINDS
@pytest.mark.parametrize("place", [1, 3, 8])
def test_no_mask_means_that_the_future_is_not_seen(config, place):
    changed = changed_places(built(config), None, place)
    assert changed[:place] == [False] * place
    assert changed[place]
    if config.mixer.window_tokens is None:
        assert all(changed[place:])


def test_a_window_of_three_in_two_blocks_reaches_four_tokens_back():
    changed = changed_places(built(KINDS["window-qk-norm"]), None, 2)
    assert changed == [False] * 2 + [True] * 5 + [False] * 2  # itself, and 2 more a block


def test_without_positions_the_order_of_what_was_read_does_not_matter():
    mixed = some_tokens(1, 9)[:, [4, 1, 0, 3, 2, 5, 6, 7, 8]]
    for rope, equal in ((None, True), (RopeConfig(), False)):
        model = built(replace(TOY, n_layers=1, mixer=AttentionConfig(n_heads=2, rope=rope)))
        with torch.no_grad():
            difference = (model(mixed) - model(some_tokens(1, 9)))[0, 5:].abs().max().item()
        assert (difference < 1e-5) == equal


@ALL_KINDS
def test_every_parameter_gets_a_gradient(config):
    model = built(config)
    loss(model, torch.arange(16)[None] % 19).mean.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    read = model.embedding.weight.grad.abs().sum(dim=-1) > 0
    if model.head is not None:
        assert read.tolist() == [True] * 15 + [False] * 4  # the last token is not read


@ALL_KINDS
def test_it_runs_without_numbers_in_any_type(config):
    for dtype in (torch.bfloat16, torch.float64):
        model = config.build(device="meta", dtype=dtype)
        logits = model(torch.empty(2, 9, dtype=torch.int64, device="meta"))
        assert (logits.device.type, logits.dtype) == ("meta", dtype)
        assert logits.shape == (2, 9, 19)


def test_nothing_is_made_on_a_default_device():
    model, tokens = built(TOY), some_tokens(2, 9)
    with torch.no_grad():
        expected = model(tokens)
        with torch.device("meta"):
            cache = model.new_cache(2)
            parts = [model(tokens[:, :6], cache=cache), model(tokens[:, 6:], cache=cache)]
            assert_close(torch.cat(parts, dim=1), expected)
            assert torch.equal(model(tokens), expected)
            assert loss(model, tokens).nats.device.type == "cpu"


def test_in_sixteen_bits_it_is_nearly_the_same_and_the_loss_is_of_thirty_two():
    config = replace(TOY, initial_std=0.2)
    plain, half = config.build(seed=1), config.build(seed=1, dtype=torch.bfloat16)
    tokens = some_tokens(4, 16)
    with torch.no_grad():
        assert half(tokens).dtype == torch.bfloat16
        assert_close(half(tokens).float(), plain(tokens), 0.05)
        assert loss(half, tokens).nats.dtype == torch.float32
        assert loss(half, tokens).mean.item() == pytest.approx(
            loss(plain, tokens).mean.item(), rel=0.01
        )
        assert loss(config.build(dtype=torch.float64), tokens).nats.dtype == torch.float64


def test_a_model_that_knows_nothing_costs_the_logarithm_of_the_vocabulary():
    for config in (tiny(512), replace(tiny(512), tied_embeddings=True)):
        value = loss(config.build(), some_tokens(4, 64, vocab_size=512)).mean.item()
        assert value == pytest.approx(math.log(512), abs=0.1)


def test_it_learns_what_follows_what():
    # each row counts up from where it begins, so only the first token cannot be known
    rows = (np.arange(19)[:, None] + np.arange(9)) % 19
    model = TOY.build()
    losses = fit(model, loss, draw_rows(rows, batch_size=16), n_steps=60, learning_rate=0.02)
    assert losses[0] == pytest.approx(math.log(19), abs=0.1)
    assert losses[-1] < 0.3


# --- other parts in the same blocks -------------------------------------------------------------
class MeanSoFar:
    """A state of one size: the sum of what was seen, and how many that were."""

    def __init__(self, batch_size, d_model):
        self.total, self.n_tokens = torch.zeros(batch_size, 1, d_model), 0


class RunningMean(nn.Module):
    """A mixer that is not attention: each token gets the mean of all so far."""

    residual_projections = ("output",)

    def __init__(self, d_model, **factory_kwargs):
        super().__init__()
        self.output = nn.Linear(d_model, d_model, bias=False, **factory_kwargs)

    def forward(self, x, context, cache=None):
        total, n_before = x.cumsum(dim=1), 0
        if cache is not None:
            total, n_before = total + cache.total, cache.n_tokens
            cache.total, cache.n_tokens = total[:, -1:], n_before + x.shape[1]
        n_seen = torch.arange(n_before + 1, n_before + x.shape[1] + 1, device=x.device)
        return self.output(total / n_seen[:, None])

    def new_cache(self, batch_size, max_length):
        return MeanSoFar(batch_size, self.output.in_features)


@dataclass(frozen=True)
class RunningMeanConfig:
    def build(self, d_model, context_length, *, device, dtype):
        return RunningMean(d_model, device=device, dtype=dtype)


class Choice(NamedTuple):
    """A routing that says more than is asked of it."""

    logits: torch.Tensor
    expert: torch.Tensor


class OneOfThree(nn.Module):
    """Experts that are single matrices; each token goes to the one that its router likes best."""

    def __init__(self, d_model, **factory_kwargs):
        super().__init__()
        self.router = nn.Linear(d_model, 3, bias=False, **factory_kwargs)
        self.experts = nn.ModuleList(
            nn.Linear(d_model, d_model, **factory_kwargs) for _ in range(3)
        )

    def forward(self, x, context=None):
        logits = self.router(x)
        share, expert = logits.softmax(dim=-1).max(dim=-1, keepdim=True)
        all_of_them = torch.stack([layer(x) for layer in self.experts], dim=-1)
        chosen = all_of_them.take_along_dim(expert[..., None], dim=-1)[..., 0]
        return share * chosen, Choice(logits.flatten(0, 1), expert.flatten())


@dataclass(frozen=True)
class OneOfThreeConfig:
    def build(self, d_model, *, device, dtype):
        return OneOfThree(d_model, device=device, dtype=dtype)


OTHERS = {
    "mixer": replace(TOY, mixer=RunningMeanConfig()),
    "ffn": replace(TOY, ffn=OneOfThreeConfig()),
    "both": replace(TOY, mixer=RunningMeanConfig(), ffn=OneOfThreeConfig(), tied_embeddings=True),
    "hybrid": replace(
        TOY, mixer=(RunningMeanConfig(), GROUPED), ffn=(SwiGLUConfig(), OneOfThreeConfig())
    ),
}
ALL_OTHERS = pytest.mark.parametrize("config", OTHERS.values(), ids=OTHERS.keys())


@ALL_OTHERS
def test_another_mixer_and_another_ffn_need_no_other_block(config):
    model, tokens = built(config), some_tokens(2, 9)
    whole = model(tokens)
    assert changed_places(model, None, 4) == [False] * 4 + [True] * 5
    with torch.no_grad():
        cache = model.new_cache(2)
        parts = [model(part, cache=cache) for part in tokens.split([4, 1, 4], dim=1)]
    assert_close(torch.cat(parts, dim=1), whole)
    loss(model, some_tokens(8, 16)).mean.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    assert torch.equal(config.build(seed=3)(tokens), config.build(seed=3)(tokens))


def test_another_mixer_changes_what_is_computed():
    found = {name: built(config)(some_tokens(1, 9)) for name, config in OTHERS.items()}
    values = [round(logits.abs().sum().item(), 3) for logits in found.values()]
    assert len(set(values)) == 4


def test_layers_hand_out_the_stream_and_the_routing_after_each_block():
    model, tokens = built(OTHERS["hybrid"]), some_tokens(2, 9)
    streams, routings = zip(*model.layers(tokens), strict=True)
    x = model.embedding(tokens)
    for block, stream in zip(model.blocks, streams, strict=True):
        x, _ = block(x, Context(positions=PLACES))
        assert torch.equal(stream, x)
    assert torch.equal(model.logits(model.norm(x)), model(tokens))
    assert routings[0] is None
    assert isinstance(routings[1], Routing)
    assert routings[1].logits.shape == (18, 3)
    assert torch.equal(routings[1].logits.argmax(dim=-1), routings[1].expert)


def test_other_parts_run_without_numbers_too():
    for config in OTHERS.values():
        model = config.build(device="meta")
        assert model(torch.empty(2, 9, dtype=torch.int64, device="meta")).shape == (2, 9, 19)


# --- bad input ---------------------------------------------------------------------------------
def test_a_cache_of_another_model_is_refused():
    model = TOY.build()
    with pytest.raises(ValueError, match=r"one part a block, 2 here; got 1\. Make it with"):
        model(some_tokens(1, 3), cache=model.new_cache(1)[:1])


def test_a_text_beyond_the_context_is_refused():
    model = TOY.build()
    words = r"up to 16 tokens, its context_length; got 17.*replace\(config, context_length=17\)"
    with pytest.raises(ValueError, match=words):
        model(some_tokens(1, 17))
    cache = model.new_cache(1)
    with torch.no_grad():
        model(some_tokens(1, 16), cache=cache)
        with pytest.raises(ValueError, match=words):
            model(some_tokens(1, 1), cache=cache)
    assert [part.n_tokens for part in cache] == [16, 16]


def test_a_longer_context_takes_the_same_weights():
    longer = replace(TOY, context_length=20).build(seed=1)
    longer.load_state_dict(TOY.build().state_dict())
    assert_close(longer(some_tokens(1, 20))[:, :16], TOY.build()(some_tokens(1, 20)[:, :16]))


def test_a_cache_is_made_for_the_whole_context_or_for_as_many_tokens_as_asked():
    model = TOY.build()
    assert [part.keys.shape[2] for part in model.new_cache(1)] == [16, 16]
    assert [part.keys.shape[2] for part in model.new_cache(1, 3)] == [3, 3]
    with torch.no_grad(), pytest.raises(ValueError, match="places for 3 tokens"):
        model(some_tokens(1, 4), cache=model.new_cache(1, 3))


@pytest.mark.parametrize("shape", [(2, 8, 8), (1, 9, 8), (9, 8), (2, 9, 7)], ids=str)
def test_a_stream_of_another_shape_is_refused(shape):
    passing = TOY.build().layers(some_tokens(2, 9))
    next(passing)
    words = rf"= \[2, 9, 8\] here; a stream of \[{', '.join(map(str, shape))}\]"
    with pytest.raises(ValueError, match=words):
        passing.send(torch.zeros(shape))


def test_a_row_of_one_token_has_nothing_to_predict():
    with pytest.raises(ValueError, match=r"at least 2 tokens, .* got rows of 1"):
        loss(TOY.build(), some_tokens(3, 1))
