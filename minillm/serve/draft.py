"""Drafts (草稿): who guesses what a model will write next, to be checked by the model itself.

A draft gives a few tokens and, for each, the probabilities q that it was drawn from. Any q will do:
`minillm.serve.speculate` makes a text of the target's own distribution p out of it, and a q that is
like p only makes it faster. Two are here:

    ModelDraft      a smaller model of the same vocabulary, with a cache of its own
    PromptLookup    no model: what followed the last tokens when they stood in the text before

        text    the red cat saw the red dog, and the red       guess    cat saw …

Rejected guesses are taken back: their keys and values are cut off the cache. A state that sums up
all tokens (chapter 09) cannot go back, so models with such blocks are refused.

Paper: Leviathan, Kalman and Matias 2023, arXiv:2211.17192, section 2 (a model drafts); Saxena 2023,
"Prompt Lookup Decoding", https://github.com/apoorvumang/prompt-lookup-decoding (transformers has it
as prompt_lookup_num_tokens).
Differs: prompt lookup takes a guess that is cut short by the end of the text, too, as transformers
does; Saxena's code looks for another place then. The largest n-gram is 2, as in transformers, and
not 3.

Chapter: 17
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from minillm.model.cache import KVCache
from minillm.model.transformer import Transformer
from minillm.serve.logits_processors import draw
from minillm.serve.sample import SampleConfig


class Guess(NamedTuple):
    """Tokens that may come next.

    Args:
        tokens: one after the other.
        q: the probabilities that each was drawn from.
    """

    tokens: Int[Tensor, "drafted"]
    q: Float[Tensor, "drafted V"]


class Draft(Protocol):
    """Who guesses: a smaller model, or a rule. Guesses must be drawn from the q that is given."""

    vocab_size: int

    def new_cache(self, max_length: int) -> list[Any]:
        """An empty cache for one text of up to max_length tokens; the caller owns it.

        Its parts, if it has any, count in `n_tokens` what they keep, and can `truncate`.
        """

    def propose(
        self, text: list[int], config: SampleConfig, uniforms: Float[Tensor, "numbers"], cache: list
    ) -> Guess:
        """Guess what follows the text, at most as many tokens as there are random numbers.

        Args:
            text: all ids so far; the cache keeps a beginning of it.
            config: how the target chooses.
            uniforms: from 0 on and below 1.
            cache: from `new_cache`; what the draft reads is appended to it.
        """


@final
@dataclass(frozen=True, eq=False)
class ModelDraft:
    """A draft that is a smaller model with the same vocabulary.

    Args:
        model: on the target's device.
    """

    model: Transformer

    @property
    def vocab_size(self) -> int:
        """V."""
        return len(self.model.embedding.weight)

    def new_cache(self, max_length: int) -> list[Any]:
        """See `Draft`.

        Raises:
            ValueError: a text beyond the draft's context; a mixer that cannot go back.
        """
        if max_length > self.model.context_length:
            raise ValueError(
                f"the draft reads texts of up to {self.model.context_length} tokens, its "
                f"context_length, and prompt and new tokens are {max_length}. Ask for fewer, or "
                "take another draft"
            )
        return truncatable_cache("the draft", self.model, max_length)

    @torch.no_grad()
    def propose(
        self, text: list[int], config: SampleConfig, uniforms: Float[Tensor, "numbers"], cache: list
    ) -> Guess:
        """See `Draft`: a pass for each guess."""
        device = uniforms.device
        q = torch.empty(len(uniforms), self.vocab_size, device=device)
        tokens = torch.empty(len(uniforms), dtype=torch.int64, device=device)
        unread = torch.tensor(text[cache[0].n_tokens :], device=device)
        for n, uniform in enumerate(uniforms):
            hidden = self.model.hidden(unread[None], cache=cache)[:, -1:]
            q[n] = config.probabilities(self.model.logits(hidden)[0, 0])
            tokens[n] = draw(q[n].log(), uniform)
            unread = tokens[n : n + 1]
        return Guess(tokens, q)


@final
@dataclass(frozen=True, kw_only=True)
class PromptLookup:
    """A draft without a model (提示查找, prompt lookup): what followed the last tokens before.

    The last n tokens are looked up in the text so far, n as large as possible; what stands after
    the first place where they occur is the guess. It is a guess without doubt: q is 1 for it.

    Args:
        vocab_size: V.
        max_ngram: the largest n.

    Raises:
        ValueError: a number below 1.

    Example:
        >>> guess = PromptLookup(vocab_size=10).propose(
        ...     [7, 3, 9, 4, 7, 3], SampleConfig(), torch.rand(3), cache=[]
        ... )
        >>> guess.tokens, guess.q.argmax(dim=-1)
        (tensor([9, 4, 7]), tensor([9, 4, 7]))
    """

    vocab_size: int
    max_ngram: int = 2

    def __post_init__(self):
        if min(self.vocab_size, self.max_ngram) < 1:
            raise ValueError(
                "vocab_size and max_ngram must be at least 1; got "
                f"{self.vocab_size} and {self.max_ngram}"
            )

    def new_cache(self, max_length: int) -> list[Any]:
        """See `Draft`: nothing needs to be kept beside the text."""
        return []

    def propose(
        self, text: list[int], config: SampleConfig, uniforms: Float[Tensor, "numbers"], cache: list
    ) -> Guess:
        """See `Draft`; no guess where the last token is new."""
        after: list[int] = []
        for n in range(min(self.max_ngram, len(text) - 1), 0, -1):
            starts = (i for i in range(len(text) - n) if text[i : i + n] == text[-n:])
            if (start := next(starts, None)) is not None:
                after = text[start + n :][: len(uniforms)]
                break
        tokens = torch.tensor(after, dtype=torch.int64, device=uniforms.device)
        return Guess(tokens, nn.functional.one_hot(tokens, self.vocab_size).to(uniforms.dtype))


def truncatable_cache(whose: str, model: Transformer, max_length: int) -> list[KVCache]:
    """An empty cache for one text, all of whose parts can go back.

    Args:
        whose: the model's name in a message.
        model: whose blocks keep what they read.
        max_length: tokens.

    Raises:
        ValueError: a mixer whose cache cannot go back, by name.
    """
    cache = model.new_cache(1, max_length)
    for place, (block, part) in enumerate(zip(model.blocks, cache, strict=True)):
        if not isinstance(part, KVCache):
            raise ValueError(
                f"rejected guesses must be taken back, token by token; block {place} of {whose} is "
                f"{type(block.mixer).__name__}, whose {type(part).__name__} cannot go back. Use a "
                "model whose blocks all keep keys and values, or write without guesses: "
                "minillm.serve.sample"
            )
    return cache
