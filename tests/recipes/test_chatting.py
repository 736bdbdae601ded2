"""`minillm chat`, through a pipe and by hand."""

import io
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm import cli
from minillm.formats import hf
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.recipes import chatting, voting
from minillm.recipes.chatting import Chat
from minillm.serve.request import Completion
from minillm.serve.sample import SampleConfig
from minillm.serve.template import ChatTemplate, Message, Role
from minillm.text.tokenizer import Tokenizer
from minillm.tune.chat import TEMPLATE, answers, read_conversations, save_template
from minillm.zoo import checkpoints

SPECIAL = ("<|endoftext|>", *TEMPLATE.special_tokens, "<|think|>")
TOY = TransformerConfig(
    vocab_size=264, context_length=96, d_model=16, n_layers=1, mixer=AttentionConfig(n_heads=2)
)
MODEL = TOY.build(seed=0)


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The folder of a model that babbles in bytes."""
    folder = tmp_path_factory.mktemp("models") / "toy"
    hf.save(MODEL, folder, Tokenizer((), SPECIAL), end_token="<|endoftext|>")
    save_template(folder)
    return folder


@pytest.fixture
def chat(toy, monkeypatch, capsys):
    """Run `minillm chat` in this process; a list of lines stands for a person at a terminal."""

    def run(*words, stdin=b"", model=toy):
        monkeypatch.setattr(sys, "argv", ["minillm", "chat", "--model", str(model), *words])
        is_person = isinstance(stdin, list)
        file = io.TextIOWrapper(io.BytesIO(b"" if is_person else stdin))
        monkeypatch.setattr(file, "isatty", lambda: is_person, raising=False)
        monkeypatch.setattr(sys, "stdin", file)
        if is_person:
            monkeypatch.setattr(chatting, "_ask", at_the_prompt(stdin))
        capsys.readouterr()
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = end.code or 0
        return SimpleNamespace(status=status, **capsys.readouterr()._asdict())

    return run


def at_the_prompt(lines):
    """What a person types, line by line, or does (an exception); then Ctrl-D."""
    lines = iter(lines)

    def ask():
        event = next(lines, EOFError)
        if isinstance(event, str):
            return event
        raise event

    return ask


@pytest.fixture
def script(monkeypatch):
    """Let the model answer by heart; gives what it was asked."""

    def play(*texts):
        asked, texts = [], iter(texts)

        def stream(model, ids, config, *, n_tokens, stop_ids, **chance):
            asked.append(SimpleNamespace(text=Tokenizer((), SPECIAL).decode(ids), **chance))
            for token in Tokenizer((), SPECIAL).encode(next(texts), SPECIAL)[:n_tokens]:
                if token in stop_ids:
                    return
                if token == 3:  # Ctrl-C, as a terminal spells it
                    raise KeyboardInterrupt
                yield token

        monkeypatch.setattr(chatting, "stream", stream)
        return asked

    return play


# --- what is read and written ---------------------------------------------------------------------
def test_one_message_is_answered_as_by_answers_and_alone_on_standard_output(toy, chat):
    model, tokenizer, _ = checkpoints.open_model(toy)
    messages = [Message("system", "Be brief."), Message("user", "Who?")]
    suppress = checkpoints.ids_without_token(model, tokenizer, ())
    config = SampleConfig(temperature=0, suppress_tokens=suppress)
    (expected,) = answers(model, tokenizer, [messages], n_tokens=9, config=config)
    done = chat("--once", " Who?\n", "--system", "Be brief.", "--max-tokens", "9")
    assert (done.status, done.out) == (0, chatting.for_terminal(expected.text) + "\n")
    assert done.err == ("" if expected.ended else "(cut off: no more tokens were allowed)\n")


def test_each_line_of_a_pipe_is_answered_and_the_model_sees_what_was_said(chat, script):
    asked = script("Mei.<|end|>", "Plums.<|end|>", "Bye.<|end|>")
    done = chat("--seed", "5", stdin="\ufeffWho?\r\n\nSells 什么?\n /help \n/quit\nNo\n".encode())
    assert (done.status, done.out) == (0, "Mei.\nPlums.\nBye.\n")
    assert done.err == "(an empty line is no message)\n"
    assert asked[1].text == (
        "<|user|>Who?<|end|><|assistant|>Mei.<|end|><|user|>Sells 什么?<|end|><|assistant|>"
    )
    assert asked[2].text.endswith("<|user|>/help<|end|><|assistant|>")
    assert [(each.seed, each.row) for each in asked] == [(5, 0), (5, 1), (5, 2)]


@given(st.lists(st.sampled_from([*SPECIAL, "a", " ", "<|", "会", "\n"])).map("".join))
def test_special_tokens_come_from_the_template_alone(text):
    tokenizer = Tokenizer((), SPECIAL)
    with_begin = SimpleNamespace(
        encode=tokenizer.encode, special_ids=tokenizer.special_ids, begin_ids=(256,)
    )
    talk = Chat(model=MODEL, tokenizer=with_begin, chat_template=TEMPLATE)
    ids, plain = (
        [token for token in talk.ids([Message("user", content)]) if token >= 256]
        for content in (text, "plums")
    )
    assert ids == plain
    assert len(plain) == 4


@pytest.mark.parametrize("token", [*TEMPLATE.special_tokens, "<|endoftext|>"])
def test_an_answer_ends_at_each_token_that_the_model_has_no_right_to(token, chat, script):
    script(f"Mei.{token}And I?")
    assert chat("--once", "Who?").out == "Mei.\n"


def test_what_would_command_the_terminal_is_not_passed_on(chat, script):
    script("Mei\x1b[2J.<|end|>")
    assert chat("--once", "Who?").out == "Mei�[2J.\n"


def test_a_text_that_ends_answers_is_neither_shown_nor_kept(toy, chat, script, tmp_path):
    hf.save(MODEL, tmp_path, Tokenizer((), SPECIAL), end_token="<|endoftext|>")
    save_template(tmp_path, replace(TEMPLATE, stop=("\nUser:",)))
    asked = script("Mei.\nUser: Why?", "Plums.")
    done = chat("--max-tokens", "11", stdin=b"a\nb\n", model=tmp_path)
    assert (done.out, done.err) == ("Mei.\nPlums.\n", "")
    assert "Mei.<|end|>" in asked[1].text


def test_the_oldest_turns_fall_out_and_that_is_said_once(chat, script, tmp_path):
    file = tmp_path / "talk.jsonl"
    asked = script("A1" * 8, "A2" * 8, "A3", "A4")
    lines = [*(f"Q{n}".center(20, "q") for n in (1, 2)), "Q3", "Q4", f"/save {file}"]
    done = chat("--system", "Be.", "--max-tokens", "20", stdin="\n".join(lines).encode())
    assert done.out.splitlines() == ["A1" * 8, "A2" * 8, "A3", "A4"]
    assert done.err.splitlines() == [
        "(the context is full: the model no longer sees the oldest 1 turn)",
        f"(4 turns written to {file})",
    ]
    assert all("Be." in each.text for each in asked)
    assert ["Q1" in each.text for each in asked] == [True, True, False, False]
    assert "Q2" in asked[3].text
    ((system, *rest),) = read_conversations(file)
    assert system == Message("system", "Be.")
    assert [each.content for each in rest][1::2] == ["A1" * 8, "A2" * 8, "A3", "A4"]


def test_a_new_conversation_keeps_the_system_text_and_what_has_no_answer_is_not_kept(chat, script):
    asked = script("<|end|>", "Mei.", "Hu.")
    done = chat("--system", "Be.", stdin=b"one\ntwo\n/reset\nthree\n")
    assert done.out == "\nMei.\nHu.\n"
    assert done.err.splitlines() == [
        "(no answer, so the message is not kept)",
        "(a new conversation)",
    ]
    begin = "<|system|>Be.<|end|><|user|>"
    assert asked[1].text == f"{begin}two<|end|><|assistant|>"
    assert asked[2].text == f"{begin}three<|end|><|assistant|>"


# --- steps and votes ------------------------------------------------------------------------------
def test_each_message_asks_for_steps_in_its_own_language(chat, script):
    asked = script("1.<|end|>", "2.<|end|>")
    done = chat("--steps", "--max-tokens", "3", stdin="Why?\n多少？\n".encode())
    assert (done.status, done.out) == (0, "1.\n2.\n")
    assert asked[0].text == "<|user|>Why? Let's think step by step.<|end|><|assistant|>"
    assert asked[1].text.endswith("<|user|>多少？请一步一步地思考。<|end|><|assistant|>")


def test_the_answer_that_wins_the_vote_is_the_answer_and_the_tally_a_note(chat, monkeypatch):
    asked = []

    def sampled(model, tokenizer, request, n, first):
        asked.append((Tokenizer((), SPECIAL).decode(request.prompt), n, first))
        assert request.config.temperature == voting.TEMPERATURE
        for number, text in enumerate(("Answer: 3.", "1 + 1 = 2. Answer: 2.", "Answer: 2.")):
            yield number, Completion(text=text, finish_reason="stop")

    monkeypatch.setattr(voting, "sampled", sampled)
    done = chat("--votes", "3", "--max-tokens", "30", stdin=b"a\nb\n")
    assert (done.status, done.out) == (0, "1 + 1 = 2. Answer: 2.\n" * 2)
    assert done.err == "(2 ×2 · 3 ×1)\n" * 2
    assert [(n, first) for _, n, first in asked] == [(3, 0), (3, voting.MOST)]
    assert "Answer: 2.<|end|><|user|>b<|end|>" in asked[1][0]


def test_votes_of_a_model_that_never_ends_are_no_answers(chat):
    done = chat("--votes", "4", "--once", "Why?", "--max-tokens", "2")
    assert done.status == 0 and done.out
    assert done.err.splitlines() == [
        "(no answer ×4)",
        "(no answer names a number, so nothing wins; this is the first of them)",
        "(cut off: no more tokens were allowed)",
    ]


# --- what can be wrong ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("words", "stdin", "named"),
    [
        (["--once", "  "], b"", "the text of --once is empty"),
        (["--once", "a", "--system", ""], b"", "the text of --system is empty"),
        (["--max-tokens", "96"], b"", "from 1 to 95"),
        (["--max-tokens", "0"], b"", "from 1 to 95"),
        (["--temperature", "-1"], b"", "temperature"),
        (["--once", "a" * 70], b"", "the message is too long: it has 73 tokens"),
        ([], b"a" * 70, "at most 72 can be read"),
        (["--votes", "1"], b"", "--votes must be from 2 to 64; got 1"),
        (["--votes", "65"], b"", "--votes must be from 2 to 64; got 65"),
        (["--votes", "5", "--temperature", "0"], b"", "needs a temperature above 0"),
        ([], b"/nope\n", "there is no command /nope; there are /reset, /save FILE"),
        ([], b"/save\n", "needs the name of a file"),
        ([], b"/save x\n", "nothing to save"),
        ([], "plums\n".encode("utf-16"), "standard input is UTF-16"),
    ],
)
def test_what_cannot_be_answered_is_one_line_and_status_2(words, stdin, named, chat):
    done = chat(*words, stdin=stdin)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("minillm: ")
    assert named in done.err
    assert done.err.count("\n") == 1


def test_a_model_that_was_not_tuned_for_chat_is_refused_with_what_to_do(chat):
    done = chat("--once", "hi", model="town-1m")
    assert (done.status, done.out) == (2, "")
    assert "not tuned for chat" in done.err
    assert "minillm sample --model town-1m" in done.err


@pytest.mark.parametrize(("role", "other"), [("system", "user"), ("user", "system")])
def test_a_role_that_the_template_lacks_is_named_at_once(role, other, chat, tmp_path):
    hf.save(MODEL, tmp_path, Tokenizer((), SPECIAL), end_token="<|endoftext|>")
    save_template(tmp_path, ChatTemplate(roles={other: Role(), "assistant": Role()}))
    done = chat("--system", "Be.", stdin=[], model=tmp_path)
    assert done.status == 2
    assert f"{other}, assistant; got '{role}'" in done.err


def test_a_file_is_never_written_over(chat, script, tmp_path):
    script("Mei.")
    file = tmp_path / "a file.jsonl"
    lines = ["Who?", f"/save {file}", f"/save {file}", f"/save {tmp_path / 'no' / 'such'}"]
    done = chat(stdin=lines)
    assert done.status == 0
    assert f"minillm: {file} is there already" in done.err
    assert "such cannot be written: No such file or directory" in done.err
    assert json.loads(file.read_text(encoding="utf-8"))["messages"][1]["content"] == "Mei."


# --- at a terminal --------------------------------------------------------------------------------
def test_a_person_is_told_and_asked_again(chat, script):
    asked = script("Mei.", "Hu.")
    done = chat(stdin=["a" * 99, "/nope", "", "/help", "Who?", "Else?", "/quit", "Never"])
    assert (done.status, done.out) == (0, "Mei.\nHu.\n")
    assert done.err.startswith("(toy. /help says what there is)\nminillm: the message is too long")
    assert "no command /nope" in done.err
    assert chatting.HELP in done.err
    assert asked[1].text.count("<|user|>") == 2


def test_ctrl_c_ends_an_answer_and_keeps_what_was_written(chat, script):
    asked = script("Mei se\3lls", "\3", "Hu.")
    done = chat(stdin=["Who?", "Why?", "Else?"])
    assert (done.status, done.out) == (0, "Mei se\n\nHu.\n")
    assert "no answer, so the message is not kept" in done.err
    assert asked[2].text.startswith("<|user|>Who?<|end|><|assistant|>Mei se<|end|><|user|>Else?")


def test_ctrl_c_at_the_prompt_says_how_to_leave_and_twice_leaves(chat, script):
    script("Mei.")
    done = chat(stdin=[KeyboardInterrupt, "Who?", KeyboardInterrupt, KeyboardInterrupt, "Else?"])
    assert (done.status, done.out) == (130, "Mei.\n")
    assert done.err.count("(to leave: /quit, Ctrl-D, or Ctrl-C once more)") == 2
    assert done.err.endswith("minillm: stopped.\n")


@pytest.mark.parametrize("words", [["--once", "Who?"], []])
def test_without_a_person_ctrl_c_ends_the_program(words, chat, script):
    script("Mei se\3lls", "Hu.")
    done = chat(*words, stdin=b"Who?\nElse?\n")
    assert (done.status, done.out) == (130, "Mei se\n")
