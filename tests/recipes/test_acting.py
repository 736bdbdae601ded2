"""`minillm agent`, with stand-ins for the model: what is printed, and what the trace keeps."""

import io
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.agents.errands import call_of
from minillm.agents.loop import Decision, read_trace
from minillm.formats import hf
from minillm.recipes import acting
from minillm.text.tokenizer import Tokenizer
from minillm.town.map import Errand, Task
from minillm.town.world import World
from minillm.tune.chat import TOOL_TEMPLATE, save_template
from minillm.zoo import checkpoints
from tests.recipes import tiny_parent

TASK = Task(
    world=World(),
    good="plums",
    person="Joe",
    start="well",
    home="mill",
    shops=("well",),
    stocked=frozenset({"well"}),
    most_steps=9,
)
WAY = [*(f"go {place}" for place in ("market square", "stone bridge", "mill")), "give plums"]


def scripted(*calls):
    """An agent that makes these calls in turn, as actions or as they are; then comes Ctrl-C."""
    left = iter(calls)

    def decide(views):
        if (call := next(left, None)) is None:
            raise KeyboardInterrupt
        return [Decision("Hm\x1b[2J.", call if call.startswith("{") else call_of(call).text)]

    return decide


def acted(decide, calls=40, task=TASK):
    """Whether it ended well."""
    file = io.StringIO()
    file.name = "a.jsonl"
    return acting.act(decide, Errand(task, task.start), file, calls=calls)


# --- by hand --------------------------------------------------------------------------------------
def test_the_first_view_is_printed_whole_and_of_the_others_what_is_new(capsys):
    assert acted(scripted("take plums", *WAY))
    out = capsys.readouterr().out
    assert out.startswith(
        "task: bring plums to Joe\nyou are at: well\nyou have: nothing\nplums: well, here\n"
        "Joe: mill, by way of market square\n  thought  Hm�[2J.\n"
        '  call     {"name":"take","arguments":{"good":"plums"}}\n  result   ok\n\n'
        "you have: plums\n  thought"
    )
    assert out.endswith(
        "delivered. 5 calls, 0 that no tool could read, 0 actions that failed; "
        "the trace is a.jsonl\n"
    )


@pytest.mark.parametrize(
    ("calls", "end"),
    [
        (["give_up it is late"], "gave up, wrongly: well had plums. 1 call, 0 that"),
        (["go well", "go well"] * 5, "out of steps: the errand allows 9. 9 calls, 0 that"),
        (["{}", "go clinic", "{}"], "the budget of calls is spent. 3 calls, 2 that"),
        (
            ["go mill", "go clinic"],
            "interrupted. 2 calls, 0 that no tool could read, 1 action",
        ),
        ([], "interrupted. 0 calls"),
    ],
)
def test_the_last_line_says_how_it_ended(capsys, calls, end):
    budget = 3 if "budget" in end else 40
    if "interrupted" in end:
        with pytest.raises(KeyboardInterrupt):
            acted(scripted(*calls))
    else:
        assert acted(scripted(*calls), budget) is False
    assert capsys.readouterr().out.splitlines()[-1].startswith(end)


def test_giving_up_where_nobody_has_the_good_is_right(capsys):
    task = replace(TASK, stocked=frozenset())
    assert acted(scripted("give_up nobody has plums"), task=task)
    assert "gave up, rightly: nobody has plums. 1 call" in capsys.readouterr().out


def test_a_view_in_which_nothing_is_new_says_so(capsys):
    acted(scripted("{}", "{}", "{}", "go mill", "go mill"), calls=5)
    views = capsys.readouterr().out.split("\n\n")
    assert views[1].startswith("unreadable call {}: an action is go PLACE")
    assert views[2].startswith("(nothing else is new)\n  thought")
    assert views[4].startswith("(nothing else is new)\n  thought")  # the result stands above


def test_each_step_stands_in_the_trace_before_the_next_is_decided(tmp_path):
    lengths, path = [], tmp_path / "a.jsonl"

    def decide(views):
        lengths.append(len(path.read_text(encoding="utf-8").splitlines()))
        return [Decision("Hm.", "{}")]

    with acting.new_trace(path) as file:
        acting.act(decide, Errand(TASK, "well"), file, calls=3)
    assert lengths == [0, 1, 2]


def test_the_errand_follows_from_the_seed_and_the_task():
    one, same, other = (acting.errand_of(World(), seed, None, 0.2) for seed in (1, 1, 2))
    assert one == same != other
    assert one.task.failure_rate == 0.2
    asked = [acting.errand_of(World(), s, " bring  plum jam to Bean. ", 0) for s in range(40)]
    assert {str(each.task) for each in asked} == {"bring plum jam to Bean"}
    assert {bool(each.task.stocked) for each in asked} == {True, False}
    assert {len(each.task.shops) for each in asked} == {1, 2}


def test_a_trace_without_a_name_takes_a_new_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("agent-1.jsonl", "agent-2.jsonl"):
        with acting.new_trace(None) as file:
            assert Path(file.name) == Path("runs", name)


# --- bad input ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "fetch plums"}, "of the form \"bring plums to Mei\"; got 'fetch plums'"),
        ({"task": "bring gold to Joe"}, "plums, pears, .*; got 'gold'. A task of this town is"),
        ({"task": "bring plums to Joey"}, 'Mei, Bao, .* is "bring plums to Mei"'),
        ({"failures": 2.0}, "--failures from 0 to 1; got 40 and 2"),
        ({"place": Path("chat-1m")}, "chat-1m was not tuned to call tools"),
        ({"place": Path("tools-1m")}, 'data of the kind "agent" .* learned from "tools"'),
    ],
)
def test_what_cannot_be_is_said_before_a_trace_is_made(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        acting.run(**{"place": Path("tools-1m"), **options})
    assert not any(tmp_path.iterdir())


def test_a_file_that_is_there_stays_as_it_is(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="is there already and stays as it is"):
        acting.new_trace(path)
    assert path.read_text(encoding="utf-8") == "mine"
    with pytest.raises(ValueError, match="cannot be written: No such file"):
        acting.new_trace(tmp_path / "no" / "a.jsonl")


def test_a_model_without_a_manifest_is_taken_at_its_word(tmp_path):
    tokenizer = Tokenizer((), TOOL_TEMPLATE.special_tokens)
    model = replace(tiny_parent.CONFIG, vocab_size=tokenizer.vocab_size).build(seed=0)
    hf.save(model, tmp_path, tokenizer)
    save_template(tmp_path, TOOL_TEMPLATE)
    decide = acting.open_agent(tmp_path)
    with pytest.raises(ValueError, match="context"):
        decide(["task: bring plums to Joe"])


# --- Ctrl-C, from outside -------------------------------------------------------------------------
PROGRAM = """
import os, signal
from minillm import cli
from minillm.agents.loop import Decision
from minillm.recipes import acting
def decide(views, seen=[]):
    seen += views
    if len(seen) == 3:
        os.kill(os.getpid(), signal.SIGINT)
    return [Decision("Hm.", '{"name":"go","arguments":{"place":"well"}}')]
acting.open_agent = lambda place: decide
cli.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no SIGINT from os.kill")
def test_ctrl_c_ends_the_program_and_the_trace_keeps_what_happened(tmp_path):
    words = [sys.executable, "-c", PROGRAM, "agent", "--trace", "a.jsonl", "--seed", "3"]
    end = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (end.returncode, end.stderr) == (130, "\nminillm: stopped.\n")
    assert end.stdout.splitlines()[-1].startswith("interrupted. 2 calls")
    assert [event.thought for event in read_trace(tmp_path / "a.jsonl")] == ["Hm.", "Hm."]


# --- the shipped model ----------------------------------------------------------------------------
@pytest.mark.skipif("agent-1m" not in checkpoints.names(), reason="agent-1m is not shipped yet")
def test_the_shipped_model_brings_what_it_is_sent_for(tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    assert acting.run(Path("agent-1m"), task="bring plums to Joe", seed=3, trace=path)
    assert re.search(r"\ndelivered\. \d+ calls, 0 that", capsys.readouterr().out)
    assert all(event.valid for event in read_trace(path))


# --- law ------------------------------------------------------------------------------------------
@given(st.lists(st.sampled_from("abcd")), st.lists(st.sampled_from("abcd")))
def test_new_lines_are_those_that_the_old_view_did_not_have(old, new):
    fresh = [line for line in new if line not in old]
    shown = acting.new_lines("\n".join(new), "\n".join(old))
    assert shown == ("\n".join(fresh) or "(nothing else is new)")
