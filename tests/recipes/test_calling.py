"""`minillm chat` with tools: calls are run, shown in a line, and kept; results stay text."""

from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.agents.tools import Call, Toolbox, tool
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.recipes import calling, chatting
from minillm.recipes.chatting import Chat
from minillm.serve.sample import SampleConfig
from minillm.serve.template import Message
from minillm.serve.tool_calls import CallOrText
from minillm.text.tokenizer import Tokenizer
from minillm.tune.chat import TOOL_TEMPLATE, read_conversations
from minillm.tune.history import History, save

SPECIAL = ("<|endoftext|>", *TOOL_TEMPLATE.special_tokens)
TOKENIZER = Tokenizer((), SPECIAL)
MODEL = TransformerConfig(
    vocab_size=TOKENIZER.vocab_size,
    context_length=512,
    d_model=16,
    n_layers=1,
    mixer=AttentionConfig(n_heads=2),
).build(seed=0)


class Plain(Tokenizer):
    begin_ids = ()
    ids = range(TOKENIZER.vocab_size)


def echo(text: str) -> str:
    """The same text."""
    return text


def pick(fruit: Literal["plum", "pear"]) -> str:
    """A fruit."""
    return fruit * 2


def chat(function=echo, **how):
    parts = {"model": MODEL, "tokenizer": Plain((), SPECIAL), "chat_template": TOOL_TEMPLATE}
    return Chat(**parts, toolbox=Toolbox([tool(function)], most_characters=250), **how)


def echoed(text):
    return "<|call|>" + Call("echo", {"text": text}).text


@pytest.fixture
def script(monkeypatch):
    """Let the model write by heart; gives what it has read."""

    def play(*texts):
        read, texts = [], iter(texts)

        def pieces(model, tokenizer, request, completion):
            read.append(TOKENIZER.decode(request.prompt))
            for token in TOKENIZER.encode(next(texts), SPECIAL)[: request.n_tokens]:
                if token == 3:  # Ctrl-C, as a terminal spells it
                    raise KeyboardInterrupt
                completion.tokens.append(token)
                completion.text += TOKENIZER.decode([token])
                yield TOKENIZER.decode([token])
            completion.finish_reason = "stop"

        monkeypatch.setattr(calling, "_pieces", pieces)
        return read

    return play


def asked(question, capsys, talk, history=None):
    """The history after a question, and what was printed."""
    history, end = chatting._turn(talk, history or History(), question)
    return history, end, *capsys.readouterr()


def test_calls_are_run_until_the_model_answers_and_stay_in_the_conversation(
    capsys, script, tmp_path
):
    read = script(echoed("a\nb"), echoed("红"), "Both.", "Yes.")
    history, end, out, err = asked("Which?", capsys, chat())
    assert (end, out) == ("stop", "Both.\n")
    assert err == "(echo a b → a b)\n(echo 红 → 红)\n"
    calls = [echoed(text).removeprefix("<|call|>") for text in ("a\nb", "红")]
    assert history.turns == (("Which?", calls[0], "a\nb", calls[1], "红", "Both."),)
    assert read[1] == (
        f"<|user|>Which?<|end|><|assistant|><|call|>{calls[0]}<|end|>"
        "<|result|>a\nb<|end|><|assistant|>"
    )
    asked("Sure?", capsys, chat(), history)
    assert read[3] == read[2] + "Both.<|end|><|user|>Sure?<|end|><|assistant|>"
    save(history, str(tmp_path / "talk.jsonl"))
    assert read_conversations(tmp_path / "talk.jsonl", TOOL_TEMPLATE) == [history.messages()]


def test_an_answer_without_a_call_is_shown_as_it_comes(capsys, script):
    script("No tool.")
    history, _, out, err = asked("Which?", capsys, chat())
    assert (history.turns, out, err) == ((("Which?", "No tool."),), "No tool.\n", "")


def test_a_call_that_no_tool_can_read_is_answered_with_what_is_wrong(capsys, script):
    read = script("<|call|>" + Call("nope", {}).text, "Oh.")
    _, _, out, err = asked("Which?", capsys, chat())
    assert (out, err) == ("Oh.\n", "(nope → there is no tool nope; there are echo)\n")
    assert "<|result|>there is no tool nope; there are echo<|end|>" in read[1]


def test_calls_without_end_are_stopped_and_that_is_said(capsys, script):
    read = script(*[echoed("a")] * (calling.MOST_CALLS + 1))
    _, end, out, err = asked("Which?", capsys, chat())
    assert (end, out) == ("stop", "(stopped: no answer after 4 calls)\n")
    assert len(read) == calling.MOST_CALLS + 1
    assert err == "(echo a → a)\n" * calling.MOST_CALLS


def test_ctrl_c_ends_an_answer_and_a_call(capsys, script):
    script(echoed("a"), "It i\3s")
    history, end, out, _ = asked("Which?", capsys, chat())
    assert (end, out, history.turns[0][-1]) == ("interrupt", "It i\n", "It i")
    script("<|call|>{\3")
    history, end, out, _ = asked("Which?", capsys, chat())
    assert (end, out, history.turns) == ("interrupt", "\n", ())


def test_ctrl_c_while_a_tool_runs_ends_the_turn(capsys, script, monkeypatch):
    def interrupted(self, call):
        raise KeyboardInterrupt

    monkeypatch.setattr(Toolbox, "call", interrupted)
    script(echoed("a"))
    assert asked("Which?", capsys, chat())[:3] == (History(), "interrupt", "\n")


def test_a_context_that_a_result_fills_is_said(capsys, script):
    script(echoed("x" * 230), "never")
    history, end, out, err = asked("Which?", capsys, chat())
    assert (history, end, out) == (History(), "length", "\n")
    assert "cut off: no more tokens were allowed" in err


def test_votes_are_for_models_that_call_nothing():
    with pytest.raises(ValueError, match="--votes is for models that call no tools"):
        chat(n_votes=3)


def test_whatever_the_weights_a_call_is_one_that_a_tool_can_read(capsys, monkeypatch):
    def always(call_id, calls, text):
        return CallOrText(call_id, calls, None)

    monkeypatch.setattr(calling, "CallOrText", always)
    random = chat(pick, config=SampleConfig(temperature=1.0), seed=3)
    _, _, out, err = asked("Which?", capsys, random)
    lines = err.splitlines()
    assert len(lines) == calling.MOST_CALLS and out.startswith("(stopped")
    assert {*lines} <= {"(pick plum → plumplum)", "(pick pear → pearpear)"}
    assert err == asked("Which?", capsys, random)[3]  # the seed decides


def test_the_shipped_model_calls_the_calculator(capsys):
    talk = chatting.open_chat(Path("tools-1m"), config=SampleConfig(temperature=0))
    _, end, out, err = asked("What is 347 times 582?", capsys, talk)
    assert (end, out, err) == ("stop", "201954\n", "(calculate 347 * 582 → 201954)\n")


# --- law -----------------------------------------------------------------------------------------
spelled = st.lists(st.sampled_from([*SPECIAL, "a", " ", "<|", "会", "{}"])).map("".join)


@given(spelled)
def test_whatever_a_tool_returns_becomes_ordinary_tokens(text):
    result = chat().toolbox.call(Call("echo", {"text": text})).text
    call = Call("echo", {"text": text}).text
    messages = [Message("user", "a"), Message("call", call), Message("result", result)]
    control = [TOKENIZER.decode([token]) for token in chat().ids(messages) if token >= 256]
    assert control == [
        "<|user|>", "<|end|>", "<|assistant|>", "<|call|>", "<|end|>", "<|result|>", "<|end|>",
        "<|assistant|>",
    ]  # fmt: skip
    assert result == text


@given(st.text(max_size=300), st.text(max_size=300))
def test_a_call_and_its_result_are_one_line(call, result):
    assert len(calling.line_of(call, result).splitlines()) == 1
