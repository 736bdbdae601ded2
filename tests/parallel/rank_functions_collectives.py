"""What ranks do in `test_collectives`."""

import torch
from torch import distributed

from minillm.parallel.collectives import RingCollectives, TorchCollectives

N_CHUNK = 5
CALLS = ("all_reduce", "reduce_scatter", "all_gather")


def compared() -> dict:
    """Our rings and torch's own, on whole numbers, whose sums are exact in every type."""
    rank, n_ranks = distributed.get_rank(), distributed.get_world_size()
    result = {"equal": {}, "changed": []}
    everyone = [distributed.new_group([0, n_ranks - 1]), None]
    for group in everyone:
        if group is not None and rank not in (0, n_ranks - 1):
            continue
        ring, torchs = RingCollectives(group), TorchCollectives(group)
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            generator = torch.Generator().manual_seed(rank)
            x = torch.randint(-9, 9, (ring.n_ranks * N_CHUNK, 2), generator=generator).to(dtype)
            x = x[:, 0]  # every second number of the memory
            before = x.clone()
            for call in CALLS:
                one, other = getattr(ring, call)(x), getattr(torchs, call)(x)
                place = f"{call}, {dtype}, {ring.n_ranks} ranks"
                result["equal"][place] = torch.equal(one, other) and one.dtype == dtype
                if not torch.equal(x, before):
                    result["changed"].append(place)
    ring.traffic.n_bytes = ring.traffic.n_messages = 0
    own = torch.arange(n_ranks * N_CHUNK, dtype=torch.float32)
    for call in CALLS:
        was = ring.traffic.n_bytes, ring.traffic.n_messages
        getattr(ring, call)(own)
        sent = ring.traffic.n_bytes - was[0], ring.traffic.n_messages - was[1]
        result[call] = list(sent)
    return result
