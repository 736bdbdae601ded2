"""minillm.quant.outliers: planted outliers change numbers, and nothing of what is computed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.model.ffn import MLPConfig
from minillm.quant.outliers import channel_peak, kurtosis, peak, plant, ranges

TOKENS = torch.arange(12)[None]


def a_model(n_kv_heads=2):
    mixer = AttentionConfig(n_heads=4, n_kv_heads=n_kv_heads, qk_norm=True)
    return TransformerConfig(vocab_size=20, d_model=32, n_layers=2, mixer=mixer).build(seed=0)


def test_measures_of_numbers_that_can_be_counted_by_hand():
    x = torch.tensor([[1.0, -7.0], [1.0, 7.0], [-1.0, 7.0]])
    assert peak(x) == 7 / 4
    assert channel_peak(x) == 7 / 4
    assert channel_peak(x.T) == pytest.approx(1)  # every row has a 1 and a 7
    assert kurtosis(x) == pytest.approx((1 + 7**4) / 2 / 25**2)


def test_rows_of_values_and_of_up_grow_and_the_columns_that_they_feed_shrink():
    model = a_model(n_kv_heads=2)
    planted = plant(model, share=0.25, scale=8, seed=3)
    block, before = planted.blocks[0], model.blocks[0]
    ratio = block.mixer.qkv.weight / before.mixer.qkv.weight
    assert (ratio[: 4 * 8 + 2 * 8] == 1).all()  # queries and keys
    rows = ratio[6 * 8 :, 0]  # of values: 2 heads of 8 channels
    assert sorted(rows.tolist()) == [1.0] * 12 + [8.0] * 4
    columns = (block.mixer.output.weight / before.mixer.output.weight)[0].view(4, 8)
    for query_head in range(4):
        assert torch.equal(columns[query_head], 1 / rows.view(2, 8)[query_head // 2])
    gate, up = (block.ffn.gate_up.weight / before.ffn.gate_up.weight)[:, 0].chunk(2)
    assert (gate == 1).all()
    assert (up == 8).sum() == round(len(up) / 4)
    assert torch.equal((block.ffn.down.weight / before.ffn.down.weight)[0], 1 / up)


@settings(max_examples=15)
@given(
    st.sampled_from([1, 2, 4]), st.floats(0.01, 1), st.sampled_from([1 / 32, 0.3, 5.0, 8.0]),
    st.integers(0, 9),
)  # fmt: skip
def test_whatever_is_planted_the_logits_stay(n_kv_heads, share, scale, seed):
    model = a_model(n_kv_heads)
    planted = plant(model, share=share, scale=scale, seed=seed)
    with torch.no_grad():
        before, after = model(TOKENS), planted(TOKENS)
    assert (after - before).abs().max() <= 1e-5 * before.abs().max()
    assert not torch.equal(planted.blocks[1].ffn.down.weight, model.blocks[1].ffn.down.weight)


def test_ranges_see_outliers_among_inputs_or_among_weights():
    model = a_model()
    name, seen = "blocks.1.ffn.down", {}
    for scale in (1, 32, 1 / 32):
        seen[scale] = ranges(plant(model, share=0.02, scale=scale), TOKENS)[name]
    assert seen[32].input_channel_peak > 5 * seen[1].input_channel_peak
    assert seen[32].weight_peak < 1.2 * seen[1].weight_peak
    assert seen[1 / 32].weight_peak > 5 * seen[1].weight_peak
    assert seen[1 / 32].weight_kurtosis > 3 * seen[1].weight_kurtosis


def test_the_table_of_tokens_has_weights_and_no_inputs():
    of_each = ranges(a_model(), TOKENS)
    assert of_each["embedding"].input_peak is None
    assert of_each["embedding"].weight_peak == peak(a_model().embedding.weight)


def test_what_cannot_be_planted_is_refused():
    model = TransformerConfig(vocab_size=20, d_model=16, n_layers=1, ffn=MLPConfig()).build()
    for share, scale in ((0.0, 8.0), (1.1, 8.0), (0.1, 0.0), (0.1, float("inf"))):
        with pytest.raises(ValueError, match="share must be above 0"):
            plant(model, share=share, scale=scale)
    model.blocks[0].mixer = torch.nn.Identity()
    with pytest.raises(ValueError, match="neither"):
        plant(model, share=0.1, scale=8.0)
