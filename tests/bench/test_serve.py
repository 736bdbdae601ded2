"""minillm.bench.serve: all contenders of ours answer the same requests."""

from minillm.bench import serve as bench
from minillm.model.config import tiny


def test_requests_begin_alike_and_ask_for_answers_of_different_length():
    asked = bench.requests(40, vocab_size=50)
    assert {each.prompt[:32] for each in asked} == {asked[0].prompt[:32]}
    assert len({each.prompt[32:] for each in asked}) == 40
    lengths = [each.n_tokens for each in asked]
    assert 1 <= min(lengths) < max(lengths) <= bench.MOST_TOKENS


def test_every_contender_of_ours_writes_all_tokens_that_were_asked_for():
    model = tiny(vocab_size=50).build(seed=0)
    asked = bench.requests(5, vocab_size=50)
    n_tokens = sum(each.n_tokens for each in asked)
    contenders = bench._ours(model, asked)
    assert {name: answer() for name, answer in contenders.items()} == dict.fromkeys(
        ("one by one", "static", "continuous", "shared"), n_tokens
    )
