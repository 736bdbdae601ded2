"""`minillm bench kv`: what `town-1m` loses when its keys and values are kept in fewer bits.

*Bytes.* Of codes and scales, as a share of a cache of 16-bit numbers; and with the newest keys in
float32, for 128 tokens (all that this model reads) and for 4096.

*Loss.* The town's held-out rows, all of them, are read token by token, so that each token sees what
the cache gives back of those before it. Told is how much larger the loss is than with a cache of
floats that is read in the same way.

*Greedy texts.* 100 tokens after the first 12 of held-out stories, half of them Chinese; each seed
has stories of its own. Told are the share of texts that are those of the float cache to the last
token, and the share of tokens that stand before a text's first difference. What follows it is
another text, and counts as lost. Beside them stands a cache of bfloat16, which is what a 16-bit
cache changes; and how sure the float model was where a text first differs: the median of
log p(first choice) - log p(second), and that of all tokens. *Choices* leave out what follows from
an earlier difference: 64 held-out rows are read, and at each token the likeliest next one compared.

*Keys by channel or by token.* Both with groups of 32, the same bits, the same bytes and the same
floats beside them. Told are also the error of the keys themselves (mean square, as a share of the
keys' own), and how much larger the largest channel of a head is than its median one. Then channels
are planted: one pair of channels of all keys is made 16 times as large, and that of the queries
smaller by the same, so that every product, and the model with a float cache, stays what it was.

Paper: Liu et al. 2024, "KIVI", arXiv:2402.02750, section 3 (tables 2 to 4: by channel or by token).
Differs: models, data and sizes; the outliers are planted.

Chapter: app
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean, median
from typing import Any, final

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from minillm.bench._run import Finished
from minillm.bench.model import verdict
from minillm.bench.quant import QUICK_TOWN
from minillm.bench.speculate import stories_of
from minillm.data.packing import Batch, Packed
from minillm.model.cache import KVCache
from minillm.model.transformer import Transformer
from minillm.quant import kv, rtn
from minillm.quant.kv import KVGrid, QuantizedKVCache
from minillm.recipes import quantizing
from minillm.serve.sample import SampleConfig, generate
from minillm.zoo import checkpoints

GRIDS = {
    "8 bits": KVGrid(bits=8),
    "4 bits": KVGrid(bits=4),
    "4 bits, keys by token": KVGrid(bits=4, keys_by="token"),
    "2 bits": KVGrid(bits=2, symmetric=False),
    "2 bits, keys by token": KVGrid(bits=2, symmetric=False, keys_by="token"),
}
BFLOAT16 = "bfloat16"
WRITTEN = (BFLOAT16, "8 bits", "4 bits", "4 bits, keys by token")  # what texts are written with
PLANTED = ("4 bits", "4 bits, keys by token")
FACTOR = 16.0
TARGETS = {
    "bytes": ("at most", 0.57),
    "more": ("at most", 0.001),
    "tokens": ("at least", 0.99),
}
NewCache = Callable[[int, int], list[Any]]


@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """How much is done.

    Args:
        n_held_out: of held-out text; None for all.
        at_once: rows that are read side by side.
        seeds, n_prompts, n_prompt_tokens, n_tokens: of the greedy texts.
    """

    n_held_out: int | None = None
    at_once: int = 64
    seeds: tuple[int, ...] = (0, 1, 2)
    n_prompts: int = 60
    n_prompt_tokens: int = 12
    n_tokens: int = 100


QUICK = Work(n_held_out=2, seeds=(0,), n_prompts=2, n_tokens=8)


def run(*, quick: bool = False, finished: Finished | None = None) -> dict[str, Any]:
    """Measure, and print the tables.

    Args:
        quick: little text; its figures mean little.
        finished: results that are there already.
    """
    finished = Finished() if finished is None else finished
    work, data = (QUICK, QUICK_TOWN) if quick else (Work(), quantizing.TOWN)
    model, tokenizer, end_ids = checkpoints.open_model(checkpoints.folder("town-1m"))
    texts = quantizing.rows_of(model, tokenizer, end_ids, data).held_out
    some = texts.rows(range(work.n_held_out or 64))
    figures = {
        "bytes": shares(model),
        "losses": losses(model, texts, GRIDS, work, finished),
        "texts": {
            str(seed): finished(
                f"texts, seed {seed}",
                lambda seed=seed: written(model, prompts_of(tokenizer, seed, work), work.n_tokens),
            )
            for seed in work.seeds
        },
        "choices": finished("choices", lambda: same_choices(model, some)),
        "keys": finished("keys", lambda: key_errors(model, some)),
        "planted": losses(planted(model, FACTOR), texts, PLANTED, work, finished, "planted, "),
    }
    figures["targets"] = {
        "bytes": figures["bytes"]["8 bits"]["codes"],
        "more": abs(figures["losses"]["8 bits"]["more"]),
        "tokens": fmean(each["8 bits"]["tokens"] for each in figures["texts"].values()),
    }
    _print(figures)
    return figures


def shares(model: Transformer) -> dict[str, dict[str, float]]:
    """Bytes of each grid's cache as a share of 16-bit numbers': codes alone, and with floats."""
    mixer = model.blocks[0].mixer
    rows = {}
    for name, grid in GRIDS.items():
        row = {}
        for n_tokens in (128, 4096):
            shape = (1, mixer.n_kv_heads, n_tokens, mixer.d_head)
            cache = QuantizedKVCache(*shape, grid, device="meta")
            in_16_bits = KVCache(*shape, torch.float16, device="meta").n_bytes
            row["codes"] = (cache.n_bytes - cache.residual.nbytes) / in_16_bits
            row[str(n_tokens)] = cache.n_bytes / in_16_bits
        rows[name] = row
    return rows


# --- loss ---------------------------------------------------------------------------------------
def losses(
    model: Transformer,
    texts: Packed,
    names: Sequence[str],
    work: Work,
    finished: Finished,
    before: str = "",
) -> dict[str, dict[str, float]]:
    """Nats a token with a cache of floats and with each grid, and how much more that is.

    Args:
        model: in float.
        texts: held out.
        names: of grids.
        work: how many rows.
        finished: results that are there already.
        before: of a result's name.
    """
    numbers = range(texts.n_places if work.n_held_out is None else work.n_held_out)
    batches = [numbers[first : first + work.at_once] for first in numbers[:: work.at_once]]

    def measure(name: str) -> float:
        make = cache_of(model, name)
        rows = (nats_by_token(model, texts.rows(batch), make) for batch in batches)
        return torch.cat([each.flatten() for each in rows]).double().mean().item()

    each = {
        name: finished(f"{before}loss, {name}", partial(measure, name))
        for name in ("float", *names)
    }
    return {name: {"loss": loss, "more": loss / each["float"] - 1} for name, loss in each.items()}


def cache_of(model: Transformer, name: str) -> NewCache:
    """What makes a model's caches: "float", `BFLOAT16`, or the name of a grid."""
    if name == "float":
        return model.new_cache
    if name == BFLOAT16:
        return partial(bfloat16_cache, model)
    return partial(kv.new_cache, model, grid=GRIDS[name])


@torch.inference_mode()
def logits_by_token(
    model: Transformer, batch: Batch, new_cache: NewCache
) -> Iterator[Float[Tensor, "B V"]]:
    """Logits of each target in turn, when rows are read through a cache one token at a time.

    Args:
        model: that reads.
        batch: of rows.
        new_cache: makes the cache, from the number of rows and of tokens.
    """
    context, cache = batch.context(), new_cache(*batch.tokens.shape)
    positions, mask = context.positions, context.mask
    for n in range(batch.tokens.shape[1]):
        here = replace(
            context,
            positions=None if positions is None else positions[..., n : n + 1],
            mask=None if mask is None else mask[..., n : n + 1, : n + 1],
        )
        yield model(batch.tokens[:, n : n + 1], context=here, cache=cache)[:, 0]


def nats_by_token(model: Transformer, batch: Batch, new_cache: NewCache) -> Float[Tensor, "B T"]:
    """-log p of each target; arguments as for `logits_by_token`."""
    steps = zip(logits_by_token(model, batch, new_cache), batch.targets.T, strict=True)
    losses = [nn.functional.cross_entropy(*step, reduction="none") for step in steps]
    return torch.stack(losses, dim=1)


def same_choices(model: Transformer, batch: Batch) -> dict[str, float]:
    """The share of places where the likeliest token is that of floats, for each of `WRITTEN`."""

    def choices(new_cache: NewCache) -> Tensor:
        return torch.stack([x.argmax(dim=-1) for x in logits_by_token(model, batch, new_cache)])

    expected = choices(model.new_cache)
    return {
        name: (choices(cache_of(model, name)) == expected).double().mean().item()
        for name in WRITTEN
    }


def planted(model: Transformer, factor: float) -> Transformer:
    """A copy whose keys are larger by a factor in one pair of channels, and its queries smaller.

    Rotation turns channels i and i + K/2 into each other, so both are scaled.

    Args:
        model: with a norm of queries and keys, whose gains are changed.
        factor: a power of 2, so that nothing is rounded.
    """
    model = copy.deepcopy(model)
    with torch.no_grad():
        for block in model.blocks:
            pair = [0, block.mixer.d_head // 2]
            block.mixer.k_norm[pair] *= factor
            block.mixer.q_norm[pair] /= factor
    return model


@torch.inference_mode()
def key_errors(model: Transformer, batch: Batch) -> dict[str, Any]:
    """The error of keys in 4 bits, by channel and by token, and how uneven their channels are.

    Args:
        model: whose keys are looked at.
        batch: rows; those tokens at the end that fill no group are left out.
    """
    cache, grid = model.new_cache(*batch.tokens.shape), KVGrid(bits=4)
    model(batch.tokens, context=batch.context(), cache=cache)
    n_tokens = batch.tokens.shape[1] // grid.group_size * grid.group_size
    keys = torch.stack([layer.keys[:, :, :n_tokens] for layer in cache])  # [layers B G S K]
    errors = {}
    for by, pattern in kv.BLOCKS.items():
        blocks = rearrange(keys.flatten(0, 1), pattern, s=grid.group_size)
        scale, zero = rtn.scale_of(blocks, grid.bits)
        again = rtn.decode(rtn.encode(blocks, scale, zero, grid.bits), scale, zero)
        errors[by] = float((again - blocks).square().mean() / blocks.square().mean())
    channels = keys.square().mean(dim=(1, 3)).sqrt()  # [layers G K]
    uneven = channels.amax(dim=-1) / channels.median(dim=-1).values
    return {"error": errors, "largest_over_median": uneven.amax(dim=-1).tolist()}


# --- texts --------------------------------------------------------------------------------------
def prompts_of(tokenizer: Any, seed: int, work: Work) -> list[list[int]]:
    """The beginnings of that seed's stories."""
    return [story[: work.n_prompt_tokens] for story in stories_of(tokenizer, seed, work)]


def written(
    model: Transformer, prompts: Sequence[Sequence[int]], n_tokens: int
) -> dict[str, dict[str, float]]:
    """How far greedy texts are those of a cache of floats, for each cache of `WRITTEN`.

    Args:
        model: that writes.
        prompts: of one length.
        n_tokens: of each text.
    """
    write = partial(generate, model, prompts, SampleConfig(temperature=0), n_tokens=n_tokens)
    expected, rows = write(), {}
    with torch.inference_mode():
        tokens = torch.tensor(
            [[*prompt, *text] for prompt, text in zip(prompts, expected, strict=True)]
        )
        best = model(tokens)[:, len(prompts[0]) - 1 : -1].log_softmax(dim=-1).topk(2).values
    margins = best[..., 0] - best[..., 1]  # [B n_tokens]
    for name in WRITTEN:
        firsts = first_differences(expected, write(new_cache=cache_of(model, name)))
        there = [margins[row, n].item() for row, n in enumerate(firsts) if n is not None]
        rows[name] = agreement(firsts, n_tokens)
        rows[name]["margin"] = median(there) if there else None
        rows[name]["margin_of_all"] = margins.median().item()
    return rows


def first_differences(
    expected: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]
) -> list[int | None]:
    """Where each text first differs; None where it does not.

    Example:
        >>> first_differences([[1, 2, 3], [4, 5, 6]], [[1, 2, 3], [4, 7, 6]])
        [None, 1]
    """
    return [
        next((n for n, (a, b) in enumerate(zip(*both, strict=True)) if a != b), None)
        for both in zip(expected, texts, strict=True)
    ]


def agreement(firsts: Sequence[int | None], n_tokens: int) -> dict[str, float]:
    """The share of texts that are the same, and of tokens before a text's first difference.

    Example:
        >>> agreement([None, 1], n_tokens=3)  # 4 tokens of 6
        {'texts': 0.5, 'tokens': 0.6666666666666666}
    """
    n_same = sum(n_tokens if n is None else n for n in firsts)
    same = fmean(n is None for n in firsts)
    return {"texts": same, "tokens": n_same / (n_tokens * len(firsts))}


@final
class _BFloat16Cache:
    """A `KVCache` whose numbers are rounded to bfloat16, for a model in float32."""

    def __init__(self, cache: KVCache):
        self.cache = cache

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return self.cache.append(k.bfloat16().float(), v.bfloat16().float())

    @property
    def n_tokens(self) -> int:
        return self.cache.n_tokens


def bfloat16_cache(model: Transformer, batch_size: int, max_length: int) -> list[Any]:
    """What a cache of 16-bit numbers gives back, one a block."""
    return [_BFloat16Cache(cache) for cache in model.new_cache(batch_size, max_length)]


# --- what came of it ----------------------------------------------------------------------------
def _print(figures: dict[str, Any]) -> None:
    head = f"{'':22}  {'codes':>6}  {'128':>6}  {'4096':>6}  {'loss':>7}  {'more':>9}"
    print(f"{head}  {'planted':>9}")
    for name, row in figures["losses"].items():
        of_bytes = "".join(f"  {share:6.3f}" for share in figures["bytes"].get(name, {}).values())
        planted = figures["planted"].get(name)
        more = "" if planted is None else f"  {planted['more']:+9.3%}"
        print(f"{name:22}{of_bytes:24}  {row['loss']:7.4f}  {row['more']:+9.3%}{more}")
    print("texts that are the same, tokens before the first difference, margin there, of all:")
    for name in WRITTEN:
        each = [by_cache[name] for by_cache in figures["texts"].values()]
        lines = (
            f"{row['texts']:.1%} {row['tokens']:.1%} "
            f"{'none' if row['margin'] is None else format(row['margin'], '.4f')} "
            f"{row['margin_of_all']:.2f}"
            for row in each
        )
        print(f"  {name:22}{'   '.join(lines)}")
    line = ", ".join(f"{name} {share:.2%}" for name, share in figures["choices"].items())
    print(f"the same choice after the same text: {line}")
    keys = figures["keys"]
    line = ", ".join(f"by {by} {error:.2e}" for by, error in keys["error"].items())
    uneven = ", ".join(f"{ratio:.1f}" for ratio in keys["largest_over_median"])
    print(f"error of keys in 4 bits: {line}; largest channel over median, by layer: {uneven}")
    for name, (bound, target) in TARGETS.items():
        value = figures["targets"][name]
        print(f"8 bits, {name}: {value:.4f}   {verdict(value, bound, target)}")
