"""Expert parallelism (专家并行): the experts of a layer are dealt out, and tokens travel to theirs.

The E experts of a mixture (`minillm.experts.moe`) hold most of its parameters. Each of N ranks
keeps E/N of them, and has its own share of the batch. The router is small, and is on every rank:

    1. route       each rank routes its own tokens: pairs of a token and an expert, by expert
    2. dispatch    an **all-to-all** (全交换) sends each pair's token to the rank of its expert
    3. experts     each rank's experts read what came from all ranks
    4. combine     a second all-to-all sends the answers back the same way
    5. add         each token adds up its answers, weighted, as in the plain layer

How many tokens go from whom to whom depends on the routing. So the ranks first tell each other
these numbers, a small all-to-all. The backward pass runs both all-to-alls the other way.

An expert has met the tokens of all ranks, so its gradient is whole. What every rank has (router,
shared experts, attention, …) has met the rank's own tokens, and its gradients are added up over the
ranks, as in data parallelism. For the rest of a model expert-parallel ranks are just that.

Paper: Lepikhin et al. 2020, "GShard", arXiv:2006.16668, section 3.2 (dispatch and combine as
all-to-all); Fedus et al. 2021, "Switch", arXiv:2101.03961, section 5. Both sections from memory.
Differs: no capacity, so that nothing is dropped, and messages are as long as the routing makes them
(theirs are filled up to the capacity). With a capacity, room would go to tokens rank by rank, and
the layer would not be the single one; such layers are refused. Auxiliary losses, where they are
used, look at each rank's own tokens.

Chapter: 16
"""

from typing import final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, distributed, nn
from torch.distributed import ProcessGroup

from minillm.experts.moe import MoE
from minillm.experts.routing import ExpertRouting, route_top_k
from minillm.model.attention import Context
from minillm.parallel.collectives import Collectives, Traffic
from minillm.parallel.data import DataParallel
from minillm.parallel.zero import NUMBER_BY_NUMBER
from minillm.train.loop import TrainState


# --- the all-to-all ------------------------------------------------------------------------------
@final
class AllToAll:
    """Rows from every rank to every rank, with what this rank sends to others counted.

    Args:
        group: the ranks; None for all.
    """

    def __init__(self, group: ProcessGroup | None = None):
        self.group, self.traffic = group, Traffic()
        self.rank, self.n_ranks = distributed.get_rank(group), distributed.get_world_size(group)

    def __call__(
        self, rows: Float[Tensor, "n D"], to: list[int], come: list[int]
    ) -> Float[Tensor, "m D"]:
        """The rows for this rank, those of rank 0 first; differentiable.

        Args:
            rows: those for rank 0 first.
            to: how many go to each rank; n together.
            come: how many come from each rank; m together.
        """
        return _AllToAll.apply(rows, to, come, self)

    def send(self, rows: Tensor, to: list[int], come: list[int]) -> Tensor:
        """The same for numbers of any kind, without gradients."""
        arrived = rows.new_empty(sum(come), *rows.shape[1:])
        distributed.all_to_all_single(arrived, rows.contiguous(), come, to, group=self.group)
        others = len(rows) - to[self.rank]
        self.traffic.n_bytes += others * rows[:1].numel() * rows.element_size()
        self.traffic.n_messages += self.n_ranks - 1
        return arrived


class _AllToAll(torch.autograd.Function):
    """What went there as rows comes back as their gradients."""

    @staticmethod
    def forward(ctx, rows, to, come, ranks: AllToAll):
        ctx.back = (come, to, ranks)
        return ranks.send(rows, to, come)

    @staticmethod
    def backward(ctx, gradient):
        come, to, ranks = ctx.back
        return ranks.send(gradient, come, to), None, None, None


# --- the layer -----------------------------------------------------------------------------------
@final
class ExpertParallel(nn.Module):
    """A `MoE` of which this rank has the router and E/N of the experts: an `FFN`.

    Parameters have the names that they have in the plain layer. All ranks call it together, each
    with its own tokens, and all go back through it.

    Args:
        layer: the plain layer, the same on all ranks; its modules are used on.
        ranks: among whom the experts are dealt out, E/N to rank 0, the next E/N to rank 1, and so
            on.

    Raises:
        ValueError: N does not divide the experts; a layer with a capacity.
    """

    def __init__(self, layer: MoE, ranks: AllToAll):
        super().__init__()
        _check(layer, ranks.n_ranks)
        self.ranks, self.top_k, self.norm_topk = ranks, layer.top_k, layer.norm_topk
        self.router, self.shared = layer.router, layer.shared
        self.register_buffer("expert_bias", layer.expert_bias)
        own = own_experts(len(layer.experts), ranks.rank, ranks.n_ranks)
        self.experts = nn.ModuleDict({str(e): layer.experts[e] for e in own})

    def forward(
        self, x: Float[Tensor, "B T D"], context: Context | None = None
    ) -> tuple[Float[Tensor, "B T D"], ExpertRouting]:
        """What is to be added to x, and how this rank's tokens were routed."""
        n_ranks = self.ranks.n_ranks
        # 1. route: pairs of a token and an expert, sorted by expert, and so by rank
        flat = rearrange(x, "B T D -> (B T) D")
        routing = route_top_k(
            self.router(flat), self.top_k, norm_topk=self.norm_topk, bias=self.expert_bias
        )
        # how many go to each expert, and how many come to each own one, by rank: [N E/N]
        going = routing.tokens_per_expert.view(n_ranks, -1)
        coming = self.ranks.send(going, [1] * n_ranks, [1] * n_ranks)
        to, come = going.sum(dim=1).tolist(), coming.sum(dim=1).tolist()
        # 2. dispatch: each token to the rank of its expert
        if torch.is_grad_enabled() and not flat.requires_grad:
            # or a rank whose experts have no token would miss the way back
            flat = flat.detach().requires_grad_()
        arrived = self.ranks(flat.index_select(0, routing.tokens), to, come)
        # 3. experts, and 4. combine: the answers go where the tokens came from
        answers = self.ranks(self._answers(arrived, coming), come, to)
        # 5. add: the answers, weighted, to their tokens' rows
        answers = answers * routing.weights[:, None].to(answers.dtype)
        y = answers.new_zeros(flat.shape).index_add_(0, routing.tokens, answers).view(x.shape)
        if self.shared is not None:
            y = y + self.shared(x)[0]
        return y, routing

    def _answers(self, arrived: Tensor, coming: Tensor) -> Tensor:
        """Each expert reads its tokens of all ranks at once; who has none is not called."""
        # what arrived stands by rank, and of each rank by expert
        parts, n_own = list(arrived.split(coming.flatten().tolist())), len(self.experts)
        for n, expert in enumerate(self.experts.values()):
            mine = parts[n::n_own]
            rows = torch.cat(mine)
            if len(rows):
                parts[n::n_own] = expert(rows)[0].split([len(part) for part in mine])
        return torch.cat(parts)


def own_experts(n_experts: int, rank: int, n_ranks: int) -> range:
    """The experts of a rank.

    Example:
        >>> own_experts(n_experts=8, rank=1, n_ranks=4)
        range(2, 4)
    """
    share = n_experts // n_ranks
    return range(rank * share, (rank + 1) * share)


def _check(layer: MoE, n_ranks: int) -> None:
    n_experts = len(layer.experts)
    if n_experts % n_ranks:
        raise ValueError(
            f"{n_ranks} expert-parallel ranks must divide the experts of a layer; got {n_experts}. "
            f"Take other ranks, or build with n_experts={n_experts // n_ranks * n_ranks or n_ranks}"
        )
    if layer.capacity_factor is not None:
        raise ValueError(
            "with a capacity, which tokens an expert takes depends on those of all ranks; experts "
            f"are dealt out of layers without one; got router={layer.router_type!r} and "
            f'capacity_factor={layer.capacity_factor}. Build with router="top_k" alone'
        )


# --- a state of training -------------------------------------------------------------------------
@final
class ExpertReduction:
    """What a step asks of a model whose experts are dealt out (`Reduction`).

    Args:
        experts: parameters of this rank's experts.
        ranks: among whom experts are dealt out.
        collectives: of the same ranks, for all other parameters.
    """

    def __init__(self, experts: list[nn.Parameter], ranks: AllToAll, collectives: Collectives):
        self.experts, self.ranks, self.data = experts, ranks, DataParallel(collectives)

    def gradients(self, model: nn.Module) -> list[Tensor]:
        """Of the experts as they are; of what every rank has, summed over the ranks."""
        own = {id(parameter): parameter.grad for parameter in self.experts}
        for parameter in self.experts:  # not to be summed
            parameter.grad = None
        everywhere = self.data.gradients(model)
        for parameter in self.experts:
            parameter.grad = own[id(parameter)]
        return everywhere + [gradient for gradient in own.values() if gradient is not None]

    def total(self, values: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Sums over the ranks."""
        return self.data.total(values)

    def norm(self, gradients: list[Tensor]) -> float:
        """Of the experts of all ranks, and once of what every rank has."""
        own = {id(parameter.grad) for parameter in self.experts}
        length = torch.nn.utils.get_total_norm
        squares = length([g for g in gradients if id(g) in own]).double().square().reshape(1)
        rest = length([g for g in gradients if id(g) not in own]).double().square()
        return (self.total(squares) + rest).sqrt().item()

    def clear(self) -> None:
        """Nothing is left over."""


def shard(state: TrainState, ranks: AllToAll, collectives: Collectives) -> TrainState:
    """Deal out the experts of all blocks that have any; each rank trains with its share of a batch.

    Args:
        state: the same on all ranks. It must not be used afterwards.
        ranks: among whom experts are dealt out.
        collectives: of the same ranks.

    Raises:
        ValueError: no block of experts; what `ExpertParallel` refuses; an optimizer that does not
            update number by number.
    """
    model, former = state.model, state.optimizer
    if type(former) not in NUMBER_BY_NUMBER:
        names = ", ".join(sorted({each.__name__ for each in NUMBER_BY_NUMBER}))
        raise ValueError(
            f"experts are dealt out under optimizers that update number by number, {names}; got "
            f"{type(former).__name__}"
        )
    blocks = [block for block in model.blocks if isinstance(block.ffn, MoE)]
    if not blocks:
        raise ValueError(
            "no block of this model has experts to deal out; build it with ffn=MoEConfig(), or "
            "share the data alone (minillm.parallel.data)"
        )
    for block in blocks:  # before the first is changed
        _check(block.ffn, ranks.n_ranks)
    # 1. each layer keeps this rank's experts
    for block in blocks:
        block.ffn = ExpertParallel(block.ffn, ranks)
    # 2. the optimizer forgets the others
    kept = {id(parameter) for parameter in model.parameters()}
    for group in former.param_groups:
        for parameter in group["params"]:
            if id(parameter) not in kept:
                former.state.pop(parameter, None)
        group["params"] = [p for p in group["params"] if id(p) in kept]
    own = [parameter for block in blocks for parameter in block.ffn.experts.parameters()]
    return TrainState(model, former, state.step, reduction=ExpertReduction(own, ranks, collectives))


def fill(plain: TrainState, state: TrainState) -> None:
    """Put a state together again; all ranks call this, and all get it.

    Args:
        plain: of the same model and optimizer, as before; filled in place.
        state: from `shard`.
    """
    plain.step = state.step
    groups = zip(plain.optimizer.param_groups, state.optimizer.param_groups, strict=True)
    for plain_group, group in groups:
        plain_group |= {key: value for key, value in group.items() if key != "params"}
    # 1. this rank's parameters and what the optimizer remembers of them, by name
    own = {
        name: (parameter.detach(), dict(state.optimizer.state.get(parameter, {})))
        for name, parameter in state.model.named_parameters()
    }
    # 2. everybody's: an expert's owner alone knows what is remembered of it, if it ever had a token
    everybody = [None] * state.reduction.ranks.n_ranks
    distributed.all_gather_object(everybody, own, group=state.reduction.ranks.group)
    for name, parameter in plain.model.named_parameters():
        values, memory = next(held[name] for held in everybody if name in held)
        parameter.data.copy_(values)
        for key, value in memory.items():
            tensor = isinstance(value, Tensor) and value.ndim
            value = value.to(parameter.device) if tensor else value
            plain.optimizer.state[parameter][key] = value
