"""What an OpenAI-style server answers: one object, or chunks while the text comes.

    one object   {"choices": [{"message": {"role": "assistant", "content": "…"}, "finish_reason":
                 "stop"}], "usage": {"prompt_tokens": 4, "completion_tokens": 9, …}}

A stream is a list of server-sent events, `data: {…}` and an empty line each. For a chat answer:

    first        delta {"role": "assistant", "content": ""}     finish_reason null
    text         delta {"content": " Mei"}                      finish_reason null
    last         delta {}                                       finish_reason "stop" or "length"
    usage        no choices, the counts of tokens               only where it was asked for
    [DONE]

An answer that calls a tool has no text. Its call comes in one chunk, when it is complete:

    call         delta {"tool_calls": [{"index": 0, "id": "call_…", "function": {…}}]}
    last         delta {}                                       finish_reason "tool_calls"

Clients depend on this order: some hang, or lose the last word, where a reason to finish stands
beside text, where it is "" in place of null, or where no last chunk comes.

Paper: OpenAI's API reference, "Streaming" of chat completions, as its client's types state it.
Differs: log-probabilities are those of the tokens that begin within the text that is shown, so the
tokens of a stop text have none; offsets in the text count from its own beginning. A call has no
log-probabilities, and one that was cut by the limit or by a stop text is not sent at all: the
answer is empty then, and its reason to finish is that of the cut.

Chapter: 17
"""

import codecs
import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, final

from minillm.serve.detokenize import Spelling
from minillm.serve.protocol import Call
from minillm.serve.request import Completion, Event
from minillm.serve.schema import spell
from minillm.serve.tool_calls import split_call

DONE = "data: [DONE]\n\n"
UNLIKELY = -9999.0  # OpenAI's number for a log-probability that JSON has no number for


def server_sent(content: dict[str, Any]) -> str:
    r"""One event of a stream.

    Example:
        >>> server_sent({"text": "村"})
        'data: {"text": "\\u6751"}\n\n'
    """
    return f"data: {json.dumps(content)}\n\n"


@dataclass(kw_only=True)
class _Choice:
    """One answer while it comes; `offsets` says where in its text each token begins."""

    call_name: str = field(default_factory=lambda: f"call_{uuid.uuid4().hex[:24]}")
    answer: Completion = field(default_factory=Completion)
    offsets: list[int] = field(default_factory=list)
    decoder: Any = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))
    n_characters: int = 0
    n_sent: int = 0  # tokens whose log-probabilities were sent


@final
class Reply:
    """The objects that answer a call.

    Args:
        call: what was asked.
        tokenizer: of the model.
        n_prompt_tokens: of all prompts together.
        call_id: the token with which the model begins a call of a tool; None if it calls none.

    Example:
        >>> from minillm.text.tokenizer import Tokenizer
        >>> reply = Reply(Call(chat=True, model="m", prompts=("Hi",)), Tokenizer(()), 2)
        >>> chunks = reply.add(0, Event(0, 33, "!", "length"))
        >>> [chunk["choices"][0]["delta"] for chunk in chunks]
        [{'content': '!'}, {}]
        >>> reply.whole()["choices"][0]["message"]["content"]
        '!'
    """

    def __init__(
        self, call: Call, tokenizer: Spelling, n_prompt_tokens: int, call_id: int | None = None
    ):
        self.call, self.tokenizer, self.n_prompt_tokens = call, tokenizer, n_prompt_tokens
        self.call_id = call_id if call.tools.functions else None
        self.choices = [_Choice() for _ in range(call.n * len(call.prompts))]
        self._head = {
            "id": f"{'chatcmpl' if call.chat else 'cmpl'}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": call.model,
        }

    @property
    def finished(self) -> bool:
        """Whether every choice has its reason to finish."""
        return all(choice.answer.finish_reason for choice in self.choices)

    @property
    def usage(self) -> dict[str, int]:
        """The counts of tokens so far; a token that ended an answer is not counted."""
        n_written = sum(len(choice.answer.tokens) for choice in self.choices)
        return {
            "prompt_tokens": self.n_prompt_tokens,
            "completion_tokens": n_written,
            "total_tokens": self.n_prompt_tokens + n_written,
        }

    # --- all at once ----------------------------------------------------------------------------
    def whole(self) -> dict[str, Any]:
        """The one object, when every choice is finished."""
        choices = []
        for index, choice in enumerate(self.choices):
            text, calls = choice.answer.text, self._tool_calls(choice)
            message = {"role": "assistant", "content": text, "refusal": None}
            if self._is_call(choice):
                message["content"] = None if calls else ""
            if calls:
                message["tool_calls"] = calls
            choices.append(
                {
                    "index": index,
                    **({"message": message} if self.call.chat else {"text": text}),
                    "logprobs": self._logprobs(choice, 0),
                    "finish_reason": "tool_calls" if calls else choice.answer.finish_reason,
                }
            )
        kind = "chat.completion" if self.call.chat else "text_completion"
        return {**self._head, "object": kind, "choices": choices, "usage": self.usage}

    # --- as it comes ----------------------------------------------------------------------------
    def begin(self) -> list[dict[str, Any]]:
        """The first chunks: in a chat, who speaks."""
        role = {"role": "assistant", "content": "", "refusal": None}
        indices = range(len(self.choices)) if self.call.chat else ()
        return [self._chunk(index, {"delta": role}) for index in indices]

    def add(self, index: int, event: Event) -> list[dict[str, Any]]:
        """Take in what one choice was given; the chunks that this makes, perhaps none."""
        choice = self.choices[index]
        choice.answer.add(event)
        if event.token is not None:
            choice.offsets.append(choice.n_characters)
            data = self.tokenizer.decode_bytes([event.token])
            choice.n_characters += len(choice.decoder.decode(data))
        chunks = []
        if event.text and not self._is_call(choice):
            text = {"delta": {"content": event.text}} if self.call.chat else {"text": event.text}
            chunks.append(self._chunk(index, text, self._logprobs(choice, choice.n_sent)))
            choice.n_sent = self._n_shown(choice)
        if event.finish_reason:
            reason = event.finish_reason
            if calls := self._tool_calls(choice):
                numbered = [{"index": n, **each} for n, each in enumerate(calls)]
                chunks.append(self._chunk(index, {"delta": {"tool_calls": numbered}}))
                reason = "tool_calls"
            text = {"delta": {}} if self.call.chat else {"text": ""}
            chunks.append(self._chunk(index, text, finish_reason=reason))
        return chunks

    def end(self) -> list[dict[str, Any]]:
        """The last chunk: the counts of tokens, where they were asked for."""
        chunk = {**self._head, "object": self._chunk_kind, "choices": [], "usage": self.usage}
        return [chunk] if self.call.include_usage else []

    @property
    def _chunk_kind(self) -> str:
        return "chat.completion.chunk" if self.call.chat else "text_completion"

    def _chunk(
        self, index: int, text: dict, logprobs: dict | None = None, finish_reason: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": index, **text, "logprobs": logprobs, "finish_reason": finish_reason}
        usage = {"usage": None} if self.call.include_usage else {}
        return {**self._head, "object": self._chunk_kind, "choices": [choice], **usage}

    # --- calls of tools -------------------------------------------------------------------------
    def _is_call(self, choice: _Choice) -> bool:
        return self.call_id is not None and choice.answer.tokens[:1] == [self.call_id]

    def _tool_calls(self, choice: _Choice) -> list[dict[str, Any]]:
        """The one call that an answer is; none if it is text, or a call that was cut."""
        if not self._is_call(choice):
            return []
        spelling = self.tokenizer.decode_bytes(choice.answer.tokens[1:])
        if (call := split_call(spelling.decode("utf-8", "replace"))) is None:
            return []
        name, arguments = call
        function = {"name": name, "arguments": spell(arguments)}
        return [{"id": choice.call_name, "type": "function", "function": function}]

    # --- log-probabilities ----------------------------------------------------------------------
    def _n_shown(self, choice: _Choice) -> int:
        """How many tokens begin within the text."""
        return sum(offset < len(choice.answer.text) for offset in choice.offsets)

    def _logprobs(self, choice: _Choice, first: int) -> dict[str, Any] | None:
        """Of the tokens from a first one on, in the form of either protocol."""
        if self.call.n_logprobs is None or self._is_call(choice):
            return None
        shown = slice(first, self._n_shown(choice))
        tokens, each = choice.answer.tokens[shown], choice.answer.logprobs[shown]
        if self.call.chat:
            content = [
                self._named(token, logprobs.chosen)
                | {"top_logprobs": [self._named(*pair) for pair in logprobs.top]}
                for token, logprobs in zip(tokens, each, strict=True)
            ]
            return {"content": content, "refusal": None}
        top = [{self._spelled(token): _number(p) for token, p in one.top} for one in each]
        return {
            "tokens": [self._spelled(token) for token in tokens],
            "token_logprobs": [_number(logprobs.chosen) for logprobs in each],
            "top_logprobs": top if self.call.n_logprobs else None,
            "text_offset": choice.offsets[shown],
        }

    def _named(self, token: int, logprob: float) -> dict[str, Any]:
        data = list(self.tokenizer.decode_bytes([token]))
        return {"token": self._spelled(token), "logprob": _number(logprob), "bytes": data}

    def _spelled(self, token: int) -> str:
        """A token's text; where it is a part of a character, its bytes."""
        data = self.tokenizer.decode_bytes([token])
        try:
            return data.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def _number(logprob: float) -> float:
    return max(logprob, UNLIKELY)
