"""Ranks on this machine: their results, how they fail, and that nothing of them is left behind."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from minillm.parallel import cluster
from minillm.parallel.cluster import RankError, run
from tests.parallel import rank_functions_cluster as functions

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="ranks need Linux or macOS")
AMPLE = 300.0  # seconds; other programs may keep the cores busy


def never_ends():
    """With as much time as it takes on a busy machine to get there."""
    for time_limit in (10, 40, 160):
        try:
            run(functions.one_never_sends, 2, time_limit=time_limit)
        except RankError as error:
            if str(error).count("in one_never_sends") == 2:
                raise
    return "it never got there"


LAUNCHES = {
    "tell": lambda: run(functions.tell, 2, time_limit=AMPLE, words=["red", "梅"]),
    "fails": lambda: run(functions.one_fails, 2, time_limit=AMPLE),
    "is killed": lambda: run(functions.one_is_killed, 2, time_limit=AMPLE),
    "ends early": lambda: run(functions.one_ends_early, 2, time_limit=AMPLE),
    "aborts": lambda: run(functions.aborts_at_the_end, 1, time_limit=AMPLE),
    "never ends": never_ends,
    "leaves with 3": lambda: run(functions.leave, 1, time_limit=AMPLE, status=3),
    "leaves with 0": lambda: run(functions.leave, 1, time_limit=AMPLE, status=0),
}


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """What became of each launch, and the folder of their temporary folders."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patched, ThreadPoolExecutor(2) as pool:
        patched.setattr(tempfile, "tempdir", str(folder))
        pending = {name: pool.submit(launch) for name, launch in LAUNCHES.items()}
        results = {name: each.exception() or each.result() for name, each in pending.items()}
    return results, folder


def message(launched, name):
    error = launched[0][name]
    assert isinstance(error, RankError), error
    return str(error)


# --- by hand --------------------------------------------------------------------------------------
def test_results_come_by_rank(launched):
    assert launched[0]["tell"] == [
        {"words": ["red", "梅"], "rank": 0, "local": "0"},
        {"words": ["梅"], "rank": 1, "local": "1"},
    ]


def test_of_a_rank_that_fails_its_own_traceback_is_shown(launched):
    text = message(launched, "fails")
    assert text.startswith("rank 1 of 2 failed, the others were ended:\nTraceback")
    assert text.endswith("ValueError: out of plums\n")
    assert "in one_fails" in text
    assert "onnection" not in text  # what the other lost
    assert "minillm/parallel/cluster.py" not in text  # of no use to a reader


def test_a_rank_that_was_killed_is_named(launched):
    text = message(launched, "is killed")
    assert text == "rank 1 of 2 was killed by signal 9; the others were ended"


def test_a_rank_that_a_signal_ends_after_its_result_has_done_its_work(launched):
    assert launched[0]["aborts"] == ["done"]


def test_a_rank_stays_until_the_others_are_done_but_not_for_long(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(cluster, "GRACE", 0.2)
    (tmp_path / "0.json").touch()
    began = time.monotonic()
    cluster._wait_for_others(tmp_path)
    assert time.monotonic() - began >= 0.2
    (tmp_path / "1.json").touch()
    monkeypatch.setattr(cluster, "GRACE", 1000)
    cluster._wait_for_others(tmp_path)


def test_waiting_for_a_rank_that_has_ended_is_said_so(launched):
    text = message(launched, "ends early")
    assert text.startswith(
        "rank 0 of 2 failed (rank 1 had ended: do all call the same collectives?)"
    )
    assert "in one_ends_early" in text


def test_when_the_time_is_up_it_is_said_where_each_rank_stood(launched):
    text = message(launched, "never ends")
    assert "s rank 0, 1 of 2 had not ended. One may wait for a message that nobody sends" in text
    _, first, second = text.split(" stood here, ")
    assert "in barrier" in first
    assert "in _wait_for_all" in first
    assert "in barrier" not in second
    assert "in one_never_sends" in second


def test_a_rank_that_leaves_without_a_result_shows_what_it_printed(launched):
    for status in (3, 0):
        text = message(launched, f"leaves with {status}")
        assert text == f"rank 0 of 1 ended with status {status}:\nI would rather not\n"


# --- nothing is left ------------------------------------------------------------------------------
def test_nothing_is_left_behind(launched):
    folder = launched[1]
    assert list(folder.iterdir()) == []
    assert [p for p in psutil.process_iter(["cmdline"]) if _is_of(p, folder)] == []


def _is_of(process, folder):
    return any(str(folder) in word for word in process.info["cmdline"] or ())


PARENT = """
import sys
from minillm.parallel.cluster import run
from tests.parallel.rank_functions_cluster import stay
run(stay, 2, time_limit=None, folder=sys.argv[1])
"""


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A parent that gets a signal while its ranks are at work, for two signals at once."""
    parents, here = {}, {}
    for number in (signal.SIGTERM, signal.SIGKILL):
        here[number] = tmp_path_factory.mktemp("here")
        (here[number] / "temporary").mkdir()
        environment = os.environ | {"TMPDIR": str(here[number] / "temporary")}
        parents[number] = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(here[number])], env=environment
        )
    ranks, status = {}, {}
    for number, parent in parents.items():
        files = [here[number] / str(rank) for rank in range(2)]
        within(AMPLE, lambda files=files: all(file.exists() for file in files))
        ranks[number] = [int(file.read_text()) for file in files]
        assert not any(ended(pid) for pid in ranks[number])
        parent.send_signal(number)
        status[number] = parent.wait(AMPLE)
    return ranks, status, here


def within(seconds, happened):
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.05)


def ended(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_polite_kill_of_the_parent_ends_its_ranks_first(stopped):
    ranks, status, here = stopped
    assert status[signal.SIGTERM] == 128 + signal.SIGTERM
    assert all(ended(pid) for pid in ranks[signal.SIGTERM])
    assert list((here[signal.SIGTERM] / "temporary").iterdir()) == []


def test_the_ranks_of_a_parent_that_is_gone_end_by_themselves(stopped):
    ranks, status, _ = stopped
    assert status[signal.SIGKILL] == -signal.SIGKILL
    within(20, lambda: all(ended(pid) for pid in ranks[signal.SIGKILL]))


# --- refusals -------------------------------------------------------------------------------------
def test_a_function_that_no_process_could_import_is_refused():
    def local():
        pass

    for function in (local, lambda: 1):
        with pytest.raises(ValueError, match="must stand at the top of a module"):
            run(function, 2)
    functions.tell.__module__, before = "__main__", functions.tell.__module__
    try:
        with pytest.raises(ValueError, match="tell must stand at the top of a module"):
            run(functions.tell, 2)
    finally:
        functions.tell.__module__ = before


@pytest.mark.parametrize("n_ranks", [0, 65])
def test_a_number_of_ranks_that_is_none_is_refused(n_ranks):
    with pytest.raises(ValueError, match=f"from 1 to 64; got {n_ranks}"):
        run(functions.tell, n_ranks)


def test_windows_is_told_where_to_go(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ValueError, match="Run it in WSL"):
        run(functions.tell, 2)


def test_a_port_that_is_taken_is_named(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert not cluster.in_cluster()
        for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_PORT", port)):
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        assert cluster.in_cluster()
        words = rf"rank 0 could not meet the others at 127\.0\.0\.1:{port}: .*Is the port taken"
        with pytest.raises(RankError, match=f"(?s){words}"), cluster.joined(5):
            pass
