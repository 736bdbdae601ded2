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
