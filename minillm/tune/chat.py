"""Conversations as examples to learn from: template, roles, and the loss mask (损失掩码).

    tokens      <|user|> Turn the list around . <|end|> <|assistant|> buns , plums <|end|>
    loss mask      ·      ·    ·   ·     ·    ·    ·          ·         ✓  ✓   ✓     ✓

A model that is tuned for chat reads the whole conversation, and learns to predict the marked tokens
only: what the assistant says, and the token that ends it. What the user says is there to be
answered, not to be imitated.

**The end is learned.** `<|end|>` after an answer is marked. Leave it out of the mask, and the model
never writes it: it answers, and then goes on until some limit stops it. This happens by accident
where the end token also serves as padding and padding is masked.

**Special tokens come from the template alone.** Whatever a message spells is turned into ordinary
tokens, so nobody can end the user's message from within it (`minillm.serve.template`).

**Tools.** A model that may call tools (`TOOL_TEMPLATE`) speaks in two roles. After `<|assistant|>`
it writes either its answer, or `<|call|>` and the call as JSON. What the tool gave comes back as a
message of the role "result". The model reads it and has not written it, so it is not learned:

    tokens      <|user|> 3 · 4 ? <|end|> <|assistant|> <|call|> {…} <|end|> <|result|> 12 <|end|>
    loss mask      ·     ·······    ·          ·           ✓     ✓     ✓        ·      ·     ·

Paper: Ouyang et al. 2022, "Training language models to follow instructions with human feedback",
arXiv:2203.02155 (supervised fine-tuning on demonstrations); the roles are those of OpenAI's ChatML
(2023). Both from memory.
Differs: the loss mask and the end that is learned are the custom of later libraries, such as trl.

Chapter: 20
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import final

from minillm.lab.files import write_whole
from minillm.lab.text_file import parse_json, read_text
from minillm.model.transformer import Transformer
from minillm.serve.sample import SampleConfig, generate
from minillm.serve.template import FILE, ChatTemplate, Encoder, Message, Role, encode

#: How the town's models write down a conversation.
TEMPLATE = ChatTemplate(
    roles={
        name: Role(prefix=f"<|{name}|>", end="<|end|>") for name in ("system", "user", "assistant")
    },
    generation_prompt="<|assistant|>",
    special_tokens=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
)
#: The same for a model that may call tools. It writes `<|call|>` itself.
TOOL_TEMPLATE = replace(
    TEMPLATE,
    roles={
        **TEMPLATE.roles,
        "call": Role(prefix="<|assistant|><|call|>", end="<|end|>"),
        "result": Role(prefix="<|result|>", end="<|end|>"),
    },
    special_tokens=(*TEMPLATE.special_tokens, "<|call|>", "<|result|>"),
)
AT_ONCE = 64  # conversations that are answered together

Conversation = tuple[Message, ...]


@final
@dataclass(frozen=True)
class Example:
    """A conversation as tokens.

    Args:
        ids: of all tokens, in their order.
        loss_mask: of each, whether the model is to learn to predict it.
    """

    ids: tuple[int, ...]
    loss_mask: tuple[bool, ...]


def example(
    messages: Sequence[Message], tokenizer: Encoder, template: ChatTemplate = TEMPLATE
) -> Example:
    """A conversation as tokens, with all that the model says marked, and the ends of it.

    Args:
        messages: at least one of them the assistant's.
        tokenizer: of the model.
        template: of the model.

    Raises:
        ValueError: no conversation (`check`); a template whose answers have no end token; a
            special token that the tokenizer lacks.

    Example:
        >>> from minillm.text.tokenizer import Tokenizer
        >>> tokenizer = Tokenizer((), TEMPLATE.special_tokens)
        >>> one = example([Message("user", "a"), Message("assistant", "b")], tokenizer)
        >>> one.ids
        (257, 97, 259, 258, 98, 259)
        >>> one.loss_mask
        (False, False, False, False, True, True)
    """
    check(messages, template)
    template.check(tokenizer)
    if not template.stop_ids(tokenizer):
        raise ValueError(
            "the chat template's assistant has no end token, so a model could not learn when to "
            'stop; give roles.assistant an "end" that is one of its special_tokens'
        )
    own = model_roles(template)
    alone = replace(template, roles=own, generation_prompt="")
    ids: list[int] = []
    loss_mask: list[bool] = []
    for number, message in enumerate(messages):
        if message.role not in own:
            continue
        # 1. all that the model has read when it begins to speak: not to be learned
        ids += encode(messages[:number], template, tokenizer)[len(ids) :]
        loss_mask += [False] * (len(ids) - len(loss_mask))
        # 2. what it says, and its end: to be learned
        ids += encode([message], alone, tokenizer)
        loss_mask += [True] * (len(ids) - len(loss_mask))
    return Example(tuple(ids), tuple(loss_mask))


def model_roles(template: ChatTemplate) -> dict[str, Role]:
    """The roles in which the model speaks, as it writes them: right behind the generation prompt.

    Example:
        >>> model_roles(TOOL_TEMPLATE)["call"]
        Role(prefix='<|call|>', end='<|end|>', suffix='')
        >>> [*model_roles(TOOL_TEMPLATE)], [*model_roles(TEMPLATE)]
        (['assistant', 'call'], ['assistant'])
    """
    end, call_token = template.roles["assistant"].end, template.call_token
    roles = {"assistant": Role(end=end)}
    return roles if call_token is None else roles | {"call": Role(prefix=call_token, end=end)}


def turn_messages(turn: Sequence[str]) -> Conversation:
    """A turn as messages: what is asked, each call with its result, what is answered.

    Args:
        turn: an even number of texts, at least two; the first the user's, the last the assistant's.

    Example:
        >>> [each.role for each in turn_messages(("3 · 4?", "{…}", "12", "12."))]
        ['user', 'call', 'result', 'assistant']
    """
    roles = ("user", *("call", "result") * (len(turn) // 2 - 1), "assistant")
    return tuple(Message(role, text) for role, text in zip(roles, turn, strict=True))


def check(messages: Sequence[Message], template: ChatTemplate = TEMPLATE) -> None:
    """Refuse what nobody can learn from.

    Raises:
        ValueError: no message of the assistant, or the model speaks first; an empty message; a role
            that the template does not have; a call without its result right behind it, or a result
            without its call. The message is named by its number, from 0.

    Example:
        >>> check([Message("user", "Who is Mei?")])
        Traceback (most recent call last):
            ...
        ValueError: a conversation to learn from must have a message of the assistant; this one \
has the roles user
    """
    for number, (role, content) in enumerate(messages):
        if role not in template.roles:
            tools = role in TOOL_TEMPLATE.roles
            raise ValueError(
                f"the role of message {number} must be one of {', '.join(template.roles)}; got "
                f"{role!r}" + ", which a model that may call tools has, such as tools-1m" * tools
            )
        if not content.strip():
            raise ValueError(f"message {number}, the {role}'s, is empty; write it or take it out")
    roles = [message.role for message in messages]
    if "assistant" not in roles:
        raise ValueError(
            "a conversation to learn from must have a message of the assistant; this one has the "
            f"roles {', '.join(roles) or 'of nobody'}"
        )
    if roles[0] == "assistant":
        raise ValueError("message 0 is the assistant's, which answers nothing; begin with the user")
    if template.call_token is not None:
        _check_calls(roles)


def _check_calls(roles: Sequence[str]) -> None:
    if roles[0] in ("call", "result"):
        raise ValueError(f"message 0 is a {roles[0]}, which answers nothing; begin with the user")
    for number, (before, role) in enumerate(zip(("", *roles), (*roles, ""), strict=True)):
        if before == "call" and role != "result":
            raise ValueError(
                f"message {number - 1} is a call, so message {number} must be its result; got "
                f"{role or 'nothing'!r}"
            )
        if role == "result" and before != "call":
            raise ValueError(
                f"message {number} is a result, so message {number - 1} must be its call; got "
                f"{before!r}"
            )


# --- files --------------------------------------------------------------------------------------
def read_conversations(
    path: str | PathLike, template: ChatTemplate = TEMPLATE
) -> list[Conversation]:
    """Conversations from a JSON Lines file: {"messages": [{"role": …, "content": …}, …]} a line.

    Empty lines are passed over; other names beside "messages" are not read.

    Raises:
        ValueError: a line that is no such object, or that `check` refuses, with its number from 1;
            a file without a conversation.
    """
    conversations = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            messages = _messages(parse_json(line))
            check(messages, template)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        conversations.append(messages)
    if not conversations:
        raise ValueError(f"{path} has no conversation; each line must be one, {_FORM}")
    return conversations


_FORM = '{"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}'


def _messages(content: object) -> Conversation:
    listed = content.get("messages") if isinstance(content, dict) else None
    good = isinstance(listed, list) and all(
        isinstance(each, dict)
        and isinstance(each.get("role"), str)
        and isinstance(each.get("content"), str)
        for each in listed
    )
    if not good:
        raise ValueError(f"a conversation must be {_FORM}; got {str(content)[:80]}")
    return tuple(Message(each["role"], each["content"]) for each in listed)


def line(messages: Sequence[Message]) -> str:
    """A conversation as one line of such a file.

    Example:
        >>> line([Message("user", "几个？")])
        '{"messages": [{"role": "user", "content": "几个？"}]}'
    """
    return json.dumps({"messages": [each._asdict() for each in messages]}, ensure_ascii=False)


def save_template(folder: str | PathLike, template: ChatTemplate = TEMPLATE) -> None:
    """Write `chat_template.json` into a model's folder, where `serve.template.load` reads it."""
    write_whole(
        Path(folder) / FILE, json.dumps(asdict(template), indent=2, ensure_ascii=False) + "\n"
    )


# --- answering ----------------------------------------------------------------------------------
@final
@dataclass(frozen=True)
class Answer:
    """What a model answered.

    Args:
        text: without its end.
        ended: whether the model ended it; False where the limit did.
    """

    text: str
    ended: bool


def answers(
    model: Transformer,
    tokenizer: Encoder,
    conversations: Sequence[Sequence[Message]],
    template: ChatTemplate = TEMPLATE,
    *,
    n_tokens: int = 64,
    config: SampleConfig | None = None,
    seed: int = 0,
) -> list[Answer]:
    """The model's answer to each conversation.

    Args:
        model, tokenizer, template: those that belong together.
        conversations: each ends where the model is to speak.
        n_tokens: at most, of an answer; fewer where the context has no more room.
        config: how tokens are chosen; None for the likeliest always.
        seed: of what is left to chance.

    Raises:
        ValueError: a conversation that fills the context; what `serve.template.encode` refuses.
    """
    prompts = [encode(messages, template, tokenizer) for messages in conversations]
    room = model.config.context_length
    if too_long := [number for number, ids in enumerate(prompts) if len(ids) >= room]:
        raise ValueError(
            f"a conversation must leave room for an answer in the context of {room} tokens; "
            f"conversation {too_long[0]} has {len(prompts[too_long[0]])}. Leave out old messages"
        )
    # 1. those of about equal length together, so that little is padded; alone, where the context
    #    has not room for n_tokens, so that no other answer is cut
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    n_roomy = sum(len(ids) + n_tokens <= room for ids in prompts)
    groups = [order[first : min(first + AT_ONCE, n_roomy)] for first in range(0, n_roomy, AT_ONCE)]
    groups += [[number] for number in order[n_roomy:]]
    # 2. the answers
    rows: dict[int, list[int]] = {}
    limits: dict[int, int] = {}
    for numbers in groups:
        limit = min(n_tokens, room - len(prompts[numbers[-1]]))
        written = generate(
            model,
            [prompts[number] for number in numbers],
            config or SampleConfig(temperature=0),
            n_tokens=limit,
            stop_ids=template.stop_ids(tokenizer),
            seed=seed,
            first_row=len(rows),
        )
        rows |= zip(numbers, written, strict=True)
        limits |= dict.fromkeys(numbers, limit)
    return [
        Answer(tokenizer.decode(rows[number]), len(rows[number]) < limits[number])
        for number in range(len(prompts))
    ]
