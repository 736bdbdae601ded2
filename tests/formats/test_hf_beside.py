"""minillm.formats.hf_beside: what would change an id is refused by name, all else is known."""

import json

import pytest
from tokenizers import Tokenizer as TheirTokenizer
from tokenizers import processors
from transformers import GenerationConfig

from minillm.formats.hf_beside import check_generation, check_tokenizer_config
from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.text.fast import to_tokenizers_json
from minillm.text.tokenizer import Tokenizer

CONTENT = json.loads(to_tokenizers_json(Tokenizer(((104, 105), (32, 256)), ("<s>",))))
PLAIN = JsonTokenizer(CONTENT)


def beginning():
    """The same with a token before every text."""
    theirs = TheirTokenizer.from_str(json.dumps(CONTENT))
    theirs.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 258)])
    return JsonTokenizer(json.loads(theirs.to_str()))


def test_how_its_authors_would_draw_a_text_is_not_our_matter():
    check_generation({"eos_token_id": [2, 3], "do_sample": True, "temperature": 0.6, "top_k": 20})
    check_generation({"repetition_penalty": 1.0, "num_beams": 1, "stop_strings": None})


def test_transformers_own_defaults_ask_for_nothing():
    check_generation(GenerationConfig().to_dict())


@pytest.mark.parametrize(
    ("key", "value"),
    [("repetition_penalty", 1.05), ("suppress_tokens", [3]), ("bad_words_ids", [[3]]),
     ("forced_bos_token_id", 1), ("num_beams", 4), ("stop_strings", ["a"]), ("unheard_of", 0.5)],
)  # fmt: skip
def test_what_would_draw_other_tokens_is_refused_by_name(key, value):
    with pytest.raises(ValueError, match=rf"it says {key}: .*, which minillm does not do"):
        check_generation({"eos_token_id": 2, key: value})


@pytest.mark.parametrize("tokenizer, begins", [(PLAIN, False), (beginning(), True)])
def test_what_both_files_say_must_be_the_same(tokenizer, begins):
    alike = {"add_bos_token": begins, "add_eos_token": False, "add_prefix_space": False}
    decoder = {"258": {"content": "<s>", "special": True}}
    check_tokenizer_config(
        {**alike, "chat_template": "x", "added_tokens_decoder": decoder}, tokenizer
    )
    check_tokenizer_config(dict.fromkeys(alike), tokenizer)
    for key, value in alike.items():
        with pytest.raises(ValueError, match=f"it says {key}: {not value}, but .* as with {value}"):
            check_tokenizer_config({**alike, key: not value}, tokenizer)


def test_tokens_that_are_not_there_and_unknown_keys_are_named():
    with pytest.raises(ValueError, match="it adds tokens with the ids 259, 260, which tokenizer"):
        check_tokenizer_config({"added_tokens_decoder": {"260": {}, "258": {}, "259": {}}}, PLAIN)
    with pytest.raises(ValueError, match=r"does not know: do_lower_case, strip\. Take out"):
        check_tokenizer_config({"strip": True, "do_lower_case": True, "eos_token": "<s>"}, PLAIN)
