"""A conversation's history (对话历史), and what of it still fits into the model's context.

A model remembers nothing between two answers: before each it reads the conversation from its
beginning. Its context has room for so many tokens. When they are used up, the oldest turns fall
out, a question always with its answer; the system text stays.

    system  q1 a1  q2 a2  q3            too long for the context
    system         q2 a2  q3  ……        fits, and the answer has room

So the model forgets what was said first. A program that needs it later has to say it again.

Paper: none.
Differs: none.

Chapter: 20
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from minillm.serve.template import Message
from minillm.tune.chat import line, turn_messages


@final
@dataclass(frozen=True, kw_only=True)
class History:
    """What was said so far.

    Args:
        system: text before the conversation; None for none.
        turns: each a question and its answer, oldest first. Between them stand the model's calls of
            tools, each with its result (`minillm.tune.chat.turn_messages`).
        n_dropped: how many of the oldest the model no longer reads.

    Example:
        >>> history = History(turns=(("a", "b"), ("c", "d")), n_dropped=1)
        >>> [each.content for each in history.messages("e")]
        ['c', 'd', 'e']
    """

    system: str | None = None
    turns: tuple[tuple[str, ...], ...] = ()
    n_dropped: int = 0

    def messages(self, question: str | None = None) -> tuple[Message, ...]:
        """What the model reads; with a new question, if there is one."""
        messages = [] if self.system is None else [Message("system", self.system)]
        for turn in self.turns[self.n_dropped :]:
            messages += turn_messages(turn)
        return (*messages, *([] if question is None else [Message("user", question)]))


def fit(
    history: History,
    question: str,
    encode: Callable[[Sequence[Message]], Sequence[int]],
    max_length: int,
) -> History:
    """The history without its oldest turns, as few of them as it takes.

    Args:
        history: turns that it has dropped stay dropped.
        question: what is asked now.
        encode: the tokens of messages, as the model reads them.
        max_length: of them at most.

    Raises:
        ValueError: the question is too long even with no turn before it.

    Example:
        >>> history = History(turns=(("Who sells plums?", "Mei."), ("Where?", "Here.")))
        >>> fit(history, "And pears?", lambda messages: "".join(m.content for m in messages), 30)
        History(system=None, turns=(('Who sells plums?', 'Mei.'), ('Where?', 'Here.')), n_dropped=1)
    """
    for n_dropped in range(history.n_dropped, len(history.turns) + 1):
        history = replace(history, n_dropped=n_dropped)
        n_tokens = len(encode(history.messages(question)))
        if n_tokens <= max_length:
            return history
    beside = "the template's" if history.system is None else "those of the system text"
    raise ValueError(
        f"the message is too long: it has {n_tokens:,} tokens, {beside} included, and at most "
        f"{max_length:,} can be read, so that the answer has room. Say it in fewer words"
    )


def save(history: History, name: str) -> Path:
    """Write all that was said into a new file, a line of JSON, as `read_conversations` reads it.

    Returns:
        Where it is.

    Raises:
        ValueError: no name, nothing to write, a file that is there already or cannot be made.
    """
    if not name:
        raise ValueError("/save needs the name of a file, such as /save plums.jsonl")
    if not history.turns:
        raise ValueError("there is nothing to save: no message was answered yet")
    path = Path(name).expanduser()
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(line(replace(history, n_dropped=0).messages()) + "\n")
    except FileExistsError:
        raise ValueError(f"{path} is there already and stays as it is; take another name") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror or error}") from None
    return path
