"""Speculative decoding (推测解码): a draft guesses several tokens, the model checks them at once.

A large model that writes spends its time on fetching its weights, once for every token; to read
five tokens in one pass takes hardly longer than to read one. So somebody cheaper, the draft
(草稿模型), guesses a few tokens, and the model, the target (目标模型), reads them all in one pass.
That gives p, what it would have said itself, at every place:

    text       Mei sells
    draft                red   plums  and        three guesses, drawn from q
    target     p:        red   plums  .    …     one pass, four places
    text       Mei sells red   plums  .          two accepted, the third replaced

**The rule.** A guess x is accepted with probability min(1, p(x) / q(x)). The first that is not is
replaced by a token from the residual (残差分布), max(0, p - q) made to sum to 1: just what q gives
too little of. If all are accepted, the last place gives one more token, from p. Each token then has
the distribution p, however bad the draft is:

    min(p, q)  +  (1 - sum of min(p, q)) · residual  =  min(p, q) + max(0, p - q)  =  p

A bad draft costs time, never quality. At temperature 0 all of p is on one token, and the same rule
accepts a guess only if it is that token: the text is the greedy one.

**Chance.** Sampled tokens are distributed as those of `minillm.serve.sample`, but the same seed
gives others: random numbers are spent on guesses. Filters are applied to p and q alike, so the text
is distributed as the filtered p.

**What can be taken back.** Keys and values of a rejected guess are cut off the cache; a state that
sums up all tokens (chapter 09) cannot go back, and is refused.

Paper: Leviathan, Kalman and Matias 2023, "Fast Inference from Transformers via Speculative
Decoding", arXiv:2211.17192, section 2.3, algorithm 1 and appendix A.1 (the rule), section 3 (what
is gained; numbers of theorems from memory); Chen et al. 2023, arXiv:2302.01318, algorithm 2 (the
same rule). Theirs to ours: γ is n_drafted, M_p the target, M_q the draft.
Differs: near the end of a text fewer tokens are guessed, so that none is beyond n_tokens.

Chapter: 17
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minillm.model.cache import KVCache
from minillm.model.transformer import Transformer
from minillm.serve.draft import Draft, truncatable_cache
from minillm.serve.logits_processors import draw
from minillm.serve.sample import SampleConfig, checked_prompts, left_pad, uniform_rows


# --- the rule -----------------------------------------------------------------------------------
class Verdict(NamedTuple):
    """What is made of a row of guesses.

    Args:
        n_accepted: how many of the first guesses stay.
        next_token: the token after them.
    """

    n_accepted: Int[Tensor, "*rows"]
    next_token: Int[Tensor, "*rows"]


def accept(
    p: Float[Tensor, "*rows places V"],
    q: Float[Tensor, "*rows drafted V"],
    drafted: Int[Tensor, "*rows drafted"],
    uniforms: Float[Tensor, "*rows places"],
) -> Verdict:
    """The rule of acceptance: how many guesses stay, and which token follows them.

    Args:
        p: the target's probabilities at the place of each guess and at the one after the last.
        q: those that each guess was drawn from.
        drafted: the guesses.
        uniforms: random numbers from 0 on and below 1: one for each guess, one for the next token.

    Example:
        >>> p, q = torch.tensor([[0.5, 0.5], [0.2, 0.8]]), torch.tensor([[0.8, 0.2]])
        >>> guess = torch.tensor([0])  # accepted with probability 0.5 / 0.8
        >>> accept(p, q, guess, torch.tensor([0.6, 0.1]))  # the next is from p of the last place
        Verdict(n_accepted=tensor(1), next_token=tensor(0))
        >>> accept(p, q, guess, torch.tensor([0.7, 0.1]))  # the residual is (0, 0.3), made (0, 1)
        Verdict(n_accepted=tensor(0), next_token=tensor(1))
    """
    # 1. each guess x is accepted with probability min(1, p(x) / q(x))
    of_guess = drafted[..., None]
    p_guess = p[..., :-1, :].gather(-1, of_guess)[..., 0]
    q_guess = q.gather(-1, of_guess)[..., 0]
    accepted = uniforms[..., :-1] * q_guess < p_guess
    # 2. what comes after a rejected guess falls with it
    n_accepted = accepted.long().cumprod(dim=-1).sum(dim=-1)
    # 3. p and q at the place of the next token, [* V]; after the last guess nothing was guessed
    place = n_accepted[..., None, None]
    p_next = p.take_along_dim(place, dim=-2)[..., 0, :]
    q_next = nn.functional.pad(q, (0, 0, 0, 1)).take_along_dim(place, dim=-2)[..., 0, :]
    # 4. the next token, from the residual; that is empty only where p is q but for roundings
    residual = (p_next - q_next).clamp(min=0)
    residual = residual.where(residual.sum(dim=-1, keepdim=True) > 0, p_next)
    return Verdict(n_accepted, draw(residual.log(), uniforms[..., -1]))


# --- what is gained -----------------------------------------------------------------------------
def acceptance_rate(
    p: Float[Tensor, "*rows V"], q: Float[Tensor, "*rows V"]
) -> Float[Tensor, "*rows"]:
    """The probability β that a guess drawn from q is accepted: Σ min(p, q).

    Its mean over the places of texts is α.

    Args:
        p, q: of each token.

    Example:
        >>> acceptance_rate(torch.tensor([0.5, 0.5]), torch.tensor([0.75, 0.25]))
        tensor(0.7500)

    Paper: Leviathan et al. 2023, definition 3.1, theorem 3.5 and corollary 3.6.
    Differs: none.
    """
    return p.minimum(q).sum(dim=-1).clamp(max=1)  # more only by roundings


def expected_tokens(acceptance: float, n_drafted: int) -> float:
    """Expected tokens of a call of the target: 1 + α + … + α^γ = (1 - α^(γ+1)) / (1 - α).

    The formula takes all guesses to be accepted with the same probability, independently. In a text
    some are easy and some are not, and easy ones stand together.

    Args:
        acceptance: α, from 0 to 1.
        n_drafted: γ, guesses a call.

    Raises:
        ValueError: α or γ out of its range.

    Example:
        >>> expected_tokens(acceptance=0.5, n_drafted=2), expected_tokens(1.0, 2)
        (1.75, 3.0)

    Paper: Leviathan et al. 2023, equation (1).
    Differs: none.
    """
    if not 0 <= acceptance <= 1 or n_drafted < 0:
        raise ValueError(
            "an acceptance rate is a probability, and n_drafted a count of at least 0; got "
            f"{acceptance} and {n_drafted}"
        )
    return float(sum(acceptance**n for n in range(n_drafted + 1)))


def expected_speedup(acceptance: float, n_drafted: int, cost_ratio: float) -> float:
    """How many times as fast as without a draft: expected tokens / (γ c + 1).

    It takes a pass of the target over several tokens to last as long as over one.

    Args:
        acceptance, n_drafted: α and γ.
        cost_ratio: c, the time of a pass of the draft over that of the target.

    Raises:
        ValueError: a number out of its range.

    Example:
        >>> round(expected_speedup(acceptance=0.8, n_drafted=4, cost_ratio=0.05), 3)  # 3.3616/1.2
        2.801

    Paper: Leviathan et al. 2023, definition 3.7 and theorem 3.8.
    Differs: none.
    """
    if cost_ratio < 0:
        raise ValueError(f"cost_ratio must be at least 0, a time over a time; got {cost_ratio}")
    return expected_tokens(acceptance, n_drafted) / (n_drafted * cost_ratio + 1)


# --- the loop -----------------------------------------------------------------------------------
class Call(NamedTuple):
    """One pass of the target.

    Args:
        tokens: what it gave, without a token that ended the text.
        n_drafted, n_accepted: guesses.
    """

    tokens: tuple[int, ...]
    n_drafted: int
    n_accepted: int


@final
@dataclass(frozen=True, kw_only=True)
class Speculation:
    """A text, and what it took.

    Args:
        tokens: without the prompt and without the token that ended it.
        n_calls: passes of the target.
        n_drafted, n_accepted: guesses in all.
    """

    tokens: list[int]
    n_calls: int
    n_drafted: int
    n_accepted: int

    @property
    def tokens_per_call(self) -> float:
        """1 without a draft."""
        return len(self.tokens) / self.n_calls


def speculate(
    model: Transformer,
    draft: Draft,
    prompt: Sequence[int],
    config: SampleConfig,
    *,
    n_tokens: int,
    n_drafted: int = 4,
    stop_ids: Sequence[int] = (),
    seed: int = 0,
) -> Speculation:
    """Write on after a prompt, with guesses: exactly the target's text, in fewer passes of it.

    At temperature 0 it is the text of `minillm.serve.sample.generate`, up to the rounding of floats
    (a pass over several tokens may round otherwise than a pass over one); else a text of the same
    distribution.

    Args:
        model: the target; whether it is in train or eval mode is the caller's say.
        draft: who guesses.
        prompt: token ids.
        config: how tokens are chosen.
        n_tokens: how many to write at most.
        n_drafted: γ, how many to guess at a time.
        stop_ids: tokens that end the text.
        seed: decides all random choices.

    Raises:
        ValueError: as for `generate`; n_drafted below 1; a draft of another vocabulary or with too
            short a context; a mixer that cannot go back.

    Example:
        >>> from minillm.model.config import tiny
        >>> from minillm.serve.draft import ModelDraft
        >>> from minillm.serve.sample import generate
        >>> model, greedy = tiny(vocab_size=50).build(seed=0), SampleConfig(temperature=0)
        >>> result = speculate(model, ModelDraft(model), [7, 3, 9], greedy, n_tokens=10)
        >>> result.tokens == generate(model, [[7, 3, 9]], greedy, n_tokens=10)[0]
        True
        >>> result.n_calls, result.n_accepted, result.tokens_per_call  # it guesses its own tokens
        (2, 8, 5.0)
    """
    options = {"n_tokens": n_tokens, "n_drafted": n_drafted, "stop_ids": stop_ids, "seed": seed}
    calls = list(stream_calls(model, draft, prompt, config, **options))
    return Speculation(
        tokens=[token for call in calls for token in call.tokens],
        n_calls=len(calls),
        n_drafted=sum(call.n_drafted for call in calls),
        n_accepted=sum(call.n_accepted for call in calls),
    )


def stream_calls(
    model: Transformer,
    draft: Draft,
    prompt: Sequence[int],
    config: SampleConfig,
    *,
    n_tokens: int,
    n_drafted: int = 4,
    stop_ids: Sequence[int] = (),
    seed: int = 0,
) -> Iterator[Call]:
    """Write on after a prompt, pass by pass: what `speculate` gives, as it comes.

    Arguments are checked at once, not at the first pass.

    Args:
        model, draft, prompt, config, n_tokens, n_drafted, stop_ids, seed: as for `speculate`.

    Raises:
        ValueError: as for `speculate`.
    """
    (text,) = checked_prompts(model, [prompt], config, n_tokens, stop_ids)
    left_pad([text])  # refuses an empty prompt
    vocab_size = len(model.embedding.weight)
    if n_drafted < 1:
        raise ValueError(f"n_drafted must be at least 1, guesses at a time; got {n_drafted}")
    if draft.vocab_size != vocab_size:
        raise ValueError(
            f"the draft must have the model's vocabulary of {vocab_size:,} tokens; its own has "
            f"{draft.vocab_size:,}. Take a draft that was trained with the model's tokenizer"
        )
    max_length = len(text) + n_tokens
    cache = truncatable_cache("the model", model, max_length)
    draft_cache = draft.new_cache(max_length)
    uniforms = uniform_rows(seed, 0, n_tokens, 2 * n_drafted + 1)  # a row a call
    uniforms = uniforms.to(model.embedding.weight.device)
    return _calls(model, draft, text, config, uniforms, cache, draft_cache, frozenset(stop_ids))


def _calls(
    model: Transformer,
    draft: Draft,
    text: list[int],
    config: SampleConfig,
    uniforms: Tensor,
    cache: list[KVCache],
    draft_cache: list[Any],
    stops: frozenset[int],
) -> Iterator[Call]:
    end, most = len(text) + len(uniforms), uniforms.shape[1] // 2
    for numbers in uniforms:
        with torch.inference_mode():  # not around yield: between two calls the caller's mode rules
            # 1. guesses, one fewer than there is room for
            guess = draft.propose(text, config, numbers[: end - len(text) - 1][:most], draft_cache)
            n = len(guess.tokens)
            # 2. one pass over what was not read yet and all guesses: p at n + 1 places
            unread = torch.tensor(text[cache[0].n_tokens :], device=numbers.device)
            tokens = torch.cat((unread, guess.tokens))[None]
            hidden = model.hidden(tokens, cache=cache)[:, -n - 1 :]
            p = config.probabilities(model.logits(hidden)[0])
            # 3. those that stay, and one more token
            verdict = accept(p, guess.q.to(p.dtype), guess.tokens, numbers[most:][: n + 1])
            n_accepted = int(verdict.n_accepted)
            new = [*guess.tokens[:n_accepted].tolist(), int(verdict.next_token)]
            text = text + new
            # 4. what was read of rejected guesses is taken back; the last token is unread
            for part in (*cache, *draft_cache):
                part.truncate(min(part.n_tokens, len(text) - 1))
        yield Call(tuple(takewhile(lambda token: token not in stops, new)), n, n_accepted)
        if len(text) == end or not stops.isdisjoint(new):
            return
