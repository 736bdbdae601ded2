"""When two outputs of one cell count as equal: one answer for the writer and for the checker.

Three kinds of line:

- a line printed by `expect` (`✔ sentence: 1.58 (at most 1.65)`): the measured number may differ,
  as long as it keeps the bound beside it; the sentence and the bound may not;
- any other line with ✔, ☐ or ✘: nothing may differ;
- everything else: floats, written with a point or an exponent, may differ by 2e-3 of the larger
  one or by one unit in the last printed place; whatever is left may not.

A number is a float only if it stands alone: `1.2.3`, `v1.2`, `0.5.bin` and `.5` are text. Its sign
is text as well. Pictures are counted, not compared.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

from tools.canonical import final_text

RELATIVE = Decimal("2e-3")
STATUS = "✔☐✘"

# Atomic, so that the pattern cannot settle for the beginning of something longer.
_FLOAT = re.compile(
    r"(?<![A-Za-z0-9_.])"
    r"(?>\d+\.\d+(?:[eE][+-]?\d{1,3})?|\d+[eE][+-]?\d{1,3})"
    r"(?![0-9_])(?!\.[A-Za-z0-9_])"
)
_NUMBER = r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][+-]?\d{1,3})?"
_EXPECT = re.compile(
    rf"✔ (?P<sentence>.+): (?P<value>{_NUMBER}) "
    rf"\((?P<bound>at most {_NUMBER}|at least {_NUMBER}|between {_NUMBER} and {_NUMBER})\)"
)

_TOLERANT = ("text/plain", "text/html")
_PICTURES = ("image/png", "image/jpeg")
_WIDGET = "application/vnd.jupyter.widget-view+json"
_LINES_SHOWN = 12


def same_text(stored: str, fresh: str) -> bool:
    """Say whether a fresh text may stand for the stored one.

    Example:
        >>> same_text("loss 2.3456 at step 10", "loss 2.3459 at step 10")
        True
        >>> same_text("loss 2.3456 at step 10", "loss 2.3456 at step 11")
        False
        >>> same_text("✔ it learns: 1.58 (at most 1.65)", "✔ it learns: 1.61 (at most 1.65)")
        True
    """
    if stored == fresh:
        return True
    ours, theirs = stored.split("\n"), fresh.split("\n")
    return len(ours) == len(theirs) and all(map(_same_line, ours, theirs))


def explain(stored: str, fresh: str) -> str:
    """Say where two texts differ, in the order stored, came; an empty string if they do not."""
    if same_text(stored, fresh):
        return ""
    found = list(_line_differences(stored.split("\n"), fresh.split("\n")))
    if len(found) > _LINES_SHOWN:
        more = len(found) - _LINES_SHOWN
        found = [*found[:_LINES_SHOWN], f"… and {more} more place{'s' if more > 1 else ''}"]
    return "\n".join(found)


def same_outputs(stored_cell: Any, fresh_cell: Any) -> bool:
    """Say whether the outputs of a freshly run cell may stand for the stored ones."""
    return not differences(stored_cell["outputs"], fresh_cell["outputs"])


def differences(stored: Iterable[Any], fresh: Iterable[Any]) -> list[str]:
    """Name every difference between two lists of outputs, each as a readable paragraph.

    As in nbval, all chunks of a stream are one text, the outputs of each kind are compared in
    their own order, and `execute_result` is the same as `display_data`. Tracebacks, metadata and
    counts are not compared.
    """
    ours, theirs = _by_kind(stored), _by_kind(fresh)
    found = []
    for kind in [*ours, *(kind for kind in theirs if kind not in ours)]:
        was, came = ours.get(kind, []), theirs.get(kind, [])
        if not came:
            found.append(f"{kind}: stored, but nothing came\n{_quoted('stored', was, kind)}")
        elif not was:
            found.append(f"{kind}: nothing stored, but this came\n{_quoted('came', came, kind)}")
        elif len(was) != len(came):
            text = f"{kind}: {len(was)} stored, {len(came)} came"
            if kind not in _PICTURES:
                text += f"\n{_quoted('stored', was, kind)}\n{_quoted('came', came, kind)}"
            found.append(text)
        else:
            found += [_different(kind, *pair) for pair in zip(was, came, strict=True)]
    return [text for text in found if text]


def _different(kind: str, was: Any, came: Any) -> str:
    if kind in (*_PICTURES, _WIDGET) or was == came:
        return ""
    if not (isinstance(was, str) and isinstance(came, str)):
        return f"{kind}\n{_quoted('stored', [was], kind)}\n{_quoted('came', [came], kind)}"
    if kind in _TOLERANT or not _is_mime(kind):
        text = explain(was, came)
        return f"{kind}\n{_indented(text)}" if text else ""
    pairs = _line_differences(was.split("\n"), came.split("\n"), exactly=True)
    return f"{kind}\n{_indented(chr(10).join(pairs))}"


def _by_kind(outputs: Iterable[Any]) -> dict[str, list[Any]]:
    """Sort outputs into kinds: `stdout`, `stderr`, `exception`, or a mime type."""
    kinds: dict[str, list[Any]] = {}
    for output in outputs:
        if output["output_type"] == "stream":
            kinds.setdefault(output["name"], [""])[0] += output["text"]
        elif output["output_type"] == "error":
            kinds.setdefault("exception", []).append(f"{output['ename']}: {output['evalue']}")
        else:
            for mime, content in output["data"].items():
                text = "".join(content) if _is_lines(content) else content
                kinds.setdefault(mime, []).append(text)
    for name in ("stdout", "stderr"):
        if name in kinds:
            kinds[name] = [final_text(kinds[name][0])]
    return kinds


def _same_line(stored: str, fresh: str) -> bool:
    return stored == fresh or not _reason(stored, fresh)


def _reason(stored: str, fresh: str) -> str:
    """Say why two unequal lines differ; an empty string if they count as equal."""
    ours, theirs = _EXPECT.fullmatch(stored), _EXPECT.fullmatch(fresh)
    if ours and theirs:
        if ours["sentence"] != theirs["sentence"]:
            return "the sentence differs"
        if ours["bound"] != theirs["bound"]:
            return "the bound differs"
        for name, match in (("stored", ours), ("new", theirs)):
            if not _keeps(match["value"], match["bound"]):
                return f"the {name} number is not {match['bound']}"
        return ""
    if any(mark in stored or mark in fresh for mark in STATUS):
        return "a line with ✔, ☐ or ✘ is compared exactly"
    if _FLOAT.sub("\0", stored) != _FLOAT.sub("\0", fresh):
        return "the text, a whole number or a sign differs"
    numbers = zip(_FLOAT.findall(stored), _FLOAT.findall(fresh), strict=False)
    for was, came in numbers:  # as many on both sides, unless the text itself holds a NUL
        allowed = _allowed(was, came)
        if abs(Decimal(was) - Decimal(came)) > allowed:
            return f"{was} and {came} are more than {float(allowed):.2g} apart"
    return ""


def _allowed(was: str, came: str) -> Decimal:
    larger = max(Decimal(was), Decimal(came))
    # The finer of the two last places: `:.4g` drops zeros, so the coarser one may be an accident.
    return max(RELATIVE * larger, Decimal(1).scaleb(min(_last_place(was), _last_place(came))))


def _last_place(number: str) -> int:
    return int(Decimal(number).as_tuple().exponent)


def _keeps(value: str, bound: str) -> bool:
    """Say whether a printed number keeps its printed bound, as far as their rounding can tell."""
    measured = Decimal(value.replace(",", ""))
    limits = [Decimal(each.replace(",", "")) for each in re.findall(_NUMBER, bound)]
    low = limits[0] if not bound.startswith("at most") else None
    high = limits[-1] if not bound.startswith("at least") else None
    if low is not None and measured < low - _rounding(measured, low):
        return False
    return high is None or measured <= high + _rounding(measured, high)


def _rounding(one: Decimal, other: Decimal) -> Decimal:
    """Return how far rounding for print can move a number across a limit.

    `expect` prints whole numbers in full and others to 4 digits, which keeps their order unless
    one of the two was rounded and the other is printed with more digits than 4.
    """
    short = [each for each in (one, other) if len(each.normalize().as_tuple().digits) <= 4]
    return Decimal(1).scaleb(short[0].adjusted() - 3) if len(short) == 1 else Decimal(0)


def _line_differences(ours: list[str], theirs: list[str], exactly: bool = False) -> Iterator[str]:
    key = str if exactly else _shape
    matcher = difflib.SequenceMatcher(
        None, [key(line) for line in ours], [key(line) for line in theirs], autojunk=False
    )
    for verb, start, stop, first, last in matcher.get_opcodes():
        shared = min(stop - start, last - first)
        for step in range(shared):
            was, came = ours[start + step], theirs[first + step]
            why = "" if was == came else ("compared exactly" if exactly else _reason(was, came))
            if why:
                yield f"line {start + step + 1}: {why}\n  stored: {was}\n  came:   {came}"
        if verb != "equal":
            for step in range(start + shared, stop):
                yield f"line {step + 1} is missing\n  stored: {ours[step]}"
            for step in range(first + shared, last):
                yield f"line {step + 1} is new\n  came:   {theirs[step]}"


def _shape(line: str) -> str:
    """Return a line without what may differ in it, to find the lines that belong together."""
    match = _EXPECT.fullmatch(line)
    return f"✔ {match['sentence']}" if match else _FLOAT.sub("\0", line)


def _quoted(label: str, contents: list[Any], kind: str) -> str:
    if kind in _PICTURES or kind == _WIDGET:
        return f"  {label}: {len(contents)}"
    texts = [each if isinstance(each, str) else json.dumps(each, indent=1) for each in contents]
    return f"  {label}:\n" + _indented("\n".join(text.rstrip("\n") for text in texts), "    ")


def _indented(text: str, by: str = "  ") -> str:
    return "\n".join(by + line for line in text.split("\n"))


def _is_mime(kind: str) -> bool:
    return "/" in kind


def _is_lines(content: Any) -> bool:
    return isinstance(content, list) and all(isinstance(line, str) for line in content)
