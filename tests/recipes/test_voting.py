"""Votes over sampled answers: who wins, what is told, and that a sample depends on its number."""

import pytest

from minillm.model.config import tiny
from minillm.recipes import voting
from minillm.serve.request import Completion, Request
from minillm.serve.sample import SampleConfig, generate
from minillm.text.tokenizer import Tokenizer

MODEL = tiny(vocab_size=256).build(seed=0)
ASKED = Request(prompt=(7, 3, 9), n_tokens=4, config=SampleConfig(temperature=0.8), seed=5)


def ended(*texts, by="stop"):
    return [Completion(text=text, finish_reason=by) for text in texts]


def elect(monkeypatch, answers, *, stop_after=None):
    """The winner, how it ended and all notes, if these answers are sampled."""

    def sampled(*how):
        for place, pair in enumerate(answers):
            if place == stop_after:
                raise KeyboardInterrupt
            yield pair

    notes = []
    monkeypatch.setattr(voting, "sampled", sampled)
    return *voting.elect(None, None, ASKED, len(answers), note=notes.append), notes


def test_an_answer_that_was_cut_off_has_no_vote_even_if_it_names_a_number():
    cut = ended("Answer: 7.", "Answer: 7.", by="length")
    vote, winner = voting.poll([*cut, *ended("Answer: 4.")])
    assert (vote.answer, vote.n_none, winner.text) == (4, 2, "Answer: 4.")


def test_where_nothing_can_be_read_the_first_is_given():
    vote, winner = voting.poll(ended("Plums.", "Pears."))
    assert (vote.answer, winner.text, voting.tally(vote)) == (None, "Plums.", "no answer ×2")


def test_a_tie_is_told_and_the_answer_of_the_lowest_number_wins(monkeypatch):
    late, early = ended("答案：14。", "Answer: 12.")
    text, end, notes = elect(monkeypatch, [(1, early), (0, late)])
    assert (text, end) == ("答案：14。", "stop")
    assert notes == ["14 ×1 · 12 ×1", "a tie: of the answers with most votes, 14 was given first"]


def test_after_ctrl_c_those_vote_that_are_there(monkeypatch):
    pairs = list(enumerate(ended("Answer: 1.", "Answer: 2.", "Answer: 2.")))
    text, end, notes = elect(monkeypatch, pairs, stop_after=1)
    assert (text, end) == ("Answer: 1.", "interrupt")
    assert notes == ["interrupted: 1 of 3 answers vote", "1 ×1"]
    assert elect(monkeypatch, pairs, stop_after=0)[:2] == ("", "interrupt")


def test_samples_are_those_of_one_row_each_and_other_numbers_give_others():
    tokenizer = Tokenizer(())
    first = dict(voting.sampled(MODEL, tokenizer, ASKED, 3))
    again = dict(voting.sampled(MODEL, tokenizer, ASKED, 3))
    later = dict(voting.sampled(MODEL, tokenizer, ASKED, 3, first=2))
    assert [first[n].tokens for n in range(3)] == [again[n].tokens for n in range(3)]
    assert later[0].tokens == first[2].tokens
    assert len({tuple(each.tokens) for each in (*first.values(), *later.values())}) == 5
    (row,) = generate(MODEL, [[7, 3, 9]], ASKED.config, n_tokens=4, seed=5 * 2**32 + 1)
    assert first[1].tokens == row
    assert all(each.finish_reason == "length" for each in first.values())


@pytest.mark.parametrize(("n_votes", "temperature"), [(2, None), (64, 1.0), (None, 0.7)])
def test_what_can_be_asked_for_is_taken(n_votes, temperature):
    expected = voting.TEMPERATURE if temperature is None else temperature
    assert voting.checked(n_votes, temperature) == expected
