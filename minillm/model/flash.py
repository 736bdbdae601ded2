"""Attention in tiles: the exact result, and no table of scores is ever held (FlashAttention).

softmax(scores) · values looks as if all scores of a row were needed before the first weight is
known: the highest of them, so that exp cannot overflow, and the sum. The online softmax
(在线 softmax) reads them a few at a time and keeps three numbers: m, the highest score so far;
total, Σ exp(s - m); weighted, Σ exp(s - m) v. If a tile brings a higher score m', what was summed
before is put right by one factor:

    kept = exp(m - m')       total ← total · kept + Σ exp(s - m')
                             weighted ← weighted · kept + Σ exp(s - m') v

and weighted / total is the answer at the end. For each tile (分块) of queries we walk so over the
tiles of keys: T · S scores are computed, tile_tokens² are alive.

The backward pass needs the weights P again. They are not stored but computed anew, tile by tile,
from q, k and one number a row, logsumexp = m + log total:

    P = exp(scores - logsumexp)           dv = Pᵀ do               dq = dscores k / √K
    dP = do vᵀ                            delta = Σ do ∘ o         dk = dscoresᵀ q / √K
    dscores = P ∘ (dP - delta)

where o are the values, do their gradient, and delta, one number a row, is what softmax's gradient
needs as the row's sum Σ P ∘ dP: since o = P v, it is had without P.

Paper: Dao, Fu, Ermon, Rudra and Ré 2022, "FlashAttention", arXiv:2205.14135, algorithm 1, and
appendix B with the backward pass, algorithm 4. Theirs to ours: N is T and S, d is K, ℓ is total,
D is delta.
The online softmax: Milakov and Gimelshein 2018, "Online normalizer calculation for softmax",
arXiv:1805.02867, algorithm 3.

Differs: queries in the outer loop, keys in the inner one, weighted sums divided once at the end,
and logsumexp kept in place of m and ℓ (all three as in FlashAttention-2, Dao 2023,
arXiv:2307.08691); one square tile size, given, where theirs follow from the size of fast memory;
no dropout, no mask but the causal one, whose hidden tiles are skipped; grouped heads; sums in the
dtype of q (theirs in float32). And this is Python: it saves memory, as theirs does, but no time.

Chapter: 03
"""

import math
from collections.abc import Iterator, Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor


def online_softmax_sum(scores: Sequence[float], values: Sequence[float], tile: int = 1) -> float:
    """Σ softmax(scores)ᵢ · valuesᵢ, reading `tile` numbers at a time and never looking back.

    Args:
        scores: finite numbers, as large as they like.
        values: as many.
        tile: how many are read at a time.

    Raises:
        ValueError: no scores, another number of values, a score that is not finite, a tile below 1.

    Example:
        >>> third = math.log(3)
        >>> round(online_softmax_sum([0, 0, third], [10, 20, 30]), 6)  # weights 1/5, 1/5, 3/5
        24.0

    Paper: Milakov and Gimelshein 2018, algorithm 3; theirs to ours: d is `total`.
    Differs: values are summed in the same pass, as FlashAttention does, so no weight is written
    down; tiles.
    """
    if not scores or len(scores) != len(values) or not all(map(math.isfinite, scores)):
        raise ValueError(
            "scores and values must be equally many, at least one, and scores finite; got "
            f"{list(scores)} and {list(values)}. A place that may not be seen is left out of both"
        )
    _check_tile(tile)
    highest, total, weighted = -math.inf, 0.0, 0.0  # m, Σ e^(s-m), Σ e^(s-m) v
    for here in _tiles(len(scores), tile):
        before, highest = highest, max(highest, *scores[here])
        kept = math.exp(before - highest)
        # the sums so far were divided by the old e^m: rescale them, then add this tile
        weights = [math.exp(score - highest) for score in scores[here]]
        total = total * kept + sum(weights)
        weighted = weighted * kept + sum(w * v for w, v in zip(weights, values[here], strict=True))
    return weighted / total


def flash_attention(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S K"],
    *,
    causal: bool = False,
    tile_tokens: int = 64,
) -> Float[Tensor, "B H T K"]:
    """softmax(q kᵀ / √K) v with memory that grows as T + S, not as T · S; so do its gradients.

    Args:
        q, k, v: queries, keys and values; each of G key/value heads serves H/G query heads.
        causal: no query sees a later key. The queries are the last T of the S tokens, as with a
            cache: query i stands at place S - T + i.
        tile_tokens: side of a tile. A head's peak is a few tiles, and each token adds K + 1
            elements to it (values and logsumexp), with gradients 3 K more.

    Raises:
        ValueError: shapes that do not fit; no key; causal with more queries than keys; a tile below
            1 token; when gradients of gradients are asked for.

    Example:
        >>> q = torch.zeros(1, 1, 3, 2)  # all scores are 0: a mean over what is seen
        >>> v = torch.tensor([[[[1.0, 0.0], [2.0, 0.0], [6.0, 0.0]]]])
        >>> flash_attention(q, q, v, causal=True, tile_tokens=2)[0, 0, :, 0]
        tensor([1.0000, 1.5000, 3.0000])

    Paper: Dao et al. 2022, algorithms 1 and 4.
    Differs: see the module.
    """
    _check_tile(tile_tokens)
    _check_shapes(q, k, v, causal)
    return _Flash.apply(q, k, v, causal, tile_tokens)


class _Flash(torch.autograd.Function):
    """The two passes under one name; between them live q, k, v, the values and logsumexp."""

    @staticmethod
    def forward(ctx, q, k, v, causal, tile_tokens):
        values, logsumexp = flash_forward(q, k, v, causal, tile_tokens)
        ctx.save_for_backward(q, k, v, values, logsumexp)
        ctx.rest = (causal, tile_tokens)
        return values

    @staticmethod
    def backward(ctx, grad_values):
        if torch.is_grad_enabled():
            raise ValueError(
                "flash_attention has gradients, but no gradients of gradients; got "
                "create_graph=True. Use minillm.model.attention.attend for those"
            )
        return *flash_backward(*ctx.saved_tensors, grad_values, *ctx.rest), None, None


def flash_forward(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S K"],
    causal: bool,
    tile_tokens: int,
) -> tuple[Float[Tensor, "B H T K"], Float[Tensor, "B H T 1"]]:
    """The values, and the logsumexp of each row's scores; arguments as for `flash_attention`.

    Example:
        >>> q, v = torch.zeros(1, 1, 1, 1), torch.arange(4.0).view(1, 1, 4, 1)
        >>> values, logsumexp = flash_forward(q, v, v, causal=False, tile_tokens=3)
        >>> values.item(), round(math.exp(logsumexp.item()), 4)  # a mean, and Σ exp(0) of 4 keys
        (1.5, 4.0)

    Paper: Dao et al. 2022, algorithm 1.
    Differs: see the module.
    """
    values, logsumexp = torch.empty_like(q), torch.empty_like(q[..., :1])
    for rows in _tiles(q.shape[2], tile_tokens):
        weighted = torch.zeros_like(_stacked(q[:, :, rows], k))
        total = torch.zeros_like(weighted[..., :1])
        highest = torch.full_like(total, -math.inf)
        for columns in _tiles(_n_seen(rows, q, k, causal), tile_tokens):
            # 1. the scores of one tile of queries and keys, [… C C]
            scores = _scores(q, k, rows, columns, causal)
            # 2. the new maximum m; what was summed so far shrinks by e^(m_before - m)
            before, highest = highest, torch.maximum(highest, scores.amax(dim=-1, keepdim=True))
            kept = torch.exp(before - highest)
            # 3. add the tile to Σ e^(s-m) and to Σ e^(s-m) v
            weights = torch.exp(scores - highest)
            total = total * kept + weights.sum(dim=-1, keepdim=True)
            weighted = weighted * kept + weights @ v[:, :, columns]
        # 4. the softmax's division, once at the end
        values[:, :, rows] = _unstacked(weighted / total, q)
        logsumexp[:, :, rows] = _unstacked(highest + total.log(), q)
    return values, logsumexp


def flash_backward(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S K"],
    values: Float[Tensor, "B H T K"],
    logsumexp: Float[Tensor, "B H T 1"],
    grad_values: Float[Tensor, "B H T K"],
    causal: bool,
    tile_tokens: int,
) -> tuple[Float[Tensor, "B H T K"], Float[Tensor, "B G S K"], Float[Tensor, "B G S K"]]:
    """Gradients of q, k and v, from that of the values and what `flash_forward` returned.

    Paper: Dao et al. 2022, appendix B, algorithm 4.
    Differs: see the module.
    """
    grad_q, grad_k, grad_v = torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    scale = q.shape[-1] ** -0.5
    for rows in _tiles(q.shape[2], tile_tokens):
        q_rows, o, grad_o = (_stacked(x[:, :, rows], k) for x in (q, values, grad_values))
        log_total = _stacked(logsumexp[:, :, rows], k)
        delta = (grad_o * o).sum(dim=-1, keepdim=True)
        for columns in _tiles(_n_seen(rows, q, k, causal), tile_tokens):
            weights = torch.exp(_scores(q, k, rows, columns, causal) - log_total)
            grad_weights = grad_o @ v[:, :, columns].mT
            grad_scores = weights * (grad_weights - delta) * scale
            grad_v[:, :, columns] += weights.mT @ grad_o
            grad_k[:, :, columns] += grad_scores.mT @ q_rows
            grad_q[:, :, rows] += _unstacked(grad_scores @ k[:, :, columns], q)
    return grad_q, grad_k, grad_v


def _scores(q: Tensor, k: Tensor, rows: slice, columns: slice, causal: bool) -> Tensor:
    """One tile of q kᵀ / √K, with -inf where a query may not look."""
    scores = _stacked(q[:, :, rows], k) @ k[:, :, columns].mT * q.shape[-1] ** -0.5
    if not causal:
        return scores
    first = k.shape[2] - q.shape[2]  # the place of query 0
    row = torch.arange(first + rows.start, first + rows.stop, device=q.device)
    row = row.repeat(q.shape[1] // k.shape[1])  # once for each head of a stack
    column = torch.arange(columns.start, columns.stop, device=q.device)
    return scores.masked_fill(row[:, None] < column, -math.inf)


def _n_seen(rows: slice, q: Tensor, k: Tensor, causal: bool) -> int:
    """How many keys the last of these queries sees; the others need no tile."""
    return k.shape[2] - q.shape[2] + rows.stop if causal else k.shape[2]


def _tiles(n_tokens: int, tile_tokens: int) -> Iterator[slice]:
    for begin in range(0, n_tokens, tile_tokens):
        yield slice(begin, min(begin + tile_tokens, n_tokens))


def _stacked(x: Tensor, k: Tensor) -> Tensor:
    """Rows of the query heads that share a key/value head, one head's below the other's."""
    return rearrange(x, "B (G R) T K -> B G (R T) K", G=k.shape[1])


def _unstacked(x: Tensor, q: Tensor) -> Tensor:
    return rearrange(x, "B G (R T) K -> B (G R) T K", R=q.shape[1] // x.shape[1])


def _check_tile(tile_tokens: int) -> None:
    if tile_tokens < 1:
        raise ValueError(f"a tile must hold at least 1 token; got {tile_tokens}")


def _check_shapes(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> None:
    shapes = f"{list(q.shape)}, {list(k.shape)} and {list(v.shape)}"
    same = q.ndim == k.ndim == 4 and q.shape[::3] == k.shape[::3] and k.shape == v.shape
    if not same or k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        raise ValueError(
            "q must be [B, H, T, K], k and v both [B, G, S, K] with q's B and K, and H a multiple "
            f"of G; got {shapes}"
        )
    n_queries, n_keys = q.shape[2], k.shape[2]
    if n_keys == 0:
        raise ValueError(f"a query needs at least one key to look at; got {shapes}")
    if causal and n_keys < n_queries:
        raise ValueError(
            "causal queries are the last T of the S tokens, so T may be at most S; got "
            f"T = {n_queries}, S = {n_keys}. Pass the keys of all tokens, or causal=False"
        )
