import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.agents import memory as mem
from minillm.agents.memory import Memory, Stream

MILL = Stream(
    (
        Memory("Bao sleeps", 0.0, 1),
        Memory("the mill is shut", 30.0, 2),
        Memory("Joe is going to paint the mill", 70.0, 4),
        Memory("Mei is going to marry", 90.0, 8),
    )
)
QUERY = "What is new at the mill?"
FORMULAS = (mem.product, mem.park_sum, mem.released_sum)
memories = st.builds(
    Memory, st.text(min_size=1).filter(str.strip), st.floats(0, 99), st.integers(1, 10)
)


# --- by hand --------------------------------------------------------------------------------------
def test_the_three_formulas_put_three_memories_first():
    orders = [mem.retrieve(MILL, QUERY, 100, score=score) for score in FORMULAS]
    assert orders == [[2, 3, 1], [3, 2, 1], [1, 2, 3]]
    relevances = mem.relevance(MILL.memories, QUERY)
    scores = [score(MILL.memories, relevances, 100) for score in FORMULAS]
    assert [[round(each, 2) for each in column] for column in scores] == [
        [0.0, 0.04, 0.23, 0.19],
        [0.0, 1.43, 1.9, 2.19],
        [0.5, 3.62, 3.21, 2.57],
    ]


def test_recency_falls_by_half_in_138_hours_and_begins_anew_when_a_memory_is_seen():
    old = Memory("a", 0.0, 1)
    assert mem.recency([old], 138.28) == pytest.approx([0.5], abs=1e-4)
    (seen,) = Stream((old,)).seen([0], 138.28).memories
    assert mem.recency([seen], 138.28) == [1.0]
    assert replace(seen, last_seen_at=None) == old


def test_the_released_recency_is_highest_for_the_oldest_however_old():
    times = [50.0, 1.0, 49.0]
    stream = [Memory("a", time, 1) for time in times]
    assert mem.recency_by_rank(stream, 0.5) == [0.125, 0.5, 0.25]
    assert mem.recency_by_rank(stream, 0.5, newest_first=True) == [0.5, 0.125, 0.25]


def test_a_rare_word_counts_for_more_and_an_unknown_one_for_nothing():
    texts = ["the mill", "the well", "the hill"]
    values = mem.relevance([Memory(text, 0.0, 1) for text in texts], "the old mill")
    the, mill = math.log(2), math.log(4)
    same, other = values[0], the * the / (the**2 + mill**2)
    assert values == pytest.approx([1.0, other, other]) and same > other
    assert mem.relevance([Memory("!", 0.0, 1)], "mill") == [0.0]


def test_agents_reflect_when_enough_has_happened_and_name_their_evidence():
    ask = lambda last: [f"What of {last[-1].text}?", QUERY]  # noqa: E731
    conclude = lambda question, some: f"{question} {some[-1].text}"  # noqa: E731
    assert mem.reflect(MILL, 100, ask, conclude, threshold=15) is MILL
    stream = mem.reflect(MILL, 100, ask, conclude, k=2, threshold=14.9)
    joe = "Joe is going to paint the mill"
    assert stream.memories[4:] == (
        Memory(f"What of Mei is going to marry? {joe}", 100, 8, None, (3, 2)),
        Memory(f"{QUERY} {joe}", 100, 8, None, (3, 2)),
    )
    assert [each.last_seen_at for each in stream.memories[:4]] == [None, None, 100, 100]
    assert mem.importance_since_reflection(stream) == 0


# --- a file ---------------------------------------------------------------------------------------
def test_a_line_that_a_kill_cut_off_is_refused_by_number_and_spoils_no_other(tmp_path):
    path = tmp_path / "mei.jsonl"
    for each in MILL.memories[:2]:
        mem.append(path, each)
    whole = path.read_bytes()
    path.write_bytes(whole + '{"text": "梅'.encode()[:-1])  # in the middle of a character
    mem.append(path, Memory("so the mill is shut", 95.0, 5, evidence=(1, 2)))
    with pytest.raises(ValueError, match=r"line 3 is damaged: .*mend\(.*the 3 good lines"):
        mem.read(path)
    assert path.read_bytes().startswith(whole)
    stream = mem.mend(path)
    assert [each.evidence for each in stream.memories] == [(), (), (1,)]
    assert mem.read(path) == stream
    assert "梅".encode()[:-1] in (tmp_path / "mei.jsonl.damaged-1").read_bytes()


@pytest.mark.parametrize(
    "line",
    ["[]", "{}", '{"text": "a", "text": "b"}', "NaN", "null", '"' * 9, "[" * 99_999]
    + [
        json.dumps({"text": "a", "created_at": 1, "importance": 1, "last_seen_at": 2} | more)
        for more in (
            {"evidence": 3},
            {"evidence": ["0"]},
            {"evidence": [], "more": 1},
            {"evidence": [], "importance": 11},
            {"evidence": [], "created_at": float("nan")},
            {"evidence": [], "created_at": 10**400},
            {"evidence": [], "text": ["a"]},
        )
    ],
)
def test_lines_that_are_no_memory_are_refused(line, tmp_path):
    path = tmp_path / "a.jsonl"
    mem.append(path, MILL.memories[0])
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match="line 2 is damaged"):
        mem.read(path)


# --- law ------------------------------------------------------------------------------------------
@settings(max_examples=25)
@given(st.lists(memories, max_size=4))
def test_a_stream_comes_back_from_its_file(tmp_path_factory, some):
    path, whole = (tmp_path_factory.mktemp("a") / name for name in ("a.jsonl", "b.jsonl"))
    whole.touch()
    mem.write(whole, Stream(tuple(some)))
    assert mem.read(whole) == Stream(tuple(some))
    for each in some:
        mem.append(path, each)
    assert not some or path.read_bytes() == whole.read_bytes()


@settings(max_examples=40)
@given(st.lists(memories, min_size=1, max_size=6), st.text(max_size=9))
def test_scores_keep_their_bounds_and_only_the_released_one_forgets_the_hour(some, query):
    relevances = mem.relevance(some, query)
    assert all(-1e-9 <= each <= 1 + 1e-9 for each in relevances)
    for score, highest in zip(FORMULAS, (1, 3, 5.5), strict=True):
        assert all(-1e-9 <= each <= highest + 1e-9 for each in score(some, relevances, 100))
    assert mem.released_sum(some, relevances, 100) == mem.released_sum(some, relevances, 999)


# --- bad input ------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("attempt", "match"),
    [
        (lambda: Memory(" ", 0.0, 1), "a memory needs a text"),
        (lambda: Memory("a", 0.0, 0.5), "importance from 1 to 10"),
        (lambda: Memory("a", 5.0, 1, 4.0), "cannot be seen at 4.0 h"),
        (lambda: Stream((Memory("a", 0.0, 1, None, (0,)),)), "must have lower numbers"),
        (lambda: mem.retrieve(MILL, QUERY, 80), "'Mei is going to marry' was seen at 90.0 h"),
        (lambda: mem.retrieve(MILL, QUERY, 100, 0), "k must be at least 1"),
        (lambda: mem.read("nowhere.jsonl"), "there is no file nowhere.jsonl"),
    ],
)
def test_refusals(attempt, match):
    with pytest.raises(ValueError, match=match):
        attempt()
