"""minillm.bench.bpe: the benchmark runs, and its arithmetic is right."""

import os

import pytest

from minillm.bench import bpe


def test_a_quick_run_returns_and_prints_every_figure(capsys):
    figures = bpe.run(quick=True)
    printed = capsys.readouterr().out
    for name, (bound, target) in bpe.TARGETS.items():
        line = next(line for line in printed.splitlines() if line.strip().startswith(name))
        reached = figures[name] <= target if bound == "at most" else figures[name] >= target
        assert line.endswith(": met" if reached else ": MISSED")
        assert f"{figures[name]:.2f}" in line
    assert figures["naive_over_train"] == figures["slice_naive_s"] / figures["slice_train_s"]
    assert figures["tiktoken_over_tokenizers"] == (
        figures["encode_tokenizers_s"] / figures["encode_tiktoken_s"]
    )
    assert all(value > 0 for value in figures.values())


def test_the_text_is_as_long_as_asked_and_no_longer_than_one_file_more():
    documents = bpe.real_text(2_000_000)
    sizes = [len(document.encode()) for document in documents]
    assert sum(sizes) >= 2_000_000 > sum(sizes[:-1])


def test_the_median_is_of_as_many_rounds_as_asked():
    order = []
    seconds = bpe.race({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b"] * 3
    assert set(seconds) == {"a", "b"}


@pytest.mark.parametrize("before", [None, "true"])
def test_the_environment_is_left_as_it_was(monkeypatch, before):
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    if before is not None:
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", before)
    with bpe.rust_threads(False):
        assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
    assert os.environ.get("TOKENIZERS_PARALLELISM") == before
