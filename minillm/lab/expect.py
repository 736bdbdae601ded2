"""Checked numbers: a sentence, a measured value, and the band that it must lie in.

A number that training or a clock produced is never the same twice. What can be checked is the
claim about it, so a notebook prints such numbers only through ``expect``: it raises when the band
is missed and otherwise prints one line, whose sentence and band the course's CI compares.

Chapter: 00
"""

import math
from numbers import Integral, Real


class ExpectationMissed(AssertionError):
    """A measured value lies outside the band that the course states for it."""


def expect(
    sentence: str,
    value: Real,
    *,
    at_least: Real | None = None,
    at_most: Real | None = None,
    between: tuple[Real, Real] | None = None,
    equals: Real | None = None,
    claim: str | None = None,
) -> None:
    """Print ``✔ sentence: value (band)`` if the value lies in the band, and raise otherwise.

    Args:
        sentence: what the number is, in words; its unit belongs here.
        value: the measured number.
        at_least: the band's lower end, included.
        at_most: the band's upper end, included.
        between: both ends, included.
        equals: an exact value (for counts and arithmetic; floats to 1e-9 of its size).
        claim: the id of the entry in ``course/claims.toml`` that this number settles.

    Raises:
        ExpectationMissed: the value lies outside the band.
        ValueError: not exactly one band was given, the band is empty, or the claim is unknown.

    Example:
        >>> expect("bytes in a letter", 1, equals=1)
        ✔ bytes in a letter: 1 (exactly 1)
        >>> expect("loss after training", 1.5831, at_most=1.65)
        ✔ loss after training: 1.583 (at most 1.65)
    """
    given = {"at_least": at_least, "at_most": at_most, "between": between, "equals": equals}
    given = {name: band for name, band in given.items() if band is not None}
    if len(given) != 1:
        raise ValueError(
            f"expect({sentence!r}) takes exactly one of at_least, at_most, between, equals; "
            f"it got {', '.join(given) or 'none'}."
        )
    if "\n" in sentence or "✔" in sentence:
        raise ValueError(f"expect: the sentence must be one line without ✔; got {sentence!r}.")
    if between is not None and not between[0] <= between[1]:
        raise ValueError(f"expect({sentence!r}): between={between} is an empty band.")
    if claim is not None:
        _require_known(claim)

    ((name, band),) = given.items()
    words, met = {
        "at_least": lambda: (f"at least {number(band)}", value >= band),
        "at_most": lambda: (f"at most {number(band)}", value <= band),
        "between": lambda: (
            f"between {number(band[0])} and {number(band[1])}",
            band[0] <= value <= band[1],
        ),
        "equals": lambda: (
            f"exactly {number(band)}",
            value == band
            if isinstance(value, Integral) and isinstance(band, Integral)
            else math.isclose(value, band, rel_tol=1e-9, abs_tol=1e-12),
        ),
    }[name]()
    if not met:
        raise ExpectationMissed(f"{sentence}: expected {words}, measured {number(value)}.")
    print(f"✔ {sentence}: {number(value)} ({words})")


def number(value: Real) -> str:
    """Print a number as the course does: whole numbers in full, others to 4 digits.

    Example:
        >>> number(1200000), number(0.33333), number(18.0), number(458213.7)
        ('1,200,000', '0.3333', '18', '458,200')
    """
    if isinstance(value, bool | Integral):
        return f"{int(value):,}" if abs(value) >= 10_000 else str(int(value))
    value = float(value)
    if value.is_integer() and abs(value) < 1e9:
        return number(int(value))
    if 9_999.5 <= abs(value) < 1e9:
        return number(int(float(f"{value:.4g}")))
    return f"{value:.4g}"


def _require_known(claim: str) -> None:
    """An id that is not in the ledger is a slip of the pen: say so where it happens."""
    from minillm.lab.claims import load

    known = [entry.id for entry in load()]
    if claim not in known:
        raise ValueError(f"no claim {claim!r} in course/claims.toml. It has: {', '.join(known)}.")
