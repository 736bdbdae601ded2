"""Go on where a run was stopped: the training loop, with a checkpoint every few steps.

    newest checkpoint → weights, optimizer state, random state, step → train, save, train, save …

With `batch_at(step)` a pure function, a run that was killed and called again ends with the same
bits as one that nobody touched, however often that happens.

Chapter: 05
"""

import os
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

from torch import nn

from minillm.optim.step import Total
from minillm.train import checkpoint, run_state
from minillm.train.loop import LoopConfig, Metrics, TrainState, train

Batch = TypeVar("Batch")


def resume(
    folder: str | os.PathLike,
    state: TrainState,
    loss: Callable[[nn.Module, Batch], Total],
    batch_at: Callable[[int], Batch],
    config: LoopConfig,
    *,
    save_every: int,
) -> Iterator[Metrics]:
    """Train from the folder's newest whole checkpoint on, or from the start if there is none.

    Args:
        folder: of the run's checkpoints.
        state: as it is at step 0; what a checkpoint holds replaces it.
        loss, batch_at, config: as for `train`.
        save_every: after so many steps a checkpoint is written, before the step is handed out.

    Raises:
        ValueError: save_every below 1; a checkpoint of another model.

    Example:
        >>> import tempfile, torch
        >>> def run(folder, n_steps):
        ...     line = nn.Linear(1, 1)
        ...     state = TrainState(line, torch.optim.SGD(line.parameters(), lr=0.1))
        ...     loss = lambda model, x: Total(model(x).square().sum(), len(x))
        ...     config = LoopConfig(n_steps=n_steps)
        ...     batch_at = lambda step: torch.ones(2, 1)
        ...     steps = resume(folder, state, loss, batch_at, config, save_every=2)
        ...     return [metrics.step for metrics in steps]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     print(run(folder, 3), run(folder, 5))
        [0, 1, 2] [2, 3, 4]
    """
    if save_every < 1:
        raise ValueError(f"save_every must be at least 1; got {save_every}")
    # 1. what the newest whole checkpoint holds replaces the beginning
    last, refused = checkpoint.newest(folder)
    for why in refused:
        warnings.warn(f"a damaged checkpoint is passed over: {why}", stacklevel=2)
    if last is not None:
        run_state.unpack(last, state.model, state.optimizer)
        state.step = last.step
    # 2. on from there, with a checkpoint every few steps
    for metrics in train(state, loss, batch_at, config):
        if state.step % save_every == 0:
            tensors, record = run_state.pack(state.model, state.optimizer)
            checkpoint.save(folder, state.step, tensors, record)
        yield metrics
