"""The experiments of chapter 17: what they run, so that its notebook can show what comes out.

    time_tokens    one token against the bytes of weights, on random models of four sizes
    step_times     what a long prompt does to the steps of the real engine
    play           many requests through an engine, step by step: slots, stored tokens, blocks
    gain           a draft's guesses for a target: tokens a call and seconds
    chi_square     whether judged guesses are distributed as they should be
    stall          what a long prompt does to texts that are being written
    best_rates     goodput of three ways to serve; tail_gaps: their longest gaps

Chapter: 17
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from minillm.model.config import TransformerConfig
from minillm.model.transformer import Transformer
from minillm.serve.costs import Costs, measure, roofline
from minillm.serve.disaggregate import Served, Trace, apart, chunked, prefill_first, simulate
from minillm.serve.draft import ModelDraft
from minillm.serve.engine import Engine, EngineConfig
from minillm.serve.goodput import SEEDS, Comparison, Workload, compare, relative, tail_gap
from minillm.serve.request import Request
from minillm.serve.sample import SampleConfig, generate
from minillm.serve.speculate import accept, acceptance_rate, stream_calls

GREEDY = SampleConfig(temperature=0)

#: A model of 13 billion parameters in 16 bits on a card like an A100 of 80 GB, by arithmetic: half
#: of the data sheet's operations, 80 % of its bytes a second, and 300 GB/s from card to card.
A100 = roofline(
    n_parameters=13e9,
    n_layers=40,
    d_model=5120,
    flops_per_second=0.5 * 312e12,
    memory_bytes_per_second=0.8 * 2.039e12,
    link_bytes_per_second=300e9,
    memory_bytes=72e9,
)


# --- a token's time -------------------------------------------------------------------------------
class TokenTime(NamedTuple):
    """What passes of one model take.

    Args:
        n_bytes: of its weights.
        prompt: seconds to read 64 tokens at once.
        one, sixteen: seconds of a decode step with one row, and with sixteen.
    """

    n_bytes: int
    prompt: float
    one: float
    sixteen: float


def time_tokens(
    widths: Sequence[int] = (160, 288, 480, 768), n_repeats: int = 5
) -> list[TokenTime]:
    """Time passes of random models of four blocks, in float32 on the CPU.

    Args:
        widths: d_model of each.
        n_repeats: of which the median counts.
    """
    times = []
    for d_model in widths:
        model = TransformerConfig(vocab_size=256, d_model=d_model, context_length=128).build(seed=0)
        samples = measure(model, prompts=[64], batch_sizes=[1, 16], n_repeats=n_repeats)
        prompt, _, one, sixteen = (sample.seconds for sample in samples)
        n_bytes = sum(parameter.nbytes for parameter in model.parameters())
        times.append(TokenTime(n_bytes, prompt, one, sixteen))
    return times


# --- slots and blocks -----------------------------------------------------------------------------
def random_requests(seed: int, n_requests: int = 200, mean: int = 24) -> list[Request]:
    """Requests of eight random tokens, whose answers have random (geometric) lengths up to 100."""
    rng = np.random.default_rng(seed)
    lengths = rng.geometric(1 / mean, n_requests).clip(max=100)
    prompts = rng.integers(50, size=(n_requests, 8))
    return [
        Request(prompt=tuple(prompt), n_tokens=n, config=GREEDY)
        for prompt, n in zip(prompts.tolist(), lengths.tolist(), strict=True)
    ]


class Played(NamedTuple):
    """An engine's steps.

    Args:
        steps: of each step the engine's `last_step`: (request, slot, tokens read).
        n_stored: tokens whose keys and values the running requests have, after each step.
        n_blocks: that they hold, in each step.
        seconds: of this thread's time on a core, all steps together.
    """

    steps: list[list[tuple[int, int, int]]]
    n_stored: list[int]
    n_blocks: list[int]
    seconds: float


def play(requests: Sequence[Request], config: EngineConfig) -> Played:
    """Answer requests with a small random model: how many steps it takes depends on no weight."""
    model = TransformerConfig(vocab_size=50, d_model=32, n_layers=2, context_length=128).build(
        seed=0
    )
    engine = Engine(model, config=config)
    for request in requests:
        engine.submit(request)
    stored: dict[int, int] = {}
    played = Played([], [], [], 0.0)
    start = time.thread_time()
    while engine.has_work:
        ended = {event.number for event in engine.step() if event.finish_reason}
        for number, _, n_new in engine.last_step:
            stored[number] = stored.get(number, 0) + n_new
        played.steps.append(engine.last_step)
        stored = {number: n for number, n in stored.items() if number not in ended}
        played.n_stored.append(sum(stored.values()))
        played.n_blocks.append(engine.load.n_blocks_used)
    return played._replace(seconds=time.thread_time() - start)


def step_times(step_tokens: int) -> list[float]:
    """Seconds of 59 steps: four texts are being written, and in step 20 a prompt of 600 comes.

    Args:
        step_tokens: the most tokens that a step reads.
    """
    model = TransformerConfig(vocab_size=256, context_length=1024).build(seed=0)
    engine = Engine(model, config=EngineConfig(max_batch=8, step_tokens=step_tokens, n_blocks=300))
    for number in range(4):
        engine.submit(Request(prompt=(number,) * 8, n_tokens=60, config=GREEDY))
    seconds = []
    for step in range(59):
        if step == 20:
            prompt = tuple(n % 256 for n in range(600))
            engine.submit(Request(prompt=prompt, n_tokens=10, config=GREEDY))
        start = time.thread_time()
        engine.step()
        seconds.append(time.thread_time() - start)
    return seconds


def mixed_requests(tokenizer, n_requests: int = 16, seed: int = 0) -> list[Request]:
    """Beginnings of the town's texts, greedy and sampled, of several lengths, each with a seed."""
    starts = ("Mei sells", "Mei sells red", "小梅", "Old Tan", "In the morning Mei", "阿乔")
    (end,) = tokenizer.special_ids.values()
    return [
        Request(
            prompt=(end, *tokenizer.encode(starts[n % len(starts)])),
            n_tokens=24 + 6 * (n % 7),
            config=SampleConfig(temperature=(0, 0.7, 1.0)[n % 3]),
            seed=100 * seed + n,
        )
        for n in range(n_requests)
    ]


# --- guesses --------------------------------------------------------------------------------------
class Gain(NamedTuple):
    """What a draft's guesses gain on some prompts.

    Args:
        alpha: the acceptance rate, along the target's own texts.
        tokens_per_call: by the number of guesses γ; calls near a text's end, with fewer, left out.
        same: whether all texts are those without a draft.
        seconds: by γ, and with 0 for the target alone; of this thread's time on a core.
    """

    alpha: float
    tokens_per_call: dict[int, float]
    same: bool
    seconds: dict[int, float]


def gain(
    model: Transformer,
    draft: Transformer,
    prompts: Sequence[Sequence[int]],
    n_drafted: Sequence[int] = (1, 2, 4, 6),
    n_tokens: int = 60,
) -> Gain:
    """Write greedy texts with a draft and without."""
    begin = time.thread_time()
    texts = [generate(model, [prompt], GREEDY, n_tokens=n_tokens)[0] for prompt in prompts]
    tokens_per_call, same, seconds = {}, True, {0: time.thread_time() - begin}
    for n in n_drafted:
        begin, full = time.thread_time(), []
        for prompt, text in zip(prompts, texts, strict=True):
            how = {"n_tokens": n_tokens, "n_drafted": n}
            calls = list(stream_calls(model, ModelDraft(draft), prompt, GREEDY, **how))
            same &= [token for call in calls for token in call.tokens] == text
            full += [len(call.tokens) for call in calls if call.n_drafted == n]
        tokens_per_call[n], seconds[n] = sum(full) / len(full), time.thread_time() - begin
    return Gain(acceptance_of(model, draft, prompts, texts, GREEDY), tokens_per_call, same, seconds)


@torch.inference_mode()
def acceptance_of(
    model: Transformer,
    draft: Transformer,
    prompts: Sequence[Sequence[int]],
    texts: Sequence[Sequence[int]],
    config: SampleConfig,
) -> float:
    """α: the mean over all places of texts of Σ min(p, q)."""
    rates = []
    for prompt, text in zip(prompts, texts, strict=True):
        tokens = torch.tensor([[*prompt, *text]])
        p, q = (
            config.probabilities(each.logits(each.hidden(tokens))[0]) for each in (model, draft)
        )
        rates.append(acceptance_rate(p, q)[len(prompt) - 1 : -1])
    return torch.cat(rates).mean().item()


def chi_square(
    p: Float[Tensor, "V"], q: Float[Tensor, "V"], *, rule: str = "residual", n: int = 20_000
) -> float:
    """How likely counts are that lie as far from p as those of `n` guesses from q, judged.

    Pearson's χ² over the tokens of which at least five are expected; all others count as one. Where
    the counts do come from p, each value from 0 to 1 is as likely as any other.

    Args:
        p, q: probabilities of the target and of the draft.
        rule: "residual" judges by `minillm.serve.speculate.accept`; "p" replaces a rejected guess
            by a token from p, which is a mistake.
        n: guesses.
    """
    counts, generator = torch.zeros(len(p)), torch.Generator().manual_seed(0)
    for part in torch.multinomial(q, n, replacement=True, generator=generator).split(1000):
        uniforms = torch.rand(len(part), 2, generator=generator)
        rows = p.expand(len(part), 2, -1), q.expand(len(part), 1, -1)
        accepted, tokens = accept(*rows, part[:, None], uniforms)
        if rule == "p":
            tokens = torch.multinomial(p, len(part), replacement=True, generator=generator)
        tokens = torch.where(accepted > 0, part, tokens)
        counts += tokens.bincount(minlength=len(p))
    rare = n * p < 5
    grouped = [torch.cat([x[~rare], x[rare].sum()[None]]) for x in (counts, n * p)]
    grouped = [x[grouped[1] > 0] for x in grouped]  # perhaps none is rare
    distance = ((grouped[0] - grouped[1]) ** 2 / grouped[1]).sum()
    half_freedom = torch.tensor((len(grouped[0]) - 1) / 2)
    return torch.special.gammaincc(half_freedom, distance / 2).item()


# --- fleets ---------------------------------------------------------------------------------------
#: Prompts of 512 tokens, answers of 64 on average: DistServe's first example.
WORK = Workload(n_prompt=512, n_tokens=64, n_requests=200)
N_MACHINES = 4


def stall(costs: Costs = A100) -> dict[str, Served]:
    """Three texts are being written when, after 0.3 seconds, a prompt of 2,048 tokens arrives.

    Returns:
        What a machine that reads prompts first, one that reads chunks of 256 tokens, and two
        machines apart make of it.
    """
    trace = Trace([0.0, 0.0, 0.0, 0.3], n_prompt=[64, 64, 64, 2048], n_tokens=[70, 70, 70, 30])
    fleets = {"prefill first": prefill_first(1), "chunked": chunked(1, 256), "apart": apart(1, 1)}
    return {name: simulate(trace, costs, fleet) for name, fleet in fleets.items()}


def best_rates(costs: Costs = A100, seeds: Sequence[int] = SEEDS, **limits: float) -> Comparison:
    """Goodput of the three ways of serving `WORK` on four machines, each at its best.

    Args:
        costs: of a machine.
        seeds: of the traces.
        limits: what is promised, as multiples of what a request takes alone; see
            `minillm.serve.goodput.relative`.
    """
    return compare(WORK, costs, relative(costs, WORK, **limits), N_MACHINES, seeds=seeds)


def tail_gaps(rate: float, costs: Costs = A100, seeds: Sequence[int] = SEEDS) -> dict[str, float]:
    """The 99th percentile of the gaps between tokens, in seconds, of four machines.

    Args:
        rate: requests a second and machine.
        costs: of a machine.
        seeds: of the traces.
    """
    half = N_MACHINES // 2
    fleets = {
        "prefill first": prefill_first(N_MACHINES),
        "chunked": chunked(N_MACHINES, 256),
        "apart": apart(half, N_MACHINES - half),
    }
    return {name: tail_gap(WORK, costs, each, rate, seeds=seeds) for name, each in fleets.items()}
