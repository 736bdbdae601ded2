"""What ranks do in `test_tensor`."""

from dataclasses import replace
from functools import partial

import torch
from torch import distributed
from torch.distributed.tensor.debug import CommDebugMode

from minillm.data.packing import Batch, Packed
from minillm.measure.memory_meter import Meter
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.model.ffn import MLPConfig, SwiGLUConfig
from minillm.optim.adamw import AdamW
from minillm.parallel import tensor
from minillm.parallel.collectives import RingCollectives, TorchCollectives
from minillm.parallel.data import share
from minillm.parallel.mesh import Mesh
from minillm.train.loop import LoopConfig, TrainState, train
from minillm.train.losses import language_loss

GROUPED = TransformerConfig(
    vocab_size=12,
    context_length=8,
    d_model=16,
    n_layers=2,
    mixer=AttentionConfig(n_heads=4, n_kv_heads=2, qk_norm=True),
    ffn=SwiGLUConfig(d_ff=20),
)
TIED = replace(GROUPED, mixer=AttentionConfig(), ffn=MLPConfig(), tied_embeddings=True)


def state(config: TransformerConfig, dtype: torch.dtype = torch.float64) -> TrainState:
    """The same on all ranks; large weights, so that all of them matter."""
    model = replace(config, initial_std=0.3).build(seed=1, dtype=dtype)
    return TrainState(model, AdamW(model.parameters(), lr=0.01, weight_decay=0.1))


def batch_at(step: int, n_ranks: int = 1, rank: int = 0) -> Batch:
    """Rows of several documents each; this rank's share of them."""
    numbers = torch.Generator().manual_seed(0)
    documents = [torch.randint(1, 12, (5,), generator=numbers).tolist() for _ in range(40)]
    packed = Packed(documents, end_id=0, context_length=8, batch_size=4)
    return share(packed.batch_at(step), rank, n_ranks)


def steps(of: TrainState, loss, batches, n_steps: int) -> list[tuple[float, float]]:
    """Loss and gradient norm of each step."""
    loop = LoopConfig(n_steps=n_steps, clip_norm=0.2)
    return [(each.loss, each.gradient_norm) for each in train(of, loss, batches, loop)]


def twin(
    config: TransformerConfig, mesh: Mesh, *, sequence: bool = False, ring: bool = False
) -> float:
    """Two steps alone and two sharded, against four alone: the largest relative difference."""
    rank, groups = distributed.get_rank(), mesh.groups()
    kind = RingCollectives if ring else TorchCollectives
    whole, plain, first = state(config), state(config), state(config)
    metrics = steps(whole, language_loss, batch_at, 4)
    of_first = steps(first, language_loss, batch_at, 2)
    dp = kind(groups["dp"]) if mesh.dp > 1 else None
    sharded = tensor.shard(first, kind(groups["tp"]), dp, sequence=sequence)
    batches = partial(batch_at, n_ranks=mesh.dp, rank=mesh.place(rank)["dp"])
    of_first += steps(sharded, tensor.loss, batches, 4)
    tensor.fill(plain, sharded)
    assert plain.step == 4
    pairs = [(torch.tensor(of_first), torch.tensor(metrics))]
    for one, other in zip(plain.model.parameters(), whole.model.parameters(), strict=True):
        pairs.append((one.detach(), other.detach()))
        memory, expected = plain.optimizer.state[one], whole.optimizer.state[other]
        assert memory["step"] == expected["step"] == 4
        pairs += [(memory[key], expected[key]) for key in ("mean", "square")]
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


def two_ranks() -> dict:
    """Everything that two ranks can tell, in one launch."""
    mesh, rank = Mesh(tp=2), distributed.get_rank()
    result = {
        "twins": {
            "grouped": twin(GROUPED, mesh),
            "tied": twin(TIED, mesh, ring=True),
            "grouped, sequence": twin(GROUPED, mesh, sequence=True, ring=True),
            "tied, sequence": twin(TIED, mesh, sequence=True),
        }
    }
    # what is sent: by torch's own count of collectives, and in bytes of our rings
    for kind in ("block", "sequence"):
        tp = RingCollectives()
        for collectives in (TorchCollectives(), tp):
            sharded = tensor.shard(state(GROUPED), collectives, sequence=kind == "sequence")
            with CommDebugMode() as forward:
                total = tensor.loss(sharded.model, batch_at(0))
            with CommDebugMode() as backward:
                total.nats.backward()
            if collectives is not tp:
                result[kind] = [_counts(forward), _counts(backward)]
        result[f"{kind} bytes"] = tp.traffic.n_bytes
    # what a rank holds: slices, and never the logits of all words
    words = replace(GROUPED, vocab_size=4000)
    sharded = tensor.shard(state(words), TorchCollectives())
    with Meter() as meter, torch.no_grad():
        tensor.loss(sharded.model, batch_at(0))
    result["largest"] = meter.largest
    result["shapes"] = {n: list(p.shape) for n, p in sharded.model.named_parameters()}
    # written token by token with a cache: this rank's logits are its words of the whole model's
    sharded = tensor.shard(state(GROUPED), TorchCollectives()).model
    tokens = batch_at(0).tokens
    with torch.no_grad():
        cache = sharded.new_cache(len(tokens))
        parts = [sharded(tokens[:, t : t + 1], cache=cache) for t in range(tokens.shape[1])]
        expected = state(GROUPED).model(tokens)[..., 6 * rank : 6 * rank + 6]
    result["cached"] = (torch.cat(parts, dim=1) - expected).abs().max().item()
    return result


def _counts(comm: CommDebugMode) -> dict[str, int]:
    return {str(op).split(".")[-1].strip("_"): n for op, n in comm.get_comm_counts().items()}


def four_ranks() -> float:
    """tp=2, dp=2."""
    return twin(GROUPED, Mesh(tp=2, dp=2), sequence=True)
