"""Schedules of a pipeline (流水线并行, pipeline parallelism): in which order a stage does its work.

A model of many blocks is cut into p **stages**, one a rank. A stage must wait for the one before
it, so a single batch would keep one rank busy and p - 1 idle. A batch is therefore cut into m
**micro-batches** (微批次), which follow each other through the stages. Each of them passes every
stage twice: **forward**, from the first stage to the last, and **backward**, from the last to the
first. The order in which a stage does these 2 m actions is its **schedule**. For p = 2 and m = 3,
where a backward pass takes twice as long:

    GPipe     stage 0    F0 F1 F2 .. .. .. B0 B0 B1 B1 B2 B2
              stage 1    .. F0 F1 F2 B0 B0 B1 B1 B2 B2 .. ..
    1F1B      stage 0    F0 F1 .. .. B0 B0 F2 B1 B1 .. B2 B2
              stage 1    .. F0 B0 B0 F1 B1 B1 F2 B2 B2 .. ..

GPipe does all forward passes first. 1F1B (one forward, one backward) begins each backward pass as
soon as it can. The idle time is the **bubble** (流水线气泡). Its share of all ranks' time is the
same for both, where all stages are equally fast and messages take no time:

    bubble = (p - 1) / (m + p - 1)

Where messages take time, 1F1B waits longer, since each turn then waits for a message and its
answer: `simulate` shows it.

What differs is memory. From its forward to its backward pass a micro-batch's activations must be
kept. GPipe keeps all m at once; stage s of 1F1B keeps at most p - s, however large m is.

Nothing here starts a process: `simulate` says when each action would begin and end.

Paper: Huang et al. 2019, "GPipe", arXiv:1811.06965, section 2.3 and figure 2 (bubble; theirs to
ours: K is p, M is m). Harlap et al. 2018, "PipeDream", arXiv:1806.03377 (1F1B). Narayanan et al.
2021, arXiv:2104.04473, section 2.2 (1F1B with a flush: a step's gradients are complete before the
weights change). The count of first forward passes is that of Megatron-LM's code; the numbers of
sections are from memory.
Differs: GPipe here does the backward passes in the order of the forward passes, theirs in reverse;
recomputing activations is left out. Narayanan et al. divide the idle time by the time of work, so
that their bubble is (p - 1) / m.

Chapter: 16
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, final


class Action(NamedTuple):
    """One pass of one micro-batch through one stage.

    Args:
        kind: "forward" or "backward".
        micro_batch: its number, from 0 on.
    """

    kind: Literal["forward", "backward"]
    micro_batch: int

    def __str__(self) -> str:
        return f"{self.kind} {self.micro_batch}"

    @property
    def step(self) -> int:
        """How it moves on: from stage s to s + 1, or to s - 1."""
        return 1 if self.kind == "forward" else -1


Schedule = Callable[[int, int, int], list[Action]]  # of a stage, from (stage, n_stages, n_micro)


# --- the orders ----------------------------------------------------------------------------------
def gpipe(stage: int, n_stages: int, n_micro: int) -> list[Action]:
    """The order of GPipe: all forward passes, then all backward passes; the same at every stage.

    Args:
        stage: 0 to p - 1.
        n_stages: p.
        n_micro: m, at least 1.

    Raises:
        ValueError: a stage that is none, no stage, no micro-batch.

    Example:
        >>> [str(action) for action in gpipe(stage=0, n_stages=2, n_micro=2)]
        ['forward 0', 'forward 1', 'backward 0', 'backward 1']
    """
    _check(stage, n_stages, n_micro)
    return [Action(kind, n) for kind in ("forward", "backward") for n in range(n_micro)]


def one_forward_one_backward(stage: int, n_stages: int, n_micro: int) -> list[Action]:
    """The order of 1F1B: a few forward passes, then one forward, one backward, in turns.

    Args:
        stage, n_stages, n_micro: as for `gpipe`.

    Raises:
        ValueError: as for `gpipe`.

    Example:
        >>> [str(action) for action in one_forward_one_backward(stage=0, n_stages=2, n_micro=2)]
        ['forward 0', 'forward 1', 'backward 0', 'backward 1']
        >>> [str(action) for action in one_forward_one_backward(stage=1, n_stages=2, n_micro=2)]
        ['forward 0', 'backward 0', 'forward 1', 'backward 1']
    """
    _check(stage, n_stages, n_micro)
    # 1. one forward pass for each stage behind this one: so long the first backward is on its way
    n_first = min(n_stages - 1 - stage, n_micro)
    order = [Action("forward", n) for n in range(n_first)]
    # 2. one forward, one backward
    for n in range(n_micro - n_first):
        order += [Action("forward", n_first + n), Action("backward", n)]
    # 3. the backward passes that are left
    return order + [Action("backward", n) for n in range(n_micro - n_first, n_micro)]


def _check(stage: int, n_stages: int, n_micro: int) -> None:
    if n_stages < 1 or stage not in range(n_stages) or n_micro < 1:
        raise ValueError(
            "a pipeline has at least one stage, numbered from 0, and at least one micro-batch; got "
            f"stage {stage} of {n_stages}, and {n_micro} micro-batches"
        )


# --- when each action is done --------------------------------------------------------------------
class Event(NamedTuple):
    """An action, where and when it was done.

    Args:
        stage: where.
        action: what.
        start, end: seconds.
    """

    stage: int
    action: Action
    start: float
    end: float


@final
@dataclass(frozen=True)
class Timeline:
    """When each stage did what, from `simulate` or measured.

    Args:
        events: in any order; those of one stage do not overlap.

    Raises:
        ValueError: no event.
    """

    events: Sequence[Event]

    def __post_init__(self):
        if not self.events:
            raise ValueError("a timeline needs at least one event; got none")

    @property
    def n_stages(self) -> int:
        """p."""
        return 1 + max(event.stage for event in self.events)

    @property
    def seconds(self) -> float:
        """From the first start to the last end."""
        return max(each.end for each in self.events) - min(each.start for each in self.events)

    @property
    def bubble(self) -> float:
        """The idle part of all stages' time, from 0 to 1."""
        busy = sum(event.end - event.start for event in self.events)
        return 1 - busy / (self.n_stages * self.seconds)

    @property
    def live(self) -> list[int]:
        """For each stage the most micro-batches that were between their two passes at once."""
        now, most = [0] * self.n_stages, [0] * self.n_stages
        for event in sorted(self.events, key=lambda event: event.start):
            now[event.stage] += event.action.step  # kept from its forward pass to its backward pass
            most[event.stage] = max(most[event.stage], now[event.stage])
        return most


def simulate(
    orders: Sequence[Sequence[tuple[str, int]]],
    forward_seconds: float = 1,
    backward_seconds: float = 2,
    send_seconds: float = 0,
) -> Timeline:
    """Play schedules through: an action begins when its stage is free and what it needs is there.

    Args:
        orders: of each stage, its actions.
        forward_seconds, backward_seconds: of one micro-batch at any stage.
        send_seconds: from one stage to the next; a stage works on while it sends.

    Returns:
        An event for each action.

    Raises:
        ValueError: an order that can never run (deadlock, 死锁), with the actions that wait; an
            action that is none, or that stands twice in an order; a pass that takes no time.

    Example:
        >>> timeline = simulate([gpipe(stage, 4, n_micro=8) for stage in range(4)])
        >>> timeline.seconds, round(timeline.bubble, 4), timeline.live  # 3/11 is 0.2727
        (33, 0.2727, [8, 8, 8, 8])
        >>> orders = [one_forward_one_backward(stage, 4, n_micro=8) for stage in range(4)]
        >>> timeline = simulate(orders)
        >>> timeline.seconds, round(timeline.bubble, 4), timeline.live
        (33, 0.2727, [4, 3, 2, 1])
    """
    if min(forward_seconds, backward_seconds) <= 0 or send_seconds < 0:
        raise ValueError(
            "a pass takes more than 0 seconds, and a message at least 0; got forward "
            f"{forward_seconds}, backward {backward_seconds} and send {send_seconds}"
        )
    waiting = [[Action(*each) for each in order] for order in orders]
    _check_orders(waiting)
    seconds = {"forward": forward_seconds, "backward": backward_seconds}
    events: dict[tuple[int, Action], Event] = {}
    free: list[float] = [0] * len(orders)
    while any(waiting):
        n_done = len(events)
        for stage, order in enumerate(waiting):
            # 1. the next action of this stage, if all that it needs has been done
            needs = _needs(stage, order[0], len(orders)) if order else []
            if not order or any(each not in events for each in needs):
                continue
            # 2. it begins when the stage is free and the last message has come
            action = order.pop(0)
            come = [events[each].end + send_seconds * (each[0] != stage) for each in needs]
            start = max([free[stage], *come])
            free[stage] = start + seconds[action.kind]
            events[stage, action] = Event(stage, action, start, free[stage])
        # 3. nobody could do anything: nobody ever will
        if len(events) == n_done:
            raise ValueError(_deadlock(waiting, events))
    return Timeline(list(events.values()))


def _needs(stage: int, action: Action, n_stages: int) -> list[tuple[int, Action]]:
    """What must have been done before: this pass one stage earlier, and forward before backward."""
    earlier = stage - action.step
    needs = [(earlier, action)] if 0 <= earlier < n_stages else []
    if action.kind == "backward":
        needs.append((stage, Action("forward", action.micro_batch)))
    return needs


def _check_orders(orders: Sequence[Sequence[Action]]) -> None:
    for stage, order in enumerate(orders):
        strange = [action for action in order if action.kind not in ("forward", "backward")]
        twice = [action for action in order if order.count(action) > 1]
        if strange or twice:
            why = "is neither forward nor backward" if strange else "stands there twice"
            raise ValueError(
                'an order has each pass of each micro-batch once, as ("forward" or "backward", '
                f"number); at stage {stage} {(strange or twice)[0]} {why}"
            )


def _deadlock(waiting: Sequence[Sequence[Action]], done: dict[tuple[int, Action], Event]) -> str:
    lines = []
    for stage, order in enumerate(waiting):
        if order:
            needs = _needs(stage, order[0], len(waiting))
            first = next(each for each in needs if each not in done)
            lines.append(f"stage {stage} waits to do {order[0]} for {first[1]} of stage {first[0]}")
    return (
        f"these orders never end, since each stage waits for another: {'; '.join(lines)}. Every "
        "stage must do an action before the stage that needs it can"
    )
