import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.serve.detokenize import TextStream
from minillm.serve.protocol import Call
from minillm.serve.replies import Reply
from minillm.serve.request import Event, Logprobs
from minillm.serve.tool_calls import Function, Offer, call_text
from minillm.text.tokenizer import Tokenizer

BYTES = Tokenizer((), ("<|call|>",))
CALL_ID = 256
OFFER = Offer((Function("look_up", {"type": "object"}),))


def call_of(chat=True, **changes):
    return Call(chat=chat, model="m", prompts=("Mei",), **changes)


def events_of(text, stop=(), reason="length", n_logprobs=None):
    """What an engine gives for the bytes of a text."""
    stream, events = TextStream(BYTES, stop), []
    for n, token in enumerate(text):
        shown = stream.push(token)
        last = stream.stopped or n == len(text) - 1
        shown += stream.close() if last and not stream.stopped else ""
        top = tuple((byte, -2.0) for byte in range(n_logprobs or 0))
        logprobs = None if n_logprobs is None else Logprobs(-1.0 - n, top)
        end = "stop" if stream.stopped else reason
        events.append(Event(0, token, shown, end if last else None, logprobs))
        if last:
            break
    return events


def streamed(call, events):
    """All chunks of a reply, and the reply."""
    reply = Reply(call, BYTES, 3, CALL_ID)
    chunks = reply.begin()
    for event in events:
        chunks += reply.add(0, event)
    return [*chunks, *reply.end()], reply


def choices(chunks):
    return [chunk["choices"][0] for chunk in chunks if chunk["choices"]]


# --- by hand --------------------------------------------------------------------------------------
def test_a_chat_stream_has_who_speaks_the_text_an_empty_end_and_the_counts():
    chunks, _ = streamed(call_of(include_usage=True), events_of(b"hi"))
    assert [(c["delta"], c["finish_reason"]) for c in choices(chunks)] == [
        ({"role": "assistant", "content": "", "refusal": None}, None),
        ({"content": "h"}, None),
        ({"content": "i"}, None),
        ({}, "length"),
    ]
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * 4
    assert chunks[-1]["choices"] == []
    counts = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert chunks[-1]["usage"] == counts
    assert {(c["id"], c["object"], c["model"]) for c in chunks} == {
        (chunks[0]["id"], "chat.completion.chunk", "m")
    }


def test_a_text_stream_has_the_text_and_an_empty_end():
    chunks, _ = streamed(
        call_of(chat=False), [*events_of(b"hi", reason=None), Event(0, None, "", "stop")]
    )
    texts = [("h", None), ("i", None), ("", "stop")]
    assert [(c["text"], c["finish_reason"]) for c in choices(chunks)] == texts
    assert all("usage" not in chunk for chunk in chunks)


def test_several_answers_keep_apart():
    reply = Reply(call_of(n=2), BYTES, 3)
    first, second = events_of(b"a"), events_of(b"bc")
    for index, event in ((1, second[0]), (0, first[0])):
        reply.add(index, event)
    assert not reply.finished
    reply.add(1, second[1])
    assert reply.finished
    assert [c["message"]["content"] for c in reply.whole()["choices"]] == ["a", "bc"]
    assert reply.usage["completion_tokens"] == 3


def test_a_part_of_a_character_is_named_by_its_bytes():
    _, reply = streamed(call_of(n_logprobs=1), events_of("红".encode(), n_logprobs=1))
    content = reply.whole()["choices"][0]["logprobs"]["content"]
    assert [each["token"] for each in content] == ["bytes:\\xe7", "bytes:\\xba", "bytes:\\xa2"]
    assert bytes(byte for each in content for byte in each["bytes"]).decode() == "红"
    assert content[0]["top_logprobs"] == [{"token": "\0", "logprob": -2.0, "bytes": [0]}]


def test_the_tokens_of_a_stop_text_have_no_log_probabilities_and_infinity_has_a_number():
    events = events_of(b"ab.", stop=["."], n_logprobs=0)
    events[0] = events[0]._replace(logprobs=Logprobs(-float("inf"), ()))
    _, reply = streamed(call_of(chat=False, n_logprobs=0), events)
    choice = reply.whole()["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("ab", "stop")
    assert choice["logprobs"] == {
        "tokens": ["a", "b"], "token_logprobs": [-9999.0, -2.0], "top_logprobs": None,
        "text_offset": [0, 1],
    }  # fmt: skip


# --- calls of tools -------------------------------------------------------------------------------
def test_a_call_has_no_text_and_comes_in_one_chunk():
    text = [CALL_ID, *call_text("look_up", {"person": "胡"}).encode()]
    events = [*events_of(text, reason=None, n_logprobs=0), Event(0, None, "", "stop")]
    chunks, reply = streamed(call_of(tools=OFFER, n_logprobs=0), events)
    (who, delta), sent, (end, reason) = [(c["delta"], c["finish_reason"]) for c in choices(chunks)]
    (choice,) = reply.whole()["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert call["function"] == {"name": "look_up", "arguments": '{"person":"胡"}'}
    assert (call["type"], call["id"][:5], len(call["id"])) == ("function", "call_", 29)
    assert sent == ({"tool_calls": [{"index": 0, **call}]}, None)
    assert (who["content"], delta, end, reason) == ("", None, {}, "tool_calls")
    assert (choice["message"]["content"], choice["finish_reason"]) == (None, "tool_calls")
    assert (choice["logprobs"], reply.usage["completion_tokens"]) == (None, len(text))


@pytest.mark.parametrize(("stop", "reason"), [((), "length"), (("up",), "stop")])
def test_a_call_that_is_cut_is_not_sent(stop, reason):
    text = [CALL_ID, *call_text("look_up", {}).encode()[:-1]]
    chunks, reply = streamed(call_of(tools=OFFER), events_of(text, stop))
    assert [c["delta"] for c in choices(chunks)[1:]] == [{}]
    (choice,) = reply.whole()["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", reason)
    assert "tool_calls" not in choice["message"]


def test_a_call_that_ends_with_the_last_token_is_whole():
    text = [CALL_ID, *call_text("look_up", {}).encode()]
    _, reply = streamed(call_of(tools=OFFER), events_of(text, reason="length"))
    assert reply.whole()["choices"][0]["finish_reason"] == "tool_calls"


# --- law ------------------------------------------------------------------------------------------
texts = st.lists(st.sampled_from([*"ab.红é".encode(), 0xFF]), min_size=1, max_size=12).map(bytes)


@given(texts, st.sampled_from([(), (".",), ("b.", "a.")]), st.booleans())
def test_the_chunks_together_are_the_whole(text, stop, chat):
    chunks, reply = streamed(call_of(chat, n_logprobs=2), events_of(text, stop, n_logprobs=2))
    whole = reply.whole()["choices"][0]
    parts = choices(chunks)
    assert [part["finish_reason"] for part in parts[:-1]] == [None] * (len(parts) - 1)
    assert parts[-1]["finish_reason"] == whole["finish_reason"]
    shown = "".join(part["delta"].get("content", "") if chat else part["text"] for part in parts)
    assert shown == (whole["message"]["content"] if chat else whole["text"])
    key = "content" if chat else "tokens"
    logprobs = [one for part in parts if part["logprobs"] for one in part["logprobs"][key]]
    assert logprobs == whole["logprobs"][key]


@given(st.text("ab红é", min_size=1, max_size=5))
def test_offsets_say_where_a_token_begins(text):
    _, reply = streamed(call_of(chat=False, n_logprobs=0), events_of(text.encode(), n_logprobs=0))
    logprobs = reply.whole()["choices"][0]["logprobs"]
    assert logprobs["text_offset"] == [n for n, c in enumerate(text) for _ in c.encode()]


@pytest.mark.parametrize("chat", [True, False])
def test_without_a_wish_for_them_there_are_none(chat):
    chunks, reply = streamed(call_of(chat), events_of(b"hi"))
    assert {choice["logprobs"] for choice in choices([*chunks, reply.whole()])} == {None}
