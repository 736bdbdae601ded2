"""Arithmetic that settles claims: parameters, bytes, FLOPs, days and money from plain numbers.

Nothing is loaded and nothing is trained. Every function takes the numbers that a slide or a model
card states, by name, and every name says its unit. A *GB* is 10⁹ bytes and a *GiB* 2³⁰: slides mix
them, this module does not. Counts are whole numbers; ``175e9`` passes because it is whole.

Letters in the equations: L layers, D width, H heads, G key/value heads, K = D/H head width,
F feed-forward width, V vocabulary, C context, E experts, k active experts.

Chapter: 00
"""

import math
import sys
from numbers import Real
from typing import NamedTuple

BITS_PER_PARAMETER = {"fp32": 32, "bf16": 16, "fp16": 16, "int8": 8, "int4": 4}


class ParameterCount(NamedTuple):
    """What a mixture of experts stores (``total``) and what works for one token (``active``)."""

    total: int
    active: int


def gib(n_bytes: float) -> float:
    """Bytes in GiB (2³⁰ bytes), the unit in which memory is sold and allocated.

    Raises:
        ValueError: ``n_bytes`` is negative or no finite number.

    Example:
        >>> gib(18 * 2**30)
        18.0
    """
    return _amount("n_bytes", n_bytes, zero=True) / 2**30


def gigabytes(n_bytes: float) -> float:
    """Bytes in GB (10⁹ bytes), the unit of data sheets and slides; 1 GiB is 1.074 GB.

    Raises:
        ValueError: ``n_bytes`` is negative or no finite number.

    Example:
        >>> gigabytes(2**30)
        1.073741824
    """
    return _amount("n_bytes", n_bytes, zero=True) / 1e9


def block_parameters_rule_of_thumb(*, n_layers: int, d_model: int) -> int:
    """Parameters of all blocks by the rule of thumb: 12·L·D².

    Each block holds four attention matrices of D by D (4·D²) and two of D by 4D in the
    feed-forward part (8·D²). Embeddings, biases and norms are left out.

    Raises:
        ValueError: a count is not a whole number of at least 1.

    Example:
        >>> block_parameters_rule_of_thumb(n_layers=96, d_model=12288)
        173946175488

    Paper: Kaplan et al. 2020 (arXiv 2001.08361), equation 2.1: N ≈ 12·n_layer·d_model².
    Differs: none.
    """
    return 12 * _count("n_layers", n_layers) * _count("d_model", d_model) ** 2


def attention_parameters(*, d_model: int, n_heads: int, n_kv_heads: int) -> int:
    """Weights of one attention layer: 2·D² + 2·D·G·K with K = D/H, without biases.

    Queries and output take D² each; keys and values only D·G·K each. With G = H (every query head
    has its own keys and values) that is 4·D².

    Raises:
        ValueError: a count is not whole, the heads do not divide the width, or the key/value
            heads do not divide the heads.

    Example:
        >>> attention_parameters(d_model=8, n_heads=4, n_kv_heads=4)
        256
        >>> attention_parameters(d_model=8, n_heads=4, n_kv_heads=1)
        160

    Paper: Ainslie et al. 2023 (arXiv 2305.13245), section 2.2: grouped-query attention.
    Differs: none.
    """
    d_model = _count("d_model", d_model)
    n_heads = _divisor("n_heads", n_heads, "d_model", d_model)
    n_kv_heads = _divisor("n_kv_heads", n_kv_heads, "n_heads", n_heads)
    return 2 * d_model**2 + 2 * d_model * n_kv_heads * (d_model // n_heads)


def ffn_parameters(*, d_model: int, ffn_width: int, n_matrices: int) -> int:
    """Weights of one feed-forward layer: n·D·F, without biases.

    GPT has ``n_matrices=2`` (up, down); Llama's SwiGLU has 3 (gate, up, down).

    Raises:
        ValueError: a count is not a whole number of at least 1.

    Example:
        >>> ffn_parameters(d_model=8, ffn_width=32, n_matrices=2)
        512

    Paper: Shazeer 2020 (arXiv 2002.05202), equations 2 and 6.
    Differs: none.
    """
    return (
        _count("n_matrices", n_matrices)
        * _count("d_model", d_model)
        * _count("ffn_width", ffn_width)
    )


def gpt_parameters(
    *, n_layers: int, d_model: int, vocabulary_size: int, context_length: int
) -> int:
    """All parameters of a GPT-2 or GPT-3: V·D + C·D + L·(12·D² + 13·D) + 2·D.

    Token and position embeddings, then in each block attention (4·D² + 4·D), the feed-forward part
    with F = 4D (8·D² + 5·D) and two layer norms (4·D), then the last norm. The output layer is the
    token embedding again. The number of heads does not matter.

    Raises:
        ValueError: a count is not a whole number of at least 1.

    Example:
        >>> gpt_parameters(n_layers=12, d_model=768, vocabulary_size=50257, context_length=1024)
        124439808

    Paper: Radford et al. 2019 (GPT-2), section 2.3; Brown et al. 2020 (arXiv 2005.14165),
        table 2.1.
    Differs: none.
    """
    n_layers, d_model = _count("n_layers", n_layers), _count("d_model", d_model)
    rows = _count("vocabulary_size", vocabulary_size) + _count("context_length", context_length)
    # embeddings + layers of 12 D² weights and 13 D biases and norm weights + the last norm
    return rows * d_model + n_layers * (12 * d_model**2 + 13 * d_model) + 2 * d_model


def llama_parameters(
    *,
    n_layers: int,
    d_model: int,
    n_heads: int,
    n_kv_heads: int,
    ffn_width: int,
    vocabulary_size: int,
) -> int:
    """All parameters of a Llama: 2·V·D + D + L·(attention + 3·D·F + 2·D).

    No biases, no learned positions, RMS norms of D numbers each, and an output layer of its own.

    Raises:
        ValueError: a count is not whole, or the heads do not divide (see
            ``attention_parameters``).

    Example:
        >>> llama_parameters(n_layers=32, d_model=4096, n_heads=32, n_kv_heads=8, ffn_width=14336,
        ...                  vocabulary_size=128256)  # Llama 3 8B
        8030261248

    Paper: Touvron et al. 2023 (arXiv 2302.13971), section 2.2; Grattafiori et al. 2024
        (arXiv 2407.21783), table 3.
    Differs: none.
    """
    ffn = ffn_parameters(d_model=d_model, ffn_width=ffn_width, n_matrices=3)
    shared = _llama_without_ffn(n_layers, d_model, n_heads, n_kv_heads, vocabulary_size)
    return shared + int(n_layers) * ffn


def mixture_parameters(
    *, shared_parameters: int, expert_parameters: int, n_experts: int, n_active_experts: int
) -> ParameterCount:
    """Total and active parameters of a mixture of experts: shared + E·expert, shared + k·expert.

    Args:
        shared_parameters: what works for every token (attention, embeddings, norms, routers).
        expert_parameters: one expert, summed over all layers.
        n_experts: E, experts a layer.
        n_active_experts: k, experts that a token is routed to in each layer.

    Raises:
        ValueError: a count is not whole, or more experts are active than exist.

    Example:
        >>> mixture_parameters(shared_parameters=10, expert_parameters=5, n_experts=8,
        ...                    n_active_experts=2)
        ParameterCount(total=50, active=20)

    Paper: Shazeer et al. 2017 (arXiv 1701.06538), section 2.
    Differs: none.
    """
    shared = _count("shared_parameters", shared_parameters)
    expert = _count("expert_parameters", expert_parameters)
    n_experts = _count("n_experts", n_experts)
    top_k = _count("n_active_experts", n_active_experts)
    if top_k > n_experts:
        raise ValueError(
            f"n_active_experts must be at most n_experts, but {top_k} > {n_experts}: a token "
            f"cannot be routed to more experts than there are. Choose 1 to {n_experts}."
        )
    return ParameterCount(total=shared + n_experts * expert, active=shared + top_k * expert)


def mixtral_parameters(
    *,
    n_layers: int,
    d_model: int,
    n_heads: int,
    n_kv_heads: int,
    ffn_width: int,
    vocabulary_size: int,
    n_experts: int,
    n_active_experts: int,
) -> ParameterCount:
    """All parameters of a Mixtral: a Llama whose feed-forward layers are E experts and a router.

    Only the feed-forward part is multiplied: shared = Llama without it + L·D·E (routers), one
    expert = L·3·D·F. So "8x7B" is not 56 billion.

    Raises:
        ValueError: as ``attention_parameters`` and ``mixture_parameters``.

    Example:
        >>> mixtral_parameters(n_layers=32, d_model=4096, n_heads=32, n_kv_heads=8, ffn_width=14336,
        ...                    vocabulary_size=32000, n_experts=8, n_active_experts=2)
        ParameterCount(total=46702792704, active=12879925248)

    Paper: Jiang et al. 2024 (arXiv 2401.04088), table 1 and section 2.
    Differs: none.
    """
    ffn = ffn_parameters(d_model=d_model, ffn_width=ffn_width, n_matrices=3)
    shared = _llama_without_ffn(n_layers, d_model, n_heads, n_kv_heads, vocabulary_size)
    routers = int(n_layers) * int(d_model) * _count("n_experts", n_experts)
    return mixture_parameters(
        shared_parameters=shared + routers,
        expert_parameters=int(n_layers) * ffn,
        n_experts=n_experts,
        n_active_experts=n_active_experts,
    )


def active_fraction(*, n_parameters: int, n_active_parameters: int) -> float:
    """The share of a model's parameters that work for one token: active/total.

    Raises:
        ValueError: a count is not whole, or more parameters are active than exist.

    Example:
        >>> active_fraction(n_parameters=50, n_active_parameters=20)
        0.4
    """
    total = _count("n_parameters", n_parameters)
    active = _count("n_active_parameters", n_active_parameters)
    if active > total:
        raise ValueError(
            f"n_active_parameters must be at most n_parameters, but {active} > {total}. "
            "Were the two exchanged?"
        )
    return active / total


def weight_bytes(n_parameters: int, dtype: str) -> int:
    """Bytes of the weights alone: parameters · bits / 8, rounded up to a whole byte.

    Args:
        n_parameters: how many numbers are stored.
        dtype: fp32, bf16, fp16, int8 or int4.

    Raises:
        ValueError: ``n_parameters`` is no count, or ``dtype`` is none of the five.

    Example:
        >>> gigabytes(weight_bytes(175e9, "fp16")), gigabytes(weight_bytes(175e9, "int4"))
        (350.0, 87.5)

    Differs: real int8 and int4 files are a few per cent larger, since each group of weights also
        stores a scale.
    """
    if not isinstance(dtype, str) or dtype not in BITS_PER_PARAMETER:
        known = ", ".join(f"{name} ({bits} bits)" for name, bits in BITS_PER_PARAMETER.items())
        raise ValueError(f"dtype must be one of {known}, but it is {dtype!r}.")
    return _ceil_divide(_count("n_parameters", n_parameters) * BITS_PER_PARAMETER[dtype], 8)


def kv_cache_bytes(
    *,
    n_layers: int,
    n_kv_heads: int,
    d_head: int,
    n_tokens: int,
    n_sequences: int,
    bytes_per_element: float = 2,
) -> int:
    """Bytes of the keys and values that are kept while generating: 2·L·G·K·tokens·sequences·bytes.

    The 2 is for one key and one value. ``n_sequences``, the conversations held at once, has no
    default on purpose: leaving it out is how a cache of 18 GiB becomes one of 576.

    Args:
        n_layers: L.
        n_kv_heads: G, the heads that keys and values have.
        d_head: K, numbers in one head's key.
        n_tokens: tokens kept of each conversation.
        n_sequences: conversations kept at once (the batch).
        bytes_per_element: 2 for fp16 and bf16, 1 for int8, 0.5 for int4.

    Raises:
        ValueError: a count is not whole, or ``bytes_per_element`` is not above 0.

    Example:
        >>> gib(kv_cache_bytes(n_layers=96, n_kv_heads=96, d_head=128, n_tokens=4096,
        ...                    n_sequences=1))  # GPT-3
        18.0

    Paper: Pope et al. 2022 (arXiv 2211.05102), section 2; Shazeer 2019 (arXiv 1911.02150).
    Differs: none.
    """
    # a key and a value, of each layer, key/value head, number, token and conversation
    elements = (
        2
        * _count("n_layers", n_layers)
        * _count("n_kv_heads", n_kv_heads)
        * _count("d_head", d_head)
        * _count("n_tokens", n_tokens)
        * _count("n_sequences", n_sequences)
    )
    return math.ceil(elements * _amount("bytes_per_element", bytes_per_element))


def training_memory_bytes_per_gpu(
    *, n_parameters: int, n_gpus: int = 1, zero_stage: int = 0
) -> int:
    """Bytes of model state on each GPU with Adam in mixed precision: 16 a parameter, or shared out.

    Weights 2 + gradients 2 + optimizer 12 (a copy of the weights and two moments, fp32). ZeRO
    shares out the optimizer (stage 1), the gradients too (2), and the weights too (3) over the
    GPUs; stage 0 copies everything to each.

    Raises:
        ValueError: a count is not whole, or ``zero_stage`` is not 0, 1, 2 or 3.

    Example:
        >>> [gigabytes(training_memory_bytes_per_gpu(n_parameters=7.5e9, n_gpus=64, zero_stage=s))
        ...  for s in range(4)]
        [120.0, 31.40625, 16.640625, 1.875]

    Paper: Rajbhandari et al. 2019 (arXiv 1910.02054), sections 3.1 and 5, figure 1.
    Differs: activations, buffers and fragments come on top, there as here.
    """
    n_parameters, n_gpus = _count("n_parameters", n_parameters), _count("n_gpus", n_gpus)
    if isinstance(zero_stage, bool) or zero_stage not in (0, 1, 2, 3):
        raise ValueError(
            f"zero_stage must be 0 (nothing shared out), 1, 2 or 3, but it is {zero_stage!r}."
        )
    shared = {0: 0, 1: 12, 2: 12 + 2, 3: 12 + 2 + 2}[zero_stage]
    return (16 - shared) * n_parameters + _ceil_divide(shared * n_parameters, n_gpus)


def training_flops(*, n_parameters: int, n_tokens: int) -> int:
    """Floating-point operations to train on so many tokens: 6·N·D.

    A weight is multiplied and added once forward (2) and twice backward (4). For a mixture of
    experts N is the *active* count. (D stands for tokens here, as in the paper.)

    Raises:
        ValueError: a count is not a whole number of at least 1.

    Example:
        >>> f"{training_flops(n_parameters=175e9, n_tokens=300e9):.3g}"  # GPT-3
        '3.15e+23'

    Paper: Kaplan et al. 2020 (arXiv 2001.08361), section 2.1.
    Differs: attention's own products, which grow with the context, are left out, as there.
    """
    # per parameter and token 2 operations forward and 4 backward: 6 N D in all
    return 6 * _count("n_parameters", n_parameters) * _count("n_tokens", n_tokens)


def gpu_days(*, flops: float, peak_flops_per_second: float, utilisation: float) -> float:
    """GPU-days of work: FLOPs / (peak · utilisation · 86,400 s). How many GPUs share it is open.

    Args:
        flops: the work, such as ``training_flops(...)``.
        peak_flops_per_second: one GPU's data sheet, such as 312e12 for an A100 in bf16.
        utilisation: the share of the peak that is reached, above 0 and at most 1.

    Raises:
        ValueError: an amount is not above 0, or the utilisation is not in (0, 1].

    Example:
        >>> gpu_days(flops=86400e12, peak_flops_per_second=2e12, utilisation=0.5)
        1.0

    Paper: Chowdhery et al. 2022 (arXiv 2204.02311), section 4.1: model FLOPs utilisation.
    Differs: none.
    """
    flops = _amount("flops", flops)
    peak = _amount("peak_flops_per_second", peak_flops_per_second)
    return flops / (peak * _share("utilisation", utilisation)) / 86400


def calendar_days(
    *, flops: float, n_gpus: int, peak_flops_per_second: float, utilisation: float
) -> float:
    """Days on the calendar: GPU-days / GPUs. More GPUs shorten the wait, not the bill.

    Raises:
        ValueError: as ``gpu_days``, or ``n_gpus`` is not a whole number of at least 1.

    Example:
        >>> round(calendar_days(flops=3.15e23, n_gpus=64, peak_flops_per_second=312e12,
        ...                     utilisation=0.5))  # GPT-3 on 64 A100
        365
    """
    work = gpu_days(
        flops=flops, peak_flops_per_second=peak_flops_per_second, utilisation=utilisation
    )
    return work / _count("n_gpus", n_gpus)


def cost(*, gpu_days: float, price_per_gpu_hour: float) -> float:
    """What the GPUs cost: GPU-days · 24 · price, in the price's currency.

    Raises:
        ValueError: an amount is not above 0.

    Example:
        >>> cost(gpu_days=10, price_per_gpu_hour=2.5)
        600.0
    """
    days = _amount("gpu_days", gpu_days)
    return days * 24 * _amount("price_per_gpu_hour", price_per_gpu_hour)


def implied_price_per_gpu_hour(*, cost: float, gpu_days: float) -> float:
    """The price of a GPU-hour that a stated bill implies: cost / (GPU-days · 24).

    Raises:
        ValueError: an amount is not above 0.

    Example:
        >>> implied_price_per_gpu_hour(cost=600, gpu_days=10)
        2.5
    """
    return _amount("cost", cost) / (_amount("gpu_days", gpu_days) * 24)


def decode_tokens_per_second_bound(
    *,
    bandwidth_bytes_per_second: float,
    weight_bytes: float,
    kv_cache_bytes: float = 0,
    n_sequences: int = 1,
) -> float:
    """The most tokens a second that memory allows: sequences · bandwidth / (weights + cache).

    Each step reads all weights and the whole cache once and gives one token to every sequence, so
    a batch shares the reading of the weights.

    Args:
        bandwidth_bytes_per_second: of the memory that holds the weights.
        weight_bytes: bytes of weights that a step reads.
        kv_cache_bytes: bytes of cache that a step reads, all sequences together.
        n_sequences: sequences decoded at once.

    Raises:
        ValueError: an amount is not above 0 (the cache may be 0), or ``n_sequences`` is no count.

    Example:
        >>> decode_tokens_per_second_bound(bandwidth_bytes_per_second=100e9, weight_bytes=20e9)
        5.0

    Paper: Williams et al. 2009 (the roofline model); Pope et al. 2022 (arXiv 2211.05102),
        section 2.
    Differs: only the memory's roof; arithmetic sets another, which large batches reach first.
    """
    bandwidth = _amount("bandwidth_bytes_per_second", bandwidth_bytes_per_second)
    n_bytes = _amount("weight_bytes", weight_bytes)
    n_bytes += _amount("kv_cache_bytes", kv_cache_bytes, zero=True)
    return _count("n_sequences", n_sequences) * bandwidth / n_bytes


def _llama_without_ffn(
    n_layers: int, d_model: int, n_heads: int, n_kv_heads: int, vocabulary_size: int
) -> int:
    """Embeddings in and out, attention, two norms a block, the last norm."""
    attention = attention_parameters(d_model=d_model, n_heads=n_heads, n_kv_heads=n_kv_heads)
    n_layers, d_model = _count("n_layers", n_layers), _count("d_model", d_model)
    embeddings = 2 * _count("vocabulary_size", vocabulary_size) * d_model
    return embeddings + n_layers * (attention + 2 * d_model) + d_model


def _ceil_divide(dividend: int, divisor: int) -> int:
    """The quotient rounded up, in whole numbers: a float would lose digits beyond 2**53."""
    return -(-dividend // divisor)


def _is_number(value: object) -> bool:
    """True for real numbers that a float can hold; a bool is a yes or a no, not a number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    return abs(value) <= sys.float_info.max  # false for nan and both infinities


def _count(name: str, value: float) -> int:
    """A whole number of at least 1."""
    if not _is_number(value) or value < 1 or value != int(value):
        raise ValueError(
            f"{name} must be a whole number of at least 1, but it is {value!r}. "
            "Write the count itself, such as 12 or 175e9."
        )
    return int(value)


def _divisor(name: str, value: int, of_name: str, of: int) -> int:
    """A count that divides another without remainder."""
    value = _count(name, value)
    if of % value:
        raise ValueError(
            f"{name} must divide {of_name}, but {of} / {value} leaves a remainder of {of % value}. "
            f"Choose a divisor of {of}."
        )
    return value


def _amount(name: str, value: float, *, zero: bool = False) -> float:
    """A finite number above 0 (or from 0 on)."""
    if not _is_number(value) or value < 0 or (value == 0 and not zero):
        least = "of at least 0" if zero else "above 0"
        raise ValueError(
            f"{name} must be a finite number {least}, but it is {value!r}. "
            "Give it in the unit that its name states."
        )
    return value


def _share(name: str, value: float) -> float:
    """A share in (0, 1]."""
    if not _is_number(value) or not 0 < value <= 1:
        raise ValueError(
            f"{name} must be above 0 and at most 1, but it is {value!r}. Write 45 % as 0.45."
        )
    return value
