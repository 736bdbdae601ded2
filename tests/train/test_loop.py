import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minillm.model.config import tiny
from minillm.text.packing import Packed
from minillm.train.checkpoint import load, save
from minillm.train.loop import LoopConfig, TrainState, train
from minillm.train.losses import Total, cross_entropy
from minillm.train.run_state import pack, unpack
from minillm.train.schedule import Constant, Cosine


def line(weight=0.0):
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, weight)
    return model


def sgd(model, rate=0.5):
    return TrainState(model, torch.optim.SGD(model.parameters(), lr=rate))


def squares(model, x):
    """(model(x) - 3)² of each "token"."""
    return Total(((model(x) - 3) ** 2).sum(), torch.tensor(len(x)))


def ones(step):
    return torch.ones(2, 1)


def run(state, n_steps=1, loss=squares, batch_at=ones, evaluate=None, **how):
    return list(train(state, loss, batch_at, LoopConfig(n_steps=n_steps, **how), evaluate))


def gpt_loss(model, batch):
    hidden = model.hidden(batch.tokens, context=batch.context()).flatten(0, 1)
    return cross_entropy(hidden, model.head.weight, batch.wanted.flatten())


def gpt(seed=0, dtype=torch.float32):
    model = tiny(n_vocab=12).build(seed=seed, dtype=dtype)
    return TrainState(model, torch.optim.AdamW(model.parameters(), lr=1e-2))


def corpus(n_rows=2):
    ids = torch.randint(1, 12, (40, 9), generator=torch.Generator().manual_seed(0))
    return Packed(ids.tolist(), end_id=0, context_tokens=8, n_rows=n_rows)


def weights(state):
    return torch.cat([p.detach().flatten() for p in state.model.parameters()])


# --- by hand -----------------------------------------------------------------------------------
def test_a_step_goes_along_the_mean_gradient():
    state = sgd(line())
    (report,) = run(state, clip_norm=None)  # d/dw (w - 3)² = -6 a token
    assert state.model.weight.item() == 3.0
    assert (report.step, report.loss, report.n_tokens) == (0, 9.0, 2)
    assert (report.gradient_norm, report.skipped, report.evaluation) == (6.0, None, None)
    assert state.step == 1


def test_a_gradient_that_is_too_long_is_shortened_and_a_short_one_left():
    state = sgd(line())
    (report,) = run(state, clip_norm=1.5)
    assert report.gradient_norm == 6.0  # before
    assert state.model.weight.item() == pytest.approx(0.75)
    state = sgd(line())
    run(state, clip_norm=6.0)
    assert state.model.weight.item() == 3.0


def test_the_schedule_multiplies_the_optimizers_own_rates_each_groups():
    model = nn.Linear(1, 1)
    groups = [{"params": [model.weight], "lr": 0.5}, {"params": [model.bias], "lr": 0.25}]
    state = TrainState(model, torch.optim.SGD(groups))
    schedule = Cosine(n_steps=3, warmup_steps=2, final=0.0)
    rates = []
    for report in train(state, squares, ones, LoopConfig(n_steps=3, schedule=schedule)):
        rates.append((report.learning_rate, *(g["lr"] for g in state.optimizer.param_groups)))
    assert rates == [(0.25, 0.25, 0.125), (0.5, 0.5, 0.25), (0.0, 0.0, 0.0)]


def test_it_evaluates_after_every_so_many_steps_and_at_the_end():
    grads = []

    def evaluate(model):
        grads.append(torch.is_grad_enabled())
        return model.weight.item()

    reports = run(sgd(line(), 0.1), 5, evaluate=evaluate, evaluate_every=2)
    evaluated = [report.step for report in reports if report.evaluation is not None]
    assert evaluated == [1, 3, 4]  # after the 2nd, the 4th, and the last step
    assert not any(grads)
    assert all(r.evaluation is None for r in run(sgd(line()), 2, evaluate=evaluate))


def test_its_caller_may_stop_after_any_report():
    state = sgd(line(), 0.1)
    steps = train(state, squares, ones, LoopConfig(n_steps=9))
    next(steps), next(steps)
    steps.close()
    assert state.step == 2
    assert len(run(state, 9)) == 7  # and goes on from there
    assert run(state, 9) == []


# --- twin --------------------------------------------------------------------------------------
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_batches_of_any_sizes_are_one_large_batch(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(n, 1, generator=generator, dtype=torch.float64) for n in sizes]
    one, many = sgd(line().double()), sgd(line().double())
    whole = run(one, batch_at=lambda step: torch.cat(parts))
    split = run(many, batch_at=lambda number: parts[number], n_batches=len(parts))
    assert split[0].loss == pytest.approx(whole[0].loss, rel=1e-12)
    assert split[0].n_tokens == whole[0].n_tokens == sum(sizes)
    torch.testing.assert_close(many.model.weight, one.model.weight, rtol=1e-12, atol=1e-12)


def test_ten_steps_are_five_and_save_and_load_and_five_bit_for_bit(tmp_path):
    config = LoopConfig(n_steps=10, schedule=Cosine(n_steps=10, warmup_steps=3), n_batches=2)
    through = gpt()
    losses = [r.loss for r in train(through, gpt_loss, corpus().batch_at, config)]

    stopped = gpt()
    first = train(stopped, gpt_loss, corpus().batch_at, config)
    again = [next(first).loss for _ in range(5)]
    tensors, record = pack(stopped.model, stopped.optimizer)
    path = save(tmp_path, stopped.step, tensors, record)
    del stopped, first

    resumed, checkpoint = gpt(seed=1), load(path)
    unpack(checkpoint, resumed.model, resumed.optimizer)
    resumed.step = checkpoint.step
    again += [r.loss for r in train(resumed, gpt_loss, corpus().batch_at, config)]
    assert again == losses
    assert torch.equal(weights(resumed), weights(through))


# --- reference ---------------------------------------------------------------------------------
def test_it_is_torchs_clipping_and_torchs_adamw():
    ours = gpt(dtype=torch.float64)  # AdamW makes much of a small difference between gradients
    theirs = copy.deepcopy(ours.model)
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-2)
    run(ours, 3, loss=gpt_loss, batch_at=corpus().batch_at, clip_norm=0.5)
    for step in range(3):
        batch = corpus().batch_at(step)
        logits = theirs(batch.tokens, context=batch.context())
        nn.functional.cross_entropy(logits.flatten(0, 1), batch.wanted.flatten()).backward()
        assert nn.utils.clip_grad_norm_(theirs.parameters(), 0.5) > 0.5
        optimizer.step()
        optimizer.zero_grad()
    expected = torch.cat([p.detach().flatten() for p in theirs.parameters()])
    torch.testing.assert_close(weights(ours), expected, rtol=0, atol=1e-7)


# --- law ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_poisoned_batch_changes_nothing_and_is_passed(poison, where):
    def loss(model, x):
        value = squares(model, x[:2])
        if len(x) == 2:
            return value
        wrong = value.nats * poison if where == "loss" else _Poison.apply(value.nats, poison)
        return Total(wrong, value.n_tokens)

    def batch_at(step):
        return torch.ones(3 if step == 1 else 2, 1)

    state, after, reports = sgd(line(), 0.1), [], []
    for report in train(state, loss, batch_at, LoopConfig(n_steps=3)):
        after.append(state.model.weight.item())
        reports.append(report)
    said = f"the loss is {poison}" if where == "loss" else "the loss is finite, but its gradient"
    assert reports[1].skipped.startswith(said)
    assert (reports[0].skipped, reports[2].skipped) == (None, None)
    assert after[0] == after[1] != after[2]
    assert state.step == 3


class _Poison(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, poison):
        ctx.poison = poison
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.poison, None


# --- what stops it -----------------------------------------------------------------------------
def test_too_many_skipped_steps_in_a_row_end_it_with_the_last_good_weights():
    state = sgd(line(0.25))

    def loss(model, x):
        return Total(model(x).sum() * math.nan, torch.tensor(2))

    reports = []
    with pytest.raises(ValueError, match="3 steps in a row were skipped, up to step 2: the loss"):
        reports.extend(train(state, loss, ones, LoopConfig(n_steps=9, most_skipped=3)))
    assert state.model.weight.item() == 0.25
    # one good step between them, and counting begins anew

    def mostly(model, x):
        return squares(model, x) if state.step % 3 == 2 else loss(model, x)

    state = sgd(line(), 0.1)
    assert len(run(state, 9, loss=mostly, most_skipped=3)) == 9


def test_a_batch_in_which_nothing_counts_is_an_error():
    def loss(model, x):
        return Total(model(x).sum(), torch.tensor(0))

    with pytest.raises(ValueError, match=r"no token counts at step 0.*look at batch_at\(0\)"):
        run(sgd(line()), loss=loss)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_steps": 0}, "must be at least 1; got 0, 1 and 5"),
        ({"n_steps": 1, "n_batches": 0}, "must be at least 1; got 1, 0 and 5"),
        ({"n_steps": 1, "clip_norm": 0.0}, "clip_norm must be above 0, or None; got 0.0"),
        ({"n_steps": 1, "evaluate_every": -1}, "evaluate_every must be at least 0; got -1"),
    ],
)
def test_a_config_out_of_range_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        LoopConfig(**wrong)


def test_without_a_schedule_the_rate_stays():
    assert LoopConfig(n_steps=1).schedule == Constant()
