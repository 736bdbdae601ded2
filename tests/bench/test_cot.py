from minillm.bench import cot


def test_it_runs_and_counts_right_answers_of_every_length(monkeypatch, capsys):
    monkeypatch.setattr(cot, "STYLES", ("direct", "steps"))
    monkeypatch.setattr(cot, "RATES", (0.02,))
    monkeypatch.setattr(cot, "BETTER", dict.fromkeys(cot.BETTER, 0.02))
    monkeypatch.setattr(cot, "LAYERS", (1, 2))
    figures = cot.run(quick=True)
    assert [row["format"] for row in figures["formats"]] == ["direct", "steps"]
    assert figures["rates"] == figures["formats"]  # measured once
    assert figures["layers"][1] == figures["formats"][0]
    assert figures["layers"][0]["parameters"] < figures["layers"][1]["parameters"]
    assert all(set(row["right"]) == {"1", "2"} for row in figures["formats"])
    assert "guessing 1.7" in capsys.readouterr().out


def test_right_answers_are_counted_on_the_questions_of_that_length(monkeypatch):
    asked = []

    def half(model, problems, style):
        asked.extend(problems)
        return 0.5

    monkeypatch.setattr(cot.solver, "accuracy", half)
    assert cot.n_right(None, 3, "steps", 10) == 5
    assert {len(each.swaps) for each in asked} == {3}
    assert len(asked) == 10
