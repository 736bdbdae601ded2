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
        for aside in tmp_path.glob("*.damaged-*"):
            assert aside.read_bytes() == data[:cut]
            aside.unlink()
        assert run_log.read(path, 12, 4) == log
        assert not [*tmp_path.glob("*.damaged-*")]
