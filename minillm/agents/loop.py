"""The agent loop (智能体循环): perceive, decide, act, and again.

    state  →  view       task: bring plums to Joe, you are at: mill, …          perceive
              thought    I need plums from market square, by way of bridge.     decide
              call       {"name":"go","arguments":{"place":"bridge"}}
    state  ←  result     go bridge: you lost your way                           act
    …                                                                           until it is done

A *policy* (策略) decides what to do; policy and loop together are an *agent* (智能体). A model goes
from a view to a thought and a call (`by_model`), and `policy` reads its calls as actions, so that
it can act where `minillm.agents.imitate.run` acts.

**Closed loop and open loop** (闭环, 开环). In a closed loop each decision follows a fresh view. In
an open loop all are made at the beginning: `plan` lets the policy act in a copy of the world in
which nothing fails, and `carry_out` then does the same in the real one, without looking. The plan
is as good as the policy can make it. What it lacks is only to see what happens.

**The trace** (轨迹) is a file with a JSON object a line, written line by line. So whatever ends the
program, all that happened before stands there.

Paper: Yao et al. 2022, "ReAct", arXiv:2210.03629, section 2 (thought, action and observation in
turns). From memory.
Differs: each decision reads the present view alone, in place of everything so far.

Chapter: 29
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Protocol, final

from minillm.agents.imitate import Policy, State, Trace, run
from minillm.agents.tools import Toolbox
from minillm.lab.text_file import parse_json, read_text
from minillm.model.transformer import Transformer
from minillm.serve.constrain import Constraint, Spelling, json_schema
from minillm.serve.engine import Engine, EngineConfig
from minillm.serve.request import Request
from minillm.serve.sample import SampleConfig
from minillm.serve.template import ChatTemplate, Encoder, Message, encode
from minillm.tune.chat import TOOL_TEMPLATE, Conversation

OK = "ok"  # the result of an action that did what it should
UNREADABLE = "unreadable call"  # what an action begins with that no world can do
AT_ONCE = 32  # views that a model reads together
TOKENS_OF_A_STEP = 4096  # that it reads at once: all of these views, so that none waits
TOKENS_OF_A_TEXT = 64  # a thought or a call, at most


class Remarking(State, Protocol):
    """A state that says what went wrong."""

    @property
    def remark(self) -> str:
        """Of the last action; empty if nothing went wrong."""


class Tokens(Encoder, Spelling, Protocol):
    """A tokenizer with special tokens."""

    special_ids: dict[str, int]


@final
@dataclass(frozen=True)
class Decision:
    """What an agent thinks, and what it calls.

    Args:
        thought: in words.
        call: JSON, see `minillm.agents.tools`.
    """

    thought: str
    call: str


@final
@dataclass(frozen=True)
class Event:
    """One turn of the loop.

    Args:
        view: what the agent read.
        thought, call: what it wrote.
        result: "ok", or what went wrong.
        valid: whether the call was one that a tool could read.
    """

    view: str
    thought: str
    call: str
    result: str
    valid: bool = True


#: What an agent does: views, each of another episode, to as many decisions.
Decide = Callable[[Sequence[str]], list[Decision]]


# --- the loop -------------------------------------------------------------------------------------
def policy(
    decide: Decide, toolbox: Toolbox, note: Callable[[Event], None] = lambda event: None
) -> Policy:
    """What decides as a policy: it reads views, its calls are checked, and become actions.

    States never change: `state.after` only looks ahead, at what the action will lead to. It is
    `minillm.agents.imitate.run` that goes on to the next state.

    A call that no tool can read costs a step all the same, and changes nothing.

    Args:
        decide: the agent.
        toolbox: gives for a call the action that it stands for.
        note: is given each event.
    """

    def act(states: Sequence[Remarking], n_actions: int) -> list[str]:
        # 1. perceive
        views = [state.view() for state in states]
        # 2. decide
        decisions = decide(views)
        # 3. act
        actions = []
        for state, view, decision in zip(states, views, decisions, strict=True):
            action = toolbox.call(decision.call)
            actions.append(action.text if action.ok else f"{UNREADABLE} {decision.call}")
            remark = state.after(action.text).remark if action.ok else action.text
            note(Event(view, decision.thought, decision.call, remark or OK, action.ok))
        return actions

    return act


def plan(policy: Policy, safe_starts: Sequence[State], most_actions: int) -> list[tuple[str, ...]]:
    """The open loop's plans: what the policy does in a world where nothing fails.

    Args:
        policy: that acts.
        safe_starts: the starts, with failures switched off.
        most_actions: of a plan.
    """
    return [trace.actions for trace in run(policy, safe_starts, most_actions)]


def carry_out(actions: Iterable[str], start: State) -> Trace:
    """Do one action after the other, whatever happens, until all are done or the episode ends."""
    states, taken = [start], []
    for action in actions:
        if states[-1].done:
            break
        taken.append(action)
        states.append(states[-1].after(action))
    return Trace(tuple(states), tuple(taken))


# --- a model as the agent -------------------------------------------------------------------------
class Write(Protocol):
    """What is written after conversations, each by itself."""

    def __call__(
        self,
        talks: Sequence[Conversation],
        begin: Sequence[int] = (),
        constraint: Constraint | None = None,
    ) -> list[str]:
        """A text for each.

        Args:
            talks: whose next message is to be written.
            begin: tokens that the message begins with; they are not in the text.
            constraint: on the text.
        """


def writer(model: Transformer, tokenizer: Tokens, template: ChatTemplate = TOOL_TEMPLATE) -> Write:
    """A model that writes the next message of many conversations side by side, greedily.

    A text is cut after 64 tokens, or where the context has no more room.

    Args:
        model: tuned to conversations.
        tokenizer: of it.
        template: of the conversations.
    """
    stop_ids = template.stop_ids(tokenizer)
    engine = Engine(model, tokenizer, EngineConfig(max_batch=AT_ONCE, step_tokens=TOKENS_OF_A_STEP))

    def write(
        talks: Sequence[Conversation],
        begin: Sequence[int] = (),
        constraint: Constraint | None = None,
    ) -> list[str]:
        prompts = [(*encode(talk, template, tokenizer), *begin) for talk in talks]
        room = model.config.context_length
        requests = [
            Request(
                prompt=prompt,
                n_tokens=max(1, min(TOKENS_OF_A_TEXT, room - len(prompt))),
                config=SampleConfig(temperature=0),
                stop_ids=stop_ids,
                constraint=constraint,
            )
            for prompt in prompts
        ]
        return [tokenizer.decode(each.tokens).strip() for each in engine.run(requests)]

    return write


def by_model(
    model: Transformer,
    tokenizer: Tokens,
    toolbox: Toolbox,
    *,
    template: ChatTemplate = TOOL_TEMPLATE,
    constrained: bool = True,
) -> Decide:
    """A model as an agent: it writes a thought, and then a call, greedily.

    Args:
        model: tuned for this, such as `agent-1m`.
        tokenizer: of it.
        toolbox: what can be called.
        template: of its conversations, with a token that begins a call.
        constrained: whether a call can only be JSON that fits the schema of a tool.

    Raises:
        ValueError: a template without calls; a view that does not fit into the context.
    """
    if template.call_token is None:
        raise ValueError("an agent's template must have a token that begins a call; it has none")
    call_id = tokenizer.special_ids[template.call_token]
    schema = None
    if constrained:
        stop_ids = template.stop_ids(tokenizer)
        schema = json_schema(toolbox.schema(), tokenizer, stop_ids, model.config.vocab_size)
    write = writer(model, tokenizer, template)

    def decide(views: Sequence[str]) -> list[Decision]:
        # 1. the view is read, and a thought is written
        talks = [(Message("user", view),) for view in views]
        thoughts = write(talks)
        # 2. both are read, and a call is written
        talks = [
            (*talk, Message("assistant", thought))
            for talk, thought in zip(talks, thoughts, strict=True)
        ]
        calls = write(talks, (call_id,), schema)
        return [Decision(*pair) for pair in zip(thoughts, calls, strict=True)]

    return decide


# --- the trace ------------------------------------------------------------------------------------
def in_words(event: Event) -> str:
    """An event for people, indented below what the agent saw.

    Example:
        >>> print(in_words(Event("you are at: mill", "I need plums.", "{…}", "ok")))
        you are at: mill
          thought  I need plums.
          call     {…}
          result   ok
    """
    parts = ("thought", event.thought), ("call", event.call), ("result", event.result)
    lines = [f"  {name:<9}{' '.join(text.split())}" for name, text in parts]
    return "\n".join([event.view, *lines])


def line_of(event: Event) -> str:
    """An event as a line of a trace."""
    return json.dumps(asdict(event), ensure_ascii=False) + "\n"


def read_trace(path: str | PathLike) -> Iterator[Event]:
    """The events of a trace.

    Raises:
        ValueError: a line that is no event, with its number.
    """
    lines = read_text(path).split("\n")  # `splitlines` also cuts where JSON does not end
    for number, line in enumerate(lines if lines[-1] else lines[:-1], 1):
        try:
            event = Event(**parse_json(line))
            if [type(value) for value in asdict(event).values()] != [str] * 4 + [bool]:
                raise TypeError
        except (ValueError, TypeError):
            raise ValueError(
                "a trace must have on each line a JSON object with view, thought, call, result "
                f"and valid; line {number} of {path} is {line[:60]!r}"
            ) from None
        yield event
