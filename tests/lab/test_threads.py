import json
import os
import subprocess
import sys

import pytest
import torch

from minillm.lab.threads import threads, use_threads

#: Every way in, as far as the place where it would compute; torch begins with three threads.
WAYS_IN = """
import json, sys
import torch
from minillm import cli
from minillm.bench import bpe
from minillm.lab import setup
from minillm.recipes import run
from minillm.zoo import checkpoints

seen = {}

def note(*_, **__):
    seen[way] = torch.get_num_threads()
    raise ValueError("far enough")

run.corpus = checkpoints.open_model = bpe.run = note
for words in (["train", "town-1m"], ["sample", "hi", "--model", "town-1m"], ["bench", "bpe"]):
    way = words[0]
    torch.set_num_threads(3)
    sys.argv = ["minillm", *words]
    try:
        cli.main()
    except SystemExit:
        pass
torch.set_num_threads(3)
setup.setup()
seen["a notebook"] = torch.get_num_threads()
print(json.dumps(seen))
"""


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


def test_every_way_in_computes_with_one_thread_unless_somebody_asks_for_more(tmp_path):
    environment = {key: os.environ[key] for key in os.environ if key != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", WAYS_IN]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ways = ("train", "sample", "bench", "a notebook")  # and graders: see test_grade
    assert json.loads(done.stdout.splitlines()[-1]) == dict.fromkeys(ways, 1)
