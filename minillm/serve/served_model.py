"""A model under a name, and how what a client asks becomes requests of an engine.

    Call(prompts=("Mei stands",), n=2, seed=7)      tokens      Request(prompt=(312, 96), seed=7)
                                                  ──limits──▶   Request(prompt=(312, 96), seed=…)
                                                     seeds

**Whose special tokens.** A prompt is ordinary text: special tokens that it spells are letters, as
in a chat (`minillm.serve.template`). Who wants one sends token ids.

**A seed** decides an answer. The first is that of row 0 of `minillm.serve.sample.generate` with
this seed; each further one has a seed computed from it. So a call with a seed is answered alike
whoever else is asking, up to the rounding of floats.

Paper: none.
Differs: none.

Chapter: 17
"""

import secrets
from dataclasses import dataclass, replace
from typing import Any, final

from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.serve import template
from minillm.serve.constrain import Constraint, json_schema
from minillm.serve.conversation import Conversation
from minillm.serve.protocol import Call, Ids, choice_seed
from minillm.serve.refusal import RequestError
from minillm.serve.request import Request
from minillm.serve.template import PLAIN, ChatTemplate
from minillm.serve.tool_calls import AnyText, CallOrText, call_schema

NOT_TUNED = "It was not tuned for chat: it writes on where your text ends."


@final
@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """What is served.

    Args:
        name: as clients ask for it.
        tokenizer: of the model.
        context_length: tokens that it reads and writes at most.
        vocab_size: V, rows of its table.
        about: a sentence on what it is.
        stop_ids: tokens that end an answer.
        suppress_tokens: ids that no token has, see `SampleConfig`.
        chat_template: None for a model that was not tuned for chat.

    Raises:
        ValueError: no name; a template with special tokens that the tokenizer lacks.

    Example:
        >>> from minillm.text.fast import to_tokenizers_json
        >>> from minillm.text.tokenizer import Tokenizer
        >>> tokenizer = Tokenizer((), ("<|end|>",))
        >>> served = ServedModel(name="m", tokenizer=tokenizer, context_length=9, vocab_size=257)
        >>> (request,) = served.requests(Call(chat=False, model="m", prompts=("Hi",), n_tokens=4))
        >>> request.prompt, request.n_tokens
        ((72, 105), 4)
    """

    name: str
    tokenizer: JsonTokenizer
    context_length: int
    vocab_size: int
    about: str = ""
    stop_ids: tuple[int, ...] = ()
    suppress_tokens: tuple[int, ...] = ()
    chat_template: ChatTemplate | None = None

    def __post_init__(self):
        if not self.name:
            raise ValueError("a served model needs a name that clients can ask for; got ''")
        if self.chat_template is not None:
            self.chat_template.check(self.tokenizer)

    @property
    def description(self) -> str:
        """What it is, and whether it was tuned for chat."""
        return " ".join(filter(None, [self.about, "" if self.chat_template else NOT_TUNED]))

    @property
    def call_id(self) -> int | None:
        """The token with which it begins a call of a tool; None if it calls none."""
        token = (self.chat_template or PLAIN).call_token
        return None if token is None else self.tokenizer.special_ids[token]

    def as_object(self) -> dict[str, Any]:
        """What /v1/models says of it."""
        return {
            "id": self.name,
            "object": "model",
            "created": 0,  # nobody knows
            "owned_by": "minillm",
            "description": self.description,
            "context_length": self.context_length,
            "chat_tuned": self.chat_template is not None,
            "calls_tools": self.call_id is not None,
        }

    def check_name(self, name: str) -> None:
        """Refuse another model's name.

        Raises:
            RequestError: 404, with the name of this one.
        """
        if name != self.name:
            raise RequestError(
                f"there is no model {name[:80]!r} here; this server has {self.name!r}",
                param="model",
                status=404,
                code="model_not_found",
            )

    def requests(self, call: Call) -> list[Request]:
        """What the engine is asked: n requests for the first prompt, n for the next, and so on.

        Raises:
            RequestError: an empty prompt, more tokens than the context has, a role that the chat
                template lacks, a schema that cannot be kept to, tools for a model that calls none.
        """
        chat_template = self.chat_template or PLAIN
        stop_ids, stop = self.stop_ids, call.stop
        if call.chat:
            stop_ids += chat_template.stop_ids(self.tokenizer)
            stop += chat_template.stop
        suppress_tokens = self.suppress_tokens
        if call.chat and self.call_id is not None and not call.tools.functions:
            suppress_tokens += (self.call_id,)  # who offers no tools is answered in text
        config = replace(call.config, suppress_tokens=suppress_tokens)
        constraint = self._constraint(call, stop_ids)
        seed = secrets.randbits(63) if call.seed is None else call.seed
        requests = []
        for prompt in call.prompts:
            ids = self._ids(prompt, chat_template)
            request = Request(
                prompt=ids,
                n_tokens=self._n_tokens(len(ids), call),
                config=config,
                stop_ids=stop_ids,
                stop=stop,
                n_logprobs=call.n_logprobs,
                constraint=constraint,
            )
            requests += [replace(request, seed=choice_seed(seed, n)) for n in range(call.n)]
        return requests

    def _ids(self, prompt: str | Ids | Conversation, chat_template: ChatTemplate) -> Ids:
        """The tokens of a prompt; a text begins with what begins every text of the tokenizer."""
        try:
            match prompt:
                case str():
                    ids = tuple(self.tokenizer.encode(prompt))
                case (int(), *_):
                    return prompt
                case _:
                    ids = template.encode(prompt, chat_template, self.tokenizer)
        except ValueError as error:
            raise RequestError(str(error), param=_field(prompt)) from None
        begin_ids = tuple(getattr(self.tokenizer, "begin_ids", ()))
        if ids[: len(begin_ids)] != begin_ids:  # once is enough
            ids = begin_ids + ids
        if not ids:
            raise RequestError(
                "the prompt is empty, and this model needs a beginning to write on after",
                param=_field(prompt),
            )
        return ids

    def _n_tokens(self, n_prompt: int, call: Call) -> int:
        n_free = self.context_length - n_prompt
        if n_free < 1 or (call.n_tokens or 1) > n_free:
            asked = "" if call.n_tokens is None else f", and {call.n_tokens} more are asked for"
            fewer = f", or ask for at most {n_free}" if n_free > 0 else ""
            raise RequestError(
                f"this model reads and writes up to {self.context_length} tokens together; the "
                f"prompt has {n_prompt}{asked}. Shorten it{fewer}.",
                param="messages" if call.chat else "prompt",
                code="context_length_exceeded",
            )
        return call.n_tokens or n_free

    def _constraint(self, call: Call, stop_ids: tuple[int, ...]) -> Constraint | None:
        text = None
        if call.schema is not None:
            text = self._json(call.schema, stop_ids, "response_format")
        functions, call_id = call.tools.functions, self.call_id
        if not functions:
            return text
        if call_id is None:
            raise RequestError(
                f"{self.name} was not tuned to call tools: its chat template has no roles call and "
                "result. Leave tools out, or ask a model that was, such as tools-1m",
                param="tools",
            )
        calls = self._json(call_schema(functions), stop_ids, "tools")
        if call.tools.required:
            return CallOrText(call_id, calls, None)
        return CallOrText(call_id, calls, text or AnyText(self.vocab_size, call_id))

    def _json(self, schema: dict, stop_ids: tuple[int, ...], param: str) -> Constraint:
        try:
            return json_schema(schema, self.tokenizer, stop_ids, self.vocab_size)
        except ValueError as error:
            raise RequestError(str(error), param=param) from None


def _field(prompt: str | Ids | Conversation) -> str:
    return "prompt" if isinstance(prompt, str) else "messages"
