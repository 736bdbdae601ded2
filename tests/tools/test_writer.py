"""The writer (`tools.notebooks`): what it keeps, what it refuses, the text beside a notebook."""

import json
import shutil
from dataclasses import dataclass

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import notebooks
from tools.canonical import canonical, dumps, title_cell
from tools.notebooks import (
    Document,
    Refused,
    build,
    changed_cells,
    documents,
    edit,
    execute,
    find,
    from_text,
    generated,
    inputs_hash,
    keep_stored,
    read,
    to_text,
)


@dataclass(frozen=True)
class Chapter:
    number: str = "01"
    slug: str = "tokenizer"
    title: str = "Tokenizers"
    promise: str = "You build one."
    headline: str = "No vocabulary is large enough"
    minutes: int = 60
    needs: tuple = ()
    builds: tuple = ()
    tasks: tuple = ()


def code(source, printed="", tags=(), count=1):
    outputs = [new_output("stream", name="stdout", text=printed)] if printed else []
    return new_code_cell(
        source, outputs=outputs, execution_count=count, metadata={"tags": list(tags)}
    )


def book(*cells):
    return canonical(new_notebook(cells=list(cells)))


def course(folder, **named):
    (folder / "course" / "labs").mkdir(parents=True)
    for name, notebook in named.items():
        path = folder / "course" / f"{name.replace('__', '/').lstrip('n')}.ipynb"
        path.write_text(dumps(notebook), encoding="utf-8", newline="\n")
    return folder


# Keeping stored outputs


def test_a_stored_output_stays_while_the_checker_calls_the_new_one_equal():
    stored = book(code("a", "loss 2.345\n"), code("b", "3\n"), code("c", "old\n"))
    fresh = book(code("a", "loss 2.346\n"), code("b", "4\n"), code("c", "new\n"))
    kept = keep_stored(stored, fresh)
    assert [cell.outputs[0].text for cell in kept.cells] == ["loss 2.345\n", "4\n", "new\n"]
    assert changed_cells(stored, kept) == 2


def test_an_ignored_output_stays_until_the_source_changes_or_a_refresh():
    stored = book(code("t()", "12 s\n", ["nbval-ignore-output"]), code("x", "1\n"))
    fresh = book(code("t()", "93 s\n", ["nbval-ignore-output"]), code("x", "1\n"))
    assert keep_stored(stored, fresh) == stored
    assert keep_stored(stored, fresh, refresh=True) == fresh
    other = book(code("t(2)", "93 s\n", ["nbval-ignore-output"]), code("x", "1\n"))
    assert keep_stored(stored, other) == other
    assert changed_cells(stored, other) == 1


def test_an_ignored_cell_that_was_never_executed_takes_its_first_output():
    stored = book(code("t()", "", ["nbval-ignore-output"], count=None))
    fresh = book(code("t()", "93 s\n", ["nbval-ignore-output"]))
    assert keep_stored(stored, fresh) == fresh


def test_a_cell_that_moves_takes_its_output_along_and_its_new_count():
    result = new_output("execute_result", {"text/plain": "0.50"}, execution_count=1)
    moved = new_output("execute_result", {"text/plain": "0.51"}, execution_count=2)
    stored = book(new_code_cell("half", outputs=[result], execution_count=1))
    fresh = book(code("first"), new_code_cell("half", outputs=[moved], execution_count=2))
    kept = keep_stored(stored, fresh).cells[1]
    assert kept.outputs[0].data["text/plain"] == "0.50"
    assert (kept.execution_count, kept.outputs[0].execution_count) == (2, 2)


# Text and notebook


def test_the_text_holds_sources_and_tags_and_no_outputs():
    text = to_text(book(new_markdown_cell("# Town"), code("print(1)", "1\n", ["task"])))
    assert text == '# %% [markdown]\n# # Town\n\n# %% tags=["task"]\nprint(1)\n'


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.builds(new_markdown_cell, st.text(alphabet="ab村#`* \n|$", max_size=20)),
            st.builds(
                lambda source, tags: code(source, tags=tags),
                st.text(alphabet="xy= \n#()村", max_size=20),
                st.sampled_from([[], ["task"], ["hide-input", "nbval-ignore-output"]]),
            ),
        ),
        max_size=5,
    )
)
def test_sources_and_tags_survive_the_way_to_text_and_back(cells):
    cells = [cell for cell in cells if cell.source.strip()]
    notebook = book(*cells)
    again = from_text(to_text(notebook))
    assert [cell.source for cell in again.cells] == [cell.source for cell in notebook.cells]
    assert inputs_hash(again) == inputs_hash(notebook)


def test_a_cell_that_would_be_torn_apart_is_refused_by_name(tmp_path):
    root = course(tmp_path, n01_x=book(code("x = 1\n# %% two\ny = 2")))
    with pytest.raises(Refused, match="does not survive as py:percent text"):
        edit(Document(root, "01_x"))
    assert not (root / ".edit").exists()


def test_edit_writes_the_text_once_and_keeps_what_was_typed_since(tmp_path):
    document = Document(course(tmp_path, n01_x=book(code("x = 1"))), "01_x")
    assert edit(document).startswith(".edit/01_x.py; take it back with make notebooks NB=01")
    assert document.text.read_text("utf-8") == "# %%\nx = 1\n"
    document.text.write_text("# %%\nx = 2\n", encoding="utf-8")
    assert "not yet in the notebook" in edit(document)
    assert document.text.read_text("utf-8") == "# %%\nx = 2\n"


def test_edit_follows_a_notebook_that_alone_has_changed(tmp_path):
    document = Document(course(tmp_path, n01_x=book(code("x = 1"))), "01_x")
    edit(document)
    document.notebook.write_text(dumps(book(code("x = 3"))), encoding="utf-8")
    edit(document)
    assert document.text.read_text("utf-8") == "# %%\nx = 3\n"


def conflict(tmp_path):
    document = Document(course(tmp_path, n01_x=book(code("x = 1"))), "01_x")
    edit(document)
    document.text.write_text("# %%\nx = 2\n", encoding="utf-8")
    document.notebook.write_text(dumps(book(code("x = 3"))), encoding="utf-8")
    return document


@pytest.mark.parametrize("call", [edit, build])
def test_when_both_changed_both_commands_refuse_with_the_diff_and_the_way_out(tmp_path, call):
    document = conflict(tmp_path)
    before = document.notebook.read_bytes(), document.text.read_bytes()
    with pytest.raises(Refused) as refusal:
        call(document)
    text = str(refusal.value)
    for part in ("--- course/01_x.ipynb", "+++ .edit/01_x.py", "-x = 3", "+x = 2", "--keep text"):
        assert part in text
    assert (document.notebook.read_bytes(), document.text.read_bytes()) == before


def test_the_same_change_on_both_sides_is_no_conflict(tmp_path):
    document = conflict(tmp_path)
    document.text.write_text("# %%\nx = 3\n", encoding="utf-8")
    assert "take it back" in edit(document)


def test_a_conflict_ends_when_one_side_is_chosen(tmp_path):
    document = conflict(tmp_path)
    edit(document, keep="notebook")
    assert document.text.read_text("utf-8") == "# %%\nx = 3\n"


def test_a_text_without_a_record_is_not_silently_overwritten(tmp_path):
    document = conflict(tmp_path)
    document.record.unlink()
    with pytest.raises(Refused, match="both changed"):
        edit(document)


# Names, titles, tags


def test_a_notebook_is_found_by_any_of_its_names(tmp_path):
    root = course(tmp_path, n01_tokenizer=book(), labs__00_claims=book())
    for wanted in ("1", "01", "01_tokenizer", "course/01_tokenizer.ipynb"):
        assert find(wanted, root).name == "01_tokenizer"
    for wanted in ("labs/0", "labs/00", "labs/00_claims"):
        assert find(wanted, root).name == "labs/00_claims"
    assert [document.short for document in documents(root)] == ["01", "labs/00"]
    assert find("labs/01", root, [Chapter()]).name == "labs/01_tokenizer"
    with pytest.raises(Refused, match=r"no notebook '07'\. There are: 01, labs/00"):
        find("07", root, [Chapter()])


def test_the_title_is_taken_from_the_syllabus():
    document = Document(notebooks.ROOT.parent, "01_tokenizer")
    notebook = book(new_markdown_cell("# 01 · Old"), code("x"))
    assert generated(notebook, document, [Chapter()]).cells[0].source == title_cell(Chapter())


def test_a_misspelt_tag_stops_the_writer(tmp_path):
    notebook = book(code("x", tags=["nbval-ignore-outputs"]))
    with pytest.raises(Refused, match="cell 1 has the tag 'nbval-ignore-outputs'; known tags: hid"):
        generated(notebook, Document(tmp_path, "01_x"))


def test_a_damaged_notebook_is_refused_in_words(tmp_path):
    root = course(tmp_path)
    (root / "course" / "01_x.ipynb").write_text("<<<<<<< HEAD\n{", encoding="utf-8")
    with pytest.raises(Refused, match="conflict marks"):
        read(root / "course" / "01_x.ipynb")


# Running


def test_a_new_chapter_goes_from_template_to_notebook_and_then_stays_byte_for_byte(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("MINILLM_MY", "a-learners-folder")
    root = course(tmp_path)
    document = find("01", root, [Chapter()])
    assert "begins a new notebook" in edit(document, [Chapter()])
    begun = from_text(document.text.read_text("utf-8"))
    assert begun.cells[0].source == title_cell(Chapter())
    assert "setup(seed=0)" in begun.cells[1].source
    assert "beginning of a new notebook" in edit(document, [Chapter()])

    document.text.write_text(
        "# %% [markdown]\n# # 01 · To be replaced\n\n# %%\nimport os, time\n"
        'print(os.path.basename(os.getcwd()), os.environ["MINILLM_BUILD"])\n'
        'print("learner" in os.environ["MINILLM_MY"])\n\n'
        '# %% tags=["nbval-ignore-output"]\nprint(time.time())\n\n# %%\n'
        "print(f'0.{time.time_ns() % 2 + 50}')\n",
        encoding="utf-8",
    )
    assert build(document, [Chapter()]).startswith("01_tokenizer: written, 4 cells changed (")
    first = document.notebook.read_bytes()
    notebook = nbformat.reads(first.decode("utf-8"), as_version=4)
    assert notebook.cells[0].source == title_cell(Chapter())
    assert notebook.cells[1].outputs[0].text == "course 1\nFalse\n"
    assert [cell.get("execution_count") for cell in notebook.cells] == [None, 1, 2, 3]
    assert title_cell(Chapter()).split("\n")[0] in document.text.read_text("utf-8")

    stamp = document.notebook.stat().st_mtime_ns
    assert build(document, [Chapter()]).startswith("01_tokenizer: unchanged (")
    assert document.notebook.read_bytes() == first
    assert document.notebook.stat().st_mtime_ns == stamp
    assert not list(document.notebook.parent.glob(".*"))


def test_refresh_takes_every_new_output(tmp_path, monkeypatch):
    stored = book(code("print(0.5)", "0.6\n"), code("print(7)", "7\n"))
    fresh = book(code("print(0.5)", "0.5\n"), code("print(7)", "7\n"))
    monkeypatch.setattr(notebooks, "execute", lambda *_: fresh)
    document = Document(course(tmp_path, n01_x=stored), "01_x")
    assert "01_x: unchanged" in build(document)
    assert "1 cell changed" in build(document, refresh=True)
    assert read(document.notebook) == fresh


def test_a_failing_cell_is_shown_with_its_number_and_nothing_is_written(tmp_path):
    notebook = book(new_markdown_cell("# Town"), code("x = 1"), code("x / 0\n# why?"))
    document = Document(course(tmp_path, n01_x=notebook), "01_x")
    before = document.notebook.read_bytes()
    with pytest.raises(Refused) as refusal:
        build(document)
    text = str(refusal.value)
    assert "01_x: code cell 2 (cell 3 of 3) failed, nothing was written." in text
    assert "x / 0\n    # why?" in text
    assert "ZeroDivisionError: division by zero" in text
    assert "\x1b" not in text
    assert document.notebook.read_bytes() == before


def test_a_cell_that_takes_too_long_or_kills_its_kernel_is_shown(tmp_path):
    with pytest.raises(Refused, match=r"longer than 1 seconds"):
        execute(book(code("import time; time.sleep(60)")), tmp_path, cell_seconds=1)
    stops = book(code("import os; os._exit(int(os.environ['STATUS']))"))
    with pytest.raises(Refused, match=r"code cell 1 (.|\n)*os\._exit(.|\n)*died"):
        execute(stops, tmp_path, environment={"STATUS": "1"})


def test_a_notebook_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.ipynb"
    path.write_text("old", encoding="utf-8")

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(notebooks.os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        notebooks._write(path, "new")
    assert path.read_text("utf-8") == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.ipynb"]


# The command line


def test_the_command_line_prints_a_refusal_and_ends_with_1(capsys):
    assert notebooks.main(["99"]) == 1
    assert "There is no notebook '99'" in capsys.readouterr().err
    assert notebooks.main(["edit"]) == 1
    assert "Say which notebook to edit" in capsys.readouterr().err


def test_the_record_holds_both_hashes(tmp_path):
    document = Document(course(tmp_path, n01_x=book(code("x = 1"))), "01_x")
    edit(document)
    agreed = json.loads(document.record.read_text("utf-8"))
    assert agreed["notebook"] == agreed["text"] == inputs_hash(book(code("x = 1")))
    shutil.rmtree(document.text.parent)
    assert documents(tmp_path) == [document]
