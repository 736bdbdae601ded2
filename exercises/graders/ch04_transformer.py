"""What `@task` runs for chapter 04.

Chapter: 04
"""

import math
from numbers import Real

import torch
from torch import Tensor

from minillm.lab.grade import Diagnosis, Grader, as_tensor
from minillm.model import ffn, norm
from minillm.serve import logits_processors

LLAMA_3_8B = 8_030_261_248
TABLE = 128_256 * 4_096

# The likeliest text is (b, end), 0.36; greedy begins with a.
TREE = {
    (): {"a": 0.6, "b": 0.4},
    ("a",): {"c": 0.5, "end": 0.5},
    ("b",): {"end": 0.9, "c": 0.1},
    ("a", "c"): {"end": 1.0},
    ("b", "c"): {"end": 1.0},
}


def grade_rms_norm(answer):
    """Numbers by hand, then the library's."""
    ones = torch.ones(2)
    got = as_tensor(answer(torch.tensor([1.0, 7.0]), ones, 0.0))
    if got.shape != (2,):
        raise Diagnosis(f"the result has the shape of x, [2] here; yours is {[*got.shape]}.")
    if torch.allclose(got, torch.tensor([1.0, 7.0]) / math.sqrt(50), atol=1e-4):
        raise Diagnosis("that divides by the root of the SUM of squares; take their mean.")
    if torch.allclose(got, torch.tensor([-1.0, 1.0]), atol=1e-4):
        raise Diagnosis("that is LayerNorm: here no mean is taken away.")
    if torch.allclose(got, torch.tensor([1 / 25, 7 / 25]), atol=1e-4):
        raise Diagnosis("you divide by the mean of the squares; take its square root.")
    if not torch.allclose(got, torch.tensor([0.2, 1.4]), atol=1e-4):
        raise Diagnosis(f"[1, 7] becomes [0.2, 1.4]; yours gives {got.tolist()}.")
    got = as_tensor(answer(torch.tensor([1.0, 7.0]), torch.tensor([10.0, 1.0]), 0.0))
    if torch.allclose(got, torch.tensor([0.2, 1.4]), atol=1e-4):
        raise Diagnosis("the weight is not used.")
    got = as_tensor(answer(torch.zeros(2), ones, 1e-6))
    if got.isnan().any():
        raise Diagnosis("a token of zeros gives NaN: add epsilon under the root.")
    torch.manual_seed(0)
    x, weight = torch.randn(3, 4, 8), torch.randn(8)
    given = x.clone()
    right, got = norm.rms_norm_naive(x, weight, 0.5), as_tensor(answer(given, weight, 0.5))
    if not torch.equal(given, x):
        raise Diagnosis("x itself is changed; build a new tensor.")
    got = got.to(right.dtype)
    if got.shape != right.shape:
        raise Diagnosis(f"for x of [3, 4, 8] the result is [3, 4, 8]; yours is {[*got.shape]}.")
    if not torch.allclose(got, right, atol=1e-5):
        if torch.allclose(got, x / ((x**2).mean(-1, keepdim=True).sqrt() + 0.5) * weight):
            raise Diagnosis("epsilon stands under the root, beside the mean.")
        if torch.allclose(got, norm.rms_norm_naive(x, weight, 1e-6), atol=1e-5):
            raise Diagnosis("the epsilon that is given is ignored.")
        raise Diagnosis("12 tokens at once come out wrong: the mean is each token's own (dim=-1).")


def grade_swiglu(answer):
    """One number by hand, then the library's."""
    one, x = torch.ones(1, 1), torch.tensor([2.0])
    got = as_tensor(answer(x, one, 3 * one, one))
    if got.shape != (1,):
        raise Diagnosis(f"the result has the shape of x, [1] here; yours is {[*got.shape]}.")
    number, sigmoid = got.item(), 1 / (1 + math.exp(-2))
    if math.isclose(number, sigmoid * 6, rel_tol=1e-4):
        raise Diagnosis("that gate is the sigmoid alone; silu(z) is z · sigmoid(z).")
    if math.isclose(number, 2 * 6 / (1 + math.exp(-6)), rel_tol=1e-4):
        raise Diagnosis("gate and up are exchanged: silu goes over what GATE gives.")
    if math.isclose(number, 2 * sigmoid + 6, rel_tol=1e-4):
        raise Diagnosis("the two are multiplied, number by number, not added.")
    if math.isclose(number, 12.0, rel_tol=1e-4):
        raise Diagnosis("without silu the gate is only another matrix.")
    if not math.isclose(number, 12 * sigmoid, rel_tol=1e-4):
        raise Diagnosis(
            f"x = 2, gate 1, up 3, down 1 gives {12 * sigmoid:.3f}; yours {number:.3f}."
        )
    torch.manual_seed(0)
    x, gate, up, down = (torch.randn(*s) for s in ((3, 5, 4), (6, 4), (6, 4), (4, 6)))
    right, got = ffn.swiglu_naive(x, gate, up, down), as_tensor(answer(x, gate, up, down))
    got = got.to(right.dtype)
    if got.shape != right.shape or not torch.allclose(got, right, atol=1e-4):
        raise Diagnosis("right for one number, wrong for matrices of 6 by 4: W x is x @ W.T.")


def grade_parameters_of_llama_3_8b(answer):
    """The number is graded; the sentence must be there."""
    got = answer()
    if not (isinstance(got, tuple | list) and len(got) == 2):
        raise Diagnosis('return two things: the number and your sentence, as in 7, "because …".')
    number, sentence = got
    if not isinstance(number, Real) or number % 1:
        raise Diagnosis("count to the last one: the number is a whole one.")
    if number == 8_000_000_000:
        raise Diagnosis("that is its name; count.")
    if number == LLAMA_3_8B - TABLE:
        raise Diagnosis("one table of tokens is missing: reading and predicting have their own.")
    if number == LLAMA_3_8B + 32 * 2 * 4_096 * 24 * 128:
        raise Diagnosis("keys and values have 8 heads, not 32.")
    if number == LLAMA_3_8B - 32 * 4_096 * 14_336:
        raise Diagnosis("SwiGLU has three matrices: gate, up and down.")
    if number in (LLAMA_3_8B - 4_096, LLAMA_3_8B - 65 * 4_096, LLAMA_3_8B - 64 * 4_096):
        raise Diagnosis("a norm has parameters too: 4,096 each, twice a block and once at the end.")
    if number != LLAMA_3_8B:
        raise Diagnosis(
            f"{number:,} is not it. Tables 2 · V · D; a block: D · H · K twice, D · G · K twice, "
            "3 · D · F, two norms; 32 blocks; one norm."
        )
    if not isinstance(sentence, str) or (len(sentence.split()) < 4 and len(sentence) < 8):
        raise Diagnosis("the number is right; now say in a sentence where most of them are.")


def grade_top_p(answer):
    """Cases by hand, several rows, ties with the edge."""
    probabilities = torch.tensor([0.2, 0.5, 0.3])
    logits = probabilities.log()
    given = logits.clone()
    got = as_tensor(answer(given, 0.7))
    if not torch.equal(given, logits):
        raise Diagnosis("you change the logits that were given; build a new tensor.")
    if got.shape != (3,):
        raise Diagnosis(f"the result has the shape of logits, [3]; yours is {[*got.shape]}.")
    if torch.allclose(got.nan_to_num(neginf=-9), torch.tensor([-9.0, *logits[1:]])):
        pass
    elif _kept(got) == [1]:
        raise Diagnosis("0.5 alone has not reached 0.7: the token that reaches p stays too.")
    elif _kept(got) == [0, 1] or _kept(got) == [0, 2]:
        raise Diagnosis("tokens have lost their places: bring them back from the sorted order.")
    elif _kept(got) == [0, 1, 2] and bool((got == 0).any()):
        raise Diagnosis("a logit of 0 is no zero probability: rule out with -inf.")
    elif _kept(got) == [0, 1, 2]:
        raise Diagnosis("all three stay; 0.5 and 0.3 are enough for 0.7.")
    elif _kept(got) == [1, 2]:
        raise Diagnosis("the right tokens stay, but not with the logits that they had.")
    else:
        raise Diagnosis(f"of 0.2, 0.5, 0.3 with p = 0.7 tokens 1 and 2 stay; yours {_kept(got)}.")
    if _kept(as_tensor(answer(logits.clone(), 0.1))) != [1]:
        raise Diagnosis("with p = 0.1 the likeliest must stay: one always does.")
    shifted = as_tensor(answer(logits.clone() + 100, 0.7))
    if _kept(shifted) != [1, 2]:
        raise Diagnosis("logits need not be logarithms of probabilities: softmax first.")
    rows = torch.stack([logits, torch.tensor([0.05, 0.05, 0.9]).log()])
    got = as_tensor(answer(rows.clone(), 0.7))
    if got.shape != (2, 3) or [_kept(row) for row in got] != [[1, 2], [2]]:
        raise Diagnosis("two rows at once come out wrong: work on the last axis (dim=-1).")
    torch.manual_seed(0)
    if len(_kept(as_tensor(answer(torch.zeros(4), 0.5)))) != 2:
        raise Diagnosis(
            "of four equal tokens exactly two reach 0.5: a token stays only if those before it "
            "have NOT reached p (>=, not >)."
        )
    for share in (0.2, 0.5, 0.9):
        logits = torch.randn(4, 50)
        if not torch.equal(
            as_tensor(answer(logits.clone(), share)), logits_processors.top_p(logits, share)
        ):
            raise Diagnosis(f"50 random logits with p = {share} come out wrong.")


def grade_beam_search(answer):
    """A tree in which greedy is wrong, one where a text ends early, and the limit of steps."""
    got = answer(_look_up(TREE), 1, "end", 10)
    if not (isinstance(got, tuple | list) and len(got) == 2):
        raise Diagnosis("return two things: the tokens and their probability.")
    if not isinstance(got[0], tuple):
        raise Diagnosis("the tokens are a tuple, the end token with them.")
    if len(got[0]) and got[0][-1] != "end":
        raise Diagnosis("the end token is part of the text, and the text is not done without it.")
    _same(answer, TREE, 1, 10, [("a", "c", "end"), ("a", "end")], 0.3, "with one beam (greedy)")
    got = answer(_look_up(TREE), 2, "end", 10)
    if got[0] != ("b", "end") and math.isclose(got[1], 0.3):
        raise Diagnosis(
            "with two beams b must be kept: (b, end) has 0.36, more than any text that begins "
            "with a."
        )
    _same(answer, TREE, 2, 10, [("b", "end")], 0.36, "with two beams")
    early = {
        (): {"end": 0.4, "x": 0.6},
        ("x",): {"y": 0.5, "z": 0.5},
        ("x", "y"): {"end": 0.9, "x": 0.1},
        ("x", "z"): {"end": 0.9, "x": 0.1},
    }
    got = answer(_look_up(early), 2, "end", 10)
    if got[0] != ("end",):
        raise Diagnosis(
            "a text that has ended stays among the best: here the empty one, with 0.4, beats all "
            "longer ones."
        )
    _same(answer, early, 2, 10, [("end",)], 0.4, "where a text ends at once")
    numbers = {(): {1: 0.7, 0: 0.3}, (1,): {0: 1.0}}
    got = answer(lambda prefix: numbers[prefix], 1, 0, 5)
    if got[0] != (1, 0):
        raise Diagnosis(f"with end=0 the text is (1, 0), yours {got[0]}; is `end` a fixed word?")
    upcast = {(): {"a": 0.4, "b": 0.35, "c": 0.25}} | {
        (word,): {f"{word}{n}": 0.2 for n in range(5)} for word in "ab"
    }
    upcast |= {(word, f"{word}{n}"): {"end": 1.0} for word in "ab" for n in range(5)}
    upcast[("c",)] = {"end": 1.0}
    if answer(_look_up(upcast), 3, "end", 10)[0] != ("c", "end"):
        raise Diagnosis("with three beams the third beginning must be kept, too: c wins.")
    for_ever = answer(lambda prefix: {"x": 0.999, "end": 0.001}, 2, "end", 3)
    if len(for_ever[0]) > 3:
        raise Diagnosis("n_steps is the most tokens that a text may have; yours goes on.")
    if not math.isclose(for_ever[1], 0.999**3):
        raise Diagnosis("after n_steps the likeliest text is returned, ended or not.")


def _look_up(tree):
    def next_token(prefix):
        if not isinstance(prefix, tuple):
            raise Diagnosis(f"next_token wants a tuple of tokens; yours asks it for {prefix!r}.")
        if prefix and prefix[-1] == "end":
            raise Diagnosis("you go on after the end token; a text that has ended is done.")
        if prefix not in tree:
            raise Diagnosis(
                f"{prefix} is no longer among the best n_beams; texts that have ended compete for "
                "the same places."
            )
        return tree[prefix]

    return next_token


def _same(answer, tree, n_beams, n_steps, texts, probability, where):
    got = answer(_look_up(tree), n_beams, "end", n_steps)
    if got[0] not in texts:
        raise Diagnosis(f"{where} the text must be {texts[0]}; yours is {got[0]}.")
    if not math.isclose(_number(got[1]), probability):
        raise Diagnosis(f"{where} its probability is {probability}; yours is {got[1]}.")


def _kept(row: Tensor) -> list[int]:
    return torch.nonzero(row > -math.inf).flatten().tolist()


def _number(got) -> float:
    try:
        return float(got)
    except (TypeError, ValueError):
        raise Diagnosis(f"a probability is a number; yours is {type(got).__name__}.") from None


GRADERS = {
    "4.1": Grader(
        function="rms_norm",
        level="everyone",
        grade=grade_rms_norm,
        target="minillm.model.norm.rms_norm_naive",
        hints=(
            "x**2, its mean over the last axis (dim=-1), plus epsilon, the square root.",
            "keepdim=True leaves an axis of 1, so that x can be divided by it.",
            "x / ((x**2).mean(dim=-1, keepdim=True) + epsilon).sqrt() * weight",
        ),
    ),
    "4.2": Grader(
        function="swiglu",
        level="everyone",
        grade=grade_swiglu,
        target="minillm.model.ffn.swiglu_naive",
        hints=(
            "Three products: x @ gate.T, x @ up.T, and at the end (…) @ down.T.",
            "silu(z) = z · sigmoid(z); torch.sigmoid works number by number.",
            "g = x @ gate.T; (g * torch.sigmoid(g) * (x @ up.T)) @ down.T",
        ),
    ),
    "4.3": Grader(
        function="parameters_of_llama_3_8b",
        level="everyone",
        grade=grade_parameters_of_llama_3_8b,
        hints=(
            "Tables: 2 · 128,256 · 4,096. Queries and output: 4,096 · 4,096 each, a block.",
            "Keys and values: 4,096 · 1,024 each. SwiGLU: 3 · 4,096 · 14,336. Norms: 2 · 4,096.",
            "TransformerConfig(vocab_size=128256, d_model=4096, n_layers=32, mixer=AttentionConfig("
            "n_heads=32, n_kv_heads=8), ffn=SwiGLUConfig(d_ff=14336)), built on the "
            'device "meta"; then sum(p.numel() for p in model.parameters()).',
        ),
        model_answer=(
            "8,030,261,248. The feed-forward parts hold 5.64 billion (70 %), the two tables 1.05 "
            "(13 %), attention 1.34 (17 %): with 8 key/value heads for 32 queries it is far from "
            "the third that chapter 00's rule of thumb gives it."
        ),
    ),
    "4.4": Grader(
        function="top_p",
        level="stretch",
        grade=grade_top_p,
        target="minillm.serve.logits_processors.top_p",
        hints=(
            "logits.sort(dim=-1, descending=True) gives values and the places they came from.",
            "cumsum of the sorted softmax, shifted by one: what stands BEFORE each token.",
            "masked_fill(before >= p, -inf), then torch.empty_like(logits).scatter(-1, places, …).",
        ),
    ),
    "4.5": Grader(
        function="beam_search",
        level="stretch",
        grade=grade_beam_search,
        hints=(
            "Keep a list of (tokens, probability), at first [((), 1.0)].",
            "Split it: texts that end in `end` stay as they are, all others are made longer.",
            "beams = sorted(ended + longer, key=lambda beam: -beam[1])[:n_beams]",
        ),
    ),
}
