"""Micro-batches (微批次): one batch through all stages of a pipeline, with its backward passes.

Each stage (`minillm.parallel.pipeline`) follows its schedule. For each micro-batch

    forward     receive the stream [B/m T D] from the stage before, pass the blocks, send it on
    backward    receive its gradient from the stage behind, go back through the blocks, send the
                gradient of what was received to the stage before

The last stage computes the loss, and so needs no gradient from elsewhere. A stage's gradients add
up over the micro-batches, so the step is that of the whole batch.

**Messages.** What an action gives is sent without waiting, in one batch of messages with what the
next action needs. A schedule that `simulate` can play through can therefore not hang.

Paper: Huang et al. 2019, "GPipe", arXiv:1811.06965, section 2. Narayanan et al. 2021,
arXiv:2104.04473, section 2.2 (1F1B). Numbers of sections are from memory.
Differs: activations are kept, not recomputed; every rank reads the whole batch, so that no
positions or masks have to be sent.

Chapter: 16
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed

from minillm.data.packing import Batch
from minillm.model.attention import Context
from minillm.optim.step import Total
from minillm.parallel.data import share
from minillm.parallel.pipeline import Stage
from minillm.parallel.schedule import (
    Action,
    Event,
    Schedule,
    one_forward_one_backward,
    simulate,
)
from minillm.train.losses import language_loss


@final
class Arrived:
    """The last stage as a loss sees it: a model, of which all but this stage has been computed.

    Args:
        stage: the last.
        stream: from the stage before.
    """

    def __init__(self, stage: Stage, stream: Float[Tensor, "B T D"] | None):
        self.stage, self.stream = stage, stream
        self.embedding, self.head = stage.embedding, stage.head

    def hidden(self, tokens: Int[Tensor, "B T"], *, context: Context) -> Float[Tensor, "B T D"]:
        """See `Transformer.hidden`."""
        return self.stage(tokens, context, self.stream)


@final
class Pipelined:
    """The loss of a batch through a pipeline: what `train` asks, in place of `language_loss`.

    Every rank calls it with the same batch, and gets the loss that the last stage has computed.
    The backward passes are part of the schedule: when the loss is there, so are the gradients, and
    its `nats.backward()` has nothing left to do. Under `torch.no_grad` there are forward passes
    only.

    Args:
        n_micro: m, micro-batches a batch; number n has the rows n, n + m, n + 2 m, …
        schedule: the order of each stage.
        loss: of a micro-batch; it may ask the model for `hidden`, `embedding` and `head`.

    Raises:
        ValueError: fewer than one micro-batch. When called: micro-batches that do not divide the
            rows (without gradients, as many are taken as do); a schedule that can never run.
    """

    def __init__(
        self,
        n_micro: int,
        schedule: Schedule = one_forward_one_backward,
        loss: Callable[[Arrived, Batch], Total] = language_loss,
    ):
        if n_micro < 1:
            raise ValueError(f"a batch has at least one micro-batch; got n_micro={n_micro}")
        self.n_micro, self.schedule, self.loss = n_micro, schedule, loss

    def __call__(self, stage: Stage, batch: Batch) -> Total:
        """The whole schedule for one batch."""
        n_rows, learns = len(batch.tokens), torch.is_grad_enabled()
        n_micro = self.n_micro if learns else math.gcd(self.n_micro, n_rows)
        order = self._order(stage, n_micro, n_rows, learns)
        parts = [share(batch, n, n_micro) for n in range(n_micro)]
        messages = Messages(stage, (n_rows // n_micro, batch.tokens.shape[1], stage.d_model))
        passes = Passes(stage, self.loss, parts, keeps=learns)
        stage.events = []
        # 1. one action after the other; its result leaves while the next one's input arrives
        arrived = messages.exchange(None, None, order[0])
        for action, following in zip(order, [*order[1:], None], strict=True):
            start = time.perf_counter()
            result = passes.do(action, arrived)
            stage.events.append(Event(stage.number, action, start, time.perf_counter()))
            arrived = messages.exchange(action, result, following)
        messages.finish()
        # 2. all stages get the loss from the last one
        numbers = torch.stack(passes.numbers)
        distributed.broadcast(numbers, group=stage.group, group_src=stage.n_stages - 1)
        nats, n_tokens = numbers[0], numbers[1].long()
        if learns:
            nats = nats.clone().requires_grad_()  # a leaf: no pass begins at it
            nats.register_hook(_already_done)
        return Total(nats, n_tokens)

    def _order(self, stage: Stage, n_micro: int, n_rows: int, learns: bool) -> list[Action]:
        if n_rows % n_micro:
            raise ValueError(
                "a batch is cut into n_micro equal micro-batches, so their number must divide its "
                f"rows; got n_micro={n_micro} for {n_rows} rows. Take a divisor of {n_rows}"
            )
        orders = [self.schedule(n, stage.n_stages, n_micro) for n in range(stage.n_stages)]
        if not learns:
            orders = [[each for each in order if each[0] == "forward"] for order in orders]
        simulate(orders)  # refuses what would hang
        return [Action(*each) for each in orders[stage.number]]


def _already_done(gradient: Tensor) -> None:
    if gradient.item() != 1:
        raise ValueError(
            "a pipeline has done its backward passes when its loss is there, for the plain sum of "
            f"nats; got a loss multiplied by {gradient.item()} afterwards. Multiply it in the "
            "`loss` that Pipelined is given"
        )


@final
class Passes:
    """Forward and backward passes of one batch at one stage, and what is kept between them.

    Args:
        stage: this rank's.
        loss: of a micro-batch, at the last stage.
        parts: the micro-batches.
        keeps: whether activations are kept for a backward pass.
    """

    def __init__(self, stage: Stage, loss: Callable, parts: Sequence[Batch], *, keeps: bool):
        self.stage, self.loss, self.parts, self.keeps = stage, loss, parts, keeps
        self.alive: dict[int, tuple[Tensor | None, Tensor]] = {}  # what came, what became of it
        device = next(stage.parameters()).device
        self.numbers = [torch.zeros((), dtype=torch.float64, device=device) for _ in range(2)]

    def do(self, action: Action, arrived: Tensor | None) -> Tensor | None:
        """One action; what is to be sent on."""
        return (self.forward if action.step == 1 else self.backward)(action.micro_batch, arrived)

    def forward(self, n: int, stream: Tensor | None) -> Tensor | None:
        """From the stream that came to the stream behind this stage; at the last, to the loss."""
        part = self.parts[n]
        if stream is not None:
            stream.requires_grad_(self.keeps)
        if self.stage.is_last:
            result, n_tokens = self.loss(Arrived(self.stage, stream), part)
            self.numbers[0] += result.detach()
            self.numbers[1] += n_tokens
        else:
            result = self.stage(part.tokens, part.context(), stream)
        if self.keeps:
            self.alive[n] = stream, result
            self.stage.most_alive = max(self.stage.most_alive, len(self.alive))
        return None if self.stage.is_last else result.detach()

    def backward(self, n: int, gradient: Tensor | None) -> Tensor | None:
        """From the gradient that came to that of the stream that had come; then all is let go."""
        stream, result = self.alive.pop(n)
        result.backward(gradient)  # None at the last stage, where the result is the loss itself
        return None if stream is None else stream.grad


@final
class Messages:
    """What one stage sends and receives in one batch.

    Args:
        stage: this rank's.
        shape: of each message, [B/m, T, D].
    """

    def __init__(self, stage: Stage, shape: tuple[int, int, int]):
        self.stage, self.shape = stage, shape
        self.like = next(stage.parameters())
        self.sending: list[distributed.Work] = []

    def exchange(
        self, action: Action | None, result: Tensor | None, following: Action | None
    ) -> Tensor | None:
        """Send an action's result, and wait for what the following one needs."""
        messages, arriving = [], None
        if result is not None:
            to = self.stage.number + action.step
            messages.append(self._message(distributed.isend, result.contiguous(), to, action))
        if following is not None:
            source = self.stage.number - following.step
            if 0 <= source < self.stage.n_stages:
                arriving = self.like.new_empty(self.shape)
                messages.append(self._message(distributed.irecv, arriving, source, following))
        works = distributed.batch_isend_irecv(messages) if messages else []
        if arriving is not None:
            works.pop().wait()  # the last one; nccl gives one for all
        self.sending += works
        return arriving

    def finish(self) -> None:
        """Wait until all that was sent has arrived."""
        for work in self.sending:
            work.wait()

    def _message(
        self, how: Callable, tensor: Tensor, peer: int, action: Action
    ) -> distributed.P2POp:
        group, tag = self.stage.group, action.micro_batch
        return distributed.P2POp(how, tensor, group=group, group_peer=peer, tag=tag)
