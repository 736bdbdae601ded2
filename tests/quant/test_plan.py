from dataclasses import replace

import pytest
import torch
from torch import nn

from minillm.experts.moe import MoEConfig
from minillm.mixers.mamba import MambaConfig
from minillm.mixers.rwkv import RWKVConfig
from minillm.model.config import TransformerConfig, tiny
from minillm.quant import apply
from minillm.quant.nf4 import NF4Config
from minillm.quant.plan import plan
from minillm.quant.rtn import Grid

SMALL = TransformerConfig(vocab_size=40, context_length=32, d_model=32, n_layers=2)


def names(chosen, method):
    return [line.name for line in chosen.lines if line.method == method]


# --- by hand --------------------------------------------------------------------------------------
def test_every_matrix_of_a_block_is_in_the_plan_and_tables_are_kept():
    model = SMALL.build()
    chosen = plan(model, "rtn", Grid(bits=4))
    parts = ("mixer.qkv", "mixer.output", "ffn.gate_up", "ffn.down")
    assert names(chosen, "rtn") == [f"blocks.{n}.{part}" for n in range(2) for part in parts]
    assert names(chosen, "kept") == ["embedding", "head", "others"]
    assert chosen.lines[1].bytes_before == 4 * 96 * 32
    assert chosen.lines[1].bytes_after == 96 * 32 // 2 + 2 * 96
    assert chosen.bytes_before == sum(p.nbytes for p in model.parameters())
    n_weights = sum(
        layer.weight.numel() for layer in model.blocks.modules() if isinstance(layer, nn.Linear)
    )
    n_rows = 2 * (96 + 32 + 2 * 88 + 32)
    assert chosen.bits_per_weight == pytest.approx(4 + 16 * n_rows / n_weights)


def test_tables_are_rounded_to_nearest_by_gptq_too():
    chosen = plan(SMALL.build(), "gptq", tables=True)
    assert names(chosen, "rtn") == ["embedding", "head"]
    assert len(names(chosen, "gptq")) == 8
    tied = plan(replace(SMALL, tied_embeddings=True).build(), "nf4", tables=True)
    assert names(tied, "nf4")[0] == "embedding"
    assert "head" not in {line.name for line in tied.lines}
    own = plan(SMALL.build(), "gptq", Grid(bits=2), tables=Grid(bits=8))
    grids = {name: line.grid.bits for name, line in own.quantized.items()}
    assert (grids["embedding"], grids["head"], grids["blocks.0.ffn.down"]) == (8, 8, 2)


def test_routers_stay_in_float_and_experts_do_not():
    ffn = MoEConfig(n_experts=3, n_shared=1, d_expert=16)
    chosen = plan(replace(SMALL, n_layers=1, ffn=ffn).build(), "nf4")
    assert "blocks.0.ffn.router" in names(chosen, "kept")
    quantized = names(chosen, "nf4")
    assert "blocks.0.ffn.experts.2.down" in quantized
    assert "blocks.0.ffn.shared.gate_up" in quantized


def test_matrices_of_other_mixers_are_quantized_and_bare_parameters_are_not():
    model = replace(SMALL, mixer=(MambaConfig(), RWKVConfig())).build()
    chosen = plan(model, "rtn")
    assert {f"blocks.0.mixer.{name}_proj" for name in ("in", "x", "out")} <= chosen.quantized.keys()
    mine = {"receptance", "key", "value", "output"}
    assert {f"blocks.1.mixer.{name}" for name in mine} <= chosen.quantized.keys()
    assert chosen.bytes_before == sum(part.nbytes for part in model.state_dict().values())
    assert "blocks.0.mixer.dt_proj_weight" not in {line.name for line in chosen.lines}


def test_a_group_that_does_not_divide_a_row_gives_way_to_the_nearest_that_does():
    chosen = plan(tiny(50).build(), "rtn", Grid(granularity=32, symmetric=False))
    (line,) = [line for line in chosen.lines if line.name == "blocks.1.ffn.down"]
    assert line.grid == Grid(granularity=44, symmetric=False)
    assert line.note == "32 does not divide 176"
    assert line.bytes_after == 64 * 176 // 2 + 4 * 64 * 4


def test_a_plan_is_a_table_whose_columns_stand_under_each_other():
    chosen = plan(tiny(50).build(), "rtn", Grid(bits=3, granularity=32, symmetric=False))
    head, *rows = str(chosen).splitlines()
    assert len(rows) == len(chosen.lines) == 11
    assert len({len(row) for row in (head, *rows)}) == 1
    assert rows[1].split() == [
        *["blocks.0.mixer.qkv", "192", "×", "64", "rtn"],
        *["3", "bits,", "group", "32,", "asymmetric", "49,152", "6,144"],
    ]


# --- what is refused ------------------------------------------------------------------------------
def test_methods_and_grids_that_do_not_go_together_are_refused():
    model = SMALL.build()
    for method, grid in (("rtn", NF4Config()), ("nf4", Grid()), ("awq", Grid())):
        with pytest.raises(ValueError, match="a method is rtn or gptq, with a Grid, or nf4"):
            plan(model, method, grid)


def test_a_group_that_fits_no_row_names_the_matrix_and_what_would_fit():
    with pytest.raises(ValueError, match=r"blocks\.0\.mixer\.qkv has rows of 32.*groups of 100"):
        plan(SMALL.build(), "rtn", Grid(granularity=100))


def test_weights_that_are_no_numbers_are_named():
    model = SMALL.build()
    with torch.no_grad():
        model.blocks[1].ffn.down.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"blocks\.1\.ffn\.down: there are weights that are NaN"):
        plan(model, "nf4")


def test_a_model_that_is_quantized_already_is_refused():
    model = SMALL.build()
    small, _ = apply.quantize(model, plan(model, "nf4"))
    with pytest.raises(ValueError, match=r"quantized already \(blocks\.0\.mixer\.qkv\)"):
        plan(small, "rtn")
