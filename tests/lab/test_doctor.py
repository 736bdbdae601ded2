from types import SimpleNamespace

from minillm.lab.doctor import diagnose, measure_gflops, memory_gib, report


def test_the_rate_is_operations_over_time(monkeypatch):
    ticks = iter([0.0, 0.5, 1.0, 2.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    # Two products of 2·100³ operations in 2.5 seconds.
    assert measure_gflops(seconds=2.0, size=100) == 2 * 2 * 100**3 / 2.5 / 1e9


def test_the_diagnosis_names_every_fact():
    facts = {name: found for name, found, _ in diagnose(seconds=0.05)}
    for name in ("Python", "torch", "cores", "threads used", "memory", "disk free", "figure font",
                 "matrix product", "running all"):  # fmt: skip
        assert facts[name]
    assert memory_gib() > 0.5


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("minillm.lab.doctor.PACKAGES", ("no-such-package",))
    lines = {name: (found, remark) for name, found, remark in diagnose(seconds=0.01)}
    assert lines["no-such-package"][0] == "missing"
    assert "make learn" in lines["no-such-package"][1]


def test_the_report_is_a_line_a_fact(capsys, monkeypatch):
    monkeypatch.setattr(
        "minillm.lab.doctor.diagnose", lambda: iter([("cores", "2", ""), ("disk", "1", "small")])
    )
    report()
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "          cores  2",
        "           disk  1   (small)",
    ]


def test_each_shortage_has_its_remark(monkeypatch, tmp_path):
    monkeypatch.setenv("MINILLM_MY", str(tmp_path / "none"))
    monkeypatch.setattr("minillm.lab.doctor.memory_gib", lambda: 3.9)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2**30))
    monkeypatch.setattr("minillm.lab.doctor.measure_gflops", lambda seconds: 6.0)
    lines = {name: (found, remark) for name, found, remark in diagnose()}
    assert lines["memory"] == ("3.9 GiB", "the course needs 4 GiB")
    assert lines["disk free"] == ("1.0 GiB", "the course needs 2 GiB")
    assert lines["your folder"][1] == "made by `minillm start`"
    assert lines["matrix product"] == ("6 GFLOP/s", "slow; is it busy?")
    slow = int(lines["running all"][0].split()[1])
    chapters = int(lines["running all"][1].split()[0])
    assert slow == round(chapters * 45 * 10 / 60)  # a tenth of the reference's speed


def test_enough_has_no_remark(monkeypatch, tmp_path):
    monkeypatch.setenv("MINILLM_MY", str(tmp_path))
    monkeypatch.setattr("minillm.lab.doctor.memory_gib", lambda: 4.0)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2**31))
    monkeypatch.setattr("minillm.lab.doctor.measure_gflops", lambda seconds: 15.0)
    lines = {name: remark for name, _, remark in diagnose()}
    assert [lines[n] for n in ("memory", "disk free", "your folder", "matrix product")] == [""] * 4


def test_a_system_that_does_not_tell_its_memory_is_no_error(monkeypatch):
    monkeypatch.setattr("minillm.lab.doctor.memory_gib", lambda: None)
    monkeypatch.setattr("minillm.lab.doctor.measure_gflops", lambda seconds: 60.0)
    assert ("memory", "unknown", "the course needs 4 GiB") in list(diagnose())
