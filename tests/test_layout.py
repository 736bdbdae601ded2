"""The rules of the house hold here, and each of them sees a planted violation.

The rules are in `layout_rules.py`. The violations are planted, one at a time, in a small house that
keeps every rule: so what a rule then finds is the violation and nothing else.
"""

from pathlib import Path

import pytest

from tests import name_rules, part_rules  # noqa: F401  (they register their rules)
from tests.layout_rules import CI_PYTHON, RULES, code_lines, imports
from tools import documents

ROOT = Path(__file__).resolve().parents[1]

BPE = '''"""Learn merges.

Chapter: 01
"""

import numpy as np


def train(text: str) -> list[str]:
    """Merge the commonest pair."""
    return list(np.array(list(text)))
'''
HOUSE = {
    "pyproject.toml": """
[project]
name = "minillm"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["numpy>=2.1", "torch>=2.9"]
[project.optional-dependencies]
course = ["nbval==0.11.0"]
test = ["pytest>=9"]
""",
    "constraints.txt": "numpy==2.4.6\ntorch==2.13.0\nnbval==0.11.0\npytest==9.2.0\n",
    "environment.yml": """
name: minillm
channels: [conda-forge, nodefaults]
dependencies: [python=3.11, pip, {pip: ["-e .[course,test]"]}]
""",
    "course/syllabus.toml": '[[chapter]]\nnumber = "01"\n[[chapter]]\nnumber = "02"\n',
    "course/01_tokenizer.ipynb": """{"cells": [
        {"cell_type": "markdown", "source": ["import nothing"]},
        {"cell_type": "code", "source": ["%matplotlib inline\\n", "import numpy as np"]}]}""",
    "course/glossary.toml": """
[[term]]
term = "number of plums"
chinese = "李子数"
identifier = "n_plums"
meaning = "How many plums there are."
chapter = "01"
banned = ["plum_count"]
banned_in = { amount = ["text"], plums = ["bpe"] }

[[no_name]]
words = ["thing"]
folders = ["minillm", "course"]
instead = "a noun"
""",
    "minillm/__init__.py": '"""A small house."""\n\n__version__ = "0.1.0"\n',
    "minillm/cli.py": '''"""The command line.

Chapter: app
"""


def _go():
    import minillm.text.ngram
''',
    "minillm/text/__init__.py": '"""Text."""\n',
    "minillm/text/bpe.py": BPE,
    "minillm/text/ngram.py": '''"""Count pairs.

Chapter: 02
"""

from minillm.text import bpe

MERGES = bpe.train("aab")
''',
    "solutions/ch01_tokenizer.py": "from minillm.text.bpe import train\n\nGO = train\n",
    "tests/test_cli.py": "",
    "tests/text/test_bpe.py": "",
    "tests/text/test_ngram.py": "",
    "tools/bootstrap.py": "import sys\n",
    "tools/jobs.py": "import sys\n\n\ndef learn():\n    import minillm\n\n    return minillm\n",
}

# rule, file, its new text (None: the file is taken away), words of the finding
PLANTED = [
    (
        "modules_keep_to_their_chapter",
        "minillm/text/bpe.py",
        BPE + "\n\ndef late():\n    from minillm.text import ngram\n\n    return ngram\n",
        "bpe.py:15 (chapter 01) imports minillm.text.ngram (chapter 02)",
    ),
    (
        "modules_keep_to_their_chapter",
        "minillm/text/bpe.py",
        BPE + '\nimport importlib\n\nLATE = importlib.import_module("minillm.text.ngram")\n',
        "imports minillm.text.ngram (chapter 02)",
    ),
    (
        "modules_keep_to_their_chapter",
        "minillm/text/bpe.py",
        BPE + "\nimport minillm.cli\n",
        "minillm.cli, which is an app",
    ),
    (
        "modules_keep_to_their_chapter",
        "minillm/text/bpe.py",
        BPE + "\nfrom . import ngram\n",
        "write the full path",
    ),
    (
        "modules_keep_to_their_chapter",
        "minillm/cli.py",
        '"""The command line.\n\nChapter: app\n"""\n\nimport tools.stubs\n',
        "imports tools.stubs; the library stands on its own",
    ),
    (
        "modules_keep_to_their_chapter",
        "solutions/ch01_tokenizer.py",
        "import minillm.text.ngram\n",
        "ch01_tokenizer.py:1 (chapter 01)",
    ),
    (
        "modules_keep_to_their_chapter",
        "exercises/graders/ch01_tokenizer.py",
        "from minillm.text.ngram import MERGES\n",
        "graders/ch01_tokenizer.py:1 (chapter 01)",
    ),
    ("files_are_short", "minillm/text/bpe.py", BPE + "x = 1\n" * 250, "253 lines of code"),
    (
        "nothing_is_exported_twice",
        "minillm/text/__init__.py",
        '"""Text."""\n\nfrom minillm.text.bpe import train\n',
        "text/__init__.py:3 holds more than a docstring",
    ),
    (
        "nothing_is_exported_twice",
        "minillm/text/ngram.py",
        'from minillm.text.bpe import train\n\n__all__ = ["train"]\n',
        "exports train, which it imports",
    ),
    (
        "nothing_is_exported_twice",
        "minillm/text/ngram.py",
        "from minillm.text.bpe import train as train\n",
        "re-exports train",
    ),
    (
        "nothing_is_exported_twice",
        "minillm/text/ngram.py",
        "from minillm.text.bpe import *\n",
        "re-exports *",
    ),
    ("modules_say_their_chapter", "minillm/text/bpe.py", "x = 1\n", "bpe.py has no docstring"),
    (
        "modules_say_their_chapter",
        "minillm/text/bpe.py",
        '"""Chapter: 01\n\nLearn merges."""\n',
        "last line must be `Chapter: NN`",
    ),
    (
        "modules_say_their_chapter",
        "minillm/text/bpe.py",
        '"""Merges.\n\nChapter: app\n"""\n',
        "says chapter app; it must be a number",
    ),
    (
        "modules_say_their_chapter",
        "minillm/cli.py",
        '"""Words.\n\nChapter: 01\n"""\n',
        "it must be app",
    ),
    (
        "modules_say_their_chapter",
        "minillm/text/bpe.py",
        '"""Merges.\n\nChapter: 77\n"""\n',
        "the syllabus has no chapter 77",
    ),
    (
        "parts_are_one_level_deep",
        "minillm/text/deep/deeper.py",
        '"""Deep.\n\nChapter: 01\n"""\n',
        "must be minillm/<part>/<module>.py",
    ),
    (
        "parts_are_one_level_deep",
        "minillm/words.py",
        '"""Words.\n\nChapter: 01\n"""\n',
        "minillm/words.py must be",
    ),
    ("parts_are_one_level_deep", "minillm/text/__init__.py", None, "minillm/text has no __init__"),
    ("names_say_something", "minillm/text/utils.py", '"""Words."""\n', "'utils' says nothing"),
    ("names_say_something", "minillm/common/words.py", '"""Words."""\n', "'common' says nothing"),
    (
        "documents_say_what_the_library_says",
        "README.md",
        "# minillm\n",
        "README.md <!-- parts --> is missing",
    ),
    (
        "documents_say_what_the_library_says",
        "course/GLOSSARY.md",
        None,
        "GLOSSARY.md is missing",
    ),
    (
        "documents_say_what_the_library_says",
        "minillm/text/bpe.py",
        BPE.replace("Learn merges", "Learn many merges"),
        "course/LIBRARY.md is out of date",
    ),
    ("the_readme_is_short", "README.md", "long " * 1_801, "README.md has 9,005 bytes"),
    (
        "names_are_the_standard_ones",
        "minillm/text/bpe.py",
        BPE + "\n\nclass Basket:\n    plum_count: int = 1\n",
        "minillm/text/bpe.py:15 plum_count is not the standard name: n_plums",
    ),
    (
        "names_are_the_standard_ones",
        "tools/jobs.py",
        "def pick(plum_count):\n    return plum_count\n",
        "tools/jobs.py:1 plum_count",
    ),
    ("names_are_the_standard_ones", "tests/test_cli.py", "pick(plum_count=1)\n", "plum_count"),
    ("names_are_the_standard_ones", "solutions/ch01_tokenizer.py", "a.plum_count = 1\n", "plum"),
    ("names_are_the_standard_ones", "tests/text/test_ngram.py", "amount = 1\n", ":1 amount"),
    ("names_are_the_standard_ones", "tests/text/test_bpe.py", "with f() as plums: ...\n", "plums"),
    (
        "names_are_the_standard_ones",
        "course/01_tokenizer.ipynb",
        '{"cells": [{"cell_type": "code", "source": ["for thing in x: pass"]}]}',
        "01_tokenizer.ipynb:1 thing is not the standard name: a noun",
    ),
    (
        "parts_keep_their_order",
        "minillm/lab/early.py",
        '"""Early.\n\nChapter: 02\n"""\n\n\ndef go():\n    import minillm.text.ngram\n',
        "minillm/lab/early.py:8 (lab) imports minillm.text.ngram of a later part",
    ),
    (
        "parts_keep_their_order",
        "minillm/plums/pick.py",
        '"""Pick.\n\nChapter: 01\n"""\n',
        "minillm/plums/ is no part",
    ),
    (
        "every_module_is_used",
        "minillm/cli.py",
        '"""The command line.\n\nChapter: app\n"""\n',
        "minillm/text/ngram.py is used by no notebook and no app",
    ),
    ("every_module_has_its_tests", "tests/text/test_bpe.py", None, "tests/text/test_bpe.py"),
    ("every_module_has_its_tests", "tests/test_cli.py", None, "minillm/cli.py has no tests"),
    (
        "public_names_have_docstrings",
        "minillm/text/bpe.py",
        BPE + "\n\ndef encode(text):\n    return text\n",
        "bpe.py:14 encode has no docstring",
    ),
    (
        "public_names_have_docstrings",
        "minillm/text/bpe.py",
        BPE + '\n\nclass Coder:\n    """A coder."""\n\n    def encode(self):\n        return 1\n',
        "Coder.encode has no docstring",
    ),
    (
        "the_library_is_finished",
        "minillm/text/bpe.py",
        BPE + '\n\ndef encode():\n    """Encode."""\n    raise NotImplementedError("later")\n',
        "raises NotImplementedError",
    ),
    ("the_library_is_finished", "tools/jobs.py", "# TODO: learn\n", "tools/jobs.py:1 TODO"),
    (
        "optimizers_step_in_one_place",
        "minillm/text/bpe.py",
        BPE + "\n\ndef _learn(state):\n    state.optimizer.step(lambda: 0)\n",
        "bpe.py:15 steps an optimizer",
    ),
    (
        "optimizers_step_in_one_place",
        "tools/jobs.py",
        "sgd.step()\n",
        "jobs.py:1 steps an optimizer",
    ),
    (
        "third_party_imports_are_declared",
        "minillm/text/bpe.py",
        BPE + "\nimport pandas as pd\n",
        "bpe.py:13 imports pandas; declare it",
    ),
    (
        "third_party_imports_are_declared",
        "minillm/text/bpe.py",
        BPE + "\nimport pytest\n",
        "imports pytest at once, and it is only in an extra",
    ),
    (
        "third_party_imports_are_declared",
        "course/01_tokenizer.ipynb",
        '{"cells": [{"cell_type": "code", "source": ["import pandas"]}]}',
        "01_tokenizer.ipynb:1 imports pandas",
    ),
    ("third_party_imports_are_declared", "conftest.py", "import xdist\n", "conftest.py:1 imports"),
    (
        "set_up_needs_the_standard_library_alone",
        "tools/bootstrap.py",
        "def main():\n    import numpy\n",
        "bootstrap.py:2 imports numpy",
    ),
    (
        "set_up_needs_the_standard_library_alone",
        "tools/jobs.py",
        "from minillm.lab import start\n",
        "jobs.py:1 imports minillm",
    ),
    (
        "the_lists_of_versions_agree",
        "constraints.txt",
        HOUSE["constraints.txt"].replace("numpy==2.4.6", "numpy==2.0.1"),
        "has numpy==2.0.1, not numpy>=2.1",
    ),
    (
        "the_lists_of_versions_agree",
        "constraints.txt",
        HOUSE["constraints.txt"].replace("2.13.0", "2.13.0+cpu"),
        "torch==2.13.0+cpu must be NAME==VERSION",
    ),
    (
        "the_lists_of_versions_agree",
        "constraints.txt",
        HOUSE["constraints.txt"].replace("pytest==9.2.0\n", ""),
        "constraints.txt lacks pytest",
    ),
    (
        "the_lists_of_versions_agree",
        "constraints.txt",
        HOUSE["constraints.txt"] + "NumPy==2.4.5\n",
        "names numpy twice",
    ),
    (
        "the_lists_of_versions_agree",
        "environment.yml",
        HOUSE["environment.yml"].replace("3.11", "3.10"),
        "python=3.10 is not >=3.11",
    ),
    (
        "the_lists_of_versions_agree",
        "environment.yml",
        HOUSE["environment.yml"].replace("pip,", "pip, numpy=2,"),
        "beside Python only pip",
    ),
    (
        "the_lists_of_versions_agree",
        "minillm/__init__.py",
        '"""A small house."""\n\n__version__ = "0.2.0"\n',
        "__version__ is not pyproject.toml's 0.1.0",
    ),
    (
        "continuous_integration_has_the_tested_versions",
        "constraints.txt",
        HOUSE["constraints.txt"].replace("pytest==9.2.0", "pytest==0.0.1"),
        "is installed; constraints.txt: pytest==0.0.1",
    ),
    ("importing_has_no_effect", "minillm/text/bpe.py", BPE + 'print("hello")\n', "hello"),
    (
        "importing_has_no_effect",
        "minillm/text/bpe.py",
        BPE + "\nnp.random.seed(0)\n",
        "minillm.text.bpe changes numpy's random state",
    ),
    (
        "importing_has_no_effect",
        "minillm/text/bpe.py",
        BPE + 'import os\n\nos.environ["PLANTED"] = "1"\n',
        "minillm.text.bpe changes the environment",
    ),
    ("importing_has_no_effect", "minillm/text/bpe.py", BPE + "1 / 0\n", "ZeroDivisionError"),
    (
        "files_end_their_lines_in_one_way",
        "minillm/text/bpe.py",
        BPE.replace("\n", "\r\n"),
        "bpe.py has carriage returns",
    ),
    (
        "files_end_their_lines_in_one_way",
        "tools/jobs.py",
        "# -*- coding: latin-1 -*-\n",
        "is iso-8859-1, not utf-8",
    ),
]


@pytest.fixture
def house(tmp_path):
    """A small project that keeps every rule."""
    for name, text in HOUSE.items():
        write(tmp_path / name, text)
    write(
        tmp_path / "README.md", "".join(f"<!-- {b} -->\n<!-- /{b} -->\n" for b in documents.BLOCKS)
    )
    documents.write(tmp_path)
    return tmp_path


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")


@pytest.mark.parametrize("name", RULES)
def test_this_checkout_keeps(name):
    found = RULES[name](ROOT)
    assert not found, "\n" + "\n".join(found)


def test_the_small_house_keeps_every_rule(house):
    assert {name: rule(house) for name, rule in RULES.items() if rule(house)} == {}


@pytest.mark.parametrize(
    ("name", "file", "text", "words"), PLANTED, ids=[f"{p[0]}-{p[3]}" for p in PLANTED]
)
def test_a_planted_violation_is_found_by(name, file, text, words, house, monkeypatch):
    if name == "continuous_integration_has_the_tested_versions":
        monkeypatch.setenv("CI", "1")
        monkeypatch.setattr("sys.version_info", (*CI_PYTHON, 0, "final", 0))
    if text is None:
        (house / file).unlink()
    else:
        write(house / file, text)
    found = RULES[name](house)
    assert len(found) >= 1
    assert words in "\n".join(found)


def test_every_rule_has_a_planted_violation():
    assert {planted[0] for planted in PLANTED} == set(RULES)


def test_installed_versions_are_asked_in_continuous_integration_only(house, monkeypatch):
    write(house / "constraints.txt", "pytest==0.0.1\n")
    rule = RULES["continuous_integration_has_the_tested_versions"]
    monkeypatch.delenv("CI", raising=False)
    assert rule(house) == []
    monkeypatch.setenv("CI", "1")
    monkeypatch.setattr("sys.version_info", (3, 14, 0, "final", 0))
    assert rule(house) == []


def test_a_word_that_is_banned_in_one_place_is_fine_in_another(house):
    write(house / "tests/test_cli.py", "amount = plums = 1\nn_plums = amount\n")
    assert RULES["names_are_the_standard_ones"](house) == []


def test_an_import_by_from_names_the_module_and_what_may_be_one():
    import ast

    named = [i.module for i in imports(ast.parse("from minillm.text import bpe"))]
    assert named == ["minillm.text", "minillm.text.bpe"]


def test_code_lines_are_counted_without_docstrings_comments_and_blanks():
    assert code_lines(BPE) == 3
