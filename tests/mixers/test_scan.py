import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from minillm.mixers.scan import scan, scan_chunked, scan_naive, scan_parallel


def numbers(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def in_threes(a, b, first=None):
    return scan_chunked(a, b, first, chunk_tokens=3)


FORMS = (scan_naive, scan_parallel, scan_chunked, in_threes, scan)
EACH = pytest.mark.parametrize("form", FORMS)


# --- by hand -----------------------------------------------------------------------------------
@EACH
def test_three_tokens_that_halve_and_add(form):
    half, new = torch.full((1, 3), 0.5), torch.tensor([[1.0, 4.0, 8.0]])
    assert form(half, new).tolist() == [[1.0, 4.5, 10.25]]
    # 8 before the first: 4, 2, 1 of it are still there
    assert form(half, new, torch.tensor([8.0])).tolist() == [[5.0, 6.5, 11.25]]


@EACH
def test_what_stays_and_what_is_new_may_be_other_at_each_token_row_and_number(form):
    a = torch.tensor([[[2.0, 0.0], [3.0, 1.0]], [[1.0, 1.0], [-1.0, 0.5]]])
    b = torch.tensor([[[1.0, 1.0], [1.0, 1.0]], [[5.0, 4.0], [0.0, 2.0]]])
    assert form(a, b).tolist() == [[[1.0, 1.0], [4.0, 2.0]], [[5.0, 4.0], [-5.0, 4.0]]]


@EACH
def test_gradients_of_the_last_of_three(form):
    a = torch.full((1, 3), 0.5, requires_grad=True)
    b = torch.tensor([[1.0, 4.0, 8.0]], requires_grad=True)
    first = torch.tensor([8.0], requires_grad=True)
    form(a, b, first)[0, 2].backward()
    # h_3 = a_3 (a_2 (a_1 8 + 1) + 4) + 8, with h_1 = 5 and h_2 = 6.5
    assert b.grad.tolist() == [[0.25, 0.5, 1.0]]
    assert a.grad.tolist() == [[0.25 * 8, 0.5 * 5, 6.5]]
    assert first.grad.tolist() == [0.125]


# --- twin --------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", FORMS[1:])
@pytest.mark.parametrize("n_tokens", [1, 2, 3, 16, 17, 37])
@pytest.mark.parametrize("shape", [(), (4, 3)])
def test_each_form_is_the_naive_one_with_all_gradients(form, n_tokens, shape):
    outcomes = []
    for each in (scan_naive, form):
        a = numbers(2, n_tokens, *shape).requires_grad_()
        b = numbers(2, n_tokens, *shape, seed=1).requires_grad_()
        first = numbers(2, *shape, seed=2).requires_grad_()
        h = each(a, b, first)
        h.backward(numbers(2, n_tokens, *shape, seed=3))
        outcomes.append((h.detach(), a.grad, b.grad, first.grad))
    for naive, other in zip(*outcomes, strict=True):
        torch.testing.assert_close(other, naive, rtol=0, atol=1e-12 * naive.abs().max().item())


@pytest.mark.parametrize("form", FORMS[1:])
def test_in_float32_the_forms_agree_over_two_hundred_fading_tokens(form):
    a = numbers(2, 200, 8, dtype=torch.float32).sigmoid()
    b = numbers(2, 200, 8, seed=1, dtype=torch.float32)
    naive = scan_naive(a, b)
    torch.testing.assert_close(form(a, b), naive, rtol=0, atol=1e-5 * naive.abs().max().item())


def test_tensors_that_are_views_of_others_are_read_as_they_are():
    a, b = numbers(5, 2, 3).transpose(0, 1), numbers(2, 1, 3, seed=1).expand(2, 5, 3)
    torch.testing.assert_close(scan(a, b), scan_naive(a, b))
    grown = a.detach().requires_grad_()
    scan(grown, b).sum().backward()  # a sum's gradient is one number, stretched
    again = a.detach().requires_grad_()
    scan_naive(again, b).sum().backward()
    torch.testing.assert_close(grown.grad, again.grad)


# --- reference ---------------------------------------------------------------------------------
@pytest.mark.parametrize("with_first", [False, True])
@EACH
def test_the_way_back_is_that_of_small_changes(form, with_first):
    a, b = numbers(2, 7, 3).requires_grad_(), numbers(2, 7, 3, seed=1).requires_grad_()
    first = numbers(2, 3, seed=2).requires_grad_() if with_first else None
    assert torch.autograd.gradcheck(form, (a, b, first))


@EACH
def test_one_factor_for_all_tokens_is_scipys_filter(form):
    b = numbers(2, 50)
    theirs = lfilter([1.0], [1.0, -0.9], b.numpy(), axis=1)  # y_t - 0.9 y_(t-1) = b_t
    torch.testing.assert_close(form(torch.full_like(b, 0.9), b), torch.from_numpy(theirs))


# --- law ---------------------------------------------------------------------------------------
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(FORMS), st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_a_text_in_two_pieces_is_the_whole_text(n_one, n_two, form, seed):
    a, b = numbers(2, n_one + n_two, 3, seed=seed).tanh(), numbers(2, n_one + n_two, 3, seed=-seed)
    one = form(a[:, :n_one], b[:, :n_one])
    two = form(a[:, n_one:], b[:, n_one:], one[:, -1])
    torch.testing.assert_close(torch.cat((one, two), dim=1), scan_naive(a, b))


@EACH
def test_ones_stay_and_the_scan_is_a_running_sum(form):
    b = numbers(2, 21, 3)
    torch.testing.assert_close(form(torch.ones_like(b), b), b.cumsum(dim=1))


@EACH
def test_joining_neighbours_first_leaves_every_second_h_as_it_is(form):
    a, b = numbers(2, 12, 3), numbers(2, 12, 3, seed=1)
    joined_a = a[:, 1::2] * a[:, ::2]
    joined_b = a[:, 1::2] * b[:, ::2] + b[:, 1::2]
    torch.testing.assert_close(form(joined_a, joined_b), form(a, b)[:, 1::2])


@EACH
def test_nothing_flows_back_in_time(form):
    a, b = numbers(1, 9, 2), numbers(1, 9, 2, seed=1)
    changed = b.clone()
    changed[:, 5] += 1
    assert (form(a, changed) != form(a, b)).any(dim=2)[0].tolist() == [False] * 5 + [True] * 4


def test_the_scan_that_trains_remembers_a_and_all_h_but_not_b():
    a, b = numbers(2, 5, 3).requires_grad_(), numbers(2, 5, 3, seed=1).requires_grad_()
    remembered = []

    def remember(tensor):
        remembered.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        h = scan(a, b)
    assert [tensor.data_ptr() for tensor in remembered] == [a.data_ptr(), h.data_ptr()]


# --- what stops it -----------------------------------------------------------------------------
@EACH
def test_other_shapes_are_refused_and_not_stretched(form):
    a, b = numbers(2, 5, 3), numbers(2, 5, 3)
    with pytest.raises(ValueError, match=r"one shape.*got \[2, 5, 1\] and \[2, 5, 3\].*expand it"):
        form(a[..., :1], b)
    with pytest.raises(ValueError, match=r"at least one token; got \[2, 0, 3\]"):
        form(a[:, :0], b[:, :0])
    with pytest.raises(ValueError, match=r"a token's shape, \[2, 3\] beside .*got \[2, 1\]"):
        form(a, b, numbers(2, 1))


def test_a_chunk_has_at_least_one_token():
    with pytest.raises(ValueError, match="chunk_tokens must be at least 1; got 0"):
        scan_chunked(numbers(1, 2), numbers(1, 2), chunk_tokens=0)


def test_a_gradient_of_the_gradient_is_refused_and_not_wrong():
    a, b = numbers(1, 3).requires_grad_(), numbers(1, 3)
    with pytest.raises(ValueError, match=r"no gradients of gradients.*Use scan_naive"):
        torch.autograd.grad(scan(a, b).sum(), a, create_graph=True)
