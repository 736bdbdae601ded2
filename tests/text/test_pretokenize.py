"""minillm.text.pretokenize: the words that merges stay inside."""

import time

import pytest
import regex
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.text.pretokenize import CLASSES, PATTERN, pretokenize, refuse_surrogates


def bytes_in_tiktoken(text: str) -> int:
    """Encode with single bytes as the only tokens, so that all the work is the pattern's."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    encoding = tiktoken.Encoding("bytes", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
    return len(encoding.encode_ordinary(text))


def seconds(text: str) -> float:
    """Processor time of one call, best of three: other people's work does not count."""
    took = []
    for _ in range(3):
        start = time.process_time()
        pretokenize(text)
        took.append(time.process_time() - start)
    return min(took)


# --- by hand ---


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I live in the village", ["I", " live", " in", " the", " village"]),
        ("don't, we'll", ["don", "'t", ",", " we", "'ll"]),
        ("in 2023: 12345", ["in", " ", "202", "3", ":", " ", "123", "45"]),
        ("我住在村里。", ["我住在村里", "。"]),
        ("नमस्ते दुनिया", ["नमस्ते", " दुनिया"]),  # vowel signs stay in the word
        ("if x:\n\n    y = 1", ["if", " x", ":", "\n\n   ", " y", " =", " ", "1"]),
        ("a  \t b  ", ["a", "  \t", " b", "  "]),
        ("a\r\nb", ["a", "\r", "\n", "b"]),
        ("👩‍🚀 !?", ["👩‍🚀", " !?"]),
        ("", []),
    ],
)
def test_text_is_cut_where_one_would_cut_it_by_hand(text, words):
    assert pretokenize(text) == words


def test_white_space_is_cut_after_a_thousand_characters():
    assert list(map(len, pretokenize(" " * 2500 + "x"))) == [1000, 1000, 499, 2]


def test_another_pattern_may_be_used():
    assert pretokenize("a b", r"\S|\s") == ["a", " ", "b"]


# --- reference ---


def test_a_bound_changes_nothing_for_shorter_white_space():
    unbounded = PATTERN.replace("{1,1000}", "+")
    assert unbounded != PATTERN
    for n in (1, 2, 3, 999, 1000):
        for text in (" " * n + "x", "x" + "\n" * n, "x" + " \n" * (n // 2) + "1"):
            assert pretokenize(text) == pretokenize(text, unbounded)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(" " * 1_000_000, id="spaces"),
        pytest.param(" " * 1_000_000 + "x", id="spaces, then a letter"),
        pytest.param("\n" * 1_100_000 + "1", id="newlines, then a digit"),
        pytest.param("a" * 1_100_000, id="letters"),
        pytest.param("-" * 1_100_000, id="punctuation"),
        pytest.param("7" * 1_100_000, id="digits"),
    ],
)
def test_a_million_equal_characters_do_not_overflow_tiktoken(text):
    assert bytes_in_tiktoken(text) == len(text)


# --- law ---

any_text = st.text(st.characters(), max_size=60) | st.text(" \n\t'aé村1२.🙂\ud800s", max_size=60)


@given(any_text)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_glued_together_the_words_are_the_text(text):
    assert "".join(pretokenize(text)) == text


@given(any_text)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_a_word_never_mixes_letters_digits_and_punctuation(text):
    def kind(character):
        return next((c for c in CLASSES if regex.fullmatch(c, character)), "other")

    for word in pretokenize(text):
        kinds = {kind(character) for character in word.removeprefix(" ")}
        assert len(kinds) <= 1 or word in ("'s", "'d", "'m", "'t", "'ll", "'re", "'ve")


@pytest.mark.parametrize("unit", ["a", "village ", " ", "1", "我住在村里", "'"])
def test_a_line_four_times_as_long_takes_about_four_times_as_long(unit):
    text = unit * (100_000 // len(unit))
    assert seconds(text * 4) < 8 * seconds(text) + 0.02  # 16 times if it were quadratic


def test_one_line_of_ten_megabytes_is_cut():
    line = "village " * 1_250_000
    assert len(pretokenize(line)) == 1_250_001  # the last space stands alone


# --- bad input ---


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"\p{L}+(", "not a regular expression"),
        (r"(\p{L})+|\s|.", "1 capturing group"),
        (r"\p{L}*", "matches the empty text"),
        (r"\p{L}+|\s+", r"kept 2 of 3"),
        (None, "must be a str, not NoneType"),
    ],
)
def test_an_unusable_pattern_is_explained(pattern, message):
    with pytest.raises(ValueError, match=message):
        pretokenize("a 1", pattern)


def test_a_lone_surrogate_is_named_with_its_place():
    with pytest.raises(ValueError, match=r"lone surrogate, U\+D83D, at position 3"):
        refuse_surrogates("abc\ud83d")
    refuse_surrogates("abc🙂")


def test_bytes_are_no_text():
    with pytest.raises(ValueError, match="must be a str, not bytes"):
        refuse_surrogates(b"abc")
