import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from minillm.measure.memory_meter import Meter, peak_elements
from minillm.train.losses import (
    cross_entropy,
    cross_entropy_naive,
    token_log_probs,
    z_loss,
)

BOTH = pytest.mark.parametrize("loss", [cross_entropy_naive, cross_entropy])


def numbers(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def question(N=11, D=5, V=17, seed=0, dtype=torch.float64):
    """Hidden, table (both want gradients), wanted ids and which of them count."""
    generator = torch.Generator().manual_seed(seed)
    return (
        numbers(N, D, seed=seed, dtype=dtype).requires_grad_(),
        numbers(V, D, seed=seed + 1, dtype=dtype).requires_grad_(),
        torch.randint(V, (N,), generator=generator),
        torch.rand(N, generator=generator) < 0.6,
    )


def outcome(loss, hidden, table, *rest, **options):
    """Its nats and count, and the gradients of three times its nats."""
    total = loss(hidden, table, *rest, **options)
    gradients = torch.autograd.grad(3 * total.nats, [hidden, table])
    return [total.nats.detach(), total.n_tokens, *gradients]


def assert_close(ours, theirs, tolerance):
    for mine, other in zip(ours, theirs, strict=True):
        scale = max(1.0, other.abs().max().item()) if other.numel() else 1.0
        torch.testing.assert_close(mine, other, rtol=0, atol=tolerance * scale, check_dtype=False)


# --- by hand -----------------------------------------------------------------------------------
@BOTH
def test_two_words_at_three_to_one(loss):
    # logits log 3 and 0, so p = 3/4 and 1/4; softmax - one_hot is (-1/4, 1/4), then (3/4, -3/4)
    hidden = torch.ones(2, 1, dtype=torch.float64, requires_grad=True)
    table = torch.tensor([[math.log(3)], [0.0]], dtype=torch.float64, requires_grad=True)
    total = loss(hidden, table, torch.tensor([0, 1]))
    assert total.nats.item() == pytest.approx(math.log(4 / 3) + math.log(4))
    assert total.n_tokens.item() == 2
    total.nats.backward()
    assert table.grad.flatten().tolist() == pytest.approx([-1 / 4 + 3 / 4, 1 / 4 - 3 / 4])
    assert hidden.grad.flatten().tolist() == pytest.approx([-math.log(3) / 4, 3 * math.log(3) / 4])


@BOTH
def test_z_loss_adds_its_square_and_twice_the_logsumexp_times_p(loss):
    # logits log 3 and 0: logsumexp is log 4; with z = 1/2 its gradient is log 4 · (3/4, 1/4)
    hidden = torch.ones(1, 1, dtype=torch.float64)
    table = torch.tensor([[math.log(3)], [0.0]], dtype=torch.float64, requires_grad=True)
    total = loss(hidden, table, torch.tensor([0]), z_weight=0.5)
    assert total.nats.item() == pytest.approx(math.log(4 / 3) + 0.5 * math.log(4) ** 2)
    total.nats.backward()
    expected = [-1 / 4 + math.log(4) * 3 / 4, 1 / 4 + math.log(4) / 4]
    assert table.grad.flatten().tolist() == pytest.approx(expected)


@BOTH
def test_what_is_not_counted_is_not_there_whatever_id_it_has(loss):
    hidden, table, targets, _ = question(N=3)
    targets[1] = -100
    loss_mask = torch.tensor([True, False, True])
    total = loss(hidden, table, targets, loss_mask, z_weight=0.1)
    total.nats.backward()
    rest = loss(hidden[loss_mask], table, targets[loss_mask], z_weight=0.1)
    assert total.n_tokens.item() == rest.n_tokens.item() == 2
    torch.testing.assert_close(total.nats, rest.nats)
    assert (hidden.grad != 0).all(dim=-1).tolist() == [True, False, True]


def test_log_probs_of_one_in_four_and_exactly_zero_where_not_counted():
    logits = torch.tensor([[[3.0, 1.0], [1.0, 3.0]], [[1.0, 1.0], [0.0, 0.0]]]).log()
    logits[1, 1] = 5.0
    targets = torch.tensor([[0, 0], [99, 1]])
    loss_mask = torch.tensor([[True, True], [False, True]])
    log_probs = token_log_probs(logits, targets, loss_mask)
    expected = [math.log(3 / 4), math.log(1 / 4), 0.0, math.log(1 / 2)]
    assert log_probs.flatten().tolist() == pytest.approx(expected)
    assert log_probs[1, 0].item() == 0.0


def test_a_word_that_cannot_be_takes_nothing_from_the_others():
    logits = torch.tensor([[0.0, -math.inf, 0.0]], requires_grad=True)
    log_probs = token_log_probs(logits, torch.tensor([0]))
    log_probs.sum().backward()
    assert log_probs.exp().item() == pytest.approx(0.5)
    assert logits.grad.tolist() == [pytest.approx([0.5, 0.0, -0.5])]


def test_z_loss_is_the_squared_log_of_what_exp_sums_to():
    logits = torch.tensor([[0.4, 0.6], [2.0, 8.0], [5.0, 5.0]]).log()
    assert z_loss(logits).item() == pytest.approx(2 * math.log(10) ** 2)
    loss_mask = torch.tensor([True, True, False])
    assert z_loss(logits, loss_mask).item() == pytest.approx(math.log(10) ** 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bits_are_widened_before_anything_is_summed(dtype):
    # 70000 words alike: float16 cannot count beyond 65504, bfloat16 stops at 256
    logits = torch.zeros(1, 70_000, dtype=dtype)
    log_probs = token_log_probs(logits, torch.tensor([3]))
    assert log_probs.dtype == torch.float32
    assert log_probs.item() == pytest.approx(-math.log(70_000))
    assert z_loss(logits).item() == pytest.approx(math.log(70_000) ** 2)


@BOTH
def test_logits_beyond_the_reach_of_exp_do_no_harm(loss):
    hidden = torch.ones(1, 1)
    table = torch.tensor([[1000.0], [999.0], [-1000.0]], requires_grad=True)
    total = loss(hidden, table, torch.tensor([1]))
    total.nats.backward()
    p = 1 / (1 + math.exp(-1))
    assert total.nats.item() == pytest.approx(1 - math.log(p), rel=1e-4)
    assert table.grad.flatten().tolist() == pytest.approx([p, -p, 0.0], rel=1e-4)


# --- twin --------------------------------------------------------------------------------------
@pytest.mark.parametrize("chunk_tokens", [1, 2, 4, 7, 11, 100])
@pytest.mark.parametrize("z_weight", [0.0, 0.3])
def test_in_chunks_is_at_once_with_all_gradients(chunk_tokens, z_weight):
    hidden, table, targets, loss_mask = question()
    for mask in (None, loss_mask):
        naive = outcome(cross_entropy_naive, hidden, table, targets, mask, z_weight=z_weight)
        fast = outcome(
            cross_entropy,
            hidden,
            table,
            targets,
            mask,
            z_weight=z_weight,
            chunk_tokens=chunk_tokens,
        )
        assert_close(fast, naive, 1e-12)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)]
)
def test_in_chunks_is_at_once_in_fewer_bits(dtype, tolerance):
    hidden, table, targets, loss_mask = question(N=40, dtype=dtype)
    naive = outcome(cross_entropy_naive, hidden, table, targets, loss_mask, z_weight=0.1)
    fast = outcome(cross_entropy, hidden, table, targets, loss_mask, z_weight=0.1, chunk_tokens=9)
    assert [part.dtype for part in fast] == [part.dtype for part in naive]
    assert (fast[0].dtype, fast[2].dtype) == (torch.float32, dtype)
    assert_close(fast, naive, tolerance)
    # and both are what float32 makes of the same numbers
    exact = outcome(
        cross_entropy_naive, hidden.float(), table.float(), targets, loss_mask, z_weight=0.1
    )
    assert_close(fast, exact, tolerance)
    assert_close(fast[:1], exact[:1], 2e-6)


def test_under_autocast_the_chunks_keep_their_digits():
    hidden, table, targets, _ = question(N=40, dtype=torch.float32)
    without = outcome(cross_entropy, hidden, table, targets, chunk_tokens=9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = outcome(cross_entropy, hidden, table, targets, chunk_tokens=9)
    assert_close(within, without, 0.0)


def test_hidden_and_table_of_two_types_meet_in_the_wider_one():
    hidden, table, targets, _ = question(dtype=torch.float32)
    half = hidden.detach().bfloat16().requires_grad_()
    naive, fast = (outcome(f, half, table, targets) for f in (cross_entropy_naive, cross_entropy))
    assert [part.dtype for part in fast[2:]] == [torch.bfloat16, torch.float32]
    assert_close(fast[:2], naive[:2], 2e-6)
    assert_close(fast[2:], naive[2:], 1e-2)


@pytest.mark.parametrize("which", ["hidden", "table"])
def test_what_wants_no_gradient_gets_none_and_the_other_its_own(which):
    hidden, table, targets, loss_mask = question()
    learned = {"hidden": hidden, "table": table}[which]
    (hidden if learned is table else table).requires_grad_(False)
    kept = cross_entropy(hidden, table, targets).nats.grad_fn.saved_tensors
    assert [None if tensor is None else tensor.shape for tensor in kept] == [
        hidden.shape if learned is hidden else None,
        table.shape if learned is table else None,
    ]
    gradients = [
        torch.autograd.grad(loss(hidden, table, targets, loss_mask).nats, learned)
        for loss in (cross_entropy_naive, cross_entropy)
    ]
    assert_close(gradients[1], gradients[0], 1e-12)


def test_a_table_that_serves_twice_gets_both_gradients():
    _, table, targets, _ = question()
    gradients = []
    for loss in (cross_entropy_naive, cross_entropy):
        total = loss(nn.functional.embedding(targets.flip(0), table), table, targets)
        gradients.append(torch.autograd.grad(total.nats, table))
    assert_close(gradients[1], gradients[0], 1e-12)


# --- reference ---------------------------------------------------------------------------------
@BOTH
def test_it_is_the_cross_entropy_of_torch(loss):
    hidden, table, targets, loss_mask = question()
    total = loss(hidden, table, targets, loss_mask)
    ignored = targets.masked_fill(~loss_mask, -100)
    theirs = nn.functional.cross_entropy(
        hidden @ table.T, ignored, reduction="sum", ignore_index=-100
    )
    torch.testing.assert_close(total.nats, theirs)
    for mine, other in zip(
        torch.autograd.grad(total.nats, [hidden, table]),
        torch.autograd.grad(theirs, [hidden, table]),
        strict=True,
    ):
        torch.testing.assert_close(mine, other)
    assert total.n_tokens == loss_mask.sum()


def test_log_probs_are_those_of_torch_with_their_gradient():
    logits = numbers(2, 3, 9).requires_grad_()
    targets = torch.arange(6).view(2, 3)
    ours = token_log_probs(logits, targets)
    theirs = logits.log_softmax(dim=-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(ours, theirs)
    upstream = numbers(2, 3, seed=1)
    torch.testing.assert_close(
        torch.autograd.grad(ours, logits, upstream), torch.autograd.grad(theirs, logits, upstream)
    )


@BOTH
def test_its_gradient_is_the_slope(loss):
    hidden, table, targets, loss_mask = question(N=4, D=2, V=3)
    assert torch.autograd.gradcheck(
        lambda hidden, table: loss(hidden, table, targets, loss_mask, z_weight=0.2).nats,
        (hidden, table),
    )


# --- law ---------------------------------------------------------------------------------------
@given(st.integers(0, 12), st.integers(1, 12), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_the_totals_of_two_parts_add_up_to_that_of_the_whole(n_first, n_rest, chunk_tokens, seed):
    hidden, table, targets, loss_mask = question(N=n_first + n_rest, seed=seed)
    options = {"z_weight": 0.1, "chunk_tokens": chunk_tokens}
    whole = cross_entropy(hidden, table, targets, loss_mask, **options)
    first, rest = (
        cross_entropy(hidden[part], table, targets[part], loss_mask[part], **options)
        for part in (slice(0, n_first), slice(n_first, None))
    )
    torch.testing.assert_close(first + rest, whole)


@given(st.integers(1, 9), st.floats(-50, 50), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_probabilities_sum_to_one_and_a_common_shift_changes_none(n_words, shift, seed):
    logits = numbers(1, n_words, seed=seed).expand(n_words, n_words)
    log_probs = token_log_probs(logits, torch.arange(n_words))
    assert log_probs.exp().sum().item() == pytest.approx(1)
    torch.testing.assert_close(token_log_probs(logits + shift, torch.arange(n_words)), log_probs)


@BOTH
def test_gradients_of_unequal_micro_batches_add_up_to_those_of_the_batch(loss):
    hidden, table, targets, loss_mask = question()
    whole = loss(hidden, table, targets, loss_mask)
    (expected,) = torch.autograd.grad(whole.nats / whole.n_tokens, table)
    n_tokens = loss_mask.sum()  # known before any loss is
    for part in (slice(0, 2), slice(2, 9), slice(9, 11)):
        total = loss(hidden[part], table, targets[part], loss_mask[part])
        (total.nats / n_tokens).backward()
    torch.testing.assert_close(table.grad, expected)


@BOTH
def test_where_nothing_is_counted_there_are_no_nats_and_gradients_of_zero(loss):
    hidden, table, targets, loss_mask = question()
    results = outcome(loss, hidden, table, targets, torch.zeros_like(loss_mask), z_weight=0.1)
    assert all((part == 0).all() for part in results)
    results = outcome(loss, hidden[:0], table, targets[:0])
    assert all((part == 0).all() for part in results)


def test_the_peak_holds_one_chunk_of_logits_and_two_gradients_but_never_all_logits():
    N, D, V, chunk_tokens = 96, 4, 80, 8

    def forward_and_backward(loss, **options):
        hidden, table, targets, _ = question(N, D, V, dtype=torch.float32)

        def run():
            (loss(hidden, table, targets, **options).nats / N).backward()

        return run

    naive = peak_elements(forward_and_backward(cross_entropy_naive))
    assert naive >= 2 * N * V  # the logits, and their gradient
    with Meter() as meter:
        forward_and_backward(cross_entropy, chunk_tokens=chunk_tokens)()
    gradients = N * D + V * D
    inputs = gradients + 2 * N  # made within the block, too
    columns = N + 10 * chunk_tokens  # a few numbers a token
    most = inputs + max(chunk_tokens * V + gradients + columns, 2 * gradients + 10)
    assert meter.peak <= most < N * V
    assert meter.largest == max(chunk_tokens * V, N * D, V * D)


def test_between_the_passes_live_two_gradients():
    hidden, table, targets, loss_mask = question()
    kept = []

    def keep(tensor):
        kept.append(list(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        cross_entropy(hidden, table, targets, loss_mask, z_weight=0.1)
    assert kept == [list(hidden.shape), list(table.shape)]


def test_where_no_gradient_is_wanted_none_is_made():
    hidden, table, targets, _ = question(N=6, D=64, V=3)
    with_gradients = cross_entropy(hidden, table, targets).nats.detach()
    with torch.no_grad(), Meter() as meter:
        nats = cross_entropy(hidden, table, targets, chunk_tokens=2).nats
    assert meter.peak < hidden.numel()
    assert nats.grad_fn is None
    assert cross_entropy(hidden.detach(), table.detach(), targets).nats.grad_fn is None
    torch.testing.assert_close(nats, with_gradients)


def test_what_was_given_is_not_changed_and_the_way_back_may_be_walked_twice():
    hidden, table, targets, loss_mask = question()
    given_ones = [tensor.detach().clone() for tensor in (hidden, table, targets, loss_mask)]
    nats = cross_entropy(hidden, table, targets, loss_mask, chunk_tokens=4).nats
    first = torch.autograd.grad(nats, [hidden, table], retain_graph=True)
    second = torch.autograd.grad(nats, [hidden, table])
    assert_close(second, first, 0.0)
    for now, before in zip((hidden, table, targets, loss_mask), given_ones, strict=True):
        assert torch.equal(now, before)


# --- what stops it -----------------------------------------------------------------------------
@BOTH
@pytest.mark.parametrize(
    ("hidden", "table", "targets", "loss_mask", "words"),
    [
        ((3, 2), (5, 2), (4,), None, r"3\] tokens .* \[4\]"),
        ((3, 2), (5, 2), (3,), (2,), r"3\] tokens .* \[3\] and \[2\]"),
        ((3, 2), (5, 4), (3,), None, r"same D; got \[3, 2\] and \[5, 4\]"),
        ((1, 2, 2), (5, 2), (1,), None, r"got \[1, 2, 2\] and .*rearrange"),
    ],
)
def test_shapes_that_cannot_fit_are_named(loss, hidden, table, targets, loss_mask, words):
    plain = loss.__wrapped__  # as a learner calls it: beartype stands before it here
    mask = None if loss_mask is None else torch.ones(loss_mask, dtype=torch.bool)
    with pytest.raises(ValueError, match=words):
        plain(torch.zeros(hidden), torch.zeros(table), torch.zeros(targets).long(), mask)


def test_log_probs_of_other_tokens_are_refused():
    for call, words in (
        (lambda: token_log_probs.__wrapped__(torch.zeros(2, 3), torch.zeros(3).long()), r"\[3\]"),
        (lambda: z_loss.__wrapped__(torch.zeros(2, 3), torch.ones(1, dtype=bool)), r"\[1\]"),
    ):
        with pytest.raises(ValueError, match=rf"logits of \[2\] tokens.*{words}"):
            call()


def test_a_chunk_of_no_tokens_is_refused():
    with pytest.raises(ValueError, match="chunk_tokens must be at least 1; got 0"):
        cross_entropy(*question()[:3], chunk_tokens=0)


def test_a_gradient_of_the_gradient_is_refused_and_not_wrong():
    hidden, table, targets, _ = question()
    nats = cross_entropy(hidden, table, targets).nats
    with pytest.raises(ValueError, match="no gradients of gradients"):
        torch.autograd.grad(nats, hidden, create_graph=True)
