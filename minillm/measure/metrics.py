"""What can be said of a model before it has read anything: its innate metrics (先天能力, 度量指标).

The talks divide what describes a model into what it is born with and what it learns. Born with:
vocabulary, parameters, width, depth, heads, sequence length, what a token costs. All of it follows
from the shapes of the model's tensors, so it is counted here and nothing is run. What also needs a
machine (speed, delay, how many work in parallel) or data (loss) is measured elsewhere.

A matrix of n × m costs 2 n m operations a token, a multiplication and an addition for each weight.
Attention also multiplies tokens with tokens: H K numbers with each of S keys, and once more to
gather the values:

    FLOPs a token = 2 · (weights of all matrices that it passes) + 4 · L · H · K · S

Reading the first table is a look-up and costs none; the last matrix costs as any other, be it the
same table or not. Norms, softmax, rotations and activations are left out: they are a few per cent
of a small model and less of a large one.

Paper: Kaplan et al. 2020, arXiv:2001.08361, table 1.
Differs: the last matrix is counted, theirs is not. For attention their table has 2 · L · n_ctx ·
d_attn, half of ours: all S keys of a row are counted here, those in the future too, which a kernel
that knows the triangle can skip.

Chapter: 04
"""

from collections import Counter
from dataclasses import dataclass, fields
from typing import final

from torch import nn

from minillm.model.attention import Attention
from minillm.model.ffn import MLP, SwiGLU
from minillm.model.transformer import Block, Transformer


@final
@dataclass(frozen=True, kw_only=True)
class Metrics:
    """A model's innate metrics; `print` shows them as a table.

    Args:
        vocabulary: V, how many tokens it knows.
        context_length: the longest text.
        depth: L, how many blocks.
        d_model: D, numbers a token.
        blocks: what each block is made of, and how often.
        heads: H of the attention layers; a tuple where blocks differ, empty where none attends.
        kv_heads: G, likewise.
        parameters: all numbers that are learned; a shared table counts once.
        embedding_parameters: of the first table, and of the last matrix where it has its own.
        block_parameters: of each block.
        weight_bytes: memory of all parameters, in the types they have now.
        cache_bytes_per_token: what the model keeps of each token while it writes.
        flops_per_token: operations forward for one token of a row as long as the context; None
            where a block holds parts that this module cannot count.
    """

    vocabulary: int
    context_length: int
    depth: int
    d_model: int
    blocks: str
    heads: int | tuple[int, ...]
    kv_heads: int | tuple[int, ...]
    parameters: int
    embedding_parameters: int
    block_parameters: int | tuple[int, ...]
    weight_bytes: int
    cache_bytes_per_token: int
    flops_per_token: int | None

    def __str__(self) -> str:
        # words for a reader, but d_model as it is called
        labels = {each.name: each.name.replace("_", " ") for each in fields(self)}
        labels["d_model"] = "d_model"
        longest = max(map(len, labels))
        rows = [(label, _shown(getattr(self, name))) for name, label in labels.items()]
        return "\n".join(f"{name:<{longest}}  {value}" for name, value in rows)


def metrics(model: Transformer) -> Metrics:
    """Count a model's innate metrics; on the device "meta" of models of any size.

    Args:
        model: built by `TransformerConfig`.

    Example:
        >>> from minillm.model.config import tiny
        >>> print(metrics(tiny(vocab_size=256).build()))
        vocabulary             256
        context length         128
        depth                  2
        d_model                64
        blocks                 2 × Attention + SwiGLU
        heads                  4
        kv heads               4
        parameters             133,440
        embedding parameters   32,768
        block parameters       50,304
        weight bytes           533,760
        cache bytes per token  1,024
        flops per token        299,008
    """
    blocks = list(model.blocks)
    kinds = Counter(f"{_kind(block.mixer)} + {_kind(block.ffn)}" for block in blocks)
    attends = [block.mixer for block in blocks if isinstance(block.mixer, Attention)]
    vocab_size, d_model = model.embedding.weight.shape
    tables = vocab_size * d_model * (1 if model.head is None else 2)
    return Metrics(
        vocabulary=vocab_size,
        context_length=model.context_length,
        depth=len(blocks),
        d_model=d_model,
        blocks=", ".join(f"{n} × {kind}" for kind, n in kinds.items()),
        heads=_once_if_all_alike([layer.n_heads for layer in attends]),
        kv_heads=_once_if_all_alike([layer.n_kv_heads for layer in attends]),
        parameters=n_parameters(model),
        embedding_parameters=tables,
        block_parameters=_once_if_all_alike([n_parameters(block) for block in blocks]),
        weight_bytes=sum(parameter.nbytes for parameter in model.parameters()),
        cache_bytes_per_token=cache_bytes_per_token(model),
        flops_per_token=flops_per_token(model, model.context_length),
    )


def n_parameters(module: nn.Module) -> int:
    """How many numbers a module learns; shared ones count once."""
    return sum(parameter.numel() for parameter in module.parameters())


def cache_bytes_per_token(model: Transformer) -> int:
    """By how much the caches of one row grow with each token; 0 for a state of fixed size."""
    one, two = (
        sum(cache.n_bytes for cache in model.new_cache(batch_size=1, max_length=n)) for n in (1, 2)
    )
    return two - one


def flops_per_token(model: Transformer, n_tokens: int) -> int | None:
    """Operations forward for one token of a row of n_tokens; see the module.

    Returns:
        A whole number, or None where a block holds other parts than `Attention`, `SwiGLU` and
        `MLP`; `torch.utils.flop_counter.FlopCounterMode` counts those as they run.

    Raises:
        ValueError: n_tokens below 1.
    """
    if n_tokens < 1:
        raise ValueError(f"n_tokens must be at least 1, the length of a row; got {n_tokens}")
    parts = [_block_flops(block, n_tokens) for block in model.blocks]
    if None in parts:
        return None
    return sum(parts) + 2 * model.embedding.weight.numel()  # the last matrix has the same shape


def _block_flops(block: Block, n_tokens: int) -> int | None:
    mixer, ffn = block.mixer, block.ffn
    if not isinstance(mixer, Attention) or not isinstance(ffn, SwiGLU | MLP):
        return None
    matrices = [m.weight for m in block.modules() if isinstance(m, nn.Linear)]
    scores_and_values = 4 * mixer.n_heads * mixer.d_head * n_tokens
    return 2 * sum(weight.numel() for weight in matrices) + scores_and_values


def _kind(part: nn.Module) -> str:
    return type(part).__name__


def _once_if_all_alike(values: list[int]) -> int | tuple[int, ...]:
    return values[0] if len(set(values)) == 1 else tuple(values)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_shown, value)) or "none"
    if value is None:
        return "unknown"
    return f"{value:,}" if isinstance(value, int) else str(value)
