"""The parts of the library form an order without circles, and every module is used.

The order is `PARTS` of `minillm/lab/map.py`: a part imports only itself and those before it.
"""

from collections.abc import Iterator
from pathlib import Path

from minillm.lab.map import PARTS
from tests.layout_rules import Source, imports, library, notebook_code, rule, sources


def out_of_order(root: Path) -> Iterator[str]:
    """Each import of a later part: where, and of what."""
    modules = {".".join(source.parts): source for source in library(root)}
    order = {part: place for place, part in enumerate(PARTS)}
    for source in modules.values():
        part = _part(source)
        if part is None:
            continue
        for named in imports(source.tree):
            later = _part(modules[named.module]) if named.module in modules else None
            if later is not None and order.get(later, 0) > order.get(part, len(order)):
                yield f"{source.where}:{named.line} ({part}) imports {named.module} of a later part"


def _part(source: Source) -> str | None:
    """The part of a module; None for apps, which may import everything."""
    return None if source.is_app or len(source.parts) < 3 else source.parts[1]


@rule
def parts_keep_their_order(root: Path) -> list[str]:
    """A part imports only itself and earlier ones; every folder is a part or an app."""
    unknown = {part for s in library(root) if (part := _part(s)) and part not in PARTS}
    return [f"minillm/{part}/ is no part; see PARTS in minillm/lab/map.py" for part in unknown] + [
        *out_of_order(root)
    ]


def unused_modules(root: Path) -> dict[str, str]:
    """Modules that no notebook, app, tool or grader reaches over imports: module → file."""
    modules = {".".join(source.parts): source for source in library(root)}
    reached = {name for name, source in modules.items() if source.is_app}
    trees = [source.tree for part in ("tools", "exercises") for source in sources(root, part)]
    trees += [tree for _, tree in notebook_code(root)] + [modules[name].tree for name in reached]
    while trees:
        named = {each.module for each in imports(trees.pop()) if each.module in modules}
        trees += [modules[name].tree for name in named - reached]
        reached |= named
    return {name: source.where for name, source in modules.items() if name not in reached}


@rule
def every_module_is_used(root: Path) -> list[str]:
    """A module that no notebook and no app uses waits until one does."""
    return [
        f"{where} is used by no notebook and no app; leave it out until one needs it"
        for where in unused_modules(root).values()
    ]
