"""`minillm quantize`: a model in fewer bits, with its loss on held-out text before and after.

Chapter: app
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from jaxtyping import Int
from torch import Tensor

from minillm.data.packing import Packed
from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.lab.threads import use_threads
from minillm.model.transformer import Transformer
from minillm.quant import apply, store
from minillm.quant.nf4 import NF4Config
from minillm.quant.plan import Plan, plan
from minillm.quant.rtn import Grid
from minillm.recipes.data import END, TextData, TownData
from minillm.recipes.run import held_out_loss
from minillm.zoo import checkpoints

CALIBRATION_ROWS = 64  # of text, for GPTQ
ROW_TOKENS = 512  # of a row at most
#: As much of the town as this needs.
TOWN = TownData(story_blocks=2, fact_blocks=2)


def run(
    place: Path,
    out: Path,
    *,
    method: str,
    bits: int | None,
    group: int | None,
    asymmetric: bool,
    clip: bool,
    table_bits: int | None,
    text: Path | None,
) -> None:
    """Quantize a model, print what became of it, and write it to a folder of its own.

    Args:
        place: a model's folder, or the name of a shipped one.
        out: the folder for the quantized model; must not exist.
        method: "rtn", "gptq" or "nf4".
        bits: of a code; None for 4.
        group: how many neighbours of a row share a scale; None for all of the row.
        asymmetric: whether the numbers of a scale reach from the lowest weight to the highest.
        clip: whether scales are chosen for the least squared error of the weights.
        table_bits: of the tables of tokens, a scale a row; None keeps them in float.
        text: a file to measure the loss on, and for GPTQ to calibrate with; None for the town's.

    Raises:
        ValueError: a folder that exists, options that do not go together, a text that is too short;
            what `minillm.quant.plan.plan` and `minillm.quant.apply.quantize` refuse.
    """
    grid = grid_of(method, bits, group, asymmetric, clip)
    of_tables = False if table_bits is None else Grid(bits=table_bits)
    store.check_new(out)
    use_threads()
    model, tokenizer, end_ids = checkpoints.open_model(place)
    chosen = plan(model, method, grid, tables=of_tables)
    texts = rows_of(
        model, tokenizer, end_ids, TOWN if text is None else TextData(files=(str(text),))
    )
    before = loss(model, texts.held_out)
    quantized = apply.quantize(model, chosen, texts.calibration() if method == "gptq" else None)
    after = loss(quantized.model, texts.held_out)
    store.save(quantized, out, beside=checkpoints.folder_of(place))
    print("\n".join([str(quantized.plan), "", *summary(quantized.plan, before, after)]))
    print(f'the model is in {out}:\n  minillm sample --model {out} "..."')


def grid_of(
    method: str, bits: int | None, group: int | None, asymmetric: bool, clip: bool = False
) -> Grid | NF4Config:
    """What the options ask for.

    Raises:
        ValueError: options that do not go together.

    Example:
        >>> print(grid_of("rtn", 3, 32, asymmetric=True))
        3 bits, group 32, asymmetric
    """
    if method != "nf4":
        granularity = "channel" if group is None else group
        bits = 4 if bits is None else bits
        return Grid(bits=bits, granularity=granularity, symmetric=not asymmetric, clip=clip)
    if bits not in (None, 4) or asymmetric or clip:
        raise ValueError(
            "nf4 has 4 bits and its own 16 numbers: leave out --bits, --asymmetric and --clip"
        )
    return NF4Config() if group is None else NF4Config(block_size=group)


# --- texts --------------------------------------------------------------------------------------
@final
@dataclass(frozen=True, eq=False)
class Texts:
    """Rows to measure the loss on, and others to calibrate with.

    Args:
        held_out: all of its rows are read.
        training: what was not held out.
    """

    held_out: Packed
    training: Packed

    def calibration(self, seed: int = 0, batch_size: int = CALIBRATION_ROWS) -> Int[Tensor, "B T"]:
        """So many rows, drawn without repetition; fewer if there are not so many."""
        order = torch.randperm(
            self.training.n_places, generator=torch.Generator().manual_seed(seed)
        )
        return self.training.rows(order[:batch_size].tolist()).tokens


def rows_of(
    model: Transformer,
    tokenizer: JsonTokenizer,
    end_ids: Sequence[int],
    data: TextData | TownData,
) -> Texts:
    """Texts as rows of tokens.

    Args:
        model: for the length of a row.
        tokenizer: of the model.
        end_ids: that end a text, the usual one first.
        data: where the texts come from.

    Raises:
        ValueError: a model that has no such id; too little text.
    """
    end_id = next(iter(end_ids), tokenizer.special_ids.get(END))
    if end_id is None:
        raise ValueError(
            "the model's files name no token that ends a text (eos_token_id), so documents cannot "
            "be told apart; add one to its generation_config.json"
        )
    length = min(model.context_length, ROW_TOKENS)
    packed = []
    for part in ("held out", "train"):
        documents = [tokenizer.encode(document) for document in data.documents(part)]
        try:
            packed.append(Packed(documents, end_id=end_id, context_length=length, batch_size=1))
        except ValueError as error:
            raise ValueError(f"the {part} part of the text is too short: {error}") from None
    return Texts(*packed)


@torch.inference_mode()
def loss(model: Transformer, held_out: Packed) -> float:
    """Nats a token of the held-out text."""
    return held_out_loss(model, held_out)


def summary(plan: Plan, before: float, after: float) -> list[str]:
    """What was saved, and what it cost.

    Args:
        plan: as it was carried out.
        before, after: held-out loss.
    """
    return [
        f"bytes: {plan.bytes_before:,} → {plan.bytes_after:,}, "
        f"{plan.bytes_before / plan.bytes_after:.2f} times fewer; {plan.bits_per_weight:.2f} bits "
        "a quantized weight, scales included",
        f"held-out loss: {before:.4f} → {after:.4f} nats a token, {after / before - 1:+.2%}",
    ]
