"""`minillm chat` with tools: the model calls, the tool runs, and the model goes on.

    > What is 347 times 582?
    (calculate 347 * 582 → 201954)             on standard error
    201954

The first token of what the model writes decides. After `<|call|>` only a call that its tools can
read may follow (`minillm.serve.constrain`), so its name and its arguments are always such as there
are. Any other first token begins the answer, which is shown as it comes.

**What a tool returns is text.** It may spell `<|end|>` or `<|assistant|>`; the model reads letters
(`minillm.serve.template`). What the text says may mislead the model all the same.

Chapter: app
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from minillm.agents.tools import Toolbox, converse, read_call
from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.model.transformer import Transformer
from minillm.serve.constrain import json_schema
from minillm.serve.engine import Engine, EngineConfig
from minillm.serve.request import Completion, Request
from minillm.serve.template import ChatTemplate, Message
from minillm.serve.tool_calls import AnyText, CallOrText

MOST_CALLS = 4  # in one turn
MOST_SHOWN = 200  # characters of a line about a call


End = Literal["stop", "length", "interrupt"]


class Answer(NamedTuple):
    """What the model wrote.

    Args:
        text: without its end.
        end: "stop", the model ended it; "length", the limit did; "interrupt", a person did.
        called: calls on the way to it and their results, in turns.
    """

    text: str
    end: End
    called: tuple[str, ...] = ()


def reply(
    model: Transformer,
    tokenizer: JsonTokenizer,
    template: ChatTemplate,
    toolbox: Toolbox,
    messages: Sequence[Message],
    request_of: Callable[[Sequence[Message]], Request],
    show: Callable[[str], None],
    note: Callable[[str], None],
) -> Answer:
    """The model's answer, with the calls that it makes on its way; Ctrl-C ends it.

    Args:
        model, tokenizer, template: that belong together; the template has a call token.
        toolbox: what can be called.
        messages: what was said so far.
        request_of: what the model reads and how it writes on; no token where its context is full.
        show: is given the answer, piece by piece.
        note: is given a line for each call.
    """
    call_id = tokenizer.special_ids[template.call_token]
    ends: list[End] = ["stop"]

    def write(messages: Sequence[Message]) -> Message:
        if messages[-1].role == "result":
            note(line_of(*(each.content for each in messages[-2:])))
        request = request_of(messages)
        if request.n_tokens < 1:
            ends.append("length")
            return Message("assistant", "")
        completion = Completion()
        try:
            request = with_calls(request, model, tokenizer, template, toolbox)
            for piece in _pieces(model, tokenizer, request, completion):
                if completion.tokens[:1] != [call_id]:
                    show(piece)
            ends.append(completion.finish_reason)
        except KeyboardInterrupt:
            ends.append("interrupt")
        if completion.tokens[:1] != [call_id]:
            return Message("assistant", completion.text)
        if ends[-1] == "interrupt":
            return Message("assistant", "")
        return Message("call", tokenizer.decode(completion.tokens[1:]))

    try:
        new = converse(write, messages, toolbox, most_calls=MOST_CALLS)[len(messages) :]
    except KeyboardInterrupt:  # while a tool ran
        return Answer("", "interrupt")
    *called, answer = (each.content for each in new)
    if len(called) > 2 * MOST_CALLS:  # which the model did not write
        show(answer)
    return Answer(answer, ends[-1], tuple(called))


def with_calls(
    request: Request,
    model: Transformer,
    tokenizer: JsonTokenizer,
    template: ChatTemplate,
    toolbox: Toolbox,
) -> Request:
    """A request for an answer, or for a call that a tool can read.

    Args:
        request: of an answer; all special tokens of the template may end it.
        model, tokenizer, template, toolbox: as for `reply`.
    """
    size, call_id = model.config.vocab_size, tokenizer.special_ids[template.call_token]
    calls = json_schema(toolbox.schema(), tokenizer, template.stop_ids(tokenizer), size)
    return replace(
        request,
        stop_ids=tuple(each for each in request.stop_ids if each != call_id),
        constraint=CallOrText(call_id, calls, AnyText(size, call_id)),
    )


def _pieces(
    model: Transformer, tokenizer: JsonTokenizer, request: Request, completion: Completion
) -> Iterator[str]:
    """The text of an answer as it comes; the completion takes all in."""
    engine = Engine(model, tokenizer, EngineConfig(max_batch=1))
    engine.submit(request)
    while engine.has_work:
        for event in engine.step():
            completion.add(event)
            yield event.text


def line_of(call: str, result: str) -> str:
    """A call and its result in one line, for people.

    Example:
        >>> line_of('{"name":"calculate","arguments":{"expression":"3 * 4"}}', "12")
        'calculate 3 * 4 → 12'
    """
    try:
        name, arguments = (content := read_call(call)).name, content.arguments.values()
        call = " ".join([name, *map(str, arguments)])
    except ValueError:  # cut off by the limit
        pass
    return " ".join(f"{call} → {result}".split())[:MOST_SHOWN]
