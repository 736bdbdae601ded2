"""The bilingual reader is data that later chapters build on; these are its rules."""

import re
import unicodedata

import pytest

from minillm.data.corpus import reader, reader_passages
from minillm.lab import project

FOLDER = project.root() / "course" / "reader"
FILES = sorted(FOLDER.glob("*.txt"))
SLUGS = sorted({path.name.split(".")[0] for path in FILES})
HAN = r"\u3400-\u4dbf\u4e00-\u9fff"
STRAY = re.compile(
    rf"[{HAN}，。！？；：、”’）》]\s*[,;:?!()\"'.]|[,;:?!()\"']\s*[{HAN}“‘（《]|[，。！？；：、] "
)


def passage(slug, language):
    found = {passage.slug: passage for passage in reader_passages(language)}
    assert slug in found, f"{slug}.{language}.txt is missing from {FOLDER}"
    return found[slug]


def strays(text):
    """Half-width punctuation beside Chinese, and spaces after Chinese punctuation."""
    return [text[max(0, m.start() - 8) : m.end() + 8] for m in STRAY.finditer(text)]


def test_the_rule_for_stray_punctuation_finds_what_it_should():
    wrongs = ["村里,有", "村里.", "村里 (镇)", '"村里', "你好!", "他说:“好”", "好。 坏", "好。."]
    for wrong in wrongs:
        assert strays(wrong), wrong
    for right in ("村里，有。", "他说：“I live in the village.”", "3.5 公里", "（镇）"):
        assert not strays(right), right


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_file_is_clean_utf8_text(path):
    text = path.read_bytes().decode("utf-8").replace("\r\n", "\n")
    assert re.fullmatch(r"\d\d_[a-z][a-z_]*\.(en|zh)\.txt", path.name)
    assert text.endswith("\n") and not text.endswith("\n\n")
    assert not re.search(r"[ \t　]$|\t|\r|\n\n\n", text, flags=re.MULTILINE)
    assert unicodedata.is_normalized("NFC", text)
    assert not re.search(r"[\ufeff\ufffd\u200b\u00a0]", text)


def test_the_passages_come_in_pairs_numbered_from_one():
    assert [int(slug[:2]) for slug in SLUGS] == list(range(1, len(SLUGS) + 1))
    expected = [f"{slug}.{language}.txt" for slug in SLUGS for language in ("en", "zh")]
    assert [path.name for path in FILES] == expected
    assert [passage.slug for passage in reader_passages("en")] == SLUGS


@pytest.mark.parametrize("slug", SLUGS)
def test_a_passage_has_as_many_paragraphs_in_both_languages(slug):
    english, chinese = passage(slug, "en"), passage(slug, "zh")
    assert len(english.paragraphs) == len(chinese.paragraphs)
    assert 0 < len(english.title) < 60
    assert 0 < len(chinese.title) < 20


@pytest.mark.parametrize("slug", SLUGS)
def test_the_same_content_is_about_as_long_in_both_languages(slug):
    n_english, n_chinese = (len(passage(slug, name).text.encode()) for name in ("en", "zh"))
    assert 0.7 < n_english / n_chinese < 1.5


def test_no_title_comes_twice():
    for language in ("en", "zh"):
        titles = [passage.title for passage in reader_passages(language)]
        assert len(set(titles)) == len(titles)


def test_there_are_at_least_eight_thousand_chinese_characters():
    assert len(re.findall(rf"[{HAN}]", reader("zh"))) >= 8000


@pytest.mark.parametrize("slug", SLUGS)
def test_no_half_width_punctuation_stands_beside_chinese(slug):
    assert strays(passage(slug, "zh").text) == []


@pytest.mark.parametrize("slug", SLUGS)
def test_the_english_passages_are_in_english(slug):
    text = passage(slug, "en").text
    assert not re.search(r"[\u3000-\u303f\uff00-\uffef]", text)  # full-width punctuation
    assert len(re.findall(rf"[{HAN}]", text)) < 0.02 * len(text)


def test_the_sentence_of_chapter_one_stands_in_the_reader():
    assert "I live in the village" in reader("en")
    assert "我住在村里" in reader("zh")
