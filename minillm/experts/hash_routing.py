"""Experts chosen by a table (哈希路由): the text's domain names a group, the token's id a member.

A mixture of experts learns whom to ask. PanGu-Σ learns nothing of it: a router without vectors.
The experts stand in K groups, one for each domain (领域) of texts, and inside a group a fixed table
of random numbers gives every token of the vocabulary its expert:

    expert = table[domain, token]               no score, no softmax: the weight is 1
    y = SwiGLU_expert(x)

So nothing can collapse, the balance is settled before training, and a text of one domain never
meets the experts of another: they can be left out (`extract_domain`), and what remains gives the
same logits. The price: where a token goes does not depend on what stands around it.

The id is all that chooses, and the domain, not x: the `Context` of the pass brings both,

    model(tokens, context=Context(domains=...))

A table is a buffer of its layer, saved with the weights: who loads a model loads its choices.

Paper: Ren et al. 2023, "PanGu-Σ", arXiv:2303.10845, the section on random routed experts (RRE);
Roller et al. 2021, "Hash Layers", arXiv:2106.04426, section 3.1, whose "balanced assignment" is our
table with frequencies.
Differs: experts are SwiGLU; every table is drawn from its layer's `seed` (a tuple of configs with
different seeds gives each block its own, as in the paper); no capacity, so no token is dropped; the
frequency-aware table is Roller's, not PanGu-Σ's.

Chapter: 10
"""

import copy
import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from einops import rearrange
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from minillm.model.attention import Context
from minillm.model.ffn import SwiGLUConfig
from minillm.model.transformer import Transformer

# --- the table ----------------------------------------------------------------------------------


def expert_table(
    vocab_size: int,
    n_domains: int,
    experts_per_domain: int,
    *,
    frequencies: Float[Tensor, "V"] | Float[Tensor, "domains V"] | None = None,
    seed: int = 0,
) -> Int[Tensor, "domains V"]:
    """The expert of each token in each domain; those of domain d are numbered from d · E on.

    Without frequencies tokens are dealt out like cards: random, and every expert has as many as
    any other, or one more. Equal counts are no equal work, for a few tokens make up most of a text.
    With frequencies the most frequent token goes first, each to the expert that is the lightest so
    far. No expert is then heavier than the mean by more than its last token, so that

        max load / mean load ≤ 1 + heaviest token / mean load

    which is at most 1.1 where no token is heavier than a tenth of the mean load. A token heavier
    than the mean load has an expert for itself, and no table can do better. Tokens that never
    occur are dealt out at random.

    Args:
        vocab_size: V.
        n_domains: how many groups.
        experts_per_domain: E, how many experts a group has.
        frequencies: of each token, counts or shares; [V] for all domains, or one row a domain.
        seed: of the cards, and of the order of equally frequent tokens.

    Raises:
        ValueError: a count below 1; frequencies of another shape, negative, infinite or all zero.

    Example:
        >>> expert_table(6, n_domains=2, experts_per_domain=3).sort().values  # two tokens each
        tensor([[0, 0, 1, 1, 2, 2],
                [3, 3, 4, 4, 5, 5]])
        >>> by_work = expert_table(4, 1, 2, frequencies=torch.tensor([3.0, 2.0, 2.0, 1.0]))
        >>> expert_loads(by_work, torch.tensor([3.0, 2.0, 2.0, 1.0]), 2)  # 3 + 1 and 2 + 2
        tensor([[4., 4.]], dtype=torch.float64)
    """
    for name, value in (
        ("vocab_size", vocab_size),
        ("n_domains", n_domains),
        ("experts_per_domain", experts_per_domain),
    ):
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}")
    generator = torch.Generator(device="cpu").manual_seed(seed)
    weights = torch.zeros(n_domains, vocab_size)
    if frequencies is not None:
        weights = _checked_frequencies(frequencies, vocab_size, n_domains)
    table = torch.empty(n_domains, vocab_size, dtype=torch.int64)
    for domain in range(n_domains):
        cards = torch.randperm(vocab_size, generator=generator)
        occurs = weights[domain, cards] > 0
        frequent, never = cards[occurs], cards[~occurs]
        frequent = frequent[weights[domain, frequent].argsort(descending=True, stable=True)]
        table[domain, frequent] = _lightest_first(weights[domain, frequent], experts_per_domain)
        table[domain, never] = torch.arange(len(never)) % experts_per_domain
        table[domain] += domain * experts_per_domain
    return table


def _lightest_first(weights: Tensor, n_experts: int) -> Tensor:
    lightest = [(0.0, expert) for expert in range(n_experts)]  # a heap: the least load is on top
    chosen = []
    for weight in weights.tolist():
        load, expert = lightest[0]
        heapq.heapreplace(lightest, (load + weight, expert))
        chosen.append(expert)
    return torch.tensor(chosen, dtype=torch.int64)


def expert_loads(
    table: Int[Tensor, "domains V"],
    frequencies: Float[Tensor, "tokens"] | Float[Tensor, "groups tokens"],
    experts_per_domain: int,
) -> Float64[Tensor, "domains E"]:
    """What each expert has to do: the sum of the frequencies of its tokens, group by group.

    `loads.amax(-1) / loads.mean(-1)` is how far the busiest expert is above the mean.

    Args:
        table: from `expert_table`.
        frequencies, experts_per_domain: as there.

    Raises:
        ValueError: frequencies of another shape, negative, infinite or all zero.
    """
    n_domains, vocab_size = table.shape
    weights = _checked_frequencies(frequencies, vocab_size, n_domains)
    loads = torch.zeros(n_domains * experts_per_domain, dtype=torch.float64)
    loads.index_add_(0, table.flatten(), weights.flatten())
    return rearrange(loads, "(domains E) -> domains E", domains=n_domains)


def _checked_frequencies(frequencies: Tensor, vocab_size: int, n_domains: int) -> Tensor:
    if frequencies.shape not in ((vocab_size,), (n_domains, vocab_size)):
        raise ValueError(
            f"frequencies must be one number a token, [{vocab_size}], or one row a domain, "
            f"[{n_domains}, {vocab_size}]; got the shape {list(frequencies.shape)}"
        )
    weights = frequencies.to("cpu", torch.float64).expand(n_domains, vocab_size)
    if not bool(weights.isfinite().all() & (weights >= 0).all() & weights.any(dim=-1).all()):
        raise ValueError(
            "frequencies must be finite numbers of at least 0, and one in each domain above 0; "
            f"got numbers from {weights.min().item():g} to {weights.max().item():g}. Count the "
            "tokens of a sample with torch.bincount(tokens, minlength=vocab_size)"
        )
    return weights


# --- the layer ----------------------------------------------------------------------------------


@final
@dataclass(frozen=True, kw_only=True)
class HashedMoEConfig:
    """What a layer of experts chosen by a table is built from.

    Args:
        vocab_size: V, of the model that it is for.
        n_domains: how many groups of experts.
        experts_per_domain: E, how many experts a group has.
        d_expert: F of each; None for `SwiGLUConfig`'s.
        frequencies: of each token, or a tuple of them for each domain; None for equal counts.
        seed: of the table.

    Raises:
        ValueError: what `expert_table` and `SwiGLUConfig` refuse.

    Example:
        >>> config = HashedMoEConfig(vocab_size=50, n_domains=2, experts_per_domain=3)
        >>> layer = config.build(d_model=8)
        >>> len(layer.experts), layer.table.shape
        (6, torch.Size([2, 50]))
    """

    vocab_size: int
    n_domains: int
    experts_per_domain: int
    d_expert: int | None = None
    frequencies: tuple[float, ...] | tuple[tuple[float, ...], ...] | None = None
    seed: int = 0

    def __post_init__(self):
        SwiGLUConfig(d_ff=self.d_expert)
        self.table()

    def table(self) -> Int[Tensor, "domains V"]:
        """Whom each token of each domain asks at first; what a layer has loaded takes its place."""
        frequencies = self.frequencies
        if frequencies is not None:
            frequencies = torch.tensor(frequencies, dtype=torch.float64)
        sizes = self.vocab_size, self.n_domains, self.experts_per_domain
        return expert_table(*sizes, frequencies=frequencies, seed=self.seed)

    def build(
        self,
        d_model: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "HashedMoE":
        """The layer for a model of that width, with torch's own first weights."""
        expert = SwiGLUConfig(d_ff=self.d_expert)
        n_experts = self.n_domains * self.experts_per_domain
        experts = [expert.build(d_model, device=device, dtype=dtype) for _ in range(n_experts)]
        return HashedMoE(experts, self.table().to(device))


def hashed_naive(
    x: Float[Tensor, "B T D"],
    experts: Int[Tensor, "B T"],
    layers: Sequence[nn.Module] | nn.ModuleList,
) -> Float[Tensor, "B T D"]:
    """Each token to its expert, one after the other: what `HashedMoE` must give."""
    y = torch.zeros_like(x)
    for row in range(x.shape[0]):
        for place in range(x.shape[1]):
            expert = layers[int(experts[row, place])]
            y[row, place] = expert(x[row : row + 1, place : place + 1])[0][0, 0]
    return y


@final
class HashedMoE(nn.Module):
    """Experts chosen by a table: an `FFN` that reads ids and domains from the context.

    No `Routing` comes back: that is a number for each token and expert, and here there is none.

    Args:
        experts: SwiGLUs, those of the first domain before those of the second.
        table: from `expert_table`.
    """

    def __init__(self, experts: Sequence[nn.Module], table: Int[Tensor, "domains V"]):
        super().__init__()
        self.experts = nn.ModuleList(experts)
        self.table: Tensor
        self.register_buffer("table", table)

    def experts_of(
        self, tokens: Int[Tensor, "B T"], domains: Int[Tensor, "texts"] | None
    ) -> Int[Tensor, "B T"]:
        """Whom each token of these texts asks.

        Args:
            tokens: ids 0 to V - 1.
            domains: of each text, from 0 on; None where there is one domain only.

        Raises:
            ValueError: not one domain a text, or one that is not there.
        """
        n_domains = len(self.table)
        if domains is None and n_domains == 1:
            return self.table[0, tokens]
        if domains is None or domains.shape != tokens.shape[:1]:
            raise ValueError(
                f"domains must be one number a text, [{len(tokens)}]; got "
                f"{None if domains is None else list(domains.shape)}. Call "
                "model(tokens, context=Context(domains=...))"
            )
        if len(domains) and not 0 <= int(domains.min()) <= int(domains.max()) < n_domains:
            raise ValueError(_no_such_domain(domains.unique().tolist(), n_domains))
        return self.table[domains[:, None], tokens]

    def forward(
        self, x: Float[Tensor, "B T D"], context: Context | None = None
    ) -> tuple[Float[Tensor, "B T D"], None]:
        """What is to be added to x: tokens sorted by expert, one call for each that has any.

        Raises:
            ValueError: a context without an id for each token, which a whole model fills in; what
                `experts_of` refuses.

        Example:
            >>> layer = HashedMoEConfig(vocab_size=50, n_domains=2, experts_per_domain=3).build(8)
            >>> context = Context(tokens=torch.tensor([[7, 3, 9]]), domains=torch.tensor([1]))
            >>> y, routing = layer(torch.randn(1, 3, 8), context)
            >>> y.shape
            torch.Size([1, 3, 8])
        """
        ids = None if context is None else context.tokens
        if ids is None or ids.shape != x.shape[:2]:
            raise ValueError(
                f"a HashedMoE needs the id of each token, {list(x.shape[:2])}; got "
                f"{None if ids is None else list(ids.shape)}. Give it Context(tokens=..., "
                "domains=...)"
            )
        # 1. Whom does each token ask?
        chosen = self.experts_of(ids, context.domains).flatten()
        # 2. Tokens sorted by expert, cut into one slice an expert.
        order = chosen.argsort(stable=True)
        counts = torch.bincount(chosen, minlength=len(self.experts)).tolist()
        flat = rearrange(x, "B T D -> (B T) D")
        slices = flat[order].split(counts)
        # 3. Each expert reads its slice, and its answers go back to their tokens' places.
        answers = [
            expert(mine)[0] for expert, mine in zip(self.experts, slices, strict=True) if len(mine)
        ]
        if answers:  # a batch may be empty
            flat = torch.empty_like(flat).index_copy(0, order, torch.cat(answers))
        return flat.reshape(x.shape), None


# --- a whole model ------------------------------------------------------------------------------


def extract_domain(model: Transformer, domain: int) -> Transformer:
    """The model for texts of one domain: all but the other domains' experts, copied.

    Nothing is lost: its logits are those of the whole model. It has one domain, so it need not be
    told any: `model(tokens)` is enough.

    Args:
        model: with `HashedMoE` layers; it stays as it is.
        domain: which.

    Raises:
        ValueError: a domain that is not there; a model without `HashedMoE` layers.
    """
    n_domains = min(len(layer.table) for layer in _hashed_layers(model))
    if not 0 <= domain < n_domains:
        raise ValueError(_no_such_domain([domain], n_domains))
    # Told what to put in place of each layer, deepcopy never copies the experts that are left out.
    small = copy.deepcopy(
        model,
        {
            id(layer): _alone(layer, domain)
            for layer in model.modules()
            if isinstance(layer, HashedMoE)
        },
    )
    if model.config is not None:
        ffns = tuple(
            _alone_config(ffn, domain) if isinstance(ffn, HashedMoEConfig) else ffn
            for ffn in model.config.ffns
        )
        small.config = replace(model.config, ffn=ffns)
    return small


def _alone(layer: HashedMoE, domain: int) -> HashedMoE:
    n_experts = len(layer.experts) // len(layer.table)
    first = domain * n_experts
    experts = copy.deepcopy(list(layer.experts[first : first + n_experts]))
    return HashedMoE(experts, layer.table[domain : domain + 1] - first).train(layer.training)


def _alone_config(config: HashedMoEConfig, domain: int) -> HashedMoEConfig:
    frequencies = config.frequencies
    if frequencies is not None and isinstance(frequencies[0], tuple):
        frequencies = frequencies[domain]
    return replace(config, n_domains=1, frequencies=frequencies)


def _hashed_layers(model: Transformer) -> list[HashedMoE]:
    layers = [block.ffn for block in model.blocks if isinstance(block.ffn, HashedMoE)]
    if not layers:
        raise ValueError(
            "this needs a model with HashedMoE layers; got one whose FFNs are "
            f"{', '.join(sorted({type(block.ffn).__name__ for block in model.blocks}))}. Build it "
            "with TransformerConfig(ffn=HashedMoEConfig(...))"
        )
    return layers


def _no_such_domain(domains: list[int], n_domains: int) -> str:
    return f"this model knows the domains 0 to {n_domains - 1}; got {domains}"
