import pytest

from minillm.lab.show import show, without_docstring


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


@pytest.mark.parametrize("thing", [3, len, "text"])
def test_what_has_no_python_source_is_refused(thing):
    with pytest.raises(ValueError, match="written in Python"):
        show(thing)
