import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.serve.blocks import BlockPool, BlockTable, Copy, Prefix

TEXT = [7, 3, 9, 7, 3, 5, 8]


def stored(pool, tokens):
    """A table in which all tokens stand; what was stored before is shared."""
    table = pool.hold(pool.match(tokens))
    pool.grow(table, len(tokens) - table.n_tokens)
    pool.store(table, tokens)
    return table


def test_texts_that_begin_alike_hold_the_same_full_blocks():
    pool = BlockPool(n_blocks=6, block_size=2)
    first, second = stored(pool, TEXT[:5]), stored(pool, [7, 3, 9, 7, 1, 1])
    assert (first.blocks, second.blocks) == ([0, 1, 2], [0, 1, 3])
    assert pool.n_free == 2


def test_equal_blocks_after_other_beginnings_are_not_shared():
    pool = BlockPool(n_blocks=6, block_size=2)
    stored(pool, [1, 1, 7, 3])
    assert pool.match([2, 2, 7, 3, 0]) == Prefix((), 0)


@pytest.mark.parametrize("n_tokens", [4, 6])
def test_of_a_text_that_is_wholly_stored_the_last_token_is_read_again(n_tokens):
    pool = BlockPool(n_blocks=6, block_size=2)
    table = stored(pool, TEXT[:n_tokens])
    assert pool.match(TEXT[:n_tokens]) == Prefix(tuple(table.blocks), n_tokens - 1)


def test_who_writes_into_a_block_that_others_hold_gets_a_copy():
    pool = BlockPool(n_blocks=4, block_size=4)
    first = stored(pool, TEXT[:4])
    second = pool.hold(pool.match([7, 3, 1, 1]))
    assert (second.blocks, second.n_tokens, pool.n_missing(second, 2)) == ([0], 2, 1)
    assert pool.grow(second, 2) == [Copy(0, 1)]
    assert (first.blocks, second.blocks) == ([0], [1])


def test_who_writes_into_a_block_that_he_alone_holds_gets_none_but_nobody_finds_it_any_more():
    pool = BlockPool(n_blocks=4, block_size=4)
    pool.release(stored(pool, TEXT[:4]))
    table = pool.hold(pool.match([7, 3, 1, 1]))
    assert pool.grow(table, 2) == []
    assert table.blocks == [0]
    assert pool.match(TEXT) == Prefix((), 0)


def test_free_blocks_of_a_prefix_count_as_missing_since_they_leave_the_free_ones():
    pool = BlockPool(n_blocks=3, block_size=2)
    pool.release(stored(pool, TEXT[:5]))
    prefix = pool.match(TEXT[:5])
    assert (pool.n_free, len(prefix.blocks), prefix.n_tokens) == (3, 2, 4)
    assert pool.n_missing(prefix, 1) == 3
    assert pool.n_missing(pool.hold(prefix), 1) == 1


def test_the_longest_unused_block_is_taken_first_and_the_end_of_a_text_before_its_beginning():
    pool = BlockPool(n_blocks=4, block_size=2)
    pool.release(stored(pool, [1, 1, 2, 2]))  # blocks 0 1
    pool.release(stored(pool, [3, 3]))  # block 2
    table = BlockTable()
    pool.grow(table, 6)
    assert table.blocks == [3, 1, 0]  # never used; then of the older text its end
    assert pool.match([3, 3, 9]) == Prefix((2,), 2)


def test_too_few_free_blocks_are_refused_and_nothing_is_taken():
    pool = BlockPool(n_blocks=2, block_size=2)
    table = stored(pool, [1, 2, 3])
    with pytest.raises(ValueError, match="2 more tokens need 1 free blocks; there are 0"):
        pool.grow(table, 2)
    assert table.blocks == [0, 1]
    with pytest.raises(ValueError, match="at least 1"):
        BlockPool(n_blocks=0, block_size=2)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_whatever_happens_every_text_reads_its_own_tokens_and_no_block_is_lost(data):
    size = data.draw(st.integers(1, 4))
    pool = BlockPool(data.draw(st.integers(2, 8)), size)
    memory = [[None] * size for _ in range(pool.n_blocks)]  # what a cache would hold
    texts = {}  # of each table its tokens

    for _ in range(data.draw(st.integers(1, 25))):
        if texts and data.draw(st.booleans()):
            table = data.draw(st.sampled_from(list(texts)))
            if data.draw(st.booleans()):
                del texts[table]
                pool.release(table)
                continue
            new = data.draw(st.lists(st.integers(0, 1), min_size=1, max_size=5))
            tokens, n_before = texts[table] + new, table.n_tokens
        else:
            tokens = data.draw(st.lists(st.integers(0, 1), min_size=1, max_size=9))
            prefix = pool.match(tokens)
            assert prefix.n_tokens < len(tokens)
            if pool.n_missing(prefix, len(tokens) - prefix.n_tokens) > pool.n_free:
                continue
            table = pool.hold(prefix)
            texts[table], n_before = tokens, table.n_tokens
        if pool.n_missing(table, len(tokens) - n_before) > pool.n_free:
            continue
        n_free, n_missing = pool.n_free, pool.n_missing(table, len(tokens) - n_before)
        for source, target in pool.grow(table, len(tokens) - n_before):
            memory[target] = list(memory[source])
        assert pool.n_free == n_free - n_missing
        for place in range(n_before, len(tokens)):
            memory[table.blocks[place // size]][place % size] = tokens[place]
        pool.store(table, tokens)
        texts[table] = tokens
        for other, expected in texts.items():
            read = [memory[other.blocks[n // size]][n % size] for n in range(other.n_tokens)]
            assert read == expected[: other.n_tokens]
    held = {block for table in texts for block in table.blocks}
    assert pool.n_free == pool.n_blocks - len(held)
