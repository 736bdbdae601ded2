"""What ranks do in `test_expert`."""

import torch
from torch import distributed

from minillm.data.packing import Batch, Packed
from minillm.experts.moe import MoE, MoEConfig
from minillm.model.config import TransformerConfig
from minillm.optim.adamw import AdamW
from minillm.parallel import expert
from minillm.parallel.collectives import TorchCollectives
from minillm.parallel.data import share
from minillm.parallel.expert import AllToAll, ExpertParallel
from minillm.train.loop import LoopConfig, TrainState, train
from minillm.train.losses import language_loss

FOUR = MoEConfig(n_experts=4, top_k=2, d_expert=8, n_shared=1)
CONFIG = TransformerConfig(vocab_size=12, context_length=8, d_model=16, n_layers=2, ffn=FOUR)


def layer(favourite: int | None = None) -> MoE:
    """The same on all ranks; with a favourite every token's first choice is that expert."""
    torch.manual_seed(0)
    moe = FOUR.build(16, dtype=torch.float64)
    if favourite is not None:
        moe.top_k, moe.norm_topk = 1, False  # or the router would have nothing to learn from
        moe.expert_bias[favourite] = 9
    return moe


def one_layer(favourite: int | None) -> dict[str, float]:
    """The largest differences from the single layer, of this rank's output and gradients."""
    rank, n_ranks = distributed.get_rank(), distributed.get_world_size()
    single, ranks = layer(favourite), AllToAll()
    dealt = ExpertParallel(layer(favourite), ranks)
    x = torch.randn(4, 6, 16, dtype=torch.float64)
    towards = torch.randn(4, 6, 16, dtype=torch.float64)
    whole = x.clone().requires_grad_()
    y, _ = single(whole)
    (y * towards).sum().backward()
    mine = share(x, rank, n_ranks).clone().requires_grad_()
    own, routing = dealt(mine)
    n_bytes = ranks.traffic.n_bytes
    (own * share(towards, rank, n_ranks)).sum().backward()
    result = {
        "output": _difference(own, share(y, rank, n_ranks)),
        "x": _difference(mine.grad, share(whole.grad, rank, n_ranks)),
    }
    named = dict(single.named_parameters())
    for name, parameter in dealt.named_parameters():
        gradient, expected = parameter.grad, named[name].grad
        if "experts" not in name:
            distributed.all_reduce(gradient)
        assert (gradient is None) == (expected is None), name
        result[name] = 0.0 if expected is None else _difference(gradient, expected)
    # what must be sent forward: tokens for others, and as many answers, 16 numbers of 8 bytes each
    by_expert = routing.tokens_per_expert.tolist()
    kept = sum(by_expert[e] for e in expert.own_experts(4, rank, n_ranks))
    result["bytes of tokens"] = 2 * 8 * 16 * (sum(by_expert) - kept)
    result["bytes"] = n_bytes
    # tokens that need no gradient: nobody may miss the way back
    ExpertParallel(layer(favourite), ranks)(share(x, rank, n_ranks))[0].sum().backward()
    return result


def _difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one - other).abs().max() / other.abs().max()).item()


def state() -> TrainState:
    """The same on all ranks."""
    model = CONFIG.build(seed=1, dtype=torch.float64)
    for block in model.blocks:  # an expert that nobody asks: it must stay as it is
        block.ffn.expert_bias[3] = -9
    return TrainState(model, AdamW(model.parameters(), lr=0.01, weight_decay=0.1))


def training() -> float:
    """Two steps alone and two dealt out, against four alone: the largest relative difference."""
    rank, n_ranks = distributed.get_rank(), distributed.get_world_size()
    numbers = torch.Generator().manual_seed(0)
    documents = [torch.randint(1, 12, (5,), generator=numbers).tolist() for _ in range(40)]
    packed = Packed(documents, end_id=0, context_length=8, batch_size=4)

    def steps(of: TrainState, n_steps: int, rank: int = 0, n_ranks: int = 1) -> list:
        def batch_at(step: int) -> Batch:
            return share(packed.batch_at(step), rank, n_ranks)

        loop = LoopConfig(n_steps=n_steps, clip_norm=0.2)
        return [(m.loss, m.gradient_norm) for m in train(of, language_loss, batch_at, loop)]

    whole, plain, first = state(), state(), state()
    expected, metrics = steps(whole, 4), steps(first, 2)
    dealt = expert.shard(first, AllToAll(), TorchCollectives())
    assert sum("experts" in name for name, _ in dealt.model.named_parameters()) == 2 * 2 * 2
    metrics += steps(dealt, 4, rank, n_ranks)
    expert.fill(plain, dealt)
    assert plain.step == 4
    pairs = [(torch.tensor(metrics), torch.tensor(expected))]
    for one, other in zip(plain.model.parameters(), whole.model.parameters(), strict=True):
        pairs.append((one.detach(), other.detach()))
        memory, kept = plain.optimizer.state[one], whole.optimizer.state[other]
        assert memory.keys() == kept.keys() and memory.get("step") == kept.get("step")
        pairs += [(memory[key], kept[key]) for key in kept if key != "step"]
    return max(_difference(a, b) for a, b in pairs)


def two_ranks() -> dict:
    """Everything that two ranks can tell, in one launch."""
    return {"spread": one_layer(None), "all to one": one_layer(1), "training": training()}
