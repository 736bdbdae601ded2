"""`minillm bench browser`: a policy that imitates how pages are looked up, and where that fails.

The expert of `minillm.agents.browser` shows how questions of two hops are answered in many
towns. A small model imitates it, and is tried in towns that it never saw. There, it is right if the
answer is right *and* every hop has its evidence among the quotes.

**The base.** WebGPT begins with GPT-3, which can read, and imitates from there. All policies here
begin with one model that was cloned on questions of *one* hop, in the towns of the training:
search, open, quote, answer. It learns to go on with the views first, and actions alone afterwards;
its tables for reading and writing words are one. They are tried on questions of *two* hops, where
the base does not even know what to quote first. All policies train on equally many tokens.

============  ====================================================================================
demos         policies cloned from 100 … 2,000 episodes; step accuracy on the expert's own states,
              the product of the step accuracies along a path, and the success
dagger        from 400 labelled states on, and from 3,000, as many again: states that the policy
              reached, against further states of the expert
best of 16    a policy cloned from a demonstrator that slips: it takes a random action with
              probability 0.1. A reward model that reads question, quotes and answer scores 16
              sampled episodes, beside greedy, one sample, a majority vote of the 16 answers, and
              the oracle, that is whether any of the 16 succeeds
injected      the same policy, greedy, where the page of the last hop begins with a line that tells
              the reader what to answer, and with the same words that tell nothing
============  ====================================================================================

The reward model learns from the policy's own sampled episodes in the towns of the demonstrations:
pairs of episodes of one question, of which one succeeded. It begins with the policy's weights.

Paper: Nakano et al. 2021, "WebGPT", arXiv:2112.09332: answers of the best of 64 are preferred to
those of the demonstrators in 56 % of comparisons; Qin et al. 2023, "WebCPM", arXiv:2305.06849;
Ross, Gordon and Bagnell 2011, arXiv:1011.0686 (DAgger). Abstracts read.
Differs: models of 0.2 M parameters; a program is the demonstrator and the judge.

Chapter: app
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from functools import cache, partial
from random import Random
from statistics import fmean
from typing import Any

from minillm.agents import browser
from minillm.agents.browser import Browser, Library, expert
from minillm.agents.imitate import (
    Policy,
    Trace,
    attempts,
    best_of,
    compounding,
    dagger,
    follow,
    labelled,
    noisy,
    policy_of,
    success_rate,
)
from minillm.agents.imitate import run as episodes
from minillm.bench._browsing import (
    N_TOKENS,
    QUICK,
    Base,
    Work,
    base_of,
    greedy,
    learned,
    random_action,
    starts,
)
from minillm.bench._run import Finished
from minillm.lab.track import track
from minillm.model.transformer import Transformer
from minillm.reason.vote import majority
from minillm.serve.sample import SampleConfig
from minillm.town.pages import CONTROL, INSTRUCTION, object_of, with_line
from minillm.train.plain import fit
from minillm.tune.reward import RewardModel, comparisons, preference_loss, scores

DRAWN = SampleConfig(temperature=1.0)
N_SAMPLES = 16
N_ROUNDS = 1  # of DAgger, after cloning
SLIPS = 0.1


def run(quick: bool = False, finished: Finished | None = None) -> dict[str, Any]:
    """Play, clone, ask the expert, choose, plant; and print the tables.

    Args:
        quick: a few steps; its figures mean nothing.
        finished: runs that are not to be repeated.

    Returns:
        "demos" and "dagger", rows with what `measured` returns; "best of 16", rows of `chosen`;
        "injected", rows of `injected`.
    """
    work, finished = QUICK if quick else Work(), finished or Finished()
    base = cache(partial(base_of, work))  # trained when the first run needs it

    def row(name: str, measure: Callable[[], Any]) -> Any:
        return finished(f"{name}, {work}", measure)

    figures = {
        "demos": [
            row(f"{n} demos, seed {seed}", partial(of_demos, base, n, seed, work))
            for n in track(work.demos, "demonstrations")
            for seed in work.seeds
        ],
        "dagger": [
            each
            for n in track(work.n_states, "DAgger")
            for seed in work.seeds
            for each in row(f"rounds of {n}, seed {seed}", partial(of_rounds, base, n, seed, work))
        ],
    }
    both = [
        row(f"slips, seed {seed}", partial(of_slips, base, seed, work))
        for seed in track(work.seeds, "best of 16")
    ]
    figures["best of 16"] = [each["best of 16"] for each in both]
    figures["injected"] = [each["injected"] for each in both]
    _print(figures)
    return figures


# --- trainings ----------------------------------------------------------------------------------
def measured(policy: Policy, work: Work) -> dict[str, Any]:
    """`compounding` of a policy in the towns of the test, and the step accuracy of each verb."""
    traces = episodes(follow(expert), starts("test", work.n_tested, "questions", work))
    return {**asdict(compounding(policy, traces, _form)), "verbs": _verbs(policy, traces)}


def _verbs(policy: Policy, traces: Sequence[Trace]) -> dict[str, float]:
    """Of each verb of the expert, the share of its actions that the policy would take."""
    states = [state for trace in traces for state in trace.states[: len(trace.actions)]]
    right: dict[str, list[bool]] = {}
    for state, action in zip(states, policy(states, 0), strict=True):
        right.setdefault(expert(state).split()[0], []).append(action == expert(state))
    return {verb: fmean(same) for verb, same in right.items()}


def _form(start: Browser) -> str:
    """Of the question: paths of one form are compared step by step."""
    return start.question.relations[0]


def of_demos(base: Base, n: int, seed: int, work: Work) -> dict[str, Any]:
    """A policy cloned from n demonstrations."""
    pairs = labelled(episodes(follow(expert), starts("train", n, f"demos {seed}", work)))
    policy = greedy(learned(base, pairs, seed, work))
    return {"demos": n, "seed": seed, "pairs": len(pairs), **measured(policy, work)}


def of_rounds(base: Base, n_states: int, seed: int, work: Work) -> list[dict[str, Any]]:
    """DAgger and its control, a row for each round; the first round is the same in both."""
    learn = cache(lambda pairs: greedy(learned(base, pairs, seed, work)))
    rows = []
    for own in (True, False):
        policies = dagger(
            expert,
            # an episode has two actions at least
            lambda number: starts("train", n_states // 2, f"round {number}, seed {seed}", work),
            lambda pairs: learn(tuple(pairs)),
            n_states=n_states,
            own_states=own,
        )
        for number, policy in zip(range(N_ROUNDS + 1), policies, strict=False):
            states = {"own": own, "seed": seed, "states": (number + 1) * n_states}
            rows.append({**states, **measured(policy, work)})
    return rows


def of_slips(base: Base, seed: int, work: Work) -> dict[str, Any]:
    """A policy cloned from a demonstrator that slips: best of 16, and planted lines."""
    demonstrator = noisy(follow(expert), random_action, SLIPS, seed)
    traces = episodes(demonstrator, starts("train", work.demos[-1], f"slips {seed}", work))
    model = learned(base, labelled(traces), seed, work)
    return {
        "best of 16": {"seed": seed, **chosen(model, seed, work)},
        "injected": injected(greedy(model), seed, work),
    }


# --- best of 16 ---------------------------------------------------------------------------------
def evidence(state: Browser) -> list[int]:
    """What the reward model reads of an episode: question, quotes and answer, as token ids."""
    rows = state.view().splitlines()
    kept = [row for row in rows if row.startswith((browser.QUESTION, browser.QUOTE))]
    answer = f"{browser.ACT} answer {state.answer or browser.UNKNOWN}"
    return browser.encode(" ".join([*kept, answer]))


def scorer(model: Transformer, groups: Sequence[Sequence[Trace]], n_steps: int) -> RewardModel:
    """A reward model from attempts at many questions, some of which succeeded.

    Args:
        model: whose weights it begins with.
        groups: attempts at one question each.
        n_steps: of training.
    """
    pairs = [
        (evidence(good.last), evidence(bad.last))
        for group in groups
        for good in group
        for bad in group
        if good.success and not bad.success
    ]
    reward = RewardModel(deepcopy(model))
    if pairs:  # else nothing is to be learned, and all scores stay 0
        fit(
            reward.train(),
            preference_loss,
            lambda step: comparisons(Random(step).choices(pairs, k=16)),
            n_steps,
            1e-3,
            label="reward model",
        )
    return reward.eval()


def chosen(model: Transformer, seed: int, work: Work) -> dict[str, Any]:
    """Success of one attempt and of the best of 16, in shares.

    Returns:
        "demonstrator"; "greedy"; "one", the mean of all samples; "vote"; "best"; "oracle"; "wins"
        of the best against the demonstrator, ties half; "quoted", the share of the right answers
        of the best that have all evidence; "pairs", how often the reward model is right about two
        samples of a question.
    """
    drawn = policy_of(model, browser, DRAWN, n_tokens=N_TOKENS, seed=seed)
    # 1. a reward model, from the policy's attempts in the towns of the demonstrations
    n_questions, n_attempts = work.n_scored
    practice = attempts(drawn, starts("train", n_questions, f"scored {seed}", work), n_attempts)
    reward = scorer(model, practice, max(1, work.n_tokens // 1250))
    # 2. sixteen attempts at each question of the test, scored
    tested = starts("test", work.n_tested, "questions", work)
    groups = attempts(drawn, tested, N_SAMPLES)
    values = iter(scores(reward, [evidence(trace.last) for group in groups for trace in group]))
    scored = [[next(values) for _ in group] for group in groups]
    best = [best_of(group, each) for group, each in zip(groups, scored, strict=True)]
    # 3. the others: a vote, a demonstrator
    votes = [_vote(group) for group in groups]
    demonstrator = noisy(follow(expert), random_action, SLIPS, seed + 1)
    shown = episodes(demonstrator, tested)
    right = [trace for trace in best if trace.last.answer == trace.last.question.answer]
    return {
        "demonstrator": success_rate(shown),
        "greedy": success_rate(episodes(greedy(model), tested)),
        "one": fmean(success_rate(group) for group in groups),
        "vote": success_rate(votes),
        "best": success_rate(best),
        "oracle": fmean(any(trace.success for trace in group) for group in groups),
        "wins": fmean((1 + a.success - b.success) / 2 for a, b in zip(best, shown, strict=True)),
        "quoted": fmean(trace.success for trace in right) if right else None,
        "pairs": _order(groups, scored),
    }


def _vote(group: Sequence[Trace]) -> Trace:
    """The first attempt with the answer that most attempts gave."""
    answers = [trace.last.answer for trace in group]
    return group[answers.index(majority(answers).answer)]


def _order(groups: Sequence[Sequence[Trace]], scored: Sequence[Sequence[float]]) -> float | None:
    """How often a success has a higher score than a failure at the same question."""
    right = [
        a > b
        for group, each in zip(groups, scored, strict=True)
        for good, a in zip(group, each, strict=True)
        for bad, b in zip(group, each, strict=True)
        if good.success and not bad.success
    ]
    return fmean(right) if right else None


# --- planted lines ------------------------------------------------------------------------------
def injected(policy: Policy, seed: int, work: Work) -> dict[str, Any]:
    """How often a policy does what a page tells it to.

    Returns:
        For "instruction" and "control" the shares "planted", episodes with the planted answer,
        "quoted", those that quoted the line at last, and "success"; "n" episodes of each.
    """
    tested = starts("test", work.n_tested, f"planted {seed}", work)
    answers = [
        _other_answer(start, Random(f"planted/{seed}/{n}")) for n, start in enumerate(tested)
    ]
    figures: dict[str, Any] = {"seed": seed, "n": len(tested)}
    for name, form in (("instruction", INSTRUCTION), ("control", CONTROL)):
        # 1. the line stands at the top of the page that has the answer
        lines = [form.format(answer) for answer in answers]
        states = [_planted(*each) for each in zip(tested, lines, strict=True)]
        # 2. the policy acts, and what it did is looked up in the last state
        ends = [trace.last for trace in episodes(policy, states)]
        figures[name] = {
            "planted": fmean(map(str.__eq__, answers, (str(end.answer) for end in ends))),
            "quoted": fmean(
                line in [quote for _, quote in end.quotes]
                for end, line in zip(ends, lines, strict=True)
            ),
            "success": fmean(end.success for end in ends),
        }
    return figures


def _other_answer(start: Browser, rng: Random) -> str:
    """What is said of somebody else when the same is asked."""
    relation, answer = start.question.relations[-1], start.question.answer
    every = [line for lines in start.library.shown.values() for line in lines]
    return rng.choice(
        [o for line in every if (o := object_of(line, relation)) not in (None, answer)]
    )


def _planted(start: Browser, line: str) -> Browser:
    """The same question, where the page of the last hop begins with a line."""
    library = Library(with_line(start.library.pages, start.question.hops[-1].title, line))
    return replace(start, library=library)


# --- tables -------------------------------------------------------------------------------------
SHARES = ("step_accuracy", "product", "all_right", "success")
CHOICES = ("demonstrator", "greedy", "one", "vote", "best", "oracle", "wins", "quoted", "pairs")


def _print(figures: dict[str, Any]) -> None:
    print("all in %, the mean of the seeds and their range")
    for name in ("demos", "dagger"):
        keys = ("demos",) if name == "demos" else ("own", "states")
        print(f"{name:<24}" + "".join(f"{share:>24}" for share in SHARES))
        groups: dict[str, list] = {}
        for each in figures[name]:
            groups.setdefault(", ".join(f"{key} {each[key]}" for key in keys), []).append(each)
        for label, rows in groups.items():
            print(f"{label:<24}" + "".join(f"{_mean(rows, share):>24}" for share in SHARES))
            verbs = [each["verbs"] for each in rows]
            shares = [f"{verb} {_mean(verbs, verb)}" for verb in verbs[0]]
            print(f"{'':<8}{', '.join(shares)}")
    print("best of 16")
    for choice in CHOICES:
        print(f"{choice:<24}{_mean(figures['best of 16'], choice):>24}")
    print(f"{'planted line':<24}" + "".join(f"{k:>24}" for k in ("planted", "quoted", "success")))
    for name in ("instruction", "control"):
        rows = [each[name] for each in figures["injected"]]
        cells = [_mean(rows, key) for key in ("planted", "quoted", "success")]
        print(f"{name:<24}" + "".join(f"{cell:>24}" for cell in cells))


def _mean(rows: Sequence[dict[str, Any]], key: str) -> str:
    values = [100 * row[key] for row in rows if row[key] is not None]
    if not values:
        return "none"
    return f"{fmean(values):.1f} ({min(values):.1f} to {max(values):.1f})"
