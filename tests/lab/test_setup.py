import random

import matplotlib
import numpy as np
import pytest
import torch

from minillm.lab.pick import pick
from minillm.lab.setup import setup
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


def test_an_unknown_task_is_refused():
    with pytest.raises(ValueError, match="no task"):
        setup(mine=["99.1"])


def test_a_seed_too_large_for_numpy_is_a_seed(capsys):
    def draw():
        setup(seed=2**40 + 1)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw() == draw()
    assert capsys.readouterr().out == f"seed {2**40 + 1}\n" * 2


def test_one_thread_and_type_are_set(monkeypatch, torch_threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(2)
    setup(projector=True)
    assert torch.get_num_threads() == 1
    assert matplotlib.rcParams["font.size"] > 14
    setup()
    assert matplotlib.rcParams["font.size"] < 14


def test_one_task_need_not_stand_in_a_list_and_the_next_setup_forgets_it(my, capsys):
    setup(mine="0.2")
    assert pick(kv_cache_bytes) is kv_cache_bytes
    assert "no " in capsys.readouterr().out
    setup()
    pick(kv_cache_bytes)
    assert capsys.readouterr().out == "seed 0\n"
