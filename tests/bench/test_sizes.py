"""minillm.bench.sizes: texts of equal tokens, what is graded, ranks and halves, and a whole run."""

import json
from collections import Counter
from statistics import fmean

import pytest
from scipy.stats import spearmanr

from minillm.bench import sizes as bench
from minillm.bench._run import Finished
from minillm.town import cups


def n_tokens(pairs):
    return sum(len(f"{question} {after}".split()) for question, after in pairs)


def test_all_parts_have_equal_tokens_in_a_step_and_the_context_has_room_for_them():
    for part in bench.PARTS:
        n = bench.texts_a_step(part, bench.Work().n_tokens)
        counts = [n_tokens(bench.pairs(part, n, f"step {step}")) for step in range(100)]
        assert fmean(counts) == pytest.approx(bench.Work().n_tokens, rel=0.04)
    for part in bench.ASKED:
        assert max(n_tokens([pair]) for pair in bench.pairs(part, 99, "a")) <= bench.CONTEXT_LENGTH


@pytest.mark.parametrize("part", ["steps", "direct"])
def test_cups_are_asked_with_and_without_a_word_and_the_answer_is_the_last_state(part):
    for question, after in bench.pairs(part, 50, "a"):
        words = question.partition(" ?")[0].split()
        swaps = tuple((int(swap[0]), int(swap[2])) for swap in words[5:])
        problem = cups.Problem("".join(words[:5]), swaps)
        assert question == problem.question() + " way" * (part == "steps")
        assert after == problem.completion(part)
        assert "".join(bench.answer(after)) == f"{problem.answer}."


def test_one_to_four_swaps_are_learned_and_all_are_as_frequent_and_four_are_asked(monkeypatch):
    n_swaps = [question.count("-") for question, _ in bench.pairs("direct", 2000, "a")]
    assert Counter(n_swaps) == pytest.approx(dict.fromkeys((1, 2, 3, 4), 500), abs=80)
    asked = []
    monkeypatch.setattr(bench, "graded", lambda model, some: asked.append(some))
    monkeypatch.setattr(bench, "fit", lambda *_, **__: None)
    bench.learned(8, 0, bench.QUICK)
    steps, direct, *_ = asked
    assert {question.count("-") for question, _ in steps + direct} == {4}


def test_numbers_of_things_are_those_of_the_text_and_no_thing_has_the_same_number_in_all():
    numbers = {thing: set() for thing in bench.GOODS}
    for question, after in bench.pairs("context", 200, "a"):
        words, first = question.split(" ? ")
        listed, given = words.split(), [first, *after.removesuffix(" .").split()]
        number_of = dict(zip(listed[::2], listed[1::2], strict=True))
        assert len(number_of) == len(set(number_of.values())) == bench.N_PAIRS
        assert dict(zip(given[::2], given[1::2], strict=True)) == number_of
        assert bench.answer(after) == [number_of[first]]
        # the pairs of the list from the one that is asked, and then those before it
        assert " ".join(given) in f"{words} {words}"
        for thing, number in number_of.items():
            numbers[thing].add(number)
    assert all(len(each) == 9 for each in numbers.values())


def test_one_length_of_each_operation_is_held_out_and_in_no_training():
    assert Counter(operation for operation, _ in bench.HELD_OUT) == dict.fromkeys(
        bench.OPERATIONS, 1
    )
    assert Counter(length for _, length in bench.HELD_OUT) == dict.fromkeys(bench.LENGTHS, 2)
    for part, combinations in (("instructions", bench.SEEN), ("held out", bench.HELD_OUT)):
        words = [question.split() for question, _ in bench.pairs(part, 500, "a")]
        assert {(operation, len(rest) - 1) for operation, *rest in words} == set(combinations)


@pytest.mark.parametrize(
    ("operation", "after"),
    [
        ("copy", "abcd"),
        ("reverse", "dcba"),
        ("rotate", "bcda"),
        ("back", "dabc"),
        ("ends", "dbca"),
        ("first", "a"),
        ("last", "d"),
        ("rest", "bcd"),
    ],
)
def test_operations_by_hand(operation, after):
    assert "".join(bench.OPERATIONS[operation](list("abcd"))) == after


def test_an_answer_is_right_as_a_whole_and_its_tokens_are_right_at_their_place(monkeypatch):
    asked = [("first ?", "= a ."), ("copy ?", "= a b c ."), ("way", "1-3 = a b ."), ("a", "#1 .")]
    written = [["= a ."], ["= a c c ."], ["1-3 a b ."], ["#1 b #2 ."]]
    monkeypatch.setattr(bench, "solve", lambda *_, **__: written)
    assert bench.graded(None, asked) == {
        "n_right": 2,
        "n": 4,
        "n_tokens_right": 2 + 3 + 0 + 1,
        "n_tokens": 2 + 4 + 3 + 1,
    }


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([1, 2, 3, 4], [0.1, 0.1, 0.5, 0.4]),
        ([1, 2, 3, 4], [9, 7, 7, 7]),
        ([3, 1, 2, 2, 5], [1, 1, 2, 0, 2]),
    ],
)
def test_rank_correlations_are_those_of_scipy_and_0_where_nothing_rises(x, y):
    assert bench.spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert bench.spearman(x, [0.25] * len(x)) == 0


def test_what_guessing_reaches_too_counts_as_guessing():
    def beyond(*counts):
        runs = [{"direct": {"n_right": n_right, "n": 600}} for n_right in counts]
        return bench.beyond_guessing(runs, "direct")

    # by chance 10 of 600, with a spread of 3.1; 18 and more have 1.5 %, 19 and more 0.8 %
    assert [beyond(0), beyond(10), beyond(18)] == [cups.GUESSING] * 3
    assert beyond(19) == 19 / 600
    assert beyond(15, 15) == cups.GUESSING and beyond(17, 17) == 34 / 1200


def test_the_size_at_half_lies_behind_the_last_size_that_has_less():
    sizes = [10, 100, 1000, 10_000]
    assert bench.size_at_half(sizes, [0.1, 0.5, 0.9, 0.9]) == 100
    assert bench.size_at_half(sizes, [0.1, 0.7, 0.3, 0.9]) == pytest.approx(2154.4, abs=0.1)
    assert bench.size_at_half(sizes, [0.1, 0.2, 0.3, 0.49]) is None
    assert bench.size_at_half(sizes, [0.6, 0.7, 0.8, 0.9]) is None


def test_conclusions_are_drawn_for_each_seed_and_for_all_runs_together():
    def a_run(seed, size, n_right):
        part = {"n_right": n_right, "n": 100}
        return {"seed": seed, "n_parameters": size} | {part_: part for part_ in bench.ASKED}

    rights = {0: (0, 60, 100), 1: (0, 20, 10)}
    runs = [
        a_run(seed, size, n)
        for seed, each in rights.items()
        for size, n in zip((10, 100, 1000), each, strict=True)
    ]
    figures = bench.conclude(runs)
    assert figures["spearman"]["direct"] == {"seeds": [1.0, 0.5], "mean": 1.0}
    half = figures["half"]["steps"]
    assert half["seeds"] == [pytest.approx(10 ** (1 + 5 / 6), abs=0.1), None]
    assert half["mean"] == pytest.approx(10 ** (2 + 10 / 15), abs=0.1)  # 0, 40 and 55 %


def test_it_runs_from_end_to_end_and_repeats_nothing(monkeypatch, tmp_path, capsys):
    record = tmp_path / "a.json"
    figures = bench.run(quick=True, finished=Finished(record))
    assert json.loads(json.dumps(figures)) == figures
    assert [run["d_model"] for run in figures["runs"]] == [8, 16]
    assert all(run[part]["n"] == 4 for run in figures["runs"] for part in bench.ASKED)
    monkeypatch.setattr(bench, "learned", lambda *_: pytest.fail("it was measured once more"))
    assert bench.run(quick=True, finished=Finished(record)) == figures
    assert "held out" in capsys.readouterr().out
