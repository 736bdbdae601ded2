import json
import re

import pytest

from minillm.lab.predict import calibration, distance, predict


def test_without_a_guess_the_lines_are_fixed_and_nothing_is_kept(my, capsys):
    predict("notes of one conversation", unit="GiB").reveal(18.0)
    assert capsys.readouterr().out == (
        "▸ notes of one conversation (GiB): write your guess in place of None\n"
        "▸ notes of one conversation: 18 GiB\n"
    )
    assert not my.exists()


def test_a_guess_is_compared_and_remembered(my, capsys):
    predict("notes", 576, unit="GiB").reveal(18)
    assert "you said 576 GiB: 32 times too high" in capsys.readouterr().out
    kept = json.loads((my / "predictions.json").read_text(encoding="utf-8"))
    assert (kept["notes"]["guess"], kept["notes"]["truth"]) == (576, 18)


def test_a_second_guess_at_the_same_question_replaces_the_first(my):
    predict("notes", 576).reveal(18)
    predict("notes", 20).reveal(18)
    kept = json.loads((my / "predictions.json").read_text(encoding="utf-8"))
    assert [entry["guess"] for entry in kept.values()] == [20]


def test_nought_is_a_guess_too(my, capsys):
    predict("notes", 0).reveal(18)
    assert capsys.readouterr().out == ("▸ notes: you say 0\n▸ notes: 18\n  you said 0: off by 18\n")


def test_nothing_is_kept_while_the_course_is_built(my, monkeypatch):
    monkeypatch.setenv("MINILLM_BUILD", "1")
    predict("notes", 20).reveal(18)
    assert not my.exists()


@pytest.mark.parametrize("guess", ["18" * 9999, True, float("nan"), float("inf")])
def test_a_guess_that_is_no_number_is_refused(guess):
    with pytest.raises(ValueError, match="a guess is a number") as raised:
        predict("notes", guess)
    assert len(str(raised.value)) < 200


def test_distance_is_said_in_words():
    assert distance(18.5, 18) == "within 3 %"
    assert distance(0.6, 18) == "30 times too low"
    assert distance(27, 18) == "1.5 times too high"
    assert distance(18.0, 18) == "exactly right"
    assert distance(-1, 2) == "off by 3"


def test_the_calibration_plot_says_how_many_guesses_were_close(my, capsys):
    calibration()
    assert "no guesses yet" in capsys.readouterr().out
    predict("a", 20).reveal(18)
    predict("b", 576).reveal(18)
    calibration()
    assert "1 of 2 guesses lie within a factor of two" in capsys.readouterr().out


def test_a_damaged_record_is_reported_and_left_alone(my, capsys):
    my.mkdir()
    (my / "predictions.json").write_text("{broken", encoding="utf-8")
    predict("a", 20).reveal(18)
    assert re.search(r"not remembered: .* not valid JSON.*Mend it", capsys.readouterr().out)
    assert (my / "predictions.json").read_text(encoding="utf-8") == "{broken"


def test_entries_that_were_mended_by_hand_do_not_stop_the_plot(my, capsys):
    my.mkdir()
    text = '{"a": 3, "b": {"guess": "x", "truth": 1}, "c": {"guess": 2, "truth": 1}}'
    (my / "predictions.json").write_text(text, encoding="utf-8")
    calibration()
    assert "1 of 1 guesses" in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_costs_the_record_only(my, capsys):
    my.write_text("a file stands here", encoding="utf-8")
    predict("a", 20).reveal(18)
    out = capsys.readouterr().out
    assert "you said 20" in out
    assert "not remembered: " in out
