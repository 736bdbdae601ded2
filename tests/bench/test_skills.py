"""minillm.bench.skills: what the arms differ in, what is counted, and a run to the end."""

import json
from dataclasses import replace

import pytest

from minillm.agents.skill_library import Library, Skill
from minillm.agents.skills import Attempt, Enumerator, Run
from minillm.bench import skills as bench
from minillm.bench._run import Finished
from minillm.town.crafts import ITEMS, Workshop, craft_map

WORK = bench.Work(n_steps=200, marks=(50, 150, 200), seeds=(3,), new_seeds=(103,))


def at(rows, mark):
    return bench.items_at(rows, WORK.marks, mark)


# --- by hand --------------------------------------------------------------------------------------
def test_programs_and_lines_are_counted_up_to_the_last_new_item():
    state = Workshop(craft_map(1), first_steps=(3, 8, *[0] * (len(ITEMS) - 2)))
    sizes = ((1, 1), (0, 1), (3, 3), (4, 8), (4, 20))  # lines, step of the world afterwards
    history = tuple(Attempt("wood", ("",) * n, n_steps=step) for n, step in sizes)
    row = bench.row(Run(state, Library(), history), replace(WORK, marks=(2, 3, 9)))
    assert row == {"items": [0, 1, 2], "end": 8, "n_programs": 3, "n_lines": 8, "longest": 4}


def test_notes_keep_the_errors_of_other_tasks():
    notes = bench.Notes(Enumerator(most_lines=9))
    start, table = Workshop(craft_map(1)), "craft table: takes 4 plank; you lack 4 plank"
    long = (*["craft plank"] * 4, "craft table")
    assert notes.propose("table", Library(), [Attempt("table", (), table)], start) == long
    assert notes.propose("wood", Library(), [], start) == ("gather wood",)
    assert notes.propose("table", Library(), [], start) == long


def test_skills_are_examined_with_nothing_at_hand():
    wood = Skill("wood", "", ("reach wood", "gather wood"))
    lucky = Skill("plank", "", ("craft plank",))
    assert bench.n_robust(Library({"wood": wood, "plank": lucky}), 5) == 1


# --- law ------------------------------------------------------------------------------------------
def test_the_library_is_worth_more_than_twice_the_items_with_programs_of_four_lines():
    full, none, long = (
        [bench.of_arm(name, 3, WORK)]
        for name in ("full", "no library", "no library, long programs, 16 rounds")
    )
    assert at(full, 150) >= 2 * at(none, 150)
    assert at(long, 150) > at(none, 150)  # what it lacks without a library is length
    assert long[0]["longest"] > full[0]["longest"] == 4


@pytest.mark.parametrize("name", ["no curriculum", "no feedback"])
def test_each_part_is_worth_a_fifth_of_the_items(name):
    assert at([bench.of_arm(name, 3, WORK)], 150) <= 0.8 * at([bench.of_arm("full", 3, WORK)], 150)


def test_a_library_helps_on_a_new_map_and_is_mended_there():
    nothing, library = (bench.on_new_map(name, 3, 103, WORK) for name in ("nothing", "library"))
    assert library["end"] < nothing["end"]
    assert library["n_lines"] < nothing["n_lines"] / 2
    assert library["robust before"] < library["robust after"] == len(ITEMS)


def test_it_runs_from_end_to_end_and_repeats_nothing(monkeypatch, tmp_path, capsys):
    record = tmp_path / "a.json"
    figures = json.loads(json.dumps(bench.run(quick=True, finished=Finished(record))))
    assert set(figures["arms"]) == set(bench.arms(0))
    assert set(figures["new maps"]) == {"nothing", "notes", "library"}
    monkeypatch.setattr(bench, "explore", None)  # would fail if it were called
    again = bench.run(quick=True, finished=Finished(record))
    assert json.loads(json.dumps(again)) == figures
    assert "who knows all recipes has all items after" in capsys.readouterr().out
