"""`minillm bench serve`: many requests, ours one by one and together, and transformers'.

Requests for `town-1m` in float32 on one thread: a common beginning of 32 tokens, 8 of their own,
and answers of random length (geometric, mean 24, at most 80), greedy, with no end token. All
contenders get the same requests at once and are timed in turns; printed is the best of the rounds,
in tokens of the answers a second, since the machine may have other work.

    one by one     `minillm.serve.sample.stream`, a request after the other
    static         the engine, 16 at a time; the next 16 wait for the longest
    continuous     the engine; who is done makes room
    shared         continuous, and the common beginning is read once
    transformers   `generate`, one by one, and `generate_batch`, its continuous batching

`generate_batch` asks for one length for all, so it writes the same requests with the mean length.

Paper: none.
Differs: none.

Chapter: app
"""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import torch

from minillm.lab.track import track
from minillm.model.transformer import Transformer
from minillm.serve.engine import Engine, EngineConfig
from minillm.serve.request import Request
from minillm.serve.sample import SampleConfig, stream

GREEDY = SampleConfig(temperature=0)
MAX_BATCH, MEAN_TOKENS, MOST_TOKENS = 16, 24, 80


def requests(n_requests: int, vocab_size: int, seed: int = 0) -> list[Request]:
    """Prompts that begin alike, with answers of random length."""
    random = np.random.default_rng(seed)
    common = random.integers(0, vocab_size, size=32)
    asked = []
    for _ in range(n_requests):
        prompt = [*common, *random.integers(0, vocab_size, size=8)]
        n_tokens = min(int(random.geometric(1 / MEAN_TOKENS)), MOST_TOKENS)
        asked.append(Request(prompt=tuple(map(int, prompt)), n_tokens=n_tokens, config=GREEDY))
    return asked


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure, and print a table.

    Args:
        quick: few requests, one round.
    """
    from minillm.zoo import checkpoints

    model, _ = checkpoints.load("town-1m")
    asked = requests(6 if quick else 64, model.config.vocab_size)
    contenders = _ours(model, asked) | _theirs(checkpoints.folder("town-1m"), asked)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    n_written = {}
    for _ in track(range(1 if quick else 3), "rounds"):
        for name, answer in contenders.items():
            start = perf_counter()
            n_written[name] = answer()
            seconds[name].append(perf_counter() - start)
    rates = {name: n_written[name] / min(times) for name, times in seconds.items()}
    first = rates["one by one"]
    print(f"{len(asked)} requests, tokens a second (best of {len(seconds['static'])}):")
    for name, rate in rates.items():
        print(f"  {name:28} {rate:8,.0f}   {rate / first:5.2f} × one by one")
    return {
        "requests": len(asked),
        "tokens_per_second": rates,
        "seconds": seconds,
        "torch_threads": torch.get_num_threads(),
    }


def _ours(model: Transformer, asked: list[Request]) -> dict[str, Callable[[], int]]:
    def one_by_one() -> int:
        return sum(
            len(list(stream(model, each.prompt, GREEDY, n_tokens=each.n_tokens))) for each in asked
        )

    def engine(**kwargs: Any) -> Callable[[], int]:
        config = EngineConfig(max_batch=MAX_BATCH, step_tokens=1024, **kwargs)
        return lambda: sum(len(answer.tokens) for answer in Engine(model, config=config).run(asked))

    return {
        "one by one": one_by_one,
        "static": engine(static=True, share_prefixes=False),
        "continuous": engine(share_prefixes=False),
        "shared": engine(),
    }


def _theirs(folder: Any, asked: list[Request]) -> dict[str, Callable[[], int]]:
    """Those of transformers; none where it is not installed."""
    try:
        from transformers import AutoModelForCausalLM, GenerationConfig, logging
    except ImportError:
        print("transformers is not installed, so its two contenders are left out")
        return {}
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    kwargs = {"do_sample": False, "eos_token_id": -1, "pad_token_id": 0}
    mean = round(sum(each.n_tokens for each in asked) / len(asked))

    def one_by_one() -> int:
        return sum(
            theirs.generate(
                torch.tensor([each.prompt]), max_new_tokens=each.n_tokens, **kwargs
            ).shape[1]
            - len(each.prompt)
            for each in asked
        )

    def together() -> int:
        config = GenerationConfig(max_new_tokens=mean, **kwargs, block_size=16, num_blocks=128)
        batch = theirs.generate_batch([list(each.prompt) for each in asked], config)
        return sum(len(answer.generated_tokens) for answer in batch.values())

    return {"transformers, one by one": one_by_one, "transformers, together": together}
