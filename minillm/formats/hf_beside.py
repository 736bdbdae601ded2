"""What stands beside a config.json: generation_config.json and tokenizer_config.json.

The first says which ids end a text, and how its authors would draw one; the second repeats what
tokenizer.json says, and may say something else. What would change an id, and is not done here, is
refused by name; so is every key that is not known.

Chapter: 04
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from minillm.formats.json_file import read_object
from minillm.formats.tokenizer_json import JsonTokenizer

#: Of generation_config.json: ids, who wrote it, and how to draw, which whoever samples says anew.
BESIDE_GENERATION = {
    "_from_model_config", "bos_token_id", "cache_implementation", "do_sample", "eos_token_id",
    "max_length", "max_new_tokens", "min_p", "pad_token_id", "temperature", "top_k", "top_p",
    "transformers_version", "use_cache",
}  # fmt: skip
#: Keys that change nothing at one value; any other key must be null or false.
NEUTRAL = {
    "repetition_penalty": 1,
    "length_penalty": 1,
    "num_beams": 1,
    "num_return_sequences": 1,
    "typical_p": 1,
    "no_repeat_ngram_size": 0,
    "min_length": 0,
}
#: Of tokenizer_config.json: what changes no id of a text.
BESIDE_TOKENIZER = {
    "additional_special_tokens", "auto_map", "backend", "bos_token", "chat_template", "cls_token",
    "clean_up_tokenization_spaces", "eos_token", "errors", "extra_special_tokens", "from_slow",
    "is_local", "legacy", "mask_token", "max_length", "merges_file", "model_input_names",
    "model_max_length", "model_specific_special_tokens", "name_or_path", "pad_to_multiple_of",
    "pad_token", "pad_token_type_id", "padding_side", "processor_class", "sep_token",
    "sp_model_kwargs", "spaces_between_special_tokens", "special_tokens_map_file",
    "split_special_tokens", "stride", "tokenizer_class", "tokenizer_file", "truncation_side",
    "truncation_strategy", "unk_token", "use_default_system_prompt", "use_fast", "vocab_file",
    # how someone once loaded it, which transformers writes down too
    "cache_dir", "force_download", "local_files_only", "revision", "subfolder", "token",
    "trust_remote_code", "_commit_hash",
}  # fmt: skip
#: Those that say what tokenizer.json says too.
REPEATED = {"add_bos_token", "add_eos_token", "add_prefix_space", "added_tokens_decoder"}


def check_generation(content: Mapping[str, Any]) -> None:
    """Refuse a generation_config.json that asks for what sampling here does not do.

    Raises:
        ValueError: names the key.

    Example:
        >>> check_generation({"eos_token_id": 2, "temperature": 0.6, "repetition_penalty": 1.0})
        >>> check_generation({"repetition_penalty": 1.05})
        Traceback (most recent call last):
            ...
        ValueError: it says repetition_penalty: 1.05, which minillm does not do; without that key,
            texts are drawn without it
    """
    for key, value in content.items():
        if key not in BESIDE_GENERATION and value not in (None, NEUTRAL.get(key, False)):
            raise ValueError(
                f"it says {key}: {value!r}, which minillm does not do; without that key, texts are "
                "drawn without it"
            )


def check_tokenizer_config(content: Mapping[str, Any], tokenizer: JsonTokenizer) -> None:
    """Refuse a tokenizer_config.json that asks for other ids than its tokenizer.json gives.

    Raises:
        ValueError: names the key.
    """
    if unknown := set(content) - BESIDE_TOKENIZER - REPEATED:
        raise ValueError(
            f"it has keys that minillm does not know: {', '.join(sorted(unknown))}. Take out of it "
            "what you know to change no id"
        )
    decoder = content.get("added_tokens_decoder") or {}
    if not isinstance(decoder, Mapping):
        raise ValueError(f"added_tokens_decoder must be an object; got {decoder!r}")
    if other := sorted(set(decoder) - set(map(str, tokenizer.ids))):
        raise ValueError(
            f"it adds tokens with the ids {', '.join(other[:5])}, which tokenizer.json has not; "
            "transformers' save_pretrained writes one that has them"
        )
    does = {
        "add_bos_token": bool(tokenizer.begin_ids),
        "add_eos_token": False,
        "add_prefix_space": tokenizer.decode_bytes(tokenizer.encode("a")).startswith(b" "),
    }
    for key, value in does.items():
        if content.get(key) not in (None, value):
            raise ValueError(
                f"it says {key}: {content[key]!r}, but the post_processor and the normalizer of "
                f"tokenizer.json do as with {value}; one of the two files is of another model"
            )


def check_has_rows(config: Path, file: str, ids: Collection[int]) -> None:
    """Refuse ids beyond the model's table, whose size its config says, if there is one.

    Args:
        config: path of config.json.
        file: where the ids stand.
        ids: of tokens.

    Raises:
        ValueError: one has no row.
    """
    vocab_size = read_object(config).get("vocab_size") if config.is_file() else None
    if isinstance(vocab_size, int) and max(ids, default=-1) >= vocab_size:
        raise ValueError(
            f"{file} has the id {max(ids)}, but the model's table has {vocab_size:,} rows, ids 0 "
            f"to {vocab_size - 1} (vocab_size in {config.name}); the two are of different models"
        )
