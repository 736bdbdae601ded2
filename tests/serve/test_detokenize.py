import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.serve.detokenize import stream_text
from minillm.text.tokenizer import Tokenizer

BYTES = Tokenizer(())


def tokens_of(*tokens):
    """A tokenizer that has these pieces, in this order, and their ids."""
    merges, ids, spelled = [], [], {bytes([n]): n for n in range(256)}
    for token in tokens:
        data = token if isinstance(token, bytes) else token.encode()
        for end in range(2, len(data) + 1):
            if data[:end] not in spelled:
                merges.append((spelled[data[: end - 1]], data[end - 1]))
                spelled[data[:end]] = 255 + len(merges)
        ids.append(spelled[data])
    return Tokenizer(tuple(merges)), ids


def shown(tokens, stop=()):
    tokenizer, ids = tokens_of(*tokens)
    assert [tokenizer.decode_bytes([i]) for i in ids] == [
        token if isinstance(token, bytes) else token.encode() for token in tokens
    ]
    return list(stream_text(ids, tokenizer, stop))


# --- by hand -----------------------------------------------------------------------------------
def test_text_comes_with_its_token():
    assert shown(["Mei", " sells", " plums"]) == ["Mei", " sells", " plums"]


def test_half_a_character_waits_for_its_other_half():
    red = "红".encode()
    assert shown(["a", red[:1], red[1:2], red[2:] + b"!"]) == ["a", "红!"]


def test_bytes_that_are_no_character_are_marked_and_half_a_one_at_the_end_is_left_out():
    assert shown([b"a\xff", "b"]) == ["a�", "b"]
    assert shown(["a", "红".encode()[:2], "b"]) == ["a", "�b"]
    assert shown(["a", "红".encode()[:2]]) == ["a"]


def test_nothing_of_a_stop_string_is_shown_however_it_is_cut():
    for tokens in (
        ["plums\nQuestion: why"],
        ["plums", "\n", "Ques", "tion", ":", " why"],
        [*"plums\nQuestion: why"],
        ["plu", "ms\nQ", "uestion: why"],
    ):
        assert "".join(shown(tokens, ["\nQuestion:"])) == "plums"


def test_what_only_looked_like_a_stop_string_is_shown_as_soon_as_that_is_clear():
    assert shown(["a", "E", "N", "D"], ["END"]) == ["a"]
    assert shown(["a", "E", "N", "T"], ["END"]) == ["a", "ENT"]
    assert shown(["a", "E", "N", "E", "x"], ["END"]) == ["a", "EN", "Ex"]  # an E may begin anew
    assert shown(["a", "E", "N"], ["END"]) == ["a", "EN"]  # the text ends, so it was none


def test_a_stop_string_that_repeats_itself_is_found():
    assert "".join(shown([*"xaaab"], ["aab"])) == "xa"


def test_the_stop_string_that_is_complete_first_counts():
    assert "".join(shown(["abcd"], ["abcd", "bc"])) == "a"
    assert "".join(shown([*"abcd"], ["abcd", "bc"])) == "a"
    assert "".join(shown(["abc"], ["bc", "abc"])) == ""  # both at once: nothing of either


def test_after_the_stop_string_no_token_is_asked_for():
    asked = []

    def tokens():
        for token in b"ab.cd":
            asked.append(token)
            yield token

    assert "".join(stream_text(tokens(), BYTES, ["."])) == "ab"
    assert bytes(asked) == b"ab."


def test_a_piece_comes_before_the_next_token_is_asked_for():
    asked = []
    tokens = stream_text((asked.append(token) or token for token in b"abc"), BYTES)
    assert next(tokens) == "a"
    assert len(asked) == 1


# --- twin --------------------------------------------------------------------------------------
def cut_naively(text, stops):
    """Character by character: end as soon as what was read ends with a stop string."""
    for end in range(len(text) + 1):
        if ending := [stop for stop in stops if text[:end].endswith(stop)]:
            return text[: end - max(map(len, ending))]
    return text


@given(
    st.text("ab.", max_size=12),
    st.lists(st.text("ab.", min_size=1, max_size=3), max_size=3),
    st.lists(st.integers(1, 4), min_size=12, max_size=12),
)
@settings(max_examples=300, deadline=None)
def test_any_cut_gives_what_reading_by_character_gives(text, stops, lengths):
    tokens, rest = [], text
    for length in lengths:
        tokens, rest = [*tokens, rest[:length]], rest[length:]
    found = list(stream_text(range(len(tokens)), Table(tokens), stops))
    assert "".join(found) == cut_naively(text, stops)
    assert "" not in found


class Table:
    """A tokenizer whose tokens are given."""

    def __init__(self, tokens):
        self.tokens = [p if isinstance(p, bytes) else p.encode() for p in tokens]

    def decode_bytes(self, ids):
        return b"".join(self.tokens[i] for i in ids)


# --- law ---------------------------------------------------------------------------------------
@given(st.lists(st.sampled_from([*"a红é🙂".encode(), 0xFF, 0xC0]), max_size=12))
@settings(max_examples=300, deadline=None)
def test_all_pieces_are_the_text_decoded_at_once_but_for_half_a_character_at_its_end(data):
    whole = BYTES.decode([*data, ord("|")])[:-1]  # a byte after it: half characters are given up
    found = "".join(stream_text(data, BYTES))
    assert found in (whole, whole.removesuffix("�"))
    assert "".join(stream_text([*data, ord("|")], BYTES)) == whole + "|"
    if bytes(data).decode(errors="ignore").encode() == bytes(data):
        assert found == bytes(data).decode()


# --- bad input ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: stream_text([97], BYTES, "END"), "stop must be a list of texts, ['END']"),
        (lambda: stream_text([97], BYTES, [".", ""]), "at least one character"),
        (lambda: list(stream_text([97, 300], BYTES)), "there is no id 300"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)
