"""A skill library (技能库): programs by name, which can call each other.

    stick   have 1 plank     call the skill "plank" until there is one; nothing, if there is one
            craft stick      an action of the world
    plank   have 1 wood
            craft plank
    wood    reach wood       walk to where wood lies, by the shortest way
            gather wood

For somebody who has nothing, "have 1 stick" is a walk and three actions. A program of four lines
can stand for fifty steps. "have" looks at what is there and "reach" at the map, so a skill that was
learned on one map can run on another.

A library is a value: adding a skill makes another library. On the disk it is a text file, a JSON
object a line. Nothing in it is executed but lines of this small language.

Paper: Wang et al. 2023, "Voyager", arXiv:2305.16291, section 2.2 (section from memory).
Differs: lines of three kinds, where Voyager's skills are JavaScript; descriptions are retrieved by
BM25, there by embeddings.

Chapter: 29
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import final

from minillm.agents.retrieve import Bm25
from minillm.lab.files import write_whole
from minillm.town.crafts import Workshop

MOST_STEPS = 200  # of one program
MOST_DEPTH = 30  # of skills that call skills
Program = tuple[str, ...]


@final
@dataclass(frozen=True)
class Skill:
    """A program with a name.

    Args:
        name: of the item that it gets.
        description: the words by which it is retrieved.
        program: its lines.
    """

    name: str
    description: str
    program: Program


@final
@dataclass(frozen=True)
class Library:
    """Skills by name; adding one makes another library.

    Args:
        skills: in the order in which they were learned.
    """

    skills: Mapping[str, Skill] = field(default_factory=dict)

    def add(self, skill: Skill) -> "Library":
        """With one skill more, or a new version of one."""
        return Library({**self.skills, skill.name: skill})

    def search(self, query: str, k: int) -> list[str]:
        """The names of the k skills whose descriptions fit a query best."""
        if not self.skills:
            return []
        return Bm25({name: s.description for name, s in self.skills.items()}).search(query, k)

    def save(self, path: str | os.PathLike) -> None:
        """Write a JSON line for each skill."""
        lines = [
            json.dumps({"name": s.name, "description": s.description, "program": s.program})
            for s in self.skills.values()
        ]
        write_whole(path, "".join(f"{line}\n" for line in lines))

    @staticmethod
    def load(path: str | os.PathLike) -> "Library":
        """Read what `save` wrote.

        Raises:
            ValueError: a damaged line, by its number; the file stays as it is.
        """
        skills = {}
        for number, line in enumerate(Path(path).read_bytes().splitlines(), 1):
            try:
                row = json.loads(line)
                name, description, program = row["name"], row["description"], row["program"]
                if not isinstance(program, list) or not all(
                    isinstance(text, str) for text in (name, description, *program)
                ):
                    raise TypeError
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    "a library must have on each line a JSON object with name, description and "
                    f"program, a list of texts; line {number} of {path} is {line[:60]!r}. Mend or "
                    "delete that line; the file was not changed"
                ) from None
            skills[name] = Skill(name, description, tuple(program))
        return Library(skills)


# --- running programs -----------------------------------------------------------------------------
@final
@dataclass(frozen=True)
class Outcome:
    """What a program led to.

    Args:
        state: of the world afterwards.
        error: why it ended early; empty if it did not.
        skill: in whose lines it failed; empty for those of the program itself.
    """

    state: Workshop
    error: str = ""
    skill: str = ""


def execute(
    program: Program, state: Workshop, library: Library, *, most_steps: int = MOST_STEPS
) -> Outcome:
    """Run a program line by line, up to the first error. It always ends.

    A skill that is called must bring its item, or that is an error. So every call costs a step, and
    steps are limited. Skills that call each other without end reach the limit of depth.

    Args:
        program: any texts.
        state: of the world.
        library: the skills that may be called.
        most_steps: of the world.

    Example:
        >>> from minillm.town.crafts import craft_map
        >>> plank = Skill("plank", "get plank", ("reach wood", "gather wood", "craft plank"))
        >>> start, library = Workshop(craft_map(1)), Library({"plank": plank})
        >>> outcome = execute(("have 4 plank", "craft table"), start, library)
        >>> outcome.error, outcome.state.count("table"), outcome.state.n_steps
        ('', 1, 12)
    """
    return _run(program, state, library, state.n_steps + most_steps, "", 0)


def _run(
    program: Program, state: Workshop, library: Library, last: int, name: str, depth: int
) -> Outcome:
    """The lines of a program, or of the skill `name`, up to step `last` of the world."""
    for line in program:
        if line.startswith("have "):
            outcome = _have(line, state, library, last, name, depth)
        else:
            outcome = replace(_act(line, state, last), skill=name)
        if outcome.error:
            return outcome
        state = outcome.state
    return Outcome(state)


def _act(line: str, state: Workshop, last: int) -> Outcome:
    """One action; or a walk, which is a row of them."""
    verb, _, item = line.partition(" ")
    actions = [line]
    if verb == "reach":
        place = state.map.place_of(item)
        if place is None:
            return Outcome(state, f"{line}: it lies nowhere here")
        actions = [f"go {each}" for each in state.map.path(state.place, place)]
    for action in actions:
        if state.n_steps >= last:
            return Outcome(state, f"{action}: no step is left for this program")
        state = state.after(action)
        if state.remark:
            return Outcome(state, state.remark)
    return Outcome(state)


def _have(
    line: str, state: Workshop, library: Library, last: int, name: str, depth: int
) -> Outcome:
    """Call a skill until there is enough of its item."""
    match = re.fullmatch(r"have (\d{1,4}) (.+)", line)
    if match is None:
        return Outcome(state, f"{line}: a call is have NUMBER ITEM", name)
    n, item = int(match[1]), match[2]
    while (before := state.count(item)) < n:
        if item not in library.skills:
            return Outcome(state, f"{line}: there is no skill {item}", name)
        if depth >= MOST_DEPTH:
            return Outcome(state, f"{line}: skills call each other {depth} deep", name)
        outcome = _run(library.skills[item].program, state, library, last, item, depth + 1)
        if outcome.error:
            return outcome
        state = outcome.state
        if state.count(item) <= before:
            return Outcome(state, f"{line}: the skill {item} brings none", item)
    return Outcome(state)
