import json
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from minillm.formats.gguf_tokenizer import PATTERNS, tokenizer_metadata
from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.text.bpe import train
from minillm.text.fast import to_tokenizers_json
from minillm.text.tokenizer import Tokenizer

END = "<|end|>"
GPT2 = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
TEXT = 'the hen\'s "12" eggs!  村里 人é.\n\n\tthe 345 hens. ' * 9
OURS = JsonTokenizer(json.loads(to_tokenizers_json(train([TEXT], 280))))
BY_GPT2 = JsonTokenizer(OURS.content | {"pre_tokenizer": GPT2})
A, B = ({"Sequence": {"id": id, "type_id": 0}} for id in "AB")
BEGIN = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": END, "type_id": 0}}, A],
    "pair": [A, B],
    "special_tokens": {END: {"id": END, "ids": [258], "tokens": [END]}},
}


def tokenizer(**changes):
    """Two merges and a special token; parts of its file, and of its model, may be others."""
    content = json.loads(to_tokenizers_json(Tokenizer(((104, 105), (32, 256)), (END,))))
    for key, value in changes.items():
        part = content["model"] if key in content["model"] else content
        part[key] = value
    return JsonTokenizer(content)


def split_by(pattern):
    split = {"type": "Split", "behavior": "Isolated", "invert": False}
    split["pattern"] = {"Regex": pattern}
    return {"type": "Sequence", "pretokenizers": [split, GPT2 | {"use_regex": False}]}


def metadata(tokenizer, vocab_size=259, end_ids=(258,)):
    values = tokenizer_metadata(tokenizer, vocab_size, end_ids)
    return {key.removeprefix("tokenizer.ggml."): value for key, value in values.items()}


# --- by hand --------------------------------------------------------------------------------------
def test_tokens_merges_and_ids_are_all_there():
    values = metadata(tokenizer(), vocab_size=261)
    assert values.pop("tokens")[254:] == ["þ", "ÿ", "hi", "Ġhi", END, "[PAD259]", "[PAD260]"]
    assert values.pop("token_type") == [1] * 258 + [3, 5, 5]
    assert values == {
        "model": "gpt2",
        "pre": "gpt-2",
        "merges": ["h i", "Ġ hi"],
        "bos_token_id": 258,  # else llama.cpp takes 11
        "add_bos_token": False,
        "add_eos_token": False,
        "eos_token_id": 258,
    }


def test_a_token_that_begins_each_text_is_one_that_is_added():
    values = metadata(tokenizer(post_processor=BEGIN), end_ids=(257, 256))
    assert (values["bos_token_id"], values["add_bos_token"]) == (258, True)
    assert (values["eos_token_id"], values["eot_token_id"]) == (257, 256)


def test_tokens_of_every_text_are_not_special_and_merges_of_older_files_are_texts():
    added = [token | {"special": False} for token in tokenizer().content["added_tokens"]]
    values = metadata(tokenizer(added_tokens=added, merges=["h i", "Ġ hi"]))
    assert (values["token_type"][-1], values["merges"]) == (4, ["h i", "Ġ hi"])


def test_four_digits_may_get_other_ids_by_gpt2s_pattern():
    ours = json.loads(to_tokenizers_json(Tokenizer(((51, 52),))))  # 3 and 4 are one token
    theirs = JsonTokenizer(ours | {"pre_tokenizer": GPT2})
    assert JsonTokenizer(ours).encode("1234") == [49, 50, 51, 52]  # cut into 123 and 4
    assert theirs.encode("1234") == [49, 50, 256]


# --- laws -----------------------------------------------------------------------------------------
WORDS = ["the", " hen", "'s", "12", " 7", "\n", "  ", "\t", "!", ' "', "村里", " 人", "é", ".", " "]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=12).map("".join))
def test_most_texts_get_the_same_ids_by_gpt2s_pattern(text):
    assume(not re.search("[0-9]{4}", text))
    assert BY_GPT2.encode(text) == OURS.encode(text)


# --- reference ------------------------------------------------------------------------------------
def test_patterns_are_those_that_transformers_has_under_these_names():
    for pattern, name in PATTERNS.items():
        assert name == "gpt-2" or GGUF_PRE_TOKENIZER_SPLITS[name] == pattern
        ignores = {"ignore_merges": True} if name == "llama-bpe" else {}
        assert metadata(tokenizer(pre_tokenizer=split_by(pattern), **ignores))["pre"] == name
    assert metadata(tokenizer(pre_tokenizer=GPT2))["pre"] == "gpt-2"


# --- what can be wrong ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "asked", "words"),
    [
        ({"pre_tokenizer": split_by(r"\S+|\s+")}, {}, "this one, Sequence with its settings"),
        ({"pre_tokenizer": GPT2 | {"use_regex": False}}, {}, "this one, ByteLevel with"),
        ({"pre_tokenizer": {"type": "Metaspace", "replacement": "▁"}}, {}, "this one, Metaspace"),
        ({"pre_tokenizer": None}, {}, "this one, None"),
        ({"normalizer": {"type": "Lowercase"}}, {}, "is not on it as far as minillm knows"),
        ({"ignore_merges": True}, {}, "gpt-2 has not ignore_merges=True"),
        ({}, {"end_ids": ()}, "needs 1 to 3 ids that end a text; got"),
        ({}, {"end_ids": (1, 2, 3, 4)}, r"got \[1, 2, 3, 4\]"),
        ({}, {"vocab_size": 258}, "has 259 ids and the model 258"),
    ],
)
def test_what_a_file_cannot_say_is_refused(changes, asked, words):
    with pytest.raises(ValueError, match=words):
        metadata(tokenizer(**changes), **asked)
