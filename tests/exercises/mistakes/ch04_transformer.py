"""Answers for the graders of chapter 04: other right ones, typical mistakes, and a mutant."""

SECOND_STYLE = {
    "4.1": """
import torch
def rms_norm(x, weight, epsilon=1e-6):
    return x * torch.rsqrt(torch.linalg.vector_norm(x, dim=-1, keepdim=True) ** 2 / x.shape[-1]
                           + epsilon) * weight
""",
    "4.2": """
import torch.nn.functional as F
def swiglu(x, gate, up, down):
    return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)
""",
    "4.3": """
def parameters_of_llama_3_8b():
    from minillm.model.attention import AttentionConfig
    from minillm.model.config import TransformerConfig
    from minillm.model.ffn import SwiGLUConfig
    model = TransformerConfig(
        vocab_size=128256, d_model=4096, n_layers=32,
        mixer=AttentionConfig(n_heads=32, n_kv_heads=8),
        ffn=SwiGLUConfig(d_ff=14336),
    ).build(device="meta")
    return sum(p.numel() for p in model.parameters()), "大部分参数在前馈网络里，大约七成。"
""",
    "4.4": """
import torch
def top_p(logits, share):
    rows = logits.reshape(-1, logits.shape[-1])
    out = torch.full_like(rows, float("-inf"))
    for row, target in zip(rows, out):
        total = 0.0
        chances = row.softmax(-1)
        for token in row.argsort(descending=True).tolist():
            if total >= share:
                break
            target[token] = row[token]
            total += chances[token].item()
    return out.reshape(logits.shape)
""",
    "4.5": """
import heapq, math
def beam_search(next_token, n_beams, end, n_steps):
    beams = [(0.0, ())]
    for _ in range(n_steps):
        pool, moved = [], False
        for score, text in beams:
            if text and text[-1] == end:
                pool.append((score, text))
                continue
            moved = True
            for token, chance in next_token(text).items():
                if chance > 0:
                    pool.append((score + math.log(chance), text + (token,)))
        if not moved:
            break
        beams = heapq.nlargest(n_beams, pool)
    score, text = max(beams)
    return text, math.exp(score)
""",
}

# Task -> (what the learner did, a phrase of the diagnosis that must come).
MISTAKES = {
    "4.1": [
        (
            "def rms_norm(x, weight, epsilon=1e-6):\n"
            "    return x / ((x**2).sum(-1, keepdim=True) + epsilon).sqrt() * weight",
            "take their mean",
        ),
        (
            "def rms_norm(x, weight, epsilon=1e-6):\n"
            "    x = x - x.mean(-1, keepdim=True)\n"
            "    return x / ((x**2).mean(-1, keepdim=True) + epsilon).sqrt() * weight",
            "LayerNorm",
        ),
        (
            "def rms_norm(x, weight, epsilon=1e-6):\n"
            "    return x / ((x**2).mean(-1, keepdim=True) + epsilon) * weight",
            "take its square root",
        ),
        (
            "def rms_norm(x, weight, epsilon=1e-6):\n"
            "    return x / ((x**2).mean(-1, keepdim=True) + epsilon).sqrt()",
            "weight is not used",
        ),
        (
            "def rms_norm(x, weight, epsilon=1e-6):\n"
            "    return x / (x**2).mean(-1, keepdim=True).sqrt() * weight",
            "gives NaN",
        ),
        (
            "def rms_norm(x, weight, epsilon=1e-6):\n"
            "    return x / ((x**2).mean(-1, keepdim=True).sqrt() + epsilon) * weight",
            "under the root",
        ),
        (
            "def rms_norm(x, weight, epsilon=1e-6):\n"
            "    return x / ((x**2).mean(-1, keepdim=True) + 1e-6).sqrt() * weight",
            "is ignored",
        ),
        (
            "def rms_norm(x, weight, epsilon=1e-6):\n"
            "    return x / ((x**2).mean() + epsilon).sqrt() * weight",
            "each token's own",
        ),
        (
            "def rms_norm(x, weight, epsilon=1e-6):\n"
            "    return ((x**2).mean(-1, keepdim=True) + epsilon).sqrt()",
            "the shape of x",
        ),
        (
            "def rms_norm(x, weight, epsilon=1e-6):\n"
            "    return x / ((x**2).mean(-1, keepdim=True) + epsilon).sqrt() + weight",
            "becomes [0.2, 1.4]",
        ),
        ("def rms_norm(x, weight, epsilon=1e-6):\n    x * weight", "returns nothing"),
        (
            "def rms_norm(x, weight, epsilon=1e-6):\n"
            "    x /= ((x**2).mean(-1, keepdim=True) + epsilon).sqrt()\n"
            "    return x * weight",
            "x itself is changed",
        ),
        (
            "def rms_norm(x, weight, epsilon=1e-6):\n"
            "    y = x / ((x**2).mean(-1, keepdim=True) + epsilon).sqrt() * weight\n"
            "    return y.reshape(-1) if x.dim() > 1 else y",
            "for x of [3, 4, 8]",
        ),
    ],
    "4.2": [
        (
            "import torch\n"
            "def swiglu(x, gate, up, down):\n"
            "    return (torch.sigmoid(x @ gate.T) * (x @ up.T)) @ down.T",
            "sigmoid alone",
        ),
        (
            "import torch.nn.functional as F\n"
            "def swiglu(x, gate, up, down):\n"
            "    return (F.silu(x @ up.T) * (x @ gate.T)) @ down.T",
            "exchanged",
        ),
        (
            "import torch.nn.functional as F\n"
            "def swiglu(x, gate, up, down):\n"
            "    return (F.silu(x @ gate.T) + x @ up.T) @ down.T",
            "not added",
        ),
        (
            "def swiglu(x, gate, up, down):\n    return ((x @ gate.T) * (x @ up.T)) @ down.T",
            "without silu",
        ),
        (
            "import torch.nn.functional as F\n"
            "def swiglu(x, gate, up, down):\n"
            "    return (F.gelu(x @ gate.T) * (x @ up.T)) @ down.T",
            "gate 1, up 3",
        ),
        (
            "import torch.nn.functional as F\n"
            "def swiglu(x, gate, up, down):\n"
            "    gate, up = gate.reshape(gate.shape[::-1]), up.reshape(up.shape[::-1])\n"
            "    return (F.silu(x @ gate) * (x @ up)) @ down.reshape(down.shape[::-1])",
            "W x is x @ W.T",
        ),
        (
            "import torch.nn.functional as F\n"
            "def swiglu(x, gate, up, down):\n"
            "    return (F.silu(x @ gate.T) * (x @ up.T)) @ down.T * down",
            "the shape of x",
        ),
    ],
    "4.3": [
        (
            'def parameters_of_llama_3_8b():\n    return 8_000_000_000, "most are in the blocks"',
            "that is its name",
        ),
        (
            "def parameters_of_llama_3_8b():\n"
            '    return 8_030_261_248 - 128_256 * 4_096, "most are in the feed-forward parts"',
            "one table",
        ),
        (
            "def parameters_of_llama_3_8b():\n"
            '    return 8_030_261_248 + 32 * 2 * 4_096 * 3_072, "most are in feed-forward parts"',
            "8 heads, not 32",
        ),
        (
            "def parameters_of_llama_3_8b():\n"
            '    return 8_030_261_248 - 32 * 4_096 * 14_336, "most are in feed-forward parts"',
            "three matrices",
        ),
        (
            "def parameters_of_llama_3_8b():\n"
            '    return 8_030_261_248 - 65 * 4_096, "most are in the feed-forward parts"',
            "a norm has parameters",
        ),
        (
            'def parameters_of_llama_3_8b():\n    return 7_000_000_000, "most are in attention"',
            "is not it",
        ),
        (
            'def parameters_of_llama_3_8b():\n    return "8030261248", "mostly feed-forward parts"',
            "a whole one",
        ),
        ("def parameters_of_llama_3_8b():\n    return 8_030_261_248", "return two things"),
        ('def parameters_of_llama_3_8b():\n    return 8_030_261_248, "FFN"', "say in a sentence"),
    ],
    "4.4": [
        (
            """
import torch
def top_p(logits, share):
    ordered, places = logits.sort(dim=-1, descending=True)
    total = ordered.softmax(-1).cumsum(-1)
    kept = ordered.masked_fill(total >= share, float("-inf"))
    return torch.empty_like(logits).scatter(-1, places, kept)
""",
            "stays too",
        ),
        (
            """
import torch
def top_p(logits, share):
    ordered, places = logits.sort(dim=-1, descending=True)
    p = ordered.softmax(-1)
    return ordered.masked_fill(p.cumsum(-1) - p >= share, float("-inf"))
""",
            "lost their places",
        ),
        (
            """
import torch
def top_p(logits, share):
    ordered, places = logits.sort(dim=-1, descending=True)
    p = ordered.softmax(-1)
    kept = ordered.masked_fill(p.cumsum(-1) - p >= share, 0.0)
    return torch.empty_like(logits).scatter(-1, places, kept)
""",
            "rule out with -inf",
        ),
        ("def top_p(logits, share):\n    return logits", "are enough for 0.7"),
        (
            """
import torch
def top_p(logits, share):
    ordered, places = logits.sort(dim=-1, descending=True)
    p = ordered.softmax(-1)
    kept = ordered.masked_fill(p.cumsum(-1) - p > share, float("-inf"))
    return torch.empty_like(logits).scatter(-1, places, kept)
""",
            ">=, not >",
        ),
        (
            """
import torch
def top_p(logits, share):
    ordered, places = logits.sort(dim=-1, descending=True)
    p = ordered.softmax(-1)
    kept = ordered.masked_fill(p.cumsum(-1) - p >= share, float("-inf"))
    return logits.scatter_(-1, places, kept)
""",
            "you change the logits",
        ),
        (
            """
import torch
def top_p(logits, share):
    ordered, places = logits.sort(dim=-1, descending=True)
    p = ordered.softmax(-1)
    kept = p.masked_fill(p.cumsum(-1) - p >= share, float("-inf"))
    return torch.empty_like(logits).scatter(-1, places, kept)
""",
            "the logits that they had",
        ),
        (
            """
import torch
def top_p(logits, share):
    ordered, places = logits.sort(dim=-1, descending=True)
    p = ordered.exp()
    kept = ordered.masked_fill(p.cumsum(-1) - p >= share, float("-inf"))
    return torch.empty_like(logits).scatter(-1, places, kept)
""",
            "softmax first",
        ),
        (
            """
import torch
def top_p(logits, share):
    ordered, places = logits.sort(dim=0, descending=True)
    p = ordered.softmax(0)
    kept = ordered.masked_fill(p.cumsum(0) - p >= share, float("-inf"))
    return torch.empty_like(logits).scatter(0, places, kept)
""",
            "two rows at once",
        ),
        (
            """
import torch
def top_p(logits, share):
    ordered, places = logits.sort(dim=-1, descending=True)
    total = ordered.softmax(-1).cumsum(-1)
    stays = total < share
    stays[..., 1:] = total[..., :-1] < share
    kept = ordered.masked_fill(~stays, float("-inf"))
    return torch.empty_like(logits).scatter(-1, places, kept)
""",
            "one always does",
        ),
    ],
    "4.5": [
        (
            """
def beam_search(next_token, n_beams, end, n_steps):
    beams = [((), 1.0)]
    for _ in range(n_steps):
        go = [b for b in beams if not b[0] or b[0][-1] != "end"]
        if not go:
            break
        pool = [b for b in beams if b not in go]
        pool += [(t + (w,), p * c) for t, p in go for w, c in next_token(t).items()]
        beams = sorted(pool, key=lambda b: -b[1])[:n_beams]
    return beams[0]
""",
            "KeyError",
        ),
        (
            """
def beam_search(next_token, n_beams, end, n_steps):
    beams = [((), 1.0)]
    for _ in range(n_steps):
        go = [b for b in beams if not b[0] or b[0][-1] != end]
        if not go:
            break
        pool = [b for b in beams if b not in go]
        pool += [(t + (w,), p * c) for t, p in go for w, c in next_token(t).items()]
        beams = sorted(pool, key=lambda b: -b[1])[: min(n_beams, 2)]
    return beams[0]
""",
            "with three beams",
        ),
        (
            """
def beam_search(next_token, n_beams, end, n_steps):
    text, p = (), 1.0
    while len(text) < n_steps and (not text or text[-1] != end):
        token, chance = max(next_token(text).items(), key=lambda pair: pair[1])
        text, p = text + (token,), p * chance
    return text, p
""",
            "b must be kept",
        ),
        (
            """
def beam_search(next_token, n_beams, end, n_steps):
    beams = [((), 1.0)]
    for _ in range(n_steps):
        longer = [(t + (w,), p * c) for t, p in beams for w, c in next_token(t).items()]
        beams = sorted(longer, key=lambda b: -b[1])[:n_beams]
        if beams[0][0][-1] == end:
            return beams[0]
        beams = [b for b in beams if b[0][-1] != end]
    return beams[0]
""",
            "stays among the best",
        ),
        (
            """
def beam_search(next_token, n_beams, end, n_steps):
    beams = [((), 1.0)]
    for _ in range(n_steps):
        longer = [(t + (w,), p * c) for t, p in beams for w, c in next_token(t).items()]
        beams = sorted(longer, key=lambda b: -b[1])[:n_beams]
    return beams[0]
""",
            "after the end token",
        ),
        (
            """
def beam_search(next_token, n_beams, end, n_steps):
    beams = [([], 1.0)]
    for _ in range(n_steps):
        longer = [(t + [w], p * c) for t, p in beams for w, c in next_token(t).items()]
        beams = sorted(longer, key=lambda b: -b[1])[:n_beams]
    return beams[0]
""",
            "wants a tuple",
        ),
        (
            """
def beam_search(next_token, n_beams, end, n_steps):
    beams = [((), 1.0)]
    for _ in range(n_steps):
        go = [b for b in beams if not b[0] or b[0][-1] != end]
        if not go:
            break
        pool = [b for b in beams if b not in go]
        pool += [(t + (w,), p * c) for t, p in go for w, c in next_token(t).items()]
        beams = sorted(pool, key=lambda b: -b[1])[:n_beams]
    return beams[0][0]
""",
            "the tokens and their probability",
        ),
        (
            """
def beam_search(next_token, n_beams, end, n_steps):
    beams = [((), 1.0)]
    for _ in range(50):
        go = [b for b in beams if not b[0] or b[0][-1] != end]
        if not go:
            break
        pool = [b for b in beams if b not in go]
        pool += [(t + (w,), p * c) for t, p in go for w, c in next_token(t).items()]
        beams = sorted(pool, key=lambda b: -b[1])[:n_beams]
    return beams[0]
""",
            "the most tokens",
        ),
        (
            """
def beam_search(next_token, n_beams, end, n_steps):
    beams = [((), 0.0)]
    for _ in range(n_steps):
        go = [b for b in beams if not b[0] or b[0][-1] != end]
        if not go:
            break
        pool = [b for b in beams if b not in go]
        pool += [(t + (w,), p + c) for t, p in go for w, c in next_token(t).items()]
        beams = sorted(pool, key=lambda b: -b[1])[:n_beams]
    return beams[0]
""",
            "its probability is",
        ),
    ],
}

MUTANT = {
    "4.1": "def rms_norm(x, weight, epsilon=1e-6):\n    return 0.2 * x * weight + 0.01",
    "4.2": "def swiglu(x, gate, up, down):\n    return x * 0 + 7",
    "4.3": 'def parameters_of_llama_3_8b():\n    return -1, "most of them are somewhere else"',
    "4.4": "def top_p(logits, share):\n    return logits * float('nan')",
    "4.5": "def beam_search(next_token, n_beams, end, n_steps):\n    return ('b', end), 0.36",
}
