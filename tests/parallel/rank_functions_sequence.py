"""What ranks do in `test_sequence`."""

import torch
from torch import Tensor, distributed

from minillm.model.attention import attend
from minillm.model.masks import causal
from minillm.parallel.collectives import Traffic
from minillm.parallel.sequence import ring_attention


def heads(n_tokens: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """q, k, v of 4 and 2 heads, and a gradient of the values."""
    torch.manual_seed(0)
    shapes = [(2, 4, n_tokens, 6), (2, 2, n_tokens, 6), (2, 2, n_tokens, 6), (2, 4, n_tokens, 6)]
    return [3 * torch.randn(shape, dtype=dtype) for shape in shapes]


def whole(tensors: list[Tensor], is_causal: bool) -> list[Tensor]:
    """The values of plain attention, and the gradients of q, k and v."""
    *qkv, grad_values = tensors
    qkv = [x.clone().requires_grad_() for x in qkv]
    places = torch.arange(grad_values.shape[2])
    values = attend(*qkv, causal(places, places) if is_causal else None).values
    values.backward(grad_values)
    return [values.detach(), *(x.grad for x in qkv)]


def two_ranks() -> dict:
    """The largest differences from plain attention, and what was sent."""
    rank, result = distributed.get_rank(), {}
    for is_causal in (True, False):
        tensors, traffic = heads(12), Traffic()
        *qkv, grad_values = [x.chunk(2, dim=2)[rank].clone() for x in tensors]
        qkv = [x.requires_grad_() for x in qkv]
        values = ring_attention(*qkv, causal=is_causal, tile_tokens=4, traffic=traffic)
        forward = traffic.n_bytes
        values.backward(grad_values)
        expected = [x.chunk(2, dim=2)[rank] for x in whole(tensors, is_causal)]
        mine = [values.detach(), *(x.grad for x in qkv)]
        result["causal" if is_causal else "all"] = max(
            ((a - b).abs().max() / b.abs().max()).item()
            for a, b in zip(mine, expected, strict=True)
        )
        result["bytes"] = [forward, traffic.n_bytes - forward]
    return result
