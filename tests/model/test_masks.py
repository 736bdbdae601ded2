import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.model.masks import causal, document, padding, prefix, window

PLACES = torch.arange(5)


def drawn(mask):
    """A mask as text, a row a line: x may look, . may not."""
    return ["".join("x" if yes else "." for yes in row) for row in mask.tolist()]


# --- by hand -----------------------------------------------------------------------------------
def test_a_causal_mask_is_a_triangle():
    assert drawn(causal(PLACES, PLACES)) == ["x....", "xx...", "xxx..", "xxxx.", "xxxxx"]


def test_later_queries_see_all_that_was_kept():
    assert drawn(causal(PLACES[3:], PLACES)) == ["xxxx.", "xxxxx"]


def test_a_window_holds_the_token_itself_and_those_before():
    assert drawn(window(PLACES, PLACES, 2)) == ["x....", "xx...", ".xx..", "..xx.", "...xx"]
    assert drawn(window(PLACES, PLACES, 1)) == ["x....", ".x...", "..x..", "...x.", "....x"]


def test_a_prefix_is_seen_by_all_and_the_rest_is_causal():
    both = prefix(PLACES, PLACES, torch.tensor([3, 0]))
    assert both.shape == (2, 1, 5, 5)
    assert drawn(both[0, 0]) == ["xxx..", "xxx..", "xxx..", "xxxx.", "xxxxx"]
    assert drawn(both[1, 0]) == drawn(causal(PLACES, PLACES))


def test_packed_texts_do_not_see_each_other():
    ids = torch.tensor([[4, 4, 9, 9, 9]])
    packed = causal(PLACES, PLACES) & document(ids, ids)
    assert drawn(packed[0, 0]) == ["x....", "xx...", "..x..", "..xx.", "..xxx"]


def test_what_fills_a_row_up_is_seen_by_nobody():
    is_token = torch.tensor([[False, False, True, True, True], [True] * 5])
    mask = causal(PLACES, PLACES) & padding(is_token)
    assert mask.shape == (2, 1, 5, 5)
    assert drawn(mask[0, 0]) == [".....", ".....", "..x..", "..xx.", "..xxx"]
    assert drawn(mask[1, 0]) == drawn(causal(PLACES, PLACES))


def test_a_window_and_the_first_token_are_joined_by_or():
    sink = window(PLACES, PLACES, 2) | (PLACES < 1)
    assert drawn(sink) == ["x....", "xx...", "xxx..", "x.xx.", "x..xx"]


# --- law ---------------------------------------------------------------------------------------
positions = st.lists(st.integers(0, 12), min_size=1, max_size=6)


@given(positions, positions, st.integers(1, 14))
@settings(max_examples=100, deadline=None)
def test_each_place_of_a_mask_is_its_rule(queries, keys, n):
    q, k = torch.tensor(queries), torch.tensor(keys)
    rules = {
        "causal": (causal(q, k), lambda m, s: s <= m),
        "window": (window(q, k, n), lambda m, s: m - n < s <= m),
        "prefix": (prefix(q, k, torch.tensor([n]))[0, 0], lambda m, s: s <= m or s < n),
    }
    for mask, rule in rules.values():
        assert mask.tolist() == [[rule(m, s) for s in keys] for m in queries]


@given(st.lists(st.tuples(positions, positions), min_size=1, max_size=3), st.integers(1, 4))
@settings(max_examples=50, deadline=None)
def test_rows_with_places_of_their_own_are_rows_one_by_one(rows, n):
    n_queries, n_keys = min(len(q) for q, _ in rows), min(len(k) for _, k in rows)
    q = torch.tensor([row[:n_queries] for row, _ in rows])
    k = torch.tensor([row[:n_keys] for _, row in rows])
    n_prefix = torch.full((len(rows),), n)
    for row in range(len(rows)):
        assert torch.equal(causal(q, k)[row, 0], causal(q[row], k[row]))
        assert torch.equal(window(q, k, n)[row, 0], window(q[row], k[row], n))
        alone = prefix(q[row], k[row], n_prefix[:1])[0, 0]
        assert torch.equal(prefix(q, k, n_prefix)[row, 0], alone)


@given(st.integers(0, 20), st.integers(1, 25))
@settings(max_examples=50, deadline=None)
def test_only_distances_count_and_a_wide_window_is_causal(shift, n):
    moved = PLACES + shift
    assert torch.equal(causal(moved, moved), causal(PLACES, PLACES))
    assert torch.equal(window(moved, moved, n), window(PLACES, PLACES, n))
    inside = window(PLACES, PLACES, n) & causal(PLACES, PLACES)
    assert torch.equal(inside, window(PLACES, PLACES, n))
    assert torch.equal(window(PLACES, PLACES, n), causal(PLACES, PLACES)) == (n >= 5)


def test_every_pair_of_masks_can_be_joined_and_the_order_does_not_matter():
    ids = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 2, 2]])
    masks = [
        causal(PLACES, PLACES),
        window(PLACES, PLACES, 2),
        padding(torch.tensor([[False, True, True, True, True], [True] * 5])),
        document(ids, ids),
        prefix(PLACES, PLACES, torch.tensor([1, 2])),
    ]
    for one in masks:
        assert one.dtype == torch.bool
        for other in masks:
            both = one & other
            assert torch.equal(both, other & one)
            assert both.broadcast_to(2, 3, 5, 5)[1, 2, 4, 3] == (
                one.broadcast_to(2, 3, 5, 5)[1, 2, 4, 3]
                and other.broadcast_to(2, 3, 5, 5)[1, 2, 4, 3]
            )


# --- bad input ---------------------------------------------------------------------------------
@pytest.mark.parametrize("n_tokens", [0, -1])
def test_a_window_without_the_token_itself_is_refused(n_tokens):
    with pytest.raises(ValueError, match=f"at least 1 token, the query itself; got {n_tokens}"):
        window(PLACES, PLACES, n_tokens)
