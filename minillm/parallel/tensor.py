"""Tensor parallelism (张量并行): every matrix is cut into P slices, and a rank multiplies by one.

A block has two parts, and each is a matrix, something done number by number, and a matrix:

    y = W_down φ(W_up x)                 φ: an activation; in attention, heads that look around

Cut W_up by its outputs and W_down by its inputs. Then rank r has the numbers in between that its
slice of W_up gives, which are just those that its slice of W_down needs:

    y = Σ over ranks of W_down[:, r] φ(W_up[r] x)                column-parallel, then row-parallel

So nothing is sent in between, and one sum over the ranks stands behind each part. In attention a
slice is of whole heads. On the way back the gradient of x is such a sum too, in front of each part:

    enter    forward: x as it is           backward: an all-reduce of its gradient       (f)
    leave    forward: an all-reduce        backward: the gradient as it is               (g)

Two parts make **two all-reduces a block forward, and two backward**.

The table of the vocabulary is cut by its rows. A rank reads those of its own tokens, and a sum puts
them together. It gives the logits of its own tokens alone, and no rank ever has those of the whole
vocabulary: of each token the ranks tell each other two numbers, the logsumexp of their slice and
the target's logit, and that makes the loss (`loss`).

With `sequence` the stream between the parts is cut too, each rank having T/P of the tokens: `enter`
is an all-gather and `leave` a reduce-scatter. As these are the two halves of an all-reduce, the
same number of bytes is sent, and norms and the residual stream take 1/P of the memory.

Paper: Shoeybi et al. 2019, "Megatron-LM", arXiv:1909.08053, section 3 (from memory: figures 3 and
4, f and g). Korthikanti et al. 2022, arXiv:2205.05198, section 4.2.2 (from memory; `sequence`).
Differs: no biases and no dropout; the loss takes one all-gather, theirs three all-reduces (maximum,
target, sum); P must divide the key/value heads, which Megatron repeats otherwise; with `sequence`
the gathered x is kept for the backward pass, theirs is gathered again.

Chapter: 16
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import final

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from minillm.data.packing import Batch
from minillm.model.attention import Attention
from minillm.model.ffn import MLP, SwiGLU
from minillm.model.transformer import Transformer
from minillm.optim.step import Alone, Total
from minillm.parallel.collectives import Collectives
from minillm.parallel.data import DataParallel, filled_up
from minillm.parallel.zero import NUMBER_BY_NUMBER
from minillm.train.loop import TrainState


# --- how a matrix is cut -------------------------------------------------------------------------
@final
@dataclass(frozen=True)
class Cut:
    """How a weight [outputs, inputs] is cut into P slices.

    Args:
        axis: 0 by outputs (column-parallel), 1 by inputs (row-parallel).
        sections: sizes along that axis, each cut by itself: of queries, keys and values, say.
    """

    axis: int
    sections: tuple[int, ...]


def slice_of(x: Float[Tensor, "_ _"], cut: Cut, rank: int, n_ranks: int) -> Float[Tensor, "_ _"]:
    """A rank's slice of a weight: its part of each section.

    Args:
        x: the whole weight.
        cut: how it is cut.
        rank, n_ranks: r and P.

    Example:
        >>> up, down = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[5.0, -6.0]])
        >>> x, total = torch.tensor([1.0, 1.0]), 0
        >>> for rank in range(2):  # each rank by itself, up to the sum
        ...     middle = (slice_of(up, Cut(0, (2,)), rank, 2) @ x).relu()
        ...     total += slice_of(down, Cut(1, (2,)), rank, 2) @ middle
        >>> total, down @ (up @ x).relu()
        (tensor([-27.]), tensor([-27.]))
    """
    sections = x.split(cut.sections, dim=cut.axis)
    return torch.cat([section.chunk(n_ranks, dim=cut.axis)[rank] for section in sections], cut.axis)


def joined(slices: Float[Tensor, "ranks _ _"], cut: Cut) -> Float[Tensor, "_ _"]:
    """The whole weight, from the slices of all ranks.

    Example:
        >>> x, cut = torch.arange(8.0).view(4, 2), Cut(0, (2, 2))
        >>> slices = torch.stack([slice_of(x, cut, rank, 2) for rank in range(2)])
        >>> slices[0, :, 0], torch.equal(joined(slices, cut), x)  # rows 0 and 2
        (tensor([0., 4.]), True)
    """
    sizes = [size // len(slices) for size in cut.sections]
    by_rank = [each.split(sizes, dim=cut.axis) for each in slices]
    sections = [torch.cat(parts, cut.axis) for parts in zip(*by_rank, strict=True)]
    return torch.cat(sections, cut.axis)


def cuts(model: Transformer) -> dict[str, Cut]:
    """How each parameter is cut, by name; those without an entry (the norms) every rank has whole.

    Args:
        model: a plain one, of blocks of `Attention` and of `SwiGLU` or `MLP`.

    Raises:
        ValueError: another mixer or feed-forward part.

    Example:
        >>> from minillm.model.config import tiny
        >>> plan = cuts(tiny(vocab_size=256).build())
        >>> plan["blocks.0.mixer.qkv.weight"], plan["blocks.0.mixer.output.weight"]
        (Cut(axis=0, sections=(64, 64, 64)), Cut(axis=1, sections=(64,)))
    """
    plan = {"embedding.weight": Cut(0, (model.embedding.num_embeddings,))}
    if model.head is not None:
        plan["head.weight"] = Cut(0, (model.head.out_features,))
    for n, block in enumerate(model.blocks):
        attention, ffn = block.mixer, block.ffn
        if type(attention) is not Attention or type(ffn) not in (SwiGLU, MLP):
            raise ValueError(
                "tensor parallelism cuts blocks of Attention and of SwiGLU or MLP; block "
                f"{n} has {type(attention).__name__} and {type(ffn).__name__}. Experts are dealt "
                "out by minillm.parallel.expert; other mixers are trained with dp, zero or fsdp"
            )
        H, G = (heads * attention.d_head for heads in (attention.n_heads, attention.n_kv_heads))
        F = ffn.down.in_features
        here = f"blocks.{n}."
        plan[here + "mixer.qkv.weight"] = Cut(0, (H, G, G))  # q heads, k heads, v heads
        plan[here + "mixer.output.weight"] = Cut(1, (H,))
        if isinstance(ffn, SwiGLU):
            plan[here + "ffn.gate_up.weight"] = Cut(0, (F, F))  # gate's rows first
        else:
            plan[here + "ffn.up.weight"] = Cut(0, (F,))
        plan[here + "ffn.down.weight"] = Cut(1, (F,))
    return plan


# --- in front of a part, and behind it -----------------------------------------------------------
class _Pair(torch.autograd.Function):
    """One function on the way forward, and one of the gradient on the way back."""

    @staticmethod
    def forward(ctx, x, forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor]):
        ctx.of_gradient = backward
        return forward(x)

    @staticmethod
    def backward(ctx, gradient):
        return ctx.of_gradient(gradient), None, None


@final
class Edges:
    """What stands at both ends of a part that is cut: f and g, each the backward pass of the other.

    Args:
        tp: the ranks that share each matrix.
        sequence: whether the stream outside the parts is cut too, by tokens.
    """

    def __init__(self, tp: Collectives, sequence: bool):
        self.tp, self.sequence = tp, sequence

    def enter(self, x: Float[Tensor, "B t D"]) -> Float[Tensor, "B T D"]:
        """All tokens, as the part reads them; t is T, or with `sequence` T/P."""
        if self.sequence:
            return _Pair.apply(x, self._gather_tokens, self._scatter_tokens)
        return _Pair.apply(x, _same, self._sum)

    def leave(self, y: Float[Tensor, "B T D"]) -> Float[Tensor, "B t D"]:
        """The sum of all ranks' y, as the stream reads it."""
        if self.sequence:
            return _Pair.apply(y, self._scatter_tokens, self._gather_tokens)
        return _Pair.apply(y, self._sum, _same)

    def _sum(self, x: Tensor) -> Tensor:
        total = self.tp.all_reduce(filled_up(x.flatten(), self.tp.n_ranks))
        return total[: x.numel()].view(x.shape)

    def _gather_tokens(self, x: Tensor) -> Tensor:
        whole = self.tp.all_gather(x.flatten())
        ranks, (B, _, D) = self.tp.n_ranks, x.shape
        return rearrange(whole, "(ranks B t D) -> B (ranks t) D", ranks=ranks, B=B, D=D)

    def _scatter_tokens(self, x: Tensor) -> Tensor:
        by_rank = rearrange(x, "B (ranks t) D -> (ranks B t D)", ranks=self.tp.n_ranks)
        part = self.tp.reduce_scatter(by_rank)
        return rearrange(part, "(B t D) -> B t D", B=x.shape[0], D=x.shape[2])


def _same(x: Tensor) -> Tensor:
    return x.view_as(x)


# --- the vocabulary ------------------------------------------------------------------------------
@final
class VocabularyEmbedding(nn.Module):
    """A rank's rows of the table of tokens, and the sum that puts all ranks' rows together.

    Args:
        weight: of this rank's tokens, from rank · V/P on.
        edges: of the ranks.
    """

    def __init__(self, weight: nn.Parameter, edges: Edges):
        super().__init__()
        self.weight, self.edges = weight, edges

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B t D"]:
        """The tokens' rows; of a token of another rank, that rank brings the row."""
        ids, here = _own(tokens, self.edges.tp.rank, len(self.weight))
        rows = nn.functional.embedding(ids, self.weight)
        return self.edges.leave(torch.where(here[..., None], rows, 0))


def _own(ids: Tensor, rank: int, n_own: int) -> tuple[Tensor, Tensor]:
    """The ids as numbers of this rank's rows, 0 where a row is another rank's; and where not."""
    own = ids.long() - rank * n_own
    here = (own >= 0) & (own < n_own)
    return own.where(here, 0), here


def vocabulary_summary(
    logits: Float[Tensor, "N words"], targets: Int[Tensor, "N"], rank: int
) -> Float[Tensor, "2 N"]:
    """All that the others need to know of a rank's logits: logsumexp, and the target's logit or 0.

    Args:
        logits: of this rank's tokens of the vocabulary, those from rank · V/P on.
        targets: ids of the whole vocabulary.
        rank: r.

    Example:
        >>> logits, target = torch.tensor([[5.0, 1.0, 3.0, 1.0]]).log(), torch.tensor([2])
        >>> both = [vocabulary_summary(logits[:, :2], target, 0)]
        >>> both += [vocabulary_summary(logits[:, 2:], target, 1)]
        >>> vocabulary_nats(torch.stack(both)).exp()  # the target has 3 of 10
        tensor([3.3333])
    """
    upcast = logits.to(torch.promote_types(logits.dtype, torch.float32))
    ids, here = _own(targets, rank, logits.shape[1])
    chosen = upcast.gather(1, ids[:, None]).squeeze(1)
    return torch.stack([upcast.logsumexp(dim=1), torch.where(here, chosen, 0)])


def vocabulary_nats(summaries: Float[Tensor, "ranks 2 N"]) -> Float[Tensor, "N"]:
    """-log p of each target, from the summaries of all ranks: logsumexp - the target's logit."""
    return summaries[:, 0].logsumexp(dim=0) - summaries[:, 1].sum(dim=0)


class _VocabularyCrossEntropy(torch.autograd.Function):
    """Σ -log p(target), with one all-gather forward and none backward."""

    @staticmethod
    def forward(ctx, logits, targets, tp: Collectives):
        # 1. two numbers a token from every rank, [P 2 N]
        summary = vocabulary_summary(logits, targets, tp.rank)
        summaries = tp.all_gather(summary.flatten()).view(tp.n_ranks, *summary.shape)
        # 2. the logsumexp of the whole vocabulary, and the loss
        ctx.save_for_backward(logits, targets, summaries[:, 0].logsumexp(dim=0))
        ctx.rank = tp.rank
        return vocabulary_nats(summaries).sum()

    @staticmethod
    def backward(ctx, gradient):
        # this rank's columns of softmax(logits) - one_hot(target)
        logits, targets, logsumexp = ctx.saved_tensors
        result = (logits - logsumexp[:, None]).exp()
        ids, here = _own(targets, ctx.rank, logits.shape[1])
        result.scatter_add_(1, ids[:, None], -here[:, None].to(result.dtype))
        return (result * gradient).to(logits.dtype), None, None


def loss(model: Transformer, batch: Batch) -> Total:
    """Of every token of packed documents: `minillm.train.losses.language_loss` of a sharded model.

    All ranks along tp look at the same batch, and all get the same number.

    Args:
        model: of a state from `shard`.
        batch: what this step looks at.

    Raises:
        ValueError: a plain model; a batch with a loss mask; with `sequence`, P does not divide the
            tokens of a row.
    """
    if batch.loss_mask is not None:
        raise ValueError(
            "tensor parallelism learns every token; got a batch with a loss mask, as conversations "
            "have. Train on them with dp or fsdp"
        )
    if not isinstance(model.embedding, VocabularyEmbedding):
        raise ValueError(
            "this loss is for a model whose vocabulary is cut (minillm.parallel.tensor.shard); got "
            "a plain one, for which minillm.train.losses.language_loss is made"
        )
    edges = model.embedding.edges
    n_tokens, n_ranks = batch.tokens.shape[1], edges.tp.n_ranks
    if edges.sequence and n_tokens % n_ranks:
        raise ValueError(
            f"with sequence=True {n_ranks} ranks must divide the tokens of a row; got {n_tokens}. "
            f"Take a context_length of {n_tokens // n_ranks * n_ranks or n_ranks}"
        )
    hidden = model.hidden(batch.tokens, context=batch.context()).flatten(0, 1)
    table = model.embedding.weight if model.head is None else model.head.weight
    targets = batch.targets.flatten()
    return Total(_VocabularyCrossEntropy.apply(hidden @ table.T, targets, edges.tp), len(targets))


# --- a state of training -------------------------------------------------------------------------
@final
class TensorParallel:
    """What a step asks of a model whose matrices are cut (`Reduction`).

    Args:
        sliced: parameters of which this rank has a slice.
        partial: parameters that every rank has whole, and of whose gradient it has only a share.
        tp: the ranks that share each matrix.
        dp: the ranks that have the same slices, and other rows of a batch; None for no others.
    """

    def __init__(
        self,
        sliced: list[nn.Parameter],
        partial: list[nn.Parameter],
        tp: Collectives,
        dp: Collectives | None,
    ):
        self.sliced, self.partial, self.tp = sliced, partial, tp
        self.data = Alone() if dp is None else DataParallel(dp)

    def gradients(self, model: nn.Module) -> list[Tensor]:
        """Of slices and whole parameters, summed over the ranks where they are shares."""
        shares = [p.grad for p in self.partial if p.grad is not None]
        if shares:
            summed = _total(self.tp, torch.cat([share.flatten() for share in shares]))
            pieces = summed.split([share.numel() for share in shares])
            for share, piece in zip(shares, pieces, strict=True):
                share.copy_(piece.view_as(share))
        return self.data.gradients(model)

    def total(self, values: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Sums over dp; the ranks along tp have looked at the same tokens."""
        return self.data.total(values)

    def norm(self, gradients: list[Tensor]) -> float:
        """Of all slices, and once of what every rank has whole."""
        of_slices = {id(parameter.grad) for parameter in self.sliced}
        length = torch.nn.utils.get_total_norm
        slices = length([g for g in gradients if id(g) in of_slices]).double().square().reshape(1)
        whole = length([g for g in gradients if id(g) not in of_slices]).double().square()
        return (_total(self.tp, slices) + whole).sqrt().item()

    def clear(self) -> None:
        """Nothing is left over."""


def _total(collectives: Collectives, values: Tensor) -> Tensor:
    return collectives.all_reduce(filled_up(values, collectives.n_ranks))[: values.numel()]


def shard(
    state: TrainState, tp: Collectives, dp: Collectives | None = None, *, sequence: bool = False
) -> TrainState:
    """Cut a plain state of training: this rank keeps its slice of each matrix.

    Train it with this module's `loss`. `model(tokens)` gives the logits of this rank's tokens of
    the vocabulary alone. With `sequence`, P must divide the tokens of every call.

    Args:
        state: the same on all ranks. It must not be used afterwards.
        tp: the ranks that share each matrix; they look at the same batches.
        dp: the ranks that share the data, along the mesh's other axis; None for none.
        sequence: whether the stream between the parts is cut too, by tokens.

    Raises:
        ValueError: P does not divide heads, key/value heads, d_ff or the vocabulary; another mixer
            or feed-forward part; an optimizer that does not update number by number.
    """
    model, optimizer = state.model, state.optimizer
    if type(optimizer) not in NUMBER_BY_NUMBER:
        names = ", ".join(sorted({each.__name__ for each in NUMBER_BY_NUMBER}))
        raise ValueError(
            f"{type(optimizer).__name__} looks at whole matrices, and a rank has only a slice of "
            f"them; tp works with {names}. Plain data parallelism (dp) works with all"
        )
    plan, named = cuts(model), dict(model.named_parameters())
    check(model, tp.n_ranks)
    # 1. each matrix, and what the optimizer remembers of it, becomes this rank's slice
    for name, cut in plan.items():
        parameter = named[name]
        parameter.data = slice_of(parameter.data, cut, tp.rank, tp.n_ranks).clone()
        parameter.grad = None
        memory = optimizer.state.get(parameter, {})
        for key, value in memory.items():
            if isinstance(value, Tensor) and value.ndim:
                memory[key] = slice_of(value, cut, tp.rank, tp.n_ranks).clone()
    # 2. the parts are told of fewer heads, and get their two ends
    edges = Edges(tp, sequence)
    for block in model.blocks:
        block.mixer.n_heads //= tp.n_ranks
        block.mixer.n_kv_heads //= tp.n_ranks
        block.mixer.register_forward_hook(lambda part, arguments, y: edges.leave(y))
        block.ffn.register_forward_hook(lambda part, arguments, y: (edges.leave(y[0]), y[1]))
        for part in (block.mixer, block.ffn):
            part.register_forward_pre_hook(lambda part, given: (edges.enter(given[0]), *given[1:]))
    # 3. the vocabulary: a sum behind the table, and what the logits are made of enters like a part
    model.embedding = VocabularyEmbedding(model.embedding.weight, edges)
    model.norm.register_forward_hook(lambda norm, arguments, hidden: edges.enter(hidden))
    # 4. gradients that are shares: of QK-norm, by heads; with sequence, of all norms, by tokens
    mixers = [block.mixer for block in model.blocks]
    partial = [p for mixer in mixers for p in (mixer.q_norm, mixer.k_norm) if p is not None]
    if sequence:
        partial = [parameter for name, parameter in named.items() if name not in plan]
    reduction = TensorParallel([named[name] for name in plan], partial, tp, dp)
    return TrainState(model, optimizer, state.step, reduction=reduction)


def check(model: Transformer, n_ranks: int) -> None:
    """Refuse a model whose matrices cannot be cut into so many slices.

    Args:
        model: may be on the device "meta".
        n_ranks: P.

    Raises:
        ValueError: P does not divide heads, key/value heads, d_ff or the vocabulary.
    """
    numbers = {"vocab_size": model.embedding.num_embeddings}
    for n, block in enumerate(model.blocks):
        numbers[f"n_heads of block {n}"] = block.mixer.n_heads
        numbers[f"n_kv_heads of block {n}"] = block.mixer.n_kv_heads
        numbers[f"d_ff of block {n}"] = block.ffn.down.in_features
    for name, number in numbers.items():
        if number % n_ranks:
            raise ValueError(
                f"{n_ranks} tensor-parallel ranks must divide {name}; got {number}. Take fewer "
                f"ranks, or build the model with {number // n_ranks * n_ranks or n_ranks}"
            )


def fill(plain: TrainState, state: TrainState) -> None:
    """Put a state together again; all ranks call this, and all get it.

    Args:
        plain: of the same model and optimizer, as before the cut; filled in place.
        state: from `shard`.
    """
    tp, plan = state.reduction.tp, cuts(plain.model)

    def whole(value: Tensor, name: str) -> Tensor:
        if name not in plan:
            return value
        slices = tp.all_gather(value.flatten())
        return joined(slices.view(tp.n_ranks, *value.shape), plan[name])

    named, plain.step = dict(plain.model.named_parameters()), state.step
    groups = zip(plain.optimizer.param_groups, state.optimizer.param_groups, strict=True)
    for plain_group, group in groups:
        plain_group |= {key: value for key, value in group.items() if key != "params"}
    for name, parameter in state.model.named_parameters():
        named[name].data.copy_(whole(parameter.data, name))
        for key, value in state.optimizer.state.get(parameter, {}).items():
            tensor = isinstance(value, Tensor) and value.ndim
            value = whole(value, name).clone() if tensor else deepcopy(value)
            plain.optimizer.state[named[name]][key] = value
