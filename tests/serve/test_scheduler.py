import pytest

from minillm.serve.blocks import BlockPool
from minillm.serve.scheduler import Scheduler, Sequence


def scheduler(n_blocks=20, block_size=2, max_batch=2, step_tokens=6, **kwargs):
    return Scheduler(BlockPool(n_blocks, block_size), max_batch, step_tokens, **kwargs)


def added(plans, *n_prompts, first=0):
    """Sequences that have no token in common."""
    sequences = [
        Sequence(first + n, [100 * (first + n) + place for place in range(length)])
        for n, length in enumerate(n_prompts)
    ]
    for sequence in sequences:
        plans.add(sequence)
    return sequences


def step(plans):
    """Plan, read, and write one token for each who has read all: what an engine does."""
    chunks = plans.plan()
    for sequence, n_new in chunks:
        plans.pool.store(sequence.table, sequence.tokens[: sequence.table.n_tokens + n_new])
        if not sequence.n_unread:
            sequence.tokens.append(-len(sequence.tokens))
    return [(sequence.number, n_new) for sequence, n_new in chunks]


def test_a_long_prompt_is_read_in_chunks_beside_those_who_write():
    plans = scheduler()
    added(plans, 2, 9)
    assert [step(plans) for _ in range(4)] == [
        [(0, 2), (1, 4)],
        [(0, 1), (1, 5)],
        [(0, 1), (1, 1)],
        [(0, 1), (1, 1)],
    ]


def test_who_is_done_leaves_and_who_waits_takes_the_slot():
    plans = scheduler()
    first, second, third = added(plans, 1, 1, 1)
    assert step(plans) == [(0, 1), (1, 1)]
    plans.remove(first)
    assert step(plans) == [(1, 1), (2, 1)]
    assert (second.slot, third.slot, first.slot) == (1, 0, None)


def test_a_static_batch_waits_for_its_last():
    plans = scheduler(static=True)
    first, second, _ = added(plans, 1, 1, 1)
    step(plans)
    plans.remove(first)
    assert step(plans) == [(1, 1)]
    plans.remove(second)
    assert step(plans) == [(2, 1)]


def test_when_blocks_run_out_the_youngest_waits_first_in_the_queue_and_reads_again():
    plans = scheduler(n_blocks=3, max_batch=3)
    _, second, _ = added(plans, 2, 2, 2)
    assert step(plans) == [(0, 2), (1, 2), (2, 2)]
    assert step(plans) == [(0, 1)]  # takes the block of the third, and needs no second
    assert [each.number for each in plans.waiting] == [1, 2]
    assert plans.n_preemptions == 2
    plans.remove(plans.running[0])
    assert step(plans) == [(1, 1)]  # two tokens still stand in its block, so only one is read
    assert second.tokens[:2] == [100, 101]


def test_nobody_is_let_in_past_the_first_who_waits():
    plans = scheduler(n_blocks=4, max_batch=3)
    added(plans, 4, 6, 1)
    assert step(plans) == [(0, 4)]  # the second needs 3 blocks, 2 are free


def test_a_step_has_a_token_for_each_slot():
    with pytest.raises(ValueError, match="step_tokens must be at least max_batch"):
        scheduler(max_batch=7)
