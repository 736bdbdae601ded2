"""Fine-tuning: whole conversations in rows, what is learned, and a base that stays as it is."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minillm.model.config import TransformerConfig
from minillm.serve.template import Message
from minillm.text.tokenizer import Tokenizer
from minillm.train.losses import language_loss
from minillm.tune.chat import TEMPLATE, Example, answers, example
from minillm.tune.sft import Conversations, SFTConfig, fine_tune

TOKENIZER = Tokenizer((), TEMPLATE.special_tokens)


def small(context_length, vocab_size=TOKENIZER.vocab_size):
    return TransformerConfig(
        vocab_size=vocab_size, context_length=context_length, d_model=32, n_layers=2
    )


examples = st.lists(
    st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=9).map(
        lambda pairs: Example(*map(tuple, zip(*pairs, strict=True)))
    ),
    min_size=1,
    max_size=12,
)


@given(examples, st.integers(0, 3))
def test_every_conversation_stands_whole_in_one_row_once_an_epoch(every, seed):
    data = Conversations(every, context_length=8, batch_size=1, seed=seed)
    there = []
    for step in range(data.n_places):
        batch = data.batch_at(step)
        for number in range(int(batch.documents.max()) + 1):
            here = batch.documents == number
            pairs = zip(batch.targets[here].tolist(), batch.loss_mask[here].tolist(), strict=True)
            there.append((batch.tokens[here].tolist(), list(pairs)))
    for one in every:
        learned = list(zip(one.ids[1:], one.loss_mask[1:], strict=True))
        there.remove((list(one.ids[:-1]), learned))
    # what is left is padding, which nobody learns
    assert not any(marked for _, pairs in there for _, marked in pairs)


def test_a_batch_is_a_function_of_its_step_and_the_order_changes_with_the_epoch():
    every = [Example((n, n), (False, True)) for n in range(40)]
    data = Conversations(every, context_length=1, batch_size=4)
    late = data.batch_at(17)
    assert torch.equal(late.tokens, data.batch_at(17).tokens)
    epochs = [[data.batch_at(10 * e + n).tokens for n in range(10)] for e in (0, 1)]
    first, second = (torch.cat(epoch).flatten().tolist() for epoch in epochs)
    assert first != second and sorted(first) == sorted(second) == list(range(40))


def test_what_the_user_says_is_not_learned_and_its_neighbours_are_not_seen():
    model = small(12, vocab_size=300).build(seed=0)
    one, other = Example((1, 2, 3, 4), (False, False, True, True)), Example((9, 8), (False, True))
    alone = language_loss(model, Conversations([one], context_length=3, batch_size=1).batch_at(0))
    both = Conversations([one, other], context_length=12, batch_size=1).batch_at(0)
    second = Conversations([other], context_length=1, batch_size=1).batch_at(0)
    total = language_loss(model, both)
    assert int(alone.n_tokens) == 2 and int(total.n_tokens) == 3
    torch.testing.assert_close(total.nats, alone.nats + language_loss(model, second).nats)


@pytest.mark.parametrize(
    "every, sizes, reason",
    [
        ([], {}, "there must be an example"),
        ([Example((1, 2), (False, True))], {"batch_size": 0}, "batch_size of at least 1"),
        (
            [Example((1, 2), (False, True)), Example((1,) * 9, (True,) * 9)],
            {},
            r"a row of 4 \+ 1 tokens; example 1 has 9",
        ),
    ],
)
def test_what_does_not_fit_is_refused(every, sizes, reason):
    with pytest.raises(ValueError, match=reason):
        Conversations(every, **{"context_length": 4, "batch_size": 1, **sizes})
    with pytest.raises(ValueError, match="steps are counted from 0"):
        Conversations([Example((1, 2), (False, True))], context_length=4, batch_size=1).batch_at(-1)


def test_it_learns_to_answer_and_to_stop_and_the_base_does_not_change():
    model = small(16).build(seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    talks = [[Message("user", x), Message("assistant", 2 * x)] for x in "abcd"]
    config = SFTConfig(n_steps=40, batch_size=2, matrix_rate=0.02, learning_rate=0.01)
    tuned = fine_tune(model, [example(talk, TOKENIZER) for talk in talks], config)
    told = answers(tuned, TOKENIZER, [talk[:1] for talk in talks], n_tokens=8)
    assert [(each.text, each.ended) for each in told] == [(2 * x, True) for x in "abcd"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(each.ended for each in answers(model, TOKENIZER, [talks[0][:1]], n_tokens=8))
