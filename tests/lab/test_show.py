import pytest

from minillm.lab import track
from minillm.lab.show import show, without_docstring

double = lambda x: 2 * x  # noqa: E731


def example(x):
    """Double a number.

    In two lines.
    """
    return 2 * x


def bare(x):
    return x


def test_the_code_is_shown_without_its_docstring(capsys):
    show(example)
    assert capsys.readouterr().out == "def example(x):\n    return 2 * x\n"


def test_the_docstring_comes_on_request(capsys):
    show(example, docstring=True)
    assert "In two lines." in capsys.readouterr().out


def test_what_has_no_docstring_is_shown_whole(capsys):
    show(bare)
    assert capsys.readouterr().out == "def bare(x):\n    return x\n"


def test_a_function_that_is_only_a_docstring_stays():
    source = 'def f():\n    "All there is."\n'
    assert without_docstring(source) == source


@pytest.mark.parametrize("thing", [3, len, "text" * 9999])
def test_what_has_no_python_source_is_refused(thing):
    with pytest.raises(ValueError, match="written in Python") as raised:
        show(thing)
    assert len(str(raised.value)) < 200


def test_a_module_is_shown_without_its_docstring_and_a_lambda_as_its_line(capsys):
    show(track)
    out = capsys.readouterr().out
    assert out.startswith("import sys\n")
    assert "Yield the steps" in out
    show(double)
    assert capsys.readouterr().out == "double = lambda x: 2 * x  # noqa: E731\n"


def test_a_method_is_shown_from_the_margin(capsys):
    class Example:
        def method(self):
            return 1

    show(Example.method)
    assert capsys.readouterr().out == "def method(self):\n    return 1\n"


def test_a_line_separator_does_not_shift_the_docstring():
    source = 'def f(x="\u2028"):\n    "Doc."\n    return x\n'
    assert without_docstring(source) == 'def f(x="\u2028"):\n    return x\n'


def test_a_function_typed_at_a_prompt_has_no_source():
    namespace = {}
    exec("def f(): pass", namespace)
    with pytest.raises(ValueError, match="written in Python"):
        show(namespace["f"])
