"""minillm.text.bpe: merges are learned from text."""

import pydoc_data.topics
import random
from itertools import islice

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.text.bpe import (
    count_pairs,
    count_words,
    learn_merges,
    learn_merges_naive,
    merge_pair,
    train,
    train_naive,
)

REAL_TEXT = "\n".join(text for _, text in sorted(pydoc_data.topics.topics.items()))

# --- by hand ---


def test_words_are_counted_as_bytes():
    assert count_words("so so 村") == {b"so": 1, b" so": 1, " 村".encode(): 1}
    assert count_words(["so", b"so"]) == {b"so": 2}


def test_a_pair_counts_as_often_as_its_word_and_overlaps_count_each():
    assert count_pairs({b"aaab": 10, (97, 300): 1}) == {(97, 97): 20, (97, 98): 10, (97, 300): 1}


def test_a_merge_goes_from_left_to_right():
    assert merge_pair([1, 1, 1, 2, 1, 1], (1, 1), 9) == [9, 1, 2, 9]
    assert merge_pair([1, 2, 1, 2], (1, 2), 9) == [9, 9]
    assert merge_pair([1, 2], (2, 1), 9) == [1, 2]
    assert merge_pair([], (1, 2), 9) == []


@pytest.mark.parametrize("learn", [learn_merges_naive, learn_merges])
def test_three_merges_are_those_found_on_paper(learn):
    # aaabdaaabac: (a,a) 4 times, then XabdXabac: (a,b) and (X,a) twice, then XYdXYac: (X,Y) twice
    assert list(islice(learn({b"aaabdaaabac": 1}), 3)) == [
        ((97, 97), 4),
        ((97, 98), 2),
        ((256, 257), 2),
    ]


@pytest.mark.parametrize("learn", [learn_merges_naive, learn_merges])
def test_a_tie_goes_to_the_smallest_left_id_then_the_smallest_right_id(learn):
    assert [pair for pair, _ in learn({b"cd": 1, b"ba": 1, b"bc": 1})] == [
        (98, 97),
        (98, 99),
        (99, 100),
    ]


def test_a_merge_never_crosses_a_word():
    # "ab" occurs only across the border of two words
    assert list(learn_merges(count_words("1a b1a b1a"))) == list(learn_merges({b" b": 2}))


def test_ids_are_bytes_then_merges_then_special_tokens():
    tokenizer = train("aaabdaaabac", 261, special_tokens=("<|endoftext|>", "<|pad|>"))
    assert tokenizer.merges == ((97, 97), (97, 98), (256, 257))
    assert tokenizer.special_ids == {"<|endoftext|>": 259, "<|pad|>": 260}
    assert tokenizer.vocab_size == 261


def test_no_merge_at_all_is_a_tokenizer_too():
    assert train("abc", 256).encode("abc") == [97, 98, 99]


def test_training_stops_at_the_least_count():
    assert train("aaabdaaabac", None, min_count=3).merges == ((97, 97),)


def test_without_a_size_every_word_becomes_one_token():
    tokenizer = train("the village the town", None)
    assert [len(tokenizer.encode(word)) for word in ("the", " village", " the", " town")] == [1] * 4


def test_progress_is_told_after_each_merge():
    done = []
    train("aaabdaaabac", 259, progress=done.append)
    assert done == [1, 2, 3]


# --- twin ---


@pytest.mark.parametrize("letters", ["a", "ab", "abc", "abcdefgh"])
def test_the_fast_trainer_learns_what_the_naive_one_learns(letters):
    # Few letters make ties, runs such as aaaa, and pairs that vanish and overlap.
    for seed in range(60):
        rng = random.Random(seed)
        words = {
            bytes(rng.choices(letters.encode(), k=rng.randint(1, 14))): rng.randint(1, 3)
            for _ in range(rng.randint(1, 8))
        }
        assert list(learn_merges(words)) == list(learn_merges_naive(words)), (seed, words)


def test_both_trainers_learn_the_same_from_real_text():
    text = REAL_TEXT[:15_000]
    assert train(text, 400) == train_naive(text, 400)


@given(st.lists(st.binary(max_size=40) | st.text(max_size=40), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_both_trainers_learn_the_same_from_any_text(texts):
    words = count_words([t if isinstance(t, bytes) else t.encode() for t in texts])
    assert list(learn_merges(words)) == list(learn_merges_naive(words))


def test_text_bytes_and_lists_teach_the_same():
    text = REAL_TEXT[:20_000]
    first, second = text[:10_000], text[10_000:]
    assert train(text, 400) == train(text.encode(), 400) == train(iter([text]), 400)
    assert train([first, second], 400) == train([second.encode(), first], 400)


# --- reference ---


def test_the_merges_are_those_of_the_rust_trainer_on_the_same_alphabet():
    """Given the bytes as characters of the same order, ties included."""
    words = count_words(REAL_TEXT[:200_000])
    rust = tokenizers.Tokenizer(tokenizers.models.BPE())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=1000, show_progress=False, initial_alphabet=list(map(chr, range(256)))
    )
    latin = [word.decode("latin-1") for word in words.elements()]
    rust.train_from_iterator(latin, trainer)
    ours = train(REAL_TEXT[:200_000], 1000)
    spelled = {ours.token_bytes(token).decode("latin-1"): token for token in range(1000)}
    assert rust.get_vocab() == spelled


# --- law ---


@given(st.text("ab ", min_size=1, max_size=60))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_counts_never_rise_and_every_merge_is_new(text):
    merges = list(learn_merges(count_words(text)))
    counts = [count for _, count in merges]
    assert counts == sorted(counts, reverse=True)
    assert len({pair for pair, _ in merges}) == len(merges)


def test_a_smaller_vocabulary_is_the_beginning_of_a_larger_one():
    text = REAL_TEXT[:50_000]
    assert train(text, 600).merges[:100] == train(text, 356).merges


# --- bad input ---


@pytest.mark.parametrize("texts", ["", b"", [], ["", b""]])
def test_no_text_is_refused(texts):
    with pytest.raises(ValueError, match="no text to learn from"):
        train(texts, 300)


def test_a_vocabulary_without_room_for_bytes_and_special_tokens_is_refused():
    with pytest.raises(
        ValueError, match=r"at least 257 \(256 bytes \+ 1 special tokens\), not 256"
    ):
        train("abc", 256, special_tokens=("<|endoftext|>",))


def test_fewer_merges_than_asked_are_an_error_that_names_the_possible_size():
    with pytest.raises(
        ValueError, match=r"needs 744 merges, but after 2 .* ask for vocab_size=258"
    ):
        train("abc", 1000)
    assert train("abc", 258).encode("abc") == [257]
    with pytest.raises(ValueError, match=r"after 1 .* occurs 3 time\(s\) or more"):
        train("aaabdaaabac", 300, min_count=3)


def test_bytes_that_are_not_utf8_are_learned_from():
    tokenizer = train(b"\xff\xfe\xff\xfe\xff\xfe", None)
    assert tokenizer.token_bytes(256) == b"\xff\xfe"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["ok", "\ud800"], "lone surrogate"),
        ([1], "must be a str, not int"),
    ],
)
def test_what_is_no_text_is_refused(texts, message):
    with pytest.raises(ValueError, match=message):
        train(texts, 300)
