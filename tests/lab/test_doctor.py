from types import SimpleNamespace

import pytest
import torch

from minillm.lab import doctor
from minillm.lab.doctor import diagnose, measure_gflops, memory_gib, report


@pytest.fixture
def idle(monkeypatch):
    """A machine with two cores that does nothing else, and takes no time to be measured."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(doctor, "busy_cores", lambda seconds: 0.1)
    monkeypatch.setattr(doctor, "gain_of_a_second_thread", lambda seconds: 1.16)
    monkeypatch.setattr(doctor, "gain_of_bfloat16", lambda seconds: 0.9)
    monkeypatch.setattr(doctor, "measure_gflops", lambda seconds: 50.0)


def test_the_rate_is_operations_over_time(monkeypatch):
    ticks = iter([0.0, 0.5, 1.0, 2.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    # Two products of 2·100³ operations in 2.5 seconds.
    assert measure_gflops(seconds=2.0, size=100) == 2 * 2 * 100**3 / 2.5 / 1e9


def test_the_diagnosis_names_every_fact(monkeypatch):
    monkeypatch.setattr(doctor, "gain_of_a_second_thread", lambda seconds: 1.16)
    facts = {name: found for name, found, _ in diagnose(seconds=0.05)}
    names = ["Python", "torch", "cores", "threads used", "other programs", "a second thread"]
    names += ["bfloat16", "memory", "disk free", "figure font", "matrix product", "running all"]
    for name in names:
        assert facts[name]
    assert memory_gib() > 0.5


def test_what_a_second_thread_brings_is_the_ratio_of_the_medians(monkeypatch):
    # A step of one thread takes 3 s, one of two threads 2 s, and the first of each far longer.
    lasts = [99, 99, 3, 2, 3, 2, 3, 2]
    ends = [sum(lasts[: n + 1]) for n in range(len(lasts))]
    ticks = iter(
        [0, *(t for last, end in zip(lasts, ends, strict=True) for t in (end - last, end))]
    )
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks, 999))
    n_threads, before = [], torch.get_num_threads()
    monkeypatch.setattr("torch.set_num_threads", n_threads.append)
    assert doctor.gain_of_a_second_thread(seconds=0) == 1.5
    assert n_threads == [1, 2] * 4 + [before]


@pytest.mark.parametrize(
    ("gain", "remark"), [(1.16, "the course uses one"), (1.6, "OMP_NUM_THREADS=2 asks for it")]
)
def test_a_second_thread_is_advised_only_where_it_brings_much(idle, monkeypatch, gain, remark):
    monkeypatch.setattr(doctor, "gain_of_a_second_thread", lambda seconds: gain)
    assert ("a second thread", f"steps {gain:.2f} times as fast", remark) in list(diagnose())


@pytest.mark.parametrize(
    ("gain", "remark"), [(1.1, "the course trains in float32"), (1.5, 'precision = "bf16"')]
)
def test_bfloat16_is_advised_only_where_it_brings_much(idle, monkeypatch, gain, remark):
    monkeypatch.setattr(doctor, "gain_of_bfloat16", lambda seconds: gain)
    line = next(line for line in diagnose() if line[0] == "bfloat16")
    assert line[1] == f"steps {gain:.2f} times as fast"
    assert remark in line[2]


def test_what_bfloat16_brings_is_the_ratio_of_the_medians(monkeypatch):
    # A pass of float32 takes 3 s, one of bfloat16 2 s, and the first of each far longer.
    lasts = [99, 99, 3, 2, 3, 2, 3, 2]
    ends = [sum(lasts[: n + 1]) for n in range(len(lasts))]
    ticks = iter(
        [0, *(t for last, end in zip(lasts, ends, strict=True) for t in (end - last, end))]
    )
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks, 999))
    assert doctor.gain_of_bfloat16(seconds=0) == 1.5


def test_it_warns_while_something_else_keeps_the_machine_busy(idle, monkeypatch):
    assert ("other programs", "keep 0.1 cores busy", "") in list(diagnose())
    monkeypatch.setattr(doctor, "busy_cores", lambda seconds: 1.0)
    (warned,) = [remark for name, _, remark in diagnose() if name == "other programs"]
    assert "what is timed will differ" in warned
    assert ("a second thread", "not measured", "no core is free for it") in list(diagnose())
    monkeypatch.setattr(doctor, "busy_cores", lambda seconds: None)
    assert ("other programs", "unknown", "") in list(diagnose())


def test_busy_is_the_share_of_all_cores_that_others_take(monkeypatch):
    monkeypatch.setattr("psutil.cpu_percent", lambda seconds: 25.0)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert doctor.busy_cores(0.0) == 2.0


def test_a_missing_package_says_how_to_get_it(idle, monkeypatch):
    monkeypatch.setattr("minillm.lab.doctor.PACKAGES", ("no-such-package",))
    lines = {name: (found, remark) for name, found, remark in diagnose(seconds=0.01)}
    assert lines["no-such-package"][0] == "missing"
    assert "make learn" in lines["no-such-package"][1]


def test_the_report_is_a_line_a_fact(capsys, monkeypatch):
    monkeypatch.setattr(
        "minillm.lab.doctor.diagnose", lambda: iter([("cores", "2", ""), ("disk", "1", "small")])
    )
    report([("sandbox", "time", "")])
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "          cores  2",
        "           disk  1   (small)",
        "        sandbox  time",
    ]


def test_each_shortage_has_its_remark(idle, monkeypatch, tmp_path):
    monkeypatch.setenv("MINILLM_MY", str(tmp_path / "none"))
    monkeypatch.setattr("minillm.lab.doctor.memory_gib", lambda: 3.9)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2**30))
    monkeypatch.setattr("minillm.lab.doctor.measure_gflops", lambda seconds: 5.0)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    lines = {name: (found, remark) for name, found, remark in diagnose()}
    assert lines["memory"] == ("3.9 GiB", "the course needs 4 GiB")
    assert lines["disk free"] == ("1.0 GiB", "the course needs 2 GiB")
    assert lines["your folder"][1] == "made by `minillm start`"
    assert lines["matrix product"] == ("5 GFLOP/s", "slow; is it busy?")
    assert lines["cores"] == ("1", "one core: make test takes twice as long")
    assert lines["threads used"] == ("2", "OMP_NUM_THREADS says so")
    assert lines["a second thread"][0] == "not measured"
    slow = int(lines["running all"][0].split()[1])
    chapters = int(lines["running all"][1].split()[0])
    assert slow == round(chapters * 45 * 10 / 60)  # a tenth of the reference's speed


def test_enough_has_no_remark(idle, monkeypatch, tmp_path):
    monkeypatch.setenv("MINILLM_MY", str(tmp_path))
    monkeypatch.setattr("minillm.lab.doctor.memory_gib", lambda: 4.0)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2**31))
    monkeypatch.setattr("minillm.lab.doctor.measure_gflops", lambda seconds: 12.0)
    lines = {name: remark for name, _, remark in diagnose()}
    fine = ("cores", "threads used", "memory", "disk free", "your folder", "matrix product")
    assert [lines[name] for name in fine] == [""] * len(fine)


def test_a_system_that_does_not_tell_its_memory_is_no_error(idle, monkeypatch):
    monkeypatch.setattr("minillm.lab.doctor.memory_gib", lambda: None)
    assert ("memory", "unknown", "the course needs 4 GiB") in list(diagnose())
