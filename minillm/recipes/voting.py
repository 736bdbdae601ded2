"""`minillm chat --votes`: many sampled answers to one message, and what most of them come to.

    > Mei buys 3 plums at 4 coins each. What does Mei pay?
    (12 ×7 · 14 ×2 · no answer ×1)
    Steps: 3 · 4 = 12. Answer: 12.            the first that was given of the seven

Votes are for the number that an answer names, so two answers agree if they end alike, by whatever
steps (`minillm.reason.vote`). An answer that names none, or that came to no end within the limit,
has no vote, and is counted as "no answer".

Chapter: app
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.lab.track import track
from minillm.model.transformer import Transformer
from minillm.reason.vote import Vote, majority
from minillm.serve.engine import Engine, EngineConfig
from minillm.serve.request import Completion, Request
from minillm.town.market import read_answer

FEWEST, MOST = 2, 64
TEMPERATURE = 0.8  # if nobody says which


def checked(n_votes: int | None, temperature: float | None) -> float:
    """The temperature at which answers are sampled, if votes can be held at it.

    Args:
        n_votes: None where no votes are asked for.
        temperature: None where it is not given.

    Raises:
        ValueError: a number of votes out of its range; votes at temperature 0.

    Example:
        >>> checked(None, None), checked(10, None), checked(10, 0.5)
        (0.0, 0.8, 0.5)
    """
    if n_votes is None:
        return 0.0 if temperature is None else temperature
    if not FEWEST <= n_votes <= MOST:
        raise ValueError(f"--votes must be from {FEWEST} to {MOST}; got {n_votes}")
    if temperature == 0:
        raise ValueError(
            f"--votes {n_votes} needs a temperature above 0: at 0 all answers are the same. Leave "
            f"out --temperature, which is {TEMPERATURE} then, or give a higher one"
        )
    return TEMPERATURE if temperature is None else temperature


def sampled(
    model: Transformer, tokenizer: JsonTokenizer, request: Request, n: int, first: int = 0
) -> Iterator[tuple[int, Completion]]:
    """n answers to one request, all at once; each with its number, when it has come to its end.

    Args:
        model, tokenizer: of the request.
        request: its seed decides them all.
        n: how many.
        first: the number of the first answer; others have other random numbers.

    Raises:
        ValueError: what the engine refuses.
    """
    engine = Engine(model, tokenizer, EngineConfig(max_batch=n))
    seeds = (request.seed * 2**32 + first + number for number in range(n))
    completions = {engine.submit(replace(request, seed=seed)): Completion() for seed in seeds}
    while engine.has_work:
        for event in engine.step():
            completions[event.number].add(event)
            if event.finish_reason:
                yield event.number, completions[event.number]


class Poll(NamedTuple):
    """What came of the votes.

    Args:
        vote: over the numbers that the answers name.
        winner: the first of the answers that name the winning number; where none names any, the
            first of all.
    """

    vote: Vote
    winner: Completion


def poll(answers: Sequence[Completion]) -> Poll:
    """The majority of some answers.

    Args:
        answers: at least one, in the order of their numbers.

    Example:
        >>> texts = ("Answer: 14.", "3 · 4 = 12. Answer: 12.", "Answer: 12.", "Plums.")
        >>> result = poll([Completion(text=text, finish_reason="stop") for text in texts])
        >>> result.winner.text
        '3 · 4 = 12. Answer: 12.'
        >>> tally(result.vote)
        '12 ×2 · 14 ×1 · no answer ×1'
    """
    ended = [each.finish_reason == "stop" for each in answers]
    numbers = [
        read_answer(each.text) if is_whole else None
        for each, is_whole in zip(answers, ended, strict=True)
    ]
    vote = majority(numbers)
    return Poll(vote, answers[numbers.index(vote.answer)])


def tally(vote: Vote) -> str:
    """How often each number was given, the most frequent first."""
    counts = sorted(vote.counts.items(), key=lambda item: -item[1])
    parts = [f"{number} ×{count}" for number, count in counts]
    return " · ".join(parts + [f"no answer ×{vote.n_none}"] * bool(vote.n_none))


def elect(
    model: Transformer,
    tokenizer: JsonTokenizer,
    request: Request,
    n: int,
    *,
    first: int = 0,
    note: Callable[[str], None],
) -> tuple[str, str]:
    """The winner of n sampled answers, and notes on the vote; after Ctrl-C, of those there are.

    Args:
        model, tokenizer, request, n, first: as for `sampled`.
        note: is given a line for each thing to be told.

    Returns:
        The winner's text, and how it ended: "stop", "length", or "interrupt" after Ctrl-C.
    """
    ended, end = dict[int, Completion](), None
    try:
        every = sampled(model, tokenizer, request, n, first)
        for number, answer in track(every, "answers", total=n):
            ended[number] = answer
    except KeyboardInterrupt:
        end = "interrupt"
        note(f"interrupted: {len(ended)} of {n} answers vote")
    if not ended:
        return "", "interrupt"
    # short answers end early, so the order of the ends would favour them
    vote, winner = poll([ended[number] for number in sorted(ended)])
    note(tally(vote))
    if vote.answer is None:
        note("no answer names a number, so nothing wins; this is the first of them")
    elif vote.tied:
        note(f"a tie: of the answers with most votes, {vote.answer} was given first")
    return winner.text, end or winner.finish_reason
