"""Retrieval (检索): which documents fit a query best, by the words they share.

    query            mother of Bean
    Bean             her mother is Lan, she likes flour     "Bean" and "mother": two rare words
    Lan              her child is Bean                      "Bean" alone
    kites            the price is 12 coins                  nothing: not among the results

**BM25.** A document's score is a sum over the words of the query:

    score(q, d) = Σ over words t of q:  idf(t) · f(t, d) (k₁ + 1) / (f(t, d) + k₁ B(d))
    B(d)        = 1 − b + b · |d| / mean length
    idf(t)      = ln(1 + (N − n(t) + ½) / (n(t) + ½))

f(t, d) is how often the word stands in the document, |d| the number of its words, N the number of
documents, n(t) the number of those that have the word. Three ideas, one in each factor:

- a word that few documents have tells more (the inverse document frequency, idf, 逆文档频率);
- the second time that a word stands in a document tells less than the first. The factor never
  reaches k₁ + 1, however often the word is repeated;
- a long document has more words of every kind. B(d) makes up for that: wholly at b = 1, not at all
  at b = 0.

Paper: Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond",
section 3 (the weight of a word, and what k₁ and b do). The equation was compared with public
accounts of it; the section number is from memory.
Differs: 1 + inside the logarithm, as Lucene has it, so that a word of more than half of the
documents does not count against a document; the factor k₁ + 1, which changes no ranking, is kept.

Chapter: 27
"""

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import final


def words_of(text: str) -> list[str]:
    """The words of a text in small letters: what is left between blanks and punctuation.

    Chinese has no blanks between words, so each of its characters counts as a word.

    Example:
        >>> words_of("Plum Lane, 2 minutes"), words_of("磨坊关门了")
        (['plum', 'lane', '2', 'minutes'], ['磨', '坊', '关', '门', '了'])
    """
    return re.findall(r"[\u4e00-\u9fff]|[^\W_\u4e00-\u9fff]+", text.lower())


@final
@dataclass(frozen=True)
class Bm25:
    """An index of documents that finds those which fit a query.

    Args:
        documents: texts by name.
        k1: how much repeating a word helps; 0 counts each word of the query once.
        b: how much a long document must make up for its length, 0 to 1.

    Raises:
        ValueError: no document, k1 below 0, b outside 0 to 1.

    Example:
        >>> index = Bm25({"Bean": "her mother is Lan", "Lan": "her child is Bean", "tea": "hot"})
        >>> index.search("who is the mother", 3)
        ['Bean', 'Lan']
    """

    documents: Mapping[str, str]
    k1: float = 1.2
    b: float = 0.75

    def __post_init__(self) -> None:
        if not self.documents or self.k1 < 0 or not 0 <= self.b <= 1:
            raise ValueError(
                "an index needs at least one document, k1 of at least 0 and b from 0 to 1; got "
                f"{len(self.documents)} documents, k1={self.k1}, b={self.b}"
            )

    @cached_property
    def _counts(self) -> dict[str, Counter[str]]:
        """How often each word stands in each document: f(t, d)."""
        return {name: Counter(words_of(text)) for name, text in self.documents.items()}

    @cached_property
    def _postings(self) -> dict[str, dict[str, float]]:
        """For each word the documents that have it, and what it adds to the score of each."""
        lengths = {name: sum(count.values()) for name, count in self._counts.items()}
        mean = max(1.0, sum(lengths.values()) / len(lengths))
        postings: dict[str, dict[str, float]] = {}
        for name, count in self._counts.items():
            # 1. repeated words count less and less, and less in a long document
            norm = self.k1 * (1 - self.b + self.b * lengths[name] / mean)
            for word, f in count.items():
                postings.setdefault(word, {})[name] = f * (self.k1 + 1) / (f + norm)
        for word, weights in postings.items():
            # 2. rare words count more
            idf = self.idf(len(weights))
            postings[word] = {name: idf * weight for name, weight in weights.items()}
        return postings

    def idf(self, n: int) -> float:
        """Inverse document frequency of a word that n of the N documents have.

        Example:
            >>> round(Bm25({"a": "x y", "b": "x"}).idf(1), 3)  # ln 2
            0.693
        """
        return math.log(1 + (len(self.documents) - n + 0.5) / (n + 0.5))

    def scores(self, query: str) -> dict[str, float]:
        """The score of every document that shares a word with the query; a word twice counts twice.

        Args:
            query: any text.
        """
        totals: dict[str, float] = {}
        for word in words_of(query):
            for name, weight in self._postings.get(word, {}).items():
                totals[name] = totals.get(name, 0.0) + weight
        return totals

    def search(self, query: str, k: int) -> list[str]:
        """The names of the k best documents, the best first; fewer if fewer share a word.

        Args:
            query: any text.
            k: at least 1.

        Returns:
            Names. Of equal scores, the document that was given first comes first.

        Raises:
            ValueError: k below 1.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1; got {k}")
        totals = self.scores(query)
        order = [name for name in self.documents if name in totals]
        return sorted(order, key=lambda name: -totals[name])[:k]
