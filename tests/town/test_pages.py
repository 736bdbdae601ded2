import pytest

from minillm.town import pages as module
from minillm.town.pages import CONTROL, INSTRUCTION, SECOND, object_of, pages, questions
from minillm.town.world import World

TOWNS = [World(), World("train 1", n_people=40), World("train 2", n_people=20)]


# --- by hand --------------------------------------------------------------------------------------
def test_the_page_of_a_child_and_that_of_a_good():
    every = pages(World())
    assert set(every["Bean"].lines) == {
        *("Bean is aged 0", "Bean likes flour", "her mother is Lan", "her father is Joe"),
        *("Bean lives in mill", "Bean was born in mill", "she has no work", "she owns nothing"),
    }
    assert set(every["kites"].lines) == {
        "the price is 12 coins", "the seller is Lin", "the teacher has kites"
    }  # fmt: skip
    assert "Duck Lane is 2 minutes away" in every["ferry"].lines


def test_a_question_of_two_hops_and_its_evidence():
    every = {question.text: question for question in questions(World(), 2)}
    question = every["what does the seller of kites like ?"]
    assert question.answer == "kites"
    assert question.relations == ("seller", "likes")
    assert [hop.title for hop in question.hops] == ["kites", "Lin"]
    assert "what does the mother of Mei like ?" not in every  # nobody knows her


def test_what_has_several_answers_or_none_is_not_asked():
    texts = {question.text for question in questions(World(), 1)}
    assert "what does Kai own ?" in texts
    assert not {"what does Mei own ?", "what does Bean own ?", "where was Su born ?"} & texts


def test_the_control_has_the_words_of_the_instruction():
    planted, control = (text.format("plums") for text in (INSTRUCTION, CONTROL))
    assert sorted(planted.split()) == sorted(control.split())
    every = pages(World())
    changed = module.with_line(every, "kites", planted)
    assert changed["kites"].lines == (planted, *every["kites"].lines)
    assert {title for title in every if changed[title] != every[title]} == {"kites"}


def test_a_line_has_one_word_as_its_subject():
    assert object_of("she lives in Plum Lane", "lives-in") == "Plum Lane"
    assert object_of("reader : she lives in Plum Lane", "lives-in") is None


# --- law ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("world", TOWNS, ids=["tinytown", "another", "small"])
def test_pages_say_what_is_so(world):
    every = pages(world)
    assert len(every) == len(world.people) + len(world.places) + len(world.goods)
    for person in world.people:
        lines = every[person.name].lines
        assert len(lines) >= 6 - (person.born_in is None)
        for relation in SECOND:
            objects = {object_of(line, relation) for line in lines} - {None, "nothing"}
            truth = [str(person.age)] if relation == "age" else world.objects(person, relation)
            assert objects == set(truth)
        parents = [object_of(line, kin) for line in lines for kin in ("mother", "father")]
        assert set(parents) - {None} == set(person.parents)


@pytest.mark.parametrize("n_hops", [1, 2])
def test_the_evidence_stands_on_its_page_once_and_leads_on(n_hops):
    for world in TOWNS:
        every = pages(world)
        asked = questions(world, n_hops)
        assert len({question.text for question in asked}) == len(asked) > 90
        for question in asked:
            title, relations = module.read_question(question.text)
            assert relations == question.relations
            for hop, relation in zip(question.hops, relations, strict=True):
                says = [line for line in every[title].lines if object_of(line, relation)]
                assert (title, says) == (hop.title, [hop.line])
                title = object_of(hop.line, relation)
            assert title == question.answer


def test_a_town_has_the_same_pages_every_time_and_lines_in_many_orders():
    assert pages(World("train 1", n_people=40)) == pages(TOWNS[1])
    rows = {
        [object_of(line, "likes") is not None for line in page.lines].index(True)
        for title, page in pages(TOWNS[1]).items()
        if title in {person.name for person in TOWNS[1].people}
    }
    assert len(rows) >= 6


# --- bad input ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("attempt", "match"),
    [
        (lambda: questions(World(), 3), "1 or 2; got 3"),
        (lambda: module.read_question("who are you ?"), "such as 'where does Mei live"),
        (lambda: module.with_line(pages(World()), "moon", "x"), "no page 'moon'; titles are such"),
    ],
)
def test_refusals(attempt, match):
    with pytest.raises(ValueError, match=match):
        attempt()
