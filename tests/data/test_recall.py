import inspect
import math
from collections import Counter
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import nn

from minillm.data.recall import (
    IGNORE_INDEX,
    Needle,
    Pairs,
    Questions,
    SelectiveCopy,
    accuracy,
    batch_at,
    recall_loss,
)
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig, tiny
from minillm.train.plain import fit

SOURCES = {
    "pairs": Pairs(n_pairs=5, n_keys=9, n_values=7),
    "fewer questions": Pairs(n_pairs=6, n_keys=6, n_values=2, n_questions=2),
    "one pair": Pairs(n_pairs=1, n_keys=1, n_values=3),
    "copy": SelectiveCopy(n_tokens=12, n_copied=3, n_symbols=4),
    "copy without blanks": SelectiveCopy(n_tokens=3, n_copied=3, n_symbols=4),
    "needle": Needle(distance=5, n_values=4, n_noise=3, n_before=2),
    "needle among values": Needle(distance=5, n_values=4, n_noise=0, n_before=3),
    "needle without noise": Needle(distance=1, n_values=4, n_noise=3, n_before=0),
}
ALL_SOURCES = pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())


def parts(questions):
    return questions.tokens, questions.targets, questions.facts


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(parts(one), parts(other), strict=True))


def rows_of(source, n_blocks=32, seed=0):
    """tokens, wanted and facts of many rows."""
    blocks = [parts(source.block(index, seed)) for index in range(n_blocks)]
    return [torch.cat(part) for part in zip(*blocks, strict=True)]


def alike(counts, n_cells):
    """Whether all cells are as likely, but for one chance in a thousand."""
    counts = Counter(counts)
    assert len(counts) <= n_cells
    found = list(counts.values()) + [0] * (n_cells - len(counts))
    return n_cells == 1 or chisquare(found).pvalue > 0.001


def model_for(source, **changes):
    config = TransformerConfig(
        vocab_size=source.vocab_size,
        context_length=source.context_length,
        d_model=16,
        n_layers=1,
        mixer=AttentionConfig(n_heads=2),
    )
    return replace(config, **changes).build(seed=0)


class Oracle:
    """A model that is told what to answer, as far as `right` says."""

    def __init__(self, questions, vocab_size, right):
        self.answers = questions.targets.clamp(min=0)
        self.answers[~right] = (self.answers[~right] + 1) % vocab_size
        self.vocab_size = vocab_size

    def hidden(self, tokens):
        return nn.functional.one_hot(self.answers, self.vocab_size).float()

    def logits(self, hidden):
        return 3 * hidden


# --- by hand -----------------------------------------------------------------------------------
def test_one_key_and_one_value_leave_nothing_to_chance():
    questions = Pairs(n_pairs=1, n_keys=1, n_values=1).block(3)
    assert questions.tokens.tolist() == [[0, 1, 0]] * 64
    assert questions.targets.tolist() == [[IGNORE_INDEX, IGNORE_INDEX, 1]] * 64
    assert questions.facts.tolist() == [[[0, 1]]] * 64


def test_one_symbol_in_every_place_leaves_nothing_to_chance():
    questions = SelectiveCopy(n_tokens=2, n_copied=2, n_symbols=1).block(3)
    assert questions.tokens.tolist() == [[0, 0, 2, 2]] * 64  # 1 is a blank, 2 says "say"
    assert questions.targets.tolist() == [[IGNORE_INDEX, IGNORE_INDEX, 0, 0]] * 64
    assert questions.facts.tolist() == [[[0, 0], [1, 0]]] * 64


def test_a_needle_stands_exactly_so_far_from_the_question():
    questions = Needle(distance=3, n_values=1, n_noise=1, n_before=2).block(3)
    # 0 is the value, 1 noise, 2 "fact", 3 "ask"; from the value at place 3 to the question, 3
    assert questions.tokens.tolist() == [[1, 1, 2, 0, 1, 1, 3]] * 64
    assert questions.targets.tolist() == [[IGNORE_INDEX] * 6 + [0]] * 64
    assert questions.facts.tolist() == [[[3, 0]]] * 64
    close = Needle(distance=1, n_values=1, n_noise=0, n_before=1).block(3)
    assert close.tokens.tolist() == [[0, 1, 0, 2]] * 64


@pytest.mark.parametrize(
    ("source", "vocab_size", "context_length", "chance", "n_bits"),
    [
        (Pairs(n_pairs=4), 128, 12, 1 / 64, 24),
        (Pairs(n_pairs=8, n_keys=10, n_values=32, n_questions=3), 42, 19, 1 / 32, 40),
        (SelectiveCopy(n_tokens=64), 18, 72, 1 / 16, 32),
        (Needle(distance=50), 34, 60, 1 / 16, 4),
        (Needle(distance=50, n_noise=0, n_before=0), 18, 52, 1 / 16, 4),
    ],
)
def test_sizes_are_those_counted_on_paper(source, vocab_size, context_length, chance, n_bits):
    assert (source.vocab_size, source.context_length) == (vocab_size, context_length)
    assert (source.chance, source.n_bits) == (chance, n_bits)
    questions = source.block(0)
    assert questions.tokens.shape == questions.targets.shape == (64, context_length)
    assert {part.dtype for part in parts(questions)} == {torch.int64}


@pytest.mark.parametrize(("n_right", "share"), [(0, 0.0), (1, 0.25), (3, 0.75), (4, 1.0)])
def test_accuracy_is_the_share_of_what_is_asked(n_right, share):
    questions = Pairs(n_pairs=4).block(0)
    right = torch.zeros_like(questions.loss_mask)
    right[:, 8 : 8 + n_right] = True  # what is not asked does not count
    assert accuracy(Oracle(questions, 128, right), questions) == share


def test_a_model_of_no_numbers_has_no_accuracy():
    source = Pairs(n_pairs=4)
    model = tiny(source.vocab_size).build(seed=0)
    torch.nn.init.constant_(model.norm.weight, torch.nan)
    with pytest.raises(ValueError, match="logits of the model are NaN"):
        accuracy(model, source.block(0))


def test_loss_is_the_mean_over_what_is_asked():
    # A logit of 3, 127 of 0: -log p is log(e³ + 127), and 3 less where the 3 stands rightly.
    questions = Pairs(n_pairs=4).block(0)
    right = torch.zeros_like(questions.loss_mask)
    right[:, 8:11] = True
    plain = inspect.unwrap(recall_loss)  # an oracle is no Transformer, as the types would have it
    loss = plain(Oracle(questions, 128, right), questions)
    assert loss.mean.item() == pytest.approx(math.log(math.exp(3) + 127) - 3 * 3 / 4)


# --- twin --------------------------------------------------------------------------------------
def read(source, row):
    """Answers and facts, as a plain reader of one row finds them, and how many tokens he read."""
    if isinstance(source, Pairs):
        end = 2 * source.n_pairs
        facts = list(zip(row[:end:2], row[1:end:2], strict=True))
        return end, [dict(facts)[key] for key in row[end:]], facts
    if isinstance(source, SelectiveCopy):
        blank, say = source.n_symbols, source.n_symbols + 1
        facts = [(place, token) for place, token in enumerate(row) if token not in (blank, say)]
        return row.index(say), [token for _, token in facts], facts
    fact, ask = source.vocab_size - 2, source.vocab_size - 1
    place = row.index(fact) + 1
    assert row.index(ask) == len(row) - 1 == place + source.distance
    return len(row) - 1, [row[place]], [(place, row[place])]


@ALL_SOURCES
def test_wanted_and_facts_are_what_a_plain_reader_of_the_row_finds(source):
    for tokens, targets, facts in zip(*(part.tolist() for part in rows_of(source, 4)), strict=True):
        n_read, answers, found = read(source, tokens)
        assert targets == [IGNORE_INDEX] * n_read + answers
        assert [tuple(fact) for fact in facts] == found


def test_loss_and_gradients_are_those_of_all_logits_place_by_place():
    source = SOURCES["pairs"]
    questions, outcomes = batch_at(source, batch_size=6)(0), []
    for model in (model_for(source), model_for(source)):
        if outcomes:
            logs = model(questions.tokens).log_softmax(dim=-1)
            loss_mask = questions.loss_mask.nonzero().tolist()
            losses = [-logs[row, place, questions.targets[row, place]] for row, place in loss_mask]
            loss = sum(losses) / len(losses)
        else:
            loss = recall_loss(model, questions).mean
        loss.backward()
        outcomes.append((loss.detach(), [p.grad for p in model.parameters()]))
    torch.testing.assert_close(*outcomes, rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 24, 64, 100, 192])
def test_batches_are_the_blocks_row_after_row(batch_size):
    source = SOURCES["copy"]
    questions_at = batch_at(source, batch_size, seed="a")
    n_steps = 2 * 192 // batch_size
    batches = [parts(questions_at(step)) for step in range(n_steps)]
    rows = rows_of(source, 6, seed="a")
    for batch, row in zip(zip(*batches, strict=True), rows, strict=True):
        assert torch.equal(torch.cat(batch), row[: batch_size * n_steps])


# --- reference ---------------------------------------------------------------------------------
def test_loss_is_torchs_cross_entropy_which_passes_over_what_is_not_asked():
    source = SOURCES["needle"]
    model, questions = model_for(source), source.block(0)
    logits = model(questions.tokens).transpose(1, 2)
    expected = nn.functional.cross_entropy(logits, questions.targets, ignore_index=IGNORE_INDEX)
    torch.testing.assert_close(recall_loss(model, questions).mean, expected)


def test_a_model_that_knows_nothing_is_at_chance():
    source = Pairs(n_pairs=4, n_keys=8, n_values=8)
    model = model_for(source)
    nn.init.zeros_(model.head.weight)
    with torch.no_grad():
        assert recall_loss(model, source.block(0)).mean.item() == pytest.approx(math.log(16))
        model.head.weight[7] = 1e-9  # a token that is no value
    assert accuracy(model, source.block(0)) == 0


# --- law ---------------------------------------------------------------------------------------
def test_each_key_value_and_order_of_pairs_is_as_likely():
    source = Pairs(n_pairs=3, n_keys=5, n_values=4)
    tokens, _, facts = rows_of(source)
    assert alike([tuple(keys) for keys in facts[..., 0].tolist()], 5 * 4 * 3)  # ordered, distinct
    assert alike([tuple(values) for values in facts[..., 1].tolist()], 4**3)
    loss_mask = (tokens[:, 6:, None] == facts[:, None, :, 0]).int().argmax(dim=-1)
    assert alike([tuple(order) for order in loss_mask.tolist()], 6)  # every order of the three
    fewer, _, facts = rows_of(replace(source, n_questions=1))
    loss_mask = (fewer[:, 6:, None] == facts[:, None, :, 0]).int().argmax(dim=-1)
    assert alike(loss_mask.flatten().tolist(), 3)


def test_each_set_of_places_and_each_symbol_is_as_likely():
    _, _, facts = rows_of(SelectiveCopy(n_tokens=6, n_copied=3, n_symbols=4))
    positions = [tuple(positions) for positions in facts[..., 0].tolist()]
    assert set(positions) <= set(combinations(range(6), 3))
    assert alike(positions, 20)
    assert alike([tuple(symbols) for symbols in facts[..., 1].tolist()], 4**3)


@pytest.mark.parametrize("n_noise", [0, 3])
def test_each_value_and_each_noise_is_as_likely_and_they_are_independent(n_noise):
    source = Needle(distance=3, n_values=4, n_noise=n_noise, n_before=1)
    tokens, _, facts = rows_of(source)
    noise = tokens[:, [0, 3, 4]]
    first, n_ids = (4, 3) if n_noise else (0, 4)
    assert (noise.min(), noise.max()) == (first, first + n_ids - 1)
    together = torch.cat((facts[:, 0, 1:], noise), dim=1)
    assert alike([tuple(row) for row in together.tolist()], 4 * n_ids**3)


@ALL_SOURCES
def test_a_block_is_a_function_of_the_numbers_the_seed_and_the_index(source):
    again = replace(source)
    later = source.block(2, seed=1)
    assert same(source.block(5), again.block(5))
    assert same(later, again.block(2, seed=1))


@pytest.mark.parametrize("name", ["pairs", "copy", "needle among values"])
def test_another_index_seed_or_number_gives_other_rows(name):
    source = SOURCES[name]
    blocks = [source.block(0), source.block(1), source.block(0, seed=1), source.block(0, seed="1")]
    for number, block in enumerate(blocks):
        assert not any(same(block, other) for other in blocks[:number])
    larger = {
        "pairs": {"n_values": 8},
        "copy": {"n_symbols": 5},
        "needle among values": {"n_values": 5},
    }
    other = replace(source, **larger[name]).block(0)
    assert not torch.equal(other.facts, source.block(0).facts)


def test_all_questions_are_asked_where_their_number_is_not_said():
    assert same(Pairs(n_pairs=4).block(1), Pairs(n_pairs=4, n_questions=4).block(1))
    assert replace(Pairs(n_pairs=4), n_pairs=8).context_length == 24


@given(
    st.integers(1, 12), st.integers(0, 5), st.integers(1, 9), st.integers(1, 12), st.integers(0, 9)
)
@settings(max_examples=30, deadline=None)
def test_of_any_size_the_rows_are_right(n_pairs, n_more, n_values, n_questions, index):
    pairs = Pairs(
        n_pairs=n_pairs,
        n_keys=n_pairs + n_more,
        n_values=n_values,
        n_questions=min(n_questions, n_pairs),
    )
    copied = SelectiveCopy(n_tokens=n_pairs + n_more, n_copied=n_pairs, n_symbols=n_values)
    needle = Needle(distance=n_pairs, n_values=n_values, n_noise=n_more, n_before=n_more)
    for source in (pairs, copied, needle):
        questions = source.block(index)
        assert questions.tokens.shape == (64, source.context_length)
        assert questions.tokens.min() >= 0 and questions.tokens.max() < source.vocab_size
        for tokens, targets in zip(
            questions.tokens.tolist(), questions.targets.tolist(), strict=True
        ):
            n_read, answers, _ = read(source, tokens)
            assert targets[n_read:] == answers
    keys, loss_mask = pairs.block(index).facts[..., 0], pairs.block(index).tokens[:, 2 * n_pairs :]
    assert all(len(set(row)) == len(row) for row in keys.tolist() + loss_mask.tolist())


def test_attention_learns_to_find_a_needle_and_is_judged_by_other_rows():
    source = Needle(distance=6, n_values=4, n_noise=4, n_before=2)
    model = model_for(source)
    before = accuracy(model, source.block(0, seed="exam"))
    losses = fit(
        model, recall_loss, batch_at(source, batch_size=32), n_steps=60, learning_rate=2e-2
    )
    assert losses[0] > 2 and losses[-1] < 0.1
    assert before < 0.6 and accuracy(model, source.block(0, seed="exam")) > 0.98


# --- what stops it -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pairs(n_pairs=0), "n_pairs must be at least 1; got 0"),
        (lambda: Pairs(n_pairs=65), "at most n_keys; got 65 pairs and 64 keys"),
        (lambda: Pairs(n_pairs=2, n_keys=0), "n_keys must be at least 1; got 0"),
        (lambda: Pairs(n_pairs=2, n_values=0), "n_values must be at least 1; got 0"),
        (lambda: Pairs(n_pairs=2, n_questions=0), "n_questions must be at least 1; got 0"),
        (lambda: Pairs(n_pairs=2, n_questions=3), "at most n_pairs; got 3 questions and 2 pairs"),
        (lambda: SelectiveCopy(n_tokens=0), "n_tokens must be at least 1; got 0"),
        (lambda: SelectiveCopy(n_tokens=7), "at most n_tokens; got 8 symbols and 7 positions"),
        (lambda: SelectiveCopy(n_tokens=7, n_copied=0), "n_copied must be at least 1; got 0"),
        (lambda: SelectiveCopy(n_tokens=8, n_symbols=0), "n_symbols must be at least 1; got 0"),
        (lambda: Needle(distance=0), "distance must be at least 1; got 0"),
        (lambda: Needle(distance=1, n_values=0), "n_values must be at least 1; got 0"),
        (lambda: Needle(distance=1, n_noise=-1), "at least 0; got -1 and 8"),
        (lambda: Needle(distance=1, n_before=-2), "at least 0; got 16 and -2"),
        (lambda: batch_at(Pairs(n_pairs=1), batch_size=0), "batch_size of at least 1; got 0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@ALL_SOURCES
def test_there_is_no_block_before_the_first(source):
    with pytest.raises(ValueError, match=r"index must be at least 0.*got -1"):
        source.block(-1)


def test_a_seed_that_is_no_number_and_no_text_is_refused():
    with pytest.raises(ValueError, match=r"a seed must be a whole number or a text; got 0\.5"):
        Pairs(n_pairs=1).block(0, seed=0.5)


def test_questions_without_a_question_or_of_two_shapes_are_refused():
    tokens, facts = torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 1, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match="of which 0 are asked"):
        Questions(tokens, torch.full_like(tokens, IGNORE_INDEX), facts)
    targets = tokens[:, 1:]
    with pytest.raises(ValueError, match=r"tokens \[2, 3\] and targets \[2, 2\]"):
        # not made, since in tests the types of its fields are checked first
        Questions.__post_init__(
            SimpleNamespace(tokens=tokens, targets=targets, loss_mask=targets == 0)
        )
