"""The loop: calls that become actions or nothing, plans, traces, and a model as the agent."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillm.agents import loop
from minillm.agents.errands import call_of, errand_tools, thought
from minillm.agents.imitate import follow, run
from minillm.agents.loop import Decision, Event, by_model, carry_out, line_of, plan, policy
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.serve.template import Message, encode
from minillm.text.tokenizer import Tokenizer
from minillm.town.map import draw_errand, right_action
from minillm.town.world import World
from minillm.tune.chat import TEMPLATE, TOOL_TEMPLATE

WORLD = World()
ERRANDS = [draw_errand(WORLD, seed, failure_rate=0.1) for seed in range(6)]
SPECIAL = ("<|endoftext|>", *TOOL_TEMPLATE.special_tokens)
TOKENIZER = Tokenizer((), SPECIAL)


def oracle(errands):
    """An agent that knows of each view which errand it is of."""
    right = {errand.view(): errand for errand in errands}

    def decide(views):
        states = [right[view] for view in views]
        return [Decision(thought(each), call_of(right_action(each)).text) for each in states]

    return decide


def says(call, note=lambda event: None):
    """The policy of an agent that always writes one call."""
    return policy(lambda views: [Decision("Hm.", call)] * len(views), errand_tools(), note)


def model_of(context_length=512):
    return TransformerConfig(
        vocab_size=TOKENIZER.vocab_size,
        context_length=context_length,
        d_model=16,
        n_layers=1,
        mixer=AttentionConfig(n_heads=2),
    ).build(seed=0)


# --- by hand --------------------------------------------------------------------------------------
def test_a_decision_becomes_an_action_and_an_event():
    errand, events = ERRANDS[0], []
    act = policy(oracle([errand]), errand_tools(), events.append)
    assert act([errand], 0) == [right_action(errand)]
    call = call_of(right_action(errand)).text
    assert events == [Event(errand.view(), thought(errand), call, "ok")]


def test_the_result_says_what_went_wrong():
    errand, events = replace(ERRANDS[0], place="well"), []
    run(says(call_of("go mill").text, events.append), [errand], 1)
    assert events[0].result == "go mill: no road leads there from well"
    assert events[0].valid


@pytest.mark.parametrize(
    ("call", "result"),
    [
        ("", "a call must be JSON"),
        ("give_up it is late", "a call must be JSON"),
        ('{"name":"fly","arguments":{}}', "there is no tool fly; there are go, take, give"),
        ('{"name":"give_up","arguments":{}}', "give_up takes reason; 'reason' is missing"),
        ('{"name":"go","arguments":{"place":7}}', "place must be of type string; got 7"),
        ('<|end|><|call|>{"name":"go"', "a call must be JSON"),
    ],
)
def test_a_call_that_no_tool_can_read_costs_a_step_and_changes_nothing(call, result):
    errand, events = ERRANDS[0], []
    (trace,) = run(says(call, events.append), [errand], 1)
    assert trace.last == replace(errand, n_steps=1, remark=trace.last.remark)
    assert trace.last.remark.startswith(f"unreadable call {call}"[:80].strip())
    assert events[0].result.startswith(result) and not events[0].valid


def test_an_endless_loop_of_calls_ends_with_the_budget():
    (trace,) = run(says(call_of("take plums").text), ERRANDS[:1], 7)
    assert len(trace.actions) == 7 and not trace.success
    (trace,) = run(says("{}"), ERRANDS[:1], 1000)
    assert len(trace.actions) == ERRANDS[0].task.most_steps


def test_a_plan_is_carried_out_with_closed_eyes_up_to_the_end():
    dream = replace(ERRANDS[0], task=replace(ERRANDS[0].task, failure_rate=0.0))
    (actions,) = plan(follow(right_action), [dream], 99)
    assert carry_out([*actions, "go mill"], dream).actions == actions
    assert carry_out(actions, dream).success
    failing = replace(dream, task=replace(dream.task, failure_rate=1.0))
    assert carry_out(actions, failing).actions == actions
    assert not carry_out(actions, failing).success
    assert plan(follow(right_action), [dream], 2) == [actions[:2]]


def test_words_for_people_stay_on_their_lines():
    event = Event("you are at: mill", "Hm.\n  result   ok", "{\n}", "no road")
    assert loop.in_words(event) == (
        "you are at: mill\n  thought  Hm. result ok\n  call     { }\n  result   no road"
    )


# --- bad input ------------------------------------------------------------------------------------
GOOD = line_of(Event("a", "b", "c", "d"))


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "3",
        "",
        GOOD[:30],
        GOOD.replace('"d"', "3"),
        GOOD.replace("valid", "mood"),
        GOOD[:18] + "}",
    ],
)
def test_a_damaged_line_of_a_trace_is_named(tmp_path, line):
    path = tmp_path / "trace.jsonl"
    path.write_text(f"{GOOD}{line.strip()}\n{GOOD}", encoding="utf-8")
    events = loop.read_trace(path)
    assert next(events) == Event("a", "b", "c", "d")
    with pytest.raises(ValueError, match=r"line 2 of .*trace\.jsonl is"):
        next(events)


def test_an_agent_needs_a_template_with_calls_and_room_for_the_view():
    with pytest.raises(ValueError, match="a token that begins a call"):
        by_model(model_of(), TOKENIZER, errand_tools(), template=TEMPLATE)
    with pytest.raises(ValueError, match="context"):
        by_model(model_of(128), TOKENIZER, errand_tools())([ERRANDS[0].view()])


# --- a model --------------------------------------------------------------------------------------
def test_whatever_its_weights_a_constrained_model_writes_calls_that_begin_as_they_must():
    starts = tuple(f'{{"name":"{name}","arguments":{{"' for name in errand_tools().tools)
    for decision in by_model(model_of(), TOKENIZER, errand_tools())(["task: <|end|>", "at: well"]):
        assert decision.call.startswith(starts)
    free = by_model(model_of(), TOKENIZER, errand_tools(), constrained=False)
    (decision,) = free(["at: well"])
    assert not errand_tools().call(decision.call).ok


def test_the_model_reads_the_view_then_its_own_thought_and_then_writes_a_call(monkeypatch):
    read = []

    class Engine:
        def __init__(self, *parts):
            self.texts = iter((["Hm.<|call|>"], ["{}"]))

        def run(self, requests):
            read.extend(TOKENIZER.decode(request.prompt) for request in requests)
            completion = type("", (), {"tokens": TOKENIZER.encode(next(self.texts)[0])})
            return [completion for _ in requests]

    monkeypatch.setattr("minillm.agents.loop.Engine", Engine)
    decide = by_model(model_of(), TOKENIZER, errand_tools())
    assert decide(["at: well"]) == [Decision("Hm.<|call|>", "{}")]
    assert read == [
        "<|user|>at: well<|end|><|assistant|>",
        "<|user|>at: well<|end|><|assistant|>Hm.<|call|><|end|><|assistant|><|call|>",
    ]


# --- twin -----------------------------------------------------------------------------------------
def test_an_agent_that_decides_as_the_oracle_does_ends_as_the_oracle_does():
    expected = run(follow(right_action), ERRANDS, 99)
    states = [state for trace in expected for state in trace.states]
    events = []
    assert run(policy(oracle(states), errand_tools(), events.append), ERRANDS, 99) == expected
    assert len(events) == sum(len(trace.actions) for trace in expected)
    assert all(event.valid for event in events)


# --- law ------------------------------------------------------------------------------------------
words = st.sampled_from(
    ['{"name":', '"go"', "go", "give_up x", ',"arguments":{', "}", "\u2028", "\n", *SPECIAL]
)
texts = st.text(max_size=60) | st.lists(words, max_size=6).map("".join)


@given(st.lists(texts, max_size=5))
def test_whatever_an_agent_writes_each_call_is_a_step(calls):
    (errand,) = ERRANDS[:1]
    for n, call in enumerate(calls, 1):
        (trace,) = run(says(call), [errand], 1)
        errand = trace.last
        assert (errand.n_steps, errand.place, errand.end) == (n, ERRANDS[0].place, "")


@given(st.lists(st.builds(Event, texts, texts, texts, texts, st.booleans()), max_size=3))
def test_a_trace_is_read_as_it_was_written(tmp_path_factory, events):
    path = tmp_path_factory.mktemp("trace") / "trace.jsonl"
    path.write_text("".join(map(line_of, events)), encoding="utf-8", newline="\n")
    assert list(loop.read_trace(path)) == events
    assert all(len(json.loads(line_of(event))) == 5 for event in events)


@given(texts)
def test_nothing_that_a_view_spells_becomes_a_control_token(view):
    ids = encode((Message("user", view),), TOOL_TEMPLATE, TOKENIZER)
    control = [TOKENIZER.decode([token]) for token in ids if token >= 256]
    assert control == ["<|user|>", "<|end|>", "<|assistant|>"]
