"""minillm.model.count: arithmetic by hand, against real configurations, its laws, its errors."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
)

from minillm.model import count

GPT3 = {"n_layers": 96, "d_model": 12288}
GPT3_CACHE = {"n_layers": 96, "n_kv_heads": 96, "d_head": 128, "n_tokens": 4096}
LLAMA = {
    "n_layers": 2,
    "d_model": 24,
    "n_heads": 6,
    "n_kv_heads": 3,
    "ffn_width": 56,
    "vocabulary_size": 101,
}
MIXTRAL_8X7B = {
    "n_layers": 32,
    "d_model": 4096,
    "n_heads": 32,
    "n_kv_heads": 8,
    "ffn_width": 14336,
    "vocabulary_size": 32000,
    "n_experts": 8,
    "n_active_experts": 2,
}
COUNTS = st.integers(min_value=1, max_value=10**6)


# by hand


def test_a_gibibyte_is_seven_per_cent_more_than_a_gigabyte():
    assert count.gib(2**30) == 1
    assert count.gigabytes(10**9) == 1
    assert count.gigabytes(2**30) == 1.073741824
    assert count.gib(0) == count.gigabytes(0) == 0


def test_a_block_of_width_ten_has_twelve_hundred_weights():
    assert count.block_parameters_rule_of_thumb(n_layers=3, d_model=10) == 3 * 1200
    attention = count.attention_parameters(d_model=10, n_heads=5, n_kv_heads=5)
    ffn = count.ffn_parameters(d_model=10, ffn_width=40, n_matrices=2)
    assert (attention, ffn) == (400, 800)


def test_one_shared_key_value_head_leaves_queries_and_output_whole():
    # width 12, 4 heads of 3: queries and output 2*144, one key and one value head 2*12*3.
    assert count.attention_parameters(d_model=12, n_heads=4, n_kv_heads=1) == 288 + 72


def test_a_gpt_small_enough_for_paper_is_counted_to_the_last_bias():
    embeddings = 5 * 2 + 3 * 2
    attention = 4 * (2 * 2 + 2)
    ffn = (2 * 8 + 8) + (8 * 2 + 2)
    norms = 2 * (2 + 2)
    total = count.gpt_parameters(n_layers=3, d_model=2, vocabulary_size=5, context_length=3)
    assert total == embeddings + 3 * (attention + ffn + norms) + (2 + 2) == 242


def test_gpt_3_has_174_6_billion_parameters():
    parameters = count.gpt_parameters(**GPT3, vocabulary_size=50257, context_length=2048)
    assert parameters == 174_604_259_328
    assert parameters / 1e9 == pytest.approx(174.6, abs=0.1)


def test_eight_times_seven_is_not_fifty_six():
    total, active = count.mixtral_parameters(**MIXTRAL_8X7B)
    assert round(total / 1e9, 2) == 46.70
    assert round(active / 1e9, 2) == 12.88
    assert total < 0.85 * 56e9


def test_the_rumour_about_gpt_4_adds_up_to_1831_and_277_billion():
    rumour = count.mixture_parameters(
        shared_parameters=55e9, expert_parameters=111e9, n_experts=16, n_active_experts=2
    )
    assert rumour == (1831 * 10**9, 277 * 10**9)
    fraction = count.active_fraction(n_parameters=rumour.total, n_active_parameters=rumour.active)
    assert round(fraction, 3) == 0.151


@pytest.mark.parametrize(
    ("dtype", "n_gigabytes"),
    [("fp32", 700), ("bf16", 350), ("fp16", 350), ("int8", 175), ("int4", 87.5)],
)
def test_175_billion_parameters_weigh_350_gigabytes_in_half_precision(dtype, n_gigabytes):
    assert count.gigabytes(count.weight_bytes(175e9, dtype)) == n_gigabytes


def test_an_odd_nibble_takes_a_whole_byte():
    assert [count.weight_bytes(n, "int4") for n in (1, 2, 3)] == [1, 1, 2]


def test_bytes_stay_exact_where_floats_lose_digits():
    assert count.weight_bytes(2**60 + 1, "int8") == 2**60 + 1


def test_gpt_3_keeps_18_gib_for_one_conversation_and_576_for_32():
    assert count.gib(count.kv_cache_bytes(**GPT3_CACHE, n_sequences=1)) == 18
    assert count.gib(count.kv_cache_bytes(**GPT3_CACHE, n_sequences=32)) == 576


def test_an_eight_bit_cache_is_half_as_large_and_a_four_bit_one_a_quarter():
    half = count.kv_cache_bytes(**GPT3_CACHE, n_sequences=1, bytes_per_element=1)
    quarter = count.kv_cache_bytes(**GPT3_CACHE, n_sequences=1, bytes_per_element=0.5)
    assert (count.gib(half), count.gib(quarter)) == (9, 4.5)


def test_the_zero_papers_own_example_comes_out():
    # Figure 1 of arXiv 1910.02054: 7.5 B parameters on 64 GPUs: 120, 31.4, 16.6 and 1.9 GB.
    sizes = [
        count.gigabytes(
            count.training_memory_bytes_per_gpu(n_parameters=7.5e9, n_gpus=64, zero_stage=stage)
        )
        for stage in range(4)
    ]
    assert [round(size, 1) for size in sizes] == [120.0, 31.4, 16.6, 1.9]


def test_a_shard_that_does_not_divide_is_rounded_up():
    assert count.training_memory_bytes_per_gpu(n_parameters=1, n_gpus=5, zero_stage=3) == 4
    assert count.training_memory_bytes_per_gpu(n_parameters=1, n_gpus=5, zero_stage=1) == 4 + 3


def test_training_gpt_3_takes_a_year_on_64_a100():
    flops = count.training_flops(n_parameters=175e9, n_tokens=300e9)
    assert flops == 315 * 10**21
    a100 = {"peak_flops_per_second": 312e12, "utilisation": 0.5}
    assert count.calendar_days(flops=flops, n_gpus=64, **a100) == pytest.approx(365, abs=1)
    days = count.gpu_days(flops=flops, **a100)
    assert days * 24 == pytest.approx(560_897, abs=1)
    assert count.implied_price_per_gpu_hour(cost=750e3, gpu_days=days) == pytest.approx(
        1.337, abs=1e-3
    )


def test_two_gpus_for_three_days_at_four_an_hour_cost_576():
    assert count.cost(gpu_days=2 * 3, price_per_gpu_hour=4) == 576


def test_the_roof_is_bandwidth_over_bytes_and_a_batch_shares_the_weights():
    roof = {"bandwidth_bytes_per_second": 100, "weight_bytes": 8}
    assert count.decode_tokens_per_second_bound(**roof) == 12.5
    assert count.decode_tokens_per_second_bound(**roof, kv_cache_bytes=2) == 10
    assert count.decode_tokens_per_second_bound(**roof, kv_cache_bytes=8, n_sequences=4) == 25


# reference


def n_parameters(model_class, config):
    with torch.device("meta"):
        return sum(p.numel() for p in model_class(config).parameters())


@pytest.mark.parametrize(
    ("n_layers", "d_model", "n_heads", "vocabulary_size", "context_length"),
    [(2, 24, 3, 97, 16), (12, 768, 12, 50257, 1024), (96, 12288, 96, 50257, 2048)],
    ids=["toy", "gpt2", "gpt3"],
)
def test_gpt_counts_equal_those_of_transformers(
    n_layers, d_model, n_heads, vocabulary_size, context_length
):
    config = GPT2Config(
        n_layer=n_layers,
        n_embd=d_model,
        n_head=n_heads,
        vocab_size=vocabulary_size,
        n_positions=context_length,
    )
    assert n_parameters(GPT2LMHeadModel, config) == count.gpt_parameters(
        n_layers=n_layers,
        d_model=d_model,
        vocabulary_size=vocabulary_size,
        context_length=context_length,
    )


def llama_settings(numbers):
    return {
        "num_hidden_layers": numbers["n_layers"],
        "hidden_size": numbers["d_model"],
        "num_attention_heads": numbers["n_heads"],
        "num_key_value_heads": numbers["n_kv_heads"],
        "intermediate_size": numbers["ffn_width"],
        "vocab_size": numbers["vocabulary_size"],
    }


LLAMA_3_8B = {**MIXTRAL_8X7B, "vocabulary_size": 128256}
del LLAMA_3_8B["n_experts"], LLAMA_3_8B["n_active_experts"]


@pytest.mark.parametrize("numbers", [LLAMA, LLAMA_3_8B], ids=["toy", "llama-3-8b"])
def test_llama_counts_equal_those_of_transformers(numbers):
    config = LlamaConfig(**llama_settings(numbers), tie_word_embeddings=False)
    assert n_parameters(LlamaForCausalLM, config) == count.llama_parameters(**numbers)


@pytest.mark.parametrize(
    "numbers",
    [{**LLAMA, "n_experts": 5, "n_active_experts": 2}, MIXTRAL_8X7B],
    ids=["toy", "mixtral-8x7b"],
)
def test_mixtral_counts_equal_those_of_transformers(numbers):
    config = MixtralConfig(**llama_settings(numbers), num_local_experts=numbers["n_experts"])
    assert n_parameters(MixtralForCausalLM, config) == count.mixtral_parameters(**numbers).total


def test_the_active_count_is_that_of_a_model_with_only_so_many_experts():
    few = MixtralConfig(**llama_settings(LLAMA), num_local_experts=2)
    missing_router_rows = LLAMA["n_layers"] * LLAMA["d_model"] * (5 - 2)
    active = count.mixtral_parameters(**LLAMA, n_experts=5, n_active_experts=2).active
    assert active == n_parameters(MixtralForCausalLM, few) + missing_router_rows


def test_weight_bytes_equal_what_torch_stores():
    for dtype, name in [(torch.float32, "fp32"), (torch.bfloat16, "bf16"), (torch.int8, "int8")]:
        tensor = torch.empty(3, 7, dtype=dtype, device="meta")
        assert tensor.numel() * tensor.element_size() == count.weight_bytes(21, name)


# law


@given(factor=st.integers(min_value=2, max_value=50), data=st.data())
def test_the_cache_grows_in_proportion_to_each_of_its_numbers(factor, data):
    names = ("n_layers", "n_kv_heads", "d_head", "n_tokens", "n_sequences")
    numbers = {name: data.draw(COUNTS, label=name) for name in names}
    name = data.draw(st.sampled_from(names))
    grown = {**numbers, name: numbers[name] * factor}
    assert count.kv_cache_bytes(**grown) == factor * count.kv_cache_bytes(**numbers)


@given(n_parameters=COUNTS, n_tokens=COUNTS, factor=st.integers(min_value=2, max_value=50))
def test_training_flops_grow_in_proportion_to_parameters_and_to_tokens(
    n_parameters, n_tokens, factor
):
    once = count.training_flops(n_parameters=n_parameters, n_tokens=n_tokens)
    assert factor * once == count.training_flops(
        n_parameters=factor * n_parameters, n_tokens=n_tokens
    )
    assert factor * once == count.training_flops(
        n_parameters=n_parameters, n_tokens=factor * n_tokens
    )


@given(n_layers=COUNTS, d_model=COUNTS, vocabulary_size=COUNTS, context_length=COUNTS)
def test_each_further_gpt_layer_adds_the_same_number(
    n_layers, d_model, vocabulary_size, context_length
):
    def total(n):
        return count.gpt_parameters(
            n_layers=n,
            d_model=d_model,
            vocabulary_size=vocabulary_size,
            context_length=context_length,
        )

    assert total(n_layers + 1) - total(n_layers) == 12 * d_model**2 + 13 * d_model


@given(
    n_kv_heads=st.integers(1, 8),
    group=st.integers(1, 8),
    d_head=st.integers(1, 32),
    ffn_width=COUNTS,
)
def test_fewer_key_value_heads_never_cost_more_and_all_of_them_cost_four_squares(
    n_kv_heads, group, d_head, ffn_width
):
    n_heads = n_kv_heads * group
    d_model = n_heads * d_head
    few = count.attention_parameters(d_model=d_model, n_heads=n_heads, n_kv_heads=n_kv_heads)
    all_ = count.attention_parameters(d_model=d_model, n_heads=n_heads, n_kv_heads=n_heads)
    assert 2 * d_model**2 < few <= all_ == 4 * d_model**2
    ffn = count.ffn_parameters(d_model=d_model, ffn_width=ffn_width, n_matrices=3)
    assert ffn == 3 * d_model * ffn_width


@given(n_experts=st.integers(1, 64), data=st.data())
def test_a_mixture_with_all_experts_active_is_dense(n_experts, data):
    top_k = data.draw(st.integers(1, n_experts))
    numbers = {**LLAMA, "n_experts": n_experts}
    total, active = count.mixtral_parameters(**numbers, n_active_experts=top_k)
    assert active <= total
    assert (active == total) == (top_k == n_experts)
    dense = count.mixtral_parameters(**LLAMA, n_experts=1, n_active_experts=1).total
    assert dense == count.llama_parameters(**LLAMA) + LLAMA["n_layers"] * LLAMA["d_model"]


@given(n_parameters=COUNTS, n_gpus=COUNTS)
def test_every_stage_of_zero_needs_less_and_one_gpu_sixteen_bytes_a_parameter(n_parameters, n_gpus):
    sizes = [
        count.training_memory_bytes_per_gpu(
            n_parameters=n_parameters, n_gpus=n_gpus, zero_stage=stage
        )
        for stage in range(4)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 16 * n_parameters
    assert 0 <= n_gpus * sizes[3] - 16 * n_parameters < n_gpus
    assert (n_gpus > 1) or set(sizes) == {16 * n_parameters}


@given(
    flops=st.floats(1, 1e30),
    n_gpus=st.integers(1, 10**5),
    utilisation=st.floats(0.01, 1),
    price=st.floats(0.01, 100),
)
def test_more_gpus_shorten_the_wait_and_leave_the_bill(flops, n_gpus, utilisation, price):
    speed = {"peak_flops_per_second": 1e15, "utilisation": utilisation}
    days = count.gpu_days(flops=flops, **speed)
    assert math.isclose(count.calendar_days(flops=flops, n_gpus=n_gpus, **speed) * n_gpus, days)
    bill = count.cost(gpu_days=days, price_per_gpu_hour=price)
    assert math.isclose(count.implied_price_per_gpu_hour(cost=bill, gpu_days=days), price)


# bad input

A100 = {"peak_flops_per_second": 312e12, "utilisation": 0.5}
MEMORY = {"bandwidth_bytes_per_second": 3.35e12, "weight_bytes": 14e9}
GOOD = {
    count.gib: {"n_bytes": 1},
    count.gigabytes: {"n_bytes": 1},
    count.block_parameters_rule_of_thumb: GPT3,
    count.attention_parameters: {"d_model": 12, "n_heads": 4, "n_kv_heads": 2},
    count.ffn_parameters: {"d_model": 12, "ffn_width": 48, "n_matrices": 2},
    count.gpt_parameters: {**GPT3, "vocabulary_size": 50257, "context_length": 2048},
    count.llama_parameters: LLAMA,
    count.mixture_parameters: {
        "shared_parameters": 1,
        "expert_parameters": 1,
        "n_experts": 4,
        "n_active_experts": 2,
    },
    count.mixtral_parameters: MIXTRAL_8X7B,
    count.active_fraction: {"n_parameters": 4, "n_active_parameters": 2},
    count.weight_bytes: {"n_parameters": 4, "dtype": "fp16"},
    count.kv_cache_bytes: {**GPT3_CACHE, "n_sequences": 1, "bytes_per_element": 2},
    count.training_memory_bytes_per_gpu: {"n_parameters": 8, "n_gpus": 2, "zero_stage": 1},
    count.training_flops: {"n_parameters": 8, "n_tokens": 2},
    count.gpu_days: {"flops": 1e20, **A100},
    count.calendar_days: {"flops": 1e20, "n_gpus": 8, **A100},
    count.cost: {"gpu_days": 2, "price_per_gpu_hour": 1.5},
    count.implied_price_per_gpu_hour: {"cost": 100, "gpu_days": 2},
    count.decode_tokens_per_second_bound: {**MEMORY, "kv_cache_bytes": 1, "n_sequences": 1},
}
NO_NUMBERS = (-1, math.nan, math.inf, -math.inf, 10**400, True, "12", None, [1], 1j)
MAY_BE_ZERO = {"n_bytes", "zero_stage"}
AMOUNTS = {
    "n_bytes",
    "flops",
    "peak_flops_per_second",
    "utilisation",
    "gpu_days",
    "cost",
    "price_per_gpu_hour",
    "bytes_per_element",
    "bandwidth_bytes_per_second",
    "weight_bytes",
    "kv_cache_bytes",
}


def arguments():
    return [
        pytest.param(function, name, id=f"{function.__name__}-{name}")
        for function, good in GOOD.items()
        for name in good
        if name != "dtype"
    ]


def test_every_public_function_is_fed_nonsense_below():
    public = {
        function
        for name, function in vars(count).items()
        if callable(function)
        and not isinstance(function, type)
        and not name.startswith("_")
        and function.__module__ == count.__name__
    }
    assert public == set(GOOD)
    for function, good in GOOD.items():
        function(**good)


@pytest.mark.parametrize(("function", "name"), arguments())
def test_nonsense_is_refused_by_name_and_value(function, name):
    for nonsense in NO_NUMBERS:
        with pytest.raises(ValueError) as error:
            function(**{**GOOD[function], name: nonsense})
        assert name in str(error.value)
        assert repr(nonsense) in str(error.value)


@pytest.mark.parametrize(("function", "name"), arguments())
def test_zero_is_refused_where_it_makes_no_sense_and_halves_where_things_are_counted(
    function, name
):
    may_be_zero = name in MAY_BE_ZERO or (
        function is count.decode_tokens_per_second_bound and name == "kv_cache_bytes"
    )
    nonsense = ([] if may_be_zero else [0]) + ([] if name in AMOUNTS else [1.5])
    for value in nonsense:
        with pytest.raises(ValueError, match=name):
            function(**{**GOOD[function], name: value})


@pytest.mark.parametrize(
    "function", [count.attention_parameters, count.llama_parameters, count.mixtral_parameters]
)
def test_heads_that_do_not_divide_are_refused_with_the_remainder(function):
    d_model = GOOD[function]["d_model"]
    with pytest.raises(
        ValueError, match=rf"n_heads must divide d_model.*remainder of {d_model % 7}"
    ):
        function(**{**GOOD[function], "n_heads": 7})
    with pytest.raises(
        ValueError, match=r"n_kv_heads must divide n_heads, but .* Choose a divisor"
    ):
        function(**{**GOOD[function], "n_kv_heads": GOOD[function]["n_heads"] - 1})
    with pytest.raises(ValueError, match="n_kv_heads must divide n_heads"):
        function(**{**GOOD[function], "n_kv_heads": 2 * GOOD[function]["n_heads"]})


@pytest.mark.parametrize("function", [count.mixture_parameters, count.mixtral_parameters])
def test_a_token_cannot_pass_more_experts_than_there_are(function):
    n_experts = GOOD[function]["n_experts"]
    with pytest.raises(ValueError, match=rf"at most n_experts, but 9 > .*Choose 1 to {n_experts}"):
        function(**{**GOOD[function], "n_active_experts": 9})


def test_more_active_than_all_parameters_is_refused():
    with pytest.raises(ValueError, match="Were the two exchanged"):
        count.active_fraction(n_parameters=2, n_active_parameters=3)


@pytest.mark.parametrize("utilisation", [1.0001, 45])
def test_a_utilisation_in_per_cent_is_refused_and_mended(utilisation):
    with pytest.raises(ValueError, match=r"utilisation must be above 0 .* Write 45 % as 0\.45"):
        count.gpu_days(flops=1, peak_flops_per_second=1, utilisation=utilisation)


@pytest.mark.parametrize("dtype", ["float16", "FP16", "", None, 16, ["fp16"]])
def test_an_unknown_type_is_answered_with_the_known_ones(dtype):
    with pytest.raises(ValueError) as error:
        count.weight_bytes(1, dtype)
    for known in ("fp32 (32 bits)", "bf16", "fp16", "int8", "int4 (4 bits)", repr(dtype)):
        assert known in str(error.value)


@pytest.mark.parametrize("stage", [4, "3"])
def test_an_unknown_stage_of_zero_is_refused(stage):
    with pytest.raises(ValueError, match="zero_stage must be 0"):
        count.training_memory_bytes_per_gpu(n_parameters=1, n_gpus=1, zero_stage=stage)


def test_the_number_of_sequences_has_no_default():
    with pytest.raises(TypeError, match="n_sequences"):
        count.kv_cache_bytes(**GPT3_CACHE)


def test_whole_numbers_written_as_floats_and_fractions_are_welcome():
    assert count.training_flops(n_parameters=1e3, n_tokens=Fraction(4, 2)) == 12_000
    assert isinstance(count.training_flops(n_parameters=1e3, n_tokens=2.0), int)
