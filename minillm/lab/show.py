"""Show the library's own source, live, so that what is read is what runs.

Chapter: 00
"""

import ast
import inspect
import io
import reprlib
import textwrap
from collections.abc import Callable

from minillm.lab.project import in_notebook


def show(thing: Callable, *, docstring: bool = False) -> None:
    """Display the source of a function or class.

    Args:
        thing: what to show.
        docstring: also its docstring; by default only the code, which is what a lesson is about.

    Raises:
        ValueError: there is no Python source to show (a built-in, or a number).
    """
    try:
        source = textwrap.dedent(inspect.getsource(thing))
    except (TypeError, OSError):
        raise ValueError(
            f"show takes a function, class or module written in Python; got {reprlib.repr(thing)}."
        ) from None
    print_source(source if docstring else without_docstring(source))


def without_docstring(source: str) -> str:
    """The source of one function, class or module without its docstring.

    Example:
        >>> print(without_docstring('def f(x):\\n    "Doubles."\\n    return 2 * x\\n'), end="")
        def f(x):
            return 2 * x
    """
    definition = ast.parse(source)
    if len(definition.body) == 1:
        definition = definition.body[0]
    if not isinstance(
        definition, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    ):
        return source
    if ast.get_docstring(definition) is None or len(definition.body) == 1:
        return source
    text = definition.body[0]
    lines = io.StringIO(source).readlines()
    del lines[text.lineno - 1 : text.end_lineno]
    if lines[text.lineno - 1].strip() == "":
        del lines[text.lineno - 1]
    return "".join(lines)


def print_source(source: str) -> None:
    """Python source: coloured in a notebook, plain in a terminal."""
    if in_notebook():
        from IPython.display import Markdown, display

        display(Markdown(f"```python\n{source.rstrip()}\n```"))
    else:
        print(source.rstrip())
