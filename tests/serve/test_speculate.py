"""minillm.serve.speculate: the target's own text, in fewer passes."""

from dataclasses import replace
from types import SimpleNamespace

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from transformers import AutoModelForCausalLM

from minillm.formats.hf import save
from minillm.mixers.mamba import MambaConfig
from minillm.model.attention import AttentionConfig
from minillm.model.cache import KVCache
from minillm.model.config import TransformerConfig
from minillm.serve.draft import ModelDraft, PromptLookup
from minillm.serve.logits_processors import draw
from minillm.serve.sample import SampleConfig, generate
from minillm.serve.speculate import (
    Call,
    accept,
    acceptance_rate,
    expected_speedup,
    expected_tokens,
    speculate,
    stream_calls,
)

GREEDY = SampleConfig(temperature=0)
TOY = TransformerConfig(
    vocab_size=19, context_length=32, d_model=8, n_layers=2, mixer=AttentionConfig(n_heads=2)
)
SMALLER = replace(TOY, n_layers=1)
KINDS = (
    TOY,
    replace(TOY, mixer=AttentionConfig(n_heads=4, n_kv_heads=2), tied_embeddings=True),
    replace(TOY, mixer=AttentionConfig(window_tokens=3, qk_norm=True)),
)


def built(config=TOY, seed=0, dtype=torch.float32):
    """A model whose weights are large enough to make a difference."""
    model = config.build(seed=seed).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
            if parameter.ndim == 1:
                parameter.add_(1)
    return model


def random_p(*shape, seed):
    """Distributions over the last axis, some tokens of which are next to impossible."""
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(shape, generator=generator)).softmax(dim=-1)


def blocks_of(rule, p, q, batch_size=40_000):
    """Many rows of guesses drawn from q, and what the rule makes of each: tokens, and how many."""
    n_drafted, generator = len(q), torch.Generator().manual_seed(1)
    uniforms = torch.rand(batch_size, 2 * n_drafted + 1, generator=generator)
    p, q = p.expand(batch_size, -1, -1), q.expand(batch_size, -1, -1)
    drafted = draw(q.log(), uniforms[:, :n_drafted])
    n_accepted, next_token = rule(p, q, drafted, uniforms[:, n_drafted:])
    tokens = torch.nn.functional.pad(drafted, (0, 1))
    return tokens.scatter(1, n_accepted[:, None], next_token[:, None]), n_accepted


def p_values(rule, p, q):
    """Of the i-th token, among the rows that have one: is it distributed as p at place i?"""
    tokens, n_accepted = blocks_of(rule, p, q)
    values = []
    for place, expected in enumerate(p.double()):
        chosen = tokens[n_accepted >= place, place]
        counts = chosen.bincount(minlength=len(expected))
        values.append(chisquare(counts, len(chosen) * expected / expected.sum()).pvalue)
    return values


# --- by hand ------------------------------------------------------------------------------------
def test_a_guess_is_accepted_with_probability_p_over_q_and_the_rest_falls_with_a_rejected_one():
    p = torch.tensor([[0.5, 0.5, 0.0], [0.1, 0.1, 0.8], [0.0, 1.0, 0.0]])
    q = torch.tensor([[0.8, 0.2, 0.0], [0.1, 0.4, 0.5]])
    drafted = torch.tensor([0, 2])  # accepted below 5/8, and always
    uniforms = torch.tensor([[0.62, 0.99, 0.5], [0.63, 0.0, 0.5], [0.0, 0.0, 0.99]])
    verdict = accept(p.expand(3, 3, 3), q.expand(3, 2, 3), drafted.expand(3, 2), uniforms)
    assert verdict.n_accepted.tolist() == [2, 0, 2]
    assert verdict.next_token.tolist() == [1, 1, 1]  # from p of the last place; from (0, 0.3, 0)


def test_an_impossible_token_is_rejected_whatever_the_random_number():
    p, q = torch.tensor([[0.0, 1.0], [0.5, 0.5]]), torch.tensor([[1.0, 0.0]])
    assert accept(p, q, torch.tensor([0]), torch.tensor([0.0, 0.0])) == (0, 1)


def test_where_p_is_q_but_for_roundings_a_rejection_draws_from_p():
    p = torch.tensor([[0.25, 0.25, 0.25], [1.0, 0.0, 0.0]])  # sums to less than 1, as if rounded
    q = torch.full((1, 3), 1 / 3)
    assert accept(p, q, torch.tensor([0]), torch.tensor([0.9, 0.9])) == (0, 2)


def test_what_is_gained_by_the_papers_formulas():
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.1, 0.3, 0.6])
    assert acceptance_rate(p, q).item() == pytest.approx(0.6)
    assert expected_tokens(0.8, 5) == pytest.approx((1 - 0.8**6) / (1 - 0.8))
    assert (expected_tokens(0, 5), expected_tokens(1, 5)) == (1, 6)
    assert expected_speedup(0.8, 5, 0.0) == expected_tokens(0.8, 5)
    assert expected_speedup(0.0, 5, 0.2) == pytest.approx(0.5)


# --- twin ---------------------------------------------------------------------------------------
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_greedy_text_is_that_of_generate_whoever_guesses(data):
    seed = data.draw(st.integers(0, 99))
    target = built(data.draw(st.sampled_from(KINDS)), seed, torch.float64)
    other = built(SMALLER, seed + 1, torch.float64)
    drafts = ModelDraft(other), ModelDraft(target), PromptLookup(vocab_size=19)
    draft = data.draw(st.sampled_from(drafts))
    prompt = data.draw(st.lists(st.integers(0, 18), min_size=1, max_size=12))
    options = {
        "n_tokens": data.draw(st.integers(1, 20)),
        "stop_ids": data.draw(st.lists(st.integers(0, 18), max_size=2)),
    }
    n_drafted = data.draw(st.integers(1, 6))
    result = speculate(target, draft, prompt, GREEDY, n_drafted=n_drafted, **options)
    assert result.tokens == generate(target, [prompt], GREEDY, **options)[0]
    assert result.n_accepted <= result.n_drafted <= n_drafted * result.n_calls


def test_a_draft_that_is_the_target_is_never_wrong():
    model = built(dtype=torch.float64)
    for config in (GREEDY, SampleConfig(top_p=0.9)):
        result = speculate(model, ModelDraft(model), [3, 4], config, n_tokens=20, n_drafted=4)
        assert (result.n_calls, result.n_drafted, result.n_accepted) == (4, 16, 16)
        assert result.tokens_per_call == 5


def test_a_stop_token_inside_a_block_ends_the_text_there():
    model = built(dtype=torch.float64)
    written = generate(model, [[3, 4]], GREEDY, n_tokens=20)[0]
    place = next(i for i in range(2, 20) if i % 5 in (1, 2, 3) and written[i] not in written[:i])
    stop_ids = [written[place]]
    result = speculate(model, ModelDraft(model), [3, 4], GREEDY, n_tokens=20, stop_ids=stop_ids)
    assert result.tokens == written[:place]
    assert result.n_calls == place // 5 + 1  # five tokens a call, and none after that


def test_the_last_block_is_no_longer_than_there_is_room_for():
    model = built()
    calls = list(stream_calls(model, ModelDraft(model), [3] * 24, GREEDY, n_tokens=8, n_drafted=4))
    assert [(len(call.tokens), call.n_drafted) for call in calls] == [(5, 4), (3, 2)]
    alone = speculate(model, ModelDraft(model), [3], GREEDY, n_tokens=1)
    assert (len(alone.tokens), alone.n_calls, alone.n_drafted) == (1, 1, 0)


# --- reference ----------------------------------------------------------------------------------
def test_greedy_text_is_that_of_assisted_generation_in_transformers(tmp_path):
    ours, smaller = built(), built(SMALLER, seed=1)
    save(ours, tmp_path / "target")
    save(smaller, tmp_path / "draft")
    theirs, assistant = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("target", "draft")
    )
    tokens = torch.tensor([[5, 6, 7, 5, 6]])
    options = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0}
    options["attention_mask"] = torch.ones_like(tokens)
    for draft, assisted in (
        (ModelDraft(smaller), {"assistant_model": assistant}),
        (PromptLookup(vocab_size=19), {"prompt_lookup_num_tokens": 4}),
    ):
        expected = theirs.generate(tokens, **assisted, **options)[0, 5:].tolist()
        assert speculate(ours, draft, tokens[0].tolist(), GREEDY, n_tokens=20).tokens == expected


# --- law ----------------------------------------------------------------------------------------
P, Q = random_p(4, 7, seed=0), random_p(3, 7, seed=1)
CERTAIN = torch.nn.functional.one_hot(P[:3].argmax(dim=-1), 7).float()


@pytest.mark.parametrize("q", [Q, CERTAIN, P[:3]], ids=["another model", "certain", "the same"])
def test_accepted_and_replaced_tokens_together_are_distributed_as_p(q):
    assert min(p_values(accept, P, q)) > 0.01


def test_a_replacement_from_p_in_place_of_the_residual_would_be_seen():
    def wrong(p, q, drafted, uniforms):
        verdict = accept(p, q, drafted, uniforms)
        place = verdict.n_accepted[:, None, None]
        p_next = p.take_along_dim(place, dim=-2)[:, 0]
        return verdict._replace(next_token=draw(p_next.log(), uniforms[:, -1]))

    assert max(p_values(wrong, P, Q)[:3]) < 1e-6


def test_guesses_are_accepted_as_often_as_the_rate_says_and_give_the_expected_tokens():
    p, q = P[:1].expand(4, -1), Q[:1].expand(3, -1)
    alpha = acceptance_rate(p[0], q[0]).item()
    _, n_accepted = blocks_of(accept, p, q)
    n_tokens = 1 + n_accepted.double()
    first = (n_accepted > 0).double()
    for measured, expected in ((first, alpha), (n_tokens, expected_tokens(alpha, n_drafted=3))):
        error = measured.std().item() / len(measured) ** 0.5
        assert abs(measured.mean().item() - expected) < 4 * error


class Sums:
    """A model whose next token depends on the sum of all tokens so far, which its cache keeps."""

    context_length = 32

    def __init__(self, seed):
        self.table = random_p(5, 5, seed=seed).log()
        self.embedding = SimpleNamespace(weight=self.table)
        self.blocks = [SimpleNamespace(mixer=None)]

    def new_cache(self, batch_size, max_length):
        return [KVCache(batch_size, 1, max_length, 1)]

    def hidden(self, tokens, *, cache):
        new = tokens[:, None, :, None].float()
        kept, _ = cache[0].append(new, new)
        return kept.cumsum(dim=2)[:, 0, -tokens.shape[1] :]

    def logits(self, hidden):
        return self.table[hidden[..., 0].long() % 5]


def test_whole_sampled_texts_have_the_distribution_of_the_filtered_target(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # thousands of runs, unchecked
    target, draft = Sums(seed=2), ModelDraft(Sums(seed=3))
    config, prompt = SampleConfig(temperature=1.2, top_k=4), [1, 3, 1]
    p = config.probabilities(target.table).double()
    first = p[sum(prompt) % 5]
    second = p[[(sum(prompt) + token) % 5 for token in range(5)]]
    expected = (first[:, None] * second).flatten()
    counts, n_runs = torch.zeros(25), 2000
    for seed in range(n_runs):
        written = speculate(target, draft, prompt, config, n_tokens=3, n_drafted=2, seed=seed)
        counts[5 * written.tokens[0] + written.tokens[1]] += 1
    possible = expected > 0
    assert counts[~possible].sum() == 0
    expected = n_runs * expected[possible] / expected.sum()
    assert chisquare(counts[possible].double(), expected).pvalue > 0.01


def test_calls_come_one_at_a_time():
    model = built()
    calls = stream_calls(model, ModelDraft(model), [3, 4], GREEDY, n_tokens=9, n_drafted=2)
    whole = generate(model, [[3, 4]], GREEDY, n_tokens=9)[0]
    assert next(calls) == Call(tokens=tuple(whole[:3]), n_drafted=2, n_accepted=2)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert [token for call in calls for token in call.tokens] == whole[3:]


# --- bad input ----------------------------------------------------------------------------------
HYBRID = replace(TOY, mixer=(AttentionConfig(n_heads=2), MambaConfig(d_state=2)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_drafted": 0}, "n_drafted must be at least 1"),
        ({"prompt": []}, "a prompt must have at least one token"),
        ({"n_tokens": 31}, "at most 30 may still be generated"),
        ({"draft": PromptLookup(vocab_size=20)}, "vocabulary of 19 tokens; its own has 20"),
        ({"model": built(HYBRID)}, "block 1 of the model is Mamba, whose State cannot go back"),
        ({"draft": ModelDraft(built(HYBRID))}, "block 1 of the draft is Mamba"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_first_call(change, words):
    arguments = {"model": built(), "draft": ModelDraft(built()), "prompt": [3, 4], "n_tokens": 4}
    with pytest.raises(ValueError) as error:
        stream_calls(**{**arguments, "config": GREEDY, **change})
    assert words in str(error.value)


def test_numbers_out_of_range_are_named():
    with pytest.raises(ValueError, match="an acceptance rate is a probability"):
        expected_tokens(1.5, 3)
    with pytest.raises(ValueError, match="cost_ratio must be at least 0"):
        expected_speedup(0.5, 3, -1)
