import pytest
import torch

from minillm.lab.threads import threads, use_threads


def test_one_thread_is_the_default_however_many_cores_there_are(monkeypatch, torch_threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    torch.set_num_threads(2)
    assert threads() == 1
    use_threads()
    assert torch.get_num_threads() == 1


def test_a_recipe_may_ask_for_more_and_the_environment_has_the_last_word(
    monkeypatch, torch_threads
):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    use_threads(2)
    assert torch.get_num_threads() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert (threads(), threads(2)) == (3, 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert threads() == 4


@pytest.mark.parametrize("asked", ["many", "0"])
def test_what_is_no_number_of_threads_is_refused(monkeypatch, asked):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    with pytest.raises(ValueError, match=f"at least 1; it is '{asked}'"):
        threads()
