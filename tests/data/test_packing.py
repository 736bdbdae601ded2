import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.data.packing import Packed
from minillm.model.attention import Context
from minillm.model.config import tiny
from minillm.model.masks import causal, document

END = 0
THREE = [[5, 6, 7], [8, 9], [4, 4, 4, 4]]


def packed(documents=THREE, context_length=4, batch_size=2, seed=0):
    return Packed(
        documents, end_id=END, context_length=context_length, batch_size=batch_size, seed=seed
    )


# --- by hand -----------------------------------------------------------------------------------
def test_a_mark_stands_before_each_document_and_behind_the_last():
    assert packed().stream.tolist() == [0, 5, 6, 7, 0, 8, 9, 0, 4, 4, 4, 4, 0]


def test_rows_share_one_token_and_every_token_but_the_first_is_wanted_once():
    batch = packed().rows([0, 1, 2])
    assert batch.tokens.tolist() == [[0, 5, 6, 7], [0, 8, 9, 0], [4, 4, 4, 4]]
    assert batch.targets.tolist() == [[5, 6, 7, 0], [8, 9, 0, 4], [4, 4, 4, 0]]


def test_a_mark_that_is_read_belongs_to_the_document_it_begins():
    batch = packed().rows([0, 1, 2])
    assert batch.documents.tolist() == [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    context = batch.context()
    assert context.positions.tolist() == [[0, 1, 2, 3], [0, 1, 2, 0], [0, 1, 2, 3]]
    assert context.mask[1, 0].int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [1, 1, 1, 0],
        [0, 0, 0, 1],
    ]


def test_one_document_is_a_corpus():
    one = packed([[7, 8, 9]], context_length=2, batch_size=3)
    assert one.n_places == 2
    assert sorted(one.batch_at(0).tokens.tolist())[0] == [0, 7]


# --- twin --------------------------------------------------------------------------------------
def test_a_document_in_company_is_read_as_alone():
    model = tiny(vocab_size=10).build(seed=0)
    batch = packed(context_length=12).rows([0])
    with torch.no_grad():
        together = model(batch.tokens, context=batch.context())[0]
        alone = [model(torch.tensor([[END, *ids]]))[0] for ids in THREE]
    torch.testing.assert_close(together, torch.cat(alone)[:12], rtol=1e-4, atol=1e-5)
    with torch.no_grad():  # and without the mask it is not
        assert (model(batch.tokens)[0] - together).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("rows", "one_each"),
    [([0], True), ([2], True), ([0, 2], True), ([1], False), ([0, 1], False), ([2, 1, 0], False)],
)
def test_where_each_row_is_one_document_there_is_no_mask_and_nothing_else_changes(rows, one_each):
    model = tiny(vocab_size=10).build(seed=0)
    batch = packed().rows(rows)
    short = batch.context()
    assert (short.mask is None) == one_each == (not batch.documents.any())
    positions = torch.arange(4)
    mask = causal(positions, positions) & document(batch.documents, batch.documents)
    begins = (batch.tokens == END) | (positions == 0)
    first = (positions * begins).cummax(dim=1).values
    with torch.no_grad():
        found = model(batch.tokens, context=short)
        masked = model(batch.tokens, context=Context(positions=positions - first, mask=mask))
    torch.testing.assert_close(found, masked, rtol=0, atol=1e-6)


# --- law ---------------------------------------------------------------------------------------
corpora = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=8), min_size=1, max_size=8)


@given(corpora, st.integers(1, 5), st.integers(1, 7), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_in_an_epoch_every_row_comes_once_and_nothing_is_lost(
    documents, n_tokens, batch_size, seed
):
    try:
        corpus = packed(documents, n_tokens, batch_size, seed)
    except ValueError:
        assert sum(map(len, documents)) + len(documents) < n_tokens
        return
    n_steps = 2 * corpus.n_places
    read = torch.cat([corpus.batch_at(step).tokens for step in range(n_steps)])
    first_epoch = sorted(read[: corpus.n_places].tolist())
    whole = corpus.rows(range(corpus.n_places))
    assert first_epoch == sorted(whole.tokens.tolist())
    assert sorted(read[corpus.n_places : 2 * corpus.n_places].tolist()) == first_epoch
    n_kept = corpus.n_places * n_tokens
    assert whole.tokens.flatten().tolist() == corpus.stream[:n_kept].tolist()
    assert whole.targets.flatten().tolist() == corpus.stream[1 : n_kept + 1].tolist()


def test_a_batch_is_a_function_of_seed_and_step_alone():
    ids = np.random.default_rng(0).integers(1, 9, size=(40, 9)).tolist()
    corpus, again = packed(ids, seed=3), packed(ids, seed=3)
    later = again.batch_at(9)
    assert torch.equal(corpus.batch_at(9).tokens, later.tokens)
    orders = {
        seed: torch.cat([packed(ids, seed=seed).batch_at(n).tokens for n in range(9)]).tolist()
        for seed in (3, 4)
    }
    assert orders[3] != orders[4]
    n_steps = corpus.n_places // 2  # batches of an epoch
    epochs = [
        torch.cat([corpus.batch_at(e * n_steps + n).tokens for n in range(n_steps)]).tolist()
        for e in (0, 1)
    ]
    assert corpus.n_places % 2 == 0
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1])


# --- what stops it -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("documents", "n_tokens", "message"),
    [
        ([], 4, "at least one document; got none"),
        ([[1], []], 4, "document 1 is empty; leave it out"),
        ([[1], [2, END]], 4, "document 1 holds the end mark, 0, at place 1"),
        (
            [[1]],
            3,
            "the documents have 3 tokens with their marks, and one row of context_length=3 needs 4",
        ),
        ([[1]], 0, "context_length and batch_size must be at least 1; got 0 and 2"),
    ],
)
def test_a_corpus_that_makes_no_row_is_refused(documents, n_tokens, message):
    with pytest.raises(ValueError, match=message):
        packed(documents, n_tokens)


def test_a_row_or_a_step_that_is_not_there_is_refused():
    for numbers in ([3], [-1], []):
        with pytest.raises(ValueError, match="there are rows 0 to 2; got"):
            packed().rows(numbers)
    with pytest.raises(ValueError, match="counted from 0; got -1"):
        packed().batch_at(-1)
