import pytest

from minillm.lab.glossary import find, load, no_names, text
from minillm.lab.project import syllabus

ENTRY = 'term = "top-k routing"\nchinese = "路由"\nidentifier = "top_k"\nmeaning = "The k best."\n'


@pytest.mark.parametrize(
    "word", ["vocab_size", "Vocabulary Size", "词表大小", "n_vocab", "vocab size"]
)
def test_a_term_is_found_by_each_of_its_names_and_by_a_banned_one(word):
    assert [term.identifier for term in find(word)] == ["vocab_size"]


def test_an_exact_name_goes_before_a_part_of_a_name():
    assert [term.term for term in find("recurrent state")] == ["recurrent state"]
    assert {"recurrent state", "optimizer state"} <= {term.term for term in find("状态")}


def test_a_banned_word_is_answered_with_the_standard_one_and_with_where_it_is_banned():
    assert text("n_vocab").startswith(
        "Not 'n_vocab' but vocab_size:\n01  vocabulary size · 词表大小"
    )
    first = text("width").splitlines()[0]
    assert first.startswith("Not 'width' but d_model (in ")
    assert "mixers" in first


def test_a_word_that_names_nothing_is_told_what_a_name_should_be():
    assert text("said") == f"Not 'said' but {no_names()[0].instead}."
    assert "factory_kwargs" in text("made")


def test_a_term_leads_to_its_neighbours():
    assert "sparse attention" in text("attention").splitlines()[-1]


def test_all_terms_come_in_the_order_of_the_chapters():
    lines = text().splitlines()
    chapters = [line[:2] for line in lines if line[:2].isdigit() and " · " in line]
    assert chapters == sorted(chapters)
    assert lines[-1] == f"{len(load())} terms"


def test_a_slip_is_told_what_looks_alike():
    with pytest.raises(ValueError, match=r"no 'vocabulry'\. Did you mean vocabulary size\?"):
        find("vocabulry")
    with pytest.raises(ValueError, match="prints all"):
        find("")


def test_every_term_has_a_chapter_of_the_syllabus_and_a_sentence():
    chapters = {chapter.number for chapter in syllabus()}
    for term in load():
        assert term.chapter in chapters, term.term
        assert term.meaning.endswith("."), term.term
        assert term.chinese, term.term


def test_no_word_is_both_a_name_and_banned_everywhere():
    names = {name for term in load() for name in term.identifier.split(", ")}
    assert not names & {word for term in load() for word in term.banned}


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (ENTRY, r"top-k routing: missing fields \['chapter'\]"),
        (ENTRY + 'chapter = "10"\nbaned = []\n', r"unknown \['baned'\]"),
        (ENTRY + 'chapter = "10"\n[[term]]\n' + ENTRY + 'chapter = "11"\n', "more than one entry"),
    ],
)
def test_an_entry_that_is_not_whole_is_refused(entries, words, tmp_path):
    path = tmp_path / "glossary.toml"
    path.write_text("[[term]]\n" + entries, encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        load(path)
