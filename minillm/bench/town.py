"""`minillm bench town`: how fast Tinytown talks, on one core.

Every generator is run alone in one process and one thread, block after block, over the same blocks
in each repetition; the medians are told.

- *Grammar*: sentences with their derivations and exact log-probabilities, joined into text.
- *Facts*: sentences in both languages with the facts they say.
- *Dialects*: tokens of a Markov source of order 2 and of a hidden Markov source, 64 rows at a time,
  32 symbols; and the sources' own log-probabilities of the same tokens.

Chapter: app
"""

import time
from collections.abc import Callable
from statistics import median

from minillm.town.dialects import dialects
from minillm.town.facts import FactTable
from minillm.town.grammar import town_grammar
from minillm.town.world import World

#: Names of the figures, and what each is to reach at least.
TARGETS = {
    "grammar_mb_s": 1.0,
    "markov_sample_m_tokens_s": 1.0,
    "hidden_sample_m_tokens_s": 0.3,
}


def run(quick: bool = False) -> dict[str, float]:
    """Run the benchmark, print its tables, and return every figure.

    Args:
        quick: a second or two on few blocks, to see that it works; its figures mean nothing.

    Returns:
        Medians: text in MB/s (`..._mb_s`, of 10⁶ bytes of UTF-8) and sentences/s
        (`..._sentences_s`), sources in 10⁶ tokens/s (`..._m_tokens_s`).
    """
    n_repeats, n_blocks, n_tokens = (1, 4, 128) if quick else (5, 150, 4096)
    world = World()
    grammar, table = town_grammar(world), FactTable(world)
    markov = dialects(world, n_districts=1, kind="markov")[0]
    hidden = dialects(world, n_districts=1, kind="hidden")[0]
    rows = {source: source.block(0, n_tokens=n_tokens).tokens for source in (markov, hidden)}

    def text_of(source) -> str:
        return "\n".join(
            sentence.text for index in range(n_blocks) for sentence in source.block(index)
        )

    seconds = {
        name: seconds_of(work, n_repeats)
        for name, work in {
            "grammar": lambda: text_of(grammar),
            "facts": lambda: text_of(table),
            "markov_sample": lambda: markov.block(0, n_tokens=n_tokens),
            "markov_log_probs": lambda: markov.log_probs(rows[markov]),
            "hidden_sample": lambda: hidden.block(0, n_tokens=n_tokens),
            "hidden_log_probs": lambda: hidden.log_probs(rows[hidden]),
        }.items()
    }
    figures: dict[str, float] = {}
    for name, source in (("grammar", grammar), ("facts", table)):
        n_bytes = len(text_of(source).encode("utf-8"))
        figures[f"{name}_mb_s"] = n_bytes / 1e6 / seconds[name]
        figures[f"{name}_sentences_s"] = 64 * n_blocks / seconds[name]
    for name in ("markov_sample", "markov_log_probs", "hidden_sample", "hidden_log_probs"):
        figures[f"{name}_m_tokens_s"] = 64 * n_tokens / 1e6 / seconds[name]

    print(
        f"{n_blocks} blocks of 64 sentences; 64 rows of {n_tokens:,} tokens; median of {n_repeats}"
    )
    for name, value in figures.items():
        print(f"  {name:<28} {value:12,.2f}")
    print("targets")
    for name, target in TARGETS.items():
        verdict = "met" if figures[name] >= target else "MISSED"
        print(f"  {name:<28} {figures[name]:12,.2f}   at least {target:g}: {verdict}")
    return figures


def seconds_of(work: Callable[[], object], n_repeats: int) -> float:
    """Median seconds of a piece of work, after one run that is not counted."""
    work()
    took = []
    for _ in range(n_repeats):
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return median(took)
