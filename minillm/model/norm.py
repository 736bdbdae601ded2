"""RMSNorm (均方根归一化): every token's numbers brought to one size before they are used.

Each block adds to the stream of numbers that runs through the model, so the stream grows. A norm
before each part divides a token's D numbers by their root mean square, and gives each place a
learned gain g:

    y = x / √(mean(x²) + ε) · g

The direction of x is kept and its length becomes √D (with g = 1). LayerNorm, which the first
transformers had, also subtracts the mean and adds a bias; leaving both out costs nothing and saves
a pass over the numbers.

Paper: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", arXiv:1910.07467, equation
(4). Theirs to ours: a is x, n is D.
Differs: ε under the root, so that zeros stay zeros; no bias, as in Touvron et al. 2023
(arXiv:2302.13971, section 2.2).

Chapter: 04
"""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn


def rms_norm_naive(
    x: Float[Tensor, "... D"], weight: Float[Tensor, "D"], epsilon: float = 1e-6
) -> Float[Tensor, "... D"]:
    """x / √(mean(x²) + ε) · g, as it is written.

    Numbers of 16 bits are squared, averaged and multiplied in float32 and rounded once, at the
    end: the square of 300 is beyond float16, and bfloat16 keeps three digits of a sum.

    Args:
        x: a token's numbers on the last axis.
        weight: g.
        epsilon: ε.

    Example:
        >>> rms_norm_naive(torch.tensor([1.0, 7.0]), torch.ones(2), epsilon=0.0)  # √(50 / 2) is 5
        tensor([0.2000, 1.4000])
    """
    upcast = _wide(x)
    mean_square = upcast.square().mean(dim=-1, keepdim=True)
    # x / √(mean(x²) + ε), times a learned weight for each number
    return (upcast / (mean_square + epsilon).sqrt() * weight).to(x.dtype)


def rms_norm(
    x: Float[Tensor, "... D"], weight: Float[Tensor, "D"], epsilon: float = 1e-6
) -> Float[Tensor, "... D"]:
    """The same, with the way back by hand: half the time, and no second copy of x is remembered.

    Where no gradient is wanted it is torch's own function.

    Raises:
        ValueError: gradients of gradients were asked for; `rms_norm_naive` has those.

    Differs: in 16 bits transformers' Llama rounds before it multiplies by g, and once more after.
    """
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return _RMSNorm.apply(x, weight, epsilon)
    return nn.functional.rms_norm(x, weight.shape, weight, epsilon)


class _RMSNorm(torch.autograd.Function):
    """y = x s g, where s = 1 / √(mean(x²) + ε) is a token's scale; x, s and g are remembered.

    With n = x s, what is normed, and h = g ∂L/∂y, its gradient, the chain rule gives

        ∂L/∂x = s (h - n mean(h n))        ∂L/∂g = sum over tokens of ∂L/∂y n

    The mean takes away from h the part that lies along x, since no lengthening of x changes y.
    """

    @staticmethod
    def forward(ctx, x, weight, epsilon):
        upcast = _wide(x)
        scale = torch.rsqrt(_mean_product(upcast, upcast) + epsilon)
        ctx.save_for_backward(x, weight, scale)
        return (upcast * scale).mul_(weight).to(x.dtype)

    @staticmethod
    def backward(ctx, gradient):
        if torch.is_grad_enabled():
            raise ValueError(
                "rms_norm has gradients, but no gradients of gradients; got create_graph=True. "
                "Use rms_norm_naive for those"
            )
        x, weight, scale = ctx.saved_tensors
        n, gradient = _wide(x) * scale, _wide(gradient)
        h = gradient * weight
        to_x = torch.addcmul(h, n, _mean_product(h, n), value=-1).mul_(scale)
        to_weight = (gradient * n).reshape(-1, len(weight)).sum(dim=0)
        return to_x.to(x.dtype), to_weight.to(weight.dtype), None


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _mean_product(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vecdot(a, b).unsqueeze(-1) / a.shape[-1]


@final
class RMSNorm(nn.Module):
    """The norm with its gain, which begins at 1.

    Args:
        d_model: D.
        epsilon: ε.
        device, dtype: of the gain.

    Example:
        >>> RMSNorm(2)(torch.tensor([[3.0, -3.0]])).detach()
        tensor([[ 1.0000, -1.0000]])
    """

    def __init__(
        self,
        d_model: int,
        epsilon: float = 1e-6,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(d_model, device=device, dtype=dtype))

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Each token by itself; shape and type stay."""
        return rms_norm(x, self.weight, self.epsilon)

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"{len(self.weight)}, epsilon={self.epsilon}"
