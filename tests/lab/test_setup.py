import random

import matplotlib
import numpy as np
import pytest
import torch

from minillm.lab.pick import pick
from minillm.lab.setup import setup, threads
from minillm.model.count import kv_cache_bytes


def test_the_same_seed_gives_the_same_numbers(capsys):
    def draw():
        setup(seed=3)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw() == draw()
    assert capsys.readouterr().out == "seed 3\nseed 3\n"


@pytest.mark.parametrize("seed", [-1, 1.5, "0", True])
def test_a_seed_that_is_no_count_is_refused(seed):
    with pytest.raises(ValueError, match="whole number of at least 0"):
        setup(seed=seed)


def test_threads_follow_the_environment_and_else_are_at_most_two(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert threads() == 4
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert 1 <= threads() <= 2
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    with pytest.raises(ValueError, match="it is 'many'"):
        threads()


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match="no task"):
        setup(mine=["99.1"])


def test_a_seed_too_large_for_numpy_is_a_seed(capsys):
    def draw():
        setup(seed=2**40 + 1)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw() == draw()
    assert capsys.readouterr().out == f"seed {2**40 + 1}\n" * 2


def test_threads_and_type_are_set(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    setup(projector=True)
    assert torch.get_num_threads() == 1
    assert matplotlib.rcParams["font.size"] > 14
    setup()
    assert matplotlib.rcParams["font.size"] < 14
    with pytest.raises(ValueError, match="it is '0'"):
        monkeypatch.setenv("OMP_NUM_THREADS", "0")
        threads()


def test_one_task_need_not_stand_in_a_list_and_the_next_setup_forgets_it(my, capsys):
    setup(mine="0.2")
    assert pick(kv_cache_bytes) is kv_cache_bytes
    assert "no " in capsys.readouterr().out
    setup()
    pick(kv_cache_bytes)
    assert capsys.readouterr().out == "seed 0\n"
