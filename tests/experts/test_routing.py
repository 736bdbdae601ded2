import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import (
    MixtralTopKRouter,
    load_balancing_loss_func,
)

from minillm.experts.routing import (
    balanced_bias,
    capacity,
    load_balance,
    route_expert_choice,
    route_switch,
    route_top_k,
    shares,
    z_loss,
)
from minillm.model.ffn import Routing


def numbers(*shape, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def logits_of(*rows):
    """Logits whose softmax is these rows."""
    return torch.tensor(rows).log()


def pairs(routing):
    """{(token, expert): weight, rounded}."""
    sent = zip(routing.tokens.tolist(), routing.experts.tolist(), strict=True)
    return {
        pair: round(weight, 4) for pair, weight in zip(sent, routing.weights.tolist(), strict=True)
    }


# --- by hand -----------------------------------------------------------------------------------
def test_a_token_takes_its_two_best_experts_and_weighs_them_by_their_share_of_the_two():
    logits = logits_of([0.5, 0.3, 0.2], [0.1, 0.2, 0.7])
    routing = route_top_k(logits, 2)
    # 5 : 3 and 2 : 7
    expected = {(0, 0): 0.625, (0, 1): 0.375, (1, 1): 0.2222, (1, 2): 0.7778}
    assert pairs(routing) == expected
    assert routing.experts.tolist() == [0, 1, 1, 2]  # sorted by expert
    assert routing.tokens_per_expert.tolist() == [1, 2, 1]
    assert routing.n_dropped == 0
    assert isinstance(routing, Routing)


def test_weights_that_are_not_normalised_are_the_probabilities_themselves():
    routing = route_top_k(logits_of([0.5, 0.3, 0.2]), 2, norm_topk=False)
    assert pairs(routing) == {(0, 0): 0.5, (0, 1): 0.3}


def test_the_bias_changes_who_is_chosen_and_not_what_it_weighs():
    logits, bias = logits_of([0.5, 0.3, 0.2]), torch.tensor([-0.25, 0.0, 0.2])
    # 0.25, 0.3 and 0.4 choose; 0.3 and 0.2 weigh
    routing = route_top_k(logits, 2, bias=bias, norm_topk=False)
    assert pairs(routing) == {(0, 1): 0.3, (0, 2): 0.2}
    assert pairs(route_top_k(logits, 2, bias=bias)) == {(0, 1): 0.6, (0, 2): 0.4}


def test_first_choices_find_a_place_before_second_ones_and_earlier_tokens_before_later_ones():
    logits = logits_of([0.6, 0.4], [0.3, 0.7], [0.8, 0.2])
    routing = route_top_k(logits, 2, norm_topk=False, capacity=2)
    # expert 0: first choices of tokens 0 and 2 fill it; expert 1: first of 1, then second of 0
    assert pairs(routing) == {(0, 0): 0.6, (2, 0): 0.8, (1, 1): 0.7, (0, 1): 0.4}
    assert routing.tokens.tolist() == [0, 2, 1, 0]  # in the order of arrival
    assert routing.n_dropped == 2
    assert routing.tokens_per_expert.tolist() == [3, 3]


def test_a_switch_sends_each_token_to_one_expert_and_drops_who_comes_too_late():
    logits = logits_of([0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8])
    routing = route_switch(logits, 2)
    assert pairs(routing) == {(0, 0): 0.9, (1, 0): 0.6, (3, 1): 0.8}  # not the best: the first
    assert routing.n_dropped == 1
    assert routing.tokens_per_expert.tolist() == [3, 1]


def test_an_expert_that_chooses_takes_its_best_tokens_and_leaves_others_out():
    logits = logits_of([0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8])
    routing = route_expert_choice(logits, 2)
    assert pairs(routing) == {(0, 0): 0.9, (2, 0): 0.7, (3, 1): 0.8, (1, 1): 0.4}
    assert route_expert_choice(logits, 9).tokens_per_expert.tolist() == [4, 4]  # there are no more
    assert set(route_expert_choice(logits, 1).tokens.tolist()) == {0, 3}


def test_an_expert_that_chooses_looks_into_the_future():
    logits = logits_of([0.6, 0.4], [0.5, 0.5])
    assert (0, 0) in pairs(route_expert_choice(logits, 1))
    later = logits_of([0.6, 0.4], [0.7, 0.3])
    assert (0, 0) not in pairs(route_expert_choice(later, 1))
    assert (0, 0) in pairs(route_top_k(later, 1))


def test_shares_count_what_was_asked_and_dropped():
    logits = logits_of([0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8])
    for n_slots in (1, 2, 4):
        assert shares(route_switch(logits, n_slots)).tolist() == [0.75, 0.25]


def test_the_balance_is_one_for_even_use_and_e_when_one_expert_has_everything():
    even = logits_of([0.7, 0.1, 0.2], [0.2, 0.7, 0.1], [0.1, 0.2, 0.7])
    assert load_balance(route_top_k(even, 1)).item() == pytest.approx(1)
    assert load_balance(route_top_k(even, 2)).item() == pytest.approx(1)
    one = torch.tensor([[50.0, 0, 0]] * 4)
    assert load_balance(route_top_k(one, 1)).item() == pytest.approx(3)
    # two a token: f = 1/2, 1/2, 0 and P = 1/2, 1/2, 0: 3 · 1/2
    two = torch.tensor([[50.0, 50, 0]] * 4)
    assert load_balance(route_top_k(two, 2)).item() == pytest.approx(1.5)


def test_the_z_loss_is_the_square_of_the_log_of_the_sum():
    # exp: 3 + 1 = 4 and 1 + 1 = 2
    logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])
    expected = (math.log(4) ** 2 + math.log(2) ** 2) / 2
    assert z_loss(route_top_k(logits, 1)).item() == pytest.approx(expected)


def test_the_bias_goes_up_below_the_mean_and_down_above_it_and_stays_at_it():
    bias = balanced_bias(torch.tensor([1.0, 1, 1, 1]), torch.tensor([0.5, 0.25, 0.25, 0.0]), 0.1)
    assert bias.tolist() == pytest.approx([0.9, 1.0, 1.0, 1.1])


@pytest.mark.parametrize(
    ("n_tokens", "n_experts", "factor", "n_slots"),
    [(8, 4, 1.0, 2), (9, 4, 1.0, 3), (12, 4, 1.25, 4), (1, 8, 1.25, 1), (100, 10, 1.1, 11)],
)
def test_capacity_is_rounded_up_but_not_for_the_rounding_of_floats(
    n_tokens, n_experts, factor, n_slots
):
    assert capacity(n_tokens, n_experts, factor) == n_slots


# --- twin --------------------------------------------------------------------------------------
@pytest.mark.parametrize("n_slots", [None, 1, 5, 12])
def test_sorting_serves_as_serving_one_after_the_other_does(n_slots):
    logits = numbers(30, 5)
    routing = route_top_k(logits, 3, capacity=n_slots)
    router_probabilities = logits.softmax(dim=-1)
    served, waiting = {}, [0] * 5
    ranked = router_probabilities.argsort(dim=-1, descending=True)[:, :3]
    for choice in range(3):
        for token in range(30):
            expert = ranked[token, choice].item()
            if n_slots is None or waiting[expert] < n_slots:
                chosen = router_probabilities[token, ranked[token]]
                served[token, expert] = round(
                    (router_probabilities[token, expert] / chosen.sum()).item(), 4
                )
            waiting[expert] += 1
    assert pairs(routing) == pytest.approx(served, abs=2e-4)
    assert routing.tokens_per_expert.tolist() == waiting
    assert routing.n_dropped == 90 - len(served)


# --- reference ---------------------------------------------------------------------------------
def test_it_routes_as_transformers_mixtral_does():
    router = MixtralTopKRouter(
        MixtralConfig(hidden_size=8, num_local_experts=6, num_experts_per_tok=3)
    )
    with torch.no_grad():
        router.weight.copy_(numbers(6, 8))
    logits, weights, experts = router(numbers(20, 8, seed=1))
    routing = route_top_k(logits, 3)
    dense = torch.zeros(20, 6).scatter(1, experts, weights)
    ours = torch.zeros(20, 6).index_put((routing.tokens, routing.experts), routing.weights)
    torch.testing.assert_close(ours, dense, rtol=0, atol=1e-6)


def test_the_balance_is_that_of_transformers_mixtral_over_the_number_of_choices():
    logits = numbers(20, 6)
    for top_k in (1, 2, 3):
        theirs = load_balancing_loss_func((logits,), num_experts=6, top_k=top_k)
        ours = load_balance(route_top_k(logits, top_k))
        assert ours.item() == pytest.approx(theirs.item() / top_k)  # they sum over choices


# --- law ---------------------------------------------------------------------------------------
@given(
    st.integers(1, 30), st.integers(1, 8), st.integers(1, 8), st.integers(1, 9), st.integers(0, 99)
)
@settings(max_examples=30, deadline=None)
def test_no_pair_twice_none_above_capacity_and_all_are_accounted_for(n, e, k, n_slots, seed):
    k = min(k, e)
    logits = numbers(n, e, seed=seed)
    for routing, targets in (
        (route_top_k(logits, k), n * k),
        (route_top_k(logits, k, capacity=n_slots), n * k),
        (route_switch(logits, n_slots), n),
        (route_expert_choice(logits, n_slots), e * min(n_slots, n)),
    ):
        assert len(pairs(routing)) == len(routing.tokens)
        assert len(routing.tokens) + routing.n_dropped == targets
        assert routing.experts.tolist() == sorted(routing.experts.tolist())
        assert routing.tokens_per_expert.sum() == targets
        assert shares(routing).sum().item() == pytest.approx(1)
    assert torch.bincount(route_top_k(logits, k, capacity=n_slots).experts).max() <= n_slots
    summed = torch.zeros(n).index_add(
        0, route_top_k(logits, k).tokens, route_top_k(logits, k).weights
    )
    torch.testing.assert_close(summed, torch.ones(n))


def test_the_router_learns_from_weights_from_balance_and_from_z_but_not_from_the_bias():
    bias = torch.zeros(4, requires_grad=True)
    for value in (
        lambda routing: routing.weights.square().sum(),
        load_balance,
        z_loss,
    ):
        logits = numbers(10, 4).requires_grad_()
        value(route_top_k(logits, 2, bias=bias)).backward()
        assert (logits.grad.abs().sum(dim=-1) > 0).all()
        assert bias.grad is None


def test_descending_the_balance_evens_the_use_out_and_so_does_the_bias():
    start = numbers(200, 4) + torch.tensor([2.0, 0, 0, 0])
    assert shares(route_top_k(start, 1)).max() > 0.6
    shift = torch.zeros(4, requires_grad=True)
    for _ in range(120):
        (gradient,) = torch.autograd.grad(load_balance(route_top_k(start + shift, 1)), shift)
        shift = (shift - 0.3 * gradient).detach().requires_grad_()
    assert shares(route_top_k(start + shift, 1)).max() < 0.35
    bias = torch.zeros(4)
    for _ in range(120):
        bias = balanced_bias(bias, shares(route_top_k(start, 1, bias=bias)), 0.01)
    assert shares(route_top_k(start, 1, bias=bias)).max() < 0.35


def test_sixteen_bits_are_routed_in_thirty_two():
    routing = route_top_k(numbers(10, 4, dtype=torch.bfloat16), 2)
    assert routing.weights.dtype == torch.float32
    assert load_balance(routing).dtype == z_loss(routing).dtype == torch.float32


# --- what stops it -----------------------------------------------------------------------------
ANY = torch.zeros(3, 4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: route_top_k(ANY, 5), "at most the number of experts, 4; got 5"),
        (lambda: route_top_k(ANY, 0), "top_k must be at least 1"),
        (lambda: route_top_k(ANY, 1, capacity=0), "capacity must be at least 1"),
        (lambda: route_switch(ANY, 0), "capacity must be at least 1"),
        (lambda: route_expert_choice(ANY, 0), "capacity must be at least 1"),
        (lambda: route_top_k(ANY, 1, bias=torch.zeros(3)), "each of the 4 experts; got 3"),
        (lambda: balanced_bias(torch.zeros(3), ANY[0], 0.1), "each of the 4 experts; got 3"),
        (lambda: capacity(0, 4, 1.0), "n_tokens=0"),
        (lambda: capacity(4, 0, 1.0), "n_experts=0"),
        (lambda: capacity(4, 4, 0.0), "factor=0.0"),
        (lambda: capacity(4, 4, math.inf), "factor=inf"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError) as error:
        call()
    assert words in str(error.value)
