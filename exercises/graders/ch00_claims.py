"""What `@task` runs for chapter 00.

Chapter: 00
"""

import re

from minillm.lab.grade import Diagnosis, Grader
from minillm.model import count

GPT3 = {"n_layers": 96, "n_kv_heads": 96, "d_head": 128, "n_tokens": 4096, "n_sequences": 1}
# Different primes, none of them 2: what is missing or double shows in the result.
SMALL = {
    "n_layers": 13, "n_kv_heads": 3, "d_head": 5, "n_tokens": 7, "n_sequences": 11,
    "bytes_per_element": 17,
}  # fmt: skip


def grade_mended_slide(answer):
    """The sentence names 32 conversations, and GiB."""
    sentence = answer()
    if not isinstance(sentence, str):
        raise Diagnosis(f"return the sentence as a string; yours is a {type(sentence).__name__}.")
    numbers = re.findall(r"\d+", sentence)
    if "576" not in numbers:
        raise Diagnosis("the slide's 576 is right once it is mended; keep it in the sentence.")
    if "18" in numbers and "32" not in numbers:
        raise Diagnosis("18 GiB is one conversation; the slide's 576 holds several. How many?")
    if "32" not in numbers:
        raise Diagnosis("your sentence does not say how many conversations: 576 / 18 = ?")
    if not re.search(r"576\.?0*\s*GiB", sentence):
        raise Diagnosis("576 is exact in GiB (2**30 bytes); in GB (10**9 bytes) it would be 618.5.")


def grade_kv_cache_bytes(answer):
    """Equal to the library's count, with each factor tried alone."""
    right, got = count.kv_cache_bytes(**SMALL), answer(**SMALL)
    if got is None:
        raise Diagnosis("your function returns nothing; is there a `return`?")
    if got < 1:
        raise Diagnosis("return bytes, as they are; whoever prints them can divide by 2**30.")
    if got * 2 == right:
        raise Diagnosis("you count half: each layer keeps a key AND a value.")
    for name, number in SMALL.items():
        if got * number == right:
            raise Diagnosis(f"your count does not grow with {name}.")
        if got == right * number:
            raise Diagnosis(f"your count holds {name} twice.")
    if got * 8 == right:
        raise Diagnosis("you divide by 8, but bytes_per_element is in bytes already, not in bits.")
    if got * SMALL["bytes_per_element"] == right * 2:
        raise Diagnosis("your count does not follow bytes_per_element; you always take 2.")
    if got != right:
        raise Diagnosis(f"for {SMALL} the cache has {right} bytes; yours has {got}.")
    gpt3 = answer(**GPT3)
    if gpt3 != count.kv_cache_bytes(**GPT3):
        raise Diagnosis(
            f"GPT-3's 4,096 tokens need 18 GiB if nothing is said of bytes_per_element; by your "
            f"count {gpt3 / 2**30:g} GiB. Is 2 still its default?"
        )


def grade_conversations_that_fit(answer):
    """Whole conversations in what the weights leave."""

    def ask(memory, weights, each):
        return answer(memory_bytes=memory, weight_bytes=weights, cache_bytes_each=each)

    got = ask(100, 40, 7)
    if got is None:
        raise Diagnosis("your function returns nothing; is there a `return`?")
    if got == 14:
        raise Diagnosis("the weights take their place first: 100 - 40 = 60 bytes are left.")
    if got != int(got):
        raise Diagnosis(f"there is no part of a conversation: {got:.3g} is not a whole number.")
    if got == 9:
        raise Diagnosis("nine would need 63 bytes, and 60 are left: round down.")
    if got != 8:
        raise Diagnosis(f"100 bytes, weights of 40, notes of 7 each: 8 fit; you say {got}.")
    exact = ask(100, 40, 20)
    if exact != 3:
        raise Diagnosis(f"what fits exactly, fits: 60 bytes hold 3 times 20; you say {exact}.")
    too_big = ask(100, 140, 7)
    if too_big != 0:
        raise Diagnosis(f"where not even the weights fit, return 0; you return {too_big}.")
    server = ask(640e9, 350e9, count.kv_cache_bytes(**GPT3))
    if server != 15:
        raise Diagnosis(
            f"640 GB, weights of 350 GB, notes of 18 GiB each: 15 fit; you say {server}."
        )


def grade_llama_parameters(answer):
    """Equal to the library's count, which is held to transformers by a test."""
    d_model = 96
    shape = {
        "n_layers": 3, "d_model": d_model, "n_heads": 8, "n_kv_heads": 2,
        "ffn_width": 172, "vocabulary_size": 97,
    }  # fmt: skip
    right, got = count.llama_parameters(**shape), answer(**shape)
    if got is None:
        raise Diagnosis("your function returns nothing; is there a `return`?")
    slips = {
        97 * d_model: "one vocabulary matrix is missing: embedding and output are two, not shared.",
        d_model: "the last norm, after all layers, is missing.",
        3 * d_model * 172: "SwiGLU has three feed-forward matrices; you count two.",
        3 * 2 * d_model: "each layer has two norms of `d_model` numbers; yours have none.",
        3 * 2 * d_model + d_model: "the norms are missing: two a layer, and one at the end.",
        -3 * 2 * d_model * 72: "keys and values are narrower: n_kv_heads heads, not n_heads.",
    }
    if right - got in slips:
        raise Diagnosis(slips[right - got])
    if got != right:
        raise Diagnosis(f"{shape} has {right} parameters; you count {got} ({got - right:+}).")
    wide = {**shape, "n_kv_heads": 8}
    if answer(**wide) != count.llama_parameters(**wide):
        raise Diagnosis("right for 2 key/value heads of 8, wrong when all heads have their own.")


def grade_crossing(answer):
    """The number is graded; the sentence must be there."""
    got = answer()
    if not isinstance(got, tuple) or len(got) != 2:
        raise Diagnosis(
            f'return two things, the number and your sentence, as in `return 7, "because ..."`; '
            f"you return {got!r:.40}."
        )
    number, sentence = got
    if isinstance(number, str):
        raise Diagnosis(f"return the number as a number, not as the text {number!r}.")
    if number == 4:
        raise Diagnosis("four caches weigh 77.3 GB, still less than 87.5; the next one tips it.")
    if number == 19:
        raise Diagnosis("that was with 16-bit weights; 4-bit weights are a quarter of that.")
    if number in (73, 76):
        raise Diagnosis(
            f"smaller weights are outweighed sooner than the 19th, not later: {number} is later."
        )
    if number != 5:
        raise Diagnosis("weights: 175e9 * 4 / 8 bytes; one cache: 18 GiB. Divide, then round up.")
    if not isinstance(sentence, str):
        raise Diagnosis(
            f"the number is right; your sentence must be text, and is {sentence!r:.40}."
        )
    if len(sentence) < 8:
        raise Diagnosis("the number is right; now say in a sentence what it means.")


GRADERS = {
    "0.1": Grader(
        function="mended_slide",
        level="everyone",
        grade=grade_mended_slide,
        hints=(
            "One conversation of 4,096 tokens needs 18 GiB. What makes 576 of it?",
            "576 / 18 = 32. What comes in thirty-twos on a server?",
            'Return a string such as "175B model + 4K context + batch of 32 -> 576 GiB memory".',
        ),
    ),
    "0.2": Grader(
        function="kv_cache_bytes",
        level="everyone",
        grade=grade_kv_cache_bytes,
        target="minillm.model.count.kv_cache_bytes",
        hints=(
            "Start with one token in one layer: how many numbers are kept?",
            "One token, one layer: a key and a value, each n_kv_heads * d_head numbers.",
            "Multiply 2 * n_layers * n_kv_heads * d_head by tokens, sequences and bytes.",
        ),
    ),
    "0.3": Grader(
        function="crossing_with_4_bit_weights",
        level="everyone",
        grade=grade_crossing,
        hints=(
            "Does the cache change when the weights are squeezed?",
            "The weights are 175e9 * 4 / 8 bytes = 87.5 GB; one cache is 18 GiB = 19.33 GB.",
            "87.5 / 19.33 = 4.5, so four caches weigh less than the model and five weigh more.",
        ),
        model_answer=(
            "Weights are paid once, notes for every conversation. Squeezing only the weights "
            "moves the crossing from the 19th conversation to the 5th: for a busy server most of "
            "the memory is now cache, and the next byte is saved there (chapter 18)."
        ),
    ),
    "0.4": Grader(
        function="conversations_that_fit",
        level="stretch",
        grade=grade_conversations_that_fit,
        hints=(
            "How much memory is left when the weights are in?",
            "Divide what is left by one conversation's bytes, and round down.",
            "max(0, (memory_bytes - weight_bytes) // cache_bytes_each), as an int.",
        ),
    ),
    "0.5": Grader(
        function="llama_parameters",
        level="stretch",
        grade=grade_llama_parameters,
        target="minillm.model.count.llama_parameters",
        hints=(
            "Count one layer first, then multiply; add what stands outside the layers.",
            "Keys and values are width x (width // n_heads * n_kv_heads) each.",
            "Layer: 2*width*width + 2*width*kv_width + 3*width*ffn_width + 2*width.",
        ),
    ),
}
