"""Byte-level byte-pair encoding (字节对编码, BPE): learn a vocabulary (词表) from text.

Text is a row of bytes, ids 0 to 255. Find the pair of neighbours that occurs most often, give it
the next free id, replace it everywhere, and repeat:

    aaabdaaabac     (a, a) occurs 4 times    aa → X
    XabdXabac       (a, b) occurs 2 times    ab → Y
    XYdXYac         (X, Y) occurs 2 times    XY → Z
    ZdZac

The list of merges is the whole tokenizer (分词器): `minillm.text.tokenizer` replays it on new text
in the same order. Ids: 0 to 255 are the bytes themselves, then come the merges in the order they
were learned, then the special tokens.

**Which pair, in a tie?** The highest count wins; among equal counts the smallest pair of ids, the
left id first, then the right. Overlapping pairs count each: `aaa` holds (a, a) twice.

Training is here twice: `train_naive` says what is meant, by counting everything again after each
merge; `train` looks only at the places that a merge touches, and learns the same merges in the same
order. On 200,000 characters it is already about ninety times faster (`minillm bench bpe`).

Paper: Gage 1994, "A New Algorithm for Data Compression"; Sennrich, Haddow and Birch 2016, "Neural
Machine Translation of Rare Words with Subword Units" (arXiv:1508.07909), section 3.2, algorithm 1.
Differs: starts from bytes instead of characters, as GPT-2 does, so that no text is out of the
vocabulary; no end-of-word sign, since a word carries the space before it. Merges equal those of
Hugging Face's `BpeTrainer` when that is given the bytes in our order; used byte-level as usual, it
numbers the bytes in another order (printable ones first) and so breaks ties another way.

Chapter: 01
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, pairwise

from minillm.text.pretokenize import PATTERN, pretokenize, refuse_surrogates
from minillm.text.tokenizer import END, GONE, LOSSLESS, Pair, Tokenizer

Texts = str | bytes | Iterable[str | bytes]
Words = Mapping[bytes, int]


def count_words(texts: Texts, pattern: str = PATTERN) -> Counter[bytes]:
    """Count the pre-tokens of some texts, as bytes.

    Merges never leave a word, so a word seen a thousand times needs to be merged only once.

    Example:
        >>> count_words("so so so it is")
        Counter({b' so': 2, b'so': 1, b' it': 1, b' is': 1})
    """
    words: Counter[str] = Counter()
    for text in [texts] if isinstance(texts, str | bytes) else texts:
        if isinstance(text, bytes):
            words.update(pretokenize(text.decode(*LOSSLESS), pattern))
        else:
            refuse_surrogates(text)
            words.update(pretokenize(text, pattern))
    return Counter({word.encode(*LOSSLESS): count for word, count in words.items()})


def count_pairs(words: Mapping[Sequence[int], int]) -> Counter[Pair]:
    """Count neighbouring ids over all words, each word as often as it occurs.

    Args:
        words: how often each word occurs; a word is `bytes` or a tuple of ids.

    Example:
        >>> count_pairs({b"aaab": 10})
        Counter({(97, 97): 20, (97, 98): 10})
    """
    counts: Counter[Pair] = Counter()
    for word, count in words.items():
        for pair in pairwise(word):
            counts[pair] += count
    return counts


def merge_pair(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """Replace every occurrence of `pair` in `ids` by `new_id`, from left to right.

    Example:
        >>> merge_pair([97, 97, 97, 98], (97, 97), 256)
        [256, 97, 98]
    """
    merged = []
    i = 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:  # the pair begins here: write the new id, skip both
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


def learn_merges_naive(words: Words) -> Iterator[tuple[Pair, int]]:
    """Yield the merges that `words` teach, best first, each with its count: the plain version.

    Counts all pairs anew for each merge. This is what `learn_merges` must equal.

    Args:
        words: how often each word occurs, from `count_words`.

    Yields:
        The pair to merge next, and how often it occurs; the nth pair yielded (from 0) becomes id
        256 + n. Ends when every word is one token.

    Example:
        >>> [pair for pair, count in learn_merges_naive({b"aaabdaaabac": 1})][:3]
        [(97, 97), (97, 98), (256, 257)]

    Paper: Sennrich et al. 2016, algorithm 1.
    Differs: bytes; the tie rule of this module.
    """
    rows: dict[tuple[int, ...], int] = {tuple(word): count for word, count in words.items()}
    new_id = 256
    # 1. count every pair of neighbours
    while counts := count_pairs(rows):
        # 2. the most frequent is merged; of equally frequent ones, that of the smallest ids
        pair = min(counts, key=lambda pair: (-counts[pair], pair))
        yield pair, counts[pair]
        # 3. in every word the pair becomes one new token; then count again
        rows = {tuple(merge_pair(row, pair, new_id)): count for row, count in rows.items()}
        new_id += 1


def learn_merges(words: Words) -> Iterator[tuple[Pair, int]]:
    """Yield the same merges as `learn_merges_naive`, looking only at the places that change.

    All words stand in one long row of ids, linked to their neighbours, so that a merge is a change
    of a few links. For each pair we keep its count and its places. A merge visits the places of its
    pair and corrects the counts of the neighbours it touches.

    The best pair comes from a heap that is lazy (惰性): counts fall without the heap being told. A
    pair's count can only fall after the merge that made the pair, so an entry is never too low;
    when the best entry turns out too high, it goes back with its true count.

    Example:
        >>> [pair for pair, count in learn_merges({b"aaabdaaabac": 1})][:3]
        [(97, 97), (97, 98), (256, 257)]

    Paper: Sennrich et al. 2016, algorithm 1.
    Differs: incremental; the heap and the links are ours.
    """
    ids, weights = [END], [0]  # the row, and how often the word around each place occurs
    for word, count in words.items():
        ids += [*word, END]
        weights += [count] * (len(word) + 1)
    previous = list(range(-1, len(ids) - 1))
    following = list(range(1, len(ids) + 1))

    counts: dict[Pair, int] = defaultdict(int)
    positions: dict[Pair, list[int]] = defaultdict(list)  # where a pair begins, from left to right
    for i, pair in enumerate(pairwise(ids)):
        if END not in pair:
            counts[pair] += weights[i]
            positions[pair].append(i)
    heap = [(-count, pair) for pair, count in counts.items()]
    heapq.heapify(heap)

    new_id = 256
    while heap:
        entry, pair = heapq.heappop(heap)
        if counts[pair] != -entry:
            if counts[pair]:
                heapq.heappush(heap, (-counts[pair], pair))
            continue
        yield pair, counts[pair]

        left, right = pair
        created: dict[Pair, list[int]] = defaultdict(list)
        for i in positions.pop(pair):
            j = following[i]
            if ids[i] != left or ids[j] != right:
                continue  # an earlier merge took one of the two
            before, after, weight = previous[i], following[j], weights[i]
            ids[i], ids[j] = new_id, GONE
            following[i], previous[after] = after, i
            if (neighbour := ids[before]) != END:
                counts[neighbour, left] -= weight
                counts[neighbour, new_id] += weight
                created[neighbour, new_id].append(before)
            if (neighbour := ids[after]) != END:
                counts[right, neighbour] -= weight
                counts[new_id, neighbour] += weight
                created[new_id, neighbour].append(i)
        del counts[pair]
        for pair, begins in created.items():
            if counts[pair]:
                positions[pair] = begins
                heapq.heappush(heap, (-counts[pair], pair))
        new_id += 1


def train(
    texts: Texts,
    vocab_size: int | None,
    *,
    special_tokens: Sequence[str] = (),
    pattern: str = PATTERN,
    min_count: int = 1,
    progress: Callable[[int], object] | None = None,
    learn: Callable[[Words], Iterator[tuple[Pair, int]]] = learn_merges,
) -> Tokenizer:
    """Learn a tokenizer from text.

    Args:
        texts: one text or many, as `str` or as `bytes` (which need not be UTF-8). A special token
            that stands in a text is learned from like any other text.
        vocab_size: size of the vocabulary: 256 bytes, the merges, the special tokens. `None` takes
            as many merges as the text has.
        special_tokens: their ids come last, in this order.
        pattern: how words are cut, see `minillm.text.pretokenize`.
        min_count: merge only pairs that occur at least this often.
        progress: called after each merge with the number of merges learned so far.
        learn: where the merges come from, best first.

    Raises:
        ValueError: there is no text; `vocab_size` is below 256 + special tokens; or the text has
            fewer merges than asked (the message says how large a vocabulary it has).

    Example:
        >>> tokenizer = train("aaabdaaabac", 259)
        >>> tokenizer.merges
        ((97, 97), (97, 98), (256, 257))
        >>> tokenizer.encode("aaabdaaabac")
        [258, 100, 258, 97, 99]

    Paper: Sennrich et al. 2016, section 3.2.
    Differs: see the module.
    """
    tokenizer = Tokenizer((), special_tokens, pattern)  # complains of its arguments before the work
    if vocab_size is not None and vocab_size < tokenizer.vocab_size:
        raise ValueError(
            f"vocab_size must be at least {tokenizer.vocab_size} (256 bytes + "
            f"{len(special_tokens)} special tokens), not {vocab_size}"
        )
    words = count_words(texts, pattern)
    if not words:
        raise ValueError("there is no text to learn from: every text given is empty")

    n_merges = None if vocab_size is None else vocab_size - tokenizer.vocab_size
    merges: list[Pair] = []
    for pair, count in islice(learn(words), n_merges):
        if count < min_count:
            break
        merges.append(pair)
        if progress is not None:
            progress(len(merges))
    if n_merges is not None and len(merges) < n_merges:
        raise ValueError(
            f"vocab_size={vocab_size} needs {n_merges} merges, but after {len(merges)} of them no "
            f"pair of neighbours occurs {min_count} time(s) or more: give more text, or ask for "
            f"vocab_size={tokenizer.vocab_size + len(merges)} (vocab_size=None takes all there are)"
        )
    return replace(tokenizer, merges=tuple(merges))


def train_naive(texts: Texts, vocab_size: int | None, **options) -> Tokenizer:
    """Do what `train` does, with the same options, counting everything anew for every merge.

    Example:
        >>> train_naive("aaabdaaabac", 259) == train("aaabdaaabac", 259)
        True
    """
    return train(texts, vocab_size, learn=learn_merges_naive, **options)
