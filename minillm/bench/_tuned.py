"""A base model, fine-tuned on some requests of the town and asked others: what the labs have alike.

Requests are in English. A model is tuned by `minillm.tune.sft` on conversations of one request and
its right answer, and answers greedily. What one lab changes is the requests, or the base.

Chapter: app
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from statistics import fmean
from typing import Any, final

from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.measure.evaluate import Result, Score, evaluate
from minillm.model.transformer import Transformer
from minillm.serve.template import Message
from minillm.town.requests import PAIRS, SEEN, Combination, Request, RequestSource, grade, pair
from minillm.town.world import World
from minillm.tune import chat
from minillm.tune.chat import Conversation
from minillm.tune.sft import SFTConfig, fine_tune
from minillm.zoo import checkpoints

BASE = "town-base"
SEEDS = (0, 1, 2)
N_TOKENS = 64  # of an answer, at most
QUESTIONS = "questions"  # the seed of all requests that are asked; those to tune on have others


@final
@dataclass(frozen=True)
class Base:
    """A model to begin from, and how long one tuning is.

    Args:
        model, tokenizer: a base whose tokenizer has the special tokens of `chat.TEMPLATE`.
        n_steps: of a fine-tuning, 16 rows each.
        n_examples: conversations to tune on.
        n_questions: of each test.
        seeds: one fine-tuning each.
    """

    model: Transformer
    tokenizer: JsonTokenizer
    n_steps: int = 90
    n_examples: int = 6000
    n_questions: int = 256
    seeds: tuple[int, ...] = SEEDS

    def quick(self) -> "Base":
        """The same for a look whether it runs at all."""
        return replace(self, n_steps=2, n_examples=8, n_questions=4, seeds=self.seeds[:1])

    def tune(self, conversations: Sequence[Conversation], *, seed: int = 0) -> Transformer:
        """The model, tuned; the base stays as it is."""
        examples = [chat.example(each, self.tokenizer) for each in conversations]
        return fine_tune(self.model, examples, SFTConfig(n_steps=self.n_steps, seed=seed))

    def ask(self, model: Transformer, requests: Sequence[Request], name: str = "") -> Result:
        """Which requests it answers rightly, in content and form."""

        def answer(some: Sequence[Request]) -> list[str]:
            return self.answers(model, [(Message("user", each.text),) for each in some])

        return evaluate(requests, answer, is_right, name=name)

    def answers(self, model: Transformer, conversations: Sequence[Conversation]) -> list[str]:
        """What it says to each; nothing where it came to no end."""
        every = chat.answers(model, self.tokenizer, conversations, n_tokens=N_TOKENS)
        return [each.text if each.ended else "" for each in every]


def open_base(place: Path | None = None) -> Base:
    """The base of the second half of the course: shipped, or trained here.

    Args:
        place: its folder; None for the shipped one, or that of `minillm train town-base`.

    Raises:
        ValueError: it is nowhere.
    """
    if place is None:
        trained = Path("runs") / BASE / "model"
        place = trained if BASE not in checkpoints.names() else checkpoints.folder(BASE)
    if not place.is_dir():
        raise ValueError(
            f"there is no {BASE} to fine-tune in {place}; `minillm train {BASE}` trains it in less "
            "than an hour"
        )
    model, tokenizer, _ = checkpoints.open_model(place)
    return Base(model, tokenizer)


def is_right(request: Request, answer: str) -> bool:
    """Whether an answer is right, in content and form."""
    return grade(request, answer).right


def requests(
    seed: int | str,
    *,
    combinations: Sequence[Combination] = SEEN,
    wordings: Sequence[int] = (0, 1, 2, 3),
) -> Iterator[Request]:
    """Requests without end.

    Args:
        seed, combinations, wordings: see `minillm.town.requests.RequestSource.block`.

    Example:
        >>> next(requests(0, wordings=(4,))).wording
        (4, 4)
    """
    source = RequestSource(World())
    for index in count():
        yield from source.block(index, seed, combinations=combinations, wordings=wordings)


def some(n: int, seed: int | str, **how: Any) -> list[Request]:
    """The first n of them."""
    return list(islice(requests(seed, **how), n))


def pairs_of(seed: int | str) -> Iterator[tuple[Request, Request]]:
    """Requests with their minimal pairs, neither of a combination that is held out."""
    in_pairs = {operation for both in PAIRS for operation in both}
    combinations = [each for each in SEEN if each[0] in in_pairs]
    for request in requests(seed, combinations=combinations):
        other = pair(request)
        if other is not None and other.combination in SEEN:
            yield request, other


def conversation(asked: str, answer: str, system: str | None = None) -> Conversation:
    """One question and its answer, below a system message if there is one."""
    first = () if system is None else (Message("system", system),)
    return (*first, Message("user", asked), Message("assistant", answer))


def conversations(every: Sequence[Request]) -> list[Conversation]:
    """Requests with their right answers."""
    return [conversation(each.text, each.answer) for each in every]


# --- figures of several seeds -------------------------------------------------------------------
def counts(result: Result) -> dict[str, int]:
    """A score as plain JSON."""
    return {"n_right": result.score.n_right, "n": result.score.n}


def mean(rows: Sequence[dict[str, Any]], of: Callable[[dict[str, Any]], dict[str, int]]) -> float:
    """The mean share of right answers over the rows of several seeds.

    Example:
        >>> mean([{"a": {"n_right": 1, "n": 2}}, {"a": {"n_right": 2, "n": 2}}], lambda r: r["a"])
        0.75
    """
    return fmean(Score(**of(row)).share for row in rows)


def gains(better: Sequence[float], worse: Sequence[float]) -> dict[str, Any]:
    """What one way brings over another, seed by seed, and in the mean; shares, not percent.

    Example:
        >>> gains([0.75, 0.5], [0.25, 0.25])
        {'each': [0.5, 0.25], 'mean': 0.375}
    """
    each = [one - other for one, other in zip(better, worse, strict=True)]
    return {"each": each, "mean": fmean(each)}
