"""minillm.bench.qat: every variant is trained alike, and shares are of what rounding lost."""

from dataclasses import replace

import pytest
import torch

from minillm.bench import qat as bench
from minillm.bench._run import Finished
from minillm.data.packing import Packed
from minillm.model.config import TransformerConfig
from minillm.recipes.quantizing import Texts

WORK = bench.Work(n_steps=2, batch_size=2, rates=(1e-3, 1e-2), seeds=(0, 1), warmup_steps=1)
UNTRAINED = ["float", "rtn", "clipped", "rtn, 4 numbers"]


def model_and_texts():
    config = TransformerConfig(vocab_size=20, context_length=16, d_model=32, n_layers=1)
    documents = torch.randint(1, 20, (30, 25), generator=torch.Generator().manual_seed(0))
    packed = Packed(documents.tolist(), end_id=0, context_length=16, batch_size=1)
    return replace(config, tied_embeddings=True, initial_std=0.2).build(), Texts(packed, packed)


def test_each_variant_chooses_among_the_same_rates_on_the_first_seed_and_is_run_with_all(capsys):
    finished = Finished()
    figures = bench.measure(*model_and_texts(), WORK, finished)
    rows = {row["name"]: row for row in figures["rows"]}
    assert list(rows) == [*UNTRAINED, *bench.VARIANTS]
    for name in bench.VARIANTS:
        row = rows[name]
        assert row["rates"].keys() == {"0.001", "0.01"}
        assert row["runs"][0]["loss"] == min(row["rates"].values())
        assert row["rates"][str(row["rate"])] == row["runs"][0]["loss"]
        assert len(row["runs"]) == 2
    assert len(finished.results) == len(UNTRAINED) + len(bench.VARIANTS) * (2 + 1)
    assert figures["tokens_a_run"] == 2 * 2 * 16
    bench.print_table(figures)
    printed = capsys.readouterr().out
    assert "kd, rate 0.001, seed 0, 2 steps of 2 rows: loss " in printed
    assert "scales included; 64 tokens a run" in printed
    assert "recovered " in printed


def test_shares_are_of_what_rounding_lost_and_of_what_ce_leaves():
    losses = {"float": 1.0, "rtn": 11.0, "clipped": 3.0, "rtn, 4 numbers": 2.0, "ce": 2.0}
    losses |= {"kd": 1.5, "kd + contrastive": 1.4, "full, min-max": 2.4, "full, PACT": 1.6}
    rows = [
        {"name": name, "runs": [{"loss": loss - 0.1}, {"loss": loss + 0.1}]}
        for name, loss in losses.items()
    ]
    figures = bench._summary(rows)
    by_name = {row["name"]: row for row in figures["rows"]}
    assert by_name["ce"]["recovered"] == pytest.approx(0.9)
    assert by_name["kd"]["of_ce"] == pytest.approx(0.5)
    assert by_name["kd"]["more"] == pytest.approx(0.5)
    assert figures["recovered"] == pytest.approx(0.96)
    assert figures["kd_helps"] == pytest.approx(0.05)
    assert figures["contrast_helps"] == pytest.approx(0.01)
    assert figures["scaling_helps"] == pytest.approx(0.1)
    assert figures["gamma_helps"] == pytest.approx(0.02)


def test_a_seed_changes_the_order_of_rows_and_nothing_else():
    model, texts = model_and_texts()
    same, again, other = (
        bench.trained(model, texts, "ce", 1e-2, seed, WORK).embedding.weight for seed in (0, 0, 1)
    )
    assert torch.equal(same, again)
    assert not torch.equal(same, other)
