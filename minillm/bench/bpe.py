"""`minillm bench bpe`: our byte-pair encoder beside the Rust ones, on real text.

Everything is timed in one run, the contenders in turn within each repetition, so that a slow moment
of the machine hits all of them. The text is Python's own documentation and library sources.

- *Training* goes from text to merges and includes cutting the text into words, with the same
  pattern for everybody. `tokenizers`' own BpeTrainer runs once on one thread and once on all.
- *Our naive trainer* takes minutes on the whole text. It gets a slice of it and fewer merges, and
  our fast trainer gets the same slice: the ratio is of the two on equal work.
- *Encoding* is of the same documents, one call each, on one thread, with the same merges.
  `tokenizers` uses `encode_batch_fast`, which leaves out the character offsets.

Chapter: app
"""

import os
import pydoc_data.topics
import sysconfig
import time
from collections.abc import Callable
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from statistics import median

import tokenizers

from minillm.text.bpe import train, train_naive
from minillm.text.fast import to_tiktoken, to_tokenizers_json
from minillm.text.pretokenize import PATTERN

#: Names of the comparisons, and what each is to reach: at most, or at least.
TARGETS = {
    "train_over_rust_one_thread": ("at most", 3.0),
    "train_over_rust_all_threads": ("at most", 3.0),
    "naive_over_train": ("at least", 50.0),
    "tiktoken_over_tokenizers": ("at least", 3.0),
}


def run(quick: bool = False) -> dict[str, float]:
    """Run the benchmark, print its tables, and return every figure.

    Args:
        quick: a few seconds on little text, to see that it works; its figures mean nothing.

    Returns:
        Medians in seconds (`..._s`) and MB/s (`..._mb_s`, of 10⁶ bytes), and the ratios of
        `TARGETS`.
    """
    n_repeats = 1 if quick else 5
    vocab_size = 400 if quick else 4096
    documents = real_text(60_000 if quick else 2_500_000)
    n_bytes = sum(len(document.encode("utf-8")) for document in documents)
    a_slice = "".join(documents)[: 20_000 if quick else 200_000]
    n_slice_vocab = 300 if quick else 1024

    def train_rust(parallel: bool) -> None:
        with rust_threads(parallel):
            model = tokenizers.Tokenizer(tokenizers.models.BPE())
            split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(PATTERN), "isolated")
            to_bytes = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            model.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, to_bytes])
            trainer = tokenizers.trainers.BpeTrainer(
                vocab_size=vocab_size,
                show_progress=False,
                initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            )
            model.train_from_iterator(documents, trainer)

    tokenizer = train(documents, vocab_size)
    encoding = to_tiktoken(tokenizer)
    rust = tokenizers.Tokenizer.from_str(to_tokenizers_json(tokenizer))

    def encode_rust() -> None:
        with rust_threads(False):
            for document in documents:
                rust.encode_batch_fast([document])

    seconds = race(
        {
            "train": lambda: train(documents, vocab_size),
            "train_rust_one_thread": lambda: train_rust(False),
            "train_rust_all_threads": lambda: train_rust(True),
            "slice_naive": lambda: train_naive(a_slice, n_slice_vocab),
            "slice_train": lambda: train(a_slice, n_slice_vocab),
            "encode_tiktoken": lambda: [encoding.encode_ordinary(text) for text in documents],
            "encode_tokenizers": encode_rust,
            "encode_plain": lambda: [tokenizer.encode(text) for text in documents],
        },
        n_repeats,
    )
    figures = {f"{name}_s": value for name, value in seconds.items()}
    for name in ("encode_tiktoken", "encode_tokenizers", "encode_plain"):
        figures[f"{name}_mb_s"] = n_bytes / 1e6 / seconds[name]
    figures |= {
        "n_bytes": n_bytes,
        "train_over_rust_one_thread": seconds["train"] / seconds["train_rust_one_thread"],
        "train_over_rust_all_threads": seconds["train"] / seconds["train_rust_all_threads"],
        "naive_over_train": seconds["slice_naive"] / seconds["slice_train"],
        "tiktoken_over_tokenizers": seconds["encode_tokenizers"] / seconds["encode_tiktoken"],
    }

    print(f"text: {n_bytes / 1e6:.2f} MB in {len(documents)} documents; median of {n_repeats}")
    print(f"training to {vocab_size:,} ids, from text to merges")
    print_times(figures, "train", "train_rust_one_thread", "train_rust_all_threads")
    print(f"training to {n_slice_vocab:,} ids on the first {len(a_slice):,} characters")
    print_times(figures, "slice_naive", "slice_train")
    print("encoding, one thread")
    print_times(figures, "encode_plain", "encode_tokenizers", "encode_tiktoken")
    print("targets")
    for name, (bound, target) in TARGETS.items():
        met = figures[name] <= target if bound == "at most" else figures[name] >= target
        verdict = "met" if met else "MISSED"
        print(f"  {name:<28} {figures[name]:8.2f}   {bound} {target:g}: {verdict}")
    return figures


def real_text(n_bytes: int) -> list[str]:
    """Python's documentation, then its library's sources by name, until there are `n_bytes`."""
    library = Path(sysconfig.get_paths()["stdlib"])
    sources = (path for path in sorted(library.rglob("*.py")) if "site-packages" not in path.parts)
    documents: list[str] = []
    n_have = 0
    for text in chain(
        (text for _, text in sorted(pydoc_data.topics.topics.items())),
        (path.read_text(encoding="utf-8", errors="replace") for path in sources),
    ):
        if n_have >= n_bytes:
            break
        documents.append(text)
        n_have += len(text.encode("utf-8"))
    return documents


def race(contenders: dict[str, Callable[[], object]], n_repeats: int) -> dict[str, float]:
    """Time each contender once a round, and return each one's median in seconds."""
    took: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(n_repeats):
        for name, contender in contenders.items():
            start = time.perf_counter()
            contender()
            took[name].append(time.perf_counter() - start)
    return {name: median(values) for name, values in took.items()}


@contextmanager
def rust_threads(parallel: bool):
    """Let `tokenizers` use all threads, or one; it reads the environment on every call."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if parallel else "false"
    try:
        yield
    finally:
        del os.environ["TOKENIZERS_PARALLELISM"]
        if before is not None:
            os.environ["TOKENIZERS_PARALLELISM"] = before


def print_times(figures: dict[str, float], *names: str) -> None:
    """Print one line each: seconds, and MB/s where there is a figure for it."""
    for name in names:
        speed = f"{figures[f'{name}_mb_s']:8.2f} MB/s" if f"{name}_mb_s" in figures else ""
        print(f"  {name:<28} {figures[f'{name}_s']:8.2f} s {speed}".rstrip())
