"""The closing table: what is flagged, what fails, and what is printed."""

import json
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools import report
from tools.report import Count, Row, claims_measured, judge, make_row, table, tasks_graded

GOOD = Row(
    notebook="01_tokenizer",
    size_bytes=120_000,
    seconds=40,
    peak_bytes=700_000_000,
    cells=20,
    compared=18,
    tasks=Count(5, 5),
    claims=Count(3, 3),
)


@dataclass(frozen=True)
class Claim:
    id: str
    chapter: str = "01"
    evidence: str = "live"
    verdict: str = "seen at our scale"


# By hand


def test_a_notebook_within_its_budgets_is_neither_flagged_nor_failed():
    at_the_edge = replace(
        GOOD, seconds=45, size_bytes=200_000, peak_bytes=1_180_000_000, compared=17
    )
    assert judge([GOOD, at_the_edge]) == ([], [])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size_bytes": 200_600}, "01_tokenizer has 201 kB, more than 200"),
        ({"peak_bytes": 1_190_000_000}, "used 1.19 GB of memory, more than 1.18"),
        ({"peak_bytes": None}, "memory was not measured"),
        ({"seconds": None}, "01_tokenizer was not checked to its end"),
        ({"failed": (3, 4)}, "01_tokenizer: 2 of 20 code cells failed"),
        ({"compared": 16}, "16 of 20 code cells are checked, fewer than 85%"),
        ({"cells": 0, "compared": 0}, "0 of 0 code cells are checked"),
        ({"seconds": 271}, "01_tokenizer took 271 s, more than 90 s ×3"),
        ({"tasks": Count(1, 2, ("1.2",))}, "no grader for 1.2"),
        ({"claims": Count(0, 1, ("kv-cache",))}, "no notebook measures the claims kv-cache"),
    ],
)
def test_each_missed_must_fails_with_its_reason(change, words):
    light_ones = [replace(GOOD, seconds=1)] * 9  # so that the average stays low
    _, failing = judge([replace(GOOD, **change), *light_ones])
    assert len(failing) == 1
    assert words in failing[0]


def test_time_over_budget_is_flagged_and_fails_beyond_three_times():
    assert judge([replace(GOOD, seconds=91), *[replace(GOOD, seconds=1)] * 9]) == (
        ["01_tokenizer took 91 s, more than 90 s"],
        [],
    )
    assert judge([replace(GOOD, seconds=46)]) == (
        ["on average a notebook took 46 s, more than 45 s"],
        [],
    )
    assert judge([replace(GOOD, seconds=135)])[1] == []
    assert judge([replace(GOOD, seconds=136)])[1] == [
        "on average a notebook took 136 s, more than 45 s ×3"
    ]


def test_all_notebooks_together_have_25_minutes():
    assert judge([replace(GOOD, seconds=44)] * 34) == ([], [])
    assert judge([replace(GOOD, seconds=44)] * 35)[0] == [
        "all notebooks together took 1540 s, more than 1500 s"
    ]
    assert judge([replace(GOOD, seconds=44)] * 103)[1] == [
        "all notebooks together took 4532 s, more than 1500 s ×3"
    ]


def test_what_a_bare_kernel_holds_is_not_the_notebooks():
    memory = report.MEMORY + 680_000_000
    assert judge([replace(GOOD, peak_bytes=1_850_000_000)], memory) == ([], [])
    assert "more than 1.86" in judge([replace(GOOD, peak_bytes=1_870_000_000)], memory)[1][0]
    assert "1.86 GB" in table([GOOD], memory)
    assert 100_000_000 < report.bare_kernel_bytes() < 1_500_000_000


def test_a_course_without_notebooks_fails():
    assert judge([]) == ([], ["there are no notebooks"])


def test_tasks_without_a_grader_are_named():
    assert tasks_graded(["1.1", "1.2", "1.3"], {"1.1", "1.3", "2.1"}) == Count(2, 3, ("1.2",))
    assert tasks_graded([], {"1.1"}) == Count(0, 0)


def test_only_testable_claims_of_the_chapter_have_to_be_measured():
    claims = [
        Claim("measured"),
        Claim("forgotten", evidence="arithmetic"),
        Claim("recorded", evidence="recorded"),
        Claim("read", evidence="reading"),
        Claim("untestable", verdict="not testable here"),
        Claim("elsewhere", chapter="02"),
    ]
    found = claims_measured("01", claims, {"measured", "elsewhere"})
    assert found == Count(1, 3, ("forgotten", "recorded"))


def test_a_row_without_a_record_knows_only_its_size():
    row = make_row("labs/00_claims", 5, None)
    assert row == Row(notebook="labs/00_claims", size_bytes=5)
    assert "labs/00_claims was not checked to its end" in judge([row])[1]


def test_the_table_shows_every_figure_the_sums_and_the_budgets():
    lab = Row(notebook="labs/01_tokenizer", size_bytes=30_000)
    lines = table([GOOD, lab]).split("\n")
    assert [line.split() for line in lines if not line.startswith("-")] == [
        ["notebook", "seconds", "memory", "size", "checked", "tasks", "claims"],
        ["01_tokenizer", "40", "0.70", "GB", "120", "kB", "18/20", "5/5", "3/3"],
        ["labs/01_tokenizer", "-", "-", "30", "kB", "0/0", "-", "-"],
        ["together", "40,", "mean", "40", "0.70", "GB", "150", "kB", "18/20", "5/5", "3/3"],
        ["budget", "90,", "mean", "45", "1.18", "GB", "200", "kB", "85%", "all", "all"],
    ]
    assert len({len(line) for line in lines}) == 1


def test_the_command_prints_the_reasons_and_ends_with_1(tmp_path, monkeypatch, capsys):
    records = [{"notebook": "01_tokenizer", "seconds": 100, "peak_bytes": 5}]
    (tmp_path / "01_tokenizer.json").write_text(json.dumps(records[0]), encoding="utf-8")

    def rows(given):
        assert list(given) == records
        return [replace(GOOD, seconds=100), replace(GOOD, size_bytes=300_000, seconds=1)]

    monkeypatch.setattr(report, "bare_kernel_bytes", lambda: 0)
    monkeypatch.setattr(report, "rows_of_course", rows)
    assert report.main([str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "flagged: 01_tokenizer took 100 s" in printed
    assert "failed:  01_tokenizer has 300 kB" in printed

    monkeypatch.setattr(report, "rows_of_course", lambda given: [GOOD])
    monkeypatch.setenv("MINILLM_REPORT", str(tmp_path))
    assert report.main([]) == 0


def test_a_missing_report_is_said_and_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "bare_kernel_bytes", lambda: 0)
    monkeypatch.setattr(report, "rows_of_course", lambda given: [make_row("01_x", 5, None)])
    assert report.main([str(tmp_path / "none")]) == 1
    assert "the notebooks were not checked" in capsys.readouterr().out


# Reference


def test_the_rows_of_this_course_name_every_notebook_that_exists():
    course = report.Path(__file__).resolve().parents[2] / "course"
    there = [path.stem for path in sorted(course.glob("*.ipynb"))]
    labs = [f"labs/{path.stem}" for path in sorted((course / "labs").glob("*.ipynb"))]
    assert [row.notebook for row in report.rows_of_course([])] == there + labs


# Law


@given(st.lists(st.floats(min_value=0, max_value=1000), min_size=1, max_size=8))
def test_a_time_is_never_both_flagged_and_failed_and_faster_is_never_worse(seconds):
    rows = [replace(GOOD, notebook=str(n), seconds=s) for n, s in enumerate(seconds)]
    flagged, failing = judge(rows)
    assert len(flagged) + len(failing) == len(
        {text.split(" took")[0] for text in flagged + failing}
    )
    faster = judge([replace(row, seconds=row.seconds / 2) for row in rows])
    assert len(faster[1]) <= len(failing)
