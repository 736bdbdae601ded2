"""minillm.bench.quant: the benchmark runs, and its rows say what was measured."""

import pytest
import torch

from minillm.bench import quant as bench
from minillm.bench._run import Finished
from minillm.data.packing import Packed
from minillm.model.config import TransformerConfig
from minillm.quant.rtn import Grid
from minillm.recipes.quantizing import Texts


def test_rows_are_of_every_grid_and_method_and_gptq_is_run_with_each_seed():
    model = TransformerConfig(vocab_size=20, context_length=16, d_model=32, n_layers=1).build()
    documents = torch.randint(1, 20, (30, 25), generator=torch.Generator().manual_seed(0))
    packed = Packed(documents.tolist(), end_id=0, context_length=16, batch_size=1)
    finished = Finished()
    rows = bench.losses(model, Texts(packed, packed), [2], [0, 1], finished)
    assert [(row["bits"], row["grid"], row["method"]) for row in rows] == [
        (32, "", "float"),
        *((2, grid, method) for grid in bench.GRIDS for method in ("rtn", "gptq")),
        (4, "blocks of 64", "nf4"),
    ]
    assert {row["method"]: len(row["losses"]) for row in rows} == {
        **{"float": 1, "rtn": 1, "gptq": 2, "nf4": 1}
    }
    sizes = [row["bytes"] for row in rows]
    assert rows[0]["bytes"] > 8 * rows[1]["bytes"]
    assert sizes[1] == sizes[2] == min(sizes)  # a scale a matrix
    assert len(finished.results) == 1 + len(bench.GRIDS) * (1 + 2) + 1
    again = bench.losses(model, Texts(packed, packed), [2], [0, 1], finished)
    assert again == rows  # nothing is measured twice


def test_what_gptq_takes_back_is_a_share_of_what_was_lost():
    results = {"float": 1.0, "nf4, None, seed 0, table in 8 bits": 1.0}
    for options in bench.GRIDS.values():
        results |= {
            f"{method}, {Grid(bits=4, **options)}, seed {seed}, table in 8 bits": loss
            for method, loss in (("rtn", 1.4), ("gptq", 1.1))
            for seed in (0, 1)
        }
    finished = Finished()
    finished.results = results
    model = TransformerConfig(vocab_size=20, d_model=32, n_layers=1).build()
    rows = bench.losses(model, None, [4], [0, 1], finished)
    closed = [row["closed"] for row in rows if row["method"] == "gptq"]
    assert closed == pytest.approx([0.75] * len(bench.GRIDS))
    assert rows[2]["more"] == pytest.approx(0.1)


def test_products_are_timed_and_the_tables_printed(capsys):
    times = bench.seconds(32, 48, n_repeats=2, n_times=1)
    assert times.keys() == {"float32", "int8", "int4"}
    assert min(times.values()) > 0
    row = {"bits": 4, "grid": "channel", "method": "gptq", "bytes": 4100, "more": 0.1}
    bench._print([row | {"losses": [1.0, 1.2], "loss": 1.1, "closed": 0.5}], {"32 × 48": times})
    printed = capsys.readouterr().out
    assert "+10.00%  1.0000 to 1.2000  closed 50%" in printed
    assert "one row times 32 × 48: float32 " in printed


def test_a_model_with_codes_takes_fewer_bytes_and_all_contenders_write():
    result = bench.writing(320, 1, n_tokens=8, n_repeats=1)
    assert result["ms"].keys() >= {"float32", "bfloat16", "int8", "int4"}
    assert result["ms"].keys() == result["bytes"].keys()
    table, norms = 1024 * 320, 3 * 320
    assert result["bytes"]["float32"] == 4 * result["n_parameters"]
    n_weights = result["n_parameters"] - table - norms
    n_outputs = 3 * 320 + 320 + 2 * 864 + 320
    assert result["bytes"]["int8"] == 2 * (table + norms) + n_weights + 2 * n_outputs
    assert result["bytes"]["int4"] == 2 * (table + norms) + n_weights // 2 + 4 * n_weights // 32


def test_writing_is_told_beside_both_in_float32_with_its_targets(capsys):
    ms = {"float32": 3.0, "int8": 2.0, "int4": 1.5, "transformers": 3.6}
    sizes = dict.fromkeys(ms, 2_000_000)
    bench._print_writing({"10m": {"n_parameters": 10, "ms": ms, "bytes": sizes}})
    printed = capsys.readouterr().out
    assert "int4           666.7 tokens/s     2.0 MB  2.00 times as fast as float32," in printed
    assert "int4 against float32: at least 1.5: met" in printed
    assert "int4 against transformers: at least 2: met" in printed
