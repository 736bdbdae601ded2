from itertools import accumulate

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from minillm.measure.memory_meter import Meter, peak_elements


# --- by hand -----------------------------------------------------------------------------------
def test_what_is_allocated_is_counted_and_leaves_with_its_last_name():
    with Meter() as meter:
        a = torch.zeros(10, 3)
        assert meter.live == 30
        b = torch.ones(5)
        assert meter.live == 35
        del a
        assert meter.live == 5
        c = b + 1
    assert (meter.live, meter.peak, meter.largest) == (10, 35, 30)
    del b, c
    assert (meter.live, meter.peak) == (0, 35)  # frees are seen after the block, too


def test_a_view_counts_once_however_wide_it_looks():
    with Meter() as meter:
        a = torch.zeros(4)
        views = [a[1:], a.view(2, 2).T, a.expand(1000, 4), a.detach(), a.unbind()]
        assert (meter.live, meter.largest) == (4, 4)
        del a
        assert meter.live == 4  # a view keeps the whole storage
        del views
        assert meter.live == 0


def test_an_operation_in_place_needs_nothing():
    with Meter() as meter:
        a = torch.zeros(6)
        a += 1
        a[2:].mul_(3)
        torch.add(a, a, out=a)
        a.clamp_(max=2).exp_()
    assert meter.peak == 6


def test_what_was_there_before_is_not_counted_and_neither_are_its_views():
    before, other = torch.zeros(100), torch.ones(100)
    with Meter() as meter:
        half = before[:50]
        half += 1
        out = torch.exp(other, out=before)
        assert meter.live == 0
        doubled = half + half
    assert meter.live == 50 == doubled.numel()
    assert out is before


def test_a_storage_that_grows_counts_with_its_new_size():
    with Meter() as meter:
        a = torch.empty(0)
        torch.ones(8, out=a)
        assert (meter.live, meter.peak) == (8, 8)
        a.resize_(20)
        assert (meter.live, meter.peak, meter.largest) == (20, 20, 20)


def test_a_tensor_typed_by_hand_counts_too():
    with Meter() as meter:
        typed = torch.tensor([1.0, 2.0, 3.0])
        assert meter.live == 3 == len(typed)


def test_results_in_lists_and_operands_in_lists_are_seen():
    a = torch.zeros(6)
    with Meter() as meter:
        parts = a.split(2)
        assert meter.live == 0
        joined = torch.cat(parts)
        assert meter.live == 6
        highest = joined.max(dim=0)  # a value and an index
        assert meter.live == 8
    assert highest.values == 0


def test_elements_not_bytes():
    with Meter() as meter:
        kept = [torch.zeros(4, dtype=t) for t in (torch.bool, torch.float64, torch.bfloat16)]
        kept.append(kept[1].view(torch.int32))  # a view of another width
    assert meter.live == 12


def test_a_chain_needs_two_at_a_time_and_its_gradient_what_it_stored():
    x = torch.zeros(100)
    assert peak_elements(lambda: x.exp().exp().exp()) == 200
    x.requires_grad_()
    # Forward: all three results are stored, and the sum. Backward: the sum's gradient, and that of
    # the third exp while its result is still there; then each gradient replaces a result.
    assert peak_elements(lambda: x.exp().exp().exp().sum()) == 3 * 100 + 1
    assert peak_elements(lambda: x.exp().exp().exp().sum().backward()) == 3 * 100 + 1 + 1 + 100


def test_a_meter_starts_anew_each_time():
    x = torch.zeros(7)
    assert [peak_elements(lambda: x + 1) for _ in range(3)] == [7, 7, 7]


# --- twin --------------------------------------------------------------------------------------
def test_inference_mode_hides_nothing():
    # There torch hands a matmul over in one piece, with the copies of b that it makes inside.
    a, b = torch.zeros(2, 3, 8, 5), torch.zeros(3, 5, 8)
    expected = 2 * 3 * 8 * 8 + 2 * 3 * 5 * 8
    assert peak_elements(lambda: a @ b) == expected
    with torch.inference_mode():
        assert peak_elements(lambda: a @ b) == expected


# --- reference ---------------------------------------------------------------------------------
def peak_bytes(function):
    """What torch's profiler saw its allocator do."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        function()
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(accumulate(event.nbytes() for event in events))


@pytest.fixture
def one_thread():
    """A kernel may take a buffer for each thread, which the meter does not see."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("backward", [False, True])
def test_it_agrees_with_the_record_of_torch_s_allocator(backward, one_thread):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(40, 300), nn.GELU(), nn.LayerNorm(300), nn.Linear(300, 30))
    x = torch.randn(50, 40)

    def step():
        network.zero_grad()
        loss = network(x).softmax(dim=-1).square().mean()
        if backward:
            loss.backward()

    step()
    network.zero_grad()
    elements = peak_elements(step)
    network.zero_grad()
    # The record has a number or two more, of a few bytes: plain numbers that kernels wrap.
    assert 4 * elements == pytest.approx(peak_bytes(step), rel=1e-3)


# --- law ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("power", [1, 2])
def test_a_table_of_n_by_n_grows_as_the_square_and_a_row_as_n(power):
    sizes = [8, 16, 32, 64]
    peaks = [peak_elements(lambda n=n: torch.zeros((n,) * power) + 1) for n in sizes]
    assert peaks == [2 * n**power for n in sizes]


def test_live_is_what_is_alive_after_any_order_of_frees():
    generator = torch.Generator().manual_seed(0)
    kept, expected = {}, 0
    with Meter() as meter:
        for step in range(300):
            if len(kept) > 5:
                name = sorted(kept)[int(torch.randint(6, (), generator=generator).item())]
                expected -= kept.pop(name).numel()
            kept[step] = torch.zeros(step % 17)
            expected += step % 17
            assert meter.live == expected
