"""Imitation (模仿学习): a policy that does what an expert would have done.

    state  →  view   question : where does Mei live ?  …  screen : …
              action search Mei                                 the expert's, or the policy's
    state  →  view   question : where does Mei live ?  …  screen : 1 Mei  2 Mei-Lin …
              action click 1
    …                                                           until the state is done

*Behaviour cloning* (行为克隆) is supervised learning: pairs of a view and the expert's action,
collected along the expert's own paths. Nothing here knows what the states are. They are values, and
`after` gives the next one.

**Errors compound.** Whoever is right in each of T actions with probability a follows the expert
all the way with probability a^T, if errors are independent. And a wrong action leads to a state on
which the expert never stood, so nothing was learned about it. Let ε be the error rate on the
expert's states. The cost of a whole path of length T is then bounded by T²ε, not by Tε.
`compounding` compares the product of the step accuracies with what happens, exactly:

    success  =  product  +  (all right - product)  +  (success - all right)
                            errors are correlated     recoveries

**DAgger** (dataset aggregation, 数据集聚合) asks the expert about the states that the *policy*
reaches, adds these pairs to all earlier ones, and trains anew.

**Best of n** (n 选一): a policy that draws its actions makes n attempts at one task; a scorer picks
one of them.

Paper: Ross, Gordon and Bagnell 2011, "A Reduction of Imitation Learning and Structured Prediction
to No-Regret Online Learning", arXiv:1011.0686, theorem 2.1 (T²ε, after Ross and Bagnell 2010) and
algorithm 3.1 with β = 1 in the first round and 0 in all others; Nakano et al. 2021, "WebGPT",
arXiv:2112.09332, section 3.2 (cloning, best of n). Abstracts read, the rest from memory.
Differs: theirs returns the best policy of all rounds on validation; here each round's is handed
out. WebGPT fine-tunes GPT-3 on people's actions; here a small model learns from a program's.

Chapter: 28
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from math import prod
from random import Random
from statistics import fmean
from typing import Protocol, final

from minillm.data.packing import Batch, epoch_order
from minillm.model.transformer import Transformer
from minillm.reason.solver import GREEDY, Pair, SolverConfig, Words, batch_of, muon, solve
from minillm.serve.sample import SampleConfig
from minillm.train.losses import language_loss
from minillm.train.plain import fit

MOST_ACTIONS = 32


class State(Protocol):
    """Where an episode stands: a frozen value."""

    @property
    def done(self) -> bool:
        """Whether no further action is taken."""

    @property
    def success(self) -> bool:
        """Whether it is done, and well."""

    def view(self) -> str:
        """What the policy reads: words with blanks between them."""

    def after(self, action: str) -> "State":
        """The state that an action leads to; never raises for what a policy wrote."""


#: States, one of each running episode, and how many actions each has behind it; to an action each.
#: A policy that draws its actions takes its random numbers from the number of actions.
Policy = Callable[[Sequence[State], int], list[str]]
Expert = Callable[[State], str]  # the right action, in any state
Learn = Callable[[Sequence[Pair]], Policy]


@final
@dataclass(frozen=True)
class Trace:
    """An episode (轨迹): its states, and the actions between them.

    Args:
        states: one more than actions.
        actions: one after the other.
    """

    states: tuple[State, ...]
    actions: tuple[str, ...]

    @property
    def last(self) -> State:
        """Where it ended."""
        return self.states[-1]

    @property
    def success(self) -> bool:
        """Whether it ended well."""
        return self.last.success


def run(policy: Policy, starts: Sequence[State], most_actions: int = MOST_ACTIONS) -> list[Trace]:
    """Let a policy act, all episodes side by side.

    Args:
        policy: chooses the actions.
        starts: an episode each.
        most_actions: after so many an episode is over, done or not.

    Raises:
        ValueError: a policy that does not give one action for each state.
    """
    states, actions = [[start] for start in starts], [[] for _ in starts]
    for n_actions in range(most_actions):
        running = [n for n, path in enumerate(states) if not path[-1].done]
        if not running:
            break
        chosen = policy([states[n][-1] for n in running], n_actions)
        if len(chosen) != len(running):
            raise ValueError(
                f"a policy must give one action for each state; for {len(running)} states it gave "
                f"{len(chosen)} actions"
            )
        for n, action in zip(running, chosen, strict=True):
            actions[n].append(action)
            states[n].append(states[n][-1].after(action))
    return [Trace(tuple(s), tuple(a)) for s, a in zip(states, actions, strict=True)]


def success_rate(traces: Sequence[Trace]) -> float:
    """The share of episodes that ended well, 0 to 1."""
    return fmean(trace.success for trace in traces)


# --- policies -----------------------------------------------------------------------------------
def follow(expert: Expert) -> Policy:
    """The policy that does what the expert says."""
    return lambda states, n_actions: [expert(state) for state in states]


def noisy(
    policy: Policy, other: Callable[[State, Random], str], rate: float, seed: int = 0
) -> Policy:
    """A policy that slips: now and then it takes another action.

    Args:
        policy: from which the other actions come.
        other: draws an action.
        rate: how often, 0 to 1.
        seed: of the slips and of what is drawn.

    Raises:
        ValueError: a rate that is no probability.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be a probability from 0 to 1; got {rate}")

    def slips(states: Sequence[State], n_actions: int) -> list[str]:
        actions = policy(states, n_actions)
        for row, state in enumerate(states):
            rng = Random(f"slip/{seed}/{n_actions}/{row}")
            if rng.random() < rate:
                actions[row] = other(state, rng)
        return actions

    return slips


def policy_of(
    model: Transformer,
    words: Words,
    sampling: SampleConfig = GREEDY,
    *,
    n_tokens: int = 16,
    seed: int = 0,
) -> Policy:
    """A model as a policy: it reads a view, and writes an action up to the full stop.

    Args:
        model: see `clone`.
        words: its tokenizer.
        sampling: how tokens are chosen; greedy, it acts alike in equal states.
        n_tokens: of an action, at most, the full stop with them.
        seed: of the draws.
    """

    def policy(states: Sequence[State], n_actions: int) -> list[str]:
        views = [state.view() for state in states]
        number = MOST_ACTIONS * seed + n_actions  # other random numbers for each action
        texts = solve(model, views, sampling, n_tokens=n_tokens, words=words, seed=number)
        return [text.removesuffix(".").strip() for (text,) in texts]

    return policy


# --- learning -----------------------------------------------------------------------------------
def labelled(traces: Sequence[Trace], expert: Expert | None = None) -> list[Pair]:
    """Views and the actions to be learned there, one pair for each action of the traces.

    Args:
        traces: episodes of the expert, or of a policy.
        expert: says what is right in each state; None for what was done there.
    """
    return [
        (state.view(), f"{action if expert is None else expert(state)} .")
        for trace in traces
        for state, action in zip(trace.states, trace.actions, strict=False)  # the last has none
    ]


def clone(
    pairs: Sequence[Pair],
    words: Words,
    config: SolverConfig | None = None,
    *,
    context_length: int = 160,
    start: Transformer | None = None,
    views: bool = False,
    label: str = "cloning",
) -> Transformer:
    """Behaviour cloning: a model that has learned the action of each view.

    Each epoch reads every pair once, in an order of its own. A run is as long as its tokens, so few
    pairs are read often.

    Args:
        pairs: from `labelled`.
        words: the tokenizer of views and actions.
        config: size and length of training; None for the values of `SolverConfig`.
        context_length: of the model; a longer pair is refused.
        start: a model from whose weights to begin, which itself stays as it is; it decides size
            and context. None for one that knows nothing.
        views: learn to go on with the views too. A model that knows nothing learns to copy words
            sooner that way, since views have many words twice, and actions few.
        label: what the bar says.

    Raises:
        ValueError: no pair; one that does not fit; a view of less than two words where views are
            to be learned.
    """
    config = SolverConfig() if config is None else config
    if not pairs:
        raise ValueError("cloning needs at least one pair of a view and an action; got none")
    model = config.build(context_length, words) if start is None else copy.deepcopy(start)
    rows = [_whole(*pair) for pair in pairs] if views else pairs
    lengths = [len(words.encode(" ".join(row))) for row in rows]
    if max(lengths) > model.context_length:
        raise ValueError(
            f"a view with its action must have at most {model.context_length} tokens, the "
            f"context_length; got {max(lengths)}"
        )
    order = cache(lambda epoch: _order(lengths, config.batch_size, config.seed, epoch))

    def batch_at(step: int) -> Batch:
        first = step * config.batch_size
        indices = [divmod(n, len(rows)) for n in range(first, first + config.batch_size)]
        return batch_of([rows[order(epoch)[index]] for epoch, index in indices], words)

    fit(
        model.train(),
        language_loss,
        batch_at,
        max(1, round(config.n_tokens / (fmean(lengths) * config.batch_size))),
        config.learning_rate,
        make_optimizer=muon,
        seed=config.seed,
        label=label,
    )
    return model.eval()


def _order(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[int]:
    """Each row once, by chance; rows of like length come together, so that little is padding."""
    numbers = epoch_order(len(lengths), seed, epoch).tolist()
    size = 8 * batch_size
    blocks = [
        sorted(numbers[first : first + size], key=lengths.__getitem__)
        for first in range(0, len(numbers), size)
    ]
    batches = [
        block[first : first + batch_size]
        for block in blocks
        for first in range(0, len(block), batch_size)
    ]
    Random(f"order/{seed}/{epoch}").shuffle(batches)
    return [number for batch in batches for number in batch]


def _whole(view: str, action: str) -> Pair:
    """A row of which all but the first word is learned."""
    words = view.split(maxsplit=1)
    if len(words) < 2:
        raise ValueError(f"a view must have at least two words; got {view!r}")
    return words[0], f"{words[1]} {action}"


def dagger(
    expert: Expert,
    starts_at: Callable[[int], Sequence[State]],
    learn: Learn,
    *,
    n_states: int,
    own_states: bool = True,
) -> Iterator[Policy]:
    """DAgger: round after round the expert's actions on the states that the policy reaches.

    Round 0 is behaviour cloning. Who asks for no more policies ends it.

    Args:
        expert: labels states.
        starts_at: the episodes of a round, enough for n_states.
        learn: trains a policy on all pairs so far, from the beginning.
        n_states: labelled in each round.
        own_states: False for the control: in all rounds the expert acts, and labels as many states.

    Yields:
        The policy of each round.

    Raises:
        ValueError: too few states in the episodes of a round.
    """
    pairs: list[Pair] = []
    policy = follow(expert)
    for number in range(MOST_ACTIONS):
        # 1. the policy acts, the expert says what would have been right
        fresh = labelled(run(policy, starts_at(number)), expert)
        if len(fresh) < n_states:
            raise ValueError(
                f"a round needs {n_states} labelled states; the episodes of round {number} have "
                f"{len(fresh)}. Let starts_at give more"
            )
        # 2. old pairs and new ones are learned together
        pairs += fresh[:n_states]
        learned = learn(pairs)
        yield learned
        policy = learned if own_states else policy


# --- measures -----------------------------------------------------------------------------------
@final
@dataclass(frozen=True)
class Compounding:
    """How the errors of single actions become failures; all are shares from 0 to 1.

    Args:
        step_accuracy: actions like the expert's, of all actions on the expert's states.
        product: of the step accuracies along a path, the mean of all paths.
        all_right: paths on which every action is like the expert's.
        success: episodes in which the policy itself acts and ends well.
    """

    step_accuracy: float
    product: float
    all_right: float
    success: float


def compounding(
    policy: Policy, traces: Sequence[Trace], group: Callable[[State], str] = lambda start: ""
) -> Compounding:
    """Step accuracies of a policy on the expert's paths, their product, and its own success.

    Step t of a path has the accuracy of all paths of its group at t. Without errors that depend on
    each other, and where no error is made good, product, all_right and success are equal.

    Args:
        policy: greedy, so that it acts alike in equal states.
        traces: the expert's.
        group: of a start; paths of one group are compared step by step.
    """
    # 1. what the policy would have done on the expert's states
    states = [state for trace in traces for state in trace.states[: len(trace.actions)]]
    chosen = iter(policy(states, 0))
    right = [[action == next(chosen) for action in trace.actions] for trace in traces]
    # 2. the accuracy of each step of each group
    steps: dict[tuple[str, int], list[bool]] = {}
    groups = [group(trace.states[0]) for trace in traces]
    for name, path in zip(groups, right, strict=True):
        for t, same in enumerate(path):
            steps.setdefault((name, t), []).append(same)
    # 3. along each path the product; then the policy acts by itself
    products = [
        prod(fmean(steps[name, t]) for t in range(len(path)))
        for name, path in zip(groups, right, strict=True)
    ]
    return Compounding(
        step_accuracy=fmean(same for path in right for same in path),
        product=fmean(products),
        all_right=fmean(all(path) for path in right),
        success=success_rate(run(policy, [trace.states[0] for trace in traces])),
    )


def attempts(policy: Policy, starts: Sequence[State], n_samples: int) -> list[list[Trace]]:
    """Several episodes from each start.

    Args:
        policy: that draws its actions; another would do the same each time.
        starts: where the episodes begin.
        n_samples: from each.
    """
    traces = iter(run(policy, [start for start in starts for _ in range(n_samples)]))
    return [list(islice(traces, n_samples)) for _ in starts]


def best_of(traces: Sequence[Trace], scores: Sequence[float]) -> Trace:
    """The attempt with the highest score, of several the first.

    Args:
        traces: attempts at one task.
        scores: of each; what ended badly may have one too, the scorer does not know.

    Raises:
        ValueError: no attempt, or not as many scores.

    Example:
        >>> good, bad = Trace((), ("plums",)), Trace((), ("pears",))
        >>> best_of([bad, good], [0.1, 0.7]).actions
        ('plums',)
    """
    if not traces or len(traces) != len(scores):
        raise ValueError(
            f"there must be an attempt, and a score for each; got {len(traces)} attempts and "
            f"{len(scores)} scores"
        )
    return traces[max(range(len(traces)), key=scores.__getitem__)]
