import os
import select

import pytest

from minillm.lab import answers
from minillm.lab.answers import grade_file, is_stub

RIGHT = "def mended_slide():\n    return 'batch of 32 -> 576 GiB'\n"


def write(tmp_path, source):
    path = tmp_path / "answers.py"
    path.write_text(source, encoding="utf-8")
    return path


def test_a_right_answer_in_a_file_is_done(tmp_path):
    assert grade_file("0.1", write(tmp_path, RIGHT)).status == "done"


def test_an_answer_is_graded_with_one_thread_as_in_a_notebook(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    body = "import torch\n    raise ValueError(f'{torch.get_num_threads()} threads')"
    path = write(tmp_path, f"def mended_slide(*_):\n    {body}\n")
    assert "1 threads" in grade_file("0.1", path).message


def test_no_file_is_to_do(tmp_path):
    assert grade_file("0.1", tmp_path / "none.py").status == "to do"


def test_a_syntax_error_is_said_with_its_line(tmp_path):
    result = grade_file("0.1", write(tmp_path, "def mended_slide():\n    return (\n"))
    assert result.status == "wrong"
    assert "line 2" in result.message


LONG = "while True:\n        try:\n            for _ in range(10**6): pass\n       "
ENDLESS = {
    "plain": "while True: pass",
    "except Exception": f"{LONG} except Exception: pass",
    "except": f"{LONG} except: pass",
    "finally": f"{LONG} finally: continue",
    "one call that never comes back to Python": "sum(iter(int, 1))",
}


@pytest.mark.parametrize("body", ENDLESS.values(), ids=ENDLESS)
def test_an_endless_loop_ends_whatever_it_catches(tmp_path, monkeypatch, body):
    ended, kill = [], answers._kill
    monkeypatch.setattr(answers, "SECONDS", 0.2)
    monkeypatch.setattr(answers, "START_SECONDS", 600)
    monkeypatch.setattr(answers, "_kill", lambda child: (ended.append(child.poll()), kill(child)))
    path = write(tmp_path, f"def mended_slide():\n    print('begun')\n    {body}\n")
    result = grade_file("0.1", path)
    assert "loop that never ends" in result.message
    assert result.printed == "begun\n"
    assert ended != [None]  # by itself, not only because we do not wait for ever


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_what_an_answer_has_started_ends_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "SECONDS", 2)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    body = f"subprocess.run(['sleep', '1000'], stdout=open({str(pipe)!r}, 'w'))"
    path = write(tmp_path, f"import subprocess\ndef mended_slide():\n    {body}\n")
    assert "loop that never ends" in grade_file("0.1", path).message
    assert select.select([reader], [], [], 60)[0]  # its end: nobody can write into it any more
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_a_child_that_does_not_end_itself_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "START_SECONDS", 0)
    monkeypatch.setattr(answers, "SECONDS", 1)
    path = write(tmp_path, "import time\ntime.sleep(1000)\n" + RIGHT)
    assert "loop that never ends" in grade_file("0.1", path).message


@pytest.mark.parametrize(
    ("body", "phrase"),
    [
        ("return input('?')", "input()"),
        ("while True: print('x' * 100)", "prints more than"),
        ("print('x' * 10**6)", "prints more than"),
        ("while True:\n        try: print('x')\n        except: pass", "prints more than"),
        ("import sys\n    while True: print('x', file=sys.stderr)", "prints more than"),
        ("return mended_slide()", "calls itself without end"),
        ("return 1 / 0", "ZeroDivisionError: division by zero (line `return 1 / 0`)"),
        ("import sys; sys.exit(3)", "ends Python itself"),
        ("import os; os._exit(3)", "Python stopped while it ran mended_slide: exit status 3."),
        ("return pi", "name 'pi' is not defined (line `return pi`); define or import it in the"),
        ("return later()\ndef later():\n    raise NotImplementedError", "calls `later`, which is"),
        ("raise OSError('y' * 9999)", "more characters)"),
    ],
)
def test_whatever_an_answer_does_gets_a_plain_and_short_message(tmp_path, body, phrase):
    result = grade_file("0.1", write(tmp_path, f"def mended_slide():\n    {body}\n"))
    assert result.status == "wrong"
    assert phrase in result.text("0.1")
    assert len(result.text("0.1")) < 2_200
    assert len(result.printed) <= answers.PRINTED_CHARACTERS


def test_what_an_answer_prints_is_shown_above_its_line(tmp_path):
    path = write(tmp_path, "import sys, warnings\n" + RIGHT)
    path.write_text(
        path.read_text(encoding="utf-8").replace(
            "    return", "    print('村'); warnings.warn('old')\n    return"
        ),
        encoding="utf-8",
    )
    text = grade_file("0.1", path).text("0.1")
    assert text.startswith("村\n")
    assert "UserWarning: old" in text
    assert text.endswith("\n0.1 ✔")


@pytest.mark.parametrize(
    ("source", "stub"),
    [
        ('def f(x):\n    "Doubles."\n    raise NotImplementedError  # yet\n', True),
        ("def f(x):\n    raise NotImplementedError\ndef f(x):\n    return x\n", False),
        ("def f(x):\n    y = x\n    raise NotImplementedError\n", False),
        ("def g(x):\n    raise NotImplementedError\n", False),
    ],
)
def test_a_stub_does_nothing_else(source, stub):
    assert is_stub(source, "f") is stub


def test_a_stub_is_seen_without_a_child_process(tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "subprocess", None)
    path = write(tmp_path, "def mended_slide():\n    raise NotImplementedError\n")
    assert grade_file("0.1", path).status == "to do"


def test_a_file_that_cannot_be_imported_says_why(tmp_path):
    result = grade_file("0.1", write(tmp_path, "import no_such_module\n" + RIGHT))
    assert "cannot be imported" in result.message
    assert "no_such_module" in result.message


def test_a_missing_function_is_named(tmp_path):
    assert "defines no `mended_slide`" in grade_file("0.1", write(tmp_path, "x = 1\n")).message


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "answers.py"
    path.write_text(RIGHT, encoding="utf-8-sig")
    assert grade_file("0.1", path).status == "done"


def test_a_file_in_another_encoding_is_told_so(tmp_path):
    path = tmp_path / "answers.py"
    path.write_text("# 村\n" + RIGHT, encoding="gbk")
    assert "is not UTF-8: byte" in grade_file("0.1", path).message


def test_a_name_that_is_no_function_is_said(tmp_path):
    message = grade_file("0.1", write(tmp_path, "mended_slide = 5\n")).message
    assert message == "`mended_slide` is no function here but a int."


def test_a_crash_in_a_helper_is_shown_with_its_line(tmp_path):
    path = tmp_path / "ch00_claims.py"
    path.write_text(
        "def helper():\n    return 1 / 0\ndef mended_slide():\n    return helper()\n",
        encoding="utf-8",
    )
    assert "(line `return 1 / 0`)" in grade_file("0.1", path).message
    path.write_text("x = 1\nx.y\n", encoding="utf-8")
    assert "(line `x.y`)" in grade_file("0.1", path).message


def test_a_module_of_the_library_that_has_moved_is_looked_for_in_the_map(tmp_path):
    result = grade_file(
        "0.1", write(tmp_path, f"from minillm.text.ngram import KneserNey\n{RIGHT}")
    )
    assert "No module named 'minillm.text.ngram'; if it stood there before" in result.message
