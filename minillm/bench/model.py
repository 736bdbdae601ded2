"""`minillm bench model`: our transformer beside the Llama of `transformers`.

Both have the same shape and the same weights (ours, saved by `minillm.formats.hf` and opened
there), float32, the same number of threads, torch's scaled dot-product attention, torch's AdamW as
it comes, and the same tokens. The contenders take turns within each repetition, so that a slow
moment of the machine hits all of them; medians are told, and ratios are of medians.

- *Training*: the loss on B × T tokens, and a step of AdamW by `minillm.optim.step`, which both
  sides take. Ours takes the loss in chunks (`minillm.train.losses`). Compiled means
  `torch.compile` of the loss at once, as in chapter 04; AdamW stays as it is.
- *Memory*: the most elements alive at once in one eager step, by `minillm.measure.memory_meter`.
  Weights and what AdamW remembers were there before and are not counted; gradients are.
- *Writing*: greedy, 256 tokens after prompts of 16, each side with its own cache. The pass over
  the prompt is counted with the rest. Compiled means `generate(..., compiled=True)`.

`transformers` runs as it comes, never compiled. The time to compile, with nothing kept from before,
is told beside what was compiled and not counted.

That both do the same work is checked first: equal losses, and equal tokens in a short text.

A benchmark needs `transformers`, which the library itself never imports.

Chapter: app
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._inductor.exc import InductorError
from torch._inductor.utils import fresh_cache

from minillm.bench.bpe import race
from minillm.formats import hf
from minillm.measure.memory_meter import peak_elements
from minillm.model.config import TransformerConfig, medium, small, tiny
from minillm.model.transformer import Transformer, loss
from minillm.optim.step import Total, take_step
from minillm.serve.sample import SampleConfig, generate
from minillm.train.losses import cross_entropy

#: Names of the comparisons, and what the ratio of each is to reach: at most, or at least.
TARGETS = {
    "1m_train": ("at least", 1.1),
    "1m_train_compiled": ("at least", 1.4),
    "1m_peak": ("at most", 1.0),
    "1m_write_1": ("at least", 2.5),
    "1m_write_16": ("at least", 2.0),
    "1m_write_1_compiled": ("at least", 4.0),
    "1m_write_16_compiled": ("at least", 3.0),
    "10m_train": ("at least", 1.2),
    "10m_train_compiled": ("at least", 1.6),
    "10m_peak": ("at most", 1.0),
    "10m_write_1": ("at least", 1.6),
    "10m_write_16": ("at least", 1.4),
    "10m_write_1_compiled": ("at least", 2.0),
    "10m_write_16_compiled": ("at least", 2.0),
}

N_PROMPT, N_CHECKED = 16, 8  # tokens of a prompt, tokens that must be equal
LEARNING_RATE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A model, and the batch that it is trained on."""

    config: TransformerConfig
    batch_size: int
    n_tokens: int


@dataclass(frozen=True, kw_only=True)
class Work:
    """How often everything is repeated, and how much of it is done each time."""

    n_repeats: int
    n_steps: int
    n_written: int
    compiled: bool


SHAPES = {
    "1m": Shape(config=replace(small(1024), context_length=512), batch_size=32, n_tokens=64),
    "10m": Shape(config=replace(medium(4096), context_length=512), batch_size=8, n_tokens=256),
}
TOYS = {
    "1m": Shape(config=tiny(64), batch_size=4, n_tokens=16),
    "10m": Shape(config=replace(tiny(128), n_layers=3), batch_size=2, n_tokens=32),
}
FULL = Work(n_repeats=9, n_steps=4, n_written=256, compiled=True)
QUICK = Work(n_repeats=1, n_steps=1, n_written=8, compiled=False)


def run(quick: bool = False) -> dict[str, float]:
    """Run the benchmark, print its table, and return every figure.

    Args:
        quick: a few seconds, with toys in place of both models and nothing compiled, to see that it
            works; its figures mean nothing.

    Returns:
        For each comparison of `TARGETS` that was made: under its name the ratio, and with `_ours`
        and `_theirs` the medians of both sides, in tokens/s (train), ms a token of each row (write)
        and elements (peak). Also seconds to compile, `..._compiled_after`, and `n_threads`.

    Raises:
        ValueError: `transformers` is not installed.
        AssertionError: the two models differ in their losses, or in what they write.
    """
    try:
        import transformers
    except ImportError:
        raise ValueError(
            "bench model compares with the package `transformers`: pip install transformers"
        ) from None

    shapes, work = (TOYS, QUICK) if quick else (SHAPES, FULL)
    figures: dict[str, float] = {"n_threads": torch.get_num_threads()}
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, float32, "
        f"threads: {torch.get_num_threads()}; median of {work.n_repeats}"
    )
    print(f"{'':<29} {'minillm':>12} {'transformers':>12} {'ratio':>6}")
    for name, shape in shapes.items():
        ours = shape.config.build(seed=0)
        theirs = opened_by(transformers, ours)
        n_parameters = sum(parameter.numel() for parameter in theirs.parameters())
        print(
            f"{name}: {n_parameters:,} parameters, {shape.config.n_layers} layers, width "
            f"{shape.config.d_model}, vocabulary {shape.config.vocab_size:,}; trained on "
            f"{shape.batch_size} × {shape.n_tokens} tokens"
        )
        # Writing comes first, since training changes the two models' weights.
        measured = {
            f"{name}_{figure}": value
            for figure, value in (
                compare_writing(ours, theirs, 1, work)
                | compare_writing(ours, theirs, 16, work)
                | compare_training(ours, theirs, shape, work)
            ).items()
        }
        figures |= measured
        print_lines(name, figures)
    return figures


def opened_by(transformers: Any, ours: Transformer) -> nn.Module:
    """Our model, as `transformers` opens it."""
    with tempfile.TemporaryDirectory() as folder, no_bars(transformers.utils.logging):
        hf.save(ours, folder)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="sdpa"
        )
    n_ours, n_theirs = (sum(p.numel() for p in model.parameters()) for model in (ours, theirs))
    assert n_ours == n_theirs, f"the models have {n_ours:,} and {n_theirs:,} parameters"
    return theirs


# --- training -----------------------------------------------------------------------------------
def loss_in_chunks(ours: Transformer, tokens: Tensor) -> Total:
    """`minillm.model.transformer.loss`, a few hundred tokens at a time."""
    hidden = ours.hidden(tokens[:, :-1]).flatten(0, 1)
    table = ours.embedding.weight if ours.head is None else ours.head.weight
    return cross_entropy(hidden, table, tokens[:, 1:].flatten())


def loss_of_theirs(theirs: nn.Module, tokens: Tensor) -> Total:
    """`minillm.model.transformer.loss` of a model of transformers."""
    logits = theirs(input_ids=tokens[:, :-1], use_cache=False).logits.flatten(0, 1)
    targets = tokens[:, 1:].flatten()
    nats = nn.functional.cross_entropy(logits, targets, reduction="sum")
    return Total(nats, targets.numel())


def compare_training(
    ours: Transformer, theirs: nn.Module, shape: Shape, work: Work
) -> dict[str, float]:
    """Tokens a second, ours eager and compiled; elements alive at the worst moment."""
    tokens = drawn(shape.config.vocab_size, shape.batch_size, shape.n_tokens + 1)
    with torch.no_grad():
        both = loss_in_chunks(ours, tokens), loss_of_theirs(theirs, tokens)
        check_losses(*(total.mean.item() for total in both))
    step = training_step(ours, loss_in_chunks, tokens)
    step_of_theirs = training_step(theirs, loss_of_theirs, tokens)
    step(), step_of_theirs()  # AdamW takes its memory
    figures = compared("peak", peak_elements(step), peak_elements(step_of_theirs))
    steps = {"train": step, "theirs": step_of_theirs}
    if work.compiled:
        compiled = torch.compile(loss, fullgraph=True, dynamic=False)
        steps["train_compiled"] = training_step(ours, compiled, tokens)
        took = seconds_to_compile(steps["train_compiled"])
        if took is None:
            del steps["train_compiled"]
        else:
            figures["train_compiled_after"] = took
    seconds = race(
        {who: repeated(step, work.n_steps) for who, step in steps.items()}, work.n_repeats
    )
    n_tokens = work.n_steps * shape.batch_size * shape.n_tokens
    rates = {who: n_tokens / took for who, took in seconds.items()}
    for who in steps.keys() - {"theirs"}:
        figures |= compared(who, rates[who], rates["theirs"])
    return figures


def training_step(
    model: nn.Module, loss_of: Callable[..., Total], tokens: Tensor
) -> Callable[[], object]:
    """One step on these tokens, to be called again and again; gradients are dropped at its end."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    return lambda: take_step(model, optimizer, [loss_of(model, tokens)])


def repeated(step: Callable[[], object], n_times: int) -> Callable[[], None]:
    """A step, several times over."""

    def steps() -> None:
        for _ in range(n_times):
            step()

    return steps


def seconds_to_compile(step: Callable[[], object]) -> float | None:
    """How much longer the first time takes than the second, with nothing kept from before.

    None, and a line that says why, where nothing can be compiled.
    """
    torch._dynamo.reset()
    took = []
    try:
        with fresh_cache():
            for _ in range(2):
                start = time.perf_counter()
                step()
                took.append(time.perf_counter() - start)
    except InductorError as error:  # first of all: no C++ compiler
        print(f"  not compiled: {str(error).splitlines()[0]}")
        return None
    return took[0] - took[1]


def check_losses(ours: float, theirs: float) -> None:
    """Equal up to roundings."""
    assert abs(ours - theirs) <= 1e-4 * abs(theirs), f"the losses are {ours} and {theirs}"


# --- writing ------------------------------------------------------------------------------------
def compare_writing(
    ours: Transformer, theirs: nn.Module, batch_size: int, work: Work
) -> dict[str, float]:
    """Milliseconds for one more token in each of batch_size rows."""
    prompts = drawn(len(ours.embedding.weight), batch_size, N_PROMPT)
    rows, greedy = prompts.tolist(), SampleConfig(temperature=0)

    def write(n_tokens: int, compiled: bool = False) -> list[list[int]]:
        return generate(ours, rows, greedy, n_tokens=n_tokens, compiled=compiled)

    def write_theirs(n_tokens: int) -> list[list[int]]:
        options = {"max_new_tokens": n_tokens, "do_sample": False, "use_cache": True}
        whole = theirs.generate(prompts, attention_mask=torch.ones_like(prompts), **options)
        return whole[:, N_PROMPT:].tolist()

    check_texts(write(N_CHECKED), write_theirs(N_CHECKED))
    name, figures = f"write_{batch_size}", {}
    works = {
        name: lambda: write(work.n_written),
        "theirs": lambda: write_theirs(work.n_written),
    }
    if work.compiled:
        took = seconds_to_compile(lambda: write(N_CHECKED, compiled=True))
        if took is not None:
            check_texts(write(N_CHECKED, compiled=True), write(N_CHECKED))
            works[f"{name}_compiled"] = lambda: write(work.n_written, compiled=True)
            figures[f"{name}_compiled_after"] = took
    seconds = race(works, work.n_repeats)
    ms = {who: 1000 * took / work.n_written for who, took in seconds.items()}
    for who in works.keys() - {"theirs"}:
        figures |= compared(who, ms[who], ms["theirs"])
    return figures


def check_texts(ours: list[list[int]], theirs: list[list[int]]) -> None:
    """Equal token by token."""
    for row, (left, right) in enumerate(zip(ours, theirs, strict=True)):
        assert left == right, f"row {row}: minillm wrote {left}, transformers {right}"


def drawn(vocab_size: int, batch_size: int, n_tokens: int) -> Tensor:
    """Tokens without meaning, always the same ones."""
    generator = torch.Generator(device="cpu").manual_seed(0)
    return torch.randint(vocab_size, (batch_size, n_tokens), generator=generator, device="cpu")


# --- what was found -----------------------------------------------------------------------------
def compared(what: str, ours: float, theirs: float) -> dict[str, float]:
    """Both sides and their ratio: of times and tokens/s how many times faster, of elements ours to
    theirs."""
    ratio = theirs / ours if what.startswith("write") else ours / theirs
    return {f"{what}_ours": ours, f"{what}_theirs": theirs, what: ratio}


def verdict(ratio: float, bound: str, target: float) -> str:
    """A comparison's target, and whether it is met.

    Example:
        >>> verdict(1.25, "at least", 1.2), verdict(1.25, "at most", 1.0)
        ('at least 1.2: met', 'at most 1: MISSED')
    """
    met = ratio <= target if bound == "at most" else ratio >= target
    return f"{bound} {target:g}: {'met' if met else 'MISSED'}"


def print_lines(name: str, figures: dict[str, float]) -> None:
    """Print one line for each comparison of a shape that was made."""
    units = {"train": "tokens/s", "write": "ms/token", "peak": "elements"}
    for what, (bound, target) in TARGETS.items():
        shape, _, kind = what.partition("_")
        if shape != name or what not in figures:
            continue
        unit = units[kind.partition("_")[0]]
        digits = 2 if unit == "ms/token" else 0
        both = (f"{figures[f'{what}_{side}']:12,.{digits}f}" for side in ("ours", "theirs"))
        after = figures.get(f"{what}_after")
        beside = "" if after is None else f" (compiled in {after:.0f} s)"
        print(
            f"  {kind + ', ' + unit:<29} {' '.join(both)} {figures[what]:6.2f}   "
            f"{verdict(figures[what], bound, target)}{beside}"
        )


@contextmanager
def no_bars(logging: Any) -> Iterator[None]:
    """No progress bars of transformers; afterwards as before."""
    before = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if before:
            logging.enable_progress_bar()
