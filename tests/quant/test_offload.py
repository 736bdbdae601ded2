import threading
import weakref
from dataclasses import replace

import pytest
import torch

from minillm.formats import hf
from minillm.formats.safetensors_file import WHOLE
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.quant.offload import open_offloaded
from minillm.serve.sample import SampleConfig, generate

SMALL = TransformerConfig(vocab_size=20, context_length=32, d_model=16, n_layers=12)
BLOCK = 4 * (3 * 16 * 16 + 16 * 16 + 3 * 16 * 48 + 2 * 16)  # bytes: qkv, output, FFN, two gains
TABLES = 4 * (2 * 20 * 16 + 16)
KINDS = {
    "plain": SMALL,
    "tied, grouped": replace(
        SMALL,
        tied_embeddings=True,
        mixer=AttentionConfig(n_heads=4, n_kv_heads=2, qk_norm=True),
    ),
    "one block": replace(SMALL, n_layers=1),
}
TOKENS = torch.tensor([[7, 3, 9, 0, 19], [1, 1, 2, 3, 5]])
MUCH = 10**9


def saved(folder, config=SMALL, dtype=torch.float32, **options):
    model = config.build(seed=0, dtype=dtype)
    hf.save(model, folder, **options)
    return hf.load(folder)


def no_thread_is_left(before):
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
    return set(threading.enumerate()) <= before


# --- by hand -----------------------------------------------------------------------------------
@pytest.mark.parametrize(("read_ahead", "n_blocks"), [(True, 2), (False, 1)])
def test_the_tables_and_two_blocks_are_here_or_one(read_ahead, n_blocks, tmp_path):
    saved(tmp_path)
    cap = TABLES + n_blocks * BLOCK
    model, pager = open_offloaded(tmp_path, cap, read_ahead=read_ahead)
    assert pager.resident_bytes == TABLES
    model(TOKENS)
    model(TOKENS)
    assert pager.most_resident_bytes == cap
    assert pager.resident_bytes == TABLES + (n_blocks - 1) * BLOCK  # block 0 of the next pass
    assert pager.total_bytes == TABLES + 12 * BLOCK
    assert pager.most_resident_bytes < 0.25 * pager.total_bytes


def test_what_has_been_used_is_really_gone(tmp_path):
    saved(tmp_path)
    model, _ = open_offloaded(tmp_path, MUCH)
    seen, most = [], 0

    def look(block, inputs):
        nonlocal most
        seen.append(weakref.ref(block.mixer.qkv.weight.data.untyped_storage()))
        most = max(most, sum(each() is not None for each in seen))

    for block in model.blocks:
        block.ffn.register_forward_pre_hook(lambda _, inputs, block=block: look(block, inputs))
    model(TOKENS)
    assert len(seen) == 12 and most == 1
    weights = model.blocks[3].mixer.qkv.weight
    assert weights.isnan().all() and weights.untyped_storage().nbytes() == 4


# --- twin --------------------------------------------------------------------------------------
@pytest.mark.parametrize("read_ahead", [True, False])
@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS.keys())
def test_logits_and_texts_are_those_of_the_whole_model(config, read_ahead, tmp_path):
    whole = saved(tmp_path, config, max_shard_bytes=9000)
    model, _ = open_offloaded(tmp_path, MUCH, read_ahead=read_ahead)
    with torch.no_grad():
        assert torch.equal(model(TOKENS), whole(TOKENS))
    prompts = [[7, 3, 9], [4]]
    texts = [generate(each, prompts, SampleConfig(), n_tokens=5) for each in (model, whole)]
    assert texts[0] == texts[1]


def test_weights_are_cast_as_they_come(tmp_path):
    whole = saved(tmp_path, dtype=torch.bfloat16)
    model, pager = open_offloaded(tmp_path, MUCH, context_length=64)
    assert model.context_length == 64 and pager.total_bytes == TABLES + 12 * BLOCK
    with torch.no_grad():
        assert torch.equal(model(TOKENS), whole(TOKENS))


# --- what can be wrong -------------------------------------------------------------------------
def test_a_pass_that_is_broken_off_leaves_no_thread_and_no_weights(tmp_path):
    whole, before = saved(tmp_path), set(threading.enumerate())
    cap = TABLES + 2 * BLOCK
    model, pager = open_offloaded(tmp_path, cap)
    for error in (KeyboardInterrupt, RuntimeError):

        def stop(*_, error=error):
            raise error

        hook = model.blocks[5].ffn.register_forward_pre_hook(stop)
        with pytest.raises(error):
            model(TOKENS)
        hook.remove()
        assert no_thread_is_left(before)
        with torch.no_grad():
            assert torch.equal(model(TOKENS), whole(TOKENS))
        assert pager.most_resident_bytes == cap
    assert no_thread_is_left(before)


def test_a_file_that_is_cut_later_is_named_and_the_model_goes_on_once_it_is_whole(tmp_path):
    whole, before = saved(tmp_path), set(threading.enumerate())
    model, pager = open_offloaded(tmp_path, MUCH, read_ahead=False)
    content = (tmp_path / WHOLE).read_bytes()
    (tmp_path / WHOLE).write_bytes(content[:-1])
    with pytest.raises(ValueError, match="is cut off or damaged"):
        model(TOKENS)
    assert pager.resident_bytes == TABLES and no_thread_is_left(before)
    (tmp_path / WHOLE).write_bytes(content)
    with torch.no_grad():
        assert torch.equal(model(TOKENS), whole(TOKENS))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, f"at least {TABLES + 2 * BLOCK:,}: {TABLES:,} for the tables, {2 * BLOCK:,} for the"),
        ({"read_ahead": False}, f"{BLOCK:,} for the largest block of {TABLES + 12 * BLOCK:,} in"),
    ],
)
def test_a_cap_that_is_too_small_says_what_is_needed(options, words, tmp_path):
    saved(tmp_path)
    with pytest.raises(ValueError) as error:
        open_offloaded(tmp_path, TABLES + (2 - len(options)) * BLOCK - 1, **options)
    assert words in str(error.value)


def test_a_damaged_file_is_refused_at_once(tmp_path):
    saved(tmp_path)
    content = (tmp_path / WHOLE).read_bytes()
    (tmp_path / WHOLE).write_bytes(content[:-100])
    with pytest.raises(ValueError, match="is cut off or damaged"):
        open_offloaded(tmp_path, MUCH)
    (tmp_path / WHOLE).write_bytes(content[:-4] + b"\x00\x00\xc0\x7f")  # NaN, the last number
    with pytest.raises(ValueError, match="are NaN or infinite"):
        open_offloaded(tmp_path, MUCH)
