"""Checkpoints (检查点): the state of a run on disk, whole at whatever moment it is killed.

A run's folder holds one folder a checkpoint, with two files:

    step-00000040/state.safetensors     every tensor
    step-00000040/checkpoint.json       the step, the caller's record, and what state.safetensors
                                        must be: its size and its SHA-256

What can go wrong is a process that dies half-way, or a machine that loses its power. Both are
answered by the order in which things are done:

    1. write both files into step-00000040.partial/, and fsync each: its bytes are on the disk
    2. fsync that folder: the names of the files are on the disk
    3. rename it to step-00000040/, which happens wholly or not at all
    4. fsync the run's folder: the new name is on the disk
    5. only now delete what is no longer kept, each by the way back: rename to .partial, remove

So a folder without `.partial` was once whole, and a leftover `.partial` is rubbish, which the next
save removes. Should the disk damage a file later, the hashes tell, and `newest` takes the one
before. One process at a time writes into a run's folder.

On Windows a folder cannot be fsynced; there steps 2 and 4 are left out, and after a loss of power
the newest checkpoint may be missing. A kill of the process is as harmless as elsewhere.

What to write, and what to do with it, is `minillm.train.run_state`.

Paper: Pillai et al. 2014, "All File Systems Are Not Created Equal", OSDI, section 2.2, on why
write, fsync, rename, fsync.
Differs: none.

Chapter: 05
"""

import hashlib
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from minillm.formats.json_file import count, read_object
from minillm.formats.safetensors_file import refuse_pickles
from minillm.lab.files import set_aside
from minillm.train.manifest import is_plain

STATE, NOTE, PARTIAL = "state.safetensors", "checkpoint.json", ".partial"
FORMAT, VERSION = "minillm checkpoint", 1
NAME = re.compile(r"step-(\d{8}|[1-9]\d{8,})", re.ASCII)
LEFTOVER = re.compile(NAME.pattern + re.escape(PARTIAL), re.ASCII)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint that was read and found whole.

    Args:
        step: how many steps were taken before it.
        tensors: by name, on the CPU.
        record: what the caller said of it.
        path: its folder.
    """

    step: int
    tensors: dict[str, Tensor]
    record: dict[str, Any]
    path: Path


# --- writing ------------------------------------------------------------------------------------
def save(
    folder: str | os.PathLike,
    step: int,
    tensors: Mapping[str, Tensor],
    record: Mapping[str, Any],
    *,
    keep_last: int = 3,
) -> Path:
    """Write a checkpoint, then delete those of earlier steps that are no longer kept.

    Kept are the newest `keep_last` up to this step and the one with the lowest
    `record["evaluation"]` (of equals, the first). Checkpoints of later steps and folders that are
    damaged or not ours are never touched.

    The file is put together in memory first, which takes the size of the state once more.

    Args:
        folder: of the run; made if it is missing.
        step: how many steps were taken.
        tensors: by name; no two may share memory.
        record: plain JSON. "evaluation", if there, is a finite number (lower is better) or None.
        keep_last: at least 1.

    Returns:
        The checkpoint's folder. If it is there already with exactly these bytes, nothing is done.

    Raises:
        ValueError: an argument is not as described; there is a whole checkpoint of this step with
            other bytes (it is never replaced: move it away first). One that is damaged is renamed.
        OSError: it could not be written, as on a full disk. All earlier checkpoints are as they
            were, and the errno is that of the cause.

    Example:
        >>> import tempfile
        >>> import torch
        >>> with tempfile.TemporaryDirectory() as run:
        ...     for step in (0, 20, 40):
        ...         path = save(run, step, {"x": torch.tensor([step])}, {}, keep_last=2)
        ...     print([path.name for path in complete(run)], load(path).tensors)
        ['step-00000020', 'step-00000040'] {'x': tensor([40])}
    """
    count({"keep_last": keep_last}, "keep_last")
    folder, files = Path(folder), _files(step, tensors, record)
    final = folder / f"step-{step:08}"
    if os.path.lexists(final):
        if all(_holds(final / name, data) for name, data in files.items()):
            return final
        _make_way(final)
    partial = final.with_name(final.name + PARTIAL)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sync_folder(folder.parent)
        for path in folder.iterdir():
            if LEFTOVER.fullmatch(path.name):
                _discard(path)
        partial.mkdir()
        for name, data in files.items():
            _write(partial / name, data)
        _sync_folder(partial)
        os.rename(partial, final)
        _sync_folder(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        former, _ = newest(folder)
        good = f"the former checkpoint {former.path} is still good" if former else "none was before"
        message = (
            f"cannot save {final}, {len(files[STATE]):,} bytes: {error.strerror or error}; {good}"
        )
        mend = "free that much space (a smaller keep_last needs less) or make the folder writable"
        raise OSError(error.errno, f"{message}. To go on from there, {mend}") from error
    upto = [path for path, note in _notes(folder).items() if note["step"] <= step]
    kept = {best(folder), *upto[-keep_last:]}
    for path in upto:
        if path not in kept:
            _discard(path)
    return final


def _make_way(final: Path) -> None:
    """Rename what stands in the place of a checkpoint, if it is none: damaged, or not ours."""
    try:
        load(final)
    except (ValueError, OSError):
        set_aside(final)
        return
    raise ValueError(
        f"{final} is there already, and holds another state of that step; none is ever replaced: "
        "move it away, or save into another folder"
    )


def _files(step: int, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> dict[str, bytes]:
    """What is to be on the disk; all checks are made here, before anything is touched."""
    count({"step": step}, "step", least=0, most=2**62)
    plain = {key for key, value in record.items() if is_plain({key: value})}
    if record.get("evaluation") is not None and _evaluation(record) is None:
        plain.discard("evaluation")
    if wrong := {key: record[key] for key in record if key not in plain}:
        raise ValueError(
            "a record must be plain JSON (lists for tuples, texts as keys, finite numbers), and "
            f"its evaluation a number or None; so this cannot be saved: {wrong}"
        )
    try:
        contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        state = safetensors.torch.save(contiguous, metadata={"format": "pt"})
    except (RuntimeError, KeyError, ValueError) as error:
        needs = "dense tensors of the usual types, each with its own memory (clone() gives it)"
        raise ValueError(f"{STATE} takes {needs}: {error}") from None
    about = {"bytes": len(state), "sha256": hashlib.sha256(state).hexdigest()}
    note = {"format": FORMAT, "version": VERSION, "step": step, "record": dict(record)}
    return {STATE: state, NOTE: _sealed(note | {"state": about})}


def _sealed(note: Mapping[str, Any]) -> bytes:
    """The one text of a note, in which the last key is the hash of all the others."""
    rest = {key: value for key, value in note.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(rest).encode("ascii")).hexdigest()
    return (json.dumps(rest | {"sha256": digest}, indent=2) + "\n").encode("ascii")


def _holds(path: Path, data: bytes) -> bool:
    return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return  # Windows cannot
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _discard(path: Path) -> None:
    """Remove a checkpoint so that a kill in the middle leaves nothing that looks whole."""
    partial = path if path.name.endswith(PARTIAL) else path.with_name(path.name + PARTIAL)
    try:
        if path != partial:
            os.rename(path, partial)
            _sync_folder(path.parent)
        shutil.rmtree(partial)
    except OSError as error:
        later = "the next save tries again, or delete it by hand"
        warnings.warn(f"{path} could not be deleted ({error}); {later}", stacklevel=3)


# --- reading ------------------------------------------------------------------------------------
def load(path: str | os.PathLike) -> Checkpoint:
    """Read a checkpoint, every byte of which is held against its hash.

    Args:
        path: of the folder, such as runs/tiny/step-00000040.

    Raises:
        ValueError: a file is missing, cut off, changed or a pickle; it is not ours, or of a newer
            version; says which file, what was expected and what was found.
    """
    path = Path(path)
    note, file = _note(path), path / STATE
    data = file.read_bytes()  # of the size that was declared, so memory is safe
    actual, expected = hashlib.sha256(data).hexdigest(), note["state"]["sha256"]
    if actual != expected:
        raise ValueError(f"{file} is damaged: its SHA-256 should be {expected}, and is {actual}")
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{file} is no safetensors file that torch can hold: {error}") from None
    return Checkpoint(note["step"], tensors, note["record"], path)


def _note(path: Path) -> dict[str, Any]:
    """checkpoint.json, if it is ours and whole, and the state has the size that it says."""
    file, state = path / NOTE, path / STATE
    if path.name.endswith(PARTIAL):
        raise ValueError(f"{path} was never finished, or half deleted; take another checkpoint")
    if missing := [each for each in (file, state) if not each.is_file()]:
        refuse_pickles([path, *path.glob("*")])
        named = f"give a folder such as {path / 'step-00000040'}, or ask `newest`"
        raise ValueError(f"{missing[0]} is missing, so {path} is no whole checkpoint; {named}")
    note = read_object(file)
    declared, ours = (note.get("format"), note.get("version")), (FORMAT, VERSION)
    if declared != ours:
        mend = "a newer version needs a newer minillm; another format is another program's"
        raise ValueError(f"{file} must say format and version {ours}; it says {declared}: {mend}")
    match note:
        case {"step": int(step), "record": dict(), "state": {"bytes": int(size), "sha256": str()}}:
            whole = _sealed(note) == file.read_bytes()
        case _:
            whole = False
    if not whole:
        seal = note.get("sha256")
        raise ValueError(
            f"{file} is damaged or was edited: its sha256, {seal!r}, is of other bytes"
        )
    if (actual := state.stat().st_size) != size:
        raise ValueError(
            f"{state} is cut off or damaged: it should be {size:,} bytes, not {actual:,}"
        )
    if NAME.fullmatch(path.name) and path.name != f"step-{step:08}":
        raise ValueError(f"{path} is of step {step} by its {NOTE}; give the folder its name back")
    return note


def _notes(folder: str | os.PathLike) -> dict[Path, dict[str, Any]]:
    notes = {}
    for path in complete(folder):
        with suppress(ValueError, OSError):
            notes[path] = _note(path)
    return notes


def _evaluation(record: Mapping[str, Any]) -> float | None:
    value = record.get("evaluation")
    return value if type(value) in (int, float) and math.isfinite(value) else None


def complete(folder: str | os.PathLike) -> list[Path]:
    """The checkpoints of a run by their names alone, the oldest first; none if there is no folder.

    Nothing is read, so one of them may be damaged; `load` and `newest` look inside.
    """
    folder = Path(folder)
    paths = folder.iterdir() if folder.is_dir() else ()
    named = [path for path in paths if NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(named, key=lambda path: int(path.name.removeprefix("step-")))


def newest(folder: str | os.PathLike) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that loads, and why each newer one was refused.

    Returns:
        None where there is none: the run begins at its beginning.
    """
    refused = []
    for path in reversed(complete(folder)):
        try:
            return load(path), refused
        except (ValueError, OSError) as error:
            refused.append(f"{path.name}: {error}")
    return None, refused


def best(folder: str | os.PathLike) -> Path | None:
    """The checkpoint with the lowest evaluation, of equals the first; None if none has any.

    The notes are read and checked, the tensors are not.
    """
    values = {path: _evaluation(note["record"]) for path, note in _notes(folder).items()}
    measured = {path: value for path, value in values.items() if value is not None}
    return min(measured, key=measured.__getitem__, default=None)
