"""The town's tools: what they give in two languages, and what they refuse."""

import pytest

from minillm.agents.tools import Call
from minillm.recipes.town_tools import NOTHING, look_up_in, phrase, town_toolbox
from minillm.serve.schema import schema_grammar
from minillm.town.paraphrases import say
from minillm.town.world import World

WORLD = World("another town")
LOOK_UP = look_up_in(WORLD)


def test_what_is_known_of_the_cast_by_hand():
    look_up = look_up_in(World())
    assert look_up("Mei", "lives-in") == "Plum Lane"
    assert look_up("小梅", "owns") == "毛驴、果园的树"
    assert look_up("Bean", "mother") == "Lan" and look_up("Bean", "father") == "Joe"
    assert look_up("Ming", "works-as") == "a pupil"
    assert look_up("豆豆", "works-as") == NOTHING["zh"]
    assert look_up("Kai", "owns") == "three cats"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_its_words_are_those_in_which_facts_are_told(language):
    people = {person.name: person for person in WORLD.people}
    for person in WORLD.people[:20]:
        for relation in ("lives-in", "works-as", "parent-of", "likes", "sells", "born-in"):
            for thing in WORLD.objects(person, relation):
                words = phrase(WORLD, relation, thing, language)
                fact = (person.name, relation, thing)
                sentences = [say(WORLD, people, fact, language, n) for n in range(4)]
                assert any(words in sentence for sentence in sentences)


def test_mothers_and_fathers_are_the_parents():
    for person in WORLD.people:
        both = {LOOK_UP(person.name, each) for each in ("mother", "father")}
        assert both - {NOTHING["en"]} == {*person.parents}


def test_who_is_not_there_and_what_cannot_be_worked_out_is_said_to_the_model():
    toolbox = town_toolbox(WORLD)
    result = toolbox.call(Call("look_up", {"person": "Mei", "relation": "likes"}))
    assert (result.ok, result.text) == (
        False,
        "look_up failed: nobody called 'Mei' is in this town",
    )
    result = toolbox.call(Call("look_up", {"person": "Mei", "relation": "eats"}))
    assert not result.ok and "one of lives-in, works-as, mother" in result.text
    assert toolbox.call(Call("calculate", {"expression": "347 * 582"})).text == "201954"


def test_every_right_call_is_one_that_the_constraint_allows():
    grammar = schema_grammar(town_toolbox(WORLD).schema())
    call = Call("look_up", {"person": WORLD.people[0].chinese, "relation": "born-in"})
    assert grammar.after(grammar.start, call.text.encode()).is_complete
