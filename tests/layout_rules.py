"""The rules of the house, each a function of the project's root that returns what it found.

A finding is one line: where, what is wrong, and what to do. `tests/test_layout.py` holds every rule
to this checkout and to a planted violation, so that a rule which sees nothing is seen itself.
"""

import ast
import json
import os
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from minillm.lab.map import APPS, code_lines
from tools import documents

MOST_CODE_LINES = 250
LARGEST_README = 9_000  # bytes
TOP = {"__init__.py", "__main__.py", "cli.py"}
SAYS_NOTHING = {"utils", "util", "base", "helpers", "helper", "misc", "common"}
NOT_FOR_THE_LIBRARY = ("tools", "tests", "solutions", "exercises", "course")
OURS = {"minillm", "tools", "tests", "solutions", "exercises"}
CI_PYTHON = (3, 11)
CHAPTER = re.compile(r"Chapter: (\d\d|A|app)")
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)\b")
# Where the name that is imported is not the name that is installed.
DISTRIBUTIONS = {
    "IPython": "ipython",
    "PIL": "pillow",
    "jupyter_client": "jupyter-client",
    "yaml": "pyyaml",
}

Rule = Callable[[Path], list[str]]
RULES: dict[str, Rule] = {}


def rule(function: Rule) -> Rule:
    """Register a rule under its name."""
    RULES[function.__name__] = function
    return function


@dataclass(frozen=True)
class Source:
    """One Python file, read once."""

    path: Path
    where: str
    text: str
    tree: ast.Module

    @property
    def parts(self) -> tuple[str, ...]:
        """`minillm/text/bpe.py` as `("minillm", "text", "bpe")`."""
        return Path(self.where).with_suffix("").parts

    @property
    def doc(self) -> str:
        return ast.get_docstring(self.tree) or ""

    @property
    def chapter(self) -> str | None:
        """What the docstring's last line says, or None."""
        found = CHAPTER.fullmatch(self.doc.rpartition("\n")[2].strip())
        return found[1] if found else None

    @property
    def is_app(self) -> bool:
        return self.parts[0] == "minillm" and len(self.parts) > 1 and self.parts[1] in APPS

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"


@cache
def _read(path: Path, where: str, _changed: int) -> Source:
    text = path.read_text(encoding="utf-8")
    return Source(path, where, text, ast.parse(text, where))


def sources(root: Path, *folders: str) -> list[Source]:
    """The Python files below the folders (or the files themselves), in order."""
    paths = []
    for folder in folders:
        top = root / folder
        paths += [top] if top.is_file() else sorted(top.rglob("*.py"))
    return [_read(p, p.relative_to(root).as_posix(), p.stat().st_mtime_ns) for p in paths]


def library(root: Path) -> list[Source]:
    """The modules of `minillm/`, without the `__init__` files."""
    return [source for source in sources(root, "minillm") if not source.is_package]


@dataclass(frozen=True)
class Import:
    """A module that is named by an import; `top` if it happens when the file is imported."""

    module: str
    line: int
    top: bool


def imports(tree: ast.Module) -> Iterator[Import]:
    """Every module that a file names, also inside functions and through `import_module("...")`.

    `from a.b import c` names `a.b` and `a.b.c`, since c may be a module.
    """
    inside = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        top = node not in inside
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, top) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield Import(module, node.lineno, top)
            yield from (Import(f"{module}.{a.name}", node.lineno, top) for a in node.names)
        elif isinstance(node, ast.Call) and node.args:
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            first = node.args[0]
            named = isinstance(first, ast.Constant) and isinstance(first.value, str)
            if name in ("import_module", "__import__") and named:
                yield Import(first.value, node.lineno, top)


def notebook_code(root: Path) -> Iterator[tuple[str, ast.Module]]:
    """The code of every notebook of the course, magics left out."""
    for path in sorted((root / "course").rglob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        lines = [line for cell in code for line in cell.splitlines()]
        kept = "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))
        where = path.relative_to(root).as_posix()
        yield where, ast.parse(kept, where)


# --- chapters and files --------------------------------------------------------------------------


@rule
def modules_keep_to_their_chapter(root: Path) -> list[str]:
    """A module imports its own chapter or an earlier one; apps import all, none imports them."""
    modules = {".".join(source.parts): source for source in library(root)}
    found = []
    for source in [*library(root), *sources(root, "exercises", "solutions")]:
        chapter = _chapter(source)
        for named in imports(source.tree):
            where = f"{source.where}:{named.line}"
            if named.module.startswith("."):
                found.append(f"{where} imports {named.module!r}; write the full path")
                continue
            first = named.module.partition(".")[0]
            if source.parts[0] == "minillm" and first in NOT_FOR_THE_LIBRARY:
                found.append(f"{where} imports {named.module}; the library stands on its own")
            target = modules.get(named.module)
            if target is None or source.is_app:
                continue
            if target.is_app:
                found.append(f"{where} imports {named.module}, which is an app")
            elif chapter and target.chapter and target.chapter > chapter:
                found.append(
                    f"{where} (chapter {chapter}) imports {named.module} "
                    f"(chapter {target.chapter}), which a learner has not read yet"
                )
    return found


def _chapter(source: Source) -> str | None:
    if source.parts[0] == "minillm":
        return source.chapter
    named = re.match(r"ch(\d\d|A)_", source.path.name)
    return named[1] if named else None


@rule
def files_are_short(root: Path) -> list[str]:
    """At most 250 lines of code a file; docstrings, comments and blanks are not counted."""
    return [
        f"{source.where} has {lines} lines of code; {MOST_CODE_LINES} are allowed: split it"
        for source in library(root)
        if (lines := code_lines(source.text)) > MOST_CODE_LINES
    ]


@rule
def nothing_is_exported_twice(root: Path) -> list[str]:
    """`__init__.py` holds a docstring alone, and a name has one import path."""
    found = []
    for source in sources(root, "minillm"):
        body = source.tree.body[1:] if source.doc else source.tree.body
        if source.is_package:
            for node in body:
                if source.parts == ("minillm", "__init__") and _assigns(node) == {"__version__"}:
                    continue
                found.append(f"{source.where}:{node.lineno} holds more than a docstring")
            continue
        defined = {getattr(node, "name", None) for node in body} | set().union(
            *(_assigns(node) for node in body)
        )
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                again = [alias.name for alias in node.names if alias.asname == alias.name]
                stars = [alias.name for alias in node.names if alias.name == "*"]
                for name in again + stars:
                    found.append(f"{source.where}:{node.lineno} re-exports {name}")
            elif _assigns(node) == {"__all__"}:
                names = {element.value for element in node.value.elts}
                for name in sorted(names - defined):
                    found.append(f"{source.where}:{node.lineno} exports {name}, which it imports")
    return found


def _assigns(node: ast.AST) -> set[str]:
    targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return set()
    return {target.id for target in targets if isinstance(target, ast.Name)}


@rule
def modules_say_their_chapter(root: Path) -> list[str]:
    """Every file has a docstring; a module's ends with its chapter, one of the syllabus."""
    with (root / "course" / "syllabus.toml").open("rb") as file:
        known = {entry["number"] for entry in tomllib.load(file)["chapter"]} | {"A"}
    found = []
    for source in sources(root, "minillm"):
        if not source.doc:
            found.append(f"{source.where} has no docstring")
        elif source.is_package:
            continue
        elif source.chapter is None:
            found.append(f"{source.where}: the docstring's last line must be `Chapter: NN`")
        elif source.is_app != (source.chapter == "app"):
            right = "app" if source.is_app else "a number"
            found.append(f"{source.where} says chapter {source.chapter}; it must be {right}")
        elif not source.is_app and source.chapter not in known:
            found.append(f"{source.where}: the syllabus has no chapter {source.chapter}")
    return found


@rule
def parts_are_one_level_deep(root: Path) -> list[str]:
    """`minillm/<part>/<module>.py`, each part with its `__init__.py`."""
    found = []
    for source in sources(root, "minillm"):
        inner = Path(source.where).parts[1:]
        if len(inner) > 2 or (len(inner) == 1 and inner[0] not in TOP):
            found.append(f"{source.where} must be minillm/<part>/<module>.py")
        elif len(inner) == 2 and not (source.path.parent / "__init__.py").exists():
            found.append(f"minillm/{inner[0]} has no __init__.py")
    return found


@rule
def names_say_something(root: Path) -> list[str]:
    """No utils, base, helpers, misc or common."""
    return [
        f"{source.where}: the name {part!r} says nothing; name the concept"
        for source in sources(root, "minillm")
        for part in source.parts
        if part in SAYS_NOTHING
    ]


@rule
def documents_say_what_the_library_says(root: Path) -> list[str]:
    """The pages made from the modules are what the modules say of themselves."""
    return documents.out_of_date(root, ["course/LIBRARY.md", "course/GLOSSARY.md", "parts"])


@rule
def the_readme_is_short(root: Path) -> list[str]:
    """At most 9,000 bytes: what is longer has a page of its own in `course/`."""
    size = (root / "README.md").stat().st_size
    return (
        [f"README.md has {size:,} bytes, not {LARGEST_README:,}"] if size > LARGEST_README else []
    )


@rule
def every_module_has_its_tests(root: Path) -> list[str]:
    """`tests/<part>/test_<module>.py` for each module; `__main__` is tested with the cli."""
    found = []
    for source in library(root):
        if source.parts[-1] != "__main__":
            *folders, name = source.parts[1:]
            tests = "/".join(["tests", *folders, f"test_{name}.py"])
            if not (root / tests).exists():
                found.append(f"{source.where} has no tests: {tests}")
    return found


@rule
def public_names_have_docstrings(root: Path) -> list[str]:
    """Every public function, class and method of the library says what it is."""
    found = []
    for source in library(root):
        for name, node in _public(source.tree):
            if not ast.get_docstring(node):
                found.append(f"{source.where}:{node.lineno} {name} has no docstring")
    return found


def _public(tree: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if node.name.startswith("_"):
                continue
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from _public(node, f"{node.name}.")


@rule
def the_library_is_finished(root: Path) -> list[str]:
    """No `raise NotImplementedError` in the library, no marks of unfinished work anywhere."""
    found = []
    for source in library(root):
        for node in ast.walk(source.tree):
            raised = getattr(node, "exc", None) if isinstance(node, ast.Raise) else None
            raised = getattr(raised, "func", raised)
            if getattr(raised, "id", "") == "NotImplementedError":
                found.append(f"{source.where}:{node.lineno} raises NotImplementedError")
    for source in sources(root, "minillm", "solutions", "exercises", "tools"):
        for number, line in enumerate(source.text.splitlines(), 1):
            if mark := UNFINISHED.search(line):
                found.append(f"{source.where}:{number} {mark[0]}: do it, or make an issue of it")
    return found


@rule
def optimizers_step_in_one_place(root: Path) -> list[str]:
    """`optimizer.step()` stands in minillm/optim/step.py alone."""
    return [
        f"{source.where}:{line} steps an optimizer; call minillm.optim.step.take_step, fit or train"
        for source in sources(root, "minillm", "tools")
        if source.where != "minillm/optim/step.py"
        for line in optimizer_steps(source.tree)
    ]


def optimizer_steps(tree: ast.AST) -> Iterator[int]:
    """Lines that call `.step()` of something named an optimizer, or with nothing.

    An object's own step and that of an engine (chapter 17) are no optimizer's.
    """
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=owner, attr="step"), args=args):
                name = ast.unparse(owner).lower()
                other = name == "self" or name.endswith("engine")
                if "optim" in name or not (args or other):
                    yield node.lineno


# --- what is installed ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Project:
    """What pyproject.toml, constraints.txt and environment.yml say."""

    table: dict
    core: list[Requirement]
    extras: dict[str, list[Requirement]]
    constraints: list[Requirement]

    @property
    def declared(self) -> list[Requirement]:
        return [*self.core, *(r for group in self.extras.values() for r in group)]


def project(root: Path) -> Project:
    """Read the project's lists of what it needs."""
    table = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return Project(
        table,
        [Requirement(text) for text in table["dependencies"]],
        {k: [Requirement(t) for t in v] for k, v in table["optional-dependencies"].items()},
        [Requirement(line) for line in lines if line.strip() and not line.startswith("#")],
    )


@rule
def third_party_imports_are_declared(root: Path) -> list[str]:
    """What the library imports at once is a core dependency; all else is at least in an extra."""
    lists = project(root)
    core = {canonicalize_name(r.name) for r in lists.core}
    declared = {canonicalize_name(r.name) for r in lists.declared}
    trees = [(s.where, s.tree) for s in sources(root, "minillm", "conftest.py", *sorted(OURS))]
    found = []
    for where, tree in [*dict(trees).items(), *notebook_code(root)]:
        for named in imports(tree):
            first = named.module.partition(".")[0]
            if not first or first in OURS or first in sys.stdlib_module_names:
                continue
            name = canonicalize_name(DISTRIBUTIONS.get(first, first))
            if name not in declared:
                found.append(f"{where}:{named.line} imports {first}; declare it in pyproject.toml")
            elif where.startswith("minillm/") and named.top and name not in core:
                found.append(
                    f"{where}:{named.line} imports {first} at once, and it is only in an extra; "
                    "import it in the function that needs it"
                )
    return sorted(set(found))


@rule
def set_up_needs_the_standard_library_alone(root: Path) -> list[str]:
    """bootstrap.py runs before anything is installed, and asks jobs.py what targets there are."""
    found = []
    for source in sources(root, "tools/bootstrap.py", "tools/jobs.py"):
        everywhere = source.path.name == "bootstrap.py"
        for named in imports(source.tree):
            first = named.module.partition(".")[0]
            if (everywhere or named.top) and first not in {*sys.stdlib_module_names, "tools"}:
                found.append(f"{source.where}:{named.line} imports {first}")
    return found


@rule
def the_lists_of_versions_agree(root: Path) -> list[str]:
    """constraints.txt fits pyproject.toml's ranges, and environment.yml only points at it."""
    lists, found = project(root), []
    pinned: dict[str, str] = {}
    for requirement in lists.constraints:
        name, [*pins] = canonicalize_name(requirement.name), requirement.specifier
        if len(pins) != 1 or pins[0].operator != "==" or Version(pins[0].version).local:
            found.append(f"constraints.txt: {requirement} must be NAME==VERSION, no +local tag")
        elif name in pinned:
            found.append(f"constraints.txt names {name} twice")
        else:
            pinned[name] = pins[0].version
    for requirement in lists.declared:
        version = pinned.get(canonicalize_name(requirement.name))
        if version is None:
            found.append(f"constraints.txt lacks {requirement.name}")
        elif not requirement.specifier.contains(version, prereleases=True):
            found.append(f"constraints.txt has {requirement.name}=={version}, not {requirement}")
    found += _environment(root, lists)
    package = (root / "minillm" / "__init__.py").read_text(encoding="utf-8")
    if f'__version__ = "{lists.table["version"]}"' not in package:
        found.append(f"minillm.__version__ is not pyproject.toml's {lists.table['version']}")
    return found


def _environment(root: Path, lists: Project) -> list[str]:
    content = yaml.safe_load((root / "environment.yml").read_text(encoding="utf-8"))
    python, *others = content["dependencies"]
    found = []
    version = str(python).removeprefix("python=")
    if not SpecifierSet(lists.table["requires-python"]).contains(version):
        found.append(f"environment.yml: {python} is not {lists.table['requires-python']}")
    extras = ",".join(sorted(set(lists.extras) & {"course", "test"}))
    if others != ["pip", {"pip": [f"-e .[{extras}]"]}]:
        found.append(f"environment.yml: beside Python only pip and `-e .[{extras}]`; got {others}")
    return found


@rule
def continuous_integration_has_the_tested_versions(root: Path) -> list[str]:
    """What is installed is what constraints.txt says; asked in CI, on its main Python only."""
    if not os.environ.get("CI") or sys.version_info[:2] != CI_PYTHON:
        return []
    installed = {canonicalize_name(d.name): d.version for d in metadata.distributions() if d.name}
    found = []
    for requirement in project(root).constraints:
        version = installed.get(canonicalize_name(requirement.name))
        if version and not requirement.specifier.contains(Version(version).public, True):
            found.append(
                f"{requirement.name} {version} is installed; constraints.txt: {requirement}"
            )
    return found


# --- importing has no effect ---------------------------------------------------------------------

_IMPORT_ALL = """
import importlib, json, logging, os, random, sys, warnings

def state():
    facts = {
        "the environment": dict(os.environ),
        "Python's random state": hash(random.getstate()),
        "logging": str([logging.root.level, logging.root.handlers]),
        "the warning filters": str(warnings.filters),
        "the folder": os.getcwd(),
    }
    if numpy := sys.modules.get("numpy"):
        facts["numpy's random state"] = str(numpy.random.get_state()[1].sum())
    if matplotlib := sys.modules.get("matplotlib"):
        facts["matplotlib's settings"] = str(matplotlib.rcParams)
    if torch := sys.modules.get("torch"):
        facts["torch's number type"] = str(torch.get_default_dtype())
        facts["torch's threads"] = torch.get_num_threads()
        facts["torch's random state"] = torch.get_rng_state().sum().item()
    return facts

for library in json.loads(sys.argv[2]):
    importlib.import_module(library)  # theirs, and what it does, is not judged here
before = state()
for module in json.loads(sys.argv[1]):
    importlib.import_module(module)
    after = state()
    for what in before:
        if before[what] != after[what]:
            print(f"{module} changes {what}")
    before = after
"""


@rule
def importing_has_no_effect(root: Path) -> list[str]:
    """Importing any module prints nothing, warns of nothing and changes nothing."""
    modules = [".".join(s.parts) for s in library(root) if s.parts[-1] != "__main__"]
    theirs = {named.module for s in library(root) for named in imports(s.tree) if named.top}
    known = {name for name in theirs if name.partition(".")[0] in _third_party(root)}
    loads = sorted(name for name in known if _is_module(name))
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT_ALL, json.dumps(modules), json.dumps(loads)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )
    said = (done.stdout + done.stderr).strip()
    return said.splitlines()[-20:] if said or done.returncode else []


def _third_party(root: Path) -> set[str]:
    names = {canonicalize_name(r.name) for r in project(root).declared}
    back = {canonicalize_name(name): module for module, name in DISTRIBUTIONS.items()}
    return {back.get(name, name) for name in names}


def _is_module(name: str) -> bool:
    from importlib.util import find_spec

    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


# --- text ----------------------------------------------------------------------------------------


@rule
def files_end_their_lines_in_one_way(root: Path) -> list[str]:
    """UTF-8 with line feeds, in everything that Python reads."""
    found = []
    for source in sources(root, "minillm", "tools", "tests", "exercises", "solutions"):
        if b"\r" in source.path.read_bytes():
            found.append(f"{source.where} has carriage returns")
        with source.path.open("rb") as file:
            encoding, _ = tokenize.detect_encoding(file.readline)
        if encoding != "utf-8":
            found.append(f"{source.where} is {encoding}, not utf-8")
    return found
