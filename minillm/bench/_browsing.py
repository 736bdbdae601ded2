"""What `minillm bench browser` tries policies on: towns, questions, random actions, the base.

Chapter: app
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from random import Random
from typing import final

from minillm.agents import browser
from minillm.agents.browser import MOST_ACTIONS, Browser, Library, expert
from minillm.agents.imitate import Policy, clone, follow, labelled, policy_of
from minillm.agents.imitate import run as episodes
from minillm.model.config import TransformerConfig
from minillm.model.transformer import Transformer
from minillm.reason.solver import Pair, SolverConfig
from minillm.town.pages import (
    BRIDGES,
    SAYINGS,
    Question,
    object_of,
    pages,
    questions,
    read_question,
)
from minillm.town.world import World

CONTEXT_LENGTH = 128
N_TOKENS = 12  # of an action
Base = Callable[[], Transformer]  # the model, trained when it is needed first
KEYS = tuple(key for _, _, key in SAYINGS.values())


@final
@dataclass(frozen=True, kw_only=True)
class Work:
    """How much is done.

    Args:
        base_tokens: read by the base, first with the views to be learned, then without.
        n_tokens: read when a policy is cloned.
        learning_rate: of cloning.
        n_towns: for training, and for the test.
        n_people: of each town.
        n_actions: the budget of an episode.
        n_base: demonstrations that the base learns from.
        demos: numbers of demonstrations.
        n_tested: questions to each policy.
        n_states: numbers of states that are labelled in a round of DAgger.
        n_scored: questions whose sampled episodes the reward model learns from, and attempts at
            each.
        seeds: of the demonstrations and of the order in training.
    """

    base_tokens: tuple[int, int] = (700_000, 700_000)
    n_tokens: int = 300_000
    learning_rate: float = 0.02
    n_towns: tuple[int, int] = (32, 8)
    n_people: int = 40
    n_actions: int = MOST_ACTIONS
    n_base: int = 8000
    demos: tuple[int, ...] = (100, 500, 2000)
    n_tested: int = 120
    n_states: tuple[int, ...] = (400, 3000)
    n_scored: tuple[int, int] = (200, 8)
    seeds: tuple[int, ...] = (0, 1, 2)

    def config(self, seed: int) -> SolverConfig:
        """Of a cloning."""
        return SolverConfig(
            batch_size=32,
            n_tokens=self.n_tokens,
            learning_rate=self.learning_rate,
            seed=seed,
        )


QUICK = Work(
    base_tokens=(1500, 1500),
    n_tokens=1500,
    n_towns=(1, 1),
    n_actions=2,
    n_base=8,
    demos=(5,),
    n_tested=2,
    n_states=(6,),
    n_scored=(2, 2),
    seeds=(0,),
)


# --- towns and questions ------------------------------------------------------------------------
@cache
def town(name: str, n_people: int) -> tuple[Library, tuple[list[Question], list[Question]]]:
    """The pages of a town, and its questions of one and of two hops."""
    world = World(name, n_people=n_people)
    return Library(pages(world)), (questions(world, 1), questions(world, 2))


def starts(split: str, n: int, seed: int | str, work: Work, n_hops: int = 2) -> list[Browser]:
    """First states: questions, each of some town of a split.

    Args:
        split: "train" or "test".
        n: how many.
        seed: of the draws.
        work: how many towns there are.
        n_hops: of the questions, 1 or 2.
    """
    rng = Random(f"{split}/{seed}/{n_hops}")
    n_towns = work.n_towns[split == "test"]
    states = []
    for _ in range(n):
        library, by_hops = town(f"{split} {rng.randrange(n_towns)}", work.n_people)
        question = rng.choice(by_hops[n_hops - 1])
        states.append(Browser(library=library, question=question, n_left=work.n_actions))
    return states


def random_action(state: Browser, rng: Random) -> str:
    """One of the actions that can be carried out; what it names stands in the view."""
    quoted = [line for _, line in state.quotes]
    titles = [read_question(state.question.text)[0], *state.results, *filter(None, [state.page])]
    titles += [o for line in quoted for each in BRIDGES if (o := object_of(line, each))]
    actions = [f"search {rng.choice(KEYS)} {rng.choice(titles)}"]
    if state.page is not None:
        actions.append(f"quote {rng.choice(state.screen)}")
        actions += ["scroll"] * (len(state.library.shown[state.page]) > len(state.screen))
    elif state.results:
        actions.append(f"click {rng.randint(1, len(state.results))}")
    objects = [o for line in quoted for each in SAYINGS if (o := object_of(line, each))]
    if objects:
        actions.append(f"answer {rng.choice(objects)}")
    return rng.choice(actions)


# --- trainings ----------------------------------------------------------------------------------
def base_of(work: Work) -> Transformer:
    """The model that all policies begin with: cloned on questions of one hop, views first."""
    pairs = labelled(episodes(follow(expert), starts("train", work.n_base, "base", work, 1)))
    # one table for reading and writing: a word that is copied need not be learned twice
    model = TransformerConfig(
        vocab_size=len(browser.VOCABULARY),
        context_length=CONTEXT_LENGTH,
        d_model=64,
        n_layers=3,
        tied_embeddings=True,
    ).build(seed=0)
    for views, n_tokens in zip((True, False), work.base_tokens, strict=True):
        model = clone(
            pairs,
            browser,
            replace(work.config(0), n_tokens=n_tokens),
            start=model,
            views=views,
            label="one hop",
        )
    return model


def learned(
    base: Callable[[], Transformer], pairs: Sequence[Pair], seed: int, work: Work
) -> Transformer:
    """A policy's model, cloned from pairs."""
    return clone(pairs, browser, work.config(seed), start=base())


def greedy(model: Transformer) -> Policy:
    """The policy that writes the likeliest words."""
    return policy_of(model, browser, n_tokens=N_TOKENS)
