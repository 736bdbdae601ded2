"""nanoGPT's model, written anew as a reference: what the speedrun is measured against.

GPT-2's blocks in plain torch: learned positions, LayerNorm without biases, GELU, one table for
reading and predicting. `Recipe` has the numbers that nanoGPT's README gives for a laptop without a
GPU (section "quick start"): 2,000 steps of 12 rows of 64 characters.

Paper: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3;
Karpathy 2022, https://github.com/karpathy/nanoGPT, model.py, train.py, README.md.
Differs: no dropout (that recipe sets it to 0), no compiled step (likewise). 2,000 steps, where
their loop takes one more. The warm-up's last step, 99, has the peak; theirs climbs by 1/101 of it
and has it at step 100. Our last step has the final rate; theirs is a hair above it.

Chapter: app
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from minillm.optim.schedule import Cosine


@final
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The numbers of `train.py config/train_shakespeare_char.py` with the README's options."""

    context_length: int = 64
    d_model: int = 128
    n_layers: int = 4
    n_heads: int = 4
    batch_size: int = 12
    n_steps: int = 2000
    learning_rate: float = 1e-3
    final_rate: float = 1e-4
    warmup_steps: int = 100
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.1
    clip_norm: float = 1.0

    def schedule(self) -> Cosine:
        """Of the learning rate."""
        share = self.final_rate / self.learning_rate
        return Cosine(n_steps=self.n_steps, warmup_steps=self.warmup_steps, final=share)


@final
class _Block(nn.Module):
    def __init__(self, d_model: int, n_heads: int, n_layers: int):
        super().__init__()
        self.n_heads = n_heads
        self.norm_1, self.norm_2 = (nn.LayerNorm(d_model, bias=False) for _ in range(2))
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.output = nn.Linear(d_model, d_model, bias=False)
        self.up = nn.Linear(d_model, 4 * d_model, bias=False)
        self.down = nn.Linear(4 * d_model, d_model, bias=False)
        for linear in (self.qkv, self.up):
            nn.init.normal_(linear.weight, std=0.02)
        for linear in (self.output, self.down):
            nn.init.normal_(linear.weight, std=0.02 / math.sqrt(2 * n_layers))

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        qkv = self.qkv(self.norm_1(x))
        q, k, v = rearrange(qkv, "B T (n H K) -> n B H T K", n=3, H=self.n_heads)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.output(rearrange(y, "B H T K -> B T (H K)"))
        return x + self.down(nn.functional.gelu(self.up(self.norm_2(x))))


@final
class NanoGPT(nn.Module):
    """The model.

    Args:
        vocab_size: V.
        recipe: its numbers.
        seed: of the first weights.
    """

    def __init__(self, vocab_size: int, recipe: Recipe, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.tokens = nn.Embedding(vocab_size, recipe.d_model)
            self.positions = nn.Embedding(recipe.context_length, recipe.d_model)
            for table in (self.tokens, self.positions):
                nn.init.normal_(table.weight, std=0.02)
            self.blocks = nn.Sequential(
                *(
                    _Block(recipe.d_model, recipe.n_heads, recipe.n_layers)
                    for _ in range(recipe.n_layers)
                )
            )
            self.norm = nn.LayerNorm(recipe.d_model, bias=False)

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Logits of the token after each place."""
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        return nn.functional.linear(self.norm(self.blocks(x)), self.tokens.weight)


def optimizer(model: NanoGPT, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; what has two axes decays."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas)
