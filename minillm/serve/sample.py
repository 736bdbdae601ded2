"""Writing text: read the prompt in one pass, choose a token, read it, choose the next, and so on.

    prompt   Mei sells red          one pass; keys and values stay in the cache
    step 0                plums     chosen from the logits of the last place, then read alone
    step 1                      .   likewise

`generate` does it for many prompts at once. Shorter ones are filled up on the left (左填充, left
padding), so that all rows have their last token in the last column; padding are seen by nobody,
and positions are counted from each row's own first token:

    tokens            positions        what the new token sees
    5 6 7 8           0 1 2 3          5 6 7 8
    · · 3 4           0 0 0 1              3 4

`stream` does it for one prompt and hands each token out as soon as it is chosen. Both run the same
loop.

**Chance.** Row r of seed s has random numbers of its own, a function of (s, r) alone. So a row's
text depends neither on how many rows there are, nor on what they say or how long they are, up to
the rounding of floats; and a shorter text is the beginning of a longer one.

Chapter: 04
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import takewhile
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from minillm.baselines.ngram import checked_tokens
from minillm.model.attention import Context
from minillm.model.masks import causal, padding
from minillm.model.transformer import Transformer
from minillm.serve import logits_processors


@final
@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How the next token is chosen; see `minillm.serve.logits_processors`.

    Args:
        temperature: 1 for the model's own probabilities; 0 takes the likeliest always (greedy).
        top_k: from how many of the likeliest; None for no such limit.
        top_p: from the fewest that have this probability together; 1 for no such limit.
        min_p: from those at least this share as likely as the likeliest; 0 for no such limit.
        suppress_tokens: ids that are never chosen, such as those of a padded table's last rows,
            which no token of the tokenizer has.

    Raises:
        ValueError: a number out of its range; the message says which.

    Example:
        >>> config = SampleConfig(temperature=0.5, top_k=2)
        >>> config.filtered(torch.tensor([0.5, 0.4, 0.1]).log()).softmax(dim=-1)  # 25 : 16
        tensor([0.6098, 0.3902, 0.0000])
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    suppress_tokens: tuple[int, ...] = ()

    def __post_init__(self):
        self.filtered(torch.zeros(1, device="cpu"))  # each filter says what is wrong with a number

    def filtered(self, logits: Float[Tensor, "*rows V"]) -> Float[Tensor, "*rows V"]:
        """Logits after all four filters, in the order of the fields."""
        logits = logits_processors.temperature(logits, self.temperature)
        if self.top_k is not None:
            logits = logits_processors.top_k(logits, self.top_k)
        return logits_processors.min_p(logits_processors.top_p(logits, self.top_p), self.min_p)

    def choose(
        self, logits: Float[Tensor, "*rows V"], uniform: Float[Tensor, "*rows"]
    ) -> Int[Tensor, "*rows"]:
        """One token for each row of logits.

        Args:
            logits: of each token.
            uniform: a random number for each row, from 0 on and below 1; not read where the
                temperature is 0.

        Raises:
            ValueError: a row whose largest logit is NaN or infinite.
        """
        logits = self._allowed(logits)
        if self.temperature == 0:
            return logits.argmax(dim=-1)
        return logits_processors.draw(self.filtered(logits.float()), uniform)

    def probabilities(self, logits: Float[Tensor, "*rows V"]) -> Float[Tensor, "*rows V"]:
        """The distribution that `choose` draws from: 1 for the likeliest at temperature 0.

        Args:
            logits: of each token.

        Raises:
            ValueError: as for `choose`.

        Example:
            >>> logits = torch.tensor([0.5, 0.3, 0.2]).log()
            >>> SampleConfig(suppress_tokens=(1,)).probabilities(logits)  # 5 : 2
            tensor([0.7143, 0.0000, 0.2857])
            >>> SampleConfig(temperature=0).probabilities(logits)
            tensor([1., 0., 0.])
        """
        logits = self._allowed(logits)
        wide = logits if self.temperature == 0 else logits.float()
        return self.filtered(wide).softmax(dim=-1)

    def _allowed(self, logits: Tensor) -> Tensor:
        """Logits without the suppressed tokens, if a token can be chosen by them."""
        if self.suppress_tokens:
            ids = torch.tensor(self.suppress_tokens, device=logits.device)
            logits = logits.index_fill(-1, ids, -torch.inf)
        _check_largest(logits.amax(dim=-1))
        return logits


def generate(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    config: SampleConfig,
    *,
    n_tokens: int,
    stop_ids: Sequence[int] = (),
    seed: int = 0,
    first_row: int = 0,
    compiled: bool = False,
    context: Context | None = None,
    new_cache: Callable[[int, int], list[Any]] | None = None,
) -> list[list[int]]:
    """Write on after each prompt, all at once.

    Args:
        model: whether it is in train or eval mode is the caller's say.
        prompts: rows of token ids, of any lengths.
        config: how tokens are chosen.
        n_tokens: how many to write at most.
        stop_ids: tokens that end a row. Rows that have ended run along until all have.
        seed: with the number of a row, decides all its random choices.
        first_row: the number of the first prompt, where many prompts are done in several calls.
        compiled: translate the step for one more token by `torch.compile`, which needs a C++
            compiler and half a minute the first time, and again for another model or for one row
            in place of several. Worth it for thousands of steps: small models, whose steps are
            mostly Python's time, then write two to three times as fast.
        context: what the model is told besides positions and mask, such as the domain of each text.
        new_cache: makes the cache from batch_size and max_length; None for `model.new_cache`.

    Returns:
        What was written in each row, without the prompt and without the token that ended it: a row
        of fewer than `n_tokens` was ended.

    Raises:
        ValueError: no prompt, or an empty one; a token outside the vocabulary; prompt and new
            tokens beyond the model's context; a count below its range; logits that are NaN or
            infinite, at the first token for which they are.

    Example:
        >>> from minillm.model.config import tiny
        >>> model = tiny(vocab_size=50).build(seed=0)
        >>> rows = generate(model, [[7, 3, 9], [4]], SampleConfig(top_p=0.9), n_tokens=5)
        >>> [len(row) for row in rows]
        [5, 5]
        >>> rows[1:] == generate(model, [[4]], SampleConfig(top_p=0.9), n_tokens=5, first_row=1)
        True
    """
    steps = _begin(
        model, prompts, config, n_tokens, stop_ids, seed, first_row, context, compiled, new_cache
    )
    stops, running, chosen = set(stop_ids), set(range(len(prompts))), []
    for tokens in steps:
        chosen.append(tokens)
        if stops:
            running -= {row for row, (token,) in enumerate(tokens.tolist()) if token in stops}
            if not running:
                break
    rows = torch.cat(chosen, dim=1).tolist()
    return [list(takewhile(lambda token: token not in stops, row)) for row in rows]


def stream(
    model: Transformer,
    prompt: Sequence[int],
    config: SampleConfig,
    *,
    n_tokens: int,
    stop_ids: Sequence[int] = (),
    seed: int = 0,
    row: int = 0,
    context: Context | None = None,
) -> Iterator[int]:
    """Write on after one prompt, token by token: what `generate` gives, as it comes.

    Who asks for no more tokens ends it. Arguments are checked at once, not at the first token.

    Args:
        model, prompt, config, n_tokens, stop_ids, seed, context: as for `generate`.
        row: which row of a `generate` with this seed it is to equal.

    Raises:
        ValueError: as for `generate`.

    Example:
        >>> from minillm.model.config import tiny
        >>> model, greedy = tiny(vocab_size=50).build(seed=0), SampleConfig(temperature=0)
        >>> tokens = stream(model, [7, 3, 9], greedy, n_tokens=5)
        >>> [next(tokens), *tokens] == generate(model, [[7, 3, 9]], greedy, n_tokens=5)[0]
        True
    """
    steps = _begin(model, [prompt], config, n_tokens, stop_ids, seed, row, context)
    stops = set(stop_ids)
    return takewhile(lambda token: token not in stops, (tokens.item() for tokens in steps))


def left_pad(prompts: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "B T"], list[int]]:
    """Rows of equal length, filled up on the left with 0, and how many padding each has.

    Raises:
        ValueError: no prompt, or one without a token, which would be a row of padding alone.

    Example:
        >>> tokens, n_padding = left_pad([[5, 6, 7], [3]])
        >>> tokens.tolist(), n_padding
        ([[5, 6, 7], [0, 0, 3]], [0, 2])
    """
    if not len(prompts):
        raise ValueError("there must be at least one prompt, a list of token ids; got none")
    for row, prompt in enumerate(prompts):
        if not len(prompt):
            raise ValueError(
                "a prompt must have at least one token to write on after, and a row of padding "
                f"alone has none; prompts[{row}] is empty. Begin it with a token that stands at "
                "the beginning of texts"
            )
    longest = max(map(len, prompts))
    n_padding = [longest - len(prompt) for prompt in prompts]
    rows = [[0] * n + list(prompt) for n, prompt in zip(n_padding, prompts, strict=True)]
    return torch.tensor(rows, device="cpu"), n_padding


def uniform_rows(
    seed: int, first_row: int, batch_size: int, n_numbers: int
) -> Float[Tensor, "B numbers"]:
    """Random numbers from 0 on and below 1: row by row a stream of its own.

    Args:
        seed: with the number of a row, decides its numbers.
        first_row: the number of the first row.
        batch_size: B.
        n_numbers: of each row; more of them begin with the same.

    Raises:
        ValueError: a seed or a row below 0.
    """
    if seed < 0 or first_row < 0:
        raise ValueError(
            "a seed and the number of a row must be whole numbers of at least 0; got "
            f"seed {seed} and row {first_row}"
        )
    streams = [np.random.default_rng([seed, first_row + row]) for row in range(batch_size)]
    numbers = [stream.random(n_numbers, dtype=np.float32) for stream in streams]
    return torch.from_numpy(np.stack(numbers))


# --- the loop -----------------------------------------------------------------------------------
def _begin(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    config: SampleConfig,
    n_tokens: int,
    stop_ids: Sequence[int],
    seed: int,
    first_row: int,
    context: Context | None,
    compiled: bool = False,
    new_cache: Callable[[int, int], list[Any]] | None = None,
) -> Iterator[Tensor]:
    """Check everything, then hand out the loop; the cache is made outside of its mode."""
    prompts = checked_prompts(model, prompts, config, n_tokens, stop_ids)
    tokens, n_padding = left_pad(prompts)
    uniforms = uniform_rows(seed, first_row, len(prompts), n_tokens)
    device = model.embedding.weight.device
    n_places = tokens.shape[1] + n_tokens - 1  # the last token is never read
    # One place more: slices of a full cache are contiguous, which a compiled step would notice.
    cache = (new_cache or model.new_cache)(len(prompts), n_places + 1)
    contexts = _contexts(
        Context() if context is None else context,
        torch.tensor(n_padding, device="cpu"),
        tokens.shape[1],
        n_places,
        device,
    )
    read_one = _compiled() if compiled else _read
    return _steps(model, tokens.to(device), contexts, cache, config, uniforms.to(device), read_one)


def _steps(
    model: Transformer,
    tokens: Tensor,
    contexts: Iterator[Context],
    cache: list,
    config: SampleConfig,
    uniforms: Tensor,
    read_one: Callable[..., Tensor],
) -> Iterator[Tensor]:
    """The next token of each row, [B, 1], as often as there are contexts."""
    for step, context in enumerate(contexts):
        with torch.inference_mode():  # not around yield: between two tokens the caller's mode rules
            read = _read if step == 0 else read_one  # first the prompt, of any length
            logits = read(model, tokens, context, cache)
            try:
                tokens = config.choose(logits, uniforms[:, step : step + 1])
            except ValueError as error:
                raise ValueError(f"new token {step}: {error}") from None
        yield tokens


def _read(model: Transformer, tokens: Tensor, context: Context, cache: list) -> Tensor:
    """Logits of the token after the last one, [B, 1, V]."""
    return model.logits(model.hidden(tokens, context=context, cache=cache)[:, -1:])


@cache
def _compiled() -> Callable[..., Tensor]:
    """`_read` as one program, in which the number of tokens in the cache is a variable.

    Each model, and one row as against several, has a program of its own.
    """
    return torch.compile(_read, dynamic=True, recompile_limit=64)


def _contexts(
    given: Context,
    n_padding: Int[Tensor, "B"],
    n_prompt: int,
    n_places: int,
    device: torch.device,
) -> Iterator[Context]:
    """What the model is told: of the whole prompt, then of one new token after the other.

    Positions are copies: a view would tell a compiled step where in memory it begins, a number more
    to depend on.
    """
    indices = torch.arange(n_places, device=device)
    spans = [(0, n_prompt), *((n, n + 1) for n in range(n_prompt, n_places))]
    if not n_padding.any():  # no mask: much faster than one that hides nothing
        for first, end in spans:
            yield replace(given, positions=indices[first:end].clone())
        return
    n_padding = n_padding[:, None].to(device)
    positions = (indices - n_padding).clamp(min=0)
    is_token = padding(indices >= n_padding)
    for first, end in spans:
        mask = is_token[..., :end]
        if first == 0:
            mask = mask & causal(indices[:end], indices[:end])
        yield replace(given, positions=positions[:, first:end].clone(), mask=mask)


# --- what can be wrong --------------------------------------------------------------------------
def checked_prompts(
    model: Transformer,
    prompts: Sequence[Sequence[int]],
    config: SampleConfig,
    n_tokens: int,
    stop_ids: Sequence[int],
) -> list[list[int]]:
    """The prompts as lists of ids, if the model can write `n_tokens` after each.

    Args:
        model, prompts, config, n_tokens, stop_ids: as for `generate`.

    Raises:
        ValueError: as for `generate`, but for a prompt without a token, which `left_pad` refuses.
    """
    if n_tokens < 1:
        raise ValueError(f"n_tokens must be at least 1, tokens to write; got {n_tokens}")
    vocab_size = len(model.embedding.weight)
    _tokens("stop_ids", stop_ids, vocab_size)
    _check_suppressed(config.suppress_tokens, vocab_size)
    alone = len(prompts) == 1
    names = ["the prompt" if alone else f"prompts[{row}]" for row in range(len(prompts))]
    rows = [_tokens(name, prompt, vocab_size) for name, prompt in zip(names, prompts, strict=True)]
    for name, prompt in zip(names, rows, strict=True):
        n_free = model.context_length - len(prompt)
        if n_tokens > n_free:
            raise ValueError(
                f"{name} has {len(prompt)} tokens, and this model reads and writes texts "
                f"of up to {model.context_length} tokens, its context_length: at most "
                f"{max(0, n_free)} may still be generated; got n_tokens={n_tokens}. Ask for fewer, "
                "or shorten the prompt"
            )
    return rows


def _tokens(name: str, row: Sequence[int], vocab_size: int) -> list[int]:
    try:
        return checked_tokens(row, vocab_size).tolist()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _check_suppressed(ids: Sequence[int], vocab_size: int) -> None:
    _tokens("suppress_tokens", ids, vocab_size)
    if len(set(ids)) == vocab_size:
        raise ValueError(
            f"suppress_tokens names all {vocab_size:,} tokens, so none could be chosen"
        )


def _check_largest(largest: Float[Tensor, "*rows"]) -> None:
    """The largest logit of a row tells all: NaN if any is, ∞ if any is, -∞ if all are."""
    if math.isfinite(largest.sum(dtype=torch.float32)):  # one number, so one look at it
        return
    wrong = ~largest.float().isfinite().flatten()
    if not wrong.any():
        return
    row = int(wrong.nonzero()[0])
    raise ValueError(
        f"the model's largest logit in row {row} is {largest.flatten()[row].item()}, and must be a "
        "finite number in float32 to choose by: the model's weights are damaged, or too large for "
        "their type. Load them again, compute in float32, or train with a smaller learning rate"
    )
