"""`minillm bench speculate`: what guesses gain `town-1m`, whose draft is `town-50k`.

Prompts are the first tokens of held-out stories of the town, in English and in Chinese; each seed
has prompts and random numbers of its own. Told are, for greedy text and for temperature 1:

- *α*, the acceptance rate: along texts that the target wrote, the mean of Σ min(p, q).
- *Tokens a call*, for 1 to 8 guesses at a time (γ): the mean over all passes of the target that had
  γ guesses. Passes near the end of a text have fewer, and do not count. Beside it the formula's
  value, (1 - α^(γ+1)) / (1 - α), which takes all guesses to be equally hard.
- *Time*: how many times as fast as `minillm.serve.sample.stream` greedy texts are written. With c,
  the time of a pass of the draft over that of the target, the paper's formula expects
  tokens a call / (γ c + 1). It takes a pass over γ + 1 tokens to last as long as over one; how long
  it lasts is measured too. All take turns, and the least time of each counts, in seconds of the
  processor: with one thread these are those of a clock, and other programs add little to them.
- *Lookup*: tokens a call of the draft that has no model (γ = 4), greedy: on the same prompts
  (`first`); where the prompt stands there a second time, with the first answer before it (`again`);
  and for the second telling of a held-out story, if the target told it word for word
  (`word_for_word`), as `town-1m` does not: it never had a reason to copy. This draft costs nothing,
  and its time is told for `again`.

What this does not say: how much faster a large model becomes. Here a pass takes as long as Python
needs to name its operations, half as long for half as many blocks, whatever their width; so the
draft is hardly cheaper than the target, though it has a sixteenth of its parameters. What carries
over are the tokens a call; the time follows from them where c is small.

Paper: Leviathan, Kalman and Matias 2023, arXiv:2211.17192, section 3 and table 2.
Differs: none.

Chapter: app
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import takewhile
from statistics import fmean
from typing import Any, final

import torch

from minillm.bench._run import Finished
from minillm.bench.model import repeated, verdict
from minillm.model.transformer import Transformer
from minillm.recipes.recipe import find
from minillm.serve.draft import Draft, ModelDraft, PromptLookup
from minillm.serve.sample import SampleConfig, generate, stream
from minillm.serve.speculate import (
    Call,
    acceptance_rate,
    expected_speedup,
    expected_tokens,
    stream_calls,
)
from minillm.zoo import checkpoints

TARGET, DRAFT = "town-1m", "town-50k"
CONFIGS = {"greedy": SampleConfig(temperature=0), "sampled": SampleConfig()}
LOOKED_UP = 4  # guesses at a time without a model
#: Of the best γ, and of the formula at each γ and temperature.
TARGETS = {"tokens_per_call": ("at least", 1.8), "formula_error": ("at most", 0.1)}


@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """How much is done.

    Args:
        n_drafted: values of γ.
        seeds: each with prompts of its own.
        n_prompts: of each seed.
        n_prompt_tokens: of each prompt, the mark that begins a text with them.
        n_tokens: written after each.
        n_timed: prompts of the first seed after which writing is timed.
        n_repeats: turns of what is timed.
    """

    n_drafted: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    seeds: tuple[int, ...] = (0, 1, 2)
    n_prompts: int = 8
    n_prompt_tokens: int = 12
    n_tokens: int = 100
    n_timed: int = 4
    n_repeats: int = 7


QUICK = Work(n_drafted=(1, 2), seeds=(0,), n_prompts=1, n_tokens=8, n_repeats=1)


def run(quick: bool = False, finished: Finished | None = None) -> dict[str, Any]:
    """Run the benchmark, print its tables, and return every figure.

    Args:
        quick: a few seconds, on one prompt, to see that it works; its figures mean nothing.
        finished: what is not to be measured again.

    Returns:
        For "greedy" and "sampled": `alpha` and, by γ, `tokens_per_call`, a number for each seed,
        and `expected`, by the formula from the mean α. `same`, the share of greedy texts that are
        those of `generate`. `time`, `lookup`, and the names of `TARGETS`.
    """
    work = QUICK if quick else Work()
    finished = Finished() if finished is None else finished
    model, tokenizer = checkpoints.load(TARGET)
    draft = ModelDraft(checkpoints.load(DRAFT)[0])
    stories = {seed: stories_of(tokenizer, seed, work) for seed in work.seeds}
    prompts = {
        seed: [story[: work.n_prompt_tokens] for story in each] for seed, each in stories.items()
    }
    figures: dict[str, Any] = {}
    for name, config in CONFIGS.items():
        by_seed = [
            finished(
                f"{name}, seed {seed}",
                lambda seed=seed, config=config: gained(
                    model, draft, prompts[seed], config, seed, work
                ),
            )
            for seed in work.seeds
        ]
        figures[name] = {
            "alpha": [each["alpha"] for each in by_seed],
            "tokens_per_call": {
                str(n): [each["tokens_per_call"][str(n)] for each in by_seed]
                for n in work.n_drafted
            },
        }
        alpha = fmean(figures[name]["alpha"])
        figures[name]["expected"] = {str(n): expected_tokens(alpha, n) for n in work.n_drafted}
        if name == "greedy":
            figures["same"] = fmean(each["same"] for each in by_seed)
    first = work.seeds[0]
    figures["lookup"] = finished(
        "lookup", lambda: looked_up(model, prompts[first], stories[first], work)
    )
    figures["time"] = finished(
        "time", lambda: timed(model, draft, prompts[first][: work.n_timed], work)
    )
    alpha = fmean(figures["greedy"]["alpha"])
    ratio = figures["time"]["cost_ratio"]
    figures["time"]["expected"] = {
        str(n): expected_speedup(alpha, n, ratio) for n in work.n_drafted
    }
    figures |= summary(figures)
    print_tables(figures, work)
    return figures


# --- what is measured ---------------------------------------------------------------------------
def stories_of(tokenizer: Any, seed: int, work: Work) -> list[list[int]]:
    """Held-out stories as ids, every other one Chinese, others for each seed."""
    data = find(TARGET).data
    stories = data.documents("held out")
    half = 64 * data.held_out_blocks  # English ones, then as many Chinese ones
    (end,) = tokenizer.special_ids.values()
    chosen = [
        stories[half * (n % 2) + (seed * work.n_prompts + n) // 2] for n in range(work.n_prompts)
    ]
    return [[end, *tokenizer.encode(story)] for story in chosen]


def gained(
    model: Transformer,
    draft: ModelDraft,
    prompts: list[list[int]],
    config: SampleConfig,
    seed: int,
    work: Work,
) -> dict[str, Any]:
    """α along the target's own texts, and tokens a call for each γ."""
    texts = generate(model, prompts, config, n_tokens=work.n_tokens, seed=seed)
    rates, tokens_per_call, same = [], {}, []
    for prompt, text in zip(prompts, texts, strict=True):
        rows = torch.tensor([[*prompt, *text]])
        with torch.inference_mode():
            p, q = (
                config.probabilities(each(rows)[0, len(prompt) - 1 : -1])
                for each in (model, draft.model)
            )
        rates += acceptance_rate(p, q).tolist()
    for n_drafted in work.n_drafted:
        calls: list[Call] = []
        for number, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
            new = written(model, draft, prompt, config, n_drafted, work, 1000 * seed + number)
            same.append([token for call in new for token in call.tokens] == text)
            calls += new
        tokens_per_call[str(n_drafted)] = mean_tokens(calls, n_drafted)
    return {"alpha": fmean(rates), "tokens_per_call": tokens_per_call, "same": fmean(same)}


def written(
    model: Transformer,
    draft: Draft,
    prompt: list[int],
    config: SampleConfig,
    n_drafted: int,
    work: Work,
    seed: int = 0,
) -> list[Call]:
    """The passes that a text takes."""
    options = {"n_tokens": work.n_tokens, "n_drafted": n_drafted, "seed": seed}
    return list(stream_calls(model, draft, prompt, config, **options))


def mean_tokens(calls: list[Call], n_drafted: int) -> float:
    """Tokens a call, over those that were not cut short by the end of the text.

    Example:
        >>> mean_tokens([Call((4, 5, 6), 2, 2), Call((7,), 2, 0), Call((8,), 0, 0)], n_drafted=2)
        2.0
    """
    return fmean(1 + call.n_accepted for call in calls if call.n_drafted == n_drafted)


def looked_up(
    model: Transformer, prompts: list[list[int]], stories: list[list[int]], work: Work
) -> dict[str, float]:
    """Tokens a call of prompt lookup, and how many times as fast a second answer is written."""
    lookup = PromptLookup(vocab_size=len(model.embedding.weight))
    greedy = CONFIGS["greedy"]
    n_tokens = min(work.n_tokens, model.context_length // 2 - work.n_prompt_tokens)
    half = replace(work, n_tokens=n_tokens)  # prompt and answer stand in the context twice
    calls: dict[str, list[Call]] = {"first": [], "again": []}
    for prompt in prompts:
        first = written(model, lookup, prompt, greedy, LOOKED_UP, half)
        twice = [*prompt, *(token for call in first for token in call.tokens), *prompt]
        calls["first"] += first
        calls["again"] += written(model, lookup, twice, greedy, LOOKED_UP, half)
    took = least(
        {
            "alone": lambda: list(stream(model, twice, greedy, n_tokens=n_tokens)),
            "lookup": lambda: written(model, lookup, twice, greedy, LOOKED_UP, half),
        },
        work.n_repeats,
    )
    tokens = {name: sum(len(call.tokens) for call in each) for name, each in calls.items()}
    return {
        **{name: tokens[name] / len(each) for name, each in calls.items()},
        "word_for_word": fmean(told_again(lookup, story, LOOKED_UP) for story in stories),
        "speedup": took["alone"] / took["lookup"],
    }


def told_again(draft: PromptLookup, story: list[int], n_drafted: int) -> float:
    """Tokens a call while a story is told a second time, by a target that knows it by heart.

    Example:
        >>> story = [1, 2, 3, 4, 5, 6, 7, 8]  # 1, which nothing led to; 2 to 5; 6 to 8
        >>> round(told_again(PromptLookup(vocab_size=9), story, n_drafted=3), 2)
        2.67
    """
    text, place, n_calls = 2 * story, len(story), 0
    while place < len(text):
        guess = draft.propose(text[:place], CONFIGS["greedy"], torch.zeros(n_drafted), [])
        right = zip(guess.tokens.tolist(), text[place:], strict=False)
        place += 1 + len(list(takewhile(lambda pair: pair[0] == pair[1], right)))
        n_calls += 1
    return len(story) / n_calls


def timed(
    model: Transformer, draft: ModelDraft, prompts: list[list[int]], work: Work
) -> dict[str, Any]:
    """How many times as fast as `stream` greedy texts are written, and what a pass costs."""
    greedy, work = CONFIGS["greedy"], replace(work, n_tokens=min(50, work.n_tokens))
    alone = {
        name: lambda each=each: [
            list(stream(each, prompt, greedy, n_tokens=work.n_tokens)) for prompt in prompts
        ]
        for name, each in (("target", model), ("draft", draft.model))
    }
    guessed = {
        str(n): lambda n=n: [written(model, draft, prompt, greedy, n, work) for prompt in prompts]
        for n in work.n_drafted
    }
    passes = {
        f"pass {n}": repeated(lambda n=n: a_pass(model, prompts[0], n + 1), 100)
        for n in (0, *work.n_drafted)
    }
    took = least(alone | guessed | passes, work.n_repeats)
    return {
        "cost_ratio": took["draft"] / took["target"],
        "tokens_per_second": len(prompts) * work.n_tokens / took["target"],
        "speedup": {name: took["target"] / took[name] for name in guessed},
        "pass": {str(n): took[f"pass {n}"] / took["pass 0"] for n in work.n_drafted},
    }


def least(contenders: dict[str, Callable[[], object]], n_repeats: int) -> dict[str, float]:
    """Run each contender once a round, and return each one's least seconds of the processor."""
    took: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(n_repeats):
        for name, contender in contenders.items():
            start = time.process_time()
            contender()
            took[name].append(time.process_time() - start)
    return {name: min(values) for name, values in took.items()}


def a_pass(model: Transformer, prompt: list[int], n_tokens: int) -> None:
    """Read some more tokens than the prompt."""
    with torch.inference_mode():
        cache = model.new_cache(1, len(prompt) + n_tokens)
        model(torch.tensor([(prompt * 9)[:n_tokens]]), cache=cache)


# --- what was found -----------------------------------------------------------------------------
def summary(figures: dict[str, Any]) -> dict[str, float]:
    """The figures of `TARGETS`: the smaller of the two best, and the largest error."""
    means = {
        name: {n: fmean(values) for n, values in figures[name]["tokens_per_call"].items()}
        for name in CONFIGS
    }
    errors = [
        abs(measured / figures[name]["expected"][n] - 1)
        for name in CONFIGS
        for n, measured in means[name].items()
    ]
    return {
        "tokens_per_call": min(max(each.values()) for each in means.values()),
        "formula_error": max(errors),
    }


def print_tables(figures: dict[str, Any], work: Work) -> None:
    """Print tokens a call and times by γ, then the rest and the targets."""
    heads = "".join(f"{n:>8}" for n in work.n_drafted)
    print(f"\n{'guesses at a time':<30}{heads}")
    for name in CONFIGS:
        each = figures[name]
        print(f"{name}: α {fmean(each['alpha']):.3f}")
        print_row("tokens a call", [fmean(values) for values in each["tokens_per_call"].values()])
        print_row("by the formula", each["expected"].values())
    times, lookup = figures["time"], figures["lookup"]
    print(f"time: {times['tokens_per_second']:.0f} tokens/s alone, c {times['cost_ratio']:.2f}")
    print_row("times as fast", times["speedup"].values())
    print_row("by the formula", times["expected"].values())
    print_row("a pass over γ + 1, over one", times["pass"].values())
    print(
        f"greedy texts that are those of generate: {100 * figures['same']:.1f} %\n"
        f"prompt lookup: {lookup['first']:.2f} tokens a call; again {lookup['again']:.2f}, "
        f"{lookup['speedup']:.2f} times as fast; word for word {lookup['word_for_word']:.2f}"
    )
    for name, (bound, target) in TARGETS.items():
        print(f"{name}: {figures[name]:.3f}   {verdict(figures[name], bound, target)}")


def print_row(name: str, values: Any) -> None:
    """One line of a table."""
    print(f"  {name:<28}" + "".join(f"{value:>8.2f}" for value in values))
