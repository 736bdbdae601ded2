import numpy as np
import pytest
import torch
from torch import nn

from minillm.optim.step import Total
from minillm.town.dialects import dialects
from minillm.train.plain import draw_rows, fit, token_rows


def line(weight=0.0):
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, weight)
    return model


def squared_error(model, batch):
    x, y = batch
    return Total(((model(x) - y) ** 2).sum(), len(x))


def three_times(step):
    x = torch.tensor([[1.0], [2.0]]) + step % 3
    return x, 3 * x


# --- by hand -----------------------------------------------------------------------------------
def test_the_first_step_of_adam_is_the_learning_rate_and_the_second_half_of_it():
    # The gradient keeps its sign and size, so Adam's step is 1: weight 0 → 0.1 → 0.1 + 0.05.
    model = line()
    losses = fit(model, lambda model, x: Total(-x * model.weight.sum(), x), lambda step: 4, 2, 0.1)
    assert model.weight.item() == pytest.approx(0.15, rel=1e-5)
    assert losses == pytest.approx([0.0, -0.1], rel=1e-5)


def test_the_losses_are_those_before_each_step():
    assert fit(line(), squared_error, three_times, 1, 0.1) == [pytest.approx(9 * (1 + 4) / 2)]


def test_another_optimizer_is_made_of_model_and_rate_and_each_of_its_rates_falls():
    made, rates = [], []

    def sgd(model, rate):
        slow = {"params": [model.bias], "lr": 0.02}
        made.append(torch.optim.SGD([{"params": [model.weight]}, slow], lr=rate))
        return made[0]

    def loss(model, batch):
        rates.append([group["lr"] for group in made[0].param_groups])
        return squared_error(model, batch)

    fit(nn.Linear(1, 1), loss, three_times, 4, 0.1, make_optimizer=sgd)
    expected = [(0.1, 0.02), (0.075, 0.015), (0.05, 0.01), (0.025, 0.005)]
    assert rates == [pytest.approx(each) for each in expected]


def test_who_watches_sees_the_model_before_each_step():
    seen = []
    fit(line(), squared_error, three_times, 3, 0.1, watch=lambda m: seen.append(m.weight.item()))
    assert seen[:2] == pytest.approx([0.0, 0.1], rel=1e-5)
    assert len(seen) == 3


# --- reference ---------------------------------------------------------------------------------
def test_it_takes_the_steps_of_torch_with_a_linear_schedule():
    ours, theirs = line(), line()
    losses = fit(ours, squared_error, three_times, 8, 0.2)
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=0.2, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=8)
    expected = []
    for step in range(8):
        value = squared_error(theirs, three_times(step)).mean
        expected.append(value.item())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
    assert losses == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(ours.weight, theirs.weight)


# --- law ---------------------------------------------------------------------------------------
def test_it_finds_the_line():
    model = line()
    losses = fit(model, squared_error, three_times, 200, 0.1)
    assert len(losses) == 200
    assert all(type(value) is float for value in losses)
    assert model.weight.item() == pytest.approx(3, abs=0.01)
    assert losses[-1] < 1e-3 < losses[0]


def test_a_run_is_repeated_by_its_arguments_even_with_dropout():
    def run(seed):
        model = nn.Sequential(line(1.0), nn.Dropout(0.5))
        return fit(model, squared_error, three_times, 5, 0.1, seed=seed)

    first = run(seed=1)
    torch.rand(3)
    assert run(seed=1) == first
    assert run(seed=2) != first


def test_torchs_own_random_state_is_put_back():
    model = nn.Sequential(line(1.0), nn.Dropout(0.5))
    before = torch.random.get_rng_state()
    fit(model, squared_error, three_times, 3, 0.1, seed=9)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_every_step_gets_its_own_batch():
    asked = []

    def batch_at(step):
        asked.append(step)
        return three_times(step)

    fit(line(), squared_error, batch_at, 4, 0.1)
    assert asked == [0, 1, 2, 3]


def test_drawn_rows_depend_on_seed_and_step_alone():
    rows = np.arange(600).reshape(100, 6)
    batch_at = draw_rows(rows, 8, seed=3)
    backwards = [draw_rows(rows, 8, seed=3)(step) for step in reversed(range(5))][::-1]
    for step in range(5):
        batch = batch_at(step)
        assert torch.equal(batch, backwards[step])
        assert batch.shape == (8, 6)
        assert (batch[:, 0] % 6 == 0).all()  # whole rows
    assert not torch.equal(batch_at(0), batch_at(1))
    assert not torch.equal(batch_at(0), draw_rows(rows, 8, seed=4)(0))


def test_every_row_is_drawn_about_equally_often():
    batch_at = draw_rows(np.arange(10)[:, None], 100)
    counts = np.bincount(torch.cat([batch_at(step) for step in range(100)]).flatten())
    assert counts.sum() == 10_000
    assert abs(counts - 1000).max() < 150  # five standard errors


# --- bad input ---------------------------------------------------------------------------------
@pytest.mark.parametrize(("n_steps", "learning_rate"), [(0, 0.1), (1, 0.0), (1, float("inf"))])
def test_no_steps_and_no_learning_rate_are_refused(n_steps, learning_rate):
    with pytest.raises(ValueError, match=f"n_steps={n_steps}, learning_rate={learning_rate}"):
        fit(line(), squared_error, three_times, n_steps, learning_rate)


def test_a_loss_that_runs_away_is_named_with_its_step():
    def log_of_nothing(model, step):
        return Total(torch.log(model.weight.sum() * (0.0 if step == 2 else 1.0)), 1)

    with pytest.raises(ValueError, match=r"-inf at step 2: .* below 0\.1"):
        fit(line(1.0), log_of_nothing, lambda step: step, 5, 0.1)


def test_a_mean_is_refused():
    with pytest.raises(ValueError, match=r"a loss must return a Total .* the shape \[\]"):
        fit(line(), lambda model, batch: model.weight.mean(), lambda step: None, 1, 0.1)


@pytest.mark.parametrize(
    ("rows", "batch_size"), [(np.arange(3), 1), (np.zeros((0, 4)), 1), (np.zeros((4, 4)), 0)]
)
def test_rows_that_cannot_be_drawn_are_refused(rows, batch_size):
    with pytest.raises(ValueError, match=f"batch_size={batch_size}"):
        draw_rows(rows, batch_size)


def test_rows_of_tokens_are_those_of_the_blocks_and_fewer_are_a_part_of_more():
    source = dialects(n_symbols=4)[0]
    rows = token_rows(source, 70 * 8, seed="a", row_length=8)
    assert np.array_equal(rows[:64], source.block(0, "a", 8).tokens)
    assert np.array_equal(rows[64:], source.block(1, "a", 8).tokens[:6])
    assert np.array_equal(token_rows(source, 16, seed="a", row_length=8), rows[:2])


def test_tokens_that_fill_no_whole_rows_are_refused():
    with pytest.raises(ValueError, match="got 100 tokens in rows of 64"):
        token_rows(dialects(n_symbols=4)[0], 100, seed=0)
