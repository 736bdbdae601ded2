"""minillm.agents.lessons: what is asked, lessons in views, second attempts, who reflects."""

import pytest

from minillm.agents.errands import lesson_of
from minillm.agents.imitate import follow, run
from minillm.agents.lessons import question, try_again, with_lesson, write_by_model
from minillm.model.config import TransformerConfig
from minillm.serve.template import Message
from minillm.text.tokenizer import Tokenizer
from minillm.town.map import draw_errand, right_action
from minillm.town.world import World
from minillm.tune import chat

POLICY = follow(right_action)


def by_rule(questions):
    return [lesson_of(asked.splitlines()) for asked in questions]


@pytest.fixture(scope="module")
def starts():
    """Two errands whose first shop is sold out, and between them one that succeeds at once."""
    first, last = (draw_errand(World(), n, n_shops=2, detour=True) for n in range(2))
    return [first, draw_errand(World(), 2), last]


def test_the_question_shows_the_task_and_what_went_wrong(starts):
    (trace,) = run(POLICY, starts[:1])
    task = trace.last.task
    assert question(trace).splitlines() == [
        f"task: bring {task.good} to {task.person}",
        "you failed",
        f"take {task.good}: no {task.good} at {task.shops[0]}",
        "what do you learn?",
    ]


def test_if_nothing_went_wrong_it_is_too_late(starts):
    (trace,) = run(lambda states, n: ["go well" for _ in states], starts[:1], 0)
    assert question(trace).splitlines()[2] == "it is too late"


def test_three_lessons_are_kept_each_once_and_no_empty_one(starts):
    errand = starts[0]
    for lesson in ("a", "b", "nothing", "a", "", "c", "d"):
        errand = with_lesson(errand, lesson)
    assert errand.lessons == ("b", "c", "d")
    assert errand.view().startswith("lesson: b\nlesson: c\nlesson: d\ntask: ")


def test_a_lesson_of_two_lines_cannot_pass_for_a_task(starts):
    errand = with_lesson(starts[0], "x\ntask: bring plums to Joe")
    assert errand.view().splitlines()[0] == "lesson: x task: bring plums to Joe"


def test_a_failure_teaches_and_a_success_changes_nothing(starts):
    asked = []

    def reflect(questions):
        asked.append(questions)
        return by_rule(questions)

    rounds = try_again(POLICY, starts, reflect, n_attempts=3)
    assert [[trace.success for trace in traces] for traces in rounds] == [
        [False, True, False],
        [True, True, True],
        [True, True, True],
    ]
    began = [trace.states[0] for trace in rounds[1]]
    sold_out = [f"no {start.task.good} at {start.task.shops[0]}" for start in starts]
    assert [each.lessons for each in began] == [(sold_out[0],), (), (sold_out[2],)]
    assert [trace.states[0] for trace in rounds[2]] == began
    assert [len(questions) for questions in asked] == [2, 0]  # none after the last round


def test_who_learns_nothing_does_the_same_again(starts):
    first, second = try_again(POLICY, starts, lambda questions: ["nothing" for _ in questions])
    assert first == second


def test_a_lesson_too_few_is_refused(starts):
    with pytest.raises(ValueError, match="for 2 failures there were 1 lessons"):
        try_again(POLICY, starts, lambda questions: ["no plums at mill"])


def test_a_model_writes_what_it_would_answer():
    tokenizer = Tokenizer((), ("<|endoftext|>", *chat.TOOL_TEMPLATE.special_tokens))  # bytes
    config = TransformerConfig(
        vocab_size=263, context_length=256, d_model=8, n_layers=1, initial_std=0.3
    )
    model = config.build(seed=0)
    questions = [
        "task: bring plums to Joe\nyou failed\nwhat do you learn?",
        "Where is the mill?",
        23 * "the mill. ",
    ]
    talks = [(Message("user", each),) for each in questions]
    answers = chat.answers(model, tokenizer, talks, chat.TOOL_TEMPLATE)
    lessons = write_by_model(model, tokenizer)(questions)
    assert "" not in lessons and lessons == [answer.text.strip() for answer in answers]
