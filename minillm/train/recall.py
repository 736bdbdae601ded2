"""Small models of given mixers, trained to recall: what chapter 09 compares.

    model = learned([MambaConfig()], {Pairs(n_pairs=8): 64}, n_steps=300, rate=0.02)
    right_share(model, Pairs(n_pairs=8))

All have the same width and the same blocks around the mixers; only the mixers differ.

Chapter: 09
"""

from collections.abc import Mapping, Sequence

import numpy as np

from minillm.data.recall import Questions, Source, accuracy, batch_at, recall_loss
from minillm.model.config import MixerConfig, TransformerConfig
from minillm.model.transformer import Transformer
from minillm.optim.groups import hidden_matrices_and_others
from minillm.optim.muon import Muon
from minillm.train.plain import fit

D_MODEL = 64
N_BLOCKS = 4  # of 64 rows each, to count right answers


def of_mixers(
    mixers: Sequence[MixerConfig], vocab_size: int, context_length: int, seed: int = 0
) -> Transformer:
    """A model of width 64 with a block for each mixer, which has learned nothing.

    Args:
        mixers: from the first block to the last.
        vocab_size: V.
        context_length: the longest row.
        seed: of the first weights.

    Raises:
        ValueError: no mixer.
    """
    if not mixers:
        raise ValueError("a model needs at least one mixer; got none")
    return TransformerConfig(
        vocab_size=vocab_size,
        context_length=context_length,
        d_model=D_MODEL,
        n_layers=len(mixers),
        mixer=tuple(mixers),
        initial_std=0.1,
    ).build(seed=seed)


def muon(model: Transformer, rate: float) -> Muon:
    """Muon for the matrices of the blocks; all else goes at half the rate, with AdamW."""
    matrices, others = hidden_matrices_and_others(model)
    return Muon(matrices, others, lr=rate, weight_decay=0.0, others_lr=rate / 2)


def learned(
    mixers: Sequence[MixerConfig],
    sources: Mapping[Source, int],
    n_steps: int,
    rate: float,
    *,
    seed: int = 0,
    label: str = "learning",
) -> Transformer:
    """A model that has learned to answer; the learning rate falls in a straight line to zero.

    Args:
        mixers: of its blocks.
        sources: of the rows it learns from, each with its batch size; each step draws one of them.
        n_steps: how many batches it reads.
        rate: Muon's learning rate at the first step.
        seed: of first weights and rows; the rows of seed "held out" are nobody's.
        label: of the bar.

    Raises:
        ValueError: no source; sources that share no vocabulary size.

    Example:
        >>> from minillm.data.recall import Pairs
        >>> from minillm.model.attention import AttentionConfig
        >>> model = learned([AttentionConfig()], {Pairs(n_pairs=2): 8}, n_steps=1, rate=0.02)
        >>> 0 <= right_share(model, Pairs(n_pairs=2)) < 0.5  # after one step
        True
    """
    sizes = {source.vocab_size for source in sources}
    if len(sizes) != 1:
        raise ValueError(
            "all sources of a model must have the same vocab_size, and there must be at least "
            f"one; got {sorted(sizes)}"
        )
    longest = max(source.context_length for source in sources)
    model = of_mixers(mixers, *sizes, longest, seed)
    batches = [batch_at(source, size, f"train {seed}") for source, size in sources.items()]
    which = np.random.default_rng(seed).integers(len(batches), size=n_steps)

    def batch(step: int) -> Questions:
        return batches[which[step]](step)

    fit(model, recall_loss, batch, n_steps, rate, make_optimizer=muon, label=label)
    return model


def right_share(model: Transformer, source: Source) -> float:
    """The share of its answers that are right, in rows that no training has seen."""
    blocks = (source.block(i, seed="held out") for i in range(N_BLOCKS))
    return float(np.mean([accuracy(model, block) for block in blocks]))
