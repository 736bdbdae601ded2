import pytest
import torch

from minillm.mixers.recurrent_state import State
from minillm.mixers.short_conv import LAST_TOKENS, ShiftedCache
from minillm.model.cache import KVCache
from minillm.serve.blocks import Copy
from minillm.serve.paged import Places, paged


def like():
    return KVCache(batch_size=1, n_kv_heads=1, max_length=1, d_head=1)


def numbers(*rows):
    """Keys of rows of tokens, [B, 1, T, 1]."""
    return torch.tensor(rows, dtype=torch.float32)[:, None, :, None]


def test_new_tokens_go_to_their_places_and_each_text_is_gathered_to_the_right():
    stored = paged(like(), n_blocks=3, block_size=2, n_slots=2, layer="it")
    slots = torch.tensor([0, 1])
    first = Places(torch.tensor([[4, 5, 0]]), torch.tensor([[4, 5, 0]]), slots[:1])
    stored.step(first).append(numbers([1, 2, 3]), numbers([10, 20, 30]))
    # one token more for each of two texts, which have four tokens and one
    both = Places(torch.tensor([[1], [2]]), torch.tensor([[4, 5, 0, 1], [0, 0, 0, 2]]), slots)
    keys, values = stored.step(both).append(numbers([4], [7]), numbers([40], [70]))
    assert keys[:, 0, :, 0].tolist()[0] == [1, 2, 3, 4]
    assert values[:, 0, -1, 0].tolist() == [40, 70]


def test_blocks_are_copied_in_the_order_that_is_given():
    stored = paged(like(), n_blocks=3, block_size=2, n_slots=1, layer="it")
    stored.keys[:, 0, 0] = torch.arange(6.0)
    stored.copy([Copy(0, 1), Copy(1, 2)])
    assert stored.keys[:, 0, 0].tolist() == [0, 1, 0, 1, 0, 1]


def test_a_state_has_a_slot_and_starts_as_before_the_first_token():
    shift = State(LAST_TOKENS, {"last": torch.zeros(1, 1, 1)})
    cache = ShiftedCache(shift, State("Summing", {"sum": torch.full((1, 1), 5.0)}))
    stored = paged(cache, n_blocks=1, block_size=1, n_slots=3, layer="it")
    where = Places(torch.zeros(2, 1), torch.zeros(2, 1), torch.tensor([2, 0]))
    step = stored.step(where)
    assert step.mixer["sum"].tolist() == [[5], [5]]
    step.mixer.update(1, sum=torch.tensor([[7.0], [8.0]]))
    stored.end_step(step, where)
    all_slots = Places(torch.zeros(3, 1), torch.zeros(3, 1), torch.arange(3))
    assert stored.step(all_slots).mixer["sum"].tolist() == [[8], [5], [7]]
    stored.start(2)
    assert stored.step(all_slots).mixer["sum"].tolist() == [[8], [5], [5]]
    assert stored.n_bytes == 3 * 4 + 3 * 4


def test_another_kind_of_cache_is_refused_by_name():
    with pytest.raises(ValueError, match="the mixer of block 3 keeps a dict"):
        paged({}, n_blocks=1, block_size=1, n_slots=1, layer="the mixer of block 3")
