"""Routing (路由): which of E experts a token is sent to, and how much each of them counts.

A matrix gives every token a score for each expert (logits); their softmax p are the router
probabilities. What differs is who may choose:

    top k           every token takes its k best experts, weighted by p / (sum of the k chosen p)
    Switch          every token takes its best one, weighted by p; an expert has only so much room
    expert choice   every expert takes its best tokens, weighted by p

Where tokens choose, all may choose the same expert, and the others never learn. Three means against
that: limited room (`capacity`), a loss that pushes an expert's p down the harder, the more tokens
it has (`load_balance`), and a bias on the choice alone, moved a little after each step
(`balanced_bias`).

What comes out is a list of pairs, token and expert (`ExpertRouting`), sorted by expert.

Paper: Jiang et al. 2024, "Mixtral", arXiv:2401.04088, section 2.1; Fedus et al. 2021, "Switch",
arXiv:2101.03961, equations (1) to (6); Zhou et al. 2022, "Expert Choice", arXiv:2202.09368, section
3.2; Zoph et al. 2022, "ST-MoE", arXiv:2202.08906, equation (5); Wang et al. 2024, "Auxiliary-Loss-
Free Load Balancing", arXiv:2408.15664, and DeepSeek-V3, arXiv:2412.19437, section 2.1.2. Theirs to
ours: N experts, T tokens are E experts, N tokens; e and c of expert choice are E and the factor.
Differs: the biased scores are a softmax here, a sigmoid in DeepSeek-V3.

Chapter: 10
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class ExpertRouting:
    """How N tokens were sent to E experts: a `minillm.model.ffn.Routing`.

    Pairs are sorted by expert, and those of one expert in the order in which they found room.

    Args:
        logits: of each token for each expert.
        tokens: of each pair, which token.
        experts: of each pair, which expert.
        weights: of each pair, what the expert's answer is multiplied by.
        tokens_per_expert: how many pairs were routed to each expert, those with them that found no
            room.
        n_dropped: how many pairs found no room.
    """

    logits: Float[Tensor, "N E"]
    tokens: Int[Tensor, "P"]
    experts: Int[Tensor, "P"]
    weights: Float[Tensor, "P"]
    tokens_per_expert: Int[Tensor, "E"]
    n_dropped: int = 0


# --- who goes where -----------------------------------------------------------------------------
def route_top_k(
    logits: Float[Tensor, "N E"],
    top_k: int,
    *,
    norm_topk: bool = True,
    bias: Float[Tensor, "_"] | None = None,
    capacity: int | None = None,
) -> ExpertRouting:
    """Every token is routed to the k experts with the largest router probabilities.

    Args:
        logits: of each token for each expert.
        top_k: k, how many experts a token takes.
        norm_topk: divide a token's k weights by their sum. With k = 1 every weight is then 1, and
            the router learns nothing from what the experts answer.
        bias: added to p for the choice alone; weights are p's own. See `balanced_bias`.
        capacity: how many pairs an expert takes; None for all. All tokens' first choices are
            served before second choices, and of equal ones the earlier token. What finds no room
            is dropped, and the weights of the token's other pairs stay as they are.

    Raises:
        ValueError: top_k below 1 or above E, capacity below 1, a bias of another length.

    Example:
        >>> logits = torch.tensor([[1.0, 3.0, 6.0]]).log()  # p is 10 %, 30 % and 60 %
        >>> routing = route_top_k(logits, top_k=2)
        >>> routing.experts, routing.weights  # 3 : 6
        (tensor([1, 2]), tensor([0.3333, 0.6667]))
        >>> route_top_k(logits, top_k=1, bias=torch.tensor([0.0, 0.4, 0.0])).experts
        tensor([1])

    Paper: Mixtral, section 2.1 (the softmax of the chosen logits is the same as this); Wang et al.
        2024, equation (3) (bias).
    Differs: GShard's and ST-MoE's second choices are limited in the same order.
    """
    n_tokens, n_experts = logits.shape
    _check_capacity(capacity)
    if not 1 <= top_k <= n_experts:
        raise ValueError(
            f"top_k must be at least 1 and at most the number of experts, {n_experts}; got {top_k}"
        )
    # 1. router probabilities p = softmax(logits), [N E]
    router_probabilities = _probabilities(logits)
    # 2. keep the k best experts of each token, [N k]
    if bias is None:
        weights, experts = router_probabilities.topk(top_k, dim=-1)
    else:
        _check_length("bias", bias, n_experts)
        experts = (router_probabilities.detach() + bias).topk(top_k, dim=-1).indices
        weights = router_probabilities.gather(-1, experts)
    # 3. their weights, divided by the sum of these k
    if norm_topk:
        weights = weights / weights.sum(dim=-1, keepdim=True)

    # 4. the pairs (token, expert), sorted by expert, [N k]
    experts = experts.T.flatten()  # all first choices, then all second choices
    tokens_per_expert = torch.bincount(experts, minlength=n_experts)
    order = experts.argsort(stable=True)
    experts = experts[order]
    # 5. each expert takes its first `capacity` pairs; the others are dropped
    if capacity is not None:
        first = tokens_per_expert.cumsum(0) - tokens_per_expert  # where an expert's pairs begin
        place = torch.arange(len(order), device=order.device) - first[experts]
        order, experts = order[place < capacity], experts[place < capacity]
    return ExpertRouting(
        logits=logits,
        tokens=order % n_tokens,
        experts=experts,
        weights=weights.T.flatten()[order],
        tokens_per_expert=tokens_per_expert,
        n_dropped=n_tokens * top_k - len(order),
    )


def route_switch(logits: Float[Tensor, "N E"], capacity: int) -> ExpertRouting:
    """Every token is routed to the expert with the largest p, if there is room left.

    The weight is p itself: that is how the router learns from the loss.

    Args:
        logits: of each token for each expert.
        capacity: how many tokens an expert takes, the earlier ones first; the rest are dropped:
            the layer adds nothing to them.

    Raises:
        ValueError: capacity below 1.

    Example:
        >>> logits = torch.tensor([[4.0, 1.0], [3.0, 2.0], [1.0, 4.0]]).log()
        >>> routing = route_switch(logits, capacity=1)  # tokens 0 and 1 both ask for expert 0
        >>> routing.tokens, routing.weights, routing.n_dropped
        (tensor([0, 2]), tensor([0.8000, 0.8000]), 1)

    Paper: Fedus et al. 2021, equations (1) to (3), section 2.2.
    Differs: none.
    """
    return route_top_k(logits, 1, norm_topk=False, capacity=capacity)


def route_expert_choice(logits: Float[Tensor, "N E"], capacity: int) -> ExpertRouting:
    """Every expert takes the tokens with the largest p; a token may get many experts, or none.

    So all experts are in even use, without any loss for it. **But it looks into the future**:
    whether an expert takes a token depends on all tokens of the batch, later ones with them. A
    model that writes from left to right is trained with knowledge it will not have, and its answer
    for a token changes with what stands beside it.

    Args:
        logits: of each token for each expert.
        capacity: how many tokens an expert takes; all N where there are no more.

    Raises:
        ValueError: capacity below 1.

    Example:
        >>> logits = torch.tensor([[4.0, 1.0], [3.0, 2.0], [1.0, 4.0]]).log()
        >>> routing = route_expert_choice(logits, capacity=1)  # nobody takes token 1
        >>> routing.tokens, routing.experts, routing.weights
        (tensor([0, 2]), tensor([0, 1]), tensor([0.8000, 0.8000]))

    Paper: Zhou et al. 2022, equations (1) and (2).
    Differs: none.
    """
    n_tokens, n_experts = logits.shape
    _check_capacity(capacity)
    taken = min(capacity, n_tokens)
    weights, tokens = _probabilities(logits).T.topk(taken, dim=-1)
    experts = torch.arange(n_experts, device=logits.device)
    return ExpertRouting(
        logits=logits,
        tokens=tokens.flatten(),
        experts=experts.repeat_interleave(taken),
        weights=weights.flatten(),
        tokens_per_expert=torch.full_like(experts, taken),
    )


def capacity(n_tokens: int, n_experts: int, factor: float) -> int:
    """For how many tokens an expert has room: its even share times the factor, rounded up.

    Args:
        n_tokens: how many pairs there are: N, or k N where each token is routed to k experts.
        n_experts: E.
        factor: 1 for as much room as pairs; more, since tokens are never spread evenly.

    Raises:
        ValueError: a count below 1, a factor that is not above 0.

    Example:
        >>> capacity(n_tokens=12, n_experts=4, factor=1.25)  # 3.75
        4

    Paper: Fedus et al. 2021, equation (3).
    Differs: rounded up, so that no expert is without any room.
    """
    if n_tokens < 1 or n_experts < 1 or not 0 < factor < math.inf:
        raise ValueError(
            "capacity needs n_tokens and n_experts of at least 1 and a finite factor above 0; got "
            f"n_tokens={n_tokens}, n_experts={n_experts}, factor={factor}"
        )
    return max(1, math.ceil(factor * n_tokens / n_experts - 1e-9))  # 1.1 · 10 is 11.000000000000002


# --- are they in even use? ----------------------------------------------------------------------
def shares(routing: ExpertRouting) -> Float[Tensor, "E"]:
    """Which share of all pairs was routed to each expert, dropped pairs with them; sums to 1.

    Dropped pairs count: an expert that everyone is routed to and few reach would look like any
    other.

    Example:
        >>> logits = torch.tensor([[4.0, 1.0], [3.0, 2.0], [1.0, 4.0]]).log()
        >>> shares(route_switch(logits, capacity=1))  # tokens 0 and 1 chose expert 0
        tensor([0.6667, 0.3333])
    """
    return routing.tokens_per_expert / routing.tokens_per_expert.sum()


def load_balance(routing: ExpertRouting) -> Float[Tensor, ""]:
    """E · Σ f_e P_e: 1 when the experts are in even use, E when one has everything with p = 1.

    f_e is an expert's share of the pairs and P_e the mean of its p over all tokens. f counts and
    has no gradient; P has one, and falls where f is large. 1 is not the least value: f and P can
    disagree, so judge the use of experts by `shares`.

    Example:
        >>> logits = torch.tensor([[4.0, 1.0], [3.0, 2.0], [1.0, 4.0]]).log()
        >>> load_balance(route_top_k(logits, top_k=1))  # 2 · (2/3 · 1.6/3 + 1/3 · 1.4/3)
        tensor(1.0222)
        >>> logits = torch.tensor([[51.0, 49.0]] * 3 + [[1.0, 99.0]]).log()  # uneven: 3 to 1
        >>> load_balance(route_top_k(logits, top_k=1))  # 2 · (3/4 · 0.385 + 1/4 · 0.615)
        tensor(0.8850)

    Paper: Fedus et al. 2021, equations (4) to (6), without their factor α.
    Differs: f counts pairs, where they have one expert a token.
    """
    # f_e, the share of the pairs, and P_e, the mean probability, [E]
    f, P = shares(routing), _probabilities(routing.logits).mean(dim=0)
    n_experts = routing.logits.shape[1]
    return n_experts * (f * P).sum()


def z_loss(routing: ExpertRouting) -> Float[Tensor, ""]:
    """The mean over tokens of (log Σ exp logits)²: keeps logits small, where rounding is too.

    Example:
        >>> logits = torch.zeros(3, 2)  # log(1 + 1) = 0.6931, squared
        >>> z_loss(route_top_k(logits, top_k=1))
        tensor(0.4805)

    Paper: Zoph et al. 2022, equation (5).
    Differs: none.
    """
    return _wide(routing.logits).logsumexp(dim=-1).square().mean()


def balanced_bias(
    bias: Float[Tensor, "_"], shares: Float[Tensor, "E"], rate: float
) -> Float[Tensor, "E"]:
    """The next bias: a step up for experts below the mean, down for those above.

    To be called after each step of training, with that step's `shares`. No loss, so nothing pulls
    against the model's own; and what stands in the batch later does not change an earlier choice.

    Args:
        bias: of `route_top_k`.
        shares: of the pairs.
        rate: how large a step is; theirs is 0.001.

    Raises:
        ValueError: shares and bias of different lengths.

    Example:
        >>> balanced_bias(torch.zeros(3), torch.tensor([0.6, 0.3, 0.1]), rate=0.01)
        tensor([-0.0100,  0.0100,  0.0100])

    Paper: Wang et al. 2024, algorithm 1; DeepSeek-V3, section 2.1.2.
    Differs: none.
    """
    _check_length("bias", bias, len(shares))
    return bias + rate * (shares.mean() - shares).sign()


# --- small parts --------------------------------------------------------------------------------
def _probabilities(logits: Tensor) -> Tensor:
    return _wide(logits).softmax(dim=-1)


def _wide(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _check_capacity(capacity: int | None) -> None:
    if capacity is not None and capacity < 1:
        raise ValueError(f"capacity must be at least 1, room for one token; got {capacity}")


def _check_length(name: str, values: Tensor, n_experts: int) -> None:
    if len(values) != n_experts:
        raise ValueError(
            f"{name} must have a number for each of the {n_experts} experts; got {len(values)}"
        )
