"""A scan (扫描): a memory that fades and takes in, along a whole text.

    h_t = a_t ⊙ h_(t-1) + b_t          a: what stays of the old, b: what is new

Each h needs the one before it, so it looks as if nothing could be done before h_(t-1) is known. But
what two neighbours do together is known without it, and is again of the same form:

    first (a_1, b_1), then (a_2, b_2):  h → a_2 (a_1 h + b_1) + b_2 = (a_1 a_2) h + (a_2 b_1 + b_2)
    so  (a_2, b_2) ∘ (a_1, b_1) = (a_1 a_2, a_2 b_1 + b_2)

Three tokens that each halve, and add 1, 4, 8. In order: 1; then 0.5 · 1 + 4 = 4.5; then 0.5 · 4.5 +
8 = 10.25. As a tree: tokens 2 and 3 are joined at once, to (0.25, 0.5 · 4 + 8) = (0.25, 10), while
someone else finds h_2 = 4.5. Then h_3 = 0.25 · 1 + 10 = 10.25: two rounds in place of three, and 10
in place of 1024. It is allowed because ∘ is associative: three may be joined from either side.

Four forms give the same h:

    scan_naive      token by token; torch finds the way back
    scan_parallel   log2(T) rounds over all tokens: T log2(T) joins, many at once
    scan_chunked    rounds within chunks, and a loop from chunk to chunk
    scan            token by token, with the way back by hand: the one that trains

A GPU does the many joins of a round in parallel, so there the number of rounds counts. On a CPU the
number of joins counts: [32, 128, 64, 16] forward and backward on one thread cost 0.015 s by `scan`,
0.03 s naively, 0.17 s in chunks of 16, and 0.4 s in rounds.

Paper: Hillis and Steele 1986, "Data Parallel Algorithms", Communications of the ACM 29 (rounds of
doubling); Blelloch 1990, "Prefix Sums and Their Applications", CMU-CS-90-190, section 1.4 (∘ for
recurrences); Martin and Cundy 2018, arXiv:1709.04057 (in networks, and the way back).
Differs: Blelloch's tree has T joins in 2 log2(T) rounds; doubling has more joins and half as many
rounds, and is easier to read.

Chapter: 09
"""

import torch
from jaxtyping import Float
from torch import Tensor


def scan_naive(
    a: Float[Tensor, "B T ..."],
    b: Float[Tensor, "B T ..."],
    first: Float[Tensor, "B ..."] | None = None,
) -> Float[Tensor, "B T ..."]:
    """Token by token, as it is written: what the other forms must give.

    Args:
        a: how much stays of each number.
        b: what is new; of a's shape.
        first: h_0, what was there before; [B, ...] without T. None for zeros.

    Returns:
        All h, from h_1 on.

    Raises:
        ValueError: no token, or shapes that differ.

    Example:
        >>> half, new = torch.full((1, 3), 0.5), torch.tensor([[1.0, 4.0, 8.0]])
        >>> scan_naive(half, new).tolist()
        [[1.0, 4.5, 10.25]]
        >>> scan_naive(half, new, first=torch.tensor([8.0])).tolist()
        [[5.0, 6.5, 11.25]]
    """
    _check(a, b, first)
    h = torch.zeros_like(b[:, 0]) if first is None else first
    states = []
    for a_now, b_now in zip(a.unbind(dim=1), b.unbind(dim=1), strict=True):
        h = a_now * h + b_now  # h_t = a_t h_(t-1) + b_t, [B ...]
        states.append(h)
    return torch.stack(states, dim=1)


def scan_parallel(
    a: Float[Tensor, "B T ..."],
    b: Float[Tensor, "B T ..."],
    first: Float[Tensor, "B ..."] | None = None,
) -> Float[Tensor, "B T ..."]:
    """All tokens at once, in log2(T) rounds, rounded up.

    Before a round each token knows what the last `reach` tokens do together, itself with them. It
    joins that to what the token `reach` before it knows, and so knows twice as many.

    Args:
        a, b, first: as for `scan_naive`.

    Example:
        >>> scan_parallel(torch.full((1, 3), 0.5), torch.tensor([[1.0, 4.0, 8.0]])).tolist()
        [[1.0, 4.5, 10.25]]
    """
    _check(a, b, first)
    reach = 1
    while reach < a.shape[1]:
        # two steps in one: a₂ (a₁ h + b₁) + b₂ = (a₁ a₂) h + (a₂ b₁ + b₂)
        joined_b = a[:, reach:] * b[:, :-reach] + b[:, reach:]
        joined_a = a[:, :-reach] * a[:, reach:]
        b = torch.cat((b[:, :reach], joined_b), dim=1)
        a = torch.cat((a[:, :reach], joined_a), dim=1)
        reach = 2 * reach
    return b if first is None else a * first[:, None] + b


def scan_chunked(
    a: Float[Tensor, "B T ..."],
    b: Float[Tensor, "B T ..."],
    first: Float[Tensor, "B ..."] | None = None,
    *,
    chunk_tokens: int = 16,
) -> Float[Tensor, "B T ..."]:
    """Rounds within a chunk, whose last h is the next chunk's first.

    Args:
        a, b, first: as for `scan_naive`; T need not be a multiple of chunk_tokens.
        chunk_tokens: the most tokens of a chunk. 1 is token by token, T is all at once.

    Raises:
        ValueError: chunk_tokens below 1; what `scan_naive` refuses.

    Example:
        >>> half, new = torch.full((1, 3), 0.5), torch.tensor([[1.0, 4.0, 8.0]])
        >>> scan_chunked(half, new, chunk_tokens=2).tolist()
        [[1.0, 4.5, 10.25]]
    """
    _check(a, b, first)
    if chunk_tokens < 1:
        raise ValueError(f"chunk_tokens must be at least 1; got {chunk_tokens}")
    chunks = []
    for chunk in zip(a.split(chunk_tokens, dim=1), b.split(chunk_tokens, dim=1), strict=True):
        chunks.append(scan_parallel(*chunk, first))
        first = chunks[-1][:, -1]
    return torch.cat(chunks, dim=1)


def scan(
    a: Float[Tensor, "B T ..."],
    b: Float[Tensor, "B T ..."],
    first: Float[Tensor, "B ..."] | None = None,
) -> Float[Tensor, "B T ..."]:
    """Token by token, with the way back by hand: half the naive time, and no copy is stacked.

    Args:
        a, b, first: as for `scan_naive`.

    Raises:
        ValueError: gradients of gradients were asked for; `scan_naive` has those. And what
            `scan_naive` refuses.

    Example:
        >>> a = torch.full((1, 3), 0.5, requires_grad=True)
        >>> h = scan(a, torch.tensor([[1.0, 4.0, 8.0]]))
        >>> h.tolist()
        [[1.0, 4.5, 10.25]]
        >>> h[0, 2].backward()
        >>> a.grad.tolist()  # a_3 was met by h_2 = 4.5; a_2 by h_1 = 1, and then halved
        [[0.0, 0.5, 4.5]]
    """
    _check(a, b, first)
    return _Scan.apply(a, b, first)


class _Scan(torch.autograd.Function):
    """The way back is a scan from the end. With g_t all that the loss wants of h_t:

        g_t = ∂L/∂h_t + a_(t+1) g_(t+1)          asked of h_t itself, and by way of h_(t+1)
        to b_t: g_t          to a_t: g_t h_(t-1)          to h_0: a_1 g_1

    Remembered are a, all h and the first h; b is not needed.
    """

    @staticmethod
    def forward(ctx, a, b, first):
        every = torch.empty_like(b, memory_format=torch.contiguous_format)
        h = torch.zeros_like(b[:, 0]) if first is None else first
        for a_now, b_now, place in zip(a.unbind(1), b.unbind(1), every.unbind(1), strict=True):
            h = torch.addcmul(b_now, a_now, h, out=place)
        ctx.save_for_backward(a, every, first)
        return every

    @staticmethod
    def backward(ctx, gradient):
        if torch.is_grad_enabled():
            raise ValueError(
                "scan has gradients, but no gradients of gradients; got create_graph=True. Use "
                "scan_naive for those"
            )
        a, every, first = ctx.saved_tensors
        to_b = gradient.clone(memory_format=torch.contiguous_format)
        per_token, a_per_token = to_b.unbind(1), a.unbind(1)
        for t in range(len(per_token) - 2, -1, -1):
            per_token[t].addcmul_(a_per_token[t + 1], per_token[t + 1])
        to_a = torch.empty_like(to_b)
        torch.mul(to_b[:, 1:], every[:, :-1], out=to_a[:, 1:])
        to_a[:, 0] = 0 if first is None else to_b[:, 0] * first
        return to_a, to_b, None if first is None else a[:, 0] * to_b[:, 0]


def _check(a: Tensor, b: Tensor, first: Tensor | None) -> None:
    """Shapes that torch would stretch to fit are most often a slip."""
    if a.shape != b.shape or a.ndim < 2 or not a.shape[1]:
        raise ValueError(
            "a and b must have one shape, [B, T, ...] with at least one token; got "
            f"{list(a.shape)} and {list(b.shape)}. Where one is the same for all, expand it"
        )
    if first is not None and first.shape != (a.shape[0], *a.shape[2:]):
        raise ValueError(
            f"first must be a token's shape, {[a.shape[0], *a.shape[2:]]} beside "
            f"{list(a.shape)}; got {list(first.shape)}"
        )
