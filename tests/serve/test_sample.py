import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from transformers import AutoModelForCausalLM

from minillm.formats.hf import save
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.model.ffn import MLPConfig
from minillm.model.transformer import loss
from minillm.serve.sample import SampleConfig, generate, left_pad, stream

GREEDY = SampleConfig(temperature=0)
FREE = SampleConfig()
FILTERED = SampleConfig(temperature=1.3, top_k=9, top_p=0.9, min_p=0.05)
TOY = TransformerConfig(
    vocab_size=19, context_length=32, d_model=8, n_layers=2, mixer=AttentionConfig(n_heads=2)
)
KINDS = {
    "toy": TOY,
    "gqa-tied": replace(TOY, mixer=AttentionConfig(n_heads=4, n_kv_heads=2), tied_embeddings=True),
    "window-qk-norm": replace(TOY, mixer=AttentionConfig(window_tokens=3, qk_norm=True)),
    "no-positions-mlp": replace(TOY, mixer=AttentionConfig(rope=None), ffn=MLPConfig()),
}
ALL_KINDS = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS.keys())
PROMPTS = [[5, 6, 7, 8, 9], [3, 4], [11], [0, 0, 18]]


def built(config=TOY, seed=0):
    """A model whose weights, gains too, are large enough to make a difference."""
    model = config.build(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
            if parameter.ndim == 1:
                parameter.add_(1)
    return model


class Counts:
    """A model that expects 1 more than the token it reads, and notes what it is told."""

    vocab_size, context_length = 12, 10

    def __init__(self):
        self.embedding = SimpleNamespace(weight=torch.zeros(self.vocab_size, 1))
        self.read, self.contexts, self.caches, self.n_logits = [], [], [], 0

    def new_cache(self, batch_size, max_length):
        self.caches.append((batch_size, max_length))
        return self.caches[-1]

    def hidden(self, tokens, *, context, cache):
        assert cache is self.caches[-1]
        assert torch.is_inference_mode_enabled()
        self.read.append(tokens.tolist())
        self.contexts.append(context)
        return torch.nn.functional.one_hot((tokens + 1) % self.vocab_size, self.vocab_size).float()

    def logits(self, hidden):
        self.n_logits += hidden.shape[1]
        return 100 * hidden


# --- by hand -----------------------------------------------------------------------------------
def test_a_model_that_counts_writes_on():
    assert generate(Counts(), [[3], [8, 9]], GREEDY, n_tokens=3) == [[4, 5, 6], [10, 11, 0]]
    assert list(stream(Counts(), [8, 9], GREEDY, n_tokens=3)) == [10, 11, 0]


def test_the_prompt_is_read_once_and_each_token_but_the_last_once():
    model = Counts()
    generate(model, [[1, 2, 3]], GREEDY, n_tokens=3)
    assert model.read == [[[1, 2, 3]], [[4]], [[5]]]
    assert model.caches == [(1, 6)]
    assert model.n_logits == 3  # of the places that were asked for, not of the whole prompt
    assert [context.positions.tolist() for context in model.contexts] == [[0, 1, 2], [3], [4]]


def test_rows_of_one_length_need_no_mask():
    model = Counts()
    generate(model, [[1, 2], [3, 4]], GREEDY, n_tokens=3)
    assert [context.mask for context in model.contexts] == [None] * 3


def test_shorter_rows_are_filled_up_on_the_left_and_count_from_their_own_beginning():
    model = Counts()
    generate(model, [[5, 6, 7, 8], [3, 4]], GREEDY, n_tokens=2)
    prompt, step = model.contexts
    assert model.read == [[[5, 6, 7, 8], [0, 0, 3, 4]], [[9], [5]]]
    assert prompt.positions.tolist() == [[0, 1, 2, 3], [0, 0, 0, 1]]
    assert step.positions.tolist() == [[4], [2]]
    assert step.mask.int().tolist() == [[[[1, 1, 1, 1, 1]]], [[[0, 0, 1, 1, 1]]]]
    assert prompt.mask[0, 0].int().tolist() == torch.ones(4, 4).tril().int().tolist()
    assert prompt.mask[1, 0].int().tolist() == [
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 1, 1],
    ]


def test_a_row_ends_before_its_stop_token_and_the_others_go_on():
    model = Counts()
    assert generate(model, [[1], [6], [8]], GREEDY, n_tokens=5, stop_ids=[4, 10]) == [
        [2, 3],
        [7, 8, 9],
        [9],
    ]
    assert len(model.read) == 4  # the last row that runs stops at the fourth token
    assert generate(Counts(), [[1]], GREEDY, n_tokens=2, stop_ids=[4]) == [[2, 3]]
    assert generate(Counts(), [[3]], GREEDY, n_tokens=2, stop_ids=[4]) == [[]]
    assert list(stream(Counts(), [1], GREEDY, n_tokens=5, stop_ids=[4, 10])) == [2, 3]


def test_a_stream_works_no_further_than_it_is_asked():
    model = Counts()
    tokens = stream(model, [1], GREEDY, n_tokens=9)
    assert model.read == []
    assert next(tokens) == 2
    assert len(model.read) == 1
    assert [next(tokens), next(tokens)] == [3, 4]
    assert len(model.read) == 3


def test_filters_come_in_the_order_of_the_fields():
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    config = SampleConfig(temperature=0.5, top_k=3, top_p=0.6)
    # squares: 16, 9, 4, 1; of the first three 16/29 are not 0.6, 25/29 are
    p = config.filtered(logits).softmax(dim=-1).tolist()
    assert p == pytest.approx([16 / 25, 9 / 25, 0, 0])
    # after min_p alone 4/7 would be left to the first, and reach 0.55
    both = SampleConfig(top_p=0.55, min_p=0.6).filtered(logits)
    assert both.isfinite().tolist() == [True, True, False, False]
    assert torch.equal(FREE.filtered(logits), logits)


def test_the_random_number_decides_and_greedy_does_not_look_at_it():
    logits = torch.tensor([0.2, 0.5, 0.3]).log().expand(4, 3)
    numbers = torch.tensor([0.1, 0.3, 0.6, 0.8])
    assert FREE.choose(logits, numbers).tolist() == [0, 1, 1, 2]
    assert GREEDY.choose(logits, numbers).tolist() == [1] * 4
    assert SampleConfig(top_k=2).choose(logits, numbers).tolist() == [1, 1, 1, 2]


def test_a_suppressed_token_is_never_chosen_however_likely_it_is():
    logits = torch.tensor([9.0, 8.0, 1.0, 1.0])
    for temperature in (0, 1, 1e6):
        config = SampleConfig(temperature=temperature, suppress_tokens=(0, 1))
        chosen = config.choose(logits.expand(99, 4), torch.arange(99) / 99)
        assert set(chosen.tolist()) == ({2} if temperature == 0 else {2, 3})


def test_numbers_of_16_bits_are_widened_before_they_are_drawn_from():
    # 4000 equally likely tokens: sums in bfloat16 would stand still at a fraction of them
    logits = torch.zeros(1, 4000, dtype=torch.bfloat16)
    assert FREE.choose(logits, torch.tensor([0.9])).item() == pytest.approx(3600, abs=2)


# --- twin --------------------------------------------------------------------------------------
def written_naively(model, prompt, config, *, n_tokens, seed, row):
    """Everything read anew for each token; no cache, no padding, no batch."""
    numbers = np.random.default_rng([seed, row]).random(n_tokens, dtype=np.float32)
    tokens = list(prompt)
    for number in numbers.tolist():
        with torch.no_grad():
            logits = model(torch.tensor([tokens]))[0, -1]
        if config.temperature == 0:
            tokens.append(logits.argmax().item())
        else:
            p = config.filtered(logits).softmax(dim=-1).double()
            edges = (p.cumsum(dim=-1) / p.sum()).tolist()
            tokens.append(next(token for token, edge in enumerate(edges) if edge > number))
    return tokens[len(prompt) :]


@ALL_KINDS
@pytest.mark.parametrize("sampling", [GREEDY, FILTERED], ids=["greedy", "filtered"])
def test_a_padded_batch_with_a_cache_is_each_row_alone_without(config, sampling):
    model = built(config)
    found = generate(model, PROMPTS, sampling, n_tokens=8, seed=3)
    alone = [
        written_naively(model, prompt, sampling, n_tokens=8, seed=3, row=row)
        for row, prompt in enumerate(PROMPTS)
    ]
    assert found == alone
    assert len({tuple(row) for row in found}) == len(PROMPTS)


@pytest.mark.parametrize("sampling", [GREEDY, FILTERED], ids=["greedy", "filtered"])
def test_a_stream_is_a_row_of_generate(sampling):
    model = built()
    options = {"n_tokens": 12, "seed": 5, "stop_ids": [2, 14]}
    rows = generate(model, PROMPTS, sampling, **options)
    for row, prompt in enumerate(PROMPTS):
        assert list(stream(model, prompt, sampling, row=row, **options)) == rows[row]


def test_temperature_zero_is_the_limit_of_small_temperatures():
    model = built()
    cold = SampleConfig(temperature=1e-4)
    assert generate(model, PROMPTS, cold, n_tokens=12) == generate(
        model, PROMPTS, GREEDY, n_tokens=12
    )


# --- reference ---------------------------------------------------------------------------------
@pytest.mark.parametrize("config", [TOY, KINDS["gqa-tied"]], ids=["toy", "gqa-tied"])
def test_greedy_text_is_that_of_transformers(config, tmp_path):
    ours = built(config)
    save(ours, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokens, n_padding = left_pad(PROMPTS)
    mask = torch.tensor([[0] * n + [1] * (tokens.shape[1] - n) for n in n_padding])
    options = {"max_new_tokens": 16, "do_sample": False, "pad_token_id": 0}
    expected = theirs.generate(tokens, attention_mask=mask, **options)[:, tokens.shape[1] :]
    assert generate(ours, PROMPTS, GREEDY, n_tokens=16) == expected.tolist()
    alone = theirs.generate(tokens[:1], attention_mask=mask[:1], eos_token_id=[7, 10], **options)
    found = generate(ours, PROMPTS[:1], GREEDY, n_tokens=16, stop_ids=[7, 10])[0]
    kept = alone[0, tokens.shape[1] :].tolist()  # theirs keep the token that ends the text
    assert found == (kept[:-1] if kept[-1] in (7, 10) else kept)


# --- law ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("sampling", [GREEDY, FILTERED], ids=["greedy", "filtered"])
def test_a_row_does_not_depend_on_its_neighbours(sampling):
    model = built()
    rows = generate(model, PROMPTS, sampling, n_tokens=12, seed=1)
    others = [[1] * 9, PROMPTS[1], [2], PROMPTS[3], [4, 4, 4, 4]]
    again = generate(model, others, sampling, n_tokens=12, seed=1, stop_ids=[9])
    for row in (1, 3):
        until = rows[row].index(9) if 9 in rows[row] else 12
        assert again[row] == rows[row][:until]


def test_many_prompts_may_be_done_in_several_calls():
    model, options = built(), {"n_tokens": 8, "seed": 2}
    whole = generate(model, PROMPTS, FREE, **options)
    parts = generate(model, PROMPTS[:1], FREE, **options)
    parts += generate(model, PROMPTS[1:], FREE, first_row=1, **options)
    assert parts == whole


def test_a_shorter_text_is_the_beginning_of_a_longer_one():
    model = built()
    longer = generate(model, PROMPTS, FREE, n_tokens=20)
    for n_tokens in (1, 2, 7, 19):
        shorter = generate(model, PROMPTS, FREE, n_tokens=n_tokens)
        assert shorter == [row[:n_tokens] for row in longer]


def test_a_seed_means_one_text_and_equal_prompts_get_different_ones():
    model = built()
    once = generate(model, [[3, 4]] * 4, FREE, n_tokens=10, seed=7)
    assert once == generate(model, [[3, 4]] * 4, FREE, n_tokens=10, seed=7)
    assert len({tuple(row) for row in once}) == 4
    assert once[0] != generate(model, [[3, 4]], FREE, n_tokens=10, seed=8)[0]


def test_what_is_written_is_as_frequent_as_the_model_says():
    model = built()
    with torch.no_grad():
        logits = model(torch.tensor([[3, 4]]))[0, -1].double()
    p = FILTERED.filtered(logits).softmax(dim=-1).numpy()
    written = generate(model, [[3, 4]] * 3000, FILTERED, n_tokens=1, seed=0)
    counts = np.bincount(np.array(written).ravel(), minlength=19)
    assert set(np.flatnonzero(counts)) <= set(np.flatnonzero(p))
    assert np.count_nonzero(p) > 4
    assert chisquare(counts[p > 0], 3000 * p[p > 0]).pvalue > 0.001


def test_random_numbers_of_one_row_follow_each_other_by_chance_too():
    # the same 19 x 19 table at every place: a model that looks at the last token alone
    model = built(replace(TOY, n_layers=1))
    with torch.no_grad():
        model.blocks[0].mixer.output.weight.zero_()
        table = model(torch.arange(19)[:, None])[:, 0].double().softmax(dim=-1).numpy()
    rows = np.array(generate(model, [[3]] * 150, FREE, n_tokens=31, seed=0))
    rows = np.column_stack([np.full(150, 3), rows])
    before, after = rows[:, :-1].ravel(), rows[:, 1:].ravel()
    commonest = np.bincount(before).argmax()
    expected = table[commonest] * (before == commonest).sum()
    counts = np.bincount(after[before == commonest], minlength=19)
    rare = expected < 5
    if rare.any():
        counts = np.append(counts[~rare], counts[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
    assert counts.sum() > 300
    assert chisquare(counts, expected / expected.sum() * counts.sum()).pvalue > 0.001


def test_torch_keeps_its_random_state_and_its_mode():
    model = built()
    before = torch.random.get_rng_state()
    tokens = stream(model, [3, 4], FREE, n_tokens=5)
    for _ in tokens:
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
    generate(model, PROMPTS, FREE, n_tokens=5)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_model_that_has_written_can_still_be_trained():
    model = built()
    model.context_length = 64  # more than rotations are prepared for: writing prepares them
    generate(model, [[3] * 30], GREEDY, n_tokens=20)
    assert len(model.blocks[0].mixer.rotations.table) > 32
    assert not any(buffer.is_inference() for buffer in model.buffers())
    loss(model, torch.tensor([[1, 2, 3]])).nats.backward()
    assert model.blocks[0].mixer.qkv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_it_writes_in_other_types(dtype):
    model = TOY.build(dtype=dtype)
    rows = generate(model, PROMPTS, FILTERED, n_tokens=6)
    assert [len(row) for row in rows] == [6] * 4
    assert all(0 <= token < 19 for row in rows for token in row)


def test_prompts_may_be_arrays_and_tensors():
    model = built()
    expected = generate(model, [[3, 4], [5, 6]], FREE, n_tokens=4)
    for prompts in (np.array([[3, 4], [5, 6]]), torch.tensor([[3, 4], [5, 6]])):
        assert generate(model, prompts, FREE, n_tokens=4) == expected
    assert list(stream(model, np.array([3, 4]), FREE, n_tokens=4)) == expected[0]


# --- bad input ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompts": []}, "at least one prompt, a list of token ids; got none"),
        ({"prompts": [[]]}, "a prompt must have at least one token"),
        ({"prompts": [[3], []]}, "a row of padding alone has none; prompts[1] is empty"),
        ({"prompts": [[3, 19]]}, "the prompt: token 19 at place 1 is outside the vocabulary of 19"),
        ({"prompts": [[3], [4, -1]]}, "prompts[1]: token -1 at place 1 is outside"),
        ({"prompts": [3, 4]}, "prompts[0]: a row must be integers"),
        ({"prompts": [[3], [0.5]]}, "prompts[1]: a row must be integers"),
        ({"n_tokens": 31}, "prompts[1] has 2 tokens"),
        ({"n_tokens": 31}, "at most 30 may still be generated; got n_tokens=31"),
        ({"prompts": [[3] * 32], "n_tokens": 1}, "the prompt has 32 tokens"),
        ({"prompts": [[3] * 32], "n_tokens": 1}, "at most 0 may still be generated"),
        ({"prompts": [[3] * 50], "n_tokens": 1}, "at most 0 may still be generated"),
        ({"n_tokens": 0}, "n_tokens must be at least 1"),
        ({"stop_ids": [19]}, "stop_ids: token 19 at place 0 is outside"),
        ({"config": SampleConfig(suppress_tokens=(19,))}, "suppress_tokens: token 19 at place 0"),
        ({"config": SampleConfig(suppress_tokens=(*range(19),))}, "names all 19 tokens"),
        ({"seed": -1}, "at least 0; got seed -1 and row 0"),
        ({"first_row": -2}, "got seed 0 and row -2"),
    ],
)
def test_bad_input_is_named(change, words):
    arguments = {"prompts": [[3], [4, 5]], "config": FREE, "n_tokens": 4, **change}
    with pytest.raises(ValueError) as error:
        generate(built(), **arguments)
    assert words in str(error.value)


def test_the_context_can_be_filled_to_its_last_token():
    assert len(generate(built(), [[3, 4], [5]], FREE, n_tokens=30)[0]) == 30


def test_a_stream_complains_at_once():
    with pytest.raises(ValueError, match="a prompt must have at least one token"):
        stream(built(), [], FREE, n_tokens=4)
    with pytest.raises(ValueError, match="the prompt: token 19 at place 0"):
        stream(built(), [19], FREE, n_tokens=4)


@pytest.mark.parametrize("config", [GREEDY, FREE, replace(FREE, suppress_tokens=(0,))])
@pytest.mark.parametrize("bad", [[math.nan], [math.inf], [-math.inf] * 18])
@pytest.mark.parametrize("step", [0, 2])
def test_logits_to_which_nothing_can_be_chosen_are_refused_at_their_step(
    monkeypatch, config, bad, step
):
    def logits_at(hidden):
        rows = type(model).logits(model, hidden)
        seen.append(rows)
        if len(seen) == step + 1:
            rows[-1, 0, -len(bad) :] = torch.tensor(bad)
            rows[-1, 0, 0] = -math.inf  # alone it only rules a token out
        return rows

    model = built()
    monkeypatch.setattr(model, "logits", logits_at)
    words = rf"new token {step}: the model's largest logit in row \d is {bad[0]}"
    for write in (
        lambda: generate(model, [[4], [7, 3]], config, n_tokens=4),
        lambda: list(stream(model, [7, 3], config, n_tokens=4)),
    ):
        seen = []
        with pytest.raises(ValueError, match=words):
            write()


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ({"temperature": -0.5}, "temperature must be a finite number of at least 0"),
        ({"temperature": math.nan}, "got nan"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1"),
        ({"top_p": 1.5}, "got 1.5"),
        ({"min_p": 1.0}, "min_p must be at least 0 and below 1"),
        ({"min_p": -0.1, "temperature": 0}, "got -0.1"),
    ],
)
def test_a_config_names_the_number_that_is_wrong(number, words):
    with pytest.raises(ValueError) as error:
        SampleConfig(**number)
    assert words in str(error.value)
