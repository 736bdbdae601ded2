"""How far the learner has come: tasks solved, tries, hints, predictions.

Chapter: 00
"""

from minillm.lab.grade import graders
from minillm.lab.predict import guesses_over_truths
from minillm.lab.project import read_progress, syllabus

MARKS = {"done": "✔", "wrong": "✘", "given": "given", None: "☐"}


def table() -> str:
    """Every task of every chapter that can be opened, a line each, and a closing line."""
    record = read_progress()
    lines, solved, total = [], 0, 0
    for chapter in syllabus():
        if not chapter.finished:
            continue
        lines.append(f"{chapter.number} · {chapter.title}")
        for task_id in chapter.tasks:
            entry = record.get(task_id, {})
            total += 1
            solved += entry.get("status") == "done"
            name = graders()[task_id][1].function if task_id in graders() else "?"
            level = graders()[task_id][1].level if task_id in graders() else "?"
            mark = MARKS[entry.get("status")]
            lines.append(f"  {task_id}  {mark:<6}{name:<28}{level:<10}{_remarks(entry)}".rstrip())
    lines.append(f"\n{solved} of {total} tasks solved{_judgement()}")
    return "\n".join(lines)


def _remarks(entry: dict) -> str:
    facts = []
    if entry.get("tries"):
        facts.append(f"{entry['tries']} {'try' if entry['tries'] == 1 else 'tries'}")
    if entry.get("hints"):
        facts.append(f"{entry['hints']} of 3 hints")
    if entry.get("seen"):
        facts.append("solution seen")
    return ", ".join(facts)


def _judgement() -> str:
    ratios = guesses_over_truths()
    if not ratios:
        return ""
    close = sum(0.5 <= ratio <= 2 for ratio in ratios)
    return f"; {close} of {len(ratios)} guesses within a factor of two"
