"""Lessons (教训): after a failure the agent writes a sentence, and reads it at the next attempt.

    attempt 1   … take plums: no plums at mill … and then it is too late
    question    task: bring plums to Joe
                you failed
                take plums: no plums at mill
                what do you learn?
    lesson      no plums at mill                        the agent writes it
    attempt 2   lesson: no plums at mill                its views begin with it
                task: bring plums to Joe …              the same errand, from its start

This is *reflection* (反思). No weight changes: all that the agent takes along is a sentence. So
people can read what was learned, and another sentence can be put in its place to see what it did.

Paper: Shinn et al. 2023, "Reflexion: Language Agents with Verbal Reinforcement Learning",
arXiv:2303.11366, section 3 (actor, evaluator, self-reflection, and a memory of one to three
experiences). Abstract read, the rest from memory.
Differs: the evaluator is the town, which knows whether an errand succeeded; who reflects is shown
what went wrong, and not the whole trace; a lesson is one short sentence, whose words stand among
what went wrong.

Chapter: 29
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from minillm.agents.errands import NOTHING, TOO_LATE, question_of
from minillm.agents.imitate import Policy, Trace, run
from minillm.agents.loop import Tokens, writer
from minillm.model.transformer import Transformer
from minillm.serve.template import ChatTemplate, Message
from minillm.town.map import Errand
from minillm.tune.chat import TOOL_TEMPLATE

MOST_ACTIONS = 100  # of an attempt: more than an errand has time for
MOST_LESSONS = 3  # that a view begins with; the oldest go first

#: Who reflects: questions about failures, to a lesson each.
Reflect = Callable[[Sequence[str]], list[str]]


def question(trace: Trace) -> str:
    """What is asked after an errand that failed: the task, and what went wrong.

    Args:
        trace: of the errand. If nothing in it went wrong, what went wrong is that it is too late.
    """
    remarks = [state.remark for state in trace.states if state.remark]
    return question_of(str(trace.last.task), remarks or [TOO_LATE])


def with_lesson(start: Errand, lesson: str) -> Errand:
    """The errand with one more lesson in its views.

    Args:
        start: with the lessons so far.
        lesson: that nothing is to be learned, or what is there already, is left out.

    Example:
        >>> from minillm.town.map import draw_errand
        >>> from minillm.town.world import World
        >>> errand = with_lesson(draw_errand(World(), 1), "no noodles at tea house")
        >>> errand.view().splitlines()[0]
        'lesson: no noodles at tea house'
        >>> with_lesson(errand, "nothing") == errand
        True
    """
    lesson = " ".join(lesson.split())  # one line, that it cannot pass for another line of the view
    if lesson in ("", NOTHING, *start.lessons):
        return start
    return replace(start, lessons=(*start.lessons, lesson)[-MOST_LESSONS:])


def try_again(
    policy: Policy, starts: Sequence[Errand], reflect: Reflect, n_attempts: int = 2
) -> list[list[Trace]]:
    """Several rounds of the same errands, with a lesson after each failure.

    Args:
        policy: the agent.
        starts: the errands; one that succeeded begins the next round as it began the last.
        reflect: writes the lessons, of all failures of a round together.
        n_attempts: rounds.

    Returns:
        The traces of each round. Their first states show with which lessons they began.

    Raises:
        ValueError: another number of lessons than of failures.
    """
    rounds: list[list[Trace]] = []
    starts = list(starts)
    for number in range(n_attempts):
        # 1. act
        rounds.append(run(policy, starts, MOST_ACTIONS))
        if number == n_attempts - 1:
            break
        failed = [n for n, trace in enumerate(rounds[-1]) if not trace.success]
        # 2. reflect on what failed
        lessons = reflect([question(rounds[-1][n]) for n in failed])
        if len(lessons) != len(failed):
            raise ValueError(
                f"who reflects must write a lesson for each failure; for {len(failed)} failures "
                f"there were {len(lessons)} lessons"
            )
        # 3. remember
        for n, lesson in zip(failed, lessons, strict=True):
            starts[n] = with_lesson(starts[n], lesson)
    return rounds


def write_by_model(
    model: Transformer, tokenizer: Tokens, template: ChatTemplate = TOOL_TEMPLATE
) -> Reflect:
    """A model that reflects: it writes the lesson as the answer to the question.

    Args:
        model: tuned for this, such as `agent-1m`.
        tokenizer: of it.
        template: of its conversations.
    """
    write = writer(model, tokenizer, template)
    return lambda questions: write([(Message("user", asked),) for asked in questions])
