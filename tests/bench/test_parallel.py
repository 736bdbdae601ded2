"""minillm.bench.parallel: the benchmark runs, and its ratios are of its own times."""

import sys

import pytest

from minillm.bench import parallel as bench

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="ranks need Linux or macOS")


def test_a_quick_run_times_every_way_and_compares_the_pairs(monkeypatch, capsys):
    monkeypatch.setattr(bench, "OURS", ("dp", "zero=3"))
    monkeypatch.setattr(bench, "PAIRS", {"dp": "DDP"})
    figures = bench.run(quick=True)
    ways = {"tiny_1_alone", "tiny_2_dp", "tiny_2_zero=3", "tiny_2_DDP"}
    assert figures.keys() == ways | {"tiny_dp_by_DDP"}
    ours, theirs = (figures[f"tiny_2_{way}"]["milliseconds"] for way in ("dp", "DDP"))
    assert figures["tiny_dp_by_DDP"] == pytest.approx(ours / theirs)
    held = {way: figures[way]["megabytes"] for way in ways}
    assert held["tiny_2_dp"] == held["tiny_1_alone"] == held["tiny_2_DDP"]
    assert held["tiny_2_zero=3"] == pytest.approx(held["tiny_1_alone"] / 2, rel=0.02)
    assert f"dp ÷ DDP on 2 ranks: {ours / theirs:.2f}" in capsys.readouterr().out
