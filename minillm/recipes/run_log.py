"""The log of a run: a line for each evaluation, log.jsonl, and its picture.

Chapter: app
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from minillm.lab.figures import BLUE, ORANGE, figure, label
from minillm.lab.files import set_aside, write_whole
from minillm.train.loop import Metrics

LINE = ("step", "loss", "held_out", "learning_rate", "seconds")


def line(metrics: Metrics, losses: Sequence[float], seconds: float) -> dict:
    """What is written down of a step that was evaluated.

    Args:
        metrics: of the step.
        losses: of the steps since the line before.
        seconds: since the run was begun, or gone on with.
    """
    mean, rate = sum(losses) / len(losses), metrics.learning_rate
    values = (metrics.step + 1, mean, metrics.evaluation, rate, round(seconds, 1))
    return dict(zip(LINE, values, strict=True))


def evaluated_again(step: int, held_out: float) -> dict:
    """The line of a step whose own was lost; only the evaluation can be had again."""
    return dict.fromkeys(LINE) | {"step": step, "held_out": held_out}


def write(log: Sequence[dict], path: Path) -> None:
    """All lines, whole or not at all."""
    write_whole(path, "".join(json.dumps(line) + "\n" for line in log))


def read(path: Path, step: int, evaluate_every: int) -> list[dict]:
    """Lines up to the step from which a run goes on; what came later will come again.

    A file with a line that is damaged is kept under another name, and written anew without it.
    What is damaged or missing is said.
    """
    log, damaged = [], []
    for number, text in enumerate(path.read_bytes().splitlines() if path.exists() else [], 1):
        parsed = _parsed(text)
        if parsed is None or (log and parsed["step"] <= log[-1]["step"]):
            damaged.append(number)
        else:
            log.append(parsed)
    if damaged:
        print(
            f"{path}: line {damaged[0]} and {len(damaged) - 1} more are damaged; the file is kept "
            f"as {set_aside(path).name}, and its other lines are used"
        )
        write(log, path)
    log = [each for each in log if each["step"] <= step]
    every = range(evaluate_every, step + 1, evaluate_every)
    if lost := {*every} - {each["step"] for each in log}:
        print(f"{path} lacks {len(lost)} evaluations, the first after step {min(lost):,}")
    return log


def _parsed(text: bytes) -> dict | None:
    """A line of the log; None if it is none, or was cut off."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return None
    match parsed:
        case {"step": int(), "held_out": float()} if set(parsed) == {*LINE}:
            others = [parsed[key] for key in LINE if parsed[key] is not None]
            if all(type(x) in (int, float) and math.isfinite(x) for x in others):
                return parsed
    return None


def draw(log: Sequence[dict], path: Path) -> None:
    """The loss curve, as a picture."""
    import matplotlib.pyplot as plt

    fig, ax = figure(width=6.4, height=3.6)
    for key, colour, dy in (("loss", ORANGE, 8), ("held_out", BLUE, -10)):
        points = [(each["step"], each[key]) for each in log if each[key] is not None]
        if not points:  # of a log that was lost
            continue
        ax.plot(*zip(*points, strict=True), "o-", color=colour, markersize=3)
        name = {"loss": "training", "held_out": "held out"}[key]
        label(ax, *points[-1], name, colour, ha="right", offset=(0, dy))
    ax.set(xlabel="step", ylabel="nats a token", ylim=(0, None))
    ax.set_title(f"{path.parent.name}: held-out loss {log[-1]['held_out']:.3f}")
    fig.savefig(path)
    plt.close(fig)
