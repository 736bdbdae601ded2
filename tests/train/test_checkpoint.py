import errno
import hashlib
import json
import os
import shutil
import warnings

import pytest
import safetensors.torch
import torch

from minillm.train import checkpoint
from minillm.train.checkpoint import NOTE, STATE, best, complete, load, newest, save

OLD, NEW = {"x": torch.tensor([1.5, -0.0])}, {"x": torch.tensor([2.5, float("nan")])}


def bits(tensor):
    return tensor.dtype, list(tensor.shape), tensor.contiguous().view(-1).view(torch.uint8).tolist()


def same(found, expected):
    return {n: bits(t) for n, t in found.items()} == {n: bits(t) for n, t in expected.items()}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- by hand -----------------------------------------------------------------------------------
def test_a_checkpoint_is_a_file_of_tensors_and_a_note_that_says_what_it_must_be(tmp_path):
    path = save(tmp_path / "runs" / "tiny", 40, OLD, {"evaluation": 1.5})
    assert path == tmp_path / "runs" / "tiny" / "step-00000040"
    assert names(path) == [NOTE, STATE]
    data = (path / STATE).read_bytes()
    assert same(safetensors.torch.load(data), OLD)
    note = json.loads((path / NOTE).read_text(encoding="utf-8"))
    assert len(note.pop("sha256")) == 64
    assert note == {
        "format": "minillm checkpoint",
        "version": 1,
        "step": 40,
        "record": {"evaluation": 1.5},
        "state": {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()},
    }
    again = load(path)
    assert (again.step, again.record, again.path) == (40, {"evaluation": 1.5}, path)
    assert same(again.tensors, OLD)


def test_the_newest_and_the_best_are_kept_and_no_later_one_is_touched(tmp_path):
    for step, loss in ((10, 3.0), (20, 1.0), (30, 1.0), (40, 2.0), (50, None)):
        save(tmp_path, step, OLD, {"evaluation": loss}, keep_last=2)
    assert names(tmp_path) == ["step-00000020", "step-00000040", "step-00000050"]
    assert best(tmp_path) == tmp_path / "step-00000020"
    save(tmp_path, 45, OLD, {}, keep_last=1)  # someone went back to 40
    assert names(tmp_path) == ["step-00000020", "step-00000045", "step-00000050"]


def test_steps_are_ordered_as_numbers_and_other_names_are_not_ours(tmp_path):
    save(tmp_path, 99_999_999, OLD, {})
    save(tmp_path, 100_000_000, NEW, {})
    for name in ("step-7", "step-000000007", "step-00000007.partial", "best"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-00000001").write_text("a file", encoding="utf-8")
    assert [path.name for path in complete(tmp_path)] == ["step-99999999", "step-100000000"]
    assert newest(tmp_path)[0].step == 100_000_000


def test_a_run_without_checkpoints_begins_at_its_beginning(tmp_path):
    assert newest(tmp_path / "none") == (None, [])
    assert complete(tmp_path / "none") == []
    assert best(tmp_path) is None


def test_files_are_on_the_disk_before_the_name_and_the_name_before_anything_is_deleted(
    tmp_path, monkeypatch
):
    save(tmp_path, 1, OLD, {})
    done, real = [], {"fsync": os.fsync, "rename": os.rename, "rmtree": shutil.rmtree}
    opened = {}
    real_open = os.open

    def watch_open(path, flags, *rest, **more):
        handle = real_open(path, flags, *rest, **more)
        opened[handle] = os.path.basename(path)
        return handle

    def fsync(handle):
        linked = f"/proc/self/fd/{handle}"
        name = os.path.basename(os.readlink(linked)) if os.path.exists(linked) else opened[handle]
        done.append(("fsync", name))
        real["fsync"](handle)

    def rename(source, target):
        done.append(("rename", source.name, target.name))
        real["rename"](source, target)

    def rmtree(path, **options):
        done.append(("rmtree", path.name))
        real["rmtree"](path, **options)

    if not os.path.exists("/proc/self/fd"):
        pytest.skip("needs /proc to name an open file")
    monkeypatch.setattr(os, "open", watch_open)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(shutil, "rmtree", rmtree)
    save(tmp_path, 2, NEW, {}, keep_last=1)
    assert done == [
        ("fsync", tmp_path.parent.name),
        ("fsync", STATE),
        ("fsync", NOTE),
        ("fsync", "step-00000002.partial"),
        ("rename", "step-00000002.partial", "step-00000002"),
        ("fsync", tmp_path.name),
        ("rename", "step-00000001", "step-00000001.partial"),
        ("fsync", tmp_path.name),
        ("rmtree", "step-00000001.partial"),
    ]


# --- law ---------------------------------------------------------------------------------------
def test_the_same_checkpoint_may_be_saved_again_and_another_never_replaces_it(tmp_path):
    path = save(tmp_path, 3, OLD, {})
    assert save(tmp_path, 3, OLD, {}) == path
    for tensors, record in ((NEW, {}), (OLD, {"evaluation": 1.0})):
        with pytest.raises(ValueError, match="holds another state of that step"):
            save(tmp_path, 3, tensors, record)
    assert names(tmp_path) == ["step-00000003"]
    assert same(load(path).tensors, OLD)


@pytest.mark.parametrize("name", [STATE, NOTE])
def test_a_damaged_one_makes_way_and_is_kept_under_another_name(tmp_path, name):
    for n in (1, 2):
        path = save(tmp_path, 3, OLD, {})
        (path / name).write_bytes(b"torn")
        save(tmp_path, 3, NEW if n == 1 else OLD, {})
        assert (tmp_path / f"step-00000003.damaged-{n}" / name).read_bytes() == b"torn"
        assert same(load(path).tensors, NEW if n == 1 else OLD)
        if n == 1:
            shutil.rmtree(path)
    assert complete(tmp_path) == [path]


# --- what stops it: kills -----------------------------------------------------------------------
POINTS = ["mkdir", "fsync", "mkdir", "write", "fsync", "write", "fsync", "fsync", "rename", "fsync"]
DELETING = ["rename", "fsync", "rmtree"]


def half_write(path, data):
    path.write_bytes(data[: len(data) // 2])


def half_rmtree(path, **_):
    (path / STATE).unlink()


def killed_at(folder, last, half):
    """Save step 2 in a forked process that dies at a point, having done half of it or nothing.

    Its exit code: 9 if it died there, 0 if it never came there.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child starts no threads
        child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    seen = []

    def point(real, part=None):
        def call(*arguments, **options):
            seen.append(real)
            if len(seen) > last:
                if half and part:
                    part(*arguments, **options)
                os._exit(9)
            return real(*arguments, **options)

        return call

    try:
        os.fsync, os.rename, os.mkdir = point(os.fsync), point(os.rename), point(os.mkdir)
        shutil.rmtree = point(shutil.rmtree, half_rmtree)
        checkpoint._write = point(checkpoint._write, half_write)
        save(folder, 2, NEW, {}, keep_last=1)
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("former", [False, True], ids=["first save", "second save"])
def test_a_kill_at_any_point_leaves_the_old_or_the_new_one_whole(tmp_path, former):
    points = [*POINTS, *DELETING] if former else POINTS
    halves = [(n, True) for n, name in enumerate(points) if name in ("write", "rmtree")]
    for last, half in [*((n, False) for n in range(len(points) + 1)), *halves]:
        folder = tmp_path / f"{last}{half}"
        folder.mkdir()
        if former:
            save(folder, 1, OLD, {})
        assert killed_at(folder, last, half) == (9 if last < len(points) else 0)
        found, refused = newest(folder)
        assert refused == []
        if last > POINTS.index("rename"):
            assert found.step == 2
            assert same(found.tensors, NEW)
        elif former:
            assert found.step == 1
            assert same(found.tensors, OLD)
        else:
            assert found is None
        save(folder, 3, OLD, {}, keep_last=1)  # goes on, and cleans up
        assert names(folder) == ["step-00000003"]


# --- what stops it: the disk --------------------------------------------------------------------
class Full:
    """A file that takes half of what is written and then says that the disk is full."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, data):
        self.file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("name", [STATE, NOTE])
def test_a_full_disk_leaves_the_former_one_and_says_how_to_mend_it(tmp_path, monkeypatch, name):
    former = save(tmp_path, 1, OLD, {})

    def opened(path, mode):
        return Full(open(path, mode)) if path.name == name else open(path, mode)

    monkeypatch.setattr(checkpoint, "open", opened, raising=False)
    with pytest.raises(OSError, match="cannot save") as caught:
        save(tmp_path, 2, NEW, {}, keep_last=1)
    assert caught.value.errno == errno.ENOSPC
    assert str(tmp_path / "step-00000002") in str(caught.value)
    assert f"the former checkpoint {former} is still good" in str(caught.value)
    assert "free that much space" in str(caught.value)
    assert names(tmp_path) == ["step-00000001"]
    assert same(load(former).tensors, OLD)
    monkeypatch.undo()
    save(tmp_path, 2, NEW, {})
    assert newest(tmp_path)[0].step == 2


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_any_other_failure_of_the_disk_keeps_its_errno(tmp_path, monkeypatch, call):
    def fail(*_):
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="none was before") as caught:
        save(tmp_path, 2, NEW, {})
    assert caught.value.errno == errno.EIO
    assert names(tmp_path) == []


def test_what_cannot_be_deleted_is_warned_of_and_deleted_by_a_later_save(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise PermissionError(errno.EACCES, "in use")

    save(tmp_path, 1, OLD, {})
    monkeypatch.setattr(shutil, "rmtree", fail)
    with pytest.warns(UserWarning, match="could not be deleted"):
        save(tmp_path, 2, OLD, {}, keep_last=1)
    assert names(tmp_path) == ["step-00000001.partial", "step-00000002"]
    monkeypatch.undo()
    save(tmp_path, 3, OLD, {}, keep_last=1)
    assert names(tmp_path) == ["step-00000003"]


# --- what stops it: files -----------------------------------------------------------------------
@pytest.mark.parametrize("name", [STATE, NOTE])
def test_every_changed_byte_is_seen_and_the_one_before_is_taken(tmp_path, name):
    save(tmp_path, 1, OLD, {})
    path = save(tmp_path, 2, NEW, {"text": "é", "rate": 1e-05})
    data = (path / name).read_bytes()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 0x20 if data[place : place + 1].isalpha() else 1  # e is E: the same JSON
        (path / name).write_bytes(changed)
        with pytest.raises(ValueError, match=name):
            load(path)
    found, [reason] = newest(tmp_path)
    assert found.step == 1
    assert reason.startswith("step-00000002: ") and name in reason


@pytest.mark.parametrize("name", [STATE, NOTE])
def test_a_file_that_is_cut_off_or_missing_is_named(tmp_path, name):
    path = save(tmp_path, 2, NEW, {})
    data = (path / name).read_bytes()
    (path / name).write_bytes(data[:-1])
    with pytest.raises(ValueError, match=f"{name} is "):
        load(path)
    (path / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        load(path)


def test_sizes_are_compared_before_anything_is_read(tmp_path):
    path = save(tmp_path, 2, NEW, {"evaluation": 1.0})
    size = (path / STATE).stat().st_size
    with open(path / STATE, "ab") as file:
        file.write(b"0")
    with pytest.raises(ValueError, match=f"should be {size} bytes, not {size + 1}"):
        load(path)
    assert best(tmp_path) is None
    save(tmp_path, 3, OLD, {}, keep_last=1)
    assert path.is_dir()  # what is damaged is not ours to delete


def reseal(path, **changes):
    note = json.loads((path / NOTE).read_bytes())
    note = {key: value for key, value in (note | changes).items() if value is not None}
    (path / NOTE).write_bytes(checkpoint._sealed(note))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, r"must say format and version \('minillm checkpoint', 1\).*other"),
        ({"version": 2}, r"must say.*it says \('minillm checkpoint', 2\): a newer version needs"),
        ({"step": 3}, "is of step 3 by its"),
        ({"step": "2"}, "is damaged or was edited"),
        ({"record": None}, "is damaged or was edited"),
        ({"state": {"bytes": 1}}, "is damaged or was edited"),
    ],
)
def test_a_note_that_is_foreign_newer_or_of_other_keys_is_refused(tmp_path, changes, message):
    path = save(tmp_path, 2, NEW, {})
    reseal(path, **changes)
    with pytest.raises(ValueError, match=message):
        load(path)
    assert newest(tmp_path)[0] is None


def test_a_state_that_is_no_safetensors_file_is_refused_whatever_its_note_says(tmp_path):
    path = save(tmp_path, 2, NEW, {})
    for data in (b"\x80\x04K\x01.", b"rubbish of some length"):
        (path / STATE).write_bytes(data)
        reseal(path, state={"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
        with pytest.raises(ValueError, match="no safetensors file that torch can hold"):
            load(path)


def test_pickles_partials_and_other_folders_are_refused_as_what_they_are(tmp_path):
    (tmp_path / "last.pt").write_bytes(b"\x80")
    for path in (tmp_path, tmp_path / "last.pt"):
        with pytest.raises(ValueError, match=r"last\.pt: a pickle"):
            load(path)
    path = save(tmp_path / "run", 2, NEW, {})
    with pytest.raises(ValueError, match="ask `newest`"):
        load(tmp_path / "run")
    path.rename(path.with_name("step-00000002.partial"))
    with pytest.raises(ValueError, match="never finished, or half deleted"):
        load(tmp_path / "run" / "step-00000002.partial")


# --- what stops it: arguments -------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": -1}, "step must be a whole number from 0"),
        ({"step": True}, "step must be a whole number"),
        ({"keep_last": 0}, "keep_last must be a whole number from 1"),
        ({"record": {"betas": (0.9, 0.99)}}, r"must be plain JSON.*betas"),
        ({"record": {"evaluation": float("nan")}}, "its evaluation a number or None.*nan"),
        ({"record": {"evaluation": True}}, "its evaluation a number or None.*True"),
        ({"tensors": {"a": OLD["x"], "b": OLD["x"]}}, "each with its own memory"),
        ({"tensors": {"a": torch.zeros(1, dtype=torch.complex128)}}, "of the usual types"),
    ],
)
def test_what_cannot_be_saved_is_refused_before_the_disk_is_touched(tmp_path, change, message):
    keep = {"keep_last": change.pop("keep_last", 3)}
    arguments = {"folder": tmp_path / "run", "step": 1, "tensors": OLD, "record": {}} | change
    with pytest.raises(ValueError, match=message):
        save(**arguments, **keep)
    assert names(tmp_path) == []
