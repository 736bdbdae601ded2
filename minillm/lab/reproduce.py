"""Measure a claim again: run its notebook up to the cell that settles it, and compare.

Chapter: 00
"""

import sys
from pathlib import Path

from minillm.lab.claims import MEASURED, Claim, claimed_sentences, load, read_cells
from minillm.lab.project import display_path, root


def find(claim_id: str) -> Claim:
    """The ledger's entry.

    Raises:
        ValueError: no such claim; the message lists those that exist.
    """
    for claim in load():
        if claim.id == claim_id:
            return claim
    known = ", ".join(claim.id for claim in load())
    raise ValueError(f"there is no claim {claim_id!r}. Claims: {known}.")


def notebook_of(claim_id: str) -> Path | None:
    """The notebook that settles a claim, or None."""
    course = root() / "course"
    for path in [*sorted(course.glob("*.ipynb")), *sorted((course / "labs").glob("*.ipynb"))]:
        if any(claim_id in claims.values() for _, claims in _cells(path)):
            return path
    return None


def reproduce(claim_id: str) -> list[str]:
    """Run the notebook up to the claim's last line.

    Args:
        claim_id: an id of the ledger.

    Returns:
        The lines that ``expect`` printed for this claim, just now.

    Raises:
        ValueError: the claim is unknown; or it rests on reading, so that there is nothing to run;
            or the notebook stopped, because a number missed its band here.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    claim, path = find(claim_id), notebook_of(claim_id)
    if path is None:
        raise ValueError(
            f"claim {claim_id!r} rests on {claim.evidence}; no notebook measures it. {claim.result}"
        )
    settled = [place for place, claims in _cells(path) if claim_id in claims.values()]
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = notebook.cells[: settled[-1] + 1]
    print(f"running {display_path(path)} as far as the measurement …", file=sys.stderr)
    client = NotebookClient(
        notebook,
        resources={"metadata": {"path": str(path.parent)}},
        extra_arguments=["--log-level=ERROR"],
    )
    try:
        client.execute()
    except CellExecutionError as error:
        raise ValueError(
            f"{display_path(path)} stopped on this machine before {claim_id!r} was settled. "
            f"{error.ename}: {error.evalue}"
        ) from None
    lines = []
    for place, claims in _cells(path):
        if claim_id not in claims.values():
            continue
        outputs = notebook.cells[place].outputs
        printed = "".join(o.get("text", "") for o in outputs)
        for match in MEASURED.finditer(printed):
            if claims.get(match["sentence"]) == claim_id:
                lines.append(match[0])
    return [f"{display_path(path)}, just now:", *lines]


def _cells(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Place and claims of every cell that settles any."""
    cells = read_cells(path)
    sources = [(place, "".join(cell["source"])) for place, cell in enumerate(cells)]
    return [
        (place, claimed_sentences(source))
        for place, source in sources
        if cells[place]["cell_type"] == "code" and "claim=" in source
    ]
