import copy
import math
import signal

import pytest
import torch
from torch import nn

from minillm.data.packing import Packed
from minillm.model.config import tiny
from minillm.optim.schedule import Constant, Cosine
from minillm.optim.step import Total
from minillm.train.checkpoint import load, save
from minillm.train.loop import LoopConfig, TrainState, train
from minillm.train.losses import cross_entropy
from minillm.train.run_state import pack, unpack


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
    return cross_entropy(hidden, model.head.weight, batch.targets.flatten())


def gpt(seed=0, dtype=torch.float32):
    model = tiny(vocab_size=12).build(seed=seed, dtype=dtype)
    return TrainState(model, torch.optim.AdamW(model.parameters(), lr=1e-2))


def corpus(batch_size=2):
    ids = torch.randint(1, 12, (40, 9), generator=torch.Generator().manual_seed(0))
    return Packed(ids.tolist(), end_id=0, context_length=8, batch_size=batch_size)


def weights(state):
    return torch.cat([p.detach().flatten() for p in state.model.parameters()])


# --- by hand -----------------------------------------------------------------------------------
def test_a_step_goes_along_the_mean_gradient():
    state = sgd(line())
    (metrics,) = run(state, clip_norm=None)  # d/dw (w - 3)² = -6 a token
    assert state.model.weight.item() == 3.0
    assert (metrics.step, metrics.loss, metrics.n_tokens) == (0, 9.0, 2)
    assert (metrics.gradient_norm, metrics.skipped, metrics.evaluation) == (6.0, None, None)
    assert state.step == 1


def test_a_step_is_of_its_own_batches_all_their_tokens_together():
    asked = []

    def batch_at(number):
        asked.append(number)
        return torch.ones(1 + number % 2, 1)

    all_metrics = run(sgd(line(), 0.1), 2, batch_at=batch_at, accumulation_steps=2)
    assert asked == [0, 1, 2, 3]
    assert [metrics.n_tokens for metrics in all_metrics] == [3, 3]


def test_the_schedule_multiplies_the_optimizers_own_rates_each_groups():
    model = nn.Linear(1, 1)
    groups = [{"params": [model.weight], "lr": 0.5}, {"params": [model.bias], "lr": 0.25}]
    state = TrainState(model, torch.optim.SGD(groups))
    schedule = Cosine(n_steps=3, warmup_steps=2, final=0.0)
    rates = []
    for metrics in train(state, squares, ones, LoopConfig(n_steps=3, schedule=schedule)):
        rates.append((metrics.learning_rate, *(g["lr"] for g in state.optimizer.param_groups)))
    assert rates == [(0.25, 0.25, 0.125), (0.5, 0.5, 0.25), (0.0, 0.0, 0.0)]


def test_it_evaluates_after_every_so_many_steps_and_at_the_end():
    grads = []

    def evaluate(model):
        grads.append(torch.is_grad_enabled())
        return model.weight.item()

    all_metrics = run(sgd(line(), 0.1), 5, evaluate=evaluate, evaluate_every=2)
    evaluated = [metrics.step for metrics in all_metrics if metrics.evaluation is not None]
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
def test_ten_steps_are_five_and_save_and_load_and_five_bit_for_bit(tmp_path):
    config = LoopConfig(
        n_steps=10, schedule=Cosine(n_steps=10, warmup_steps=3), accumulation_steps=2
    )
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


def test_ctrl_c_in_the_middle_of_a_step_leaves_the_state_of_a_whole_one():
    states, data = [gpt(), gpt()], corpus()

    def steps(state, n_steps):
        return list(train(state, gpt_loss, data.batch_at, LoopConfig(n_steps=n_steps)))

    def interrupt(optimizer, *_):
        signal.raise_signal(signal.SIGINT)  # after the weights, before the step is counted

    steps(states[0], 4)
    hook = states[1].optimizer.register_step_post_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        steps(states[1], 4)
    counts = {int(held["step"]) for held in states[1].optimizer.state.values()}
    assert ({states[1].step}, {1}) == (counts, counts)
    hook.remove()
    steps(states[1], 4)
    assert torch.equal(weights(states[0]), weights(states[1]))


# --- reference ---------------------------------------------------------------------------------
def test_it_is_torchs_clipping_and_torchs_adamw():
    ours = gpt(dtype=torch.float64)  # AdamW makes much of a small difference between gradients
    theirs = copy.deepcopy(ours.model)
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=1e-2)
    run(ours, 3, loss=gpt_loss, batch_at=corpus().batch_at, clip_norm=0.5)
    for step in range(3):
        batch = corpus().batch_at(step)
        logits = theirs(batch.tokens, context=batch.context())
        nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten()).backward()
        assert nn.utils.clip_grad_norm_(theirs.parameters(), 0.5) > 0.5
        optimizer.step()
        optimizer.zero_grad()
    expected = torch.cat([p.detach().flatten() for p in theirs.parameters()])
    torch.testing.assert_close(weights(ours), expected, rtol=0, atol=1e-7)


# --- what stops it -----------------------------------------------------------------------------
def test_too_many_skipped_steps_in_a_row_end_it_with_the_last_good_weights():
    state = sgd(line(0.25))

    def loss(model, x):
        return Total(model(x).sum() * math.nan, torch.tensor(2))

    all_metrics = []
    with pytest.raises(ValueError, match="3 steps in a row were skipped, up to step 2: the loss"):
        all_metrics.extend(train(state, loss, ones, LoopConfig(n_steps=9, most_skipped=3)))
    assert state.model.weight.item() == 0.25
    # one good step between them, and counting begins anew

    def mostly(model, x):
        return squares(model, x) if state.step % 3 == 2 else loss(model, x)

    state = sgd(line(), 0.1)
    assert len(run(state, 9, loss=mostly, most_skipped=3)) == 9


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_evaluation_that_is_no_number_is_an_error_and_the_step_is_kept(value):
    state = sgd(line(), 0.1)
    with pytest.raises(ValueError, match=f"evaluation after step 1 is {value}"):
        run(state, 4, evaluate=lambda _: value, evaluate_every=2)
    assert state.step == 2


def test_a_batch_in_which_nothing_counts_is_an_error():
    def loss(model, x):
        return Total(model(x).sum(), torch.tensor(0))

    with pytest.raises(ValueError, match=r"no token counts at step 0.*look at batch_at\(0\)"):
        run(sgd(line()), loss=loss)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_steps": 0}, "must be at least 1; got 0, 1 and 5"),
        ({"n_steps": 1, "accumulation_steps": 0}, "must be at least 1; got 1, 0 and 5"),
        ({"n_steps": 1, "clip_norm": 0.0}, "clip_norm must be above 0, or None; got 0.0"),
        ({"n_steps": 1, "evaluate_every": -1}, "evaluate_every must be at least 0; got -1"),
    ],
)
def test_a_config_out_of_range_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        LoopConfig(**wrong)


def test_without_a_schedule_the_rate_stays():
    assert LoopConfig(n_steps=1).schedule == Constant()
