"""`minillm bench offload`: what it costs to run a model whose weights stay on the disk.

A model of 10 million random parameters writes one text greedily: with all weights in memory, with
two blocks (the one at work, and the next, which a thread reads), and with one block, which is
waited for. Told are the median milliseconds a token, the contenders in turns; the most bytes of
weights that were in memory at once; and whether the texts are the same.

What this does not say: how slow a disk is. The file has just been written, so the system holds its
pages in memory, and a block is copied from there. On one core the thread that reads has no core of
its own, and reading ahead can gain only where copying waits.

Paper: Han et al. 2022, "BMInf", ACL 2022 (demo): from the abstract.
Differs: a disk and a CPU in place of a CPU and a GPU; random weights; sizes.

Chapter: app
"""

import tempfile
from functools import partial
from typing import Any

from minillm.bench.bpe import race
from minillm.formats import hf
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.quant.offload import open_offloaded
from minillm.serve.sample import SampleConfig, generate

#: 10.0 million parameters, 0.5 of them in the two tables.
MODEL = TransformerConfig(
    vocab_size=1024, d_model=256, n_layers=12, mixer=AttentionConfig(n_heads=8)
)
QUICK = TransformerConfig(vocab_size=64, d_model=32, n_layers=12)
PROMPT, MUCH = [7, 3, 9], 2**62


def run(*, quick: bool = False) -> dict[str, Any]:
    """Measure, and print a line for each.

    Args:
        quick: a small model and few tokens; its figures mean little.
    """
    config, n_tokens, n_repeats = (QUICK, 4, 1) if quick else (MODEL, 20, 7)
    whole = config.build(seed=0)
    models, pagers, figures = {"whole": whole}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        hf.save(whole, folder)
        for name, read_ahead in (("read ahead", True), ("no read-ahead", False)):
            models[name], pagers[name] = open_offloaded(folder, MUCH, read_ahead=read_ahead)
        greedy = SampleConfig(temperature=0)
        write = {
            name: partial(generate, model, [PROMPT], greedy, n_tokens=n_tokens)
            for name, model in models.items()
        }
        texts = {name: each() for name, each in write.items()}
        seconds = race(write, n_repeats)
    n_bytes = sum(weight.nbytes for weight in whole.parameters())
    for name in models:
        resident = pagers[name].most_resident_bytes if name in pagers else n_bytes
        figures[name] = {
            "ms_a_token": 1000 * seconds[name] / n_tokens,
            "times_as_long": seconds[name] / seconds["whole"],
            "resident_bytes": resident,
            "share": resident / n_bytes,
            "same_text": texts[name] == texts["whole"],
        }
    _print(figures)
    return figures


def _print(figures: dict[str, Any]) -> None:
    for name, row in figures.items():
        print(
            f"{name:14} {row['ms_a_token']:8.2f} ms a token, {row['times_as_long']:5.2f} times as "
            f"long; {row['resident_bytes']:,} bytes of weights at once, {row['share']:.1%}; "
            f"{'the same text' if row['same_text'] else 'ANOTHER TEXT'}"
        )
