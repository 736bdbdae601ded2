from dataclasses import dataclass, fields, replace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from minillm.measure.metrics import (
    cache_bytes_per_token,
    flops_per_token,
    metrics,
    n_parameters,
)
from minillm.model import count
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig, small, tiny
from minillm.model.ffn import MLPConfig

TOY = TransformerConfig(vocab_size=19, context_length=16, d_model=8, n_layers=2)
GROUPED = AttentionConfig(n_heads=4, n_kv_heads=2, d_head=6, qk_norm=True)


@dataclass
class Fixed:
    """A state of one size, however long the text."""

    n_bytes: int


class Nothing(nn.Module):
    """A mixer that finds nothing and keeps 40 bytes a row."""

    def forward(self, x, context, cache=None):
        return 0 * x

    def new_cache(self, batch_size, max_length):
        return Fixed(40 * batch_size)


@dataclass(frozen=True)
class NothingConfig:
    def build(self, d_model, context_length, *, device, dtype):
        return Nothing()


# --- by hand -----------------------------------------------------------------------------------
def test_a_toy_is_counted_on_paper():
    config = replace(TOY, mixer=AttentionConfig(n_heads=4, n_kv_heads=2))
    found = metrics(config.build())
    # K = 2, G = 2. Attention: (4 + 2·2)·2 rows of 8, and 8 · 8. F = 24: three matrices of 8 · 24.
    matrices = 16 * 8 + 8 * 8 + 3 * 8 * 24
    assert vars(found) == {
        "vocabulary": 19,
        "context_length": 16,
        "depth": 2,
        "d_model": 8,
        "blocks": "2 × Attention + SwiGLU",
        "heads": 4,
        "kv_heads": 2,
        "parameters": 2 * 19 * 8 + 2 * (matrices + 2 * 8) + 8,
        "embedding_parameters": 2 * 19 * 8,
        "block_parameters": matrices + 2 * 8,
        "weight_bytes": 4 * (2 * 19 * 8 + 2 * (matrices + 2 * 8) + 8),
        "cache_bytes_per_token": 2 * 2 * 2 * 2 * 4,  # layers, k and v, heads, width, bytes
        "flops_per_token": 2 * (2 * matrices + 19 * 8) + 2 * 4 * 4 * 2 * 16,
    }


def test_the_table_names_every_metric_with_its_number():
    lines = str(metrics(small(1024).build(device="meta"))).splitlines()
    assert len(lines) == len(fields(metrics(TOY.build())))
    assert "parameters             1,053,824" in lines
    assert "blocks                 4 × Attention + SwiGLU" in lines
    assert "block parameters       197,888" in lines


def test_a_tied_table_counts_once_and_is_multiplied_with_all_the_same():
    untied, tied = (metrics(replace(TOY, tied_embeddings=tied).build()) for tied in (False, True))
    assert untied.parameters - tied.parameters == 19 * 8
    assert (untied.embedding_parameters, tied.embedding_parameters) == (2 * 19 * 8, 19 * 8)
    assert untied.flops_per_token == tied.flops_per_token


def test_blocks_that_differ_are_told_apart():
    config = replace(
        TOY, mixer=(AttentionConfig(n_heads=2), GROUPED), ffn=(MLPConfig(), MLPConfig())
    )
    found = metrics(config.build())
    assert found.blocks == "2 × Attention + MLP"
    assert (found.heads, found.kv_heads) == ((2, 4), 2)
    assert found.block_parameters == (
        4 * 64 + 2 * 8 * 32 + 16,
        (4 + 2 * 2) * 6 * 8 + 4 * 6 * 8 + 2 * 6 + 2 * 8 * 32 + 16,
    )
    assert "heads                  2, 4" in str(found).splitlines()


def test_a_part_of_another_kind_has_unknown_flops_and_a_state_that_does_not_grow():
    found = metrics(replace(TOY, mixer=(AttentionConfig(), NothingConfig())).build())
    assert found.blocks == "1 × Attention + SwiGLU, 1 × Nothing + SwiGLU"
    assert found.flops_per_token is None
    assert found.heads == 4
    assert found.cache_bytes_per_token == 2 * 8 * 4
    none = metrics(replace(TOY, mixer=NothingConfig()).build())
    assert (none.heads, none.cache_bytes_per_token) == ((), 0)
    assert "flops per token        unknown" in str(none).splitlines()
    assert "heads                  none" in str(none).splitlines()


# --- reference ---------------------------------------------------------------------------------
@pytest.mark.parametrize("n_tokens", [4, 16])
@pytest.mark.parametrize(
    "config",
    [
        TOY,
        replace(TOY, mixer=GROUPED),
        replace(TOY, mixer=AttentionConfig(window_tokens=3), ffn=MLPConfig()),
        replace(TOY, tied_embeddings=True),
        replace(tiny(256), context_length=16),
    ],
    ids=["toy", "gqa", "window-mlp", "tied", "tiny"],
)
def test_flops_are_those_that_torch_counts_in_a_forward_pass(config, n_tokens):
    # On "meta", where torch writes attention out as two products; it knows no count for the CPU's
    # fused kernel.
    model = config.build(device="meta")
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(3, n_tokens, dtype=torch.int64, device="meta"))
    counted = counter.get_total_flops() / (3 * n_tokens)
    assert flops_per_token(model, n_tokens) == pytest.approx(counted, rel=0.05)
    assert flops_per_token(model, n_tokens) == counted  # to the last operation


@pytest.mark.parametrize("mixer", [AttentionConfig(), GROUPED], ids=["mha", "gqa"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_are_those_of_chapter_00(mixer, dtype):
    model = replace(TOY, mixer=mixer).build(dtype=dtype)
    layer = model.blocks[0].mixer
    assert cache_bytes_per_token(model) == count.kv_cache_bytes(
        n_layers=2,
        n_kv_heads=layer.n_kv_heads,
        d_head=layer.d_head,
        n_tokens=1,
        n_sequences=1,
        bytes_per_element=dtype.itemsize,
    )
    name = {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype]
    assert metrics(model).weight_bytes == count.weight_bytes(n_parameters(model), name)


# --- law ---------------------------------------------------------------------------------------
def test_twice_the_parameters_is_the_rule_of_thumb_and_the_rest_grows_with_the_row():
    model = small(1024).build(device="meta")
    read = n_parameters(model) - model.embedding.weight.numel()  # a look-up costs nothing
    assert flops_per_token(model, 1) == pytest.approx(2 * read, rel=0.005)
    grown = [flops_per_token(model, n) - flops_per_token(model, 1) for n in (2, 101, 1001)]
    assert grown == [1 * 4 * 4 * 128, 100 * 4 * 4 * 128, 1000 * 4 * 4 * 128]


def test_counting_changes_nothing():
    model = TOY.build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert metrics(model) == metrics(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_eight_billion_parameters_are_counted_without_their_memory():
    llama = TransformerConfig(
        vocab_size=128256,
        context_length=64,
        d_model=4096,
        n_layers=32,
        mixer=AttentionConfig(n_heads=32, n_kv_heads=8),
    )
    found = metrics(llama.build(device="meta", dtype=torch.bfloat16))
    assert found.cache_bytes_per_token == 128 * 1024
    assert found.weight_bytes == 2 * found.parameters > 10**10


# --- bad input ---------------------------------------------------------------------------------
def test_a_row_without_tokens_is_refused():
    with pytest.raises(ValueError, match=r"n_tokens must be at least 1, .* got 0"):
        flops_per_token(TOY.build(), 0)
