from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, GenerationConfig

from minillm.experts.hash_routing import HashedMoEConfig
from minillm.experts.moe import MoEConfig
from minillm.formats.hf import save
from minillm.mixers.linear_attention import LinearAttentionConfig
from minillm.mixers.mamba import MambaConfig
from minillm.mixers.retention import RetentionConfig
from minillm.mixers.rwkv import RWKVConfig
from minillm.mixers.short_conv import ShiftedConfig
from minillm.mixers.sparse import SparseAttentionConfig
from minillm.mixers.streaming import streaming
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.serve.detokenize import stream_text
from minillm.serve.engine import Engine, EngineConfig
from minillm.serve.request import Request
from minillm.serve.sample import SampleConfig, stream
from minillm.text.tokenizer import Tokenizer

GREEDY, FREE = SampleConfig(temperature=0), SampleConfig()
TOY = TransformerConfig(
    vocab_size=256, context_length=48, d_model=8, n_layers=2, mixer=AttentionConfig(n_heads=2)
)
TOKENIZER = Tokenizer(())  # bytes
KINDS = {
    "grouped window": replace(TOY, mixer=AttentionConfig(n_heads=4, n_kv_heads=2, window_tokens=5)),
    "sparse": replace(TOY, mixer=SparseAttentionConfig(attention=AttentionConfig(n_heads=2))),
    "linear": replace(TOY, mixer=LinearAttentionConfig(n_heads=2)),
    "retention": replace(TOY, mixer=RetentionConfig(n_heads=2)),
    "rwkv": replace(TOY, mixer=RWKVConfig()),
    "mamba": replace(TOY, mixer=MambaConfig()),
    "shifted attention": replace(TOY, mixer=ShiftedConfig(mixer=AttentionConfig(n_heads=2))),
    "experts": replace(TOY, ffn=MoEConfig(n_experts=4, d_expert=8)),
    "hashed experts": replace(
        TOY, ffn=HashedMoEConfig(vocab_size=256, n_domains=1, experts_per_domain=3, d_expert=8)
    ),
}


def built(config=TOY, seed=0):
    """A model in float64 whose weights are large enough to make a difference."""
    model = config.build(seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4).add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


MODEL = built()
SMALL = built(replace(TOY, n_layers=1, context_length=24))


def alone(model, request):
    """Tokens and text of a request by itself, without an engine."""
    tokens = []

    def noted():
        for token in stream(
            model,
            request.prompt,
            request.config,
            n_tokens=request.n_tokens,
            stop_ids=request.stop_ids,
            seed=request.seed,
        ):
            tokens.append(token)
            yield token

    text = "".join(stream_text(noted(), TOKENIZER, request.stop))
    return tokens, text


def some_requests(n, **kwargs):
    shared = tuple(range(20))
    return [
        Request(prompt=(*shared[: 3 * (i % 5)], i, 7), n_tokens=3 + i % 6, seed=i, **kwargs)
        for i in range(n)
    ]


# --- the law ------------------------------------------------------------------------------------
LETTERS = st.integers(97, 99)  # few, so that prompts begin alike and stop texts come true


@st.composite
def requests(draw):
    n_tokens = draw(st.integers(1, 8))
    prompt = draw(st.lists(LETTERS, min_size=1, max_size=24 - n_tokens))
    others = tuple(token for token in range(256) if token not in (97, 98, 99))
    return Request(
        prompt=tuple(prompt),
        n_tokens=n_tokens,
        config=replace(draw(st.sampled_from([GREEDY, FREE])), suppress_tokens=others),
        stop_ids=draw(st.sampled_from([(), (98,)])),
        stop=draw(st.sampled_from([(), ("cab",), ("aa", "ca")])),
        seed=draw(st.integers(0, 3)),
    )


@given(st.lists(st.tuples(st.integers(0, 4), requests()), min_size=1, max_size=6), st.data())
@settings(max_examples=40, deadline=None)
def test_everybody_gets_what_he_would_get_alone_whatever_the_others_do(arrivals, data):
    size = data.draw(st.sampled_from([1, 2, 3, 4, 7, 16]), "block_size")
    n_needed = max(-(-(len(r.prompt) + r.n_tokens - 1) // size) for _, r in arrivals)
    max_batch = data.draw(st.integers(1, 5), "max_batch")
    config = EngineConfig(
        max_batch=max_batch,
        block_size=size,
        n_blocks=n_needed + data.draw(st.integers(0, 6), "blocks to spare"),
        step_tokens=max_batch + data.draw(st.integers(0, 20), "budget to spare"),
        share_prefixes=data.draw(st.booleans(), "share"),
        static=data.draw(st.booleans(), "static"),
    )
    engine = Engine(SMALL, TOKENIZER, config)
    arrivals, texts, tokens, expected, done = list(arrivals), {}, {}, {}, set()
    while arrivals or engine.has_work:
        while arrivals and (arrivals[0][0] == 0 or not engine.has_work):
            request = arrivals.pop(0)[1]
            expected[engine.submit(request)] = alone(SMALL, request)
        if arrivals:
            arrivals[0] = (arrivals[0][0] - 1, arrivals[0][1])
        oldest = min(number for number in expected if number not in done)
        for event in engine.step():
            texts[event.number] = texts.get(event.number, "") + event.text
            tokens.setdefault(event.number, []).extend(t for t in [event.token] if t is not None)
            done |= {event.number} if event.finish_reason else set()
        read = [number for number, _, _ in engine.last_step]
        assert oldest in read  # so nobody starves
        assert sum(n_new for _, _, n_new in engine.last_step) <= config.step_tokens
    for number, (its_tokens, its_text) in expected.items():
        assert (tokens[number], texts[number]) == (its_tokens, its_text)
    assert engine.load.n_blocks_used == 0


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS.keys())
def test_every_kind_of_model_gives_each_what_it_would_alone(config):
    model = built(config)
    engine = Engine(model, config=EngineConfig(max_batch=3, block_size=4, n_blocks=9))
    asked = some_requests(9)
    for request, answer in zip(asked, engine.run(asked), strict=True):
        assert answer.tokens == alone(model, request)[0]
    assert engine.load.n_blocks_used == 0


def test_where_a_mixer_keeps_a_state_nothing_is_shared_and_who_was_stopped_reads_again():
    model = built(KINDS["mamba"])
    engine = Engine(model, config=EngineConfig(max_batch=4, block_size=2, n_blocks=16))
    asked = [replace(each, n_tokens=12) for each in some_requests(6)]
    for request, answer in zip(asked, engine.run(asked), strict=True):
        assert answer.tokens == alone(model, request)[0]
    assert engine.load.n_shared_tokens == 0
    assert engine.load.n_preemptions > 0


def test_a_conversation_that_goes_on_reads_only_what_is_new():
    engine = Engine(MODEL, config=EngineConfig(block_size=4))
    first = Request(prompt=tuple(range(10)), n_tokens=6, config=GREEDY)
    (answer,) = engine.run([first])
    engine.submit(replace(first, prompt=(*first.prompt, *answer.tokens, 9)))
    engine.step()
    assert engine.last_step == [(1, 0, 17 - 12)]  # of 15 stored tokens, those in full blocks
    assert engine.load.n_shared_tokens == 12


def test_the_greedy_answers_are_those_of_transformers_one_by_one_and_of_its_paged_batches(
    tmp_path,
):
    model = built(replace(TOY, context_length=64)).float()
    save(model, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    prompts = [[1, 2, 3, 4, 5, 6], [9], [1, 2, 3, 4, 8], [200, 7, 7]]
    asked = [Request(prompt=tuple(each), n_tokens=8, config=GREEDY) for each in prompts]
    config = EngineConfig(max_batch=2, block_size=4, step_tokens=5)
    ours = [answer.tokens for answer in Engine(model, config=config).run(asked)]
    kwargs = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": -1, "pad_token_id": 0}
    for prompt, answer in zip(prompts, ours, strict=True):
        assert (
            answer == theirs.generate(torch.tensor([prompt]), **kwargs)[0, len(prompt) :].tolist()
        )
    theirs.set_attn_implementation("paged|eager")
    batch = theirs.generate_batch(
        prompts, generation_config=GenerationConfig(**kwargs, block_size=4, num_blocks=16)
    )
    assert ours == [batch[name].generated_tokens for name in sorted(batch)]


# --- one request --------------------------------------------------------------------------------
def test_a_logprob_is_the_models_own_before_any_filter():
    request = Request(prompt=(5, 6), n_tokens=3, config=SampleConfig(top_k=1), n_logprobs=2)
    (answer,) = Engine(MODEL).run([request])
    with torch.no_grad():
        logprobs = MODEL(torch.tensor([[5, 6, *answer.tokens]])).float().log_softmax(-1)[0]
    for token, row, (chosen, top) in zip(
        answer.tokens, logprobs[1:], answer.logprobs, strict=False
    ):
        values, ids = row.topk(2)
        assert chosen == pytest.approx(row[token].item(), rel=1e-5)
        assert [token for token, _ in top] == ids.tolist()
        assert [value for _, value in top] == pytest.approx(values.tolist(), rel=1e-5)
    assert answer.finish_reason == "length"


@dataclass(frozen=True)
class Alternating:
    """Token 1, then 2, then 1 and so on."""

    last: int = 2

    def allowed(self):
        return torch.arange(256) == 3 - self.last

    def after(self, token):
        return Alternating(token)


def test_a_constraint_is_asked_before_every_token_and_its_request_alone():
    requests = some_requests(3)
    requests[1] = replace(requests[1], constraint=Alternating(), n_tokens=4)
    answers = Engine(MODEL).run(requests)
    assert answers[1].tokens == [1, 2, 1, 2]
    for place in (0, 2):
        assert answers[place].tokens == alone(MODEL, requests[place])[0]


def test_who_is_cancelled_gives_all_blocks_back_running_or_waiting():
    engine = Engine(MODEL, config=EngineConfig(max_batch=1))
    first, second = (engine.submit(each) for each in some_requests(2))
    engine.step()
    assert engine.cancel(second).finish_reason == "cancelled"
    assert engine.load.n_blocks_used > 0
    assert engine.cancel(first).finish_reason == "cancelled"
    assert (engine.load.n_blocks_used, engine.has_work, engine.cancel(first)) == (0, False, None)
    assert engine.step() == []


def test_ctrl_c_in_a_run_leaves_nothing_behind(monkeypatch):
    engine = Engine(MODEL)
    step = engine.step

    def interrupted():
        if step():
            raise KeyboardInterrupt

    monkeypatch.setattr(engine, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.run(some_requests(3))
    assert (engine.load.n_blocks_used, engine.has_work) == (0, False)


# --- what is refused ----------------------------------------------------------------------------
def test_a_model_whose_answers_depend_on_who_else_is_there_is_refused_by_name():
    with pytest.raises(ValueError, match=r"feed-forward layer of block 0.*capacity_factor=1.25"):
        Engine(built(replace(TOY, ffn=MoEConfig(n_experts=4, router="switch", top_k=1))))
    hashed = HashedMoEConfig(vocab_size=256, n_domains=2, experts_per_domain=2)
    with pytest.raises(ValueError, match="experts of 2 domains"):
        Engine(built(replace(TOY, ffn=hashed)))


def test_a_mixer_with_a_cache_of_its_own_kind_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(type(MODEL.blocks[1].mixer), "new_cache", lambda *sizes: [])
    with pytest.raises(ValueError, match="the mixer of block 0, Attention, keeps a list"):
        Engine(MODEL)


def test_a_streaming_model_needs_a_number_of_blocks_and_is_then_served():
    model = streaming(MODEL, n_sinks=2, window_tokens=8)
    with pytest.raises(ValueError, match="n_blocks"):
        Engine(model)
    request = Request(prompt=tuple(range(30)), n_tokens=40)
    (answer,) = Engine(model, config=EngineConfig(n_blocks=8)).run([request])
    assert answer.tokens == alone(model, request)[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": ()}, "at least one token"),
        ({"n_tokens": 47}, "context_length"),
        ({"n_tokens": 40}, r"42 stored tokens, and the cache has 2 blocks of 16, 32 tokens"),
        ({"stop": ("x",)}, "no tokenizer"),
        ({"n_logprobs": 257}, "0 to 256"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_can_never_be_answered_is_refused_at_once(changes, message):
    engine = Engine(MODEL, config=EngineConfig(n_blocks=2))
    with pytest.raises(ValueError, match=message):
        engine.submit(replace(Request(prompt=(1, 2, 3), n_tokens=2), **changes))
    assert not engine.has_work
