"""minillm.bench.outliers: rows of every s and method, and one kind of matrix at a time."""

import pytest
import torch

from minillm.bench import outliers as bench
from minillm.bench._run import Finished
from minillm.data.packing import Packed
from minillm.model.config import TransformerConfig
from minillm.quant.plan import plan
from minillm.quant.rtn import Grid
from minillm.recipes.quantizing import Texts


def a_model():
    return TransformerConfig(vocab_size=20, context_length=16, d_model=32, n_layers=1).build(seed=0)


def some_texts():
    documents = torch.randint(1, 20, (30, 25), generator=torch.Generator().manual_seed(0))
    packed = Packed(documents.tolist(), end_id=0, context_length=16, batch_size=1)
    return Texts(packed, packed)


def test_what_gptq_takes_back_is_counted_for_each_draw_of_channels():
    finished = Finished()
    finished.results = {"s 8, 3 bits, rtn, seed 0": 2.0, "s 8, 3 bits, rtn, seed 1": 3.0}
    for name, losses in (("gptq", (1.5, 1.5)), ("gptq, ordered", (1.0, 3.0))):
        finished.results |= {
            f"s 8, 3 bits, {name}, seed {n}": each for n, each in enumerate(losses)
        }
    rtn, gptq, ordered = bench.losses(a_model(), some_texts(), 8, 1.0, (3,), (0, 1), finished)
    assert rtn["more"] == pytest.approx(1.5)
    assert gptq["closed"] == pytest.approx([0.5, 0.75])
    assert ordered["closed"] == pytest.approx([1.0, 0.0])


def test_without_outliers_rtn_is_measured_once_and_gptq_with_each_seed():
    finished = Finished()
    rows = list(bench.losses(a_model(), some_texts(), 1, 1.0, (4,), (0, 1), finished))
    assert [len(row["losses"]) for row in rows] == [1, 2, 2]
    assert finished.results.keys() == {
        "s 1, 4 bits, rtn, seed 0",
        *(f"s 1, 4 bits, {m}, seed {n}" for m in ("gptq", "gptq, ordered") for n in (0, 1)),
    }


def test_one_kind_of_matrix_is_quantized_and_the_others_stay():
    model, finished = a_model(), Finished()
    chosen = plan(model, "rtn", Grid(bits=2), tables=True)
    part = bench.only(chosen, lambda name: name.endswith("down"))
    assert list(part.quantized) == ["blocks.0.ffn.down"]
    assert part.bytes_before == chosen.bytes_before
    rows = bench.alone(model, some_texts(), 1.0, finished)
    by_kind = {(row["granularity"], row["kind"]): row for row in rows}
    assert len(rows) == 1 + 2 * (len(bench.KINDS) + 1)
    before, after = by_kind["float", "all"], by_kind["tensor", "embedding"]
    assert by_kind["tensor", "down"]["alike"] == before["alike"] != after["alike"]


def test_two_rows_that_point_the_same_way_have_the_cosine_1():
    assert bench.mean_cosine(torch.tensor([[1.0, 2.0], [2.0, 4.0]])) == pytest.approx(1)
    assert bench.mean_cosine(torch.tensor([[1.0, 2.0], [-2.0, -4.0]])) == pytest.approx(-1)


def test_the_tables_are_printed(capsys):
    figures = {
        "ranges": {"embedding": dict.fromkeys(("weight_peak", "weight_kurtosis", "c"), 2.5)},
        "planted": {"8": dict.fromkeys("abcdef", 7.25)},
        "alone": [{"granularity": "float", "kind": "all", "alike": 0.25}],
        "losses": [
            {"s": "8", "bits": 3, "method": "gptq", "loss": 1.5, "more": 0.5, "closed": [0.25]}
        ],
    }
    bench._print(figures)
    printed = capsys.readouterr().out
    assert "s = 8, most" in printed
    assert "+50.00%  25%" in printed
