"""Ring attention (环形注意力): a text too long for one rank, with every token seeing all before it.

Each of P ranks has T/P of the tokens, one behind the other: their queries, keys and values.
Queries stay. Keys and values travel round the ring, and after P - 1 sends every rank has met all:

    rank 0    q0 meets  k0 v0 | k3 v3 | k2 v2 | k1 v1
    rank 1    q1 meets  k1 v1 | k0 v0 | k3 v3 | k2 v2        … each block moves one to the right

What a rank has from one block of keys is a softmax over that block alone. Two of them make the
softmax over both, if each comes with the logsumexp of its scores, one number a query:

    logsumexp = log(exp logsumexp_1 + exp logsumexp_2)
    values = exp(logsumexp_1 - logsumexp) values_1 + exp(logsumexp_2 - logsumexp) values_2

That is the online softmax of `minillm.model.flash`, from rank to rank. So a rank has at most
(T/P)² scores a head alive, of the T² that there are, and sends (P - 1)/P of all keys and values.

The backward pass is a second trip. The gradients of a block's keys and values travel with it, each
rank adds its queries' share, and after P sends the block is at home again.

**Causal** attention leaves blocks out that stand behind the queries. So rank 0 is ready after one
block and rank P - 1 after P: they work unequally, and the slowest decides.

Paper: Liu, Zaharia and Abbeel 2023, "Ring Attention with Blockwise Transformers for Near-Infinite
Context", arXiv:2310.01889, section 3 and algorithm 1 (from memory).
Differs: attention only, where their blocks go through the feed-forward part too; sending does not
run beside computing; a block is attended in tiles of its own size, or of one that is given.

Chapter: 16
"""

from collections.abc import Generator
from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributed import ProcessGroup

from minillm.model.flash import flash_backward, flash_forward
from minillm.parallel.collectives import Traffic, exchange


@final
class PartialAttention(NamedTuple):
    """Attention to some of the keys.

    Args:
        values: the weighted sum of their values, as if there were no other keys.
        logsumexp: of the scores, which says how much these keys count against others.
    """

    values: Float[Tensor, "B H T K"]
    logsumexp: Float[Tensor, "B H T 1"]


def merged(first: PartialAttention, second: PartialAttention) -> PartialAttention:
    """Attention to the keys of both.

    Example:
        >>> values, totals = torch.tensor([[2.0], [6.0]]), torch.tensor([[3.0], [1.0]])
        >>> one, other = (
        ...     PartialAttention(value.view(1, 1, 1, 1), total.log().view(1, 1, 1, 1))
        ...     for value, total in zip(values, totals, strict=True)
        ... )
        >>> both = merged(one, other)  # 3/4 · 2 + 1/4 · 6
        >>> both.values.item(), round(both.logsumexp.exp().item(), 4)
        (3.0, 4.0)
    """
    logsumexp = torch.logaddexp(first.logsumexp, second.logsumexp)
    values = sum(each.values * (each.logsumexp - logsumexp).exp() for each in (first, second))
    return PartialAttention(values, logsumexp)


def ring_attention_steps(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G T K"],
    v: Float[Tensor, "B G T K"],
    rank: int,
    n_ranks: int,
    *,
    causal: bool = True,
    tile_tokens: int | None = None,
) -> Generator[Tensor, Tensor, PartialAttention]:
    """One rank's part of attention over the tokens of all ranks, as steps of a ring.

    Args:
        q, k, v: of this rank's tokens, which stand behind those of rank - 1; as many on all ranks.
        rank, n_ranks: r and P.
        causal: no query sees a later key.
        tile_tokens: side of a tile of scores; None for the whole block, T/P.

    Returns:
        For this rank's queries, the values and the logsumexp over the keys of all ranks.

    Example:
        >>> from minillm.parallel.collectives import in_lockstep
        >>> q = torch.zeros(1, 1, 1, 1)  # all scores are 0: a mean over what is seen
        >>> v = torch.tensor([1.0, 2.0, 6.0]).view(3, 1, 1, 1, 1)
        >>> ring = in_lockstep([ring_attention_steps(q, q, v[r], r, 3) for r in range(3)])
        >>> [round(partial.values.item(), 4) for partial in ring.results], ring.bytes_sent
        ([1.0, 1.5, 3.0], [16, 16, 16])

    Paper: Liu et al. 2023, algorithm 1.
    Differs: see the module.
    """
    tile = tile_tokens or q.shape[2]
    # 1. one's own keys first: every query sees at least itself
    attended = PartialAttention(*flash_forward(q, k, v, causal, tile))
    block = torch.stack((k, v))
    for step in range(1, n_ranks):
        # 2. keys and values move one to the right: here are those of rank r - step
        block = yield block
        if causal and step > rank:  # of a rank behind this one: not seen, only sent on
            continue
        # 3. attend to them, and merge
        attended = merged(attended, PartialAttention(*flash_forward(q, *block, False, tile)))
    return attended


def ring_attention_backward_steps(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G T K"],
    v: Float[Tensor, "B G T K"],
    attended: PartialAttention,
    grad_values: Float[Tensor, "B H T K"],
    rank: int,
    n_ranks: int,
    *,
    causal: bool = True,
    tile_tokens: int | None = None,
) -> Generator[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """The gradients of this rank's q, k and v, as steps of a ring.

    Args:
        q, k, v, rank, n_ranks, causal, tile_tokens: as for `ring_attention_steps`.
        attended: what that gave.
        grad_values: the gradient of its values.
    """
    rest = (*attended, grad_values)
    tile = tile_tokens or q.shape[2]
    grad_q, grad_k, grad_v = flash_backward(q, k, v, *rest, causal, tile)
    block = torch.stack((k, v, grad_k, grad_v))
    for step in range(1, n_ranks):
        # 1. a block, and what the ranks that it has met add to its gradients
        block = yield block
        if causal and step > rank:
            continue
        # 2. this rank's queries add their share, and get theirs
        keys, values, *gradients = block
        more_q, *shares = flash_backward(q, keys, values, *rest, False, tile)
        grad_q = grad_q + more_q
        gradients = [each + share for each, share in zip(gradients, shares, strict=True)]
        block = torch.stack((keys, values, *gradients))
    # 3. the last send brings one's own block home
    if n_ranks > 1:
        block = yield block
    return grad_q, block[2], block[3]


def ring_attention(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S K"],
    group: ProcessGroup | None = None,
    *,
    causal: bool = True,
    tile_tokens: int | None = None,
    traffic: Traffic | None = None,
) -> Float[Tensor, "B H T K"]:
    """Attention over the tokens of all ranks, between processes, with gradients.

    Args:
        q, k, v: of this rank's tokens, which stand behind those of rank - 1.
        group: the ranks; None for all.
        causal, tile_tokens: as for `ring_attention_steps`.
        traffic: what this rank sends is added to it, on both ways.

    Raises:
        ValueError: k and v of other shapes than q's B, T and K, or heads that do not fit.
    """
    fits = k.shape == v.shape and q[:, 0].shape == k[:, 0].shape and not q.shape[1] % k.shape[1]
    if not fits:
        shapes = ", ".join(str(list(x.shape)) for x in (q, k, v))
        raise ValueError(
            "each rank has queries, keys and values of the same tokens: q [B, H, T, K], k and v "
            f"[B, G, T, K], with H a multiple of G; got {shapes}"
        )
    return _RingAttention.apply(q, k, v, group, causal, tile_tokens, traffic)


class _RingAttention(torch.autograd.Function):
    """The two trips under one name."""

    @staticmethod
    def forward(ctx, q, k, v, group, causal, tile_tokens, traffic):
        ctx.ring, ctx.options = (group, traffic), {"causal": causal, "tile_tokens": tile_tokens}
        place = torch.distributed.get_rank(group), torch.distributed.get_world_size(group)
        ctx.place = place
        attended = exchange(ring_attention_steps(q, k, v, *place, **ctx.options), *ctx.ring)
        ctx.save_for_backward(q, k, v, *attended)
        return attended.values

    @staticmethod
    def backward(ctx, grad_values):
        q, k, v, *attended = ctx.saved_tensors
        steps = ring_attention_backward_steps(
            q, k, v, PartialAttention(*attended), grad_values, *ctx.place, **ctx.options
        )
        return *exchange(steps, *ctx.ring), None, None, None, None
