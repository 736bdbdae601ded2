"""Answers for the graders of chapter 00: other right ones, typical mistakes, and a mutant."""

SECOND_STYLE = {
    "0.1": """
def mended_slide():
    batch = 576 // 18
    return f"175B model; {batch} conversations of 4,096 tokens, 18 GiB each: 576.0 GiB."
""",
    "0.2": """
from math import prod
def kv_cache_bytes(*, n_layers, n_kv_heads, d_head, n_tokens, n_sequences, bytes_per_element=2):
    keys = prod([n_layers, n_kv_heads, d_head, n_tokens, n_sequences, bytes_per_element])
    return keys + keys
""",
    "0.4": """
def conversations_that_fit(*, memory_bytes, weight_bytes, cache_bytes_each):
    n, used = 0, weight_bytes
    while used + cache_bytes_each <= memory_bytes:
        n, used = n + 1, used + cache_bytes_each
    return n
""",
    "0.5": """
def llama_parameters(*, n_layers, width, n_heads, n_kv_heads, ffn_width, vocabulary_size):
    total = width
    for _ in range(2):
        total += vocabulary_size * width
    for _ in range(n_layers):
        total += width * width * 2 + 2 * width
        total += 2 * (width * width * n_kv_heads // n_heads)
        total += ffn_width * width * 3
    return total
""",
    "0.3": """
def crossing_with_4_bit_weights():
    n = 1
    while n * 2 * 96 * 96 * 128 * 4096 * 2 <= 87.5e9:
        n += 1
    return n, "缓存没有跟着变小"
""",
}

# Task -> (what the learner did, a phrase of the diagnosis that must come).
MISTAKES = {
    "0.1": [
        ('def mended_slide():\n    return "175B + 4K -> 576 GB"', "how many conversations"),
        ('def mended_slide():\n    return "batch of 32 -> 576 GB"', "exact in GiB"),
        ('def mended_slide():\n    return "4K context -> 18 GiB, not 576"', "18 GiB is one"),
        ("def mended_slide():\n    return 32", "as a string"),
        ('def mended_slide():\n    return "batch of 32 -> 618 GB"', "keep it"),
    ],
    "0.2": [
        (
            "def kv_cache_bytes(*, n_layers, n_kv_heads, d_head, n_tokens, n_sequences,"
            " bytes_per_element=2):\n"
            "    return 2 * n_layers * n_kv_heads * d_head * n_tokens * n_sequences"
            " * bytes_per_element / 2**30",
            "return bytes, as they are",
        ),
        (
            "def kv_cache_bytes(*, n_layers, n_kv_heads, d_head, n_tokens, n_sequences,"
            " bytes_per_element=2):\n"
            "    return n_layers * n_kv_heads * d_head * n_tokens * n_sequences"
            " * bytes_per_element",
            "a key AND a value",
        ),
        (
            "def kv_cache_bytes(*, n_layers, n_kv_heads, d_head, n_tokens, n_sequences,"
            " bytes_per_element=2):\n"
            "    return 2 * n_layers * n_kv_heads * d_head * n_tokens * bytes_per_element",
            "does not grow with n_sequences",
        ),
        (
            "def kv_cache_bytes(*, n_layers, n_kv_heads, d_head, n_tokens, n_sequences,"
            " bytes_per_element=2):\n"
            "    return 2 * n_kv_heads * d_head * n_tokens * n_sequences * bytes_per_element",
            "does not grow with n_layers",
        ),
        (
            "def kv_cache_bytes(*, n_layers, n_kv_heads, d_head, n_tokens, n_sequences,"
            " bytes_per_element=2):\n"
            "    width = n_layers * n_kv_heads * d_head\n"
            "    return 2 * width * n_kv_heads * n_tokens * n_sequences * bytes_per_element",
            "holds n_kv_heads twice",
        ),
        (
            "def kv_cache_bytes(*, n_layers, n_kv_heads, d_head, n_tokens, n_sequences,"
            " bytes_per_element=2):\n"
            "    numbers = 2 * n_layers * n_kv_heads * d_head * n_tokens * n_sequences\n"
            "    return numbers * bytes_per_element / 8",
            "in bytes already, not in bits",
        ),
        (
            "def kv_cache_bytes(*, n_layers, n_kv_heads, d_head, n_tokens, n_sequences,"
            " bytes_per_element=2):\n"
            "    return 4 * n_layers * n_kv_heads * d_head * n_tokens * n_sequences",
            "does not follow bytes_per_element",
        ),
        (
            "def kv_cache_bytes(*, n_layers, n_kv_heads, d_head, n_tokens, n_sequences,"
            " bytes_per_element=4):\n"
            "    return 2 * n_layers * n_kv_heads * d_head * n_tokens * n_sequences"
            " * bytes_per_element",
            "by your count 36 GiB. Is 2 still its default?",
        ),
        (
            "def kv_cache_bytes(*, n_layers, n_kv_heads, d_head, n_tokens, n_sequences,"
            " bytes_per_element=2):\n"
            "    return 2 * n_layers * (n_kv_heads + d_head) * n_tokens * n_sequences"
            " * bytes_per_element",
            "the cache has 510510 bytes; yours has 272272",
        ),
        (
            "def kv_cache_bytes(*, n_layers, n_kv_heads, d_head, n_tokens, n_sequences,"
            " bytes_per_element=2):\n"
            "    print(n_layers)",
            "returns nothing",
        ),
        (
            "def kv_cache_bytes(**shape):\n"
            "    from minillm.model.count import kv_cache_bytes as k\n"
            "    return k(**shape)",
            "uses minillm.model.count.kv_cache_bytes itself",
        ),
    ],
    "0.4": [
        (
            "def conversations_that_fit(*, memory_bytes, weight_bytes, cache_bytes_each):\n"
            "    return memory_bytes // cache_bytes_each",
            "take their place first",
        ),
        (
            "def conversations_that_fit(*, memory_bytes, weight_bytes, cache_bytes_each):\n"
            "    return (memory_bytes - weight_bytes) / cache_bytes_each",
            "no part of a conversation",
        ),
        (
            "def conversations_that_fit(*, memory_bytes, weight_bytes, cache_bytes_each):\n"
            "    return round((memory_bytes - weight_bytes) / cache_bytes_each)",
            "round down",
        ),
        (
            "def conversations_that_fit(*, memory_bytes, weight_bytes, cache_bytes_each):\n"
            "    return (memory_bytes - weight_bytes) // cache_bytes_each",
            "where not even the weights fit, return 0; you return -6",
        ),
        (
            "def conversations_that_fit(*, memory_bytes, weight_bytes, cache_bytes_each):\n"
            "    return max(1, (memory_bytes - weight_bytes) // cache_bytes_each)",
            "you return 1",
        ),
        (
            "def conversations_that_fit(*, memory_bytes, weight_bytes, cache_bytes_each):\n"
            "    left = (memory_bytes - weight_bytes) // cache_bytes_each\n"
            "    print(left)",
            "returns nothing",
        ),
        (
            "def conversations_that_fit(*, memory_bytes, weight_bytes, cache_bytes_each):\n"
            "    n = 0\n"
            "    while weight_bytes + (n + 1) * cache_bytes_each < memory_bytes:\n"
            "        n += 1\n"
            "    return n",
            "what fits exactly, fits: 60 bytes hold 3 times 20; you say 2",
        ),
        (
            "def conversations_that_fit(*, memory_bytes, weight_bytes, cache_bytes_each):\n"
            "    return max(0, (memory_bytes - weight_bytes) // cache_bytes_each - 1)",
            "8 fit; you say 7",
        ),
        (
            "def conversations_that_fit(*, memory_bytes, weight_bytes, cache_bytes_each):\n"
            "    for n in range(10, 0, -1):\n"
            "        if weight_bytes + n * cache_bytes_each <= memory_bytes:\n"
            "            return n\n"
            "    return 0",
            "15 fit; you say 10",
        ),
    ],
    "0.5": [
        (
            "def llama_parameters(*, n_layers, width, n_heads, n_kv_heads, ffn_width,"
            " vocabulary_size):\n"
            "    kv = width // n_heads * n_kv_heads\n"
            "    layer = 2*width*width + 2*width*kv + 3*width*ffn_width + 2*width\n"
            "    return n_layers * layer + vocabulary_size * width + width",
            "embedding and output are two",
        ),
        (
            "def llama_parameters(*, n_layers, width, n_heads, n_kv_heads, ffn_width,"
            " vocabulary_size):\n"
            "    layer = 4*width*width + 3*width*ffn_width + 2*width\n"
            "    return n_layers * layer + 2 * vocabulary_size * width + width",
            "keys and values are narrower",
        ),
        (
            "def llama_parameters(*, n_layers, width, n_heads, n_kv_heads, ffn_width,"
            " vocabulary_size):\n"
            "    kv = width // n_heads * n_kv_heads\n"
            "    layer = 2*width*width + 2*width*kv + 2*width*ffn_width + 2*width\n"
            "    return n_layers * layer + 2 * vocabulary_size * width + width",
            "three feed-forward matrices",
        ),
        (
            "def llama_parameters(*, n_layers, width, n_heads, n_kv_heads, ffn_width,"
            " vocabulary_size):\n"
            "    kv = width // n_heads * n_kv_heads\n"
            "    layer = 2*width*width + 2*width*kv + 3*width*ffn_width\n"
            "    return n_layers * layer + 2 * vocabulary_size * width",
            "the norms are missing",
        ),
        (
            "def llama_parameters(*, n_layers, width, n_heads, n_kv_heads, ffn_width,"
            " vocabulary_size):\n"
            "    kv = width // n_heads * n_kv_heads\n"
            "    layer = 2*width*width + 2*width*kv + 3*width*ffn_width + 2*width\n"
            "    return n_layers * layer + 2 * vocabulary_size * width",
            "the last norm, after all layers, is missing",
        ),
        (
            "def llama_parameters(*, n_layers, width, n_heads, n_kv_heads, ffn_width,"
            " vocabulary_size):\n"
            "    kv = width // n_heads * n_kv_heads\n"
            "    layer = 2*width*width + 2*width*kv + 3*width*ffn_width\n"
            "    return n_layers * layer + 2 * vocabulary_size * width + width",
            "each layer has two norms",
        ),
        (
            "def llama_parameters(*, n_layers, width, n_heads, n_kv_heads, ffn_width,"
            " vocabulary_size):\n"
            "    kv = width // 4\n"
            "    layer = 2*width*width + 2*width*kv + 3*width*ffn_width + 2*width\n"
            "    return n_layers * layer + 2 * vocabulary_size * width + width",
            "wrong when all heads have their own",
        ),
        (
            "def llama_parameters(*, n_layers, width, n_heads, n_kv_heads, ffn_width,"
            " vocabulary_size):\n"
            "    kv = width // n_heads * n_kv_heads\n"
            "    layer = 4*width*kv + 3*width*ffn_width + 2*width\n"
            "    return n_layers * layer + 2 * vocabulary_size * width + width",
            "(-41472)",
        ),
        (
            "def llama_parameters(*, n_layers, width, n_heads, n_kv_heads, ffn_width,"
            " vocabulary_size):\n"
            "    total = 2 * vocabulary_size * width\n"
            "    total += n_layers * (4*width*width + 3*width*ffn_width)",
            "returns nothing",
        ),
    ],
    "0.3": [
        ('def crossing_with_4_bit_weights():\n    return "5", "so"', "as a number"),
        ('def crossing_with_4_bit_weights():\n    return 4, "it fits four times or so"', "tips it"),
        (
            'def crossing_with_4_bit_weights():\n    return 19, "the cache is the same"',
            "16-bit weights",
        ),
        (
            'def crossing_with_4_bit_weights():\n    return 73, "four times more room"',
            "not later: 73 is later",
        ),
        (
            'def crossing_with_4_bit_weights():\n    return 76, "19 conversations times four"',
            "not later: 76 is later",
        ),
        ('def crossing_with_4_bit_weights():\n    return 9, "87.5 over 9.66"', "then round up"),
        ("def crossing_with_4_bit_weights():\n    return 5", "you return 5."),
        (
            'def crossing_with_4_bit_weights():\n    return 5, 4.5, "so it is the fifth"',
            "you return (5, 4.5, 'so",
        ),
        ("def crossing_with_4_bit_weights():\n    return 5, None", "must be text, and is None"),
        ('def crossing_with_4_bit_weights():\n    return 5, "because"', "say in a sentence"),
    ],
}

# One wrong answer a task for which no grader has a message of its own.
MUTANT = {
    "0.1": 'def mended_slide():\n    return "32"',
    "0.2": (
        "def kv_cache_bytes(*, n_layers, n_kv_heads, d_head, n_tokens, n_sequences,"
        " bytes_per_element=2):\n"
        "    return 2 * n_layers * n_kv_heads * d_head * n_tokens * n_sequences"
        " * bytes_per_element + 1"
    ),
    "0.4": (
        "def conversations_that_fit(*, memory_bytes, weight_bytes, cache_bytes_each):\n"
        "    return max(0, (memory_bytes - weight_bytes) // cache_bytes_each - 1)"
    ),
    "0.5": (
        "def llama_parameters(*, n_layers, width, n_heads, n_kv_heads, ffn_width,"
        " vocabulary_size):\n"
        "    return 12 * n_layers * width * width"
    ),
    "0.3": 'def crossing_with_4_bit_weights():\n    return 11, "eleven is a nice number"',
}
