import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.serve.template import Message
from minillm.tune.chat import TOOL_TEMPLATE, read_conversations
from minillm.tune.history import History, fit, save

TEXTS = st.text("abc", min_size=1, max_size=6)


def spelled(messages):
    """A tokenizer: each message begins with its role's letter."""
    return "".join(each.role[0] + each.content for each in messages)


@given(
    system=st.none() | TEXTS,
    turns=st.lists(st.tuples(TEXTS, TEXTS), max_size=6).map(tuple),
    n_dropped=st.integers(0, 3),
    question=TEXTS,
    max_length=st.integers(15, 60),
)
def test_what_fits_is_kept_and_the_oldest_falls_out_in_whole_turns(
    system, turns, n_dropped, question, max_length
):
    n_dropped = min(n_dropped, len(turns))
    before = History(system=system, turns=turns, n_dropped=n_dropped)
    after = fit(before, question, spelled, max_length)
    assert (after.system, after.turns) == (system, turns)
    assert after.n_dropped >= n_dropped
    messages = after.messages(question)
    assert len(spelled(messages)) <= max_length
    roles = [each.role for each in messages if each.role != "system"]
    assert roles == ["user", "assistant"] * (len(turns) - after.n_dropped) + ["user"]
    if after.n_dropped > n_dropped:  # one turn more would have been too long
        more = History(system=system, turns=turns, n_dropped=after.n_dropped - 1)
        assert len(spelled(more.messages(question))) > max_length


def test_the_messages_are_in_order_with_the_system_text_first():
    history = History(system="s", turns=(("a", "b"),))
    assert history.messages() == (
        Message("system", "s"),
        Message("user", "a"),
        Message("assistant", "b"),
    )
    assert history.messages("c")[3:] == (Message("user", "c"),)


@pytest.mark.parametrize(("system", "beside"), [(None, "the template's"), ("s", "the system text")])
def test_a_question_that_is_too_long_by_itself_is_refused(system, beside):
    history = History(system=system, turns=(("a", "b"),))
    with pytest.raises(ValueError, match=rf"has \d+ tokens, .*{beside} included, and at most 9 "):
        fit(history, "a question", spelled, 9)


def test_calls_stay_between_their_question_and_its_answer_and_are_saved_with_them(tmp_path):
    history = History(turns=(("a", "b"), ("c", "{}", "1", "d")), n_dropped=1)
    assert [each.role for each in history.messages()] == ["user", "call", "result", "assistant"]
    path = save(history, str(tmp_path / "a.jsonl"))
    (messages,) = read_conversations(path, TOOL_TEMPLATE)  # all of them, also what was dropped
    assert [each.content for each in messages] == ["a", "b", "c", "{}", "1", "d"]
    with pytest.raises(ValueError, match="is there already"):
        save(history, str(path))
    with pytest.raises(ValueError, match="nothing to save"):
        save(History(), "b")
