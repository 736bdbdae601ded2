import sys
from pathlib import Path

import pytest

from minillm import cli
from minillm.recipes import acting, tools_server


def command(monkeypatch, *words):
    """The exit status of `minillm …`."""
    monkeypatch.setattr(sys, "argv", ["minillm", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code or 0


def test_the_exit_status_of_an_agent_says_whether_the_errand_ended_well(monkeypatch, capsys):
    asked, ends = [], iter((True, False))

    def run(*place, **how):
        asked.append((place, how))
        return next(ends)

    monkeypatch.setattr(acting, "run", run)
    assert command(monkeypatch, "agent") == 0
    words = ["--task", "bring plums to Joe", "--calls", "7", "--slow", "--world", "7"]
    words += ["--model", "mine", "--failures", "0", "--trace", "a"]
    assert command(monkeypatch, "agent", *words) == 1
    usual = {"seed": 0, "calls": 40, "failures": 0.1, "slow": False}
    assert asked[0] == ((Path("agent-1m"),), {**usual, "task": None, "trace": None, "world": None})
    mine = {"task": "bring plums to Joe", "trace": Path("a"), "seed": 0, "world": "7"}
    assert asked[1] == ((Path("mine"),), {**mine, "calls": 7, "failures": 0.0, "slow": True})


def test_what_an_agent_cannot_be_asked_is_one_sentence(monkeypatch, capsys):
    assert command(monkeypatch, "agent", "--task", "dance") == 2
    assert capsys.readouterr().err.startswith("minillm: --task must be of the form")


def test_tools_are_served_as_asked(monkeypatch):
    asked = []
    monkeypatch.setattr(tools_server, "run", lambda **how: asked.append(how))
    assert command(monkeypatch, "tools", "serve", "--transport", "http", "--port", "0") == 0
    assert asked == [{"transport": "http", "host": "127.0.0.1", "port": 0, "unsafe": False}]
