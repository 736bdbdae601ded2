"""What counts as the same output: by hand, against nbval, and by law."""

import contextlib
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_output
from nbval.plugin import coalesce_streams

from minillm.lab.expect import expect
from tools.compare import differences, explain, same_outputs, same_text

# By hand


@pytest.mark.parametrize(
    ("stored", "fresh"),
    [
        ("loss 2.3456", "loss 2.3459"),  # 1.3e-4 of the value
        ("loss 2.3456", "loss 2.3502"),  # just below 2e-3 of the value
        ("0.3", "0.4"),  # one unit in the last place
        ("0.01", "0.02"),
        ("1e-07", "2e-07"),
        ("1.234e+04", "1.236e+04"),
        ("576.0 GiB.", "576.1 GiB."),
        ("(0.25, 0.75)", "(0.2501, 0.7499)"),
        ("tensor([0.1000, -0.2000])", "tensor([0.1001, -0.2001])"),
        ("2.50x faster, 1.5GB", "2.51x faster, 1.5GB"),
        ("x=3.142", "x=3.141"),
        ("2.35", "2.346"),  # `:.4g` dropped a zero
    ],
)
def test_floats_within_the_tolerance_are_equal(stored, fresh):
    assert same_text(stored, fresh)
    assert explain(stored, fresh) == ""


@pytest.mark.parametrize(
    ("stored", "fresh"),
    [
        ("loss 2.3456", "loss 2.3506"),  # just above 2e-3
        ("0.3", "0.5"),
        ("0.30", "0.32"),
        ("1.2e-07", "3.4e-07"),  # far in size, near in absolute terms
        ("1.0e-05", "1.0e+05"),
        ("step 10", "step 11"),
        ("18", "18.0"),  # a count that became a float
        ("10000", "10001"),  # whole numbers have no tolerance
        ("7", "07"),
        ("-0.5", "0.5"),
        ("+0.5", "0.5"),
        ("nan", "0.5"),
        ("inf", "-inf"),
        ("torch 2.13.0", "torch 2.13.1"),
        ("task 1.2.3", "task 1.2.4"),
        ("v1.25", "v1.251"),
        ("model-0.5.bin", "model-0.6.bin"),
        ("127.0.0.1", "127.0.0.2"),
        ("1.5e3.2", "1.5e3.3"),
        ("1.50e3.2", "1.51e3.2"),
        ("0.5", "0.55"),
        ("1.5e9999999", "1.6e9999999"),
        ("1_000.5", "1_000.6"),
        (".51", ".52"),
        ("It is 18.", "It is 19."),
        ("red 0.5", "Red 0.5"),
        ("0.5  red", "0.5 red"),
        ("a\n", "a"),
        ("one\ntwo", "one"),
        ("0.5\x00", "0.5\x000.5"),
        ("1e9999999", "2e9999999"),
    ],
)
def test_everything_else_must_be_the_same(stored, fresh):
    assert not same_text(stored, fresh)
    assert not same_text(fresh, stored)
    assert explain(stored, fresh)


@pytest.mark.parametrize(
    ("stored", "fresh"),
    [
        ("✔ a: 1.58 (at most 1.65)", "✔ a: 0.2 (at most 1.65)"),
        ("✔ a: 3 (at least 3)", "✔ a: 1200 (at least 3)"),
        ("✔ a: 1.5 (between 1.4 and 1.7)", "✔ a: 1.69 (between 1.4 and 1.7)"),
        ("✔ a: -0.5 (between -1 and 0)", "✔ a: -0.9 (between -1 and 0)"),
        ("✔ a: 12 s (1 run): 2e-09 (at most 1e-06)", "✔ a: 12 s (1 run): 0 (at most 1e-06)"),
        # Rounded for print: 123457 is at least 123456.7, although not 123500.
        ("✔ a: 1.2 (at most 1.235)", "✔ a: 1.235 (at most 1.235)"),
        ("✔ a: 200000 (at least 1.235e+05)", "✔ a: 123457 (at least 1.235e+05)"),
        ("✔ a: 5 (at most 99997)", "✔ a: 1e+05 (at most 99997)"),
        ("✔ a: 200,000 (at least 123,500)", "✔ a: 123,457 (at least 123,500)"),
        (
            "✔ a: 1,200,000 (between 1,000,000 and 2e+09)",
            "✔ a: 1e+09 (between 1,000,000 and 2e+09)",
        ),
    ],
)
def test_a_measured_number_may_move_within_its_bound(stored, fresh):
    assert same_text(stored, fresh)


@pytest.mark.parametrize(
    ("stored", "fresh", "why"),
    [
        ("✔ a: 1.58 (at most 1.65)", "✔ a: 1.58 (at most 1.66)", "the bound differs"),
        ("✔ a: 1.58 (at most 1.65)", "✔ a: 1.58 (at least 1.65)", "the bound differs"),
        ("✔ a: 1.58 (at most 1.65)", "✔ b: 1.58 (at most 1.65)", "the sentence differs"),
        ("✔ 0.50 a: 1 (at most 2)", "✔ 0.501 a: 1 (at most 2)", "the sentence differs"),
        ("✔ a: 9.58 (at most 1.65)", "✔ a: 1.58 (at most 1.65)", "the stored number is not at"),
        ("✔ a: 1 (between 2 and 3)", "✔ a: 2 (between 2 and 3)", "the stored number is not betw"),
        ("✔ a: 1.25 (at most 1.2)", "✔ a: 1.1 (at most 1.2)", "the stored number is not at"),
        ("✔ a: 1.201 (at most 1.2)", "✔ a: 1.1 (at most 1.2)", "the stored number is not at"),
        ("✔ a: 1.1 (at most 1.2)", "✔ a: 1.25 (at most 1.2)", "the new number is not at"),
        ("✔ a: 12,345 (at most 12,346)", "✔ a: 12,347 (at most 12,346)", "the new number is not"),
        ("✔ a: 9,000 (at most 10,000)", "✔ a: 9,000 (at most 10,001)", "the bound differs"),
        ("✔ a: 1,0 (at most 9)", "✔ a: 1,1 (at most 9)", "compared exactly"),
        ("✔ a: 46,702 (exactly 46,702)", "✔ a: 46,703 (exactly 46,703)", "compared exactly"),
        ("✔ a: 1.002 (at most 1)", "✔ a: 1 (at most 1)", "the stored number is not at"),
        ("✔ a: 5 (at most 4)", "✔ a: 4 (at most 4)", "the stored number"),
        ("✔ a: 18.01 (exactly 18.01)", "✔ a: 18.02 (exactly 18.01)", "compared exactly"),
        ("✔ a: nan (at most 1)", "✔ a: 0.5 (at most 1)", "compared exactly"),
        (" ✔ a: 0.51 (at most 1)", " ✔ a: 0.52 (at most 1)", "compared exactly"),
        ("✔ a: 1.58 (at most 1.65) ", "✔ a: 1.59 (at most 1.65) ", "compared exactly"),
        ("1.2 ✔", "1.3 ✔", "compared exactly"),
        ("1.2 ☐ to do", "1.2 ✘ row 0.51", "compared exactly"),
        ("1.2 ✘ row 0.51", "1.2 ✘ row 0.52", "compared exactly"),
    ],
)
def test_sentence_bound_and_status_may_not_move(stored, fresh, why):
    assert not same_text(stored, fresh)
    assert why in explain(stored, fresh)


def test_an_explanation_names_the_line_then_what_was_stored_then_what_came():
    assert explain("a\nloss 2.30\nb\n", "a\nloss 9.31\nb\n") == (
        "line 2: 2.30 and 9.31 are more than 0.019 apart\n  stored: loss 2.30\n  came:   loss 9.31"
    )


def test_an_explanation_finds_the_missing_and_the_new_line():
    assert explain("one\ntwo\n0.50\n", "one\n0.51\nfour\n") == (
        "line 2 is missing\n"
        "  stored: two\n"
        "line 3: 0.50 and 0.51 are more than 0.01 apart\n"
        "  stored: 0.50\n"
        "  came:   0.51\n"
        "line 3 is new\n"
        "  came:   four"
    ).replace(
        "line 3: 0.50 and 0.51 are more than 0.01 apart\n  stored: 0.50\n  came:   0.51\n", ""
    )


def test_a_long_explanation_is_cut_and_says_so():
    text = explain("\n".join("abcdefghijklmnopq"), "\n".join("ABCDEFGHIJKLMNOPQ"))
    assert text.endswith("… and 5 more places")
    assert text.count("stored: ") == 12


def stream(text, name="stdout"):
    return new_output("stream", name=name, text=text)


def display(kind="display_data", /, **data):
    return new_output(kind, {name.replace("_", "/"): value for name, value in data.items()})


def test_chunks_of_a_stream_are_one_text_wherever_displays_stand():
    stored = [stream("one\ntwo\n"), display(text_plain="x")]
    fresh = [stream("one\n"), display(text_plain="x"), stream("two\n")]
    assert differences(stored, fresh) == []


def test_a_result_and_a_display_are_the_same():
    assert differences([display("execute_result", text_plain="7")], [display(text_plain="7")]) == []


def test_new_errors_on_stderr_are_printed_in_full():
    (text,) = differences([], [stream("UserWarning: plums\n  are sold out\n", "stderr")])
    assert "stderr: nothing stored" in text
    assert "UserWarning: plums\n" in text
    assert "are sold out" in text


def test_pictures_are_counted_but_their_pixels_are_not_compared():
    picture = display(image_png="AAAA", text_plain="Figure: a curve")
    other = display(image_png="BBBB", text_plain="Figure: a curve")
    third = display(image_png="BBBB", text_plain="Figure: a bar")
    assert differences([picture], [other]) == []
    assert "Figure: a bar" in differences([picture], [third])[0]
    assert differences([picture], [display(text_plain="Figure: a curve")])
    assert "image/png: 1 stored, 2 came" in differences([picture], [other, other])


def test_markdown_is_compared_exactly_because_it_may_be_source_code():
    stored, fresh = (display(text_markdown=f"    eps = {eps}") for eps in ("0.010", "0.011"))
    (text,) = differences([stored], [fresh])
    assert "compared exactly" in text
    assert differences([display(text_html="<td>0.010")], [display(text_html="<td>0.011")]) == []


def test_json_is_compared_as_a_value():
    one, two = ({"application/json": {"plums": n}} for n in (1, 2))
    assert differences([new_output("display_data", one)], [new_output("display_data", one)]) == []
    assert differences([new_output("display_data", one)], [new_output("display_data", two)])


def test_of_an_exception_kind_and_message_are_compared_but_not_the_traceback():
    def error(value, line):
        return new_output("error", ename="ValueError", evalue=value, traceback=[line])

    assert differences([error("no plums", "line 1")], [error("no plums", "line 2")]) == []
    assert "no pears" in differences([error("no plums", "")], [error("no pears", "")])[0]


def test_overwritten_text_is_not_compared():
    assert differences([stream("done\n")], [stream("50 %\rdone\n")]) == []


def test_same_outputs_looks_at_cells():
    one, two, three = ({"outputs": [stream(text)]} for text in ("0.50", "0.51", "0.59"))
    assert same_outputs(one, two)
    assert not same_outputs(one, three)


# Reference


@given(st.lists(st.sampled_from(["a\n", "b", "10 %\r", "20 %\r\n", "c\n"]), max_size=8))
def test_streams_are_merged_as_nbval_merges_them(chunks):
    merged = coalesce_streams([stream(chunk) for chunk in chunks])
    text = "".join(output.text for output in merged).replace("\r\n", "\n")
    assert differences([stream(text)] if merged else [], [stream(c) for c in chunks]) == []


# Law

TEXTS = st.text(alphabet="ab 01359.-+e\n✔☐:()", max_size=40)
FLOATS = st.floats(min_value=1e-6, max_value=1e6)


@given(TEXTS)
def test_a_text_equals_itself(text):
    assert same_text(text, text)


@given(TEXTS, TEXTS)
def test_being_equal_does_not_depend_on_the_order(one, other):
    assert same_text(one, other) == same_text(other, one)


@given(TEXTS, TEXTS)
def test_there_is_an_explanation_exactly_when_texts_differ(one, other):
    assert bool(explain(one, other)) != same_text(one, other)


@given(TEXTS, TEXTS)
def test_texts_without_floats_are_equal_only_if_they_are_identical(one, other):
    if not re.search(r"\d\.\d|\de|✔", one + other):
        assert same_text(one, other) == (one == other)


@given(TEXTS, TEXTS, FLOATS)
def test_what_stands_around_a_float_is_compared_exactly(before, after, value):
    one, other = (f"{each} {value:.4g} end" for each in (before, after))
    if not re.search(r"\d\.\d|\de|✔", before + after):
        assert same_text(one, other) == (before == after)


@given(FLOATS, st.floats(min_value=-1.8e-3, max_value=1.8e-3))
def test_a_small_relative_change_passes(value, change):
    assert same_text(f"x {value:.6e} y", f"x {value * (1 + change):.6e} y")


@given(FLOATS, st.floats(min_value=2.2e-3, max_value=10))
def test_a_larger_change_fails(value, change):
    assert not same_text(f"x {value:.6e} y", f"x {value * (1 + change):.6e} y")


NUMBERS = st.one_of(st.integers(-(10**7), 10**7), st.floats(min_value=-1e8, max_value=1e8))


@given(NUMBERS, NUMBERS, NUMBERS)
def test_what_expect_prints_may_stand_for_what_it_printed_before(one, other, bound):
    lines = []
    for value in (one, other):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.suppress(AssertionError):
            expect("it learns", value, at_least=bound)
        lines.append(printed.getvalue())
    if all(lines):
        assert same_text(*lines)


@given(FLOATS, FLOATS, FLOATS)
def test_any_numbers_that_keep_the_bound_may_stand_for_each_other(one, other, bound):
    if max(one, other) <= bound:
        lines = [f"✔ it learns: {value:.4g} (at most {bound:.4g})" for value in (one, other)]
        assert same_text(*lines)
