"""The experiments of chapter 18: what they run, so that its notebook can show what comes out.

    town_texts    the town's held-out texts, and rows to calibrate with
    loss          nats a token of held-out text
    inputs_of     what a matrix of the model is given while a text passes it
    time_products one matrix times a few rows of numbers: float32 and kernels for codes

Paper: none.
Differs: none.

Chapter: 18
"""

import time
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from minillm.data.packing import Packed
from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.model.transformer import Transformer
from minillm.quant import kernels, rtn
from minillm.quant.rtn import Grid
from minillm.town.facts import FactTable
from minillm.town.stories import StorySource
from minillm.town.world import World
from minillm.train.losses import language_loss

AT_ONCE = 16  # rows of text
N_BLOCKS = 2  # of 64 stories in each language, and as many of facts
GRIDS = {"int8": Grid(bits=8), "int4": Grid(bits=4)}


# --- texts ----------------------------------------------------------------------------------------
class Texts(NamedTuple):
    """Rows to measure the loss on, and rows to calibrate with.

    Args:
        held_out: texts that the shipped models have not read.
        training: texts that they have read.
    """

    held_out: Packed
    training: Packed

    def calibration(self, seed: int = 0, batch_size: int = 64) -> Int[Tensor, "B T"]:
        """So many rows that are not held out, drawn without repetition."""
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(self.training.n_places, generator=generator)
        return self.training.rows(order[:batch_size].tolist()).tokens


def town_texts(tokenizer: JsonTokenizer, context_length: int = 128) -> Texts:
    """Stories of the town in English and Chinese, and facts: those of `minillm quantize`.

    Args:
        tokenizer: of a model of the zoo, with one special token, which ends a text.
        context_length: of a row.
    """
    (end_id,) = tokenizer.special_ids.values()
    world, packed = World(), []
    sources = [StorySource(world, language) for language in ("en", "zh")]
    for seed in ("held out", "train"):
        texts = [s for each in sources for n in range(N_BLOCKS) for s in each.block(n, seed=seed)]
        facts = FactTable(world)
        texts += [s for n in range(N_BLOCKS) for s in facts.block(n, seed=seed)]
        documents = [tokenizer.encode(each.text) for each in texts]
        packed.append(Packed(documents, end_id=end_id, context_length=context_length, batch_size=1))
    return Texts(*packed)


@torch.inference_mode()
def loss(model: Transformer, held_out: Packed) -> float:
    """Nats a token of all rows, lower is better.

    Example:
        >>> from minillm.model.config import tiny
        >>> rows = Packed([[5, 6, 7], [8, 9]], end_id=0, context_length=4, batch_size=1)
        >>> round(loss(tiny(vocab_size=10).build(seed=0), rows))  # log 10: it knows nothing yet
        2
    """
    numbers = range(held_out.n_places)
    batches = [held_out.rows(numbers[first : first + AT_ONCE]) for first in numbers[::AT_ONCE]]
    totals = [language_loss(model, batch) for batch in batches]
    return sum(each.nats.item() for each in totals) / sum(int(each.n_tokens) for each in totals)


@torch.inference_mode()
def inputs_of(
    model: Transformer, name: str, tokens: Int[Tensor, "B T"]
) -> Float[Tensor, "N columns"]:
    """What a matrix is given while these tokens are read, a row for each of the N tokens.

    Args:
        model: in which the matrix is.
        name: of its `nn.Linear`.
        tokens: a text.

    Example:
        >>> from minillm.model.config import tiny
        >>> model, tokens = tiny(vocab_size=10).build(seed=0), torch.tensor([[1, 2, 3]])
        >>> inputs_of(model, "blocks.0.ffn.down", tokens).shape
        torch.Size([3, 176])
    """
    inputs: list[Tensor] = []
    hook = model.get_submodule(name).register_forward_pre_hook(
        lambda _, given: inputs.append(given[0])
    )
    try:
        model.hidden(tokens)
    finally:
        hook.remove()
    return inputs[0].flatten(0, 1)


# --- time -----------------------------------------------------------------------------------------
class ProductTime(NamedTuple):
    """One matrix, held in one way.

    Args:
        n_bytes: of what is kept of the matrix.
        seconds: of its product with so many rows of numbers, by their count.
    """

    n_bytes: int
    seconds: dict[int, float]


@torch.inference_mode()
def time_products(
    rows: int,
    columns: int,
    batch_sizes: Sequence[int] = (1,),
    *,
    n_repeats: int = 7,
    n_times: int = 3,
) -> dict[str, ProductTime]:
    """A random matrix in float32, int8 and int4 times rows of numbers, on one thread, in turns.

    Args:
        rows, columns: of the matrix.
        batch_sizes: how many rows of numbers, one after the other.
        n_repeats: turns, of which the median counts.
        n_times: products in a turn.
    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(rows, columns, generator=generator)
    packed = {name: kernels.pack(rtn.quantize(weight, grid)) for name, grid in GRIDS.items()}
    n_bytes = {"float32": weight.nbytes}
    for name, each in packed.items():
        n_bytes[name] = each.weight.nbytes + (0 if each.scales is None else each.scales.nbytes)
    times: dict[str, dict[int, list[float]]] = {
        name: {n: [] for n in batch_sizes} for name in n_bytes
    }
    for n in batch_sizes:
        x = torch.randn(n, columns, generator=generator)
        narrow = x.bfloat16()
        for turn in range(n_repeats + 1):
            for name in n_bytes:
                start = time.perf_counter()
                for _ in range(n_times):
                    if name == "float32":
                        torch.nn.functional.linear(x, weight)
                    else:
                        kernels.linear(narrow, packed[name])
                if turn:  # the first is to warm up
                    times[name][n].append((time.perf_counter() - start) / n_times)
    medians = {name: {n: median(each) for n, each in by.items()} for name, by in times.items()}
    return {name: ProductTime(n_bytes[name], seconds) for name, seconds in medians.items()}
