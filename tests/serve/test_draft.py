"""minillm.serve.draft: guesses are drawn from the q that comes with them, and can be taken back."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.serve.draft import ModelDraft, PromptLookup
from minillm.serve.sample import SampleConfig, generate

GREEDY = SampleConfig(temperature=0)
TOY = TransformerConfig(
    vocab_size=19, context_length=32, d_model=8, n_layers=2, initial_std=0.5,
    mixer=AttentionConfig(n_heads=2),
)  # fmt: skip
TEXT = [5, 6, 7, 5, 6]


def lookup(text, n_guesses, max_ngram=2):
    draft = PromptLookup(vocab_size=19, max_ngram=max_ngram)
    guess = draft.propose(text, SampleConfig(), torch.rand(n_guesses), draft.new_cache(32))
    assert torch.equal(guess.q, torch.nn.functional.one_hot(guess.tokens, 19).float())
    return guess.tokens.tolist()


# --- by hand ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "n_guesses", "expected"),
    [
        ([5, 6, 7, 8, 5, 6], 3, [7, 8, 5]),
        ([5, 6, 7, 8, 5, 6], 9, [7, 8, 5, 6]),  # to the end of the text, and no further
        ([6, 1, 5, 6, 2, 5, 6], 2, [2, 5]),  # two tokens fit better than the one at the beginning
        ([6, 1, 6, 2, 6], 1, [1]),  # the first place
        ([4, 4, 4], 5, [4]),  # a place may overlap with the end
        ([1, 2, 3], 4, []),
        ([1], 4, []),
        ([5, 6, 5], 0, []),
    ],
)
def test_a_guess_is_what_followed_the_last_tokens_before(text, n_guesses, expected):
    assert lookup(text, n_guesses) == expected


def test_the_longest_ngram_is_looked_up():
    text = [2, 3, 9, 1, 2, 3, 8, 1, 2, 3]
    assert lookup(text, 1, max_ngram=2) == [9]
    assert lookup(text, 1, max_ngram=3) == [8]


# --- twin ---------------------------------------------------------------------------------------
def test_a_models_greedy_guesses_are_its_own_text():
    model = TOY.build(seed=1)
    draft = ModelDraft(model)
    guess = draft.propose(TEXT, GREEDY, torch.rand(4), draft.new_cache(9))
    assert guess.tokens.tolist() == generate(model, [TEXT], GREEDY, n_tokens=4)[0]
    assert torch.equal(guess.q.argmax(dim=-1), guess.tokens)


def test_q_is_the_models_filtered_distribution_at_each_guess():
    model, config = TOY.build(seed=1), SampleConfig(temperature=0.7, top_k=5)
    draft = ModelDraft(model)
    guess = draft.propose(TEXT, config, torch.tensor([0.1, 0.9, 0.5]), draft.new_cache(9))
    with torch.no_grad():
        logits = model(torch.tensor([[*TEXT, *guess.tokens.tolist()]]))[0, len(TEXT) - 1 : -1]
    assert torch.allclose(guess.q, config.probabilities(logits), atol=1e-6)


def test_after_guesses_are_taken_back_it_guesses_as_if_they_had_never_been():
    draft = ModelDraft(TOY.build(seed=1))
    cache, uniforms = draft.new_cache(16), torch.rand(4)
    draft.propose(TEXT, SampleConfig(), uniforms, cache)
    assert cache[0].n_tokens == len(TEXT) + 3  # the last guess is not read
    longer = [*TEXT, 9, 11]
    for part in cache:
        part.truncate(len(TEXT))
    guess = draft.propose(longer, SampleConfig(), uniforms, cache)
    fresh = draft.propose(longer, SampleConfig(), uniforms, draft.new_cache(16))
    assert torch.equal(guess.tokens, fresh.tokens)
    assert torch.allclose(guess.q, fresh.q, atol=1e-6)


# --- law ----------------------------------------------------------------------------------------
def test_guesses_are_drawn_from_q():
    draft = ModelDraft(replace(TOY, vocab_size=5, initial_std=0.2).build(seed=1))
    counts, n_numbers = torch.zeros(5), 40
    for number in (torch.arange(n_numbers) + 0.5) / n_numbers:  # evenly from 0 to 1
        guess = draft.propose([1, 2], SampleConfig(), number[None], draft.new_cache(3))
        counts[guess.tokens] += 1
    assert torch.allclose(counts, n_numbers * guess.q[0], atol=1)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(1, 4), st.integers(0, 5))
def test_what_is_looked_up_stands_in_the_text_after_the_same_token(text, max_ngram, n_guesses):
    guess = lookup(text, n_guesses, max_ngram)
    after = [text[i + 1 :][: len(guess)] for i in range(len(text) - 1) if text[i] == text[-1]]
    assert guess in after if guess else not after or not n_guesses
    assert len(guess) <= n_guesses


# --- bad input ----------------------------------------------------------------------------------
def test_a_draft_with_too_short_a_context_is_refused():
    with pytest.raises(ValueError, match=r"reads texts of up to 32 tokens.*new tokens are 33"):
        ModelDraft(TOY.build()).new_cache(33)


def test_counts_below_one_are_refused():
    for counts in ({"vocab_size": 0}, {"vocab_size": 5, "max_ngram": 0}):
        with pytest.raises(ValueError, match="vocab_size and max_ngram must be at least 1"):
            PromptLookup(**counts)
