"""minillm.town.tinytown: the default town is the reader's, to the last coin and minute."""

import re

import pytest

from minillm.lab import project
from minillm.town.tinytown import JOBS, LANES, LIKES, OWNS
from minillm.town.world import World

README = (project.root() / "course" / "reader" / "README.md").read_text(encoding="utf-8")
WORLD = World()


def table(heading):
    """The rows of the table below a heading of the reader's page."""
    part = README.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_the_cast_is_the_readers():
    rows = table("The cast")
    assert len(rows) == 13
    for english, chinese, job, home, likes in rows:
        name = english.split(" (")[0]
        person = WORLD.person(name)
        assert person.title == (re.findall(r"\((.*)\)", english) or [name])[0]
        assert person.chinese == chinese
        assert job.startswith(person.job) and person.home == home and person.likes == likes
        assert person.keeper == (name != "Ming")


def test_the_families_are_the_readers():
    assert WORLD.person("Tan").children == ("Kai",)
    assert WORLD.person("Kai").children == ("Ming",)
    assert set(WORLD.person("Bean").parents) == {"Joe", "Lan"}
    assert WORLD.person("Ann").age > WORLD.person("Joe").age + 10
    assert WORLD.person("Mei").family_chinese == "李" and WORLD.person("Hu").born_in == "ferry"
    assert WORLD.person("Su").born_in is None


def test_places_roads_and_minutes_are_the_readers():
    rows = table("The places")
    assert [row[0] for row in rows] == [place.name for place in WORLD.places]
    for english, chinese, bank, neighbours in rows:
        place = WORLD.place(english)
        assert (place.chinese, place.bank) == (chinese, bank.removeprefix("the "))
        told = re.findall(r"([A-Za-z ]+) \((\d+)\)", neighbours)
        assert WORLD.neighbours(english) == {name.strip(): int(n) for name, n in told}
    assert len(WORLD.roads) == 20


def test_goods_and_prices_are_the_readers():
    told = {}
    for shop, _, goods in table("Goods and prices"):
        for name, chinese, price in re.findall(r"([a-z ]+?) ([^\x00-\x7f]+) (\d+)", goods):
            told[name.strip()] = (shop, chinese, int(price))
    assert len(told) == len(WORLD.goods) == 32
    for good in WORLD.goods:
        shop, chinese, price = told[good.name]
        assert (good.chinese, good.price) == (chinese, price)
        assert shop == ("Mei's stall" if good.job == "fruit seller" else JOBS[good.job][1])


def test_nobody_but_four_of_the_cast_lives_on_the_east_bank():
    east = {p.name for p in WORLD.people if WORLD.place(p.home).bank == "east"}
    assert east == {"Joe", "Lan", "Bean", "Jun"}


def test_there_is_one_goose_one_boat_and_one_keeper_of_each_job():
    owned = [thing for person in WORLD.people for thing in person.owns]
    assert owned.count("goose") == owned.count("boat") == owned.count("donkey") == 1
    assert sorted(p.job for p in WORLD.people if p.keeper) == sorted(JOBS)


@pytest.mark.parametrize("words", [LANES, LIKES, OWNS, {job: zh for job, (zh, _) in JOBS.items()}])
def test_every_word_of_the_town_has_a_chinese_word_of_its_own(words):
    assert len(set(words.values())) == len(words)
    assert all(re.fullmatch("[\u4e00-\u9fff]+", chinese) for chinese in words.values())
