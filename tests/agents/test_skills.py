import pytest

from minillm.agents import skills
from minillm.agents.skill_library import Library, Skill, execute
from minillm.agents.skills import Attempt, Enumerator, Needs, automatic, explore
from minillm.town.crafts import ITEMS, RECIPES, Workshop, craft_map

START = Workshop(craft_map(1))
WOOD = Skill("wood", "get wood", ("reach wood", "gather wood"))
PLANK = Skill("plank", "get plank", ("have 1 wood", "craft plank"))
LIBRARY = Library({"wood": WOOD, "plank": PLANK})
TABLE_ERROR = "craft table: takes 4 plank; you lack 4 plank"


def failed(target, *errors):
    return [Attempt(target, (str(n),), error) for n, error in enumerate(errors)]


# --- the proposer ---------------------------------------------------------------------------------
def test_errors_name_what_is_needed():
    errors = [
        "gather ore: it lies at ridge; needs 1 stone pickaxe; you lack 1 stone pickaxe",
        "craft iron pickaxe: takes 2 iron, 1 stick; needs 1 table; you lack 2 iron",
        "reach moon: it lies nowhere here",
        "have 1 rope: there is no skill rope",
    ]
    assert skills.read_needs(errors) == {
        "ore": Needs({}, ("stone pickaxe",)),
        "iron pickaxe": Needs({"iron": 2, "stick": 1}, ("table",)),
    }


def test_an_error_turns_a_guess_into_calls_or_into_actions():
    propose = Enumerator().propose
    assert propose("table", LIBRARY, [], START) == ("craft table",)
    errors = failed("table", TABLE_ERROR)
    assert propose("table", LIBRARY, errors, START) == ("have 4 plank", "craft table")
    assert propose("table", Library(), errors, START) is None  # five lines
    long = Enumerator(most_lines=9).propose
    assert long("table", Library(), errors, START) == (*["craft plank"] * 4, "craft table")
    errors += failed("table", "craft plank: takes 1 wood; you lack 1 wood")
    at_wood = START.after("go cliff").after("go hill").after("go grove").after("gather wood")
    program = long("table", Library(), errors, at_wood)
    assert program[:3] == ("craft plank", "gather wood", "craft plank")  # one wood is there
    assert long("plank", LIBRARY, [], START) == PLANK.program


def test_each_order_is_tried_once():
    library = LIBRARY.add(Skill("stick", "get stick", ())).add(Skill("table", "get table", ()))
    error = "craft wooden pickaxe: takes 2 plank, 1 stick; needs 1 table; you lack 1 plank"
    attempts, programs = failed("wooden pickaxe", error), []
    while program := Enumerator().propose("wooden pickaxe", library, attempts, START):
        programs.append(program)
        attempts.append(Attempt("wooden pickaxe", program, error))
    assert [program[1:3] for program in programs] == [
        ("have 2 plank", "have 1 stick"),
        ("have 1 stick", "have 2 plank"),
    ]


def test_without_errors_programs_come_the_shortest_first_and_none_twice():
    attempts = []
    for _ in range(100):
        program = Enumerator().propose("rope", LIBRARY, attempts, START)
        attempts.append(Attempt("rope", program))
    programs = [attempt.program for attempt in attempts]
    assert len(set(programs)) == 100
    assert [len(program) for program in programs] == sorted(map(len, programs))
    assert all(program[-1] == "craft rope" for program in programs)


# --- the loop -------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def whole():
    return explore(START, Enumerator(), automatic, n_steps=300)


def test_everything_is_made_and_every_skill_runs_on_another_map(whole):
    assert set(whole.state.obtained) == set(whole.library.skills) == set(ITEMS)
    assert whole.missing == {}
    assert max(len(skill.program) for skill in whole.library.skills.values()) <= 4


def test_on_another_map_skills_that_worked_by_luck_are_mended(whole):
    def fails(library):
        outcomes = [execute((f"have 1 {x}",), other, library) for x in ITEMS]
        assert all(outcome.skill for outcome in outcomes if outcome.error)
        return sum(bool(outcome.error) for outcome in outcomes)

    other = Workshop(craft_map(7))
    run = explore(other, Enumerator(), automatic, whole.library, n_steps=300)
    assert fails(run.library) == 0 < fails(whole.library)
    assert max(run.state.obtained.values()) < max(whole.state.obtained.values())


def test_without_a_library_nothing_is_kept(whole):
    run = explore(START, Enumerator(), automatic, n_steps=100, keep=False)
    assert not run.library.skills
    assert len(run.state.obtained) < len(whole.state.obtained) / 2


def test_without_feedback_the_proposer_sees_no_error():
    class Spy:
        def propose(self, target, library, attempts, state):
            errors.extend(attempt.error for attempt in attempts)
            return Enumerator().propose(target, library, attempts, state)

    errors = []
    explore(START, Spy(), automatic, n_steps=40, feedback=False)
    assert errors and not any(errors)


def test_a_skill_that_worked_by_luck_is_mended():
    lucky = LIBRARY.add(Skill("plank", "get plank", ("craft plank",)))
    run = explore(START, Enumerator(), lambda *_: "table", lucky, n_steps=30)
    targets = [attempt.target for attempt in run.history]
    assert targets[:4] == ["table", "table", "plank", "plank"]
    assert run.library.skills["plank"].program == PLANK.program
    assert run.state.count("table") >= 1


def test_what_cannot_be_made_is_said_and_the_rest_is_made():
    start = Workshop(craft_map(1, missing=("clay",)))
    run = explore(start, Enumerator(), automatic, n_steps=400)
    lost = {"clay", "kiln", "brick", "glass", "iron", "iron pickaxe", "lantern", "gem"}
    assert set(run.missing) == lost
    assert run.missing["clay"] == "gather clay: it lies nowhere here"
    assert "takes 3 stone, 1 clay" in run.missing["kiln"]
    assert run.state.n_steps < 400  # it ends by itself


def test_a_proposer_that_gives_up_or_does_nothing_does_not_hang():
    for program in (None, ()):
        idle = type("Idle", (), {"propose": lambda *_, program=program: program})()
        run = explore(START, idle, skills.at_random(0), n_steps=50)
        assert run.state.n_steps == 0 and len(run.missing) == len(RECIPES)


# --- retrieval, bad input -------------------------------------------------------------------------
def test_skills_are_retrieved_by_the_words_of_an_error(whole):
    error = "craft lantern: takes 1 iron, 1 glass, 1 rope; you lack 1 iron"
    assert {"iron", "glass", "rope"} <= set(whole.library.search(error, 5))
    assert Library().search(error, 5) == []


def test_fewer_than_one_step_is_refused():
    with pytest.raises(ValueError, match="n_steps and n_rounds must be at least 1; got 0 and 4"):
        explore(START, Enumerator(), automatic, n_steps=0)
