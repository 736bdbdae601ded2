import pytest


@pytest.fixture
def my(tmp_path, monkeypatch):
    """A learner's folder of its own for one test."""
    monkeypatch.setenv("MINILLM_MY", str(tmp_path / "my"))
    monkeypatch.delenv("MINILLM_BUILD", raising=False)
    return tmp_path / "my"
