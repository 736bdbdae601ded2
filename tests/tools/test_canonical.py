"""The canonical form of a notebook and the cells made from facts."""

import hashlib
import json
from dataclasses import dataclass

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import (
    new_code_cell,
    new_markdown_cell,
    new_notebook,
    new_output,
    new_raw_cell,
)

from tools.canonical import canonical, cell_id, dumps, span, title_cell


@dataclass(frozen=True)
class Chapter:
    number: object = "01"
    slug: str = "tokenizer"
    title: str = "Tokenizers"
    promise: str = "You build one."
    minutes: int = 60
    needs: tuple = ("00",)
    builds: tuple = ("minillm/text/bpe.py", "minillm/text/fast.py")
    tasks: tuple = ("1.1", "1.2", "1.3")


def code(source, *outputs, count=1, **metadata):
    return new_code_cell(source, outputs=list(outputs), execution_count=count, metadata=metadata)


def stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def only(cell):
    return canonical(new_notebook(cells=[cell])).cells[0]


# By hand


def test_ids_are_the_hash_of_kind_and_source_and_repeats_are_counted():
    cells = [code("x = 1"), new_markdown_cell("x = 1"), code("x = 1"), code("x = 1")]
    found = [cell.id for cell in canonical(new_notebook(cells=cells)).cells]
    first = hashlib.sha1(b"codex = 1").hexdigest()[:8]
    assert found == [first, cell_id("markdown", "x = 1"), f"{first}-2", f"{first}-3"]
    assert found[1] == hashlib.sha1(b"markdownx = 1").hexdigest()[:8]


def test_metadata_is_fixed_and_widget_state_goes():
    notebook = new_notebook(cells=[], metadata={"widgets": {}, "authors": ["Mei"]})
    assert canonical(notebook).metadata == {
        "kernelspec": {
            "display_name": "Python 3 (ipykernel)",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
    }


def test_of_a_cells_metadata_only_tags_stay_sorted():
    cell = only(
        code(
            "x",
            tags=["task", "hide-input"],
            execution={"iopub.status.busy": "today"},
            collapsed=True,
        )
    )
    assert cell.metadata == {"tags": ["hide-input", "task"]}
    assert only(code("x", tags=[])).metadata == {}


def test_a_misspelt_tag_stays_so_that_a_check_can_name_it():
    assert only(code("x", tags=["nbval-ignore-outputs"])).metadata.tags == ["nbval-ignore-outputs"]


def test_neighbouring_chunks_of_a_stream_become_one():
    figure = new_output("display_data", {"text/plain": "Figure: x"})
    cell = only(code("x", stream("a"), stream("b"), figure, stream("c"), stream("d", "stderr")))
    assert [output.get("text") for output in cell.outputs] == ["ab", None, "c", "d"]


def test_overwritten_progress_is_dropped():
    assert only(code("x", stream("10 %\r"), stream("20 %\rdone\n"))).outputs[0].text == "done\n"


def test_executed_cells_are_counted_from_the_top_and_unexecuted_ones_stay_so():
    result = new_output("execute_result", {"text/plain": "7"}, execution_count=40)
    cells = [code("a", count=9), new_markdown_cell("b"), code("c", count=None), code("d", result)]
    found = canonical(new_notebook(cells=cells)).cells
    assert [cell.get("execution_count") for cell in found] == [1, None, None, 2]
    assert found[3].outputs[0].execution_count == 2
    assert found[3].outputs[0].output_type == "execute_result"


def test_of_an_outputs_metadata_only_alternative_text_stays_and_pictures_are_untouched():
    output = new_output(
        "display_data",
        {"image/png": "iVBORw0KGgo=\n", "text/plain": "Figure: x"},
        metadata={"image/png": {"alt": "x", "width": 4}, "alt": "y", "needs_background": "light"},
    )
    found = only(code("x", output)).outputs[0]
    assert found.metadata == {"image/png": {"alt": "x"}, "alt": "y"}
    assert found.data == output.data


def test_a_traceback_becomes_its_last_line():
    error = new_output(
        "error", ename="ValueError", evalue="no plums", traceback=["\x1b[31mFile /somewhere"]
    )
    assert only(code("x", error)).outputs[0].traceback == ["ValueError: no plums"]


def test_blank_ends_and_carriage_returns_leave_a_source():
    assert only(code("\n\nx = 1\r\ny = 2\n\n")).source == "x = 1\ny = 2"


def test_the_file_has_sorted_keys_one_space_and_one_newline_at_the_end():
    text = dumps(canonical(new_notebook(cells=[code("print('村')", stream("村\n"))])))
    assert text.endswith("}\n")
    assert not text.endswith("\n\n")
    assert "村" in text
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def test_the_argument_is_left_alone():
    notebook = new_notebook(cells=[code("x", stream("a"), stream("b"))])
    before = nbformat.writes(notebook)
    canonical(notebook)
    assert nbformat.writes(notebook) == before


def test_the_title_cell_states_the_facts_of_the_syllabus():
    assert title_cell(Chapter()) == (
        "# 01 · Tokenizers\n\nYou build one.\n\n"
        "*60 minutes · before it: chapter 00 · you build: `minillm/text/bpe.py`, "
        "`minillm/text/fast.py` · tasks: 1.1\N{EN DASH}1.3*"
    )


def test_the_title_cell_leaves_out_what_there_is_not():
    chapter = Chapter(number=0, title="Count", needs=(), builds=(), tasks=())
    assert title_cell(chapter) == (
        "# 00 · Count\n\nYou build one.\n\n*60 minutes · before it: nothing*"
    )
    assert "chapters 00, 03" in title_cell(Chapter(needs=(0, "03")))


def test_the_title_cell_of_a_lab_leads_to_its_chapter():
    text = title_cell(Chapter(), lab=True)
    assert text.startswith("# 01 · Tokenizers · lab\n")
    assert "(../01_tokenizer.ipynb)" in text


@pytest.mark.parametrize(
    ("tasks", "phrase"),
    [
        (["1.1"], "1.1"),
        (["1.1", "1.2", "1.4"], "1.1, 1.2, 1.4"),
        (["1.9", "1.10", "1.11"], "1.9\N{EN DASH}1.11"),
        (["1.1", "2.2", "3.3"], "1.1, 2.2, 3.3"),
    ],
)
def test_a_span_names_its_ends_only_if_nothing_is_missing_between(tasks, phrase):
    assert span(tasks) == phrase


# Law

SOURCES = st.text(alphabet="ab#%= \n\r村", max_size=12)
OUTPUTS = st.one_of(
    st.builds(
        stream, st.text(alphabet="ab\r\n", max_size=8), st.sampled_from(["stdout", "stderr"])
    ),
    st.builds(lambda text: new_output("display_data", {"text/plain": text}), SOURCES),
    st.builds(lambda text: new_output("execute_result", {"text/plain": text}), SOURCES),
    st.builds(lambda text: new_output("error", ename="E", evalue=text, traceback=["t"]), SOURCES),
)
CELLS = st.one_of(
    st.builds(new_markdown_cell, SOURCES),
    st.builds(new_raw_cell, SOURCES),
    st.builds(
        lambda source, outputs, count: code(source, *outputs, count=count, tags=["task"]),
        SOURCES,
        st.lists(OUTPUTS, max_size=4),
        st.one_of(st.none(), st.integers(0, 99)),
    ),
)


@given(st.lists(CELLS, max_size=5))
def test_the_form_is_valid_and_stays_what_it_is_when_read_and_written_again(cells):
    text = dumps(canonical(new_notebook(cells=cells)))
    again = nbformat.reads(text, as_version=4)
    nbformat.validate(again)
    assert dumps(canonical(again)) == text
