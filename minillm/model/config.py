"""What a transformer is built from: a few numbers, a mixer's config, an FFN's config.

A config is a value. Variants are made with `dataclasses.replace`, and a part is exchanged by naming
another part's config; nothing else has to be told:

    TransformerConfig(vocab_size=1000)                                       a small Llama
    replace(tiny(1000), mixer=AttentionConfig(n_kv_heads=1))              multi-query attention
    replace(tiny(1000), ffn=MLPConfig())                                  GPT's feed-forward part

Any object with a `build` that gives a `Mixer` (or an `FFN`) may stand there, and a tuple of them
gives each block its own.

Paper: Touvron et al. 2023, "LLaMA", arXiv:2302.13971, section 2.2 and table 2.
Differs: none.

Chapter: 04
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, final

import torch

from minillm.model.attention import AttentionConfig, Mixer
from minillm.model.ffn import FFN, SwiGLUConfig
from minillm.model.transformer import Block, Transformer, initialise

LAYER_SEED_OFFSET = 2**40  # layers that draw weights themselves use seed + this


class MixerConfig(Protocol):
    """What builds mixers."""

    def build(
        self, d_model: int, context_length: int, *, device: torch.device | str, dtype: torch.dtype
    ) -> Mixer:
        """A mixer of that width for texts of up to that length, a module with its parameters."""


class FFNConfig(Protocol):
    """What builds feed-forward parts."""

    def build(self, d_model: int, *, device: torch.device | str, dtype: torch.dtype) -> FFN:
        """A feed-forward part of that width, a module with its parameters."""


@final
@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """What a transformer is built from.

    Args:
        vocab_size: V, token ids 0 to V - 1.
        context_length: the longest text that it is meant for.
        d_model: D.
        n_layers: how many blocks.
        mixer: what lets tokens see each other; a tuple of n_layers of them for one a block.
        ffn: what each token does by itself; a tuple likewise.
        norm_epsilon: of all the norms of the stream.
        tied_embeddings: one table for reading tokens and for predicting them, in place of two.
        initial_std: of the first, random weights; see `initialise`.

    Raises:
        ValueError: a count below 1; a tuple of another length; what the parts refuse.

    Example:
        >>> config = TransformerConfig(vocab_size=50, d_model=24, n_layers=2)
        >>> model = config.build(seed=0)
        >>> sum(p.numel() for p in model.parameters())  # 2·50·24 + 24 + 2·(4·24² + 3·24·64 + 2·24)
        16344
        >>> model.config == config
        True
    """

    vocab_size: int
    context_length: int = 256
    d_model: int = 128
    n_layers: int = 4
    mixer: MixerConfig | tuple[MixerConfig, ...] = field(default_factory=AttentionConfig)
    ffn: FFNConfig | tuple[FFNConfig, ...] = field(default_factory=SwiGLUConfig)
    norm_epsilon: float = 1e-6
    tied_embeddings: bool = False
    initial_std: float = 0.02

    def __post_init__(self):
        for name in ("vocab_size", "context_length", "d_model", "n_layers"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}")
        for name in ("norm_epsilon", "initial_std"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be a finite number above 0; got {value!r}")
        _one_a_layer("mixer", self.mixer, self.n_layers)
        _one_a_layer("ffn", self.ffn, self.n_layers)

    @property
    def mixers(self) -> tuple[MixerConfig, ...]:
        """The config of each block's mixer, one a layer."""
        return _one_a_layer("mixer", self.mixer, self.n_layers)

    @property
    def ffns(self) -> tuple[FFNConfig, ...]:
        """The config of each block's FFN, one a layer."""
        return _one_a_layer("ffn", self.ffn, self.n_layers)

    def build(
        self,
        seed: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> Transformer:
        """The model with its first, random weights, a pure function of the config and the seed.

        Args:
            seed: of the weights; torch's own random state is neither read nor changed.
            device: where the model is to be. "meta" gives one without numbers, of any size, for
                counting.
            dtype: of parameters and buffers.

        Raises:
            ValueError: what the parts refuse, such as heads that do not divide the width.
        """
        meta = torch.device(device).type == "meta"
        factory_kwargs = {"device": "meta" if meta else "cpu", "dtype": dtype}
        with torch.random.fork_rng(devices=[]):
            # So they draw other numbers than `initialise`, which uses the seed itself.
            torch.default_generator.manual_seed(seed + LAYER_SEED_OFFSET)
            blocks = [
                Block(
                    self.d_model,
                    mixer.build(self.d_model, self.context_length, **factory_kwargs),
                    ffn.build(self.d_model, **factory_kwargs),
                    norm_epsilon=self.norm_epsilon,
                    **factory_kwargs,
                )
                for mixer, ffn in zip(self.mixers, self.ffns, strict=True)
            ]
            model = Transformer(
                self.vocab_size,
                self.d_model,
                blocks,
                context_length=self.context_length,
                norm_epsilon=self.norm_epsilon,
                tied_embeddings=self.tied_embeddings,
                config=self,
                **factory_kwargs,
            )
        initialise(model, seed, self.initial_std)
        return model.to(device)


def _one_a_layer(name: str, parts: Any | Sequence[Any], n_layers: int) -> tuple[Any, ...]:
    if not isinstance(parts, tuple):
        parts = (parts,) * n_layers
    if len(parts) != n_layers:
        raise ValueError(
            f"{name} must be one config for all blocks, or a tuple of one a block, n_layers = "
            f"{n_layers}; got a tuple of {len(parts)}"
        )
    for part in parts:
        if not callable(getattr(part, "build", None)):
            raise ValueError(
                f"{name} must be a config, an object with a build(width, ...); got {part!r}"
            )
    return parts


# --- presets ------------------------------------------------------------------------------------
def tiny(vocab_size: int) -> TransformerConfig:
    """Two blocks of width 64, 0.1 million parameters beside the tables: trained in seconds.

    Example:
        >>> model = tiny(vocab_size=256).build()
        >>> sum(p.numel() for p in model.blocks.parameters())
        100608
    """
    return TransformerConfig(vocab_size=vocab_size, context_length=128, d_model=64, n_layers=2)


def small(vocab_size: int) -> TransformerConfig:
    """Four blocks of width 128, 0.8 million parameters beside the tables: trained in minutes."""
    return TransformerConfig(vocab_size=vocab_size)


def medium(vocab_size: int) -> TransformerConfig:
    """Six blocks of width 320, 7.4 million parameters beside the tables: an hour or a GPU."""
    return TransformerConfig(
        vocab_size=vocab_size, d_model=320, n_layers=6, mixer=AttentionConfig(n_heads=5)
    )
