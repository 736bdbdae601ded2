from minillm.lab.track import track


def test_all_steps_come_through_in_order_and_in_silence(capsys, monkeypatch):
    monkeypatch.setenv("MINILLM_BUILD", "1")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert list(track(range(5), "counting")) == [0, 1, 2, 3, 4]
    assert list(track(iter("ab"), "letters", total=2)) == ["a", "b"]
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_person_sees_a_bar_with_the_label(capsys, monkeypatch):
    monkeypatch.delenv("MINILLM_BUILD", raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert list(track(iter("abc"), "counting", total=3)) == ["a", "b", "c"]
    out = capsys.readouterr().out
    assert "counting" in out
    assert "/3 " in out
