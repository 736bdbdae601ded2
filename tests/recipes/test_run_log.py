import json
import math

import pytest

from minillm.recipes import run_log
from minillm.train.loop import Metrics


def logged(step):
    metrics = Metrics(
        step=step - 1,
        loss=9.0,
        n_tokens=5,
        learning_rate=0.1,
        gradient_norm=1.0,
        evaluation=1 / step,
    )
    return run_log.line(metrics, [2.0, 4.0], seconds=1.234)


LOG = [logged(4), logged(8), run_log.evaluated_again(12, 0.5)]


def test_a_line_says_the_mean_loss_since_the_one_before():
    assert logged(4) == {
        "step": 4,
        "loss": 3.0,
        "held_out": 0.25,
        "learning_rate": 0.1,
        "seconds": 1.2,
    }


def test_of_a_line_that_was_lost_the_evaluation_is_had_again():
    nothing = {"loss": None, "learning_rate": None, "seconds": None}
    assert run_log.evaluated_again(12, 0.5) == {"step": 12, "held_out": 0.5, **nothing}


def test_what_was_written_is_read_up_to_the_step_that_is_asked_for(tmp_path, capsys):
    path = tmp_path / "log.jsonl"
    run_log.write(LOG, path)
    assert run_log.read(path, 12, 4) == LOG
    assert run_log.read(path, 9, 4) == LOG[:2]
    assert capsys.readouterr().out == ""
    assert run_log.read(path, 16, 4) == LOG
    assert "log.jsonl lacks 1 evaluations, the first after step 16" in capsys.readouterr().out


def test_wherever_a_log_is_cut_off_its_whole_lines_are_read_and_the_rest_is_kept(tmp_path):
    path = tmp_path / "log.jsonl"
    run_log.write(LOG, path)
    data = path.read_bytes()
    for cut in range(0, len(data), 5):
        path.write_bytes(data[:cut])
        log = run_log.read(path, 12, 4)
        assert log == LOG[: len(log)]
        assert len(log) >= data[:cut].count(b"\n")
        asides = [*tmp_path.glob("*.damaged-*")]
        is_cut = data[:cut].rpartition(b"\n")[2] not in (b"", *data.splitlines())
        assert len(asides) == is_cut
        for aside in asides:
            assert aside.read_bytes() == data[:cut]
            aside.unlink()
        assert run_log.read(path, 12, 4) == log
        assert not [*tmp_path.glob("*.damaged-*")]


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        json.dumps(logged(4)),  # again
        json.dumps({"step": 8, "held_out": 0.125}),
        *(
            json.dumps(logged(8) | change)
            for change in (
                {"plum": 1},
                {"step": "8"},
                {"step": None},
                {"held_out": "0.125"},
                {"held_out": None},
                {"loss": math.nan},
                {"seconds": True},
            )
        ),
    ],
)
def test_what_is_no_line_is_passed_over(tmp_path, capsys, text):
    path = tmp_path / "log.jsonl"
    first, *others = (json.dumps(each) for each in LOG)
    path.write_text("\n".join([first, text, *others]), encoding="utf-8")
    assert run_log.read(path, 12, 4) == LOG
    assert "log.jsonl: line 2 and 0 more are damaged" in capsys.readouterr().out


def test_a_disk_that_is_full_leaves_the_log_as_it_was(tmp_path, monkeypatch):
    def full(_):
        raise OSError("No space left on device")

    path = tmp_path / "log.jsonl"
    run_log.write(LOG[:1], path)
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run_log.write(LOG, path)
    assert run_log.read(path, 4, 4) == LOG[:1]


def test_a_picture_is_drawn_of_whatever_is_left(tmp_path):
    for number, log in enumerate((LOG, LOG[2:])):
        run_log.draw(log, tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").read_bytes().startswith(b"\x89PNG")
