"""Reading `tokenizer.json`: the tokenizers of others, if they are byte-level BPE as ours is.

GPT-2 set the form, and Qwen and many others kept it: text is cut by a pattern, words become bytes,
bytes are merged. Such a tokenizer is one of ours but for the numbers of its tokens. Ours are 256
bytes in their order, then merges, then special tokens; others count bytes in the order of GPT-2's
table (`!` is 0), or put special tokens first. So a file is read as a `Tokenizer` and a list of what
each of its ids is called there: `Renumbered`.

`minillm.text.fast` writes this format. Other kinds are refused, each by name: SentencePiece's BPE
and Unigram (Llama 2, Mistral 7B), whose tokens are characters; normalizers other than NFC; tokens
put around every text (Llama 3); a token that two merges make (Llama 3 again).

Chapter: 04
"""

import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from operator import index
from os import PathLike
from pathlib import Path
from typing import Any, final

from minillm.text.fast import byte_characters
from minillm.text.json_file import read_object
from minillm.text.pretokenize import refuse_surrogates
from minillm.text.tokenizer import Pair, Tokenizer

#: How `tokenizers` cuts words where no pattern is given: GPT-2's.
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
#: What a model may say beside its vocabulary and merges.
PLAIN = {
    "dropout": (None, 0.0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
    "byte_fallback": (False, None),
    "ignore_merges": (False, None),
}


@final
@dataclass(frozen=True)
class Renumbered:
    """A `Tokenizer` whose tokens have other numbers: the same methods, with those.

    Args:
        tokenizer: cuts and merges.
        ids: what each of its ids is here.
        nfc: whether text is brought into Unicode's composed form (NFC) first, é as one character.

    Raises:
        ValueError: not one id for each of the tokenizer's, or one that stands twice.

    Example:
        >>> renumbered = Renumbered(Tokenizer(((104, 105),), ("<s>",)), (*range(1, 258), 0))
        >>> renumbered.encode("hi<s>", allowed_special={"<s>"})
        [257, 0]
        >>> renumbered.decode([257, 0])
        'hi<s>'
    """

    tokenizer: Tokenizer
    ids: tuple[int, ...]
    nfc: bool = False
    _ours: Mapping[int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ours = {token: our_id for our_id, token in enumerate(self.ids)}
        if len(self.ids) != self.tokenizer.n_vocab or len(ours) != len(self.ids):
            raise ValueError(
                f"each of the {self.tokenizer.n_vocab:,} tokens needs an id of its own; got "
                f"{len(self.ids):,} ids, {len(ours):,} of them different"
            )
        object.__setattr__(self, "_ours", ours)

    @property
    def n_vocab(self) -> int:
        """One more than the largest id."""
        return max(self.ids) + 1

    @property
    def special_ids(self) -> dict[str, int]:
        """The id of each special token."""
        return {token: self.ids[our_id] for token, our_id in self.tokenizer.special_ids.items()}

    def encode(self, text: str, allowed_special: Collection[str] = frozenset()) -> list[int]:
        """Turn text into ids; see `Tokenizer.encode`."""
        if self.nfc:
            refuse_surrogates(text)
            text = unicodedata.normalize("NFC", text)
        return [self.ids[our_id] for our_id in self.tokenizer.encode(text, allowed_special)]

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes that one id spells; see `Tokenizer.token_bytes`."""
        return self.tokenizer.token_bytes(self._our_id(token))

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes that the ids spell; see `Tokenizer.decode_bytes`."""
        return self.tokenizer.decode_bytes(map(self._our_id, ids))

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """Return the text that the ids spell; see `Tokenizer.decode`."""
        return self.tokenizer.decode(map(self._our_id, ids), errors)

    def _our_id(self, token: int) -> int:
        try:
            return self._ours[index(token)]
        except (TypeError, KeyError):
            raise ValueError(
                f"there is no id {token!r}: this tokenizer has {len(self.ids):,} tokens, with ids "
                f"up to {self.n_vocab - 1}; ids must be decoded by the tokenizer that made them"
            ) from None


def read(path: str | PathLike) -> Renumbered:
    """Read a tokenizer.json.

    Raises:
        ValueError: there is none; it is damaged, or of a kind that is not read here.

    Differs: `tokenizers` finds special tokens in every text. Ours finds those of `allowed_special`
        alone, so that a stranger's text cannot hold a command.
    """
    path = Path(path)
    content = read_object(path)
    try:
        return from_object(content)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


def from_object(content: Mapping[str, Any]) -> Renumbered:
    """The tokenizer that a tokenizer.json's object describes.

    Raises:
        ValueError: it is of a kind that is not read here; what is other is named.

    Example:
        >>> import json
        >>> from minillm.text.fast import to_tokenizers_json
        >>> tokenizer = Tokenizer(((104, 105), (32, 256)), ("<|endoftext|>",))
        >>> from_object(json.loads(to_tokenizers_json(tokenizer))).tokenizer == tokenizer
        True
    """
    _check(content, "normalizer", [None, "NFC"])
    if not _adds_nothing(content.get("post_processor")):
        _check(content, "post_processor", [None, "ByteLevel"])
    _check(content, "decoder", [None, "ByteLevel"])
    _check(content, "model", ["BPE"])
    model = content["model"]
    for key, plain in PLAIN.items():
        if model.get(key) not in plain:
            raise ValueError(f"its model has {key} {model[key]!r}; minillm reads {plain[0]} only")
    vocab, merges, added = model.get("vocab"), model.get("merges"), content.get("added_tokens", [])
    if not isinstance(vocab, dict) or not isinstance(merges, list) or not isinstance(added, list):
        raise ValueError("its model needs a vocab (an object), merges and added_tokens (lists)")
    spelled, pairs = _replay(merges)
    special_tokens = _special_ids(added)
    if strange := set(vocab) - set(spelled) - set(special_tokens):
        raise ValueError(
            f"{len(strange):,} of its tokens are neither bytes nor merges, such as "
            f"{sorted(strange)[:3]}: it is no byte-level BPE, or no merge makes them"
        )
    if missing := set(spelled) - set(vocab):
        raise ValueError(
            f"its vocab lacks {len(missing):,} of the 256 bytes and {len(merges):,} merges, such "
            f"as {sorted(missing)[:3]}"
        )
    ids = [*(vocab[token] for token in spelled), *special_tokens.values()]
    if not all(type(token) is int and token >= 0 for token in ids):
        raise ValueError("its ids must be whole numbers from 0 on")
    tokenizer = Tokenizer(tuple(pairs), tuple(special_tokens), _pattern(content))
    return Renumbered(tokenizer, tuple(ids), nfc=content.get("normalizer") is not None)


def _check(content: Mapping[str, Any], part: str, kinds: list[str | None]) -> None:
    found = content.get(part)
    kind = found.get("type") if isinstance(found, dict) else found
    if kind not in kinds:
        raise ValueError(
            f"its {part} is {kind or 'missing'}; minillm reads byte-level BPE, with "
            f"{' or '.join(str(kind or 'none') for kind in kinds)} there. The tokenizers library "
            "reads it, and a model takes its ids"
        )


def _adds_nothing(post_processor: Any) -> bool:
    """Whether it is a template that consists of the text alone; transformers writes such."""
    match post_processor:
        case {"type": "TemplateProcessing", "single": [{"Sequence": dict()}]}:
            return True
    return False


def _replay(merges: list) -> tuple[list[str], list[Pair]]:
    """What each of our ids spells in GPT-2's characters, and the merges as pairs of our ids."""
    spelled = list(byte_characters())
    our_ids = {token: our_id for our_id, token in enumerate(spelled)}
    pairs = []
    for merge in merges:
        parts = merge.split(" ") if isinstance(merge, str) else merge  # older files: "h e"
        try:
            left, right = parts
            pairs.append((our_ids[left], our_ids[right]))
        except (TypeError, ValueError, KeyError):
            raise ValueError(
                f"its merge {len(pairs)} is {merge!r}, not two tokens that are bytes or were "
                "merged before"
            ) from None
        if left + right in our_ids:
            raise ValueError(
                f"two of its merges make {left + right!r}, and minillm gives each merge an id"
            )
        our_ids[left + right] = len(spelled)
        spelled.append(left + right)
    return spelled, pairs


def _special_ids(added: list) -> dict[str, int]:
    """Added tokens and their ids, in the order of these."""
    found = {}
    for token in added:
        if not isinstance(token, dict) or not {"content", "id"} <= set(token):
            raise ValueError(f"an added token needs a content and an id; got {token!r}")
        if wide := [key for key in ("single_word", "lstrip", "rstrip") if token.get(key)]:
            raise ValueError(
                f"its token {token['content']!r} has {wide[0]}, which minillm does not know"
            )
        found[token["content"]] = token["id"]
    return found


def _pattern(content: Mapping[str, Any]) -> str:
    found = content.get("pre_tokenizer")
    steps = [found]
    if isinstance(found, dict) and found.get("type") == "Sequence":
        steps = found.get("pretokenizers")
    match steps:
        case [{"type": "ByteLevel", "add_prefix_space": False} as step] if step.get(
            "use_regex", True
        ):
            return GPT2_PATTERN
        case [
            {
                "type": "Split",
                "pattern": {"Regex": str(pattern)},
                "behavior": "Isolated",
                "invert": False,
            },
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ]:
            return pattern
    raise ValueError(
        "its pre_tokenizer is neither ByteLevel nor a Split by one pattern and ByteLevel, both "
        f"without add_prefix_space: {found}"
    )
