"""Data parallelism: who gets which rows, and whose gradients are added up."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from minillm.data.packing import Packed
from minillm.optim.step import Total, take_step
from minillm.parallel.data import DataParallel, filled_up, share


class Stubborn:
    """The collectives of a rank whose only colleague always sends the same."""

    rank, n_ranks = 0, 2

    def __init__(self, *sent):
        self.sent = [torch.tensor(each) for each in sent]

    def all_reduce(self, x):
        assert not len(x) % self.n_ranks
        return x + filled_up(self.sent.pop(0).to(x.dtype), self.n_ranks)


# --- by hand --------------------------------------------------------------------------------------
def test_gradients_and_tokens_of_both_ranks_make_one_step():
    line = nn.Linear(1, 1)  # two weights, and a third that nobody uses
    line.unused = nn.Parameter(torch.zeros(3))
    nn.init.zeros_(line.weight), nn.init.zeros_(line.bias)
    optimizer = torch.optim.SGD(line.parameters(), lr=1.0)
    # who used what, then gradients; after that nats and tokens
    others = Stubborn([1.0, 1.0, 0.0, 3.0, 2.0, 0.0, 0.0, 0.0], [7.0, 3.0])
    total = Total(5.0 * line(torch.ones(1)).sum() + 1.0, 1)  # the gradient 5, 5
    taken = take_step(line, optimizer, [total], reduction=DataParallel(others))
    assert (taken.loss, taken.n_tokens) == ((1 + 7) / 4, 4)  # of all tokens, no mean of means
    assert (line.weight.item(), line.bias.item()) == (-(5 + 3) / 4, -(5 + 2) / 4)
    assert taken.gradient_norm == pytest.approx((2**2 + 1.75**2) ** 0.5)
    assert others.sent == []


def test_one_rank_that_meets_nan_stops_the_step_of_all():
    line = nn.Linear(1, 1, bias=False)
    before = line.weight.item()
    optimizer = torch.optim.SGD(line.parameters(), lr=1.0)
    reduction = DataParallel(Stubborn([1.0, torch.nan], [torch.nan, 3.0]))
    total = Total(line(torch.ones(1)).sum(), 1)
    assert take_step(line, optimizer, [total], reduction=reduction).skipped == "the loss is nan"
    assert line.weight.item() == before


# --- law ------------------------------------------------------------------------------------------
@given(st.integers(1, 5), st.integers(0, 4))
def test_shares_are_all_rows_once_and_neighbours_go_to_different_ranks(n_ranks, n_each):
    rows = torch.arange(n_ranks * n_each)
    shares = [share(rows, rank, n_ranks) for rank in range(n_ranks)]
    assert torch.equal(torch.stack(shares, dim=1).flatten(), rows)


@given(st.integers(0, 20), st.integers(1, 6))
def test_a_vector_is_filled_up_with_zeros_and_no_further_than_needed(length, n_ranks):
    x = torch.ones(length)
    filled = filled_up(x, n_ranks)
    assert len(filled) % n_ranks == 0 <= len(filled) - length < n_ranks
    assert filled.sum() == length
    assert torch.equal(filled[:length], x)


def test_a_batch_is_shared_out_in_all_its_parts():
    documents = [[1] * 3, [2] * 9, [3] * 5, [4] * 20]
    batch = Packed(documents, end_id=0, context_length=4, batch_size=4).batch_at(0)
    part = share(batch, 1, 2)
    assert part.loss_mask is batch.loss_mask is None
    masked = replace(batch, loss_mask=batch.targets > 2)
    part = share(masked, 1, 2)
    for name, whole in vars(masked).items():
        assert torch.equal(getattr(part, name), whole[1::2]), name


def test_a_parameter_that_another_rank_alone_has_used_gets_its_gradient():
    model = torch.nn.ParameterDict({n: torch.nn.Parameter(torch.ones(2)) for n in ("a", "b", "c")})
    model["a"].sum().backward()  # here; the other rank uses a and b, and nobody uses c

    other = Stubborn([1.0, 1.0, 0.0, 10.0, 10.0, 20.0, 20.0, 0.0, 0.0])
    gradients = DataParallel(other).gradients(model)
    assert [gradient.tolist() for gradient in gradients] == [[11.0, 11.0], [20.0, 20.0]]
    assert model["c"].grad is None


# --- refusals -------------------------------------------------------------------------------------
@pytest.mark.parametrize(("batch_size", "mend"), [(7, 6), (2, 3)])
def test_rows_that_cannot_be_shared_out_are_refused(batch_size, mend):
    words = f"3 data-parallel ranks must divide .* got {batch_size}. Take a batch_size of {mend}"
    with pytest.raises(ValueError, match=words):
        share(torch.zeros(batch_size, 2), 0, 3)
