"""`minillm agent`: a model runs an errand in the town, and each of its steps can be read.

    task: bring plums to Joe                                    what the model reads, the view
    you are at: mill
    …
      thought  I need plums from market square, by way of bridge.      what it writes
      call     {"name":"go","arguments":{"place":"bridge"}}
      result   ok                                                      what comes of it

Of each later view the lines that are new are printed; the last result stands there already. The
same steps go into a trace (`minillm.agents.loop`), each at once when it was made, so that Ctrl-C
loses none of them.

**Two limits.** The errand itself ends after a number of steps, as in training. The budget of calls
is the user's: whatever the model does, it is not asked more often.

Chapter: app
"""

import random
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TextIO

from minillm.agents import imitate
from minillm.agents.errands import errand_tools, number_of_shops
from minillm.agents.loop import OK, Decide, Event, by_model, in_words, line_of, policy
from minillm.lab.threads import use_threads
from minillm.recipes.chat_data import AgentData
from minillm.recipes.chatting import for_terminal
from minillm.serve import template
from minillm.town.map import Errand, draw_errand
from minillm.town.world import World
from minillm.train import manifest
from minillm.zoo import checkpoints

PAUSE = 1.0  # seconds between two steps, for --slow
FOLDER = Path("runs")  # for a trace that was given no name


def run(
    place: Path,
    *,
    task: str | None = None,
    trace: Path | None = None,
    seed: int = 0,
    world: str | None = None,
    calls: int = 40,
    failures: float = 0.1,
    slow: bool = False,
) -> bool:
    """Let a model run an errand; Ctrl-C ends it.

    Args:
        place: a model's folder, or the name of a shipped one.
        task: "bring GOOD to PERSON"; None for one by chance.
        trace: file to make; None for a new one in `FOLDER`.
        seed: of what is left to chance.
        world: the town's seed; None for Tinytown.
        calls: that the model may write.
        failures: how often an action fails, 0 to 1.
        slow: whether to wait after each step.

    Returns:
        Whether the errand ended well.

    Raises:
        ValueError: a task that the town does not have, an option out of its range, a model that
            was not tuned for errands, a trace that is there already.
    """
    use_threads()
    if calls < 1 or not 0 <= failures <= 1:
        raise ValueError(
            f"--calls must be at least 1, and --failures from 0 to 1; got {calls} and {failures:g}"
        )
    errand = errand_of(World() if world is None else World(world), seed, task, failures)
    decide = open_agent(place)
    with new_trace(trace) as file:
        return act(decide, errand, file, calls=calls, pause=PAUSE if slow else 0.0)


# --- what there is before the first step ----------------------------------------------------------
def errand_of(world: World, seed: int, task: str | None, failures: float) -> Errand:
    """The errand of a seed: one shop or two; now and then nobody has the good.

    Raises:
        ValueError: a task in another form, or about what the town does not have.

    Example:
        >>> print(errand_of(World(), 0, "bring plums to Joe", 0.1).task)
        bring plums to Joe
    """
    good = person = None
    if task is not None:
        form = f'"bring {world.goods[0].general} to {world.people[0].name}"'
        match = re.fullmatch(r"bring (.+) to (.+)", " ".join(task.split()).rstrip("."))
        if match is None:
            raise ValueError(f"--task must be of the form {form}; got {task!r}")
        good, person = match.groups()
    n_shops, n_stocked = number_of_shops(random.Random(f"agent/{seed}"))
    try:
        return draw_errand(
            world,
            seed,
            n_shops=n_shops,
            n_stocked=n_stocked,
            failure_rate=failures,
            good=good,
            person=person,
        )
    except ValueError as error:
        if task is None:
            raise
        raise ValueError(f"{error}. A task of this town is {form}") from None


def open_agent(place: Path) -> Decide:
    """A model as an agent.

    Raises:
        ValueError: what `checkpoints.open_model` refuses; a model that was tuned to other things.
    """
    folder = checkpoints.folder_of(place)
    model, tokenizer, _ = checkpoints.open_model(folder)
    chat_template = template.load(folder, tokenizer)
    take = "take one that was made as agent-1m is"
    if chat_template is None or chat_template.call_token is None:
        raise ValueError(f"{place} was not tuned to call tools, so it is no agent; {take}")
    if (folder / "manifest.json").is_file():
        data = manifest.load(folder / "manifest.json").config.get("data")
        kind = data.get("kind") if isinstance(data, dict) else None
        if kind != AgentData.kind:
            raise ValueError(
                f'{place} must have learned from data of the kind "{AgentData.kind}" to run '
                f'errands; it has learned from "{kind}"; {take}'
            )
    return by_model(model.eval(), tokenizer, errand_tools(), template=chat_template)


def new_trace(path: Path | None) -> TextIO:
    """A new file to write into; what is there already stays as it is.

    Raises:
        ValueError: it is there, or it cannot be made.
    """
    if path is None:
        FOLDER.mkdir(exist_ok=True)
        names = (FOLDER / f"agent-{number}.jsonl" for number in count(1))
        path = next(name for name in names if not name.exists())
    try:
        return path.expanduser().open("x", encoding="utf-8", newline="\n")
    except FileExistsError:
        raise ValueError(f"{path} is there already and stays as it is; take another name") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror or error}") from None


# --- the errand -----------------------------------------------------------------------------------
def act(decide: Decide, errand: Errand, file: TextIO, *, calls: int, pause: float = 0.0) -> bool:
    """Run an errand: each step is written into the trace, then printed.

    Args:
        decide: the agent.
        errand: its beginning.
        file: the trace.
        calls: at most.
        pause: seconds after each step.

    Returns:
        Whether it ended well.

    Raises:
        KeyboardInterrupt: after the last line is printed.
    """
    events: list[Event] = []

    def note(event: Event) -> None:
        file.write(line_of(event))
        file.flush()
        before = [f"{last.view}\n{last.result}" for last in events[-1:]]
        events.append(event)
        shown = replace(event, view=new_lines(event.view, *before))
        print(for_terminal(in_words(shown)), end="\n\n", flush=True)
        time.sleep(pause)

    try:
        (episode,) = imitate.run(policy(decide, errand_tools(), note), [errand], calls)
    except KeyboardInterrupt:
        print()  # behind the ^C of a terminal
        print(summary("interrupted", events, file.name))
        raise
    print(summary(ending(episode.last), events, file.name))
    return episode.success


def new_lines(view: str, before: str = "") -> str:
    r"""The lines of a view that were not there before.

    Example:
        >>> new_lines("task: bring plums to Joe\nyou are at: mill", "task: bring plums to Joe")
        'you are at: mill'
    """
    old = before.split("\n")
    new = [line for line in view.split("\n") if line not in old]
    return "\n".join(new) or "(nothing else is new)"


def ending(errand: Errand) -> str:
    """How an errand ended, in words."""
    task = errand.task
    match errand.end:
        case "delivered":
            return "delivered"
        case "gave up" if errand.success:
            return f"gave up, rightly: nobody has {task.good}"
        case "gave up":
            return f"gave up, wrongly: {' and '.join(sorted(task.stocked))} had {task.good}"
    if errand.done:
        return f"out of steps: the errand allows {task.most_steps}"
    return "the budget of calls is spent"


def summary(end: str, events: Sequence[Event], trace: str) -> str:
    """The last line that is printed.

    Example:
        >>> summary("delivered", [Event("you are at: mill", "Here.", "{}", "ok")], "a.jsonl")
        'delivered. 1 call, 0 that no tool could read, 0 actions that failed; the trace is a.jsonl'
    """
    n_unreadable = sum(not event.valid for event in events)
    n_failed = sum(event.valid and event.result != OK for event in events)
    return (
        f"{end}. {_number(len(events), 'call')}, {n_unreadable} that no tool could read, "
        f"{_number(n_failed, 'action')} that failed; the trace is {trace}"
    )


def _number(n: int, name: str) -> str:
    return f"{n} {name}{'' if n == 1 else 's'}"
