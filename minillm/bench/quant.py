"""`minillm bench quant`: loss against bits of `town-1m`, and the time and bytes that codes save.

*Loss.* The 16 matrices of the blocks are quantized; the table of tokens gets 8 bits in each, which
costs no loss, or it would be half of all bytes. Told are nats a token of the town's held-out texts,
all of them, what they are more than without quantization, and the bytes of the whole model.

    tensor, channel, group 32       symmetric; a scale for the matrix, a row, 32 of a row (43 in
                                    ffn.down, whose rows 32 does not divide)
    asymmetric, asymmetric 32       a scale and a zero point for a row, for 32 of a row
    clipped                         symmetric, a scale a row, of the least squared error
    clipped asymmetric              likewise, with a zero point
    rtn, gptq                       gptq: 64 rows of 128 tokens to calibrate with, three times,
                                    drawn with other seeds; the mean, and lowest and highest
    closed                          the part of rtn's loss that gptq takes back: 1 is all of it

*Time.* One row of numbers times a matrix, as in writing one text: in float32, and by torch's
kernels for int8 and int4 with activations in bfloat16.

*Writing.* One text, token by token with a cache, by models of 10 and 40 million random parameters,
in float32 and bfloat16, with the kernels for int8 (a scale a row) and int4 (groups of 32), and by
`transformers` in float32, if it is installed; ours in float32 begins as theirs does. The table of
tokens, which gives the logits too, stays in float. Counted are the bytes of weights as they lie in
memory. Ratios are told to both in float32: at 10 million parameters more than half of the time
with codes goes into naming operations, which fewer bytes do not shorten; at 40 million less.

What is timed takes turns, in seconds of the processor, with one thread; the least of each counts.

Paper: Frantar et al. 2022, "GPTQ", arXiv:2210.17323, sections 4 and 5.
Differs: models, data and sizes.

Chapter: app
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import Any

import torch

from minillm.bench._run import Finished
from minillm.bench.model import N_CHECKED, check_texts, drawn, opened_by, repeated, verdict
from minillm.bench.speculate import least
from minillm.lab.track import track
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.model.ffn import SwiGLUConfig
from minillm.model.transformer import Transformer
from minillm.quant import kernels
from minillm.quant.apply import quantize
from minillm.quant.plan import plan
from minillm.quant.rtn import BITS, Grid
from minillm.quant.rtn import quantize as round_to_nearest
from minillm.recipes import quantizing
from minillm.serve.sample import SampleConfig, generate
from minillm.zoo import checkpoints

GRIDS: dict[str, dict[str, Any]] = {
    "tensor": {"granularity": "tensor"},
    "channel": {"granularity": "channel"},
    "group 32": {"granularity": 32},
    "asymmetric": {"granularity": "channel", "symmetric": False},
    "asymmetric 32": {"granularity": 32, "symmetric": False},
    "clipped": {"granularity": "channel", "clip": True},
    "clipped asymmetric": {"granularity": "channel", "symmetric": False, "clip": True},
}
TABLE = Grid(bits=8)
SEEDS = (0, 1, 2)
QUICK_TOWN = replace(
    quantizing.TOWN, languages=("en",), story_blocks=1, fact_blocks=0, held_out_blocks=1
)
SHAPES = ((4096, 4096), (320, 860))
CODES = {"int8": Grid(bits=8), "int4": Grid(bits=4)}
WRITTEN = {"int8": Grid(bits=8), "int4": Grid(bits=4, granularity=32)}
#: Name to d_model, of the models that write; and how many layers they have.
MODELS, N_LAYERS = {"10m": 320, "40m": 640}, 8
N_PROMPT, N_WRITTEN = 16, 64  # tokens
#: How many times as fast as which contender the faster of int8 and int4 is to write at 10 million.
TARGETS = {"float32": 1.5, "transformers": 2.0}


def run(*, quick: bool = False, finished: Finished | None = None) -> dict[str, Any]:
    """Measure, and print both tables.

    Args:
        quick: 4 bits, one seed, little text, small matrices; its figures mean little.
        finished: results that are there already.
    """
    finished = Finished() if finished is None else finished
    model, tokenizer, end_ids = checkpoints.open_model(checkpoints.folder("town-1m"))
    data = QUICK_TOWN if quick else quantizing.TOWN
    texts = quantizing.rows_of(model, tokenizer, end_ids, data)
    bits, seeds = ((4,), SEEDS[:1]) if quick else (BITS, SEEDS)
    rows = losses(model, texts, bits, seeds, finished)
    shapes, work = (((64, 64), (20, 86)), (1, 2)) if quick else (SHAPES, (15, 20))
    times = {f"{n} × {m}": seconds(n, m, *work) for n, m in shapes}
    sizes = {"10m": (320, 1, N_CHECKED, 1)} if quick else {
        name: (d_model, N_LAYERS, N_WRITTEN, 7) for name, d_model in MODELS.items()
    }  # fmt: skip
    decode = {
        name: finished(f"decode {name}", partial(writing, *size)) for name, size in sizes.items()
    }
    _print(rows, times)
    _print_writing(decode)
    return {"losses": rows, "seconds": times, "decode": decode, "kernels": _has()}


def losses(
    model: Transformer,
    texts: quantizing.Texts,
    all_bits: Sequence[int],
    seeds: Sequence[int],
    finished: Finished,
) -> list[dict[str, Any]]:
    """A row for each number of bits, grid and method; the first is of the model as it is.

    Args:
        model: in float.
        texts: to measure the loss on, and to calibrate with.
        all_bits: of a code.
        seeds: of GPTQ's calibration rows.
        finished: results that are there already.
    """
    base = finished("float", lambda: quantizing.loss(model, texts.held_out))

    def row(method: str, grid: Grid | None = None, name: str = "", n_runs: int = 1) -> dict:
        chosen = plan(model, method, grid, tables=TABLE)

        def measure(seed: int) -> float:
            rows = texts.calibration(seed) if method == "gptq" else None
            return quantizing.loss(quantize(model, chosen, rows).model, texts.held_out)

        each = [
            finished(f"{method}, {grid}, seed {seed}, table in 8 bits", partial(measure, seed))
            for seed in seeds[:n_runs]
        ]
        bits = 4 if grid is None else grid.bits
        of_grid = {"bits": bits, "grid": name, "method": method, "bytes": chosen.bytes_after}
        return of_grid | {"losses": each, "loss": fmean(each), "more": fmean(each) / base - 1}

    rows = [
        {"bits": 32, "grid": "", "method": "float", "bytes": plan(model, "rtn").bytes_before}
        | {"losses": [base], "loss": base, "more": 0.0}
    ]
    for bits, name in track([(bits, name) for bits in all_bits for name in GRIDS], "losses"):
        grid = Grid(bits=bits, **GRIDS[name])
        nearest, moved = row("rtn", grid, name), row("gptq", grid, name, len(seeds))
        if bits < 8 and nearest["more"] > 0:  # with 8 bits there is nothing to take back
            moved["closed"] = 1 - moved["more"] / nearest["more"]
        rows += [nearest, moved]
    return [*rows, row("nf4", name="blocks of 64")]


# --- time ---------------------------------------------------------------------------------------
def seconds(rows: int, columns: int, n_repeats: int, n_times: int) -> dict[str, float]:
    """Of one row of numbers times such a matrix, by each contender.

    Args:
        rows, columns: of the matrix.
        n_repeats: turns of each contender.
        n_times: products in a turn.
    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(rows, columns, generator=generator)
    x = torch.randn(1, columns, generator=generator)
    contenders = {"float32": lambda: torch.nn.functional.linear(x, weight)}
    for kind, grid in CODES.items():
        packed, narrow = kernels.pack(round_to_nearest(weight, grid)), x.bfloat16()
        contenders[kind] = lambda packed=packed, narrow=narrow: kernels.linear(narrow, packed)
    turns = {name: repeated(product, n_times) for name, product in contenders.items()}
    with torch.inference_mode():
        return {name: each / n_times for name, each in least(turns, n_repeats).items()}


def writing(d_model: int, n_layers: int, n_tokens: int, n_repeats: int) -> dict[str, Any]:
    """Milliseconds a token of one text, and bytes of weights, by each contender.

    Args:
        d_model, n_layers: of the model, whose weights are random.
        n_tokens: to write.
        n_repeats: turns of each contender.
    """
    config = decoder(d_model, n_layers)
    model, prompt = config.build(seed=0), drawn(config.vocab_size, 1, N_PROMPT)
    ours = {"float32": model, "bfloat16": config.build(seed=0).bfloat16()}
    for kind, grid in WRITTEN.items():
        small = quantize(model, plan(model, "rtn", grid)).model
        ours[kind] = kernels.with_kernels(small).bfloat16()
    rows, greedy = prompt.tolist(), SampleConfig(temperature=0)
    turns = {
        name: partial(generate, each, rows, greedy, n_tokens=n_tokens)
        for name, each in ours.items()
    }
    sizes = {name: weight_bytes(each) for name, each in ours.items()}
    with suppress(ImportError):
        import transformers

        theirs = opened_by(transformers, model)
        sizes["transformers"] = weight_bytes(theirs)
        turns["transformers"] = partial(
            theirs.generate,
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=n_tokens,
            do_sample=False,
        )
        both = turns["float32"](), turns["transformers"]()[:, N_PROMPT:].tolist()
        check_texts(*([row[:N_CHECKED] for row in text] for text in both))
    ms = {name: 1000 * took / n_tokens for name, took in least(turns, n_repeats).items()}
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"n_parameters": n_parameters, "ms": ms, "bytes": sizes}


def decoder(d_model: int, n_layers: int) -> TransformerConfig:
    """A dense model with heads of 32 and rows that groups of 32 divide.

    Example:
        >>> model = decoder(320, 8).build(device="meta")
        >>> sum(parameter.numel() for parameter in model.parameters())
        10245440
    """
    return TransformerConfig(
        vocab_size=1024,
        d_model=d_model,
        n_layers=n_layers,
        mixer=AttentionConfig(n_heads=d_model // 32),
        ffn=SwiGLUConfig(d_ff=27 * d_model // 10),
        tied_embeddings=True,
    )


def weight_bytes(model: torch.nn.Module) -> int:
    """Of all parameters, and of what lies in the form for a kernel."""
    packed = [each.packed for each in model.modules() if isinstance(each, kernels.KernelLinear)]
    in_float = sum(parameter.nbytes for parameter in model.parameters())
    return in_float + sum(each.n_bytes for each in packed)


def _has() -> dict[str, bool]:
    return {kind: kernels.has_kernel(kind) for kind in CODES}


def _print(rows: list[dict[str, Any]], times: dict[str, dict[str, float]]) -> None:
    print(f"{'bits':>4}  {'grid':18}  {'method':6}  {'bytes':>9}  {'loss':>7}  {'more':>10}")
    for row in rows:
        each = row["losses"]
        beside = f"  {min(each):.4f} to {max(each):.4f}" if len(each) > 1 else ""
        beside += f"  closed {row['closed']:.0%}" if "closed" in row else ""
        print(
            f"{row['bits']:>4}  {row['grid']:18}  {row['method']:6}  {row['bytes']:9,}  "
            f"{row['loss']:7.4f}  {row['more']:+10.2%}{beside}"
        )
    for shape, each in times.items():
        line = ", ".join(f"{name} {1e6 * second:,.1f} µs" for name, second in each.items())
        print(f"one row times {shape}: {line}")
    for kind in (kind for kind, there in _has().items() if not there):
        print(f"this torch has no kernel for {kind}: it is computed in numbers")


def _print_writing(decode: dict[str, dict[str, Any]]) -> None:
    for name, each in decode.items():
        ms, sizes = each["ms"], each["bytes"]
        rivals = [rival for rival in TARGETS if rival in ms]
        print(f"one text written by {each['n_parameters']:,} parameters:")
        for kind, each_ms in ms.items():
            line = f"  {kind:12}  {1000 / each_ms:6.1f} tokens/s  {sizes[kind] / 1e6:6.1f} MB"
            faster = (f"  {ms[rival] / each_ms:.2f} times as fast as {rival}" for rival in rivals)
            print(line + ",".join(faster))
        best = min(WRITTEN, key=ms.get)
        for rival in rivals if name == "10m" else ():
            met = verdict(ms[rival] / ms[best], "at least", TARGETS[rival])
            print(f"  {best} against {rival}: {met}")
