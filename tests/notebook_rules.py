"""The rules that every notebook of the course keeps, each a function of a notebook.

A rule takes the notebook and its context and returns what it found, in words; `tests/
test_notebooks.py` applies all of them to every notebook, and each of them to a planted violation.
"""

import ast
import io
import re
import tokenize
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import nbformat
from nbformat import NotebookNode

from tests.layout_rules import optimizer_steps
from tools.canonical import IGNORED, TAGS, canonical, dumps, number, title_cell

LARGEST = 200_000  # bytes
CHECKED = 0.85  # of the code cells
MOST_SECTIONS = 7
MOST_MODULES = 15
MOST_LINES = 25  # of a cell
LEAST_SHOWN = 3  # calls of `show`
MOST_MINUTES = 75
#: Chapters that still break a rule, as a notebook's path without ending. They may only get fewer.
EXEMPT = {
    "sections_are_few": "01_tokenizer",
    "modules_are_few": "04_transformer",
    "cells_are_short": "labs/00_claims 01_tokenizer 03_attention 04_transformer",
    "minutes_are_those_of_the_formula": "01_tokenizer 03_attention 04_transformer",
}
APPS_FOR_ALL = ("minillm.zoo.checkpoints",)  # shipped models, which any chapter may open
NOT_FOR_NOTEBOOKS = ("tools", "tests", "solutions", "exercises")

_MACHINE = [
    re.compile(r"(?<![\w.])/(?:home|work|root|tmp|Users|private|var/folders)/[^\s'\")]*"),
    re.compile(r"\b[A-Za-z]:\\+Users\b[^\s'\")]*"),
    re.compile(r"[^\s'\"(]*\b(?:site-packages|dist-packages|ipykernel_\d+)[^\s'\")]*"),
]
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,}")
_LINK = re.compile(r"(?<!\\)\]\(\s*<?([^)>\s]+)|<(?:img|a)\b[^>]*?\b(?:src|href)=[\"']([^\"']+)")
_CODE = re.compile(r"^(```|~~~).*?^\1[^\S\n]*$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_CHAPTER = re.compile(r"^Chapter: (\w+)$", re.MULTILINE)
_WIDGETS = "application/vnd.jupyter.widget-view+json"
_LIVE = ("clear_output", "update_display", "interact", "interactive")
_WIDGET_MODULES = ("ipywidgets", "tqdm.notebook", "tqdm.auto", "tqdm.autonotebook")


@dataclass(frozen=True)
class Context:
    """What a rule may look at beside the notebook.

    Attributes:
        path: where the notebook stands, in `course/` or `course/labs/`.
        text: its file as text.
        chapters: all chapters of the syllabus, in order.
        claims: the ids of the ledger.
        package: the folder of `minillm/`.
    """

    path: Path
    text: str
    chapters: Sequence[Any]
    claims: frozenset[str] = field(default_factory=frozenset)
    package: Path = Path("minillm")

    @property
    def lab(self) -> bool:
        return self.path.parent.name == "labs"

    @property
    def name(self) -> str:
        """`01_tokenizer`, or `labs/00_claims`."""
        return "labs/" * self.lab + self.path.stem

    @property
    def course(self) -> Path:
        return self.path.parent.parent if self.lab else self.path.parent

    @property
    def place(self) -> int | None:
        """The chapter's place in the syllabus, None if it has none."""
        found = [f"{number(each.number)}_{each.slug}" for each in self.chapters]
        return found.index(self.path.stem) if self.path.stem in found else None

    def order(self, chapter: str) -> int | None:
        """The place of a chapter by its number."""
        found = [number(each.number) for each in self.chapters]
        return found.index(number(chapter)) if number(chapter) in found else None


Rule = Callable[[NotebookNode, Context], list[str]]


def code_cells(notebook: NotebookNode) -> Iterator[tuple[str, NotebookNode]]:
    """Yield each code cell with the words that name it."""
    for count, cell in enumerate(c for c in notebook.cells if c.cell_type == "code"):
        first = cell.source.strip().split("\n")[0][:50]
        yield f"code cell {count + 1} ({first})", cell


def tags(cell: NotebookNode) -> list[str]:
    return list(cell.metadata.get("tags", []))


def python_of(cell: NotebookNode) -> str:
    """Return a cell's source, if it is no Python with `pass` for its magic and shell lines."""
    try:
        ast.parse(cell.source)
        return cell.source
    except SyntaxError:
        pass
    if cell.source.lstrip().startswith("%%"):
        head, _, rest = cell.source.lstrip().partition("\n")
        return f"pass  # {head}\n{rest}"
    return re.sub(r"^(\s*)[%!].*$", r"\1pass", cell.source, flags=re.MULTILINE)


def tree_of(cell: NotebookNode) -> ast.Module:
    """Return a cell's syntax tree, an empty one for what is not Python (`code_is_python`)."""
    try:
        return ast.parse(python_of(cell))
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])


def calls(cell: NotebookNode, name: str) -> Iterator[ast.Call]:
    """Yield the calls of a function, however it is reached."""
    for node in ast.walk(tree_of(cell)):
        if isinstance(node, ast.Call) and name == getattr(
            node.func, "attr", getattr(node.func, "id", None)
        ):
            yield node


def texts_of(cell: NotebookNode) -> Iterator[str]:
    """Yield everything that can be read in a cell: its source and its outputs but pictures."""
    yield cell.source
    for output in cell.get("outputs", []):
        yield output.get("text", "")
        yield output.get("evalue", "")
        yield "\n".join(output.get("traceback", []))
        for mime, content in output.get("data", {}).items():
            if not mime.startswith("image/") or mime == "image/svg+xml":
                yield content if isinstance(content, str) else str(content)


# ------------------------------------------------------------------------------- form


def form_is_canonical(notebook: NotebookNode, context: Context) -> list[str]:
    """The file is byte for byte what the writer would write."""
    if context.text == dumps(canonical(notebook)):
        return []
    return ["is not in canonical form: run make notebooks"]


def cells_are_executed_in_order(notebook: NotebookNode, context: Context) -> list[str]:
    """Every code cell was executed, from top to bottom, and stores that."""
    found = []
    for count, (name, cell) in enumerate(code_cells(notebook), 1):
        if cell.execution_count is None:
            found.append(f"{name} was never executed")
        elif cell.execution_count != count:
            found.append(f"{name} was executed as number {cell.execution_count}, not {count}")
    return found


def cells_are_not_empty(notebook: NotebookNode, context: Context) -> list[str]:
    """No cell is empty."""
    return [
        f"cell {place + 1} is empty"
        for place, cell in enumerate(notebook.cells)
        if not cell.source.strip()
    ]


def tags_are_known(notebook: NotebookNode, context: Context) -> list[str]:
    """Only allowed tags; a misspelt one would be without any effect."""
    known = ", ".join(sorted(TAGS))
    return [
        f"cell {place + 1} has the tag {tag!r}; known: {known}"
        for place, cell in enumerate(notebook.cells)
        for tag in tags(cell)
        if tag not in TAGS
    ]


def size_is_small(notebook: NotebookNode, context: Context) -> list[str]:
    """At most 200 kB."""
    size = len(context.text.encode("utf-8"))
    return [f"has {size / 1000:.0f} kB, more than {LARGEST // 1000}"] if size > LARGEST else []


def most_cells_are_checked(notebook: NotebookNode, context: Context) -> list[str]:
    """At least 85 % of the code cells have outputs that are compared."""
    cells = [cell for _, cell in code_cells(notebook)]
    checked = sum(IGNORED not in tags(cell) for cell in cells)
    if cells and checked >= CHECKED * len(cells):
        return []
    return [f"only {checked} of {len(cells)} code cells are checked, fewer than {CHECKED:.0%}"]


def no_comments_steer_nbval(notebook: NotebookNode, context: Context) -> list[str]:
    """Nbval is steered by tags, which learners do not see, never by comments."""
    return [
        f"{name} has a comment for nbval; use a tag"
        for name, cell in code_cells(notebook)
        if re.search(r"^\s*#\s*(NBVAL|PYTEST_VALIDATE)_", cell.source, re.MULTILINE)
    ]


# ------------------------------------------------------------------------------- parts


def title_is_generated(notebook: NotebookNode, context: Context) -> list[str]:
    """The first cell is the one made from course/syllabus.toml."""
    if context.place is None:
        return [f"{context.path.stem} is no chapter of course/syllabus.toml"]
    wanted = title_cell(context.chapters[context.place], context.lab)
    first = notebook.cells[0] if notebook.cells else None
    if first is not None and first.cell_type == "markdown" and first.source == wanted:
        return []
    return [f"the first cell is not the one of course/syllabus.toml, which is:\n{wanted}"]


def setup_comes_first(notebook: NotebookNode, context: Context) -> list[str]:
    """The first code cell calls `setup(...)`, and no other one does."""
    found = [any(calls(cell, "setup")) for _, cell in code_cells(notebook)]
    if found[:1] != [True]:
        return ["the first code cell does not call setup(...)"]
    return [] if sum(found) == 1 else ["setup(...) is called in more than one cell"]


def links_exist(notebook: NotebookNode, context: Context) -> list[str]:
    """Every link that does not leave the repository leads to a file."""
    found = []
    for target in links(notebook):
        if re.match(r"https?://|mailto:|#", target):
            continue
        file = unquote(target.partition("#")[0])
        if file.startswith("/") or not (context.path.parent / file).exists():
            found.append(f"the link {target} leads nowhere")
    return found


def links(notebook: NotebookNode) -> list[str]:
    """Return the targets of all links and pictures in the prose."""
    return [
        one or other
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for one, other in _LINK.findall(_CODE.sub("", cell.source))
    ]


def footer_leads_on(notebook: NotebookNode, context: Context) -> list[str]:
    """The last cell links the nearest chapters that exist, a lab's its chapter."""
    if context.place is None or not notebook.cells:
        return ["has no chapter, or no cells"]
    there = [f"{number(each.number)}_{each.slug}.ipynb" for each in context.chapters]
    exist = [(context.course / name).exists() for name in there]
    if context.lab:
        wanted = [f"../{there[context.place]}"]
    else:
        before = [there[i] for i in range(context.place) if exist[i]][-1:]
        after = [there[i] for i in range(context.place + 1, len(there)) if exist[i]][:1]
        wanted = before + after
    last = NotebookNode(cells=notebook.cells[-1:])
    if last.cells[0].cell_type != "markdown":
        return ["the last cell is not prose with links"]
    leads_to = [target.partition("#")[0] for target in links(last)]
    missing = [name for name in wanted if name not in leads_to]
    return [f"the last cell has no link to {name}" for name in missing]


# ------------------------------------------------------------------------------- outputs


def nothing_names_a_machine(notebook: NotebookNode, context: Context) -> list[str]:
    """No path of one machine and no address in its memory, in sources or outputs."""
    found = []
    for place, cell in enumerate(notebook.cells):
        for text in texts_of(cell):
            for pattern in [*_MACHINE, _ADDRESS]:
                for match in pattern.finditer(text):
                    found.append(f"cell {place + 1} names this machine: {match[0]}")
    return found


def stderr_is_silent(notebook: NotebookNode, context: Context) -> list[str]:
    """No warnings and no logs are stored."""
    return [
        f"{name} wrote to stderr: {output.text.strip()[:200]}"
        for name, cell in code_cells(notebook)
        for output in cell.outputs
        if output.output_type == "stream" and output.name == "stderr"
    ]


def errors_are_announced(notebook: NotebookNode, context: Context) -> list[str]:
    """Only a cell with the tag raises-exception stores an exception, and each of those does."""
    found = []
    for name, cell in code_cells(notebook):
        raised = any(output.output_type == "error" for output in cell.outputs)
        if raised != ("raises-exception" in tags(cell)):
            did = "raises an exception without" if raised else "raises no exception but has"
            found.append(f"{name} {did} the tag raises-exception")
    return found


def figures_have_words(notebook: NotebookNode, context: Context) -> list[str]:
    """Every picture has an alternative text."""
    return [
        f"{name} shows a picture without alternative text; use publish(fig, alt=…)"
        for name, cell in code_cells(notebook)
        for output in cell.outputs
        if "image/png" in output.get("data", {})
        and not output.metadata.get("image/png", {}).get("alt")
        and not output.data.get("text/plain", "").startswith("Figure: ")
    ]


# ------------------------------------------------------------------------------- code


def code_is_python(notebook: NotebookNode, context: Context) -> list[str]:
    """Every cell is Python, so that the other rules can read it."""
    found = []
    for name, cell in code_cells(notebook):
        try:
            ast.parse(python_of(cell))
        except SyntaxError as error:
            if "raises-exception" not in tags(cell):
                found.append(f"{name} is no Python: {error.msg}")
    return found


def no_trailing_semicolon(notebook: NotebookNode, context: Context) -> list[str]:
    """No line ends with `;`, which hides a result from Jupyter but not from nbval."""
    return [
        f"{name} ends a line with ;  (assign the result to _)"
        for name, cell in code_cells(notebook)
        if _ends_with_semicolon(python_of(cell))
    ]


def _ends_with_semicolon(source: str) -> bool:
    last = ""
    try:
        for token in tokenize.generate_tokens(io.StringIO(source + "\n").readline):
            if token.type in (tokenize.NEWLINE, tokenize.ENDMARKER) and last == ";":
                return True
            if token.type != tokenize.COMMENT:
                last = token.string
    except (tokenize.TokenError, SyntaxError):
        return source.rstrip().endswith(";")
    return False


def no_magic_in_checked_cells(notebook: NotebookNode, context: Context) -> list[str]:
    """No `%%time` or other magic where the output is compared, and no shell anywhere."""
    found = []
    for name, cell in code_cells(notebook):
        if re.search(r"^\s*!", cell.source, re.MULTILINE) or "%%bash" in cell.source:
            found.append(f"{name} calls a shell, which Windows has not; use Python")
        elif IGNORED not in tags(cell) and _magic(cell.source):
            found.append(f"{name} uses {_magic(cell.source)} where the output is compared")
    return found


def _magic(source: str) -> str:
    """Return the first magic word of a cell, or an empty string."""
    if found := re.match(r"\s*(%%\w+)", source):
        return found[1]
    try:
        ast.parse(source)
    except SyntaxError:
        found = re.search(r"^\s*(%\w+)", source, re.MULTILINE)
        return found[1] if found else ""
    return ""


def nothing_moves(notebook: NotebookNode, context: Context) -> list[str]:
    """No widgets, no cleared or updated output: nbval and GitHub cannot show them."""
    found = []
    for name, cell in code_cells(notebook):
        for node in ast.walk(tree_of(cell)):
            called = getattr(node, "attr", getattr(node, "id", None))
            if called in _LIVE:
                found.append(f"{name} uses {called}")
            if isinstance(node, ast.alias) and node.name in _LIVE:
                found.append(f"{name} uses {node.name}")
        for module, _ in imports(cell):
            if any(module == each or module.startswith(each + ".") for each in _WIDGET_MODULES):
                found.append(f"{name} uses {module}")
        if any(_WIDGETS in output.get("data", {}) for output in cell.outputs):
            found.append(f"{name} shows a widget")
    return found


def expectations_are_literal(notebook: NotebookNode, context: Context) -> list[str]:
    """The sentence and the claim of every `expect` are written out, so that they are compared."""
    found = []
    for name, cell in code_cells(notebook):
        for call in calls(cell, "expect"):
            if not (call.args and _is_text(call.args[0])):
                found.append(f"{name}: the sentence of expect is not a literal string")
            for keyword in call.keywords:
                if keyword.arg == "claim" and not _is_text(keyword.value):
                    found.append(f"{name}: the claim of expect is not a literal string")
    return found


def claims_exist(notebook: NotebookNode, context: Context) -> list[str]:
    """Every `claim=` is an entry of course/claims.toml."""
    return [
        f"{name}: no claim {keyword.value.value!r} in course/claims.toml"
        for name, cell in code_cells(notebook)
        for call in calls(cell, "expect")
        for keyword in call.keywords
        if keyword.arg == "claim"
        and _is_text(keyword.value)
        and keyword.value.value not in context.claims
    ]


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def imports_keep_to_the_chapter(notebook: NotebookNode, context: Context) -> list[str]:
    """Only modules of this chapter or an earlier one are imported, by their full path."""
    found = []
    for name, cell in code_cells(notebook):
        for module, names in imports(cell):
            head = module.partition(".")[0]
            if head in NOT_FOR_NOTEBOOKS:
                found.append(f"{name} imports {module}, which is not for notebooks")
            if head == "minillm":
                for each in _modules(module, names, context.package):
                    problem = _import_problem(each, context)
                    found += [f"{name} imports {each}, {problem}"] if problem else []
    return found


def imports(cell: NotebookNode) -> Iterator[tuple[str, list[str]]]:
    """Yield each imported module with the names that are taken from it."""
    for node in ast.walk(tree_of(cell)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or ""), [alias.name for alias in node.names]


def _modules(module: str, names: list[str], package: Path) -> list[str]:
    """Return the modules that an import reaches: `from minillm.text import bpe` reaches one."""
    folder = package.joinpath(*module.split(".")[1:])
    if not folder.is_dir():
        return [module]
    inner = [each for each in names if (folder / each).is_dir() or (folder / f"{each}.py").exists()]
    return [f"{module}.{each}" for each in inner] if names and inner == names else [module]


def _import_problem(module: str, context: Context) -> str:
    """Say what is wrong with a notebook's importing a module; an empty string if nothing is."""
    if module in APPS_FOR_ALL:
        return ""
    path = context.package.joinpath(*module.split(".")[1:])
    if path.is_dir():
        return "a folder: import the module in it by its full path"
    path = path.with_name(path.name + ".py")
    if not path.exists():
        return "which does not exist"
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    chapter = _CHAPTER.search(docstring)
    if chapter is None:
        return "whose docstring names no chapter"
    place = context.order(chapter[1])
    if place is None or context.place is None or place > context.place:
        return f"a module of chapter {chapter[1]}"
    return ""


# ------------------------------------------------------------------------------- a chapter's size


def sections_are_few(notebook: NotebookNode, context: Context) -> list[str]:
    """At most seven numbered sections, `## 1 · …`."""
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    count = len(re.findall(r"^## \d+ · ", prose, re.MULTILINE))
    return [f"has {count} sections, more than {MOST_SECTIONS}"] if count > MOST_SECTIONS else []


def modules_are_few(notebook: NotebookNode, context: Context) -> list[str]:
    """At most 15 modules of minillm are imported; a lab may use more."""
    modules = {
        each
        for _, cell in code_cells(notebook)
        for module, names in imports(cell)
        if module.partition(".")[0] == "minillm"
        for each in _modules(module, names, context.package)
    }
    if context.lab or len(modules) <= MOST_MODULES:
        return []
    return [f"imports {len(modules)} modules of minillm, more than {MOST_MODULES}"]


def cells_are_short(notebook: NotebookNode, context: Context) -> list[str]:
    """At most 25 lines a code cell; a longer set-up belongs into the library."""
    return [
        f"{name} has {lines} lines, more than {MOST_LINES}"
        for name, cell in code_cells(notebook)
        if (lines := len(cell.source.splitlines())) > MOST_LINES
    ]


def code_is_shown(notebook: NotebookNode, context: Context) -> list[str]:
    """A chapter shows code of the library at least three times."""
    count = sum(len(list(calls(cell, "show"))) for _, cell in code_cells(notebook))
    if context.lab or count >= LEAST_SHOWN:
        return []
    return [f"calls show(...) {count} times, fewer than {LEAST_SHOWN}"]


def minutes_of(notebook: NotebookNode) -> float:
    """Words ÷ 200, a tenth of a minute for each line of code, and the minutes of the tasks."""
    words = sum(len(c.source.split()) for c in notebook.cells if c.cell_type == "markdown")
    lines = sum(len(cell.source.splitlines()) for _, cell in code_cells(notebook))
    return words / 200 + 0.1 * lines + sum(minutes for _, minutes in _tasks(notebook))


def _tasks(notebook: NotebookNode) -> list[tuple[str, float]]:
    """The id and the minutes of every task, in reading order."""
    found = []
    for _, cell in code_cells(notebook):
        for call in calls(cell, "task"):
            minutes = [k.value.value for k in call.keywords if k.arg == "minutes"]
            found.append((call.args[0].value, sum(minutes)))
    return found


def minutes_are_those_of_the_formula(notebook: NotebookNode, context: Context) -> list[str]:
    """A chapter takes at most 75 minutes, and the syllabus says how many, to five minutes."""
    if context.lab or context.place is None:
        return []
    minutes, stated = minutes_of(notebook), context.chapters[context.place].minutes
    if minutes > MOST_MINUTES:
        return [f"takes {minutes:.0f} minutes by the formula, more than {MOST_MINUTES}"]
    if abs(minutes - stated) > 5:
        return [f"takes {minutes:.0f} minutes by the formula; course/syllabus.toml says {stated}"]
    return []


def tasks_are_in_reading_order(notebook: NotebookNode, context: Context) -> list[str]:
    """Tasks are numbered as they come: 3.1, 3.2, 3.3."""
    ids = [name for name, _ in _tasks(notebook)]
    in_order = sorted(ids, key=lambda name: [int(part) for part in name.split(".")])
    return [] if ids == in_order else [f"the tasks come as {', '.join(ids)}"]


def optimizers_step_where_it_is_taught(notebook: NotebookNode, context: Context) -> list[str]:
    """Only cells with the tag teaches-step call `optimizer.step()`; others use `fit` or `train`."""
    found = []
    for name, cell in code_cells(notebook):
        steps = any(optimizer_steps(tree_of(cell)))
        if steps != ("teaches-step" in tags(cell)):
            does = "steps an optimizer without" if steps else "steps no optimizer but has"
            found.append(f"{name} {does} the tag teaches-step; a model is trained by fit or train")
    return found


RULES: tuple[Rule, ...] = (
    form_is_canonical,
    cells_are_executed_in_order,
    cells_are_not_empty,
    tags_are_known,
    size_is_small,
    most_cells_are_checked,
    no_comments_steer_nbval,
    title_is_generated,
    setup_comes_first,
    links_exist,
    footer_leads_on,
    nothing_names_a_machine,
    stderr_is_silent,
    errors_are_announced,
    figures_have_words,
    code_is_python,
    no_trailing_semicolon,
    no_magic_in_checked_cells,
    nothing_moves,
    expectations_are_literal,
    claims_exist,
    imports_keep_to_the_chapter,
    sections_are_few,
    modules_are_few,
    cells_are_short,
    code_is_shown,
    minutes_are_those_of_the_formula,
    tasks_are_in_reading_order,
    optimizers_step_where_it_is_taught,
)


def read(path: Path, root: Path) -> tuple[NotebookNode, Context]:
    """Return a notebook of the course with its context."""
    from minillm.lab.claims import load
    from minillm.lab.project import syllabus

    # read_bytes: an editor's `\r\n` must not be read as the canonical newline.
    text = path.read_bytes().decode("utf-8")
    claims = frozenset(claim.id for claim in load())
    context = Context(path, text, syllabus(), claims, root / "minillm")
    return nbformat.reads(text, as_version=4), context
