"""Every grader knows a right answer in two styles, the stub, typical mistakes, and a mutant."""

import ast
import contextlib
import io
import linecache
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from minillm.lab import answers, task
from minillm.lab.grade import find, grade, graders, load_file
from minillm.lab.project import root, syllabus
from minillm.lab.task import function_source, solution_source

HERE = Path(__file__).parent
BOOKS = {p.stem: load_file(p, f"book_{p.stem}") for p in HERE.glob("*/ch*.py")}


def book(task_id):
    return BOOKS[f"ch{find(task_id)[0].name}"]


@pytest.fixture(scope="module", autouse=True)
def without_child_processes(tmp_path_factory):
    """Each text of a file of answers is graded once, in this process; nothing else is changed."""

    @cache
    def grade_once(task_id, text, folder):
        path = folder / "answers.py"
        path.write_text(text, encoding="utf-8")
        with contextlib.redirect_stdout(io.StringIO()) as out:
            result = answers.grade_loaded(task_id, path)
        return replace(result, printed=out.getvalue())

    def run_child(task_id, path):
        return grade_once(task_id, path.read_text(encoding="utf-8"), folder)

    folder = tmp_path_factory.mktemp("learner")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINILLM_MY", str(folder / "my"))
        patch.delenv("MINILLM_BUILD", raising=False)
        patch.setattr(answers, "_run_child", run_child)
        patch.setattr(task, "write_whole", lambda path, text: path.write_text(text, "utf-8"))
        patch.setattr(task, "in_notebook", lambda: True)
        (folder / "my" / "exercises").mkdir(parents=True)
        yield


@cache
def run(task_id, source):
    """Grade an answer, given as text, from the terminal and as a notebook's cell: they agree."""
    chapter, grader = find(task_id)
    if "@task(" not in source:
        define = f"def {grader.function}("
        source = source.replace(define, f'@task("{task_id}", minutes=1)\n{define}', 1)
    path = answers.answer_file(chapter)
    path.unlink(missing_ok=True)
    task.put_answer(chapter, grader.function, source)
    from_terminal = answers.grade_file(task_id, path)
    path.unlink()
    in_cell = as_a_cell(task_id, grader.function, source)
    assert in_cell == f"{from_terminal.text(task_id)}\n"
    assert path.exists() == (from_terminal.status != "to do")
    return from_terminal


def as_a_cell(task_id, function, source):
    """What is printed when a notebook runs this as its next cell, after one of another answer."""
    cell = f"<cell of {task_id}>"
    linecache.cache[cell] = (len(source), None, source.splitlines(keepends=True), cell)
    main = ModuleType("__main__")
    main.task, main.__dict__[function] = task.task, lambda *_, **__: None
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "__main__", main)
        exec(compile(source, cell, "exec"), main.__dict__)
    return out.getvalue()


TASKS = list(graders())
#: Chapters whose typical mistakes still stand here, as source; the others have `Grader.wrong`.
IN_BOOKS = [task_id for task_id in TASKS if not find(task_id)[1].wrong]
WRONG = [(t, *pair) for t in TASKS for pair in find(t)[1].wrong]


@pytest.mark.parametrize("task_id", TASKS)
def test_the_worked_answer_passes(task_id):
    result = run(task_id, solution_source(task_id))
    assert result.status == "done", result.message


STYLES = [
    (task_id, style)
    for task_id in TASKS
    for style in (
        book(task_id).SECOND_STYLE[task_id],
        *getattr(book(task_id), "OTHER_STYLES", {}).get(task_id, []),
    )
]


@pytest.mark.parametrize(("task_id", "other"), STYLES)
def test_a_right_answer_in_another_style_passes(task_id, other):
    assert ast.dump(ast.parse(other)) != ast.dump(ast.parse(solution_source(task_id)))
    result = run(task_id, other)
    assert result.status == "done", result.message


@pytest.mark.parametrize("task_id", TASKS)
def test_the_stub_is_to_do(task_id):
    chapter, grader = find(task_id)
    stub = (root() / "exercises" / f"ch{chapter.name}.py").read_text(encoding="utf-8")
    assert "NotImplementedError" in function_source(stub, grader.function)
    stub = function_source(stub, grader.function)
    assert run(task_id, stub).line(task_id) == f"{task_id} ☐ to do"


@pytest.mark.parametrize(
    ("task_id", "source", "phrase"),
    [(t, source, phrase) for t in IN_BOOKS for source, phrase in book(t).MISTAKES[t]],
)
def test_a_typical_mistake_gets_its_own_diagnosis(task_id, source, phrase):
    result = run(task_id, source)
    assert result.status == "wrong"
    assert phrase in result.message


@pytest.mark.parametrize(("task_id", "function", "message"), WRONG)
def test_a_mistake_beside_its_grader_gets_its_own_diagnosis(task_id, function, message):
    result = grade(task_id, function)
    assert result.status == "wrong"
    assert result.message.startswith(message)


@pytest.mark.parametrize("task_id", [t for t in TASKS if t not in IN_BOOKS])
def test_a_grader_has_three_to_six_mistakes_and_no_two_share_a_diagnosis(task_id):
    messages = [message for _, message in find(task_id)[1].wrong]
    assert 3 <= len(messages) <= 6
    assert len(set(messages)) == len(messages)


@pytest.mark.parametrize("task_id", IN_BOOKS)
def test_a_task_has_three_mistakes_or_more_and_no_two_share_a_diagnosis(task_id):
    messages = [run(task_id, source).message for source, _ in book(task_id).MISTAKES[task_id]]
    assert len(messages) >= 3
    assert len(set(messages)) == len(messages)


@pytest.mark.parametrize("task_id", TASKS)
def test_a_mutant_without_a_message_of_its_own_is_refused(task_id):
    result = run(task_id, book(task_id).MUTANT[task_id])
    assert result.status == "wrong"
    assert result.message


@pytest.mark.parametrize("task_id", TASKS)
def test_a_task_has_three_hints_that_differ(task_id):
    hints = find(task_id)[1].hints
    assert len(set(hints)) == 3
    assert all(hint.strip() for hint in hints)


@pytest.mark.parametrize("chapter", [c for c in syllabus() if c.tasks], ids=lambda c: c.number)
def test_a_chapter_has_the_tasks_that_the_syllabus_states(chapter):
    own = {t: g for t, (c, g) in graders().items() if c == chapter}
    assert tuple(own) == chapter.tasks
    assert len(own) >= 4
    assert sum(g.level == "everyone" for g in own.values()) >= 2
    assert sum(g.level == "stretch" for g in own.values()) >= 2
    assert sum(g.target is not None for g in own.values()) >= 2
    assert sum(bool(g.model_answer) for g in own.values()) >= 1
