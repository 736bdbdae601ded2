"""Automatic prompt engineering (APE, 自动提示工程): from examples of a task to its instruction.

Somebody shows what comes out, and nobody says what was asked. One model, the proposer (提议者),
reads a few demonstrations and writes instructions. Another, the follower (执行者), tries each of
them on demonstrations, and the instruction with which it answers best is taken:

    The list: plums, pears. Answer: (pears, plums)
    The list: eggs, buns. Answer: (buns, eggs)
    What was asked?                                          proposer reads
    Count them. In brackets.                                 writes        follower: 0 of 4 right
    Say them backwards.                                                              0 of 4
    Turn the list around. In brackets.                                               4 of 4  ←

The proposer is a model that was tuned on reversed requests (反向数据): the user shows the answers,
the assistant says the instruction. It need not be right often. It must be right once among its
proposals, because the follower tells which one.

**Two scores.** Execution accuracy (执行准确率) is the share of demonstrations that the follower
answers exactly. The log-probability (对数概率) of the right answers needs no writing, and differs
also where no answer is right, or all are.

**Successive halving** (逐次减半). All instructions are tried on a few demonstrations, the better
half on more, half of these on more still. So little work goes to those that are bad at once.

Paper: Zhou et al. 2022, "Large Language Models Are Human-Level Prompt Engineers", arXiv:2211.01910;
abstract and the authors' code (keirp/automatic_prompt_engineer) looked up, section 3 from memory:
proposals (3.1, "forward mode": the instruction is written behind the demonstrations), scores and
their adaptive estimation (3.2).
Differs: their proposer is a large model as it is, ours a small one tuned for it; no proposals that
fill a gap ("reverse mode"), and none that vary the best so far (3.3).

Chapter: 20
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean
from typing import final

import torch

from minillm.model.transformer import Transformer
from minillm.serve.sample import SampleConfig
from minillm.serve.template import Encoder, Message
from minillm.town.lists import FEWEST, MOST, SEPARATOR, Item, draw_items
from minillm.town.request_words import LISTS, SEEN_WORDINGS
from minillm.town.requests import SEEN, Combination, Request, ask
from minillm.town.steps import argument_kind, draw_argument, has_one_word
from minillm.town.world import World
from minillm.train.losses import token_log_probs
from minillm.tune.chat import AT_ONCE, Example, answers, example

QUESTION = {"en": (" Answer: ", "What was asked?"), "zh": ("回答：", "要求是什么？")}
N_SHOWN = 3  # demonstrations that the proposer reads at a time
HIGHEST = 4  # the largest number in an instruction, so that lists of several lengths have it


# --- tasks --------------------------------------------------------------------------------------
@final
@dataclass(frozen=True)
class Demonstration:
    """A list and the right answer; what was asked is not said.

    Args:
        listed: the list, in words.
        answer: as it is to be written.
        language: "en" or "zh", of the list.
    """

    listed: str
    answer: str
    language: str = "en"


def demonstration(request: Request) -> Demonstration:
    """A request without what it asks for.

    Example:
        >>> items = Item("plums", "李子"), Item("pears", "梨")
        >>> demonstration(ask("reverse", (), items, "brackets"))
        Demonstration(listed='plums, pears', answer='(pears, plums)', language='en')
    """
    words = [item.say(request.language) for item in request.items]
    return Demonstration(SEPARATOR[request.language].join(words), request.answer, request.language)


def instruction_of(request: Request) -> str:
    """What a request asks for, without its list.

    Example:
        >>> items = Item("plums", "李子"), Item("pears", "梨")
        >>> instruction_of(ask("reverse", (), items, "brackets"))
        'Turn the list around. In brackets.'
    """
    sentence = LISTS[request.language][request.wording[0]]
    return request.text.removeprefix(sentence.format(items=demonstration(request).listed)).strip()


def draw_request(
    world: World,
    rng: random.Random,
    combination: Combination,
    *,
    language: str = "en",
    wording: tuple[int, int] = (0, 0),
) -> Request:
    """A request of a combination, with a number of at most `HIGHEST`.

    Args:
        world: whose goods and people stand on the list.
        rng: draws list and argument.
        combination: operation, kind of argument, form.
        language: "en" or "zh".
        wording: of operation and form, 0 to 4. A single word with commas is asked for by saying
            nothing of the form, whatever the wording.
    """
    operation, kind, form = combination
    items, others = draw_items(world, rng)
    argument = draw_argument(rng, operation, kind, items[:HIGHEST], others)
    if has_one_word(operation, kind) and form == "commas":
        wording = (wording[0], 0)
    return ask(operation, argument, items, form, language, wording)


def on_other_lists(request: Request, world: World, rng: random.Random, n: int) -> list[Request]:
    """The same request, argument and wording too, on n other lists.

    Where it names something of the list, that stands on every list, at a place of its own; a
    question whether something is on the list is answered with yes about as often as with no.

    Args:
        request: to repeat.
        world: whose goods and people stand on the lists.
        rng: draws the lists.
        n: how many.

    Example:
        >>> world, rng = World(), random.Random(0)
        >>> request = draw_request(world, rng, ("nth", "ordinal", "json"))
        >>> [instruction_of(each) for each in on_other_lists(request, world, rng, 2)]
        ['Give me the fourth. As JSON.', 'Give me the fourth. As JSON.']
    """
    requests: list[Request] = []
    while len(requests) < n:
        items = _other_list(request, world, rng)
        how = (request.constraint, request.language, request.wording)
        with suppress(ValueError):  # no "third" on the list, nothing after the last
            if items:
                requests.append(ask(request.operation, request.argument, items, *how))
    return requests


def _other_list(request: Request, world: World, rng: random.Random) -> tuple[Item, ...]:
    """A list that may suit the request; empty if not."""
    items, others = draw_items(world, rng)
    named = [x for x in request.argument if isinstance(x, Item)]
    if any(x not in items + others for x in named):  # a person on a list of goods
        return ()
    # 1. which of the things that the request names stand on the list
    match request.operation:
        case "append" | "prepend":
            present = []
        case "contains":
            present = named[: rng.randrange(2)]
        case "replace":  # the last is new
            present = named[:-1]
        case _:
            present = named
    # 2. the others around them
    listed = [x for x in items if x not in named][: MOST - len(present)]
    for x in present:
        listed.insert(rng.randint(0, len(listed)), x)
    # 3. "the first three" of three would be the same as all of them
    is_number = argument_kind(request.operation, request.argument) == "number"
    shortest = request.argument[0] + 1 if is_number else FEWEST
    return tuple(listed) if len(listed) >= max(FEWEST, shortest) else ()


# --- proposals ----------------------------------------------------------------------------------
def question(demonstrations: Sequence[Demonstration]) -> Message:
    """What the proposer is asked.

    Example:
        >>> print(question([Demonstration("plums, pears", "pears")]).content)
        The list: plums, pears. Answer: pears
        What was asked?
    """
    answer, last = QUESTION[demonstrations[0].language]
    lines = [f"{_sentence(each)}{answer}{each.answer}" for each in demonstrations]
    return Message("user", "\n".join([*lines, last]))


def _sentence(shown: Demonstration) -> str:
    """The list, said in one way always."""
    return LISTS[shown.language][0].format(items=shown.listed)


def reversed_examples(
    world: World,
    tokenizer: Encoder,
    n: int,
    *,
    language: str = "en",
    seed: int = 0,
    combinations: Sequence[Combination] = SEEN,
    wordings: Sequence[int] = SEEN_WORDINGS,
) -> list[Example]:
    """Conversations that a proposer learns from: demonstrations, then the instruction.

    Args:
        world: whose goods and people stand on the lists.
        tokenizer: of the model.
        n: how many.
        language: "en" or "zh".
        seed: of all that is drawn.
        combinations: an operation is drawn first, then one of its combinations.
        wordings: to draw from.
    """
    rng = random.Random(f"reversed/{world.seed}/{language}/{seed}")
    by_operation: dict[str, list[Combination]] = {}
    for each in combinations:
        by_operation.setdefault(each[0], []).append(each)
    examples = []
    for _ in range(n):
        combination = rng.choice(by_operation[rng.choice(list(by_operation))])
        wording = (rng.choice(wordings), rng.choice(wordings))
        request = draw_request(world, rng, combination, language=language, wording=wording)
        shown = [demonstration(r) for r in on_other_lists(request, world, rng, N_SHOWN)]
        instruction = Message("assistant", instruction_of(request))
        examples.append(example([question(shown), instruction], tokenizer))
    return examples


def propose(
    model: Transformer,
    tokenizer: Encoder,
    demonstrations: Sequence[Demonstration],
    n: int = 32,
    *,
    temperature: float = 1.0,
    seed: int = 0,
    n_tokens: int = 32,
) -> list[str]:
    """Instructions that may explain the demonstrations, each once, the most frequent first.

    Args:
        model: tuned on `reversed_examples`.
        tokenizer: of the model.
        demonstrations: of one task; each proposal is written to `N_SHOWN` of them.
        n: how many are written. Equal ones, empty ones and those without an end are dropped.
        temperature: 0 writes the likeliest always.
        seed: of all that is drawn.
        n_tokens: at most, of a proposal.

    Raises:
        ValueError: fewer demonstrations than are shown; n below 1; what `answers` refuses.
    """
    if len(demonstrations) < N_SHOWN or n < 1:
        raise ValueError(
            f"a proposal needs {N_SHOWN} demonstrations, and n must be at least 1; got "
            f"{len(demonstrations)} and n = {n}. Show more of the task"
        )
    # 1. each proposal sees a draw of its own
    rng = random.Random(f"propose/{seed}")
    questions = [[question(rng.sample(demonstrations, N_SHOWN))] for _ in range(n)]
    # 2. write
    config = SampleConfig(temperature=temperature)
    written = answers(model, tokenizer, questions, n_tokens=n_tokens, config=config, seed=seed)
    # 3. each once
    texts = [each.text.strip() for each in written if each.ended]
    return [text for text, _ in Counter(filter(None, texts)).most_common()]


# --- scores -------------------------------------------------------------------------------------
def prompt(instruction: str, shown: Demonstration) -> Message:
    """What the follower is asked: a list, and what to do with it.

    Example:
        >>> prompt("Count them.", Demonstration("plums, pears", "two")).content
        'The list: plums, pears. Count them.'
    """
    space = "" if shown.language == "zh" else " "
    return Message("user", f"{_sentence(shown)}{space}{instruction}")


def execution_accuracy(
    model: Transformer,
    tokenizer: Encoder,
    instructions: Sequence[str],
    demonstrations: Sequence[Demonstration],
) -> list[float]:
    """For each instruction the share of demonstrations that the follower answers exactly.

    Args:
        model: the follower.
        tokenizer: of the model.
        instructions: to be scored; all are answered together.
        demonstrations: at least one.

    Raises:
        ValueError: no demonstration; what `answers` refuses.
    """
    _check_some(demonstrations)
    pairs = [(text, shown) for text in instructions for shown in demonstrations]
    # what is longer than the longest right answer and its end is wrong
    longest = max(len(tokenizer.encode(shown.answer)) for shown in demonstrations)
    questions = [[prompt(*pair)] for pair in pairs]
    written = answers(model, tokenizer, questions, n_tokens=longest + 1)
    right = [
        answer.ended and answer.text.strip() == shown.answer
        for answer, (_, shown) in zip(written, pairs, strict=True)
    ]
    return _means(right, len(demonstrations))


@torch.no_grad()
def log_prob(
    model: Transformer,
    tokenizer: Encoder,
    instructions: Sequence[str],
    demonstrations: Sequence[Demonstration],
) -> list[float]:
    """For each instruction ln p(right answer) in nats a token, in the mean over demonstrations.

    The end of an answer counts as one of its tokens. 0 would be certainty.

    Args:
        model, tokenizer, instructions, demonstrations: as for `execution_accuracy`.

    Raises:
        ValueError: no demonstration.

    Differs: none; the authors' code too takes the mean of an answer's tokens first.
    """
    _check_some(demonstrations)
    examples = [
        example([prompt(text, shown), Message("assistant", shown.answer)], tokenizer)
        for text in instructions
        for shown in demonstrations
    ]
    values: list[float] = []
    for first in range(0, len(examples), AT_ONCE):
        some = examples[first : first + AT_ONCE]
        length = max(len(each.ids) for each in some)
        # padding on the right: no token sees what stands behind it
        ids = torch.tensor([each.ids + (0,) * (length - len(each.ids)) for each in some])
        loss_mask = torch.tensor(
            [each.loss_mask + (False,) * (length - len(each.ids)) for each in some]
        )[:, 1:]
        each_token = token_log_probs(model(ids[:, :-1]), ids[:, 1:], loss_mask)
        values += (each_token.sum(dim=1) / loss_mask.sum(dim=1)).tolist()
    return _means(values, len(demonstrations))


def _check_some(demonstrations: Sequence[Demonstration]) -> None:
    if not demonstrations:
        raise ValueError("a score needs at least one demonstration to try it on; got none")


def _means(values: Sequence[float], n: int) -> list[float]:
    """The mean of every n values."""
    return [fmean(values[i : i + n]) for i in range(0, len(values), n)]


# --- selection ----------------------------------------------------------------------------------
Score = Callable[[Sequence[str], Sequence[Demonstration]], Sequence[float]]


@final
@dataclass(frozen=True)
class Candidate:
    """An instruction and how good it is.

    Args:
        instruction: in words.
        score: the mean over the demonstrations that it was tried on; higher is better.
        n_demonstrations: how many these are.
    """

    instruction: str
    score: float = 0.0
    n_demonstrations: int = 0

    def after(self, mean: float, n: int) -> "Candidate":
        """The candidate after n more demonstrations with this mean score.

        Example:
            >>> Candidate("Count them.", 1.0, 4).after(0.5, 4)
            Candidate(instruction='Count them.', score=0.75, n_demonstrations=8)
        """
        n_all = self.n_demonstrations + n
        total = self.score * self.n_demonstrations + mean * n
        return Candidate(self.instruction, total / n_all, n_all)


def induce(
    instructions: Sequence[str],
    demonstrations: Sequence[Demonstration],
    score: Score,
    *,
    n_first: int = 4,
) -> list[Candidate]:
    """Successive halving: which of the instructions explains the demonstrations best.

    Args:
        instructions: from `propose`; where scores are equal, the earlier one is the better.
        demonstrations: to try them on.
        score: from instructions and demonstrations to the mean score of each instruction, such as
            `partial(execution_accuracy, model, tokenizer)`.
        n_first: on how many demonstrations all are tried; then twice as many, and so on.

    Returns:
        All candidates, the best first. Those that were dropped earlier stand behind.

    Raises:
        ValueError: no instruction or no demonstration; n_first below 1.

    Example:
        >>> tries = [Demonstration(f"{n}", "") for n in range(4)]
        >>> def score(texts, some):
        ...     return [1.0 * len(text) for text in texts]
        >>> [(c.instruction, c.n_demonstrations) for c in induce("a bb ccc".split(), tries, score)]
        [('ccc', 4), ('bb', 4), ('a', 4)]
        >>> best, *others = induce("a bb ccc".split(), tries, score, n_first=2)
        >>> best.n_demonstrations, others[-1]
        (4, Candidate(instruction='a', score=1.0, n_demonstrations=2))
    """
    if not instructions or not demonstrations or n_first < 1:
        raise ValueError(
            "there must be an instruction, a demonstration to try it on, and n_first of at least "
            f"1; got {len(instructions)}, {len(demonstrations)} and {n_first}"
        )
    candidates, dropped = [Candidate(text) for text in instructions], []
    begin, end = 0, n_first
    while True:
        # 1. try all that are left on demonstrations that are new to them
        new = demonstrations[begin:end]
        scores = score([each.instruction for each in candidates], new)
        candidates = [
            each.after(mean, len(new)) for each, mean in zip(candidates, scores, strict=True)
        ]
        candidates.sort(key=lambda each: -each.score)
        if end >= len(demonstrations):
            return candidates + dropped
        # 2. drop the worse half, and double the demonstrations
        n_kept = (len(candidates) + 1) // 2
        candidates, dropped = candidates[:n_kept], candidates[n_kept:] + dropped
        begin, end = end, 2 * end
