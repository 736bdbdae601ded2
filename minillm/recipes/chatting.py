"""`minillm chat`: a conversation (对话) with a model that was tuned for chat.

    > Who sells plums?
    Mei sells plums.
    > Who is she? Tell me all about her.
    Mei is a baker who^C                    Ctrl-C ends the answer; the conversation goes on

Standard output has the answers and nothing else. What is said beside them, such as which turns the
model no longer sees, goes to standard error. So a program may ask through a pipe: each line is a
message, and each is answered.

The model sees as much of the conversation as its context has room for (`minillm.tune.history`).

A model that may call tools (`minillm.tune.chat.TOOL_TEMPLATE`) is given those of the town, see
`minillm.recipes.calling`.

With `--steps` each message has the words behind it that ask for a chain of thought (思维链,
`minillm.reason.prompt`). With `--votes 10` ten answers are sampled, and the first of those that
most agree with is the answer (`minillm.recipes.voting`).

**Whose special tokens.** They come from the chat template alone. What a person types is text, also
where it looks like `<|end|>` (`minillm.serve.template`). And the model's answer ends at any special
token of the template: the model does not speak for the user.

Chapter: app
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import final

from minillm.agents.tools import Toolbox
from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.lab.text_file import decode
from minillm.lab.threads import use_threads
from minillm.model.transformer import Transformer
from minillm.reason.prompt import with_trigger
from minillm.recipes import calling, voting
from minillm.recipes.calling import Answer, End
from minillm.recipes.town_tools import town_toolbox
from minillm.serve import template
from minillm.serve.detokenize import TextStream
from minillm.serve.request import Request
from minillm.serve.sample import SampleConfig, stream
from minillm.serve.template import ChatTemplate, Message
from minillm.town.world import World
from minillm.tune.history import History, fit, save
from minillm.zoo import checkpoints

LONGEST_ANSWER = 512  # tokens, if nobody says how many
HELP = """\
Type a message and press Enter. Ctrl-C ends an answer before its time. A line that begins with /
is a command; to send one as a message, begin it with a space.
  /reset       begin a new conversation; a system text stays
  /save FILE   write the conversation into a new file, one line of JSON, to train with
  /help        this text
  /quit        leave; so does Ctrl-D"""
#: What would command the terminal; a model may write anything.
_CONTROL = {n: "�" for n in (*range(32), *range(127, 160)) if chr(n) not in "\t\n\r"}


def for_terminal(text: str) -> str:
    r"""A text without the characters that command a terminal.

    Example:
        >>> for_terminal("plum\n\x1b[2J")
        'plum\n�[2J'
    """
    return text.translate(_CONTROL)


# --- the model ------------------------------------------------------------------------------------
@final
@dataclass(frozen=True, kw_only=True)
class Chat:
    """A model that was tuned for chat, and how it answers.

    Args:
        model, tokenizer, chat_template: those that belong together.
        end_ids: tokens that end an answer beside those of the template.
        config: how tokens are chosen.
        n_tokens: of an answer at most; None for 512, or what the context has room for.
        seed: of what is left to chance.
        steps: whether each message asks for a chain of thought.
        n_votes: answers that are sampled of each message; None for one, shown as it comes.
        toolbox: what the model may call; None for a model that calls nothing.

    Raises:
        ValueError: a number of tokens that leaves no room for a message; votes over calls.
    """

    model: Transformer = field(repr=False)
    tokenizer: JsonTokenizer = field(repr=False)
    chat_template: ChatTemplate
    end_ids: tuple[int, ...] = ()
    config: SampleConfig = field(default_factory=lambda: SampleConfig(temperature=0))
    n_tokens: int | None = None
    seed: int = 0
    steps: bool = False
    n_votes: int | None = None
    toolbox: Toolbox | None = field(default=None, repr=False)

    def __post_init__(self):
        if self.n_votes is not None and self.toolbox is not None:
            raise ValueError("--votes is for models that call no tools; leave it out")
        length = self.model.context_length
        if self.n_tokens is not None and not 1 <= self.n_tokens < length:
            raise ValueError(
                f"--max-tokens must be from 1 to {length - 1}: this model reads and writes "
                f"{length} tokens together; got {self.n_tokens}"
            )

    @property
    def max_length(self) -> int:
        """Tokens that may be read, so that the answer has room, and calls before it."""
        length = self.model.context_length
        if self.toolbox is not None and self.n_tokens is None:
            return length // 3
        return length - (self.n_tokens or min(LONGEST_ANSWER, max(1, length // 4)))

    def ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """The tokens that the model reads, up to where it is to answer."""
        ids = template.encode(messages, self.chat_template, self.tokenizer)
        begin_ids = tuple(self.tokenizer.begin_ids)
        return ids if ids[: len(begin_ids)] == begin_ids else begin_ids + ids

    def request(self, ids: tuple[int, ...]) -> Request:
        """What the model reads, how its answer is chosen, and what ends it."""
        special_ids = {self.tokenizer.special_ids[s] for s in self.chat_template.special_tokens}
        stop_ids = tuple(sorted({*self.end_ids, *special_ids}))
        no_token = checkpoints.ids_without_token(self.model, self.tokenizer, stop_ids)
        return Request(
            prompt=ids,
            n_tokens=min(self.n_tokens or LONGEST_ANSWER, self.model.context_length - len(ids)),
            config=replace(self.config, suppress_tokens=no_token),
            stop_ids=stop_ids,
            stop=tuple(self.chat_template.stop),
            seed=self.seed,
        )

    def answer(self, messages: Sequence[Message], row: int, show: Callable[[str], None]) -> Answer:
        """The model's answer, shown as it comes; Ctrl-C ends it.

        Args:
            messages: what was said so far.
            row: the number of the turn, so that each has random numbers of its own.
            show: is given the text, piece by piece.
        """
        request = self.request(self.ids(messages))
        parts: list[str] = []
        try:
            tokens = stream(
                self.model,
                request.prompt,
                request.config,
                n_tokens=request.n_tokens,
                stop_ids=request.stop_ids,
                seed=request.seed,
                row=row,
            )
            text = TextStream(self.tokenizer, request.stop)
            for token in tokens:
                parts.append(text.push(token))
                show(parts[-1])
                if text.stopped:
                    break
            end = "length" if len(parts) == request.n_tokens and not text.stopped else "stop"
            parts.append(text.close())
            show(parts[-1])
        except KeyboardInterrupt:
            end = "interrupt"
        return Answer("".join(parts), end)

    def elected(self, messages: Sequence[Message], row: int, show: Callable[[str], None]) -> Answer:
        """The answer that wins the vote, shown as a whole; arguments as of `answer`."""
        first = row * voting.MOST  # so that each turn has random numbers of its own
        request = self.request(self.ids(messages))
        text, end = voting.elect(
            self.model, self.tokenizer, request, self.n_votes, first=first, note=_note
        )
        show(text)
        return Answer(text, end)

    def with_tools(
        self, messages: Sequence[Message], row: int, show: Callable[[str], None]
    ) -> Answer:
        """The answer of a model that may call tools; arguments as of `answer`."""

        def request_of(messages: Sequence[Message]) -> Request:
            number = row * 2**16 + len(messages)  # each message has random numbers of its own
            return replace(self.request(self.ids(messages)), seed=self.seed * 2**32 + number)

        parts = self.model, self.tokenizer, self.chat_template, self.toolbox
        return calling.reply(*parts, messages, request_of, show, _note)


# --- the program ----------------------------------------------------------------------------------
def run(
    place: Path,
    *,
    once: str | None = None,
    system: str | None = None,
    temperature: float | None = None,
    seed: int = 0,
    max_tokens: int | None = None,
    steps: bool = False,
    votes: int | None = None,
) -> None:
    """Talk, until the input ends.

    Args:
        place: a model's folder, or the name of a shipped one.
        once: the one message to answer; None to read messages from standard input.
        system: text before the conversation; None for none.
        temperature: 0 for the likeliest token always; None for 0, or 0.8 with votes.
        seed: of what is left to chance, at another temperature.
        max_tokens: of an answer at most; None for 512, or what the context has room for.
        steps: whether each message asks for a chain of thought.
        votes: answers that are sampled of each message; None for one.

    Raises:
        ValueError: a model that cannot be read, or was not tuned for chat; an option out of its
            range; a message that cannot be answered, where nobody is there to be told.
    """
    use_threads()
    config = SampleConfig(temperature=voting.checked(votes, temperature))
    chat = open_chat(place, config=config, n_tokens=max_tokens, seed=seed)
    chat = replace(chat, steps=steps, n_votes=votes)
    for option, text in (("--system", system), ("--once", once)):
        if text is not None and not text.strip():
            raise ValueError(f"the text of {option} is empty; write one, or leave the option out")
    history = History(system=None if system is None else system.strip())
    chat.ids(history.messages("a role that the template lacks is named before anyone types"))
    if once is not None:
        _must_go_on(_turn(chat, history, once)[1])
    elif sys.stdin is None:
        raise ValueError('standard input is closed; give the message with --once "…"')
    elif sys.stdin.isatty():
        _note(f"{checkpoints.folder_of(place).resolve().name}. /help says what there is")
        _talk(chat, history)
    else:
        for data in iter(sys.stdin.buffer.readline, b""):
            history, end = _step(chat, history, decode(data, "standard input"))
            if end == "quit":
                break
            _must_go_on(end)


def open_chat(
    place: Path, *, config: SampleConfig, n_tokens: int | None = None, seed: int = 0
) -> Chat:
    """A model with its chat template.

    Raises:
        ValueError: as for `Chat` and `checkpoints.open_model`; a model without a chat template.
    """
    folder = checkpoints.folder_of(place)
    model, tokenizer, end_ids = checkpoints.open_model(folder)
    chat_template = template.load(folder, tokenizer)
    if chat_template is None:
        raise ValueError(
            f"{place} was not tuned for chat: its folder has no {template.FILE}, which says how a "
            f'conversation is written down. `minillm sample --model {place} "…"` writes on after '
            "a text; a model that was tuned for chat brings the file with it"
        )
    return Chat(
        model=model.eval(),
        tokenizer=tokenizer,
        chat_template=chat_template,
        end_ids=end_ids,
        config=config,
        n_tokens=n_tokens,
        seed=seed,
        toolbox=None if chat_template.call_token is None else town_toolbox(World()),
    )


def _talk(chat: Chat, history: History) -> None:
    """A person at a terminal: what goes wrong is said, and the next line is read."""
    with suppress(ImportError):
        import readline  # noqa: F401  (gives input() arrow keys and a history, where there is one)
    leaving, end = False, ""
    while end != "quit":
        try:
            text = _ask()
            leaving = False
            history, end = _step(chat, history, text)
        except EOFError:
            return print(file=sys.stderr)
        except KeyboardInterrupt:
            if leaving:
                raise
            leaving = True
            print(file=sys.stderr)
            _note("to leave: /quit, Ctrl-D, or Ctrl-C once more")
        except ValueError as error:
            print(f"minillm: {error}", file=sys.stderr)


def _ask() -> str:
    """A line from the terminal."""
    if not sys.stdout.isatty():  # where answers go into a file the prompt does not
        print("> ", end="", file=sys.stderr, flush=True)
    text = input("> " if sys.stdout.isatty() else "")
    return decode(text.encode("utf-8", "surrogateescape"), "the line")


def _step(chat: Chat, history: History, text: str) -> tuple[History, str]:
    """What a line does to the conversation, and how it ended: an `End`, "quit", or ""."""
    command, _, rest = text.rstrip().partition(" ")
    match command:
        case "" if not rest.strip():
            _note("an empty line is no message")
        case "/quit":
            return history, "quit"
        case "/help":
            print(HELP, file=sys.stderr)
        case "/reset":
            _note("a new conversation")
            return History(system=history.system), ""
        case "/save":
            path = save(history, rest.strip())
            _note(f"{_turns(len(history.turns))} written to {path}")
        case _ if command.startswith("/"):
            raise ValueError(
                f"there is no command {command}; there are /reset, /save FILE, /help, /quit. To "
                "send the line as a message, begin it with a space"
            )
        case _:
            return _turn(chat, history, text)
    return history, ""


def _turn(chat: Chat, history: History, question: str) -> tuple[History, End]:
    """One question and its answer, on standard output."""
    question, n_before = question.strip(), history.n_dropped
    question = with_trigger(question) if chat.steps else question
    answer_to = chat.answer if chat.n_votes is None else chat.elected
    answer_to = answer_to if chat.toolbox is None else chat.with_tools
    history = fit(history, question, chat.ids, chat.max_length)
    if n := history.n_dropped - n_before:
        _note(f"the context is full: the model no longer sees the oldest {_turns(n)}")
    try:
        answer = answer_to(history.messages(question), len(history.turns), _show)
    finally:
        print(flush=True)  # what was written stays, on a line of its own
    if answer.end == "length":
        _note("cut off: no more tokens were allowed")
    if not answer.text.strip():
        _note("no answer, so the message is not kept")
        return history, answer.end
    turn = (question, *answer.called, answer.text)
    return replace(history, turns=(*history.turns, turn)), answer.end


def _turns(n: int) -> str:
    return "1 turn" if n == 1 else f"{n} turns"


def _show(text: str) -> None:
    print(for_terminal(text), end="", flush=True)


def _note(text: str) -> None:
    print(f"({for_terminal(text)})", file=sys.stderr, flush=True)


def _must_go_on(end: str) -> None:
    """Where no person sits at the prompt, Ctrl-C ends the program."""
    if end == "interrupt":
        raise KeyboardInterrupt
