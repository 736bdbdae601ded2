import pytest

from minillm.bench import calls
from minillm.bench.calls import QUICK, in_words, of_style, rows_of, run, without_result
from minillm.reason.solver import SolverConfig
from minillm.town.sums import SumSource, SumWords
from minillm.town.world import World

SOURCE = SumSource(World())


@pytest.fixture(scope="module")
def figures():
    return run(quick=True)


def test_a_quick_run_has_every_row(figures, capsys):
    calls._print(figures)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 2 * 6 + 6
    assert {row["rate"] for row in figures["bare"] + figures["other rate"]} == {0.02, 0.005}
    for style in ("masked", "unmasked"):
        (row,) = figures[style]
        n = round(row["seen"]["needs"] * QUICK.n_questions)
        assert row["alone"]["n"] == row["error"]["n"] == n


def test_styles_of_one_seed_have_the_same_questions():
    config = SolverConfig(batch_size=128)
    rows = {style: rows_of(SOURCE, style, config)(3) for style in ("bare", "masked", "unmasked")}
    questions = [[row[0] for row in each] for each in rows.values()]
    assert questions[0] == questions[1] == questions[2]
    assert len(questions[0]) == 128
    assert [" ".join(r) for r in rows["masked"]] == [" ".join(r) for r in rows["unmasked"]]
    assert rows_of(SOURCE, "bare", SolverConfig(seed=1))(3) != rows["bare"][:64]


def test_what_stands_where_a_result_should_be_is_read(monkeypatch):
    question = next(q for q in SOURCE.questions("test") if q.needs_call)
    right = " ".join(question.answer)
    texts = [f"{right} ; {right} .", f"1 2 ; {right} .", "Mei ; 1 2 .", "; Mei .", "1 2 ."]
    monkeypatch.setattr(calls, "solve", lambda *_, **__: [[text] for text in texts])
    words = SumWords(SOURCE)
    model = SolverConfig(d_model=16).build(64, words)
    assert without_result(model, [question] * 5, "", words) == {
        "n": 5,
        "n_results": 2,
        "n_right_results": 1,
        "n_answers": 4,
        "n_right_answers": 2,
        "n_repeated": 1,
    }


def test_the_calculator_in_words():
    assert in_words("1 0 1 * 2") == "2 0 2"
    assert in_words("1 0 *") == in_words("Mei") == in_words("") == "error"


def test_a_run_is_the_same_twice(figures):
    (row,) = figures["masked"]
    assert of_style("masked", 0.02, 0, QUICK) == row
