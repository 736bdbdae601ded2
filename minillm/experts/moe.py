"""Mixture of experts (混合专家模型, MoE): E feed-forward networks, of which a few are active.

A router sends each token to k experts (`minillm.experts.routing`), and their answers are weighted
and added up. The parameters grow with E, the work for a token only with k:

    y = Σ w_e expert_e(x) over the chosen e  (+ shared(x))         expert: a `SwiGLU`

`moe_naive` is just that, a loop over the experts. `MoE` gives the same: each expert is called once,
with all its tokens. The pairs of token and expert stand sorted by expert, so that gathering the
tokens, cutting them into slices, and adding each answer back to its token's place is all that
surrounds the experts.

Fine-grained experts are more and narrower ones (`n_experts`, `top_k`, `d_expert`); shared
experts are used by every token, without a router.

`MoEConfig` stands where any FFN's config may (`TransformerConfig(ffn=MoEConfig())`). A block hands
out how it routed; `routed` collects that from all blocks, and `moe_loss` trains with it.

Paper: Shazeer et al. 2017, arXiv:1701.06538, equation (1); Jiang et al. 2024, "Mixtral",
arXiv:2401.04088, section 2.1; Fedus et al. 2021, "Switch", arXiv:2101.03961, section 2; Dai et al.
2024, "DeepSeekMoE", arXiv:2401.06066, equations (9) to (11) (shared experts). Theirs to ours: n or
N experts are E, G(x) are the weights.
Differs: no noise on the router. An expert without tokens is skipped and has no gradient (None) in
that step. The shared experts are one SwiGLU as wide as all of them, which is the same sum.

Chapter: 10
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from minillm.experts.routing import (
    ExpertRouting,
    balanced_bias,
    capacity,
    load_balance,
    route_expert_choice,
    route_switch,
    route_top_k,
    shares,
    z_loss,
)
from minillm.model.attention import Context
from minillm.model.count import ParameterCount
from minillm.model.ffn import Routing, SwiGLU, SwiGLUConfig
from minillm.model.transformer import Transformer, next_token_loss, shifted
from minillm.optim.step import Total

ROUTERS = ("top_k", "switch", "expert_choice")


# --- the layer ----------------------------------------------------------------------------------
def moe_naive(
    x: Float[Tensor, "N D"],
    router: Float[Tensor, "E D"],
    experts: Sequence[nn.Module] | nn.ModuleList,
    top_k: int,
) -> Float[Tensor, "N D"]:
    """A mixture of experts as it is written: what a `MoE` of router="top_k" must give.

    Example:
        >>> experts = [SwiGLUConfig(d_ff=4).build(d_model=2) for _ in range(3)]
        >>> moe_naive(torch.ones(5, 2), torch.randn(3, 2), experts, top_k=2).shape
        torch.Size([5, 2])
    """
    # 1. The router: how probable is each expert for each token?
    probabilities = (x @ router.T).softmax(dim=-1)
    # 2. Each token takes the k most probable; their weights sum to 1.
    weights, chosen = probabilities.topk(top_k, dim=-1)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    # 3. Each expert reads the tokens that chose it. Its answers are weighted, and added there.
    y = torch.zeros_like(x)
    for e, expert in enumerate(experts):
        tokens, rank = torch.where(chosen == e)
        answers, _ = expert(x[tokens])
        y = y.index_add(0, tokens, weights[tokens, rank, None] * answers)
    return y


@final
@dataclass(frozen=True, kw_only=True)
class MoEConfig:
    """What a layer of experts is built from.

    Args:
        n_experts: E.
        top_k: k, how many experts a token is routed to; with expert choice, in the mean.
        d_expert: F of each expert; None for 8/3 of the width, rounded up to a multiple of 8.
        n_shared: how many experts of that width every token uses besides.
        router: "top_k", "switch" or "expert_choice", see `minillm.experts.routing`.
        capacity_factor: room for this many times the pairs that there are. None: no limit for
            top_k, 1.25 for switch, 1 for expert_choice. A limit makes what a token gets depend on
            the others in the same call: on their number, on padding, and on later ones too with
            expert_choice, so that text written token by token differs from text read whole.
        norm_topk: of top_k alone, whether a token's weights sum to 1. With top_k=1 they are
            then all 1, and only auxiliary losses teach the router.

    Raises:
        ValueError: a count below its range, more active experts than there are, a switch with
            other than 1 active, an unknown router, a factor not above 0.

    Example:
        >>> layer = MoEConfig(n_experts=4, d_expert=16).build(d_model=8)
        >>> {name: list(p.shape) for name, p in layer.named_parameters() if "0" in name}
        {'experts.0.gate_up.weight': [32, 8], 'experts.0.down.weight': [8, 16]}
        >>> y, routing = layer(torch.ones(1, 3, 8))  # three equal tokens take the same two
        >>> y.shape, sorted(routing.tokens_per_expert.tolist())
        (torch.Size([1, 3, 8]), [0, 0, 3, 3])
    """

    n_experts: int = 8
    top_k: int = 2
    d_expert: int | None = None
    n_shared: int = 0
    router: str = "top_k"
    capacity_factor: float | None = None
    norm_topk: bool = True

    def __post_init__(self):
        _check_router(self.router, self.n_experts, self.top_k)
        for name, value, least in (
            ("d_expert", self.d_expert, 1),
            ("n_shared", self.n_shared, 0),
        ):
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}; got {value}")
        if self.capacity_factor is not None:
            capacity(1, self.n_experts, self.capacity_factor)  # says what is wrong with it

    def build(
        self,
        d_model: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "MoE":
        """The layer for a model of that width, with torch's own first weights."""
        expert = SwiGLUConfig(d_ff=self.d_expert)
        experts = [expert.build(d_model, device=device, dtype=dtype) for _ in range(self.n_experts)]
        shared = None
        if self.n_shared:
            shared_config = SwiGLUConfig(d_ff=self.n_shared * experts[0].down.in_features)
            shared = shared_config.build(d_model, device=device, dtype=dtype)
        return MoE(
            d_model,
            experts,
            top_k=self.top_k,
            shared=shared,
            router=self.router,
            capacity_factor=self.capacity_factor,
            norm_topk=self.norm_topk,
            device=device,
            dtype=dtype,
        )


@final
class MoE(nn.Module):
    """A router and its experts: an `FFN`.

    Args:
        d_model: D.
        experts: E of them, all for that width.
        top_k: k.
        shared: what every token uses besides, or None.
        router, capacity_factor, norm_topk: see `MoEConfig`.
        device, dtype: of the router. The bias for the choice (`expert_bias`, zeros at first,
            moved by `balance_by_bias` and by no gradient) has at least 32 bits, since its steps
            are small.
    """

    def __init__(
        self,
        d_model: int,
        experts: Sequence[SwiGLU],
        *,
        top_k: int = 2,
        shared: SwiGLU | None = None,
        router: str = "top_k",
        capacity_factor: float | None = None,
        norm_topk: bool = True,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        _check_router(router, len(experts), top_k)
        default = {"top_k": None, "switch": 1.25, "expert_choice": 1.0}[router]
        self.capacity_factor = default if capacity_factor is None else capacity_factor
        self.top_k, self.router_type, self.norm_topk = top_k, router, norm_topk
        self.router = nn.Linear(d_model, len(experts), bias=False, device=device, dtype=dtype)
        self.experts = nn.ModuleList(experts)
        self.shared = shared
        exact = torch.promote_types(dtype, torch.float32)
        self.register_buffer("expert_bias", torch.zeros(len(experts), device=device, dtype=exact))

    def route(self, x: Float[Tensor, "N D"]) -> ExpertRouting:
        """Where each token is sent."""
        logits, n_experts = self.router(x), len(self.experts)
        room = None
        if self.capacity_factor is not None:
            room = capacity(self.top_k * len(x), n_experts, self.capacity_factor)
        if self.router_type == "switch":
            return route_switch(logits, room)
        if self.router_type == "expert_choice":
            return route_expert_choice(logits, room)
        return route_top_k(
            logits,
            self.top_k,
            norm_topk=self.norm_topk,
            bias=self.expert_bias,
            capacity=room,
        )

    def forward(
        self, x: Float[Tensor, "B T D"], context: Context | None = None
    ) -> tuple[Float[Tensor, "B T D"], ExpertRouting]:
        """What is to be added to x, and how its tokens were routed, row after row."""
        # 1. The router makes pairs of a token and an expert, sorted by expert.
        flat = rearrange(x, "B T D -> (B T) D")
        routing = self.route(flat)
        # 2. The pairs' tokens, cut into one slice an expert.
        counts = torch.bincount(routing.experts, minlength=len(self.experts)).tolist()
        slices = flat.index_select(0, routing.tokens).split(counts)
        # 3. Each expert reads its slice; who has none is not called.
        answers = torch.cat(
            [
                expert(mine)[0]
                for expert, mine in zip(self.experts, slices, strict=True)
                if len(mine)
            ]
        )
        # 4. The answers, weighted, are added to their tokens' rows.
        answers = answers * routing.weights[:, None].to(answers.dtype)
        y = answers.new_zeros(flat.shape).index_add_(0, routing.tokens, answers).view(x.shape)
        if self.shared is not None:
            y = y + self.shared(x)[0]
        return y, routing

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"{self.router_type}, top_k={self.top_k}, capacity_factor={self.capacity_factor}"


# --- a model of such layers ---------------------------------------------------------------------
class Routed(NamedTuple):
    """What a model says, and how its blocks routed.

    Args:
        logits: as `model(tokens)` gives them.
        routings: one a block; None where the block's FFN does not route.
    """

    logits: Float[Tensor, "B T V"]
    routings: list[Routing | None]


def routed(
    model: Transformer, tokens: Int[Tensor, "B T"], *, context: Context | None = None
) -> Routed:
    """The pass of `Transformer.forward`, with each block's routing kept.

    Args:
        model: its blocks may be of all kinds.
        tokens, context: as for `Transformer.forward`.

    Raises:
        ValueError: as for `Transformer.forward`.

    Example:
        >>> from minillm.model.config import TransformerConfig
        >>> config = TransformerConfig(vocab_size=50, d_model=16, n_layers=2, ffn=MoEConfig())
        >>> output = routed(config.build(seed=0), torch.tensor([[7, 3, 9]]))
        >>> [r.tokens_per_expert.sum().item() for r in output.routings]  # 3 tokens, 2 experts each
        [6, 6]
    """
    routings = []
    for stream, routing in model.layers(tokens, context=context):
        last = stream
        routings.append(routing)
    return Routed(model.logits(model.norm(last)), routings)


def auxiliary_loss(
    routings: Sequence[Routing | None], *, balance_weight: float = 0.01, z: float = 0.001
) -> Float[Tensor, ""]:
    """balance_weight · `load_balance` + z · `z_loss`, the mean over the blocks that routed.

    Args:
        routings: of `routed`.
        balance_weight: 0.01 is Switch's.
        z: 0.001 is ST-MoE's.

    Raises:
        ValueError: no block routed.
    """
    losses = [
        balance_weight * load_balance(routing) + z * z_loss(routing)
        for routing in routings
        if isinstance(routing, ExpertRouting)
    ]
    if not losses:
        raise ValueError(
            f"the auxiliary losses need a block that routes; none of {len(routings)} did. Build "
            "with ffn=MoEConfig(), or train with minillm.model.transformer.loss"
        )
    return torch.stack(losses).mean()


def moe_loss(
    model: Transformer,
    tokens: Int[Tensor, "B T"],
    *,
    balance_weight: float = 0.01,
    z: float = 0.001,
) -> Total:
    """Sum of -log p(token | those before it), and the auxiliary loss for each of these tokens.

    So its mean is that of `minillm.model.transformer.loss` + `auxiliary_loss`. The latter is taken
    batch by batch, so several small batches are not quite one large one.

    Args:
        model: with at least one block of experts.
        tokens: rows of ids; the last of a row is only predicted, never read.
        balance_weight, z: see `auxiliary_loss`.

    Raises:
        ValueError: rows of one token; no block that routes.

    Example:
        >>> from minillm.model.config import TransformerConfig
        >>> config = TransformerConfig(vocab_size=50, d_model=16, n_layers=2, ffn=MoEConfig())
        >>> total = moe_loss(config.build(seed=0), torch.tensor([[7, 3, 9]]))
        >>> int(total.n_tokens), total.mean.item() < 4  # log 50 is 3.9
        (2, True)
    """
    inputs, targets = shifted(tokens)
    output = routed(model, inputs)
    auxiliary = auxiliary_loss(output.routings, balance_weight=balance_weight, z=z)
    total = next_token_loss(output.logits, targets)
    return total._replace(nats=total.nats + total.n_tokens * auxiliary)


@torch.no_grad()
def balance_by_bias(model: Transformer, routings: Sequence[Routing | None], rate: float) -> None:
    """After a step: move every layer's bias for the choice, in place; see `balanced_bias`.

    Args:
        model: in which the `expert_bias` of each `MoE` is changed.
        routings: of this step, from `routed`.
        rate: how large a step is.

    Raises:
        ValueError: routings of another number of blocks; experts not chosen by "top_k", since
            nothing else reads the bias.
    """
    for block, routing in zip(model.blocks, _one_a_block(model, routings), strict=True):
        if not isinstance(block.ffn, MoE):
            continue
        if block.ffn.router_type != "top_k":
            raise ValueError(
                "only router='top_k' chooses with a bias; this model has a layer with "
                f"{block.ffn.router_type!r}. Use `auxiliary_loss` there"
            )
        bias = block.ffn.expert_bias
        bias.copy_(balanced_bias(bias, shares(routing).to(bias.dtype), rate))


def active_parameters(model: Transformer) -> ParameterCount:
    """Total and active parameters: of a layer's E experts k are active.

    As in `minillm.model.count`, tables of tokens count as active.

    Example:
        >>> from minillm.model.config import TransformerConfig
        >>> ffn = MoEConfig(n_experts=4, top_k=1, d_expert=8)
        >>> model = TransformerConfig(vocab_size=50, d_model=16, n_layers=2, ffn=ffn).build()
        >>> active_parameters(model)  # 2 layers · 3 idle experts · 3 · 16 · 8 apart
        ParameterCount(total=6928, active=4624)
    """
    total = sum(parameter.numel() for parameter in model.parameters())
    idle = 0
    for layer in model.modules():
        if isinstance(layer, MoE):
            one = sum(parameter.numel() for parameter in layer.experts[0].parameters())
            idle += (len(layer.experts) - layer.top_k) * one
    return ParameterCount(total=total, active=total - idle)


def _one_a_block(
    model: Transformer, routings: Sequence[Routing | None]
) -> Sequence[Routing | None]:
    if len(routings) != len(model.blocks):
        raise ValueError(
            f"routings are one a block, {len(model.blocks)} here; got {len(routings)}. Take those "
            "of `routed` with this model"
        )
    return routings


def _check_router(router: str, n_experts: int, top_k: int) -> None:
    if router not in ROUTERS:
        raise ValueError(f"router must be one of {', '.join(ROUTERS)}; got {router!r}")
    if not 1 <= top_k <= n_experts:
        raise ValueError(
            "top_k must be at least 1 and at most n_experts; got "
            f"top_k={top_k}, n_experts={n_experts}"
        )
    if router == "switch" and top_k != 1:
        raise ValueError(
            f"router='switch' sends a token to one expert; got top_k={top_k}. Write "
            "top_k=1, or router='top_k' for several"
        )
