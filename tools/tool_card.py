"""What a model that calls tools gets right, for its card: sums, look-ups, when to call, and how.

Chapter: app
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import final

from minillm.agents.tools import Toolbox, read_call
from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.model.transformer import Transformer
from minillm.recipes.calling import MOST_CALLS, with_calls
from minillm.recipes.look_ups import LookUpSource
from minillm.recipes.look_ups import Question as LookUp
from minillm.recipes.tool_turns import right_calls
from minillm.recipes.town_tools import town_toolbox
from minillm.serve.engine import Engine, EngineConfig
from minillm.serve.request import Request
from minillm.serve.sample import SampleConfig
from minillm.serve.template import ChatTemplate, Message, encode
from minillm.town.sums import Question as Sum
from minillm.town.sums import SumSource
from minillm.town.world import World
from tools.life_card import LANGUAGES

TOWN = "another"  # whose facts nobody was trained on
N_BLOCKS, AT_ONCE, N_TOKENS = 4, 64, 80  # blocks of 64 questions; tokens of a message
WAYS = ("free", "constrained", "no calls")


@final
@dataclass(frozen=True, kw_only=True)
class Asker:
    """A model with its tools, which answers questions greedily.

    Args:
        model, tokenizer, template, toolbox: that belong together.
    """

    model: Transformer
    tokenizer: JsonTokenizer
    template: ChatTemplate
    toolbox: Toolbox

    def talks(self, texts: Sequence[str], way: str = "free") -> list[list[Message]]:
        """The conversation that follows each question.

        Args:
            texts: questions.
            way: "free", "constrained" (calls keep to their schema), or "no calls".

        Returns:
            Messages. A last one that is a call means that it was one too many.
        """
        call_id = self.tokenizer.special_ids[self.template.call_token]
        talks = [[Message("user", text)] for text in texts]
        going = [*range(len(texts))]
        for _ in range(MOST_CALLS):
            engine = Engine(self.model, self.tokenizer, EngineConfig(max_batch=AT_ONCE))
            done = engine.run([self._request(talks[number], way) for number in going])
            next_round = []
            for number, completion in zip(going, done, strict=True):
                if completion.tokens[:1] != [call_id]:
                    ended = completion.finish_reason == "stop"
                    text = completion.text if ended else ""
                    talks[number].append(Message("assistant", text))
                    continue
                call = self.tokenizer.decode(completion.tokens[1:])
                result = self.toolbox.call(call).text
                talks[number] += [Message("call", call), Message("result", result)]
                next_round.append(number)
            room = self.model.context_length - N_TOKENS
            going = [number for number in next_round if len(self._ids(talks[number])) <= room]
        return talks

    def _ids(self, messages: Sequence[Message]) -> tuple[int, ...]:
        return encode(messages, self.template, self.tokenizer)

    def _request(self, messages: Sequence[Message], way: str) -> Request:
        special = {self.tokenizer.special_ids[each] for each in self.template.special_tokens}
        call_id = self.tokenizer.special_ids[self.template.call_token]
        no_token = (call_id,) if way == "no calls" else ()
        request = Request(
            prompt=self._ids(messages),
            n_tokens=N_TOKENS,
            config=SampleConfig(temperature=0, suppress_tokens=no_token),
            stop_ids=tuple(special),
        )
        if way == "constrained":
            parts = self.model, self.tokenizer, self.template, self.toolbox
            return with_calls(request, *parts)
        return replace(request, stop_ids=tuple(special - {call_id}))


def sums(language: str, *, held_out: bool) -> list[Sum]:
    """Questions about the town with numbers."""
    source = SumSource(World(TOWN), language)
    return [q for n in range(N_BLOCKS) for q in source.block(n, "card", held_out=held_out)]


def look_ups(language: str) -> list[LookUp]:
    """Questions about the people of the town."""
    source = LookUpSource(World(TOWN), language)
    return [question for n in range(N_BLOCKS) for question in source.block(n, "card")]


def n_calls(talk: Sequence[Message]) -> int:
    """How many calls there are in a conversation."""
    return sum(message.role == "call" for message in talk)


def is_right(question: Sum | LookUp, talk: Sequence[Message]) -> bool:
    """Whether the answer is the right one."""
    return talk[-1] == Message("assistant", question.answer)


def f1(questions: Sequence[Sum], talks: Sequence[Sequence[Message]]) -> float:
    """Harmonic mean of precision and recall of the calls."""
    pairs = [(bool(right_calls(q)), n_calls(t) > 0) for q, t in zip(questions, talks, strict=True)]
    both = pairs.count((True, True))
    return 2 * both / max(1, sum(need + called for need, called in pairs))


def n_readable(asker: Asker, talks: Sequence[Sequence[Message]]) -> tuple[int, int]:
    """Calls that a tool can read, and all calls."""
    calls = [each.content for talk in talks for each in talk if each.role == "call"]
    n_good = 0
    for text in calls:
        try:
            call = read_call(text)
            asker.toolbox.tools[call.name].check(call.arguments)
            n_good += 1
        except (KeyError, ValueError):
            continue
    return n_good, len(calls)


def tables(
    model: Transformer, tokenizer: JsonTokenizer, template: ChatTemplate, requests: Sequence[str]
) -> str:
    """What the card says of tools.

    Args:
        model, tokenizer, template: of the card.
        requests: that need no tool.
    """
    asker = Asker(
        model=model, tokenizer=tokenizer, template=template, toolbox=town_toolbox(World(TOWN))
    )
    readable = {way: [0, 0] for way in ("free", "constrained")}

    def run_all(questions: Sequence[Sum | LookUp], way: str) -> list[list[Message]]:
        talks = asker.talks([question.text for question in questions], way)
        if way in readable:
            for place, n in enumerate(n_readable(asker, talks)):
                readable[way][place] += n
        return talks

    # 1. sums
    rows = []
    for held_out, pairs in ((False, "pairs it has seen"), (True, "pairs it has never seen")):
        for language, name in LANGUAGES.items():
            every = sums(language, held_out=held_out)
            products = [question for question in every if question.needs_call]
            _, talks = (run_all(every, way) for way in ("free", "constrained"))
            cells = [
                _share(map(is_right, products, run_all(products, "no calls"))),
                *(
                    _share(
                        is_right(q, t)
                        for q, t in zip(every, talks, strict=True)
                        if q.needs_call is need
                    )
                    for need in (True, False)
                ),
                f"{f1(every, talks):.3f}",
            ]
            rows.append(f"| {pairs}, {name} | " + " | ".join(cells) + " |")
    # 2. look-ups
    hops = []
    for language, name in LANGUAGES.items():
        every = look_ups(language)
        _, talks = (run_all(every, way) for way in ("free", "constrained"))
        cells = [
            _share(is_right(q, t) for q, t in zip(every, talks, strict=True) if q.kind == kind)
            for kind in ("one hop", "two hops", "stranger")
        ]
        hops.append(f"| {name} | " + " | ".join(cells) + " |")
    # 3. calls where none is needed
    needless = _share(n_calls(talk) > 0 for talk in asker.talks(requests))
    free, constrained = (f"{good:,} of {n:,}" for good, n in readable.values())
    return f"""
**Sums.** Of {64 * N_BLOCKS} questions with numbers in each language (`minillm.town.sums`) half
need a calculator: products of two numbers with three digits. Right answers to these without calls,
to these with calls, and to the others, for which no call is needed; and F1 of when it calls. A
question has a statement and what is asked about it. Some of these pairs were kept out of its
training, though both parts were in it.

| questions | products, no calls | products, with calls | others | F1 of calls |
|---|---|---|---|---|
{chr(10).join(rows)}

**Look-ups.** Of {64 * N_BLOCKS} questions in each language about people of a town in which it was
not trained (`minillm.recipes.look_ups`, `World("{TOWN}")`), right answers: with one look-up, with
two, of which the second needs the result of the first, and about people who are not there.

| questions | one hop | two hops | strangers |
|---|---|---|---|
{chr(10).join(hops)}

**Calls.** Of the calls in all these questions, tools can read {free} that were written freely. With
the constraint of the tools' schema, as in `minillm chat`, it is {constrained}. Of
{len(requests):,} requests, which need no tool, {needless} begin with a call.
"""


def _share(hits: Iterable[bool]) -> str:
    hits = [*hits]
    return f"{100 * sum(hits) / len(hits):.1f} %"
