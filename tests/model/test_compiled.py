"""torch.compile: the model and its step with a cache are each one graph, with the same numbers.

They run without the tests' own shape checks, so in a process of their own; in one, since importing
the compiler takes seconds. The whole graph is traced and run; turning it into machine code takes
ten times as long and is for `minillm bench model`.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

MODEL = """
import sys, torch
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.model.transformer import loss

assert "beartype" not in sys.modules
grouped = AttentionConfig(n_heads=4, n_kv_heads=2)
near = AttentionConfig(window_tokens=3, qk_norm=True)

def build(*mixers):
    return TransformerConfig(
        vocab_size=19, context_length=48, d_model=8, n_layers=len(mixers), mixer=mixers
    ).build(seed=0)
"""

TRAINED = """
model = build(grouped, near)
tokens = torch.randint(19, (2, 9), generator=torch.Generator().manual_seed(0))
eager = loss(model, tokens)
expected = torch.autograd.grad(eager.nats, list(model.parameters()))
compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")(model, tokens)
found = torch.autograd.grad(compiled.nats, list(model.parameters()))
torch.testing.assert_close(compiled, eager)
torch.testing.assert_close(found, expected)
print("equal")
"""

WRITTEN = """
from torch._dynamo.utils import counters
from minillm.serve import sample

counters.clear()
compile = torch.compile
torch.compile = lambda f, **options: compile(f, fullgraph=True, backend="aot_eager", **options)
greedy = sample.SampleConfig(temperature=0)
model = build(grouped)
for prompts in [[[7] * 11], [[1] * 5], [[4] * 13] * 3, [[9] * 7] * 6]:
    for n_tokens in (5, 30):
        expected = sample.generate(model, prompts, greedy, n_tokens=n_tokens)
        found = sample.generate(model, prompts, greedy, n_tokens=n_tokens, compiled=True)
        assert found == expected, (found, expected)
    print(counters["stats"]["unique_graphs"])
for model in model, build(near):
    prompts = [[4, 9, 1], [2]]  # filled up on the left
    expected = sample.generate(model, prompts, greedy, n_tokens=9)
    assert sample.generate(model, prompts, greedy, n_tokens=9, compiled=True) == expected
"""


@pytest.fixture(scope="module")
def printed():
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", MODEL + TRAINED + WRITTEN],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def test_trained_as_one_graph_it_is_the_same(printed):
    assert printed[0] == "equal"


def test_a_step_with_a_cache_is_one_graph_for_one_row_and_one_for_several_of_any_length(printed):
    assert printed[1:] == ["1", "1", "2", "2"]
