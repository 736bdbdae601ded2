import datetime
import math
import os
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
    load_file,
    refuse_borrowed,
)


def test_an_unknown_task_is_named_together_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no task '9\.9'.*0\.1, 0\.2"):
        find("9.9")


def test_the_three_status_lines():
    assert Result("to do").line("0.1") == "0.1 ☐ to do"
    assert Result("wrong", "no.").line("0.1") == "0.1 ✘ no."
    assert Result("done").line("0.1") == "0.1 ✔"


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


def test_an_answer_that_is_its_target_is_refused():
    from minillm.model.count import kv_cache_bytes

    assert "uses minillm.model.count.kv_cache_bytes itself" in grade("0.2", kv_cache_bytes).message


def test_an_operation_that_somebody_else_did_not_implement_is_no_stub():
    def mended_slide():
        datetime.tzinfo().utcoffset(None)

    assert grade("0.1", mended_slide).message.startswith("it raised NotImplementedError: a tzinfo")


def test_only_the_grader_of_the_chapter_in_question_is_loaded():
    code = "import sys, minillm.lab.grade as g; g.find('0.1'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_two_answers_saved_within_a_second_are_two_answers(tmp_path):
    path = tmp_path / "answers.py"
    path.write_text("def f():\n    return 1\n", encoding="utf-8")
    assert load_file(path, "answers").f() == 1
    saved = path.stat()
    path.write_text("def f():\n    return 2\n", encoding="utf-8")
    os.utime(path, ns=(saved.st_atime_ns, saved.st_mtime_ns))
    assert load_file(path, "answers").f() == 2
    assert [p.name for p in tmp_path.iterdir()] == ["answers.py"]


def test_a_result_that_breaks_the_grader_is_no_crash_of_the_answer():
    message = grade("1.1", lambda *_: 5).message
    assert message.startswith("what it returns is not of the kind that the task asks for (TypeE")


def test_an_answer_with_other_arguments_is_told_which():
    def conversations_that_fit(memory):
        return 8

    message = grade("0.4", conversations_that_fit).message
    assert message.startswith("it raised TypeError: ")
    assert "unexpected keyword argument 'memory_bytes'" in message


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
