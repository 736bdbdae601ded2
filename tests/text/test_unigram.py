import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.text.unigram import ALL_BYTES, Unigram, train

TEXT = (
    "Mei sells red plums in the village. The villagers like plums, and Mei likes the villagers. "
    "Every morning she carries a basket of plums to the market by the river. "
    "我住在村里。村里的人喜欢李子，小梅每天早上把李子带到河边的市场。"
) * 3


@pytest.fixture(scope="module")
def tokenizer():
    return train(TEXT, vocab_size=300)


# --- by hand -----------------------------------------------------------------------------------
def test_pruning_keeps_the_piece_that_is_expensive_to_spell_otherwise():
    # Ten times "plum" would cost 40 bytes; without "plum", "plu" or "lum" would cost 20 pieces.
    assert train({"plum": 10, "ox": 1}, vocab_size=257).vocabulary[256] == b"plum"


def test_ids_are_bytes_first_and_then_by_length():
    vocabulary = train(TEXT, vocab_size=280).vocabulary
    assert vocabulary[:256] == ALL_BYTES
    assert list(vocabulary) == sorted(vocabulary, key=lambda token: (len(token), token))


# --- law ---------------------------------------------------------------------------------------


def test_a_large_alpha_samples_the_best_segmentation(tokenizer):
    rng = np.random.default_rng(0)
    text = "The villagers like red plums. 小梅住在村里。"
    assert tokenizer.sample(text, 500.0, rng) == tokenizer.encode(text)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(tokenizer.tokens(text)) == text.encode()
    assert ids == tokenizer.encode_bytes(text.encode())


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_any_text_comes_back_from_a_random_cut(tokenizer, text, seed):
    assert tokenizer.decode(tokenizer.sample(text, 0.3, np.random.default_rng(seed))) == text


@given(st.binary(max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_bytes_come_back(tokenizer, data):
    assert tokenizer.decode_bytes(tokenizer.encode_bytes(data)) == data


def test_probabilities_sum_to_one_and_no_byte_is_impossible(tokenizer):
    assert sum(map(math.exp, tokenizer.log_probs)) == pytest.approx(1)
    assert tokenizer.vocab_size == len(tokenizer.log_probs) == 300
    n_tokens = len(TEXT.encode()) + 256
    assert min(tokenizer.log_probs[:256]) >= -math.log(n_tokens)  # each counts as seen once


def test_the_order_of_the_words_does_not_matter_even_where_all_pieces_tie():
    counts = dict.fromkeys(["plum", "red", "village", "market", "basket", "river"], 3)
    backwards = dict(reversed(counts.items()))
    for n_seed in (None, 270):
        assert train(counts, 265, n_seed=n_seed) == train(backwards, 265, n_seed=n_seed)


def test_no_piece_crosses_a_word_or_exceeds_its_length(tokenizer):
    assert not any(b" " in token[1:] and token.strip(b" ") for token in tokenizer.vocabulary)
    short = train(TEXT, vocab_size=290, max_piece_bytes=3)
    assert short.longest == 3


def test_more_pieces_mean_fewer_tokens():
    lengths = [len(train(TEXT, vocab_size=n).encode(TEXT)) for n in (256, 270, 290, 330)]
    assert lengths[0] == len(TEXT.encode())
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] < 0.5 * lengths[0]


def test_a_word_longer_than_64_bytes_is_learned_in_parts_and_comes_back():
    # 64 bytes, 20 times, so that the cuts go through each QR; and a tail.
    long_word = ("R" + "ab" * 31 + "Q") * 20 + "plums"
    tokenizer = train({long_word: 9}, vocab_size=290)
    assert tokenizer.longest > 4
    assert any(token.endswith(b"Q") for token in tokenizer.vocabulary[256:])
    assert any(b"plu" in token for token in tokenizer.vocabulary)
    assert not any(b"QR" in token for token in tokenizer.vocabulary)
    assert tokenizer.decode(tokenizer.encode(long_word)) == long_word


# --- errors teach ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"texts": "", "vocab_size": 300}, "empty"),
        ({"texts": {}, "vocab_size": 300}, "empty"),
        ({"texts": "abc", "vocab_size": 255}, "at least 256"),
        ({"texts": "abab abab", "vocab_size": 400}, "supports at most 261 pieces"),
        ({"texts": {"a": 0}, "vocab_size": 256}, "count must be at least 1"),
        (
            {"texts": TEXT, "vocab_size": 300, "n_seed": 299},
            "n_seed must be at least vocab_size=300",
        ),
        ({"texts": TEXT, "vocab_size": 300, "max_piece_bytes": 0}, "max_piece_bytes"),
        ({"texts": TEXT, "vocab_size": 300, "em_rounds": 0}, "em_rounds"),
        ({"texts": TEXT, "vocab_size": 300, "keep_share": 1.0}, "keep_share"),
    ],
)
def test_training_says_what_is_wrong_with_its_arguments(arguments, says):
    with pytest.raises(ValueError, match=says):
        train(**arguments)


def test_wrong_input_to_a_tokenizer_is_named(tokenizer):
    for use in (
        tokenizer.encode,
        tokenizer.tokens,
        lambda text: tokenizer.sample(text, 1.0, np.random.default_rng(0)),
        lambda text: train(text, 257),
        lambda text: train({text: 1}, 257),
    ):
        with pytest.raises(ValueError, match="lone surrogate"):
            use("broken \ud800")
    with pytest.raises(ValueError, match="ids run from 0 to 299; got 300"):
        tokenizer.decode([5, 300])
    with pytest.raises(ValueError, match="got -1"):
        tokenizer.decode([-1])
    with pytest.raises(ValueError, match="alpha"):
        tokenizer.sample("plums", -0.5, np.random.default_rng(0))


def test_half_a_character_is_shown_or_refused_but_kept_in_bytes(tokenizer):
    ids = [*tokenizer.encode("a"), "村".encode()[0]]
    assert tokenizer.decode(ids) == "a\ufffd"
    assert tokenizer.decode_bytes(ids) == b"a\xe6"
    with pytest.raises(ValueError, match="utf-8"):
        tokenizer.decode(ids, errors="strict")


def test_a_vocabulary_that_is_no_vocabulary_is_refused():
    even = (math.log(1 / 257),) * 257
    Unigram((*ALL_BYTES, b"ab"), even)
    with pytest.raises(ValueError, match="first 256"):
        Unigram((b"ab", *ALL_BYTES), even)
    with pytest.raises(ValueError, match="257 pieces and 256"):
        Unigram((*ALL_BYTES, b"ab"), even[:256])
    with pytest.raises(ValueError, match="differ"):
        Unigram((*ALL_BYTES, b"a"), even)
    with pytest.raises(ValueError, match="at least one byte"):
        Unigram((*ALL_BYTES, b""), even)
    with pytest.raises(ValueError, match="sum to one"):
        Unigram((*ALL_BYTES, b"ab"), (0.0,) * 257)


def test_a_text_without_any_repeated_substring_still_has_its_bytes():
    assert train("abc", 256).encode("cab") == [99, 97, 98]
