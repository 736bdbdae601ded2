"""The transformer: a stack of pre-norm blocks, each of token mixing and a feed-forward part.

A stream of numbers, x of [B, T, D], runs from the tokens to the predictions. Nothing replaces it:
each part reads a normed copy and adds what it has found (残差连接, residual connection).

    x = x + mixer(norm(x))        tokens see each other (`Mixer`, chapter 03: attention)
    x = x + ffn(norm(x))          each token by itself (`FFN`)

So a block that adds nothing changes nothing, and gradients reach the first block undiminished. In
front stands a table with a row for each token, at the end a last norm and a matrix that gives every
token of the vocabulary a number (logits); their softmax is p(next token). The two may be one table
(`tied_embeddings`).

What stands between is built elsewhere (`minillm.model.config`) and only called here, so that later
chapters put other mixers and other FFNs into the same blocks. The forward pass is written once, as
a generator (`Transformer.layers`): who wants to see or change the stream between blocks asks it.

Paper: Vaswani et al. 2017, "Attention Is All You Need", arXiv:1706.03762, section 3 and figure 1,
the right half without its middle; Touvron et al. 2023, "LLaMA", arXiv:2302.13971, section 2.2.
Theirs to ours: N is n_layers, d_model is D.
Differs: the norm stands before each part, not after the sum (Radford et al. 2019, GPT-2, section
2.3; Xiong et al. 2020, arXiv:2002.04745, show why), and is RMSNorm; no dropout.

Chapter: 04
"""

import math
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, final

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from minillm.model.attention import Context, Mixer
from minillm.model.ffn import FFN, Routing
from minillm.model.norm import RMSNorm
from minillm.optim.step import Total

if TYPE_CHECKING:
    from minillm.model.config import TransformerConfig


@final
class Block(nn.Module):
    """One pre-norm block: token mixing, then a feed-forward part, each added to the stream.

    Args:
        d_model: D.
        mixer: a module that is a `Mixer`.
        ffn: a module that is an `FFN`.
        norm_epsilon: of both norms.
        device, dtype: of the norms' gains.
    """

    def __init__(
        self,
        d_model: int,
        mixer: Mixer,
        ffn: FFN,
        *,
        norm_epsilon: float = 1e-6,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        factory_kwargs = {"device": device, "dtype": dtype}
        self.mixer_norm = RMSNorm(d_model, norm_epsilon, **factory_kwargs)
        self.mixer = mixer
        self.ffn_norm = RMSNorm(d_model, norm_epsilon, **factory_kwargs)
        self.ffn = ffn

    def forward(
        self, x: Float[Tensor, "B T D"], context: Context, cache: Any = None
    ) -> tuple[Float[Tensor, "B T D"], Routing | None]:
        """The stream after this block, and how the FFN routed its tokens, if it did."""
        x = x + self.mixer(self.mixer_norm(x), context, cache)
        y, routing = self.ffn(self.ffn_norm(x), context)
        x = x + y
        return x, routing


@final
class Transformer(nn.Module):
    """Tokens in, a number for every possible next token out; built by `TransformerConfig`.

    Args:
        vocab_size: V.
        d_model: D.
        blocks: in the order in which x passes them.
        context_length: the longest text it is meant for.
        norm_epsilon: of the last norm.
        tied_embeddings: whether the table of tokens is read backwards at the end.
        config: what it was built from, for those who save or describe it; nothing here reads it.
        device, dtype: of the parameters.
    """

    def __init__(
        self,
        vocab_size: int,
        d_model: int,
        blocks: Iterable[Block],
        *,
        context_length: int,
        norm_epsilon: float = 1e-6,
        tied_embeddings: bool = False,
        config: "TransformerConfig | None" = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        factory_kwargs = {"device": device, "dtype": dtype}
        self.context_length, self.config = context_length, config
        self.embedding = nn.Embedding(vocab_size, d_model, **factory_kwargs)
        self.blocks = nn.ModuleList(blocks)
        self.norm = RMSNorm(d_model, norm_epsilon, **factory_kwargs)
        self.head = (
            None
            if tied_embeddings
            else nn.Linear(d_model, vocab_size, bias=False, **factory_kwargs)
        )

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        *,
        context: Context | None = None,
        cache: Sequence[Any] | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Logits of the token *after* each place: `softmax(dim=-1)` makes them probabilities.

        Args:
            tokens: ids 0 to V - 1, on the model's device.
            context: what the blocks are told. Where it has no positions, tokens stand one after the
                other from 0 on, or after those in the cache; without a mask, each sees itself and
                all before it.
            cache: from `new_cache`; these tokens are appended to it.

        Raises:
            ValueError: a text beyond the context, where no positions are given; a cache of another
                number of blocks; what the blocks refuse.

        Example:
            >>> from minillm.model.config import TransformerConfig
            >>> model = TransformerConfig(vocab_size=50, d_model=16, n_layers=2).build(seed=0)
            >>> model(torch.tensor([[7, 3, 9]])).shape
            torch.Size([1, 3, 50])
        """
        return self.logits(self.hidden(tokens, context=context, cache=cache))

    def hidden(
        self,
        tokens: Int[Tensor, "B T"],
        *,
        context: Context | None = None,
        cache: Sequence[Any] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """The stream after the last norm: what the model has made of each token.

        Args:
            tokens, context, cache: as for `forward`.
        """
        for stream, _ in self.layers(tokens, context=context, cache=cache):
            last = stream
        return self.norm(last)

    def layers(
        self,
        tokens: Int[Tensor, "B T"],
        *,
        context: Context | None = None,
        cache: Sequence[Any] | None = None,
    ) -> Generator[
        tuple[Float[Tensor, "B T D"], Routing | None], Float[Tensor, "B T D"] | None, None
    ]:
        """The forward pass, block by block; every other pass stands on it.

        Nothing is computed before the first step, nor refused.

        Args:
            tokens, context, cache: as for `forward`.

        Yields:
            After each block the stream, and how the block's FFN routed the tokens. A changed stream
            that is sent in (`send`) goes on in its place; `send` gives it back, and the next step
            is the next block.

        Raises:
            ValueError: as for `forward`; a stream of another shape is sent in.

        Example:
            >>> from minillm.model.config import TransformerConfig
            >>> model = TransformerConfig(vocab_size=50, d_model=16, n_layers=2).build(seed=0)
            >>> passing = model.layers(torch.tensor([[7, 3, 9]]))
            >>> for n, (stream, routing) in enumerate(passing):
            ...     if n == 0:  # the first block's stream goes on twice as large
            ...         stream, routing = passing.send(2 * stream)
            >>> model.logits(model.norm(stream)).shape
            torch.Size([1, 3, 50])
        """
        caches = [None] * len(self.blocks) if cache is None else cache
        if len(caches) != len(self.blocks):
            raise ValueError(
                f"a cache holds one part a block, {len(self.blocks)} here; got {len(caches)}. "
                "Make it with this model's new_cache"
            )
        context = self._filled_in(Context() if context is None else context, tokens, cache)
        x = self.embedding(tokens)
        for block, block_cache in zip(self.blocks, caches, strict=True):
            x, routing = block(x, context, block_cache)
            changed = yield x, routing
            while changed is not None:
                if changed.shape != x.shape:
                    raise ValueError(
                        f"the stream is [B, T, D] = {list(x.shape)} here; a stream of "
                        f"{list(changed.shape)} was sent in. Change the numbers, not the shape"
                    )
                x = changed
                changed = yield x, routing

    def _filled_in(self, context: Context, tokens: Tensor, cache: Sequence[Any] | None) -> Context:
        """The context with ids, and with the usual positions where it has none."""
        positions = context.positions
        if positions is None:
            first = 0 if cache is None else cache[0].n_tokens
            end = first + tokens.shape[1]
            if end > self.context_length:
                raise ValueError(
                    f"this model reads texts of up to {self.context_length} tokens, its "
                    f"context_length; got {end}, those in the cache with them. Shorten the text, "
                    f"or build from replace(config, context_length={end}) and load the weights "
                    "into that"
                )
            positions = torch.arange(first, end, device=tokens.device)
        ids = tokens if context.tokens is None else context.tokens
        return replace(context, positions=positions, tokens=ids)

    def logits(self, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, "B T V"]:
        """A number for every token of the vocabulary; where few places count, pass only those."""
        if self.head is None:
            return nn.functional.linear(hidden, self.embedding.weight)
        return self.head(hidden)

    def new_cache(self, batch_size: int, max_length: int | None = None) -> list[Any]:
        """Empty caches, one a block, for batch_size texts; the caller owns them.

        Each says in `n_tokens` how many tokens it has taken in.

        Args:
            batch_size: B.
            max_length: room for how many tokens a row; None for the whole context.

        Example:
            >>> from minillm.model.config import TransformerConfig
            >>> model = TransformerConfig(vocab_size=50, d_model=16, n_layers=2).build(seed=0)
            >>> cache = model.new_cache(batch_size=1)
            >>> with torch.no_grad():
            ...     whole = model(torch.tensor([[7, 3, 9]]))
            ...     parts = model(torch.tensor([[7, 3]]), cache=cache)
            ...     last = model(torch.tensor([[9]]), cache=cache)
            >>> torch.allclose(last[:, 0], whole[:, 2], atol=1e-6), cache[0].n_tokens
            (True, 3)
        """
        max_length = self.context_length if max_length is None else max_length
        return [block.mixer.new_cache(batch_size, max_length) for block in self.blocks]


@torch.no_grad()
def initialise(model: Transformer, seed: int, std: float = 0.02) -> None:
    """Draw first weights, in place: matrices from a normal distribution, biases zero.

    The matrices that add to the stream (what a part names in `residual_projections`) get
    std / √(2 · n_layers), so that x does not grow with depth. Only `nn.Linear` and
    `nn.Embedding` are drawn, in the order of `model.named_modules()`: what a part holds as a bare
    parameter is the part's own business and stays as it is.

    Numbers are drawn on the CPU in float32 by a generator of their own, so that a seed means the
    same weights on every device, up to the rounding of the model's dtype. torch's own random state
    is neither read nor changed. On the device "meta", which holds no numbers, nothing happens.

    Args:
        model: in which weights are replaced.
        seed: decides all of them.
        std: of the normal distribution.

    Paper: Radford et al. 2019 (GPT-2), section 2.3: 1/√N, N the number of residual layers; 0.02 is
        that of their code.
    Differs: none.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    residual = {id(matrix) for matrix in residual_projections(model)}
    for module in model.modules():
        if not isinstance(module, nn.Linear | nn.Embedding) or module.weight.is_meta:
            continue
        spread = std / math.sqrt(2 * len(model.blocks)) if id(module) in residual else std
        drawn = torch.empty(module.weight.shape, dtype=torch.float32, device="cpu")
        module.weight.copy_(drawn.normal_(0, spread, generator=generator))
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.zero_()


def zero_residual_projections(model: Transformer) -> None:
    """Set the matrices that add to the stream to zero, in place: every block adds nothing at first.

    The model then begins as a table of token pairs, and each block comes in as it is needed.

    Args:
        model: in which the `residual_projections` are set to zero.

    Paper: Zhang, Dauphin and Ma 2019, "Fixup", arXiv:1901.09321, section 3.
    Differs: they also scale the other matrices of a branch and add scalars; here norms do that.
    """
    for matrix in residual_projections(model):
        nn.init.zeros_(matrix.weight)


def residual_projections(model: nn.Module) -> list[nn.Linear]:
    """The matrices whose outputs are added to the stream, as the model's parts name them.

    Example:
        >>> from minillm.model.config import TransformerConfig
        >>> model = TransformerConfig(vocab_size=50, d_model=16, n_layers=2).build(seed=0)
        >>> [list(matrix.weight.shape) for matrix in residual_projections(model)]
        [[16, 16], [16, 48], [16, 16], [16, 48]]
    """
    return [
        getattr(module, name)
        for module in model.modules()
        for name in getattr(module, "residual_projections", ())
    ]


def loss(
    model: Transformer,
    tokens: Int[Tensor, "B T"],
    *,
    ignore: int | None = None,
    context: Context | None = None,
) -> Total:
    """Sum of -log p(token | those before it in its row), in nats: what `fit` makes small.

    Each token but the first is predicted, from all before it: T - 1 questions a row, answered in
    one pass.

    Args:
        model: gives logits.
        tokens: rows of ids; the last of a row is only predicted, never read.
        ignore: an id that is not to be predicted, such as one that fills rows up; it is read.
        context: what the blocks are told of all tokens but the last of each row.

    Raises:
        ValueError: rows of one token: there is nothing to predict.

    Example:
        >>> from minillm.model.config import TransformerConfig
        >>> model = TransformerConfig(vocab_size=50, d_model=16, n_layers=2).build(seed=0)
        >>> total = loss(model, torch.tensor([[7, 3, 9]]))
        >>> total.n_tokens.item(), round(total.mean.item(), 1)  # log 50 is 3.9
        (2, 3.9)
    """
    inputs, targets = shifted(tokens)
    return next_token_loss(model(inputs, context=context), targets, ignore=ignore)


def shifted(tokens: Int[Tensor, "B N"]) -> tuple[Int[Tensor, "B T"], Int[Tensor, "B T"]]:
    """Inputs and targets of next-token prediction: all but the last token, all but the first.

    Raises:
        ValueError: rows of one token: there is nothing to predict.

    Example:
        >>> shifted(torch.tensor([[7, 3, 9]]))
        (tensor([[7, 3]]), tensor([[3, 9]]))
    """
    if tokens.shape[1] < 2:
        raise ValueError(
            "a row must have at least 2 tokens, one to read and one to predict; got rows of "
            f"{tokens.shape[1]}"
        )
    return tokens[:, :-1], tokens[:, 1:]


def next_token_loss(
    logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"], *, ignore: int | None = None
) -> Total:
    """Sum of -log p(target), in nats: what `loss` gives for logits that are there.

    Args:
        logits: of each place.
        targets: the token that follows there, see `shifted`.
        ignore: a target that does not count.
    """
    logits = rearrange(logits, "B T V -> (B T) V")
    flat_targets = rearrange(targets, "B T -> (B T)").long()
    upcast = logits.to(torch.promote_types(logits.dtype, torch.float32))
    ignore_index = -100 if ignore is None else ignore
    nats = nn.functional.cross_entropy(
        upcast, flat_targets, ignore_index=ignore_index, reduction="sum"
    )
    return Total(nats, (flat_targets != ignore_index).sum())
