"""`minillm bench moe`: our layer of experts beside the Mixtral of `transformers`, and a dense one.

All have the same weights and read the same tokens: N rows of width D, of which each passes 2 of 8
or 2 of 16 experts. Two passes are timed, *forward* without gradient, and *train*, forward and
backward to the weights and to x. Contenders take turns within each repetition, and each one's least
time is told: whatever else a machine does adds time and never takes any away.

- *Theirs*: `MixtralSparseMoeBlock` with each of the implementations of experts that `transformers`
  knows and this machine can run. What needs a graphics card is left out, and so is `batched_mm`,
  which copies an expert for each pair of token and expert; that it is far slower is measured once,
  at the smallest size. Our time is compared with the fastest of the rest.
- *Dense*: one `SwiGLU` that is as wide as the two experts of a token are together, so that a token
  passes as many weights. Experts cannot be faster: a token must be sent and fetched, and products
  are of fewer rows with more weights.

Equal answers, and equal gradients of x, are checked first. Tokens are noise and routers have first
weights, so all experts are in about even use, with some tokens each. Eager everywhere: nothing is
compiled. A CPU is measured; there `grouped_mm` is a loop over experts too.

A benchmark needs `transformers`, which the library itself never imports.

Chapter: app
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

from minillm.bench.bpe import race
from minillm.bench.mixers import least
from minillm.bench.model import repeated, verdict
from minillm.experts.moe import MoE, MoEConfig
from minillm.model.ffn import SwiGLUConfig

#: How many times as fast as the fastest of theirs, and how many times the time of the dense layer.
TARGETS = {"theirs": ("at least", 1.0), "dense": ("at most", 1.6)}

TOP_K = 2
N_EXPERTS = (8, 16)
PASSES = ("forward", "train")
SLOW = "batched_mm"


@dataclass(frozen=True, kw_only=True)
class Work:
    """The sizes, and how often everything is repeated.

    Args:
        sizes: N and D.
        n_repeats: turns that each contender has.
        n_done: how often the smallest work is done in a turn; larger ones less often.
    """

    sizes: tuple[tuple[int, int], ...]
    n_repeats: int
    n_done: int


FULL = Work(
    sizes=((512, 128), (512, 256), (512, 512), (2048, 128), (2048, 256), (2048, 512)),
    n_repeats=7,
    n_done=4,
)
QUICK = Work(sizes=((24, 16),), n_repeats=1, n_done=1)


def run(quick: bool = False) -> dict[str, float]:
    """Run the benchmark, print its table, and return every figure.

    Args:
        quick: a few seconds, with small layers, to see that it works; its figures mean nothing.

    Returns:
        For each case NxD_E_PASS, such as `512x128_8_forward`: `CASE_ours`, `CASE_dense` and
        `CASE_IMPLEMENTATION` in ms; `CASE_by_theirs`, how many times as fast ours is as their
        fastest, and `CASE_by_dense`, how many times the dense layer's time it takes. For each
        number of experts the geometric means of these, `8_theirs` and `8_dense`. `batched_mm`, how
        many times our time it takes; `n_threads`.

    Raises:
        ValueError: `transformers` is not installed.
        AssertionError: the layers differ in their answers or gradients.
    """
    try:
        import transformers
        from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
    except ImportError:
        raise ValueError(
            "bench moe compares with the package `transformers`: pip install transformers"
        ) from None

    work = QUICK if quick else FULL
    figures: dict[str, float] = {"n_threads": torch.get_num_threads()}
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, float32, "
        f"threads: {torch.get_num_threads()}; ms, least of {work.n_repeats}"
    )
    usable = runnable(["eager", *ALL_EXPERTS_FUNCTIONS.valid_keys()])
    if SLOW in usable:
        usable.remove(SLOW)
        figures[SLOW] = slowness(work.sizes[0])
        print(f"  {SLOW}: {figures[SLOW]:.0f} times our time at the smallest size; left out")
    heads = "".join(f"{name:>12}" for name in ("minillm", *usable, "dense"))
    print(f"{'tokens × width, experts':<32}{heads}   theirs / ours            ours / dense")
    for n_experts in N_EXPERTS:
        for n_tokens, d_model in work.sizes:
            for what in PASSES:
                case = f"{n_tokens}x{d_model}_{n_experts}_{what}"
                times = compared(n_tokens, d_model, n_experts, what, usable, work)
                figures |= {f"{case}_{who}": 1000 * took for who, took in times.items()}
                fastest = min(times[name] for name in usable)
                figures[f"{case}_by_theirs"] = fastest / times["ours"]
                figures[f"{case}_by_dense"] = times["ours"] / times["dense"]
                cells = "".join(f"{1000 * took:>12.2f}" for took in times.values())
                row = f"{n_tokens:,} × {d_model}, {n_experts:>2} {what}"
                print(f"  {row:<30}{cells}   {told_of(figures, f'{case}_by_')}", flush=True)
    for n_experts in N_EXPERTS:
        for side in TARGETS:
            ratios = [
                figures[f"{n}x{d_model}_{n_experts}_{what}_by_{side}"]
                for n, d_model in work.sizes
                for what in PASSES
            ]
            figures[f"{n_experts}_{side}"] = geometric_mean(ratios)
        print(f"  {n_experts} experts, geometric mean: {told_of(figures, f'{n_experts}_')}")
    return figures


# --- the contenders -----------------------------------------------------------------------------
def runnable(names: list[str]) -> list[str]:
    """Those implementations that work here; of the rest a line that says why not."""
    layer, usable = MoEConfig(n_experts=4, d_expert=8).build(16), []
    for name in names:
        try:
            opened_by(layer, name)(noise(4, 16))
        except Exception as error:  # each fails in its own way
            print(f"  {name}: left out, {shorten(str(error), 90)}")
        else:
            usable.append(name)
    return usable


def opened_by(layer: MoE, implementation: str) -> nn.Module:
    """Our layer's weights in a layer of transformers."""
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

    config = MixtralConfig(
        hidden_size=layer.router.in_features,
        intermediate_size=layer.experts[0].down.in_features,
        num_local_experts=len(layer.experts),
        num_experts_per_tok=layer.top_k,
    )
    config._experts_implementation = implementation
    theirs = MixtralSparseMoeBlock(config)
    with torch.no_grad():
        theirs.gate.weight.copy_(layer.router.weight)
        gate_up = torch.stack([expert.gate_up.weight for expert in layer.experts])
        theirs.experts.gate_up_proj.copy_(gate_up)
        down = torch.stack([expert.down.weight for expert in layer.experts])
        theirs.experts.down_proj.copy_(down)
    return theirs


def contenders(d_model: int, n_experts: int, implementations: list[str]) -> dict[str, nn.Module]:
    """Ours, theirs by name, and the dense one that is as wide as a token's experts together."""
    torch.manual_seed(0)
    ours = MoEConfig(n_experts=n_experts, top_k=TOP_K).build(d_model)
    dense = SwiGLUConfig(d_ff=TOP_K * ours.experts[0].down.in_features).build(d_model)
    theirs = {name: opened_by(ours, name) for name in implementations}
    return {"ours": ours, **theirs, "dense": dense}


# --- the race -----------------------------------------------------------------------------------
def compared(
    n_tokens: int, d_model: int, n_experts: int, what: str, implementations: list[str], work: Work
) -> dict[str, float]:
    """Seconds of each contender for one pass."""
    layers, x = contenders(d_model, n_experts, implementations), noise(n_tokens, d_model)
    for name in implementations:
        check_equal(layers["ours"], layers[name], x)
    smallest = math.prod(work.sizes[0])
    n_done = max(1, work.n_done * smallest // (n_tokens * d_model))
    once = forward if what == "forward" else train
    works = {who: repeated(once(layer, x), n_done) for who, layer in layers.items()}
    race(works, 1)  # memory is taken, caches are warm
    return {who: took / n_done for who, took in least(works, work.n_repeats).items()}


def forward(layer: nn.Module, x: Tensor) -> Callable[[], None]:
    """A pass without gradient."""

    @torch.no_grad()
    def once() -> None:
        answer(layer, x)

    return once


def train(layer: nn.Module, x: Tensor) -> Callable[[], None]:
    """A pass, and its way back to the weights and to x; gradients are dropped at its end."""
    x, back = x.clone().requires_grad_(), torch.ones_like(x)

    def once() -> None:
        answer(layer, x).backward(back)
        layer.zero_grad()
        x.grad = None

    return once


def answer(layer: nn.Module, x: Tensor) -> Tensor:
    """y alone; ours says besides how it routed."""
    y: Any = layer(x)
    return y[0] if isinstance(y, tuple) else y


def slowness(size: tuple[int, int]) -> float:
    """How many times our time `batched_mm` takes, forward; the better of two."""
    layers, x = contenders(size[1], N_EXPERTS[0], [SLOW]), noise(*size)
    took = least({who: forward(layer, x) for who, layer in layers.items()}, 2)
    return took[SLOW] / took["ours"]


def check_equal(ours: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    """Equal answers and equal gradients of x, up to roundings."""
    results = []
    for layer in (ours, theirs):
        x = x.detach().requires_grad_()
        y = answer(layer, x)
        results.append((y.detach(), torch.autograd.grad(y.square().sum(), x)[0]))
    for what, left, right in zip(("answers", "gradients"), *results, strict=True):
        error = (left - right).abs().max().item() / right.abs().max().item()
        assert error <= 1e-4, f"the {what} differ by {error:.1e} of the largest"


def noise(n_tokens: int, d_model: int) -> Tensor:
    """One row, always the same."""
    return torch.randn(1, n_tokens, d_model, generator=torch.Generator().manual_seed(0))


# --- what was found -----------------------------------------------------------------------------
def geometric_mean(ratios: list[float]) -> float:
    """By which a twice as long and a half as long time cancel out.

    Example:
        >>> geometric_mean([0.5, 2.0])
        1.0
    """
    return math.exp(sum(map(math.log, ratios)) / len(ratios))


def told_of(figures: dict[str, float], name: str) -> str:
    """Both ratios with their verdicts."""
    return "   ".join(
        f"{figures[name + side]:.2f} {verdict(figures[name + side], *target):<20}"
        for side, target in TARGETS.items()
    ).rstrip()
