"""minillm.text.tokenizer: merges turn text into ids and back."""

import pydoc_data.topics
import random
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.text.bpe import merge_pair, train
from minillm.text.tokenizer import Tokenizer, merge_steps, merge_word, split_specials

REAL_TEXT = "\n".join(text for _, text in sorted(pydoc_data.topics.topics.items()))
END = "<|endoftext|>"
TOKENIZER = train(REAL_TEXT[:150_000], 800, special_tokens=(END, "<|end|>", "<|end|>!"))

# --- by hand ---

HI = Tokenizer(((104, 105), (32, 256)), (END,))  # hi = 256, " hi" = 257, end = 258


def test_ids_are_those_found_on_paper():
    assert HI.encode("hi hi ho") == [256, 257, 32, 104, 111]
    assert HI.encode("") == []
    assert HI.vocab_size == 259


def test_the_earliest_merge_goes_first_even_if_a_later_one_stands_further_left():
    tokenizer = Tokenizer(((98, 99), (97, 98)))  # bc before ab
    assert tokenizer.encode("abc") == [97, 256]


def test_runs_are_merged_from_the_left():
    assert Tokenizer(((97, 97),)).encode("aaa") == [256, 97]
    assert Tokenizer(((97, 97), (256, 97))).encode("aaaaa") == [256, 257]


def test_a_special_token_in_text_is_ordinary_text():
    ids = HI.encode(f"hi{END}")
    assert ids == [256, *END.encode()]
    assert HI.decode(ids) == f"hi{END}"


def test_a_special_token_counts_where_it_is_allowed():
    assert HI.encode(f"hi{END}{END} hi", allowed_special={END}) == [256, 258, 258, 257]


def test_only_the_allowed_special_tokens_count():
    ids = TOKENIZER.encode(f"<|end|>{END}", allowed_special={END})
    assert ids == [*TOKENIZER.encode("<|end|>"), TOKENIZER.special_ids[END]]


def test_the_longest_special_token_is_taken():
    specials = ["<|end|>", "<|end|>!"]
    for order in (specials, specials[::-1]):
        assert split_specials("a<|end|>!b", order, order) == ["a", "<|end|>!", "b"]
    ids = TOKENIZER.encode("<|end|>!<|end|>", allowed_special=specials)
    assert ids == [TOKENIZER.special_ids["<|end|>!"], TOKENIZER.special_ids["<|end|>"]]


def test_a_trace_shows_every_merge_in_order():
    steps = HI.trace(" hi")
    assert [step.new_id for step in steps] == [256, 257]
    assert steps[0].tokens == (b" ", b"hi")
    assert str(steps[1]) == "   257  ␣ + hi  →  ␣hi"
    assert HI.trace("o") == HI.trace("") == []


def test_half_a_character_is_marked_in_text_and_kept_in_bytes():
    ids = HI.encode("村")
    assert HI.decode(ids[:2]) == "�"
    assert HI.decode_bytes(ids[:2]) == "村".encode()[:2]


def test_a_tokenizer_is_a_value():
    same = Tokenizer([[104, 105], [32, 256]], [END])
    assert same == HI
    assert hash(same) == hash(HI)
    assert replace(HI, merges=HI.merges[:1]).encode(" hi") == [32, 256]
    assert replace(HI, merges=HI.merges[:1]).special_ids == {END: 257}


# --- twin ---


def replayed(word: bytes, tokenizer: Tokenizer) -> list[int]:
    """The definition: every merge in turn, on the whole word."""
    ids = list(word)
    for pair, new_id in tokenizer.new_ids.items():
        ids = merge_pair(ids, pair, new_id)
    return ids


@pytest.mark.parametrize("letters", ["a", "ab", "abc"])
def test_three_ways_to_encode_a_word_agree(letters):
    for seed in range(40):
        rng = random.Random(seed)
        text = "".join(rng.choices(letters, k=200))
        tokenizer = train([text[i : i + 10] for i in range(0, 200, 10)], None, min_count=2)
        for _ in range(5):
            word = bytes(rng.choices(letters.encode(), k=rng.randint(1, 60)))
            *_, (_, by_steps) = [(None, list(word)), *merge_steps(word, tokenizer.new_ids)]
            assert merge_word(word, tokenizer.new_ids) == by_steps == replayed(word, tokenizer)


def test_the_last_step_of_a_trace_is_what_encode_gives():
    for word in (" villages", "understanding", " naïve", "    "):
        steps = TOKENIZER.trace(word)
        ids = TOKENIZER.encode(word)
        assert steps[-1].tokens == tuple(map(TOKENIZER.token_bytes, ids))


def test_merges_given_in_any_order_are_replayed_in_that_order():
    # Hand-made merges, which no training would give.
    rng = random.Random(1)
    for _ in range(100):
        merges = []
        while len(merges) < 8:
            pair = (rng.choice([97, 98, *range(256, 256 + len(merges))]), rng.choice([97, 98]))
            if pair not in merges:
                merges.append(pair)
        tokenizer = Tokenizer(tuple(merges))
        word = bytes(rng.choices(b"ab", k=30))
        assert merge_word(word, tokenizer.new_ids) == replayed(word, tokenizer)


# --- law ---

any_text = st.text(max_size=80) | st.text("the vilag\n村🙂<|endof>", max_size=80)


@given(any_text)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_text_comes_back(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text
    allowed = set(TOKENIZER.special_tokens)
    assert TOKENIZER.decode(TOKENIZER.encode(text, allowed_special=allowed), "strict") == text


@given(st.binary(max_size=80))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_bytes_come_back_whatever_they_are(data):
    ids = TOKENIZER.encode_bytes(data)
    assert TOKENIZER.decode_bytes(ids) == data
    assert TOKENIZER.decode(ids) == data.decode("utf-8", "replace")


@given(any_text)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_bytes_of_text_encode_as_the_text(text):
    assert TOKENIZER.encode_bytes(text.encode()) == TOKENIZER.encode(text)


@given(any_text)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_more_merges_never_make_more_tokens(text):
    sizes = [
        len(replace(TOKENIZER, merges=TOKENIZER.merges[:n]).encode(text)) for n in (0, 10, 100, 541)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == len(text.encode())


@given(any_text)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_no_special_id_comes_out_of_text(text):
    assert max(TOKENIZER.encode(f"{text}{END}{text}")) < 256 + len(TOKENIZER.merges)


def test_every_learned_token_encodes_to_itself():
    for token in range(256 + len(TOKENIZER.merges)):
        assert TOKENIZER.encode_bytes(TOKENIZER.token_bytes(token)) == [token]


@pytest.mark.parametrize("letters", ["a", "thevilag"])
def test_one_endless_word_takes_linear_time(letters):
    tokenizer = train(["a" * 200, REAL_TEXT[:50_000]], 500)

    def seconds(n):
        word = "".join(random.Random(0).choices(letters, k=n))
        took = []
        for _ in range(3):
            start = time.process_time()
            tokenizer.encode(word)
            took.append(time.process_time() - start)
        return min(took)

    assert seconds(240_000) < 8 * seconds(60_000) + 0.02  # 16 times if it were quadratic


# --- bad input ---


@pytest.mark.parametrize("token", [259, -1, 10**9])
def test_an_unknown_id_is_refused(token):
    with pytest.raises(ValueError, match=rf"no id {token}: this vocabulary has 259 ids, 0 to 258"):
        HI.decode([104, token])


@pytest.mark.parametrize("token", [1.0, "a", None])
def test_an_id_is_a_whole_number(token):
    with pytest.raises(ValueError, match="must be a whole number"):
        HI.decode([token])


def test_broken_utf8_is_named_when_asked_strictly():
    with pytest.raises(ValueError, match=r"at byte 1 of 3 stands \\xe6\\x9d"):
        HI.decode([104, 0xE6, 0x9D], errors="strict")
    with pytest.raises(ValueError, match='"replace" or "strict", not \'ignore\''):
        HI.decode([104], errors="ignore")


@pytest.mark.parametrize(
    ("text", "message"), [("a\ud83d", "lone surrogate, U\\+D83D"), (b"a", "not bytes")]
)
def test_what_is_no_text_is_not_encoded(text, message):
    with pytest.raises(ValueError, match=message):
        HI.encode(text)


@pytest.mark.parametrize(
    ("allowed", "message"),
    [({"<|pad|>"}, r"names \['<\|pad\|>'\], but"), (END, "must be a set of tokens")],
)
def test_an_unknown_special_token_cannot_be_allowed(allowed, message):
    with pytest.raises(ValueError, match=message):
        HI.encode("hi", allowed_special=allowed)


@pytest.mark.parametrize(
    ("merges", "specials", "message"),
    [
        (((97, 256),), (), r"merge 0 makes id 256 from \(97, 256\).*0 to 255"),
        (((-1, 97),), (), "ids before it"),
        (((97, 98), (97, 98)), (), "merged twice, as 256 and 257"),
        ((), ("",), "non-empty text, not ''"),
        ((), (END, END), "different, non-empty"),
        ((), END, "must be a row of texts"),
        ((), ("\ud800",), "lone surrogate"),
    ],
)
def test_an_impossible_tokenizer_is_refused(merges, specials, message):
    with pytest.raises(ValueError, match=message):
        Tokenizer(merges, specials)


def test_a_trace_is_of_one_word():
    with pytest.raises(ValueError, match=r"this is 2: \['I', ' live'\]"):
        HI.trace("I live")
