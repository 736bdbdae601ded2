"""minillm.bench.town: the benchmark runs, and its arithmetic is right."""

from minillm.bench import town


def test_a_quick_run_returns_and_prints_every_figure(capsys):
    figures = town.run(quick=True)
    printed = capsys.readouterr().out.splitlines()
    for name, value in figures.items():
        assert value > 0
        assert any(line.split() == [name, f"{value:,.2f}"] for line in printed)
    for name, target in town.TARGETS.items():
        line = next(line for line in printed if name in line and "at least" in line)
        assert line.endswith(": met" if figures[name] >= target else ": MISSED")


def test_speeds_are_bytes_sentences_and_tokens_by_seconds(monkeypatch, capsys):
    monkeypatch.setattr(town, "seconds_of", lambda work, n_repeats: 0.5)
    figures = town.run(quick=True)
    assert figures["facts_sentences_s"] == 2 * 4 * 64
    assert figures["markov_sample_m_tokens_s"] == 2 * 64 * 128 / 1e6
    sentences = [s.text for i in range(4) for s in town.FactTable(town.World()).block(i)]
    assert figures["facts_mb_s"] == 2 * len("\n".join(sentences).encode()) / 1e6


def test_the_median_is_of_as_many_rounds_as_asked_after_one_that_does_not_count(monkeypatch):
    ticks = iter([0.0, 9.0, 10.0, 12.0, 20.0, 21.0])
    monkeypatch.setattr(town.time, "perf_counter", lambda: next(ticks))
    calls = []
    assert town.seconds_of(lambda: calls.append(1), 3) == 2.0
    assert len(calls) == 4
