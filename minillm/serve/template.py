"""The chat template (对话模板): how a conversation becomes the one text that a model reads.

A model continues a text; a conversation is a list of messages, each with a role. A model that was
tuned for chat has seen conversations written down in one certain way, and must be shown them in
that way again. How it goes is data, the file `chat_template.json` in the model's folder:

    {"roles": {"user":      {"prefix": "User: ", "suffix": "\\n"},
               "assistant": {"prefix": "Bot: ", "end": "<|end|>", "suffix": "\\n"}},
     "generation_prompt": "Bot: ", "special_tokens": ["<|end|>"], "stop": ["\\nUser:"]}

    user       Who is Mei?     User: Who is Mei?⏎
    assistant  A baker.        Bot: A baker.<|end|>⏎
    user       And Hu?         User: And Hu?⏎
                               Bot:                    the model writes on here, up to <|end|>

**Whose special tokens.** The template's own texts may spell special tokens, commands to the model.
What a message spells is text, whatever it looks like: a user who types `<|end|>` gets the letters
(prompt injection, 提示注入). So the text is cut at the template's special tokens only, and all
between them is turned into tokens as ordinary text.

**Tools.** A model that calls tools has two roles more: "call", which the model speaks too, and
"result", what the tool gave. The prefix of a call is the generation prompt and one special token,
which the model writes itself when it decides to call; a call ends as an answer does.

    {"call":   {"prefix": "Bot: <|call|>", "end": "<|end|>"},
     "result": {"prefix": "Tool: ", "suffix": "\\n"}}

A model without such a file was not tuned for chat. Then `PLAIN` is used: messages one after the
other, separated by a space, and the model goes on.

Paper: none; the roles and ends of messages are those of OpenAI's ChatML (2023).
Differs: `transformers` keeps a program in the Jinja language; a file from a stranger is data here.

Chapter: 17
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, Protocol, final

from minillm.formats.json_file import read_object
from minillm.text.tokenizer import split_specials

FILE = "chat_template.json"


class Encoder(Protocol):
    """What turns text into ids; every tokenizer of ours does."""

    special_ids: Mapping[str, int]

    def encode(self, text: str, allowed_special: Collection[str] = frozenset()) -> list[int]:
        """The ids of a text."""


class Message(NamedTuple):
    """One message of a conversation.

    Args:
        role: who says it, such as "user".
        content: what.
    """

    role: str
    content: str


@final
@dataclass(frozen=True, kw_only=True)
class Role:
    """How the messages of one role are written down: prefix, content, end, suffix.

    Args:
        prefix: text before the content.
        end: a special token right after it, which the model writes itself when it is done; None
            for none.
        suffix: text after that, up to the next message.
    """

    prefix: str = ""
    end: str | None = None
    suffix: str = ""


@final
@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """How a conversation is written down.

    Args:
        roles: each role that may speak; one must be "assistant", the model.
        generation_prompt: text after the last message, which the model writes on after.
        special_tokens: those that the texts of the template spell.
        stop: texts that end the model's answer, beside the end of "assistant".
        separator: text between two messages.
        trim: leave out spaces and line ends around each content.

    Raises:
        ValueError: a value of another kind, an `end` that is not among the special tokens, no role
            "assistant", a role "call" of another form than above.

    Example:
        >>> template = ChatTemplate(
        ...     roles={"user": Role(prefix="Q: ", suffix="|"), "assistant": Role(prefix="A: ")},
        ...     generation_prompt="A: ",
        ... )
        >>> render([Message("user", "Who is Mei?")], template)
        'Q: Who is Mei?|A: '
    """

    roles: Mapping[str, Role] = field(default_factory=dict)
    generation_prompt: str = ""
    special_tokens: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    separator: str = ""
    trim: bool = False

    def __post_init__(self):
        if "assistant" not in self.roles:
            raise ValueError(
                f'roles must have "assistant", the model; they are {sorted(self.roles) or "none"}'
            )
        for key in ("special_tokens", "stop"):
            texts = getattr(self, key)
            if isinstance(texts, str) or not all(isinstance(t, str) and t for t in texts):
                raise ValueError(f"{key} must be a list of texts, none empty; got {texts!r}")
        if type(self.trim) is not bool:
            raise ValueError(f"trim must be true or false; got {self.trim!r}")
        _check_texts("", self, ("generation_prompt", "separator"))
        for name, role in self.roles.items():
            _check_texts(f"roles.{name}.", role, ("prefix", "suffix"))
            if role.end is not None and role.end not in self.special_tokens:
                raise ValueError(
                    f"roles.{name}.end must be one of special_tokens, {list(self.special_tokens)}, "
                    f"or null; got {role.end!r}"
                )

        if "call" in self.roles and self.call_token is None:
            raise ValueError(
                "roles.call must have the generation prompt and one special token as its prefix, "
                f"and the end of the assistant; got {self.roles['call']}"
            )

    @property
    def call_token(self) -> str | None:
        """The special token with which the model begins a call of a tool; None if it calls none."""
        call, begin = self.roles.get("call"), self.generation_prompt
        if call is None or call.end != self.roles["assistant"].end:
            return None
        return next((each for each in self.special_tokens if begin + each == call.prefix), None)

    def check(self, tokenizer: Encoder) -> None:
        """Refuse a tokenizer that lacks a special token of the template.

        Raises:
            ValueError: with the tokens that are missing.
        """
        if missing := [each for each in self.special_tokens if each not in tokenizer.special_ids]:
            raise ValueError(
                f"the chat template has the special tokens {missing}, which the tokenizer lacks; "
                f"its own are {sorted(tokenizer.special_ids)}"
            )

    def stop_ids(self, tokenizer: Encoder) -> tuple[int, ...]:
        """The ids that end the model's answer: that of the assistant's `end`, if there is one."""
        end = self.roles["assistant"].end
        return () if end is None else (tokenizer.special_ids[end],)


def _check_texts(where: str, holder: object, keys: tuple[str, ...]) -> None:
    for key in keys:
        if not isinstance(getattr(holder, key), str):
            raise ValueError(f"{where}{key} must be a text; got {getattr(holder, key)!r}")


#: For models that were not tuned for chat: all that was said so far, as one text.
PLAIN = ChatTemplate(
    roles={name: Role() for name in ("system", "user", "assistant")}, separator=" ", trim=True
)


def render(messages: Sequence[Message], template: ChatTemplate) -> str:
    """The text that the model reads, as a person sees it.

    Args:
        messages: in their order, at least one.
        template: how they are written down.

    Raises:
        ValueError: no message; a role that the template does not have.

    Example:
        >>> render([Message("user", "Mei waits. "), Message("assistant", " Hu comes.")], PLAIN)
        'Mei waits. Hu comes.'
    """
    return "".join(text for text, _ in _parts(messages, template))


def encode(
    messages: Sequence[Message], template: ChatTemplate, tokenizer: Encoder
) -> tuple[int, ...]:
    """The tokens that the model reads.

    Args:
        messages, template: as for `render`.
        tokenizer: of the model.

    Returns:
        Ids. Special tokens are those of the template's own texts; none comes from a message.

    Raises:
        ValueError: as for `render`; a special token that the tokenizer lacks; what it refuses.

    Example:
        >>> from minillm.text.tokenizer import Tokenizer
        >>> template = ChatTemplate(
        ...     roles={"user": Role(end="<e>"), "assistant": Role()}, special_tokens=("<e>",)
        ... )
        >>> encode([Message("user", "a<e>")], template, Tokenizer((), ("<e>",)))
        (97, 60, 101, 62, 256)
    """
    template.check(tokenizer)
    # 1. ordinary text up to the next special token is one piece, wherever its parts come from
    pieces, special = [""], set(template.special_tokens)
    for text, is_template in _parts(messages, template):
        ordinary, *rest = split_specials(text, special, special if is_template else ())
        pieces[-1] += ordinary
        pieces += rest
    # 2. pieces alternate: ordinary text, a special token, ordinary text, …
    ids: list[int] = []
    for place, piece in enumerate(pieces):
        ids += [tokenizer.special_ids[piece]] if place % 2 else tokenizer.encode(piece)
    return tuple(ids)


def _parts(messages: Sequence[Message], template: ChatTemplate) -> list[tuple[str, bool]]:
    """The text in parts, each with whether it is the template's own."""
    if not messages:
        raise ValueError("a conversation must have at least one message; got none")
    parts: list[tuple[str, bool]] = []
    for place, (name, content) in enumerate(messages):
        if name not in template.roles:
            raise ValueError(
                f"the role of message {place} must be one that this model's chat template has, "
                f"{', '.join(template.roles)}; got {name!r}"
            )
        role = template.roles[name]
        parts += [
            (template.separator if place else "", True),
            (role.prefix, True),
            (content.strip() if template.trim else content, False),
            ((role.end or "") + role.suffix, True),
        ]
    return [*parts, (template.generation_prompt, True)]


# --- from a file --------------------------------------------------------------------------------
def load(folder: str | PathLike, tokenizer: Encoder) -> ChatTemplate | None:
    """The chat template in a model's folder; None if there is none.

    Raises:
        ValueError: it is damaged, has keys that nobody reads, or special tokens that the tokenizer
            lacks; or it is a program, as `transformers` writes it.
    """
    path = Path(folder) / FILE
    if not path.exists():
        return None
    try:
        template = from_object(read_object(path, max_bytes=2**20))
        template.check(tokenizer)
    except ValueError as error:
        raise ValueError(f"{FILE}: {error}") from None
    return template


def from_object(content: Mapping[str, Any]) -> ChatTemplate:
    """A chat template from the JSON object of its file.

    Raises:
        ValueError: as for `load`.

    Example:
        >>> from_object({"roles": {"assistant": {"prefix": "Bot: "}}}).roles["assistant"].prefix
        'Bot: '
    """
    if isinstance(content.get("chat_template"), str):
        raise ValueError(
            "this is transformers' template, a program in the Jinja language, which minillm does "
            "not run. Write down what it does: roles with prefix, end, suffix; see "
            "minillm/serve/template.py"
        )
    _check_keys("", content, ChatTemplate)
    roles = content.get("roles")
    if not isinstance(roles, dict) or not all(isinstance(role, dict) for role in roles.values()):
        raise ValueError(f'roles must be an object, {{"user": {{"prefix": …}}, …}}; got {roles!r}')
    for name, role in roles.items():
        _check_keys(f"roles.{name} ", role, Role)
    lists = {key: content.get(key, []) for key in ("special_tokens", "stop")}
    for key, texts in lists.items():
        if not isinstance(texts, list):
            raise ValueError(f"{key} must be a list of texts; got {texts!r}")
    plain = {key: content[key] for key in content if key not in {"roles", *lists}}
    return ChatTemplate(
        roles={name: Role(**role) for name, role in roles.items()},
        **{key: tuple(texts) for key, texts in lists.items()},
        **plain,
    )


def _check_keys(where: str, content: Mapping[str, Any], kind: type) -> None:
    known = [each.name for each in fields(kind)]
    if unknown := sorted(set(content) - set(known)):
        raise ValueError(f"{where}has keys that nobody reads: {unknown}; known are {known}")
