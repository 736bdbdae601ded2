"""minillm.bench.quant: the benchmark runs, and its rows say what was measured."""

import pytest
import torch

from minillm.bench import quant as bench
from minillm.bench._run import Finished
from minillm.data.packing import Packed
from minillm.model.config import TransformerConfig
from minillm.recipes.quantizing import Texts


def test_rows_are_of_every_grid_and_method_and_gptq_is_run_with_each_seed():
    model = TransformerConfig(vocab_size=20, context_length=16, d_model=32, n_layers=1).build()
    documents = torch.randint(1, 20, (30, 25), generator=torch.Generator().manual_seed(0))
    packed = Packed(documents.tolist(), end_id=0, context_length=16, batch_size=1)
    finished = Finished()
    rows = bench.losses(model, Texts(packed, packed), [2], [0, 1], finished)
    assert [(row["bits"], row["grid"], row["method"]) for row in rows] == [
        (32, "", "float"),
        *(
            (2, grid, method)
            for grid in ("tensor", "channel", "group 32", "asymmetric")
            for method in ("rtn", "gptq")
        ),
        (4, "blocks of 64", "nf4"),
    ]
    assert {row["method"]: len(row["losses"]) for row in rows} == {
        **{"float": 1, "rtn": 1, "gptq": 2, "nf4": 1}
    }
    assert rows[1]["a_weight"] == pytest.approx(2, abs=0.01)
    assert len(finished.results) == 1 + 4 * (1 + 2) + 1
    again = bench.losses(model, Texts(packed, packed), [2], [0, 1], finished)
    assert again == rows  # nothing is measured twice


def test_what_gptq_takes_back_is_a_share_of_what_was_lost():
    results = {"float": 1.0, "nf4, None, seed 0": 1.0}
    for granularity in ("tensor", "channel", "group 32", "channel, asymmetric"):
        results |= {
            f"{method}, 4 bits, {granularity}, seed {seed}": loss
            for method, loss in (("rtn", 1.4), ("gptq", 1.1))
            for seed in (0, 1)
        }
    finished = Finished()
    finished.results = results
    model = TransformerConfig(vocab_size=20, d_model=32, n_layers=1).build()
    rows = bench.losses(model, None, [4], [0, 1], finished)
    assert [row["closed"] for row in rows if row["method"] == "gptq"] == pytest.approx([0.75] * 4)
    assert rows[2]["more"] == pytest.approx(0.1)


def test_products_are_timed_and_the_tables_printed(capsys):
    times = bench.seconds(32, 48, n_repeats=2, n_times=1)
    assert times.keys() == {"float32", "int8", "int4"}
    assert min(times.values()) > 0
    row = {"bits": 4, "grid": "channel", "method": "gptq", "a_weight": 4.1, "more": 0.1}
    bench._print([row | {"losses": [1.0, 1.2], "loss": 1.1, "closed": 0.5}], {"32 × 48": times})
    printed = capsys.readouterr().out
    assert "+10.00%  1.0000 to 1.2000  closed 50%" in printed
    assert "one row times 32 × 48: float32 " in printed
