"""minillm.train.scale: counted parameters, priced runs, and rows that say what they should."""

import numpy as np
import pytest
import torch

from minillm.train import scale
from minillm.train.compare import Attempt
from minillm.train.scale import counts, shape, source, task, tokens_for, trained


# --- by hand ------------------------------------------------------------------------------------
def test_parameters_are_counted_in_three_ways():
    d, f, v = 16, 48, 128  # SwiGLU's width is 8/3 of the model's, in eights
    block = 4 * d * d + 3 * d * f + 2 * d
    assert counts(shape(d)) == (2 * v * d + 2 * block + d, v * d + 2 * block + d, 2 * block + d)
    assert counts(shape(d, 5)).blocks == 5 * block + d


@pytest.mark.parametrize("flops", [1e9, 3.3e9, 1e11])
def test_a_run_is_as_near_to_its_price_as_whole_batches_can_be(flops):
    n_tokens = tokens_for(flops, 10_832, batch_size=16)
    assert n_tokens % (16 * 64) == 0
    assert abs(6 * 10_832 * n_tokens - flops) <= 6 * 10_832 * 16 * 64 / 2


def test_every_fourth_row_says_its_first_half_twice():
    plain, repeating = (task(shape(8), 16, repeats=which) for which in (False, True))
    for step in (0, 3, 5):
        was, now = plain.batch_at(step, 1), repeating.batch_at(step, 1)
        assert torch.equal(now[::4, 32:], was[::4, :32])
        others = [row for row in range(16) if row % 4]
        assert torch.equal(now[others], was[others])


def test_the_share_that_is_copied_is_1_for_who_copies_and_leaves_out_the_first():
    class Copies(torch.nn.Module):
        def forward(self, tokens):
            """What stood 32 places before the next token; at the first of the half, nonsense."""
            following = torch.zeros(*tokens.shape, dtype=torch.long)
            following[:, 32:] = tokens[:, 1 : tokens.shape[1] - 31]
            return torch.nn.functional.one_hot(following, 128).float()

    blocks = task(shape(8), 16, repeats=True).held_out
    assert scale._copied(Copies(), blocks) == 1.0
    unrepeated = task(shape(8), 16).held_out
    assert scale._copied(Copies(), unrepeated) < 0.2


# --- laws ---------------------------------------------------------------------------------------
def test_no_row_is_read_twice_and_none_is_held_out():
    what = task(shape(8), 16)
    rows = torch.cat([what.batch_at(step, seed) for seed in (0, 1) for step in range(12)])
    seen = {tuple(row.tolist()) for row in rows}
    assert len(seen) == len(rows)
    assert not seen & {tuple(row.tolist()) for block in what.held_out for row in block}


def test_batches_of_any_size_are_the_same_rows():
    small, large = task(shape(8), 8), task(shape(8), 32)
    rows = torch.cat([small.batch_at(step, 0) for step in range(12)])
    assert torch.equal(rows, torch.cat([large.batch_at(step, 0) for step in range(3)]))


def test_the_floor_is_the_sources_own_loss_on_the_held_out_rows():
    what = task(shape(8), 16)
    losses = [-source().log_probs(block.numpy())[:, 1:].mean() for block in what.held_out]
    assert what.floor == pytest.approx(np.mean(losses))
    assert what.floor == pytest.approx(source().entropy_rate().nats, abs=0.02)


def test_a_longer_run_ends_lower_and_a_run_is_repeated_by_its_arguments():
    short, long, again = (trained(8, n, 0.03, 8) for n in (2048, 16_384, 16_384))
    assert long["floor"] < long["loss"] < short["loss"]
    assert again == long
    assert trained(8, 2048, 0.03, 8, seed=1)["loss"] != short["loss"]


def test_the_seed_is_that_of_the_rows_too(monkeypatch):
    drawn = []

    def attempt(what, make_optimizer, *, n_steps, seed, label):
        drawn.append(what.batch_at(0, seed))
        return Attempt(3.0, 0.0, [], 0.0)

    monkeypatch.setattr(scale, "attempt", attempt)
    for seed in (0, 1):
        trained(8, 2048, 0.03, 8, seed=seed)
    assert not torch.equal(*drawn)


def test_a_run_that_broke_has_no_loss():
    assert trained(8, 4096, 1e9, 8)["loss"] is None


# --- bad input ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: tokens_for(1e6, 10_832, 16), "too few for 10,832 parameters"),
        (lambda: task(shape(8), 24), "batch_size must divide 64; got 24"),
        (lambda: task(shape(8), 0), "batch_size must divide 64; got 0"),
        (lambda: trained(8, 1000, 0.01, 16), "whole batches of 16 × 64; got 1000"),
        (lambda: trained(8, 0, 0.01, 16), "whole batches of 16 × 64; got 0"),
    ],
)
def test_what_cannot_be_run_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()
