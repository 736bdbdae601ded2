"""What training makes small: -log p of the target tokens, as a sum and a count.

The model gives V logits for each place of a text, and a token's loss is

    -log p(target) = logsumexp(logits) - logits[target]          in nats

A sum comes with how many it sums, never as a mean (`minillm.optim.step.Total`).

The logits are the largest table of a small model's training: N tokens by V words, once for the
logits and once more for their gradient. Neither has to exist as a whole. The gradient is known as
soon as the logits are,

    ∂nats/∂logits = softmax(logits) · (1 + 2 z logsumexp) - one_hot(target)

so a few hundred tokens at a time go all the way: logits, loss, gradient in the place of the logits,
and from it that of hidden and of the table. This costs no extra time, since softmax's numerator is
needed for the loss anyhow.

z is the weight of z-loss, z · logsumexp², which keeps the logits from drifting: a softmax does not
change when all of a token's logits grow alike, but the numbers lose digits.

Paper: the chunks are FusedLinearCrossEntropy in Hsu et al. 2024, "Liger Kernel", arXiv:2410.10989.
z-loss is Chowdhery et al. 2022, "PaLM", arXiv:2204.02311, section 5, with a weight of 1e-4; theirs
to ours: log Z is logsumexp.
Differs: sums, not means; matrices are multiplied, and gradients added up, in float32 at least;
chunks have a given size, where theirs follows from D and V.

Chapter: 05
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from minillm.data.packing import Batch
from minillm.model.transformer import Transformer
from minillm.optim.step import Total


def token_log_probs(
    logits: Float[Tensor, "*tokens V"],
    targets: Int[Tensor, "*tokens"],
    loss_mask: Bool[Tensor, "*tokens"] | None = None,
) -> Float[Tensor, "*tokens"]:
    """log p of each wanted token, in float32 at least, and exactly 0 where it is not counted.

    Args:
        logits: finite, also where nothing is counted, or their gradient is NaN; -inf is allowed
            for an impossible token.
        targets: ids below V; where not counted, any number.
        loss_mask: which tokens count; all if None.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> logits = torch.tensor([[3.0, 1.0], [1.0, 1.0]]).log()
        >>> token_log_probs(logits, torch.tensor([0, 1])).exp()
        tensor([0.7500, 0.5000])
        >>> token_log_probs(logits, torch.tensor([0, -100]), torch.tensor([True, False])).exp()
        tensor([0.7500, 1.0000])
    """
    _check_alike(logits.shape[:-1], targets, loss_mask)
    upcast = logits.to(torch.promote_types(logits.dtype, torch.float32))
    # 1. ids that can be looked up: 0 in place of what does not count, [*tokens 1]
    ids = _ids(targets, loss_mask).unsqueeze(-1)
    # 2. log p = logits[target] - logsumexp(logits)
    log_probs = upcast.gather(-1, ids).squeeze(-1) - upcast.logsumexp(dim=-1)
    # 3. chosen, not multiplied: 0 · -inf is NaN
    return log_probs if loss_mask is None else torch.where(loss_mask, log_probs, 0)


def z_loss(
    logits: Float[Tensor, "*tokens V"], loss_mask: Bool[Tensor, "*tokens"] | None = None
) -> Float[Tensor, ""]:
    """Σ logsumexp(logits)² over the tokens of the loss mask: 0 where exp(logits) already sum to 1.

    Args:
        logits: of any size.
        loss_mask: which tokens count; all if None.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> z_loss(torch.tensor([[0.4, 0.6], [2.0, 8.0]]).log())  # (log 1)² + (log 10)²
        tensor(5.3019)

    Paper: Chowdhery et al. 2022, section 5.
    Differs: the weight is the caller's; a sum, not a mean.
    """
    upcast = logits.to(torch.promote_types(logits.dtype, torch.float32))
    squares = upcast.logsumexp(dim=-1).square()
    if loss_mask is not None:
        _check_alike(logits.shape[:-1], loss_mask)
        squares = torch.where(loss_mask, squares, 0)
    return squares.sum()


def cross_entropy_naive(
    hidden: Float[Tensor, "N D"],
    table: Float[Tensor, "V D"],
    targets: Int[Tensor, "N"],
    loss_mask: Bool[Tensor, "N"] | None = None,
    *,
    z_weight: float = 0.0,
) -> Total:
    """-Σ log p(target) + z_weight · z_loss of logits = hidden · tableᵀ, all logits at once.

    Args:
        hidden: what the last norm gave, a row for each token.
        table: one row a word; the embedding's, where it serves twice.
        targets: ids below V; where not counted, any number.
        loss_mask: which tokens count; all if None.
        z_weight: 0 is none, PaLM's is 1e-4.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> hidden, table = torch.tensor([[1.0]]), torch.tensor([[3.0], [1.0]]).log()
        >>> cross_entropy_naive(hidden, table, torch.tensor([1]))  # -log of 1 in 4
        Total(nats=tensor(1.3863), n_tokens=tensor(1))
    """
    _check_shapes(hidden, table, targets, loss_mask)
    dtype = _common(hidden, table)
    # 1. logits of every token of the vocabulary, [N V]
    logits = hidden.to(dtype) @ table.to(dtype).T
    # 2. the loss -Σ log p(target), a sum over the tokens that count
    nats = -token_log_probs(logits, targets, loss_mask).sum()
    if z_weight:
        nats = nats + z_weight * z_loss(logits, loss_mask)
    return Total(nats, _n_counted(targets, loss_mask))


def cross_entropy(
    hidden: Float[Tensor, "N D"],
    table: Float[Tensor, "V D"],
    targets: Int[Tensor, "N"],
    loss_mask: Bool[Tensor, "N"] | None = None,
    *,
    z_weight: float = 0.0,
    chunk_tokens: int = 512,
) -> Total:
    """The same numbers and gradients, with never more than chunk_tokens × V logits alive.

    Where gradients are wanted they are made here, on the way forward, and kept until the backward
    pass multiplies them by the gradient of `nats`.

    Args:
        hidden, table, targets, loss_mask, z_weight: as for `cross_entropy_naive`.
        chunk_tokens: how many tokens' logits are alive at a time.

    Raises:
        ValueError: shapes that do not fit; a chunk below 1 token; when gradients of gradients are
            asked for.

    Example:
        >>> hidden, table = torch.tensor([[1.0]]), torch.tensor([[3.0], [1.0]]).log()
        >>> table.requires_grad_()
        tensor([[1.0986],
                [0.0000]], requires_grad=True)
        >>> cross_entropy(hidden, table, torch.tensor([1])).nats.backward()
        >>> table.grad  # p - one_hot: 3/4 - 0, 1/4 - 1
        tensor([[ 0.7500],
                [-0.7500]])

    Differs: from the naive one, whose gradient can itself be differentiated.
    """
    _check_shapes(hidden, table, targets, loss_mask)
    if chunk_tokens < 1:
        raise ValueError(f"chunk_tokens must be at least 1; got {chunk_tokens}")
    # within forward() both questions would be answered otherwise, so they are asked here
    gradients = torch.is_grad_enabled()
    to_hidden, to_table = gradients and hidden.requires_grad, gradients and table.requires_grad
    nats = _CrossEntropy.apply(
        hidden, table, targets, loss_mask, z_weight, chunk_tokens, to_hidden, to_table
    )
    return Total(nats, _n_counted(targets, loss_mask))


class _CrossEntropy(torch.autograd.Function):
    """Between the two passes live the gradients of hidden and of the table, and nothing else."""

    @staticmethod
    def forward(
        ctx, hidden, table, targets, loss_mask, z_weight, chunk_tokens, to_hidden, to_table
    ):
        ctx.dtypes = hidden.dtype, table.dtype
        dtype = _common(hidden, table)
        grad_hidden = torch.empty_like(hidden, dtype=dtype) if to_hidden else None
        grad_table = torch.zeros_like(table, dtype=dtype) if to_table else None
        ctx.save_for_backward(grad_hidden, grad_table)

        ids, table = _ids(targets, loss_mask), table.to(dtype)
        weights = torch.ones_like(ids, dtype=dtype) if loss_mask is None else loss_mask.to(dtype)
        nats = table.new_zeros(())
        room = table.new_empty(min(chunk_tokens, len(hidden)), len(table))
        for begin in range(0, len(hidden), chunk_tokens):
            here = slice(begin, begin + chunk_tokens)
            x, id, weight = hidden[here].to(dtype), ids[here, None], weights[here, None]
            logits = torch.mm(x, table.T, out=room[: len(x)])
            highest, chosen = logits.amax(dim=-1, keepdim=True), logits.gather(-1, id)
            exps = logits.sub_(highest).exp_()
            total = exps.sum(dim=-1, keepdim=True)
            logsumexp = highest + total.log()
            surprise = total.log() + (highest - chosen)
            nats += (weight * (surprise + z_weight * logsumexp.square())).sum()
            if not (to_hidden or to_table):
                continue
            gradient = exps.mul_(weight * (1 + 2 * z_weight * logsumexp) / total)
            gradient.scatter_add_(-1, id, -weight)
            if to_hidden:
                torch.mm(gradient, table, out=grad_hidden[here])
            if to_table:
                grad_table.addmm_(gradient.T, x)
        return nats

    @staticmethod
    def backward(ctx, gradient):
        if torch.is_grad_enabled():  # once_differentiable would let some pass, with a 0
            raise ValueError(
                "cross_entropy has gradients, but no gradients of gradients; got "
                "create_graph=True. Use cross_entropy_naive for those"
            )
        kept = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        scaled = [None if part is None else (part * gradient).to(dtype) for part, dtype in kept]
        return *scaled, None, None, None, None, None, None


def _common(hidden: Tensor, table: Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(hidden.dtype, table.dtype), torch.float32)


def _ids(targets: Tensor, loss_mask: Tensor | None) -> Tensor:
    """Ids that can be looked up: 0 stands where any number may."""
    return targets.long() if loss_mask is None else targets.long().masked_fill(~loss_mask, 0)


def _n_counted(targets: Tensor, loss_mask: Tensor | None) -> Tensor:
    if loss_mask is not None:
        return loss_mask.sum()
    return torch.full((), targets.numel(), dtype=torch.int64, device=targets.device)


def _check_alike(tokens: torch.Size, *others: Tensor | None) -> None:
    shapes = [list(other.shape) for other in others if other is not None]
    if any(shape != list(tokens) for shape in shapes):
        raise ValueError(
            f"logits of {list(tokens)} tokens need one target for each, and one truth value of "
            f"loss_mask if it is given; got the shapes {' and '.join(map(str, shapes))}"
        )


def _check_shapes(hidden: Tensor, table: Tensor, targets: Tensor, loss_mask: Tensor | None) -> None:
    if hidden.ndim != 2 or table.ndim != 2 or hidden.shape[1] != table.shape[1]:
        raise ValueError(
            "hidden must be [N, D] and table [V, D] with the same D; got "
            f"{list(hidden.shape)} and {list(table.shape)}. Rows of a batch are put below one "
            'another by einops.rearrange(hidden, "B T D -> (B T) D")'
        )
    _check_alike(hidden.shape[:1], targets, loss_mask)


def language_loss(model: Transformer, batch: Batch) -> Total:
    """Of every token of packed documents, from those before it in its document: what `train` asks.

    Where the batch has a loss mask, of the tokens that it marks.

    Example:
        >>> from minillm.model.config import tiny
        >>> from minillm.data.packing import Packed
        >>> packed = Packed([[5, 6, 7], [8, 9]], end_id=0, context_length=4, batch_size=1)
        >>> total = language_loss(tiny(vocab_size=10).build(seed=0), packed.batch_at(0))
        >>> total.n_tokens.item(), round(total.nats.item() / 4)  # log 10: it knows nothing yet
        (4, 2)
    """
    hidden = model.hidden(batch.tokens, context=batch.context())
    table = model.embedding.weight if model.head is None else model.head.weight
    loss_mask = None if batch.loss_mask is None else batch.loss_mask.flatten()
    return cross_entropy(hidden.flatten(0, 1), table, batch.targets.flatten(), loss_mask)
