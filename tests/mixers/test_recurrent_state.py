import copy
import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.mixers.recurrent_state import State, checked, writes
from minillm.model.attention import Attention, AttentionConfig, Context, attend
from minillm.model.cache import KVCache
from minillm.model.masks import causal, document, padding, prefix, window


def some(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def summing(batch_size=2):
    """What a mixer keeps that adds up its tokens of three numbers, and counts them."""
    return State(
        "Summing", {"sum": torch.zeros(batch_size, 3), "count": torch.full((batch_size,), 7)}
    )


def add(state, x):
    """The mixer itself, [B, T, 3]."""
    state.update(x.shape[1], sum=state["sum"] + x.sum(dim=1), count=state["count"] + x.shape[1])


def drawn(mask):
    """A mask as it is drawn on paper: a line for each query."""
    return torch.tensor([[cell == "x" for cell in line] for line in mask.split()])


# --- by hand -----------------------------------------------------------------------------------
def test_a_state_begins_as_it_was_made_and_is_what_was_last_put_there():
    state = summing()
    assert (state.kind, state.batch_size, state.n_tokens) == ("Summing", 2, 0)
    assert state["count"].tolist() == [7, 7]
    add(state, torch.ones(2, 4, 3))
    add(state, torch.ones(2, 1, 3))
    assert (state["sum"].tolist(), state["count"].tolist()) == ([[5.0] * 3] * 2, [12, 12])
    assert state.n_tokens == 5


def test_bytes_are_those_of_the_parts_after_any_number_of_tokens():
    state = summing(batch_size=5)
    assert state.n_bytes == 5 * 3 * 4 + 5 * 8  # float32 and int64
    for n_tokens in (1, 100, 1000):
        add(state, some(5, n_tokens, 3))
        assert state.n_bytes == 100
    state.keep([0, 3])
    assert state.n_bytes == 40
    meta = State("Huge", {"table": torch.empty(2, 10**6, 10**4, dtype=torch.half, device="meta")})
    assert meta.n_bytes == 4 * 10**10


def test_rows_are_kept_in_the_order_asked_for():
    state = summing(batch_size=3)
    add(state, torch.arange(3.0).reshape(3, 1, 1).expand(3, 1, 3))
    state.keep([2, 0, 2, 1])
    assert state["sum"][:, 0].tolist() == [2.0, 0.0, 2.0, 1.0]
    assert (state.batch_size, state.n_tokens) == (4, 1)
    state.keep(torch.tensor([3]))
    assert state["sum"].tolist() == [[1.0] * 3]


def test_after_reset_as_many_rows_as_were_kept_begin_anew():
    state = summing(batch_size=3)
    add(state, some(3, 2, 3))
    state.keep([1, 1, 0, 2])
    state.reset()
    assert (state["sum"].tolist(), state["count"].tolist()) == ([[0.0] * 3] * 4, [7] * 4)
    assert state.n_tokens == 0


def test_to_go_back_is_nothing_where_all_is_kept_and_reset_where_nothing_is():
    state = summing()
    add(state, some(2, 5, 3))
    before = state["sum"].clone()
    state.truncate(5)
    assert torch.equal(state["sum"], before) and state.n_tokens == 5
    state.truncate(0)
    assert (state["sum"] == 0).all() and state.n_tokens == 0


def test_a_copy_lets_guesses_be_taken_back():
    state = summing()
    add(state, some(2, 5, 3))
    kept = copy.deepcopy(state)
    before = kept["sum"].clone()
    add(state, some(2, 2, 3, seed=1))
    assert torch.equal(kept["sum"], before) and kept.n_tokens == 5
    kept.reset()
    assert state.n_tokens == 7


def test_the_same_state_comes_back_if_it_is_this_mixers_own():
    state = summing()
    assert checked(state, "Summing", batch_size=2) is state


MASKS = {  # T new tokens, then the mask: keys in the cache stand on the left; then who writes
    "causal": (3, "x.. xx. xxx", None),
    "left padding": (3, "... .x. .xx", [False, True, True]),
    "right padding": (3, "x.. xx. xx.", [True, True, False]),
    "a hole": (3, "x.. x.. x.x", [True, False, True]),
    "nothing but padding": (2, ".. ..", [False, False]),
    "after a cache": (2, "xxx. xxxx", None),
    "after a cache with a padding token": (2, ".xx. .xxx", None),
    "a padding token after a cache": (2, "xx.. xx.x", [False, True]),
    "one new token": (1, "..xx", None),
}


@pytest.mark.parametrize("name", MASKS)
def test_all_write_but_those_that_do_not_see_themselves(name):
    n_new, mask, expected = MASKS[name]
    for shown in (
        drawn(mask),
        drawn(mask)[None, None],
        drawn(mask)[None, None].expand(2, 1, -1, -1),
    ):
        who = writes(shown, 2, n_new)
        assert (who if expected is None else who.tolist()) == (expected and [expected] * 2)


def test_without_a_mask_all_write():
    assert writes(None, 2, 3) is None


# --- twin --------------------------------------------------------------------------------------
steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 3)),
        st.tuples(st.just("keep"), st.lists(st.integers(0, 99), min_size=1, max_size=3)),
        st.tuples(st.just("reset"), st.none()),
    ),
    max_size=12,
)


@given(steps, st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_it_is_what_lists_of_tokens_would_give(steps, seed):
    state, rows = summing(), [[], []]
    for number, (action, argument) in enumerate(steps):
        if action == "add":
            x = some(len(rows), argument, 3, seed=seed + number)
            add(state, x)
            rows = [row + list(more) for row, more in zip(rows, x, strict=True)]
        elif action == "keep":
            chosen = [number % len(rows) for number in argument]
            state.keep(chosen)
            rows = [rows[row] for row in chosen]
        else:
            state.reset()
            rows = [[] for _ in rows]
        assert (state.batch_size, state.n_tokens) == (len(rows), len(rows[0]))
        sums = [sum(row, start=torch.zeros(3)) for row in rows]
        torch.testing.assert_close(state["sum"], torch.stack(sums), rtol=0, atol=1e-5)
        assert state["count"].tolist() == [7 + len(row) for row in rows]


# --- reference ---------------------------------------------------------------------------------
@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=3))
@settings(max_examples=50, deadline=None)
def test_who_writes_is_who_is_seen_by_attention(is_token):
    is_token = torch.tensor(is_token)
    batch_size, positions = len(is_token), torch.arange(6)
    mask = causal(positions, positions) & padding(is_token)
    x = some(batch_size, 1, 6, 4)
    weights = attend(x, x, x, mask).weights[:, 0]
    for first in range(6):  # so many tokens are in the cache
        who = writes(mask[:, :, first:], batch_size, 6 - first)
        who = torch.ones(batch_size, 6 - first, dtype=torch.bool) if who is None else who
        taken = weights.diagonal(dim1=1, dim2=2)[:, first:] > 0
        assert torch.equal(who, taken)


# --- law ---------------------------------------------------------------------------------------
@given(st.integers(1, 4), st.integers(0, 6), st.integers(1, 6), st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_left_padding_in_pieces_is_read_as_the_fillers_it_was_made_of(
    batch_size, first, n_new, seed
):
    n_seen = first + n_new
    generator = torch.Generator().manual_seed(seed)
    n_padding = torch.randint(0, n_seen + 1, (batch_size, 1), generator=generator)
    is_token = torch.arange(n_seen) >= n_padding
    mask = causal(torch.arange(first, n_seen), torch.arange(n_seen)) & padding(is_token)
    who = writes(mask, batch_size, n_new)
    expected = is_token[:, first:]
    assert (who is None) == bool(expected.all())
    assert who is None or torch.equal(who, expected)


@given(st.integers(2, 7), st.integers(0, 3), st.data())
@settings(max_examples=80, deadline=None)
def test_one_more_hidden_key_that_another_token_sees_is_refused(n_new, first, data):
    n_seen = first + n_new
    mask = causal(torch.arange(first, n_seen), torch.arange(n_seen))
    query = data.draw(st.integers(0 if first else 1, n_new - 1))
    key = data.draw(st.integers(0, first + query - 1))
    mask[query, key] = False
    with pytest.raises(ValueError, match="causal & padding only"):
        writes(mask, 2, n_new)


# --- what stops it -----------------------------------------------------------------------------
PLACES = torch.arange(4)
OTHERS = {
    "window": window(PLACES, PLACES, 2),
    "window and a first token": window(PLACES, PLACES, 2) | (PLACES < 1),
    "documents": causal(PLACES, PLACES) & document(*[torch.tensor([[1, 1, 2, 2]])] * 2),
    "prefix": prefix(PLACES, PLACES, torch.tensor([2])),
    "all see all": torch.ones(4, 4, dtype=torch.bool),
    "padding alone": padding(torch.tensor([[False, True, True, True]])),
    "a padding token that others see": drawn("x... x... xxx. xxxx"),
    "a padding token that one other sees": drawn("x... x... x.x. xxxx"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_mask_that_a_state_cannot_follow_is_refused(name):
    with pytest.raises(ValueError, match=r"causal & padding only.*Put one document in a row"):
        writes(OTHERS[name], 2, 4)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.ones(2, 2, 4, 4, dtype=torch.bool), r"2 rows of 4 tokens got torch.bool of \[2, 2,"),
        (torch.ones(3, 1, 4, 4, dtype=torch.bool), r"got torch.bool of \[3, 1, 4, 4\]"),
        (torch.ones(2, 4, 4, dtype=torch.bool), r"got torch.bool of \[2, 4, 4\]"),
        (torch.ones(3, 4, dtype=torch.bool), r"got torch.bool of \[3, 4\]"),
        (
            torch.ones(4, 3, dtype=torch.bool),
            r"keys for all tokens so far.*got torch.bool of \[4, 3",
        ),
    ],
)
def test_a_mask_of_another_shape_is_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        writes(mask, 2, 4)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "got nothing"),
        ({"a": torch.zeros(2, 3), "b": torch.zeros(3, 2)}, r"a \[2, 3\].*b \[3, 2\]"),
        ({"a": torch.zeros(0, 3)}, r"at least one row.*a \[0, 3\]"),
    ],
)
def test_parts_must_be_there_and_have_as_many_rows(parts, message):
    with pytest.raises(ValueError, match=message):
        State("Summing", parts)


@pytest.mark.parametrize(
    "parts",
    [
        {"sum": torch.zeros(2, 3)},
        {"sum": torch.zeros(2, 4), "count": torch.zeros(2, dtype=torch.int64)},
        {"sum": torch.zeros(2, 3), "count": torch.zeros(2)},
        {"sum": torch.zeros(2, 3), "count": torch.zeros(2, dtype=torch.int64), "x": torch.zeros(2)},
    ],
)
def test_other_parts_are_refused_and_the_state_stays(parts):
    state = summing()
    add(state, torch.ones(2, 3, 3))
    with pytest.raises(
        ValueError, match=r"a state of Summing keeps sum \[2, 3\] torch.float32.*got"
    ):
        state.update(1, **parts)
    assert (state["sum"] == 3).all() and state.n_tokens == 3


def test_what_was_taken_in_cannot_be_taken_out():
    state = summing()
    add(state, torch.ones(2, 5, 3))
    for n_tokens in (4, 6, -1):
        with pytest.raises(
            ValueError, match=rf"taken in 5 tokens.*truncate\({n_tokens}\).*deepcopy"
        ):
            state.truncate(n_tokens)
    assert (state["sum"] == 5).all() and state.n_tokens == 5


@pytest.mark.parametrize("rows", [[], [2], [-1], [0, 5]])
def test_rows_that_are_not_there_cannot_be_kept(rows):
    state = summing()
    with pytest.raises(ValueError, match="at least one row out of 0 to 1; got"):
        state.keep(rows)
    assert state.batch_size == 2


def test_a_cache_of_another_mixer_or_batch_is_refused():
    with pytest.raises(ValueError, match=r"Mamba needs a cache from its own.*one of Summing"):
        checked(summing(), "Mamba", 2)
    with pytest.raises(ValueError, match=r"Summing needs a cache.*one of KVCache"):
        checked(KVCache(2, 1, 4, 1), "Summing", 2)
    with pytest.raises(ValueError, match=r"Summing needs a cache.*one of NoneType"):
        checked(None, "Summing", 2)
    with pytest.raises(ValueError, match=r"is for 2 rows; got tokens of 3.*keep"):
        checked(summing(), "Summing", 3)


def test_attention_refuses_a_state():
    layer = AttentionConfig(n_heads=1).build(4)
    forward = inspect.unwrap(Attention.forward)  # as outside of tests, where no types are checked
    with pytest.raises(ValueError, match=r"attention needs a KVCache.*a state of Summing"):
        forward(layer, some(2, 3, 4), Context(positions=torch.arange(3)), summing())
