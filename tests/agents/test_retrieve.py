import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.agents.retrieve import Bm25, words_of

DOCUMENTS = {
    "Bean": "her mother is Lan, she likes flour",
    "Lan": "her child is Bean",
    "kites": "the price is 12 coins",
}
words = st.lists(st.sampled_from("abcd"), max_size=6).map(" ".join)
libraries = st.lists(words, min_size=1, max_size=5).map(lambda texts: dict(enumerate(texts)))


def by_the_formula(documents, query, name, k1, b):
    texts = {key: text.split() for key, text in documents.items()}
    mean = max(1.0, sum(map(len, texts.values())) / len(texts))
    score, document = 0.0, Counter(texts[name])
    for word in query.split():
        n = sum(word in text for text in texts.values())
        idf = math.log(1 + (len(texts) - n + 0.5) / (n + 0.5))
        length = 1 - b + b * len(texts[name]) / mean
        score += idf * document[word] * (k1 + 1) / ((document[word] + k1 * length) or 1)
    return score


# --- by hand --------------------------------------------------------------------------------------
def test_the_score_of_one_word_in_two_documents():
    index = Bm25({"a": "x x y", "b": "y"}, k1=1.0, b=1.0)  # mean length 2
    assert index.scores("x") == {"a": pytest.approx(math.log(2) * 2 * 2 / (2 + 1.5))}
    assert index.scores("y x")["a"] == pytest.approx(
        math.log(1.2) * 2 / (1 + 1.5) + math.log(2) * 2 * 2 / (2 + 1.5)
    )


def test_the_rarer_word_decides():
    index = Bm25(DOCUMENTS)
    assert index.search("the mother and her child", 3) == ["Lan", "Bean", "kites"]
    assert [index.search(text, 3) for text in ("Mother!", "moon", "")] == [["Bean"], [], []]


def test_words_are_what_is_between_blanks_and_punctuation():
    assert words_of("Lan's <page>\n小梅 _12_.") == ["lan", "s", "page", "小", "梅", "12"]


def test_of_equal_scores_the_first_document_comes_first():
    assert Bm25({"b": "x", "a": "x", "c": "x"}).search("x", 2) == ["b", "a"]


# --- reference ------------------------------------------------------------------------------------
@given(libraries, words, st.sampled_from([0.0, 1.2, 2.0]), st.sampled_from([0.0, 0.75, 1.0]))
def test_scores_are_those_of_the_formula(documents, query, k1, b):
    scores = Bm25(documents, k1, b).scores(query)
    for name in documents:
        assert scores.get(name, 0.0) == pytest.approx(
            by_the_formula(documents, query, name, k1, b), abs=1e-12
        )


# --- law ------------------------------------------------------------------------------------------
@given(libraries, words, st.integers(1, 5))
def test_results_share_a_word_and_fall_in_score(documents, query, k):
    index = Bm25(documents)
    best, scores = index.search(query, k), index.scores(query)
    assert all(set(query.split()) & set(documents[name].split()) for name in scores)
    assert [scores[name] for name in best] == sorted(scores.values(), reverse=True)[:k]


# --- bad input ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("attempt", "match"),
    [
        (lambda: Bm25({}), "at least one document"),
        (lambda: Bm25(DOCUMENTS, b=1.5), "b from 0 to 1; got 3 documents, k1=1.2, b=1.5"),
        (lambda: Bm25(DOCUMENTS).search("x", 0), "k must be at least 1; got 0"),
    ],
)
def test_refusals(attempt, match):
    with pytest.raises(ValueError, match=match):
        attempt()


def test_chinese_texts_share_characters_with_a_query():
    documents = {"mill": "磨坊关门了", "bakery": "面包店开门了"}
    assert Bm25(documents).search("磨坊有什么新鲜事？", 1) == ["mill"]
