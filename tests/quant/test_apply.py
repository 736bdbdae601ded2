from dataclasses import replace

import pytest
import torch

from minillm.experts.moe import MoEConfig
from minillm.mixers.mamba import MambaConfig
from minillm.model.config import TransformerConfig
from minillm.quant import gptq, rtn
from minillm.quant.apply import quantize
from minillm.quant.layers import QuantizedLinear
from minillm.quant.plan import plan
from minillm.quant.rtn import Grid

SMALL = TransformerConfig(vocab_size=40, context_length=32, d_model=32, n_layers=2)
KINDS = {
    "dense": SMALL,
    "moe": replace(SMALL, ffn=MoEConfig(n_experts=4, d_expert=24)),
    "mamba": replace(SMALL, mixer=MambaConfig()),
}
TOKENS = torch.randint(40, (40, 30), generator=torch.Generator().manual_seed(1))


# --- by hand --------------------------------------------------------------------------------------
def test_the_first_matrix_sees_the_text_and_the_next_block_what_became_of_it():
    model = SMALL.build(seed=0)
    chosen = plan(model, "gptq", Grid(bits=2))
    small, done = quantize(model, chosen, TOKENS)
    assert done == chosen
    with torch.no_grad():
        stream = model.embedding(TOKENS)
        first = model.blocks[0]
        H = gptq.hessian(first.mixer_norm(stream))
        expected = gptq.quantize(first.mixer.qkv.weight, H, Grid(bits=2))
        assert torch.equal(small.blocks[0].mixer.qkv.weight, expected.dequantize())
        passing = small.layers(TOKENS)
        stream, _ = next(passing)
        second = model.blocks[1]
        H = gptq.hessian(second.mixer_norm(stream))
        expected = gptq.quantize(second.mixer.qkv.weight, H, Grid(bits=2))
    assert torch.equal(small.blocks[1].mixer.qkv.weight, expected.dequantize())


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_8_bits_says_nearly_what_it_said(kind):
    model = KINDS[kind].build(seed=0)
    before = {name: part.clone() for name, part in model.state_dict().items()}
    for method, grid, largest in (("rtn", Grid(bits=8), 0.03), ("gptq", Grid(bits=8), 0.03)):
        small, _ = quantize(model, plan(model, method, grid, tables=True), TOKENS)
        with torch.no_grad():
            difference = (small(TOKENS[:4]) - model(TOKENS[:4])).abs().max()
            assert 0 < difference < largest * model(TOKENS[:4]).abs().max()
    assert all(torch.equal(part, before[name]) for name, part in model.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantized_model_writes_with_its_cache_what_it_reads_at_once(kind):
    model = KINDS[kind].build(seed=0)
    small, _ = quantize(model, plan(model, "nf4"))
    cache = small.new_cache(batch_size=2)
    with torch.no_grad():
        parts = [small(TOKENS[:2, n : n + 5], cache=cache) for n in (0, 5, 10)]
        torch.testing.assert_close(
            torch.cat(parts, dim=1), small(TOKENS[:2, :15]), rtol=1e-3, atol=1e-4
        )


def test_a_model_is_as_one_whose_weights_were_rounded():
    model = replace(SMALL, tied_embeddings=True).build(seed=0)
    small, done = quantize(model, plan(model, "rtn", Grid(bits=3, granularity=8), tables=True))
    for name, line in done.quantized.items():
        layer = model.get_submodule(name)
        layer.weight.data = rtn.quantize(layer.weight.data, line.grid).dequantize()
    with torch.no_grad():
        assert torch.equal(small(TOKENS[:3]), model(TOKENS[:3]))


def test_an_expert_that_few_tokens_chose_is_rounded_to_nearest_and_the_plan_says_so():
    model = KINDS["moe"].build(seed=0)
    with torch.no_grad():  # everybody's second choice at most
        model.blocks[0].ffn.expert_bias[3] = -100
        model.blocks[0].ffn.expert_bias[:2] = 100
    small, done = quantize(model, plan(model, "gptq", Grid(bits=3)), TOKENS)
    lines = {line.name: line for line in done.lines}
    alone = lines["blocks.0.ffn.experts.3.gate_up"]
    assert (alone.method, alone.note) == ("rtn", "0 inputs for 32 columns")
    assert lines["blocks.0.ffn.experts.0.gate_up"].method == "gptq"
    expected = rtn.quantize(model.blocks[0].ffn.experts[3].down.weight, Grid(bits=3))
    assert torch.equal(small.blocks[0].ffn.experts[3].down.weight, expected.dequantize())
    assert isinstance(small.blocks[0].ffn.router, torch.nn.Linear)


def test_a_bias_stays_a_bias():
    model = SMALL.build(seed=0)
    model.blocks[0].ffn.down = torch.nn.Linear(88, 32)
    small, _ = quantize(model, plan(model, "nf4"))
    assert isinstance(small.blocks[0].ffn.down, QuantizedLinear)
    assert torch.equal(small.blocks[0].ffn.down.bias, model.blocks[0].ffn.down.bias)


# --- law ------------------------------------------------------------------------------------------
def test_logits_are_nearer_by_gptq_than_by_rounding_to_nearest():
    ratios = []
    for seed in range(4):
        model = SMALL.build(seed=seed)

        def error(method, model=model):
            small, _ = quantize(model, plan(model, method, Grid(bits=2)), TOKENS)
            with torch.no_grad():
                return (small(TOKENS) - model(TOKENS)).square().mean().item()

        ratios.append(error("gptq") / error("rtn"))
    assert sum(ratios) / len(ratios) < 0.9


# --- what is refused ------------------------------------------------------------------------------
def test_calibration_that_is_missing_short_or_no_text_of_the_model_is_refused():
    model = SMALL.build(seed=0)
    chosen = plan(model, "gptq")
    with pytest.raises(ValueError, match="widest matrix has columns, 88; got 0 tokens"):
        quantize(model, chosen)
    with pytest.raises(ValueError, match="88; got 60 tokens"):
        quantize(model, chosen, TOKENS[:2])
    with pytest.raises(ValueError, match="ids 0 to 39"):
        quantize(model, chosen, TOKENS + 1)


def test_a_plan_of_another_model_is_refused():
    chosen = plan(replace(SMALL, n_layers=3).build(), "rtn")
    with pytest.raises(ValueError, match=r"has no blocks\.2\.mixer\.qkv \(96, 32\)"):
        quantize(SMALL.build(), chosen)
    model = SMALL.build()
    small, done = quantize(model, plan(model, "rtn"))
    with pytest.raises(ValueError, match="the plan is of another model"):
        quantize(small, done)


def test_a_matrix_that_no_grid_fits_is_named():
    model = SMALL.build()
    with torch.no_grad():
        model.blocks[1].mixer.output.weight[0, 0] = 1e8
    with pytest.raises(ValueError, match=r"blocks\.1\.mixer\.output: the largest \|weight\|"):
        quantize(model, plan(model, "rtn"))
    single = replace(plan(model, "gptq"), damping=0.0)
    with torch.no_grad():
        model.blocks[1].mixer.output.weight[0, 0] = 0
    with pytest.raises(ValueError, match=r"blocks\.0\.mixer\.qkv: the Hessian .* is singular"):
        quantize(model, single, torch.zeros(4, 30, dtype=torch.int64))
