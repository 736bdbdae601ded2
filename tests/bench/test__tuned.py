"""minillm.bench._tuned: requests, a base that stays as it is, answers that come to an end."""

import pytest
import torch

from minillm.bench import _tuned
from minillm.model.config import TransformerConfig
from minillm.serve.template import Message
from minillm.text.tokenizer import Tokenizer
from minillm.town.requests import HELD_OUT
from minillm.tune.chat import TEMPLATE, Answer


def a_base(context_length=256, **how):
    """Bytes as tokens, and a model that knows nothing."""
    tokenizer = Tokenizer((), ("<|endoftext|>", *TEMPLATE.special_tokens))
    config = TransformerConfig(
        vocab_size=261, context_length=context_length, d_model=8, n_layers=1, initial_std=0.1
    )
    return _tuned.Base(config.build(seed=0), tokenizer, **how)


def test_requests_to_tune_on_are_others_than_those_that_are_asked():
    training, asked = (_tuned.some(100, seed) for seed in (0, _tuned.QUESTIONS))
    assert len(training) == 100
    assert not {each.text for each in training} & {each.text for each in asked}
    assert training == _tuned.some(200, 0)[:100]
    held_out = _tuned.some(70, 0, combinations=sorted(HELD_OUT), wordings=(4,))
    assert all(each.combination in HELD_OUT and each.wording[0] == 4 for each in held_out)


def test_tuning_leaves_the_base_as_it_is():
    base = a_base(context_length=64, n_steps=2)
    before = {name: weight.clone() for name, weight in base.model.state_dict().items()}
    pairs = [_tuned.conversation("plums?", "2 coins.", "You are Mei.") for _ in range(4)]
    tuned = base.tune(pairs)
    assert all(torch.equal(before[name], w) for name, w in base.model.state_dict().items())
    assert any(not torch.equal(before[name], w) for name, w in tuned.state_dict().items())


def test_a_right_answer_counts_only_if_it_ends(monkeypatch):
    asked = _tuned.some(2, 0)
    spoken = [Answer(asked[0].answer, ended=True), Answer(asked[1].answer, ended=False)]

    def answers(model, tokenizer, conversations, **how):
        assert [each[-1] for each in conversations] == [Message("user", r.text) for r in asked]
        return spoken

    monkeypatch.setattr(_tuned.chat, "answers", answers)
    result = a_base().ask(None, asked, "parrot")
    assert (result.name, result.right) == ("parrot", (True, False))
    assert _tuned.counts(result) == {"n_right": 1, "n": 2}


def test_a_conversation_has_a_system_message_only_if_one_is_given():
    assert [each.role for each in _tuned.conversation("a", "b", "c")] == [
        "system",
        "user",
        "assistant",
    ]
    assert [each.role for each in _tuned.conversation("a", "b")] == ["user", "assistant"]


def test_a_base_that_is_nowhere_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no town-base .*`minillm train town-base`"):
        _tuned.open_base(tmp_path / "model")
