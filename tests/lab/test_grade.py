import math
import os
import signal
import subprocess
import sys

import pytest
import torch

from minillm.lab import grade as grading
from minillm.lab.grade import (
    Result,
    as_number,
    as_tensor,
    find,
    grade,
    grade_file,
    load_file,
    refuse_borrowed,
)

RIGHT = "def mended_slide():\n    return 'batch of 32 -> 576 GiB'\n"


def write(tmp_path, source):
    path = tmp_path / "answers.py"
    path.write_text(source, encoding="utf-8")
    return path


def test_an_unknown_task_is_named_together_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no task '9\.9'.*0\.1, 0\.2"):
        find("9.9")


def test_the_three_status_lines():
    assert Result("to do").line("0.1") == "0.1 ☐ to do"
    assert Result("wrong", "no.").line("0.1") == "0.1 ✘ no."
    assert Result("done").line("0.1") == "0.1 ✔"


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


def test_an_endless_loop_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(grading, "SECONDS", 2)
    path = write(tmp_path, "def mended_slide():\n    while True: pass\n")
    assert "loop that never ends" in grade_file("0.1", path).message


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="this system has no alarm")
def test_an_endless_loop_ends_in_a_notebook_too(monkeypatch):
    monkeypatch.setattr(grading, "SECONDS", 0.2)

    def mended_slide():
        while True:
            pass

    result = grade("0.1", mended_slide)
    assert result.status == "wrong"
    assert "loop that never ends" in result.message
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("body", "phrase"),
    [
        ("    return input('?')", "input()"),
        ("    while True: print('x' * 100)", "prints more than"),
        ("    return mended_slide()", "calls itself without end"),
        ("    return 1 / 0", "ZeroDivisionError: division by zero (line `return 1 / 0`)"),
        ("    import sys; sys.exit(3)", "Python stopped"),
    ],
)
def test_whatever_an_answer_does_gets_a_plain_message(tmp_path, body, phrase):
    result = grade_file("0.1", write(tmp_path, f"def mended_slide():\n{body}\n"))
    assert result.status == "wrong"
    assert phrase in result.message


def test_a_file_that_cannot_be_imported_says_why(tmp_path):
    result = grade_file("0.1", write(tmp_path, "import no_such_module\n" + RIGHT))
    assert "cannot be imported" in result.message
    assert "no_such_module" in result.message


def test_a_missing_function_is_named(tmp_path):
    assert "defines no `mended_slide`" in grade_file("0.1", write(tmp_path, "x = 1\n")).message


@pytest.mark.parametrize(
    "source",
    [
        "def f(**k):\n    from minillm.model.count import kv_cache_bytes as g\n    return g(**k)",
        "def f(**k):\n    import minillm.model.count as c\n    return c.kv_cache_bytes(**k)",
        "def f(**k):\n    from minillm.model import count\n    return count.kv_cache_bytes(**k)",
        "def f(**k):\n    import importlib\n",
        "def f(**k):\n    from solutions.ch00_claims import kv_cache_bytes\n",
    ],
)
def test_an_answer_that_imports_its_target_is_refused(source):
    namespace = {}
    exec(source, namespace)
    with pytest.raises(grading.Diagnosis, match="write what it does"):
        refuse_borrowed(find("0.2")[1], namespace["f"], source)


def test_an_answer_that_reaches_its_target_by_a_global_name_is_refused():
    from minillm.model.count import kv_cache_bytes

    source = "def mine(**k):\n    return borrowed(**k)"
    namespace = {"borrowed": kv_cache_bytes}
    exec(source, namespace)
    result = grade("0.2", namespace["mine"], source)
    assert "uses minillm.model.count.kv_cache_bytes itself" in result.message


def test_two_answers_saved_within_a_second_are_two_answers(tmp_path):
    path = write(tmp_path, "def f():\n    return 1\n")
    assert load_file(path, "answers").f() == 1
    saved = path.stat()
    write(tmp_path, "def f():\n    return 2\n")
    os.utime(path, ns=(saved.st_atime_ns, saved.st_mtime_ns))
    assert load_file(path, "answers").f() == 2
    assert [p.name for p in tmp_path.iterdir()] == ["answers.py"]


def test_a_file_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "answers.py"
    path.write_text(RIGHT, encoding="utf-8-sig")
    assert grade_file("0.1", path).status == "done"


def test_a_file_in_another_encoding_is_told_so(tmp_path):
    path = tmp_path / "answers.py"
    path.write_text("# 村\n" + RIGHT, encoding="gbk")
    assert "answers.py is not UTF-8: byte" in grade_file("0.1", path).message


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


def test_a_result_that_breaks_the_grader_is_no_crash_of_the_answer():
    message = grade("1.1", lambda *_: 5).message
    assert message.startswith("what it returns is not of the kind that the task asks for (TypeE")


def test_an_answer_with_other_arguments_is_told_which():
    def conversations_that_fit(memory):
        return 8

    message = grade("0.4", conversations_that_fit).message
    assert message.startswith("it raised TypeError: ")
    assert "unexpected keyword argument 'memory_bytes'" in message


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="this system has no alarm")
def test_no_alarm_is_left_behind_by_an_answer_that_ended():
    assert grade("0.1", lambda: "batch of 32 -> 576 GiB").status == "done"
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_an_answer_that_reaches_its_target_by_a_global_module_is_refused():
    import minillm.model.count as library

    source = "def kv_cache_bytes(**k):\n    return library.kv_cache_bytes(**k)"
    namespace = {"library": library}
    exec(source, namespace)
    result = grade("0.2", namespace["kv_cache_bytes"], source)
    assert "uses minillm.model.count.kv_cache_bytes itself" in result.message


def test_a_number_is_taken_however_it_is_wrapped():
    assert [as_number(got) for got in (2, "0.5", True, torch.tensor([0.25]))] == [2, 0.5, 1, 0.25]
    assert math.isnan(as_number(math.nan))


def test_a_tensor_is_taken_as_it_is():
    given = torch.tensor([[1]])
    assert as_tensor(given) is given


@pytest.mark.parametrize("kind", [as_number, as_tensor])
def test_an_answer_without_a_return_is_told_so(kind):
    with pytest.raises(grading.Diagnosis, match=r"^your function returns nothing; is there"):
        kind(None)


@pytest.mark.parametrize(
    ("kind", "got", "message"),
    [
        (as_number, "much", "return one number; yours is str."),
        (as_number, (1.0, "why"), "return one number; yours is tuple."),
        (as_tensor, [1.0], "return a tensor; yours is list."),
        (as_tensor, 1.0, "return a tensor; yours is float."),
    ],
)
def test_what_an_answer_returned_is_named_by_its_kind(kind, got, message):
    with pytest.raises(grading.Diagnosis) as raised:
        kind(got)
    assert str(raised.value) == message


def test_a_tensor_of_several_numbers_is_no_number():
    with pytest.raises(grading.Diagnosis, match=r"one number; yours is Tensor"):
        as_number(torch.zeros(2))


def test_grading_is_imported_without_torch():
    code = "import sys, minillm.lab.grade; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_module_of_the_library_that_has_moved_is_looked_for_in_the_map(tmp_path):
    answers = write(tmp_path, f"from minillm.text.ngram import KneserNey\n{RIGHT}")
    result = grade_file("0.1", answers)
    assert "No module named 'minillm.text.ngram'; if it stood there before" in result.message
