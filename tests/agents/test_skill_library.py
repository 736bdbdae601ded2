import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.agents.skill_library import MOST_STEPS, Library, Skill, execute
from minillm.town.crafts import Workshop, craft_map

START = Workshop(craft_map(1))
WOOD = Skill("wood", "get wood", ("reach wood", "gather wood"))
PLANK = Skill("plank", "get plank", ("have 1 wood", "craft plank"))
LIBRARY = Library({"wood": WOOD, "plank": PLANK})


# --- programs -------------------------------------------------------------------------------------
def test_a_skill_calls_skills_and_looks_at_what_is_there():
    outcome = execute(("have 4 plank", "craft table"), START, LIBRARY)
    assert not outcome.error and outcome.state.count("table") == 1
    assert outcome.state.n_steps == 3 + 4 + 4 + 1  # the way to the wood is three roads
    again = execute(("have 1 table",), outcome.state, LIBRARY)
    assert again.state == outcome.state


@pytest.mark.parametrize(
    ("program", "error", "skill"),
    [
        (("have 2 plank", "craft table", "gather wood"), "craft table: takes 4 plank; ", ""),
        (("have 1 rope",), "have 1 rope: there is no skill rope", ""),
        (("have one plank",), "have one plank: a call is have NUMBER ITEM", ""),
        (("reach moon",), "reach moon: it lies nowhere here", ""),
        (("have 1 stick",), "craft stick: takes 1 plank; you lack 1 plank", "stick"),
        (("have 1 gem",), "have 1 gem: the skill gem brings none", "gem"),
        (("have 1 iron",), "have 1 iron: skills call each other 30 deep", "ore"),
        (("have 999 wood",), "gather wood: no step is left for this program", "wood"),
        (("sing",), "sing: an action is go PLACE, gather ITEM or craft ITEM", ""),
    ],
)
def test_a_program_ends_at_the_first_error(program, error, skill):
    library = LIBRARY
    lines = {
        "stick": "craft stick",
        "gem": "reach wood",
        "iron": "have 1 ore",
        "ore": "have 1 iron",
    }
    for name, line in lines.items():
        library = library.add(Skill(name, "", (line,)))
    outcome = execute(program, START, library)
    assert outcome.error.startswith(error)
    assert outcome.skill == skill
    assert outcome.state.n_steps <= MOST_STEPS


@settings(max_examples=40)
@given(st.lists(st.text() | st.sampled_from(["have 3 plank", "reach wood", "have 9 x"])))
def test_no_program_raises(lines):
    outcome = execute(tuple(lines), START, LIBRARY, most_steps=20)
    assert outcome.state.n_steps <= 20


# --- files ----------------------------------------------------------------------------------------
def test_a_library_comes_back_and_a_damaged_line_is_refused(tmp_path):
    path = tmp_path / "skills.jsonl"
    LIBRARY.save(path)
    assert Library.load(path) == LIBRARY
    lines = path.read_bytes().splitlines()
    row = json.loads(lines[1])
    for bad in (lines[1][:-9], b"\xff", b"[]", json.dumps({**row, "program": "abc"}).encode()):
        damaged = b"\n".join([lines[0], bad, *lines[2:]])
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"line 2 of .*the file was not changed"):
            Library.load(path)
        assert path.read_bytes() == damaged
