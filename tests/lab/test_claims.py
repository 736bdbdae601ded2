import json

import pytest

from minillm.lab.claims import Claim, all_measurements, claimed_sentences, load, measurements
from minillm.lab.project import root, syllabus

FIELDS = """id = "a"
claim = "c"
original = "s"
translation = ""
where = "S1"
paper = ""
chapter = "00"
test = "t"
scale = ""
evidence = "arithmetic"
result = "r"
verdict = "follows by arithmetic"
cannot_show = ""
since = ""
"""


def planted(tmp_path, fields):
    path = tmp_path / "claims.toml"
    path.write_text("[[claim]]\n" + fields, encoding="utf-8")
    return load(path)


def test_the_ledger_opens_with_fifteen_claims_or_more_each_id_once():
    ids = [claim.id for claim in load()]
    assert len(ids) >= 15
    assert len(set(ids)) == len(ids)


def test_every_claim_of_the_ledger_is_told_whole():
    numbers = {chapter.number for chapter in syllabus()}
    for claim in load():
        assert claim.chapter in numbers
        for field in ("claim", "original", "where", "test", "result", "verdict", "cannot_show"):
            assert getattr(claim, field).strip(), f"{claim.id} has no {field}"


def test_original_words_in_chinese_come_with_a_translation():
    for claim in load():
        chinese = any("\u4e00" <= letter <= "\u9fff" for letter in claim.original)
        assert bool(claim.translation) == chinese, claim.id


def test_every_testable_claim_of_a_finished_chapter_is_measured_there():
    finished = {chapter.number: chapter for chapter in syllabus() if chapter.finished}
    for claim in load():
        if claim.chapter not in finished or claim.evidence not in ("live", "arithmetic"):
            continue
        chapter = finished[claim.chapter]
        paths = [chapter.notebook, *([chapter.lab] if chapter.lab else [])]
        measured = {m.claim for path in paths for m in measurements(path)}
        assert claim.id in measured, f"{claim.id} is measured in no notebook of {claim.chapter}"


def test_every_claim_that_a_notebook_settles_is_in_the_ledger():
    known = {claim.id for claim in load()}
    for path in (root() / "course").rglob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code" and "claim=" in "".join(cell["source"]):
                assert set(claimed_sentences("".join(cell["source"])).values()) <= known


def test_a_planted_ledger_is_read(tmp_path):
    (claim,) = planted(tmp_path, FIELDS)
    assert isinstance(claim, Claim)
    assert claim.verdict == "follows by arithmetic"


@pytest.mark.parametrize(
    ("old", "new", "phrase"),
    [
        ('claim = "c"\n', "", r"missing fields \['claim'\]"),
        (
            'claim = "c"\n',
            'claim = "c"\nclaims = "c"\n',
            r"missing fields \[\], unknown fields \['claims'\]",
        ),
        ("follows by arithmetic", "obvious", "verdict 'obvious' is none of"),
        ('evidence = "arithmetic"', 'evidence = "hearsay"', "evidence 'hearsay' is none of"),
    ],
)
def test_a_faulty_entry_is_refused_by_name(tmp_path, old, new, phrase):
    with pytest.raises(ValueError, match=f"claim a: {phrase}"):
        planted(tmp_path, FIELDS.replace(old, new))


def test_what_a_notebook_measured_is_read_from_its_stored_output(tmp_path):
    cell = {
        "cell_type": "code",
        "source": ['expect("x, GiB", 18.0, equals=18, claim="kv")\n', 'expect("y", 2, at_least=1)'],
        "outputs": [
            {
                "output_type": "stream",
                "text": ["✔ x, GiB: 18 (exactly 18)\n", "✔ y: 2 (at least 1)\n"],
            }
        ],
    }
    path = tmp_path / "00_planted.ipynb"
    path.write_text(json.dumps({"cells": [cell]}), encoding="utf-8")
    (found,) = measurements(path)
    assert (found.claim, found.value, found.band, found.notebook) == (
        "kv", "18", "exactly 18", "00_planted",
    )  # fmt: skip


def test_labs_are_measured_too_and_named_as_labs():
    notebooks = {m.notebook for m in all_measurements()}
    assert {"00_claims", "labs/00_claims"} <= notebooks


@pytest.mark.parametrize(
    "cell", [7, {}, {"cell_type": "code", "source": 'expect("a, claim="b")'}, {"source": ["a"]}]
)
def test_what_is_no_notebook_is_named(tmp_path, cell):
    path = tmp_path / "00_claims.ipynb"
    path.write_text(json.dumps({"cells": [cell]}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"00_claims\.ipynb is no notebook"):
        measurements(path)
