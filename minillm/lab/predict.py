"""Predictions: write down what you expect before you measure it, and see how well you judge.

Chapter: 00
"""

import math
import reprlib
from dataclasses import dataclass
from datetime import datetime
from numbers import Real

from minillm.lab import figures
from minillm.lab.expect import number
from minillm.lab.project import building, my, read_json, write_json


@dataclass(frozen=True)
class Prediction:
    """A question that waits for its answer."""

    question: str
    guess: Real | None
    unit: str

    def reveal(self, truth: Real) -> None:
        """Print the answer; with a guess, also how far off it was, and remember both.

        Args:
            truth: the measured or computed value, in the question's unit.
        """
        unit = f" {self.unit}" if self.unit else ""
        print(f"▸ {self.question}: {number(truth)}{unit}")
        if self.guess is None:
            return
        print(f"  you said {number(self.guess)}{unit}: {distance(self.guess, truth)}")
        _remember(self.question, guess=float(self.guess), truth=float(truth), unit=self.unit)


def predict(question: str, guess: Real | None = None, *, unit: str = "") -> Prediction:
    """Ask for a guess. ``None`` stands where the learner writes theirs.

    Args:
        question: what to guess; it names the prediction in the learner's record.
        guess: a number, or None for no guess.
        unit: of the number, for instance "GiB".

    Raises:
        ValueError: the guess is not a finite number.

    Example:
        >>> p = predict("bytes in 村", unit="bytes")
        ▸ bytes in 村 (bytes): write your guess in place of None
        >>> p.reveal(3)
        ▸ bytes in 村: 3 bytes
    """
    if guess is not None:
        if isinstance(guess, bool) or not isinstance(guess, Real) or not math.isfinite(guess):
            raise ValueError(f"a guess is a number such as 18 or 0.6; got {reprlib.repr(guess)}.")
        print(f"▸ {question}: you say {number(guess)} {unit}".rstrip())
    else:
        print(f"▸ {question}{f' ({unit})' if unit else ''}: write your guess in place of None")
    return Prediction(question, guess, unit)


def distance(guess: Real, truth: Real) -> str:
    """How far a guess is off, in words.

    Example:
        >>> distance(18, 18), distance(576, 18), distance(9, 18)
        ('exactly right', '32 times too high', '2 times too low')
    """
    if guess == truth:
        return "exactly right"
    if guess > 0 and truth > 0:
        ratio = max(guess / truth, truth / guess)
        direction = "high" if guess > truth else "low"
        if ratio < 1.1:
            return f"within {math.ceil((ratio - 1) * 100)} %"
        return f"{number(ratio)} times too {direction}"
    return f"off by {number(abs(guess - truth))}"


def calibration() -> None:
    """Draw every guess so far against its truth: how well do you judge orders of magnitude?"""
    ratios = guesses_over_truths()
    if not ratios:
        print("no guesses yet: write a number in place of None in a predict(...) cell")
        return
    fig, ax = figures.figure()
    ax.axvline(1, color=figures.GREY, linewidth=1)
    ax.plot(ratios, range(1, len(ratios) + 1), "o", color=figures.BLUE)
    ax.set_xscale("log")
    ax.set_yticks([])
    close = sum(0.5 <= ratio <= 2 for ratio in ratios)
    ax.set_title(f"{close} of {len(ratios)} guesses lie within a factor of two")
    ax.set_xlabel("guess / truth (log axis)")
    figures.publish(fig, alt=f"{close} of {len(ratios)} guesses lie within a factor of two.")


def guesses_over_truths() -> list[float]:
    """The ratio of every kept guess to its truth, smallest first, where both are above 0."""
    entries = read_json(my() / "predictions.json").values()
    pairs = [(e.get("guess"), e.get("truth")) for e in entries if isinstance(e, dict)]
    return sorted(
        guess / truth
        for guess, truth in pairs
        if isinstance(guess, Real) and isinstance(truth, Real) and guess > 0 and truth > 0
    )


def _remember(question: str, **facts: object) -> None:
    if building():
        return
    path = my() / "predictions.json"
    try:
        record = read_json(path)
        record[question] = {**facts, "when": datetime.now().isoformat(timespec="seconds")}
        write_json(path, record)
    except (OSError, ValueError) as error:
        print(f"  not remembered: {error}")
