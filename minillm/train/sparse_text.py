"""Dense and sparse models on real text: the documentation of the Python that runs them.

Dialects are made for experts, and what was seen there need not hold elsewhere. `learned` trains a
small model (two blocks, d_model 64) with any FFN on a `minillm.train.compare.Task` and gives its
held-out loss. Where the FFN routes, the auxiliary losses are added while it learns, and left out
when it is judged.

Chapter: 10
"""

from dataclasses import replace
from functools import cache

from minillm.data.corpus import python_documentation
from minillm.data.packing import Batch
from minillm.experts.moe import auxiliary_loss, routed
from minillm.model.config import FFNConfig
from minillm.model.ffn import SwiGLUConfig
from minillm.model.transformer import Transformer, next_token_loss
from minillm.optim.step import Total
from minillm.train.compare import Task, real_text
from minillm.train.losses import language_loss
from minillm.train.plain import fit

DENSE_64 = SwiGLUConfig(d_ff=64)  #: the dense side


@cache
def documentation() -> Task:
    """Python's documentation in 512 tokens, 16 rows of 64 a batch; made once."""
    return real_text(python_documentation())


def sparse_loss(model: Transformer, batch: Batch) -> Total:
    """The language loss, and the auxiliary losses of the routing for each of its tokens.

    Raises:
        ValueError: no block that routes.
    """
    output = routed(model, batch.tokens, context=batch.context())
    total = next_token_loss(output.logits, batch.targets)
    return total._replace(nats=total.nats + total.n_tokens * auxiliary_loss(output.routings))


def learned(
    ffn: FFNConfig,
    task: Task,
    *,
    n_steps: int = 100,
    seed: int = 0,
    routes: bool = True,
    label: str = "training",
) -> float:
    """The held-out loss of a model with that FFN, in nats a token.

    Args:
        ffn: of both blocks.
        task: what is learned.
        n_steps: of AdamW, whose rate falls from 0.01 in a straight line.
        seed: of first weights and batches.
        routes: whether the FFN has a router.
        label: of the bar.
    """
    model = replace(task.model(seed).config, ffn=ffn).build(seed=seed)
    loss = sparse_loss if routes else language_loss
    fit(model, loss, lambda step: task.batch_at(step, seed), n_steps, 0.01, label=label)
    return task.held_out_loss(model)
