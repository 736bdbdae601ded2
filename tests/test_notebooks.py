"""Every notebook keeps every rule, and every rule finds its planted violation."""

from dataclasses import dataclass, replace
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests import notebook_rules as rules
from tests.notebook_rules import RULES, Context
from tools.canonical import canonical, dumps, title_cell

ROOT = Path(__file__).resolve().parents[1]
COURSE = ROOT / "course"
NOTEBOOKS = [*sorted(COURSE.glob("*.ipynb")), *sorted((COURSE / "labs").glob("*.ipynb"))]


def names(value):
    return value.stem if isinstance(value, Path) else getattr(value, "__name__", None)


def test_the_course_has_notebooks_for_these_rules():
    assert NOTEBOOKS


@pytest.mark.parametrize("rule", RULES, ids=names)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=names)
def test_every_notebook_keeps_every_rule(path, rule):
    notebook, context = rules.read(path, ROOT)
    found = rule(notebook, context)
    if context.name in rules.EXEMPT.get(rule.__name__, "").split():
        assert found, f"{context.name} keeps {rule.__name__} now: take it out of EXEMPT"
    else:
        assert not found, f"{path.relative_to(ROOT)}:\n  " + "\n  ".join(found)


def test_only_rules_and_notebooks_that_exist_are_exempt():
    assert rules.EXEMPT.keys() <= {rule.__name__ for rule in RULES}
    stems = {path.relative_to(COURSE).with_suffix("").as_posix() for path in NOTEBOOKS}
    assert {name for names in rules.EXEMPT.values() for name in names.split()} <= stems


# ------------------------------------------------------------------------- planted notebooks


@dataclass(frozen=True)
class Chapter:
    number: str
    slug: str
    title: str = "Tokenizers"
    promise: str = "You build one."
    minutes: int = 15
    needs: tuple = ()
    builds: tuple = ()
    tasks: tuple = ()


CHAPTERS = (
    Chapter("00", "claims"),
    Chapter("01", "tokenizer"),
    Chapter("02", "sources"),
    Chapter("03", "attention"),
)


def prose(source):
    return new_markdown_cell(source)


def code(source, *outputs, tags=(), count=1):
    return new_code_cell(
        source, outputs=list(outputs), execution_count=count, metadata={"tags": list(tags)}
    )


def stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def picture(**metadata):
    return new_output("display_data", {"image/png": "AAAA", "text/plain": "x"}, metadata=metadata)


ERROR = new_output("error", ename="ValueError", evalue="no plums", traceback=["ValueError"])
TITLE = prose(title_cell(CHAPTERS[1]))
SETUP = code("from minillm.lab.setup import setup\n\nsetup(seed=0)", stream("seed 0\n"))
FOOTER = prose("Back to [claims](00_claims.ipynb), on to [attention](03_attention.ipynb#start).")
CLEAN = [
    TITLE,
    SETUP,
    prose(
        "A [module](../minillm/text/bpe.py), a [page](https://example.org/home/), `[no](link)`,\n"
        "[here](#top), and in his/her/work/life\n\n```python\n[x](y)\n```"
    ),
    code(
        "import minillm.text.bpe\nfrom minillm.text import bpe\nfrom minillm.text.bpe import learn"
    ),
    code('expect("it learns; quickly", 1.5, at_most=2, claim="kv-cache")  # a; b'),
    code('print("a;")\nx = (\n    100\n    %7\n)', stream("100 % done\n")),
    code("int('plums')", ERROR, tags=["raises-exception"]),
    code("publish(fig, alt='x')", picture(**{"image/png": {"alt": "a curve"}})),
    *[code(f"x = {n}") for n in range(3)],
    *[code("show(learn)") for _ in range(3)],
    prose("## 1 · Learn"),
    code('@task("1.2", minutes=8)\ndef learn(): ...'),
    code('@task("1.10", minutes=4)\ndef encode(): ...'),
    code("%time x", stream("1 s\n"), tags=["nbval-ignore-output"]),
    FOOTER,
]


@pytest.fixture
def context(tmp_path):
    """A course with chapters 00, 01 and 03, and modules of chapters 00, 01 and 02."""
    course = tmp_path / "course"
    (course / "labs").mkdir(parents=True)
    for name in ("00_claims", "01_tokenizer", "03_attention"):
        (course / f"{name}.ipynb").write_text("{}", encoding="utf-8")
    package = tmp_path / "minillm"
    modules = {"lab/setup": "00", "text/bpe": "01", "text/late": "02", "text/homeless": None}
    for name, chapter in modules.items():
        file = package / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        line = f"\n\nChapter: {chapter}" if chapter else ""
        file.write_text(f'"""A module.{line}\n"""\n', encoding="utf-8")
    path = course / "01_tokenizer.ipynb"
    return Context(path, "", CHAPTERS, frozenset({"kv-cache"}), package)


def plant(cells, context, form=canonical):
    # Some planted faults are against the notebook format itself, so nothing is validated here.
    notebook = new_notebook()
    notebook.cells = [nbformat.from_dict(cell) for cell in cells]
    notebook = form(notebook)
    return notebook, replace(context, text=dumps(notebook))


def as_it_is(notebook):
    return notebook


def bare(source, *outputs, tags=()):
    """A code cell with a tag or an output that `code` would not accept."""
    cell = code(source, *outputs)
    cell.metadata["tags"] = list(tags)
    return cell


@pytest.mark.parametrize("rule", RULES, ids=names)
def test_a_clean_notebook_keeps_the_rule(rule, context):
    assert rule(*plant(CLEAN, context)) == []


def test_a_clean_lab_keeps_every_rule(context):
    lab = replace(context, path=context.path.parent / "labs" / context.path.name)
    cells = [prose(title_cell(CHAPTERS[1], lab=True)), SETUP, prose("[Up](../01_tokenizer.ipynb)")]
    for rule in RULES:
        assert rule(*plant(cells, lab)) == [], rule.__name__


def unused_import(statement, why):
    return [*CLEAN, code(statement)], why


VIOLATIONS = {
    rules.cells_are_executed_in_order: [
        ([*CLEAN, code("x", count=None)], "code cell 16 (x) was never executed"),
    ],
    rules.cells_are_not_empty: [
        ([*CLEAN, code("  ")], "cell 20 is empty"),
        ([*CLEAN, prose("")], "cell 20 is empty"),
    ],
    rules.tags_are_known: [
        ([*CLEAN, bare("x", tags=["nbval-ignore-outputs"])], "has the tag 'nbval-ignore-outputs'"),
    ],
    rules.size_is_small: [([*CLEAN, code("x", stream("村" * 67_000))], "more than 200")],
    rules.most_cells_are_checked: [
        (
            [code("x"), *[code("t()", tags=["nbval-ignore-output"])]],
            "only 1 of 2 code cells are checked",
        ),
        ([FOOTER], "only 0 of 0"),
    ],
    rules.no_comments_steer_nbval: [
        ([code("x = 1\n# NBVAL_SKIP")], "has a comment for nbval"),
        ([code("  #PYTEST_VALIDATE_IGNORE_OUTPUT")], "has a comment for nbval"),
    ],
    rules.title_is_generated: [
        ([prose("# 01 · Tokenisers"), *CLEAN[1:]], "You build one."),
        (CLEAN[1:], "the first cell is not the one"),
        ([], "the first cell is not the one"),
    ],
    rules.setup_comes_first: [
        ([TITLE, code("import torch"), SETUP], "does not call setup"),
        ([TITLE], "does not call setup"),
        ([TITLE, code("# setup(seed=0)")], "does not call setup"),
        ([TITLE, SETUP, SETUP], "more than one cell"),
    ],
    rules.links_exist: [
        ([prose("[x](02_sources.ipynb)")], "the link 02_sources.ipynb leads nowhere"),
        ([prose("![x](pictures/x.png)")], "pictures/x.png leads"),
        ([prose('<img width="3" src="x.png">')], "x.png leads"),
        ([prose("[x](/course/00_claims.ipynb)")], "/course/00_claims.ipynb leads"),
        ([prose("[x](attachment:x.png)")], "attachment:x.png leads"),
    ],
    rules.footer_leads_on: [
        ([TITLE, prose("[Back](00_claims.ipynb)")], "no link to 03_attention.ipynb"),
        ([FOOTER, prose("Recap")], "no link to 00_claims.ipynb"),
        ([FOOTER, code("x")], "is not prose"),
        ([], "no cells"),
    ],
    rules.nothing_names_a_machine: [
        ([code("open('/home/mei/x.txt')")], "cell 1 names this machine: /home/mei/x.txt"),
        ([prose("See /work/main/x")], "/work/main/x"),
        ([code("x", stream("saved to /root/x\n"))], "/root/x"),
        ([code("x", stream("/tmp/ab/x\n"))], "/tmp/ab/x"),
        ([code("x", stream("(/Users/mei/x)\n"))], "/Users/mei/x"),
        ([code("x", stream(r"C:\Users\mei"))], r"C:\Users\mei"),
        ([code("x", stream(r"'C:\\Users\\mei'"))], r"C:\\Users\\mei"),
        ([code("x", stream("lib/site-packages/torch"))], "lib/site-packages/torch"),
        ([code("x", stream("in ipykernel_77/1.py"))], "ipykernel_77/1.py"),
        (
            [code("x", new_output("display_data", {"text/html": "<b>/tmp/x</b>"}))],
            "/tmp/x",
        ),
        (
            [code("x", new_output("error", ename="E", evalue="no /tmp/x", traceback=[]))],
            "/tmp/x",
        ),
        (
            [code("x", new_output("display_data", {"text/plain": "<X at 0x7f00aa11bb22>"}))],
            "at 0x7f00aa11bb22",
        ),
    ],
    rules.stderr_is_silent: [
        ([code("x", stream("UserWarning: plums", "stderr"))], "stderr: UserWarning: plums"),
    ],
    rules.errors_are_announced: [
        ([code("x", ERROR)], "raises an exception without the tag"),
        ([code("x", tags=["raises-exception"])], "raises no exception but has the tag"),
    ],
    rules.optimizers_step_where_it_is_taught: [
        ([code("for x in y:\n    optimizer.step()")], "steps an optimizer without the tag"),
        ([code("x = 1", tags=["teaches-step"])], "steps no optimizer but has the tag"),
    ],
    rules.figures_have_words: [
        ([code("plt.show()", picture())], "a picture without alternative text"),
        ([code("plt.show()", picture(**{"image/png": {"alt": ""}}))], "without alternative text"),
    ],
    rules.code_is_python: [([code("x = = 1")], "is no Python")],
    rules.no_trailing_semicolon: [
        ([code("ax.set_title('x');")], "ends a line with ;"),
        ([code("f();  # why")], "ends a line with ;"),
        ([code("f();\ng()")], "ends a line with ;"),
    ],
    rules.no_magic_in_checked_cells: [
        ([code("%%time\nx = 1")], "uses %%time where"),
        ([code("x = 1\n%timeit x")], "uses %timeit where"),
        ([code("!ls", tags=["nbval-ignore-output"])], "calls a shell"),
        ([code("%%bash\nls", tags=["nbval-ignore-output"])], "calls a shell"),
    ],
    rules.nothing_moves: [
        ([code("from IPython.display import clear_output")], "uses clear_output"),
        ([code("display.clear_output()")], "uses clear_output"),
        ([code("handle = update_display(x)")], "uses update_display"),
        ([code("import ipywidgets as w")], "uses ipywidgets"),
        ([code("from tqdm.auto import tqdm")], "uses tqdm.auto"),
        (
            [
                code(
                    "x",
                    new_output(
                        "display_data",
                        {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}},
                    ),
                )
            ],
            "shows a widget",
        ),
    ],
    rules.expectations_are_literal: [
        ([code("expect(f'{n} steps', 1, equals=1)")], "the sentence of expect is not a literal"),
        ([code("expect(sentence=words, value=1)")], "the sentence of expect is not a literal"),
        ([code("lab.expect(words, 1, at_least=0)")], "the sentence of expect is not a literal"),
        ([code("expect('x', 1, equals=1, claim=name)")], "the claim of expect is not a literal"),
    ],
    rules.claims_exist: [
        ([code("expect('x', 1, equals=1, claim='kv-cash')")], "no claim 'kv-cash' in course/"),
    ],
    rules.imports_keep_to_the_chapter: [
        unused_import(
            "from minillm.text.late import x", "minillm.text.late, a module of chapter 02"
        ),
        unused_import("from minillm.text import bpe, late", "minillm.text.late, a module of"),
        unused_import("if x:\n    import minillm.text.late as l", "a module of chapter 02"),
        unused_import("import minillm.text.homeless", "whose docstring names no chapter"),
        unused_import("import minillm.text.nowhere", "which does not exist"),
        unused_import("from minillm.text import learn", "minillm.text, a folder"),
        unused_import("import minillm", "minillm, a folder"),
        unused_import("from solutions.ch01 import x", "solutions.ch01, which is not for notebooks"),
        unused_import("import tools.canonical", "which is not for notebooks"),
    ],
}
VIOLATIONS |= {
    rules.sections_are_few: [
        ([prose(f"## {n} · More\n\n## Recap") for n in range(1, 9)], "has 8 sections"),
    ],
    rules.modules_are_few: [
        (
            [
                code("from minillm.text import bpe"),
                *[code(f"import minillm.m{n}") for n in range(15)],
            ],
            "imports 16 modules",
        ),
    ],
    rules.cells_are_short: [([code("x = 1\n" * 25 + "y")], "code cell 1 (x = 1) has 26 lines")],
    rules.code_is_shown: [([code("show(bpe)"), code("show(bpe)")], "show(...) 2 times")],
    rules.minutes_are_those_of_the_formula: [
        ([prose("word " * 15_200)], "takes 76 minutes by the formula, more than 75"),
        ([code('@task("1.1", minutes=21)\ndef f(): ...')], "takes 21 minutes by the formula;"),
        ([code("x = 1\n" * 250)], "takes 25 minutes by the formula;"),
    ],
    rules.tasks_are_in_reading_order: [
        (
            [code('task("1.2")'), code('task("1.10")'), code('task("1.3")')],
            "the tasks come as 1.2, 1.10, 1.3",
        ),
    ],
}
CASES = [(rule, *case) for rule, cases in VIOLATIONS.items() for case in cases]


@pytest.mark.parametrize(("rule", "cells", "words"), CASES, ids=names)
def test_the_rule_finds_its_planted_violation(rule, cells, words, context):
    found = rule(*plant(cells, context))
    assert any(words in text for text in found), found


def test_cells_executed_out_of_order_are_found(context):
    cells = [code("x", count=2), code("y", count=1)]
    found = rules.cells_are_executed_in_order(*plant(cells, context, form=as_it_is))
    assert found == [
        "code cell 1 (x) was executed as number 2, not 1",
        "code cell 2 (y) was executed as number 1, not 2",
    ]


@pytest.mark.parametrize(
    "disturb",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text + "\n",
        lambda text: text.replace('\n "nbformat"', '\n  "nbformat"'),
        lambda text: text.replace('"name": "python3"', '"name": "mine"'),
        lambda text: text.replace('"metadata": {},', '"metadata": {"collapsed": true},', 1),
        lambda text: text.replace('"id": "', '"id": "a', 1),
    ],
)
def test_any_other_form_is_found(disturb, context):
    _, context = plant(CLEAN, context)
    text = disturb(context.text)
    assert text != context.text
    notebook = nbformat.reads(text, as_version=4)
    assert rules.form_is_canonical(notebook, replace(context, text=text))


def test_a_notebook_that_the_syllabus_does_not_know_is_found(context):
    context = replace(context, path=context.path.with_name("09_other.ipynb"))
    found = rules.title_is_generated(*plant(CLEAN, context))
    assert found == ["09_other is no chapter of course/syllabus.toml"]


def test_every_rule_has_a_planted_violation_here():
    apart = {rules.form_is_canonical}  # test_any_other_form_is_found
    assert set(RULES) == set(VIOLATIONS) | apart
