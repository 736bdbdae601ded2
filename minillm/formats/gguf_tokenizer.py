"""A tokenizer as a GGUF file holds it: tokens, merges, and the name of the way text is cut.

    tokenizer.ggml.model        gpt2: pairs of tokens are merged, bytes are written as characters
    tokenizer.ggml.pre          which of the patterns that llama.cpp knows cuts text into words
    tokenizer.ggml.tokens       Ā, ā, …, Ġthe, …; by id
    tokenizer.ggml.token_type   1 ordinary, 3 special, 4 special in every text, 5 no token at all
    tokenizer.ggml.merges       "Ġ t", "h e", …
    tokenizer.ggml.eos_token_id and so on

A file names a pattern and cannot hold one, so a tokenizer with another pattern cannot be written.
Ours is not on llama.cpp's list, and GPT-2's, from which ours comes, takes its place. No token spans
two of our words, so most texts get the same ids all the same: `12` after a space is one word of
GPT-2's and two of ours, yet no token begins with that space and a digit. Other ids go to some
numbers (four digits in a row, digits beyond 0 to 9) and to letters with combining marks.

**Ids that are not said.** Where a file names no end and no beginning, llama.cpp takes id 11, which
is a byte of ours: texts would end at it. So both are always written. A model that knows no token of
beginning gets its end token there, which stood before every text that it was trained on; and
`add_bos_token` says that nothing is put before a prompt.

Paper: none; llama.cpp, src/llama-vocab.cpp, and `tokenizer.ggml` of docs/gguf.md.
Differs: no chat templates. Qwen's NFC normalizer is dropped, as by llama.cpp.

Chapter: 18
"""

from collections.abc import Mapping, Sequence
from typing import Any

from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.text.pretokenize import PATTERN

_ENGLISH = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
#: Patterns by which text is cut, to llama.cpp's names for them.
PATTERNS = {
    PATTERN: "gpt-2",
    rf"{_ENGLISH}|\p{{N}}{{1,3}}{_REST}": "llama-bpe",
    rf"{_ENGLISH}|\p{{N}}{_REST}": "qwen2",
}
SPLIT = {"type": "Split", "behavior": "Isolated", "invert": False}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
#: Those with which llama.cpp takes a word that is a token as that token, without any merge.
IGNORES_MERGES = {"llama-bpe"}
ORDINARY, SPECIAL, ADDED, NO_TOKEN = 1, 3, 4, 5
ENDS = ("eos", "eot", "eom")  # of the text, of a turn, of a message: all end what is written


def tokenizer_metadata(
    tokenizer: JsonTokenizer, vocab_size: int, end_ids: Sequence[int]
) -> dict[str, Any]:
    """What a file says of a tokenizer.

    Args:
        tokenizer: of a tokenizer.json, whose tokens are of bytes.
        vocab_size: V of the model; ids that have no token are filled up.
        end_ids: that end a text, the usual one first.

    Raises:
        ValueError: the tokens are of characters; text is cut by a pattern that llama.cpp has no
            name for; there are no ends, or more than llama.cpp has names for.

    Example:
        >>> import json
        >>> from minillm.text.fast import to_tokenizers_json
        >>> from minillm.text.tokenizer import Tokenizer
        >>> ours = Tokenizer(((104, 105),), ("<|end|>",))
        >>> tokenizer = JsonTokenizer(json.loads(to_tokenizers_json(ours)))
        >>> metadata = tokenizer_metadata(tokenizer, vocab_size=259, end_ids=(257,))
        >>> metadata["tokenizer.ggml.tokens"][255:]
        ['ÿ', 'hi', '<|end|>', '[PAD258]']
        >>> metadata["tokenizer.ggml.merges"], metadata["tokenizer.ggml.eos_token_id"]
        (['h i'], 257)
    """
    content, model = tokenizer.content, tokenizer.content["model"]
    pre = _pre(content)
    if bool(model.get("ignore_merges")) != (pre in IGNORES_MERGES):
        raise ValueError(f"llama.cpp's {pre} has not ignore_merges={model.get('ignore_merges')}")
    if not 1 <= len(end_ids) <= len(ENDS):
        raise ValueError(
            f"GGUF needs 1 to {len(ENDS)} ids that end a text; got {list(end_ids)}. "
            "generation_config.json beside the model says them: eos_token_id"
        )
    if tokenizer.vocab_size > vocab_size or len(tokenizer.begin_ids) > 1:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size:,} ids and the model {vocab_size:,}, and "
            f"before each text stand {len(tokenizer.begin_ids)}; GGUF holds at most one"
        )
    token_of = {id: (token, ORDINARY) for token, id in model["vocab"].items()}
    for token in content.get("added_tokens") or []:
        token_of[token["id"]] = (token["content"], SPECIAL if token["special"] else ADDED)
    tokens = [token_of.get(id, (f"[PAD{id}]", NO_TOKEN)) for id in range(vocab_size)]
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    metadata = {
        "model": "gpt2",
        "pre": pre,
        "tokens": [token for token, _ in tokens],
        "token_type": [kind for _, kind in tokens],
        "merges": merges,
        "bos_token_id": (*tokenizer.begin_ids, end_ids[0])[0],
        "add_bos_token": bool(tokenizer.begin_ids),
        "add_eos_token": False,
    }
    metadata |= {f"{end}_token_id": id for end, id in zip(ENDS, end_ids, strict=False)}
    return {f"tokenizer.ggml.{key}": value for key, value in metadata.items()}


def _pre(content: Mapping[str, Any]) -> str:
    """llama.cpp's name for the way text is cut."""
    part, pattern, is_plain = content.get("pre_tokenizer") or {}, None, False
    match part:
        case {"type": "ByteLevel", "add_prefix_space": False}:
            pattern, is_plain = "gpt-2", part.get("use_regex", True)
        case {"pretokenizers": [{"pattern": {"Regex": regex}, **split}, {**last}]}:
            pattern = PATTERNS.get(regex)
            is_plain = split == SPLIT and last | {"trim_offsets": True} == BYTES
    if pattern and is_plain and content.get("normalizer") in (None, {"type": "NFC"}):
        return pattern
    raise ValueError(
        f"llama.cpp has a list of ways to cut text into words, and this one, {part.get('type')} "
        f"with its settings, is not on it as far as minillm knows ({', '.join(PATTERNS.values())})"
    )
