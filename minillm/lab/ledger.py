"""Print the claims ledger: a line a claim, one claim in full, or all of it as data.

Chapter: 00
"""

import dataclasses
import textwrap

from minillm.lab.claims import all_measurements, load
from minillm.lab.reproduce import find


def table() -> str:
    """A line a claim: id, verdict, and what the stored notebooks measured."""
    measured = all_measurements()
    lines = []
    for claim in load():
        values = [m.value for m in measured if m.claim == claim.id]
        lines.append(
            f"{claim.chapter}  {claim.id:<26}{claim.verdict:<28}  {', '.join(values) or '-'}"
        )
        lines.append(textwrap.indent(textwrap.fill(claim.claim, 90), "      "))
    verdicts = sorted({claim.verdict for claim in load()})
    counts = ", ".join(
        f"{sum(claim.verdict == verdict for claim in load())} {verdict}" for verdict in verdicts
    )
    return "\n".join(lines) + f"\n\n{len(load())} claims: {counts}"


def in_full(claim_id: str) -> str:
    """Everything that the ledger says of one claim, and what was measured.

    Raises:
        ValueError: no such claim.
    """
    claim = find(claim_id)
    lines = []
    for field in dataclasses.fields(claim):
        value = getattr(claim, field.name)
        if value:
            text = textwrap.fill(value, 84, subsequent_indent=" " * 14)
            lines.append(f"{field.name.replace('_', ' '):>12}: {text}")
    for measurement in all_measurements():
        if measurement.claim == claim_id:
            lines.append(
                f"    measured: {measurement.sentence}: {measurement.value} "
                f"({measurement.band}), notebook {measurement.notebook}"
            )
    return "\n".join(lines)


def as_data(claim_id: str | None = None) -> list[dict]:
    """The ledger as plain data, each claim with its measurements.

    Raises:
        ValueError: a claim was named, and there is no such claim.
    """
    chosen = load() if claim_id is None else (find(claim_id),)
    measured = all_measurements()
    return [
        {
            **dataclasses.asdict(claim),
            "measured": [dataclasses.asdict(m) for m in measured if m.claim == claim.id],
        }
        for claim in chosen
    ]
