import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minillm.optim.step import StepMetrics, Total, take_step


def line(weight=0.0, rate=0.5):
    model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.constant_(model.weight, weight)
    return model, torch.optim.SGD(model.parameters(), lr=rate)


def squares(model, x):
    """(model(x) - 3)² of each "token"."""
    return Total(((model(x) - 3) ** 2).sum(), len(x))


def ones(n=2):
    return torch.ones(n, 1, dtype=torch.float64)


# --- by hand -----------------------------------------------------------------------------------
def test_adding_totals_adds_both_and_joins_nothing():
    both = Total(torch.tensor(6.0), torch.tensor(2)) + Total(torch.tensor(1.0), 5)
    assert type(both) is Total
    assert (both.nats.item(), both.n_tokens.item(), both.mean.item()) == (7.0, 7, 1.0)


def test_a_gradient_that_is_too_long_is_shortened_and_a_short_one_left():
    # d/dw (w - 3)² is -6 at 0, a token
    for clip_norm, weight in ((None, 3.0), (6.0, 3.0), (1.5, 0.75)):
        model, sgd = line()
        taken = take_step(model, sgd, [squares(model, ones())], clip_norm=clip_norm)
        assert taken == StepMetrics(9.0, 2, 6.0, None)  # the norm before
        assert model.weight.item() == weight


def test_gradients_from_before_do_not_count_and_none_are_left():
    model, sgd = line()
    squares(model, ones()).nats.backward()
    take_step(model, sgd, [squares(model, ones())])
    assert model.weight.item() == 3.0
    assert model.weight.grad is None


def test_a_generator_is_asked_for_a_batch_after_the_gradient_of_the_one_before():
    model, sgd = line()
    seen = []

    def totals():
        for n in (1, 3):
            seen.append(
                model.weight.grad if model.weight.grad is None else model.weight.grad.item()
            )
            yield squares(model, ones(n))

    assert take_step(model, sgd, totals()).n_tokens == 4
    assert seen == [None, -6.0]


# --- twin --------------------------------------------------------------------------------------
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_batches_of_any_sizes_are_one_large_batch(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(n, 1, generator=generator, dtype=torch.float64) for n in sizes]
    (one, sgd), (many, other) = line(), line()
    whole = take_step(one, sgd, [squares(one, torch.cat(parts))])
    split = take_step(many, other, [squares(many, part) for part in parts])
    assert split.loss == pytest.approx(whole.loss, rel=1e-12)
    assert split.n_tokens == whole.n_tokens == sum(sizes)
    torch.testing.assert_close(many.weight, one.weight, rtol=1e-12, atol=1e-12)


# --- law ---------------------------------------------------------------------------------------
class Poison(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, poison):
        ctx.poison = poison
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.poison, None


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_what_is_not_finite_changes_nothing_and_says_why(poison):
    for where in ("the loss is", "the loss is finite, but its gradient is"):
        model, sgd = line(0.25)
        good = squares(model, ones())
        bad = good.nats * poison if where == "the loss is" else Poison.apply(good.nats, poison)
        taken = take_step(model, sgd, [squares(model, ones()), Total(bad, 2)])
        assert taken.skipped.startswith(f"{where} ")
        assert taken.n_tokens == 4
        assert model.weight.item() == 0.25
        assert model.weight.grad is None


def test_without_a_token_nothing_changes():
    model, sgd = line(0.25)
    taken = take_step(model, sgd, [Total(squares(model, ones()).nats, torch.tensor(0))])
    assert taken.skipped == "no token counts"
    assert math.isnan(taken.loss)
    assert model.weight.item() == 0.25


# --- bad input ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda x: x.mean(), r"got Tensor of the shape \[\] in place of a Total"),
        (lambda x: 3.0, "got float in place of a Total"),
        (lambda x: Total(x, 2), r"got Tensor of the shape \[2, 1\] in place of the sum"),
    ],
)
def test_what_is_no_total_of_a_single_number_is_refused(loss, words):
    model, sgd = line()
    with pytest.raises(ValueError, match=rf"{words}.*Total\(losses\.sum\(\), losses\.numel\(\)\)"):
        take_step(model, sgd, [loss(model(ones()))])
