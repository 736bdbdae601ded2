"""Our merges inside other people's engines: the same ids, much faster.

`tiktoken` (OpenAI, Rust) wants the bytes of every token with a rank, and merges neighbours as long
as their bytes together are a token, lowest rank first. It never sees our pairs. That the ids are
equal all the same needs one thing: every token, encoded alone, must come out as itself. Training
guarantees it; `to_tiktoken` checks it.

`tokenizers` (Hugging Face, Rust) wants a `tokenizer.json` with a vocabulary and the pairs. JSON
cannot hold bytes, so each byte is written as one printable character (GPT-2's table): a space
becomes `Ġ`.

**Where engines disagree.** The pattern asks "is this a letter?", and each engine answers from its
own copy of Unicode. New letters are added every year, so the answers differ for some thousands of
rare characters, and there the words are cut differently: `disagreeing_code_points` lists them.

Chapter: 01
"""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cache
from os import PathLike
from typing import final

import regex
import tiktoken

from minillm.lab.files import write_whole
from minillm.text.pretokenize import CLASSES
from minillm.text.tokenizer import Tokenizer, merge_word, split_specials


def to_tiktoken(tokenizer: Tokenizer, name: str = "minillm") -> tiktoken.Encoding:
    """Hand our tokens to tiktoken, ranked in the order of the merges: a rank is an id.

    Args:
        tokenizer: as trained.
        name: what tiktoken shall call it.

    Raises:
        ValueError: some token does not encode to itself, so the ids would differ.

    Example:
        >>> encoding = to_tiktoken(Tokenizer(((104, 105), (32, 256))))
        >>> encoding.encode_ordinary("hi hi")
        [256, 257]

    Differs: tiktoken's own `encode` raises when a special token stands in the text, and where one
    special token begins another it may take either; `FastTokenizer` does neither.
    """
    _check_each_token_is_itself(tokenizer)
    n_ordinary = 256 + len(tokenizer.merges)
    return tiktoken.Encoding(
        name,
        pat_str=tokenizer.pattern,
        mergeable_ranks={tokenizer.token_bytes(token): token for token in range(n_ordinary)},
        special_tokens=dict(tokenizer.special_ids),
        explicit_n_vocab=tokenizer.vocab_size,
    )


@final
@dataclass(frozen=True)
class FastTokenizer:
    """A `Tokenizer` that encodes through tiktoken: the same methods, arguments, ids and errors.

    Example:
        >>> fast = FastTokenizer(Tokenizer(((104, 105), (32, 256)), ("<|endoftext|>",)))
        >>> fast.encode("hi hi<|endoftext|>", allowed_special={"<|endoftext|>"})
        [256, 257, 258]
        >>> fast.decode([256, 257])
        'hi hi'

    Differs: from `Tokenizer`, on the characters of `disagreeing_code_points()` (other ids, the same
    text when decoded), and it has no `encode_bytes`, since tiktoken only takes text.
    """

    tokenizer: Tokenizer
    encoding: tiktoken.Encoding = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoding", to_tiktoken(self.tokenizer))

    @property
    def vocab_size(self) -> int:
        """How many ids there are: 256 bytes, the merges, the special tokens."""
        return self.tokenizer.vocab_size

    def encode(self, text: str, allowed_special: Collection[str] = frozenset()) -> list[int]:
        """Turn text into ids; see `Tokenizer.encode`.

        Raises:
            ValueError: `text` is no str or holds a lone surrogate (tiktoken would put "�" in its
                place without a word); a token of `allowed_special` does not exist.
        """
        ids: list[int] = []
        special_ids = self.tokenizer.special_ids
        for i, part in enumerate(split_specials(text, special_ids, allowed_special)):
            if i % 2:
                ids.append(special_ids[part])
            else:
                ids += self.encoding.encode_ordinary(part)
        return ids

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes that the ids spell; see `Tokenizer.decode_bytes`."""
        return self.tokenizer.decode_bytes(ids)

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """Return the text that the ids spell; see `Tokenizer.decode`."""
        return self.tokenizer.decode(ids, errors)


def to_tokenizers_json(tokenizer: Tokenizer) -> str:
    """Write a tokenizer as the `tokenizer.json` of Hugging Face's `tokenizers`.

    Args:
        tokenizer: as trained.

    Returns:
        JSON text, for `tokenizers.Tokenizer.from_str` or a file called `tokenizer.json`.

    Raises:
        ValueError: two tokens spell the same, which this format cannot hold.

    Example:
        >>> tokenizer = Tokenizer(((104, 105), (32, 256)))
        >>> json.loads(to_tokenizers_json(tokenizer))["model"]["merges"]
        [['h', 'i'], ['Ġ', 'hi']]

    Differs: `tokenizers` always recognises special tokens in text; set its
    `encode_special_tokens = True` to get the ids that ours gives by default.
    """
    _check_each_token_is_itself(tokenizer)
    characters = byte_characters()

    def spell(token: int) -> str:
        return "".join(characters[byte] for byte in tokenizer.token_bytes(token))

    byte_level = {"add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"pattern": {"Regex": tokenizer.pattern}, "behavior": "Isolated", "invert": False}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": token_id,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for token, token_id in tokenizer.special_ids.items()
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Split"} | split, {"type": "ByteLevel"} | byte_level],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel"} | byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {spell(token): token for token in range(256 + len(tokenizer.merges))},
            "merges": [[spell(left), spell(right)] for left, right in tokenizer.merges],
        },
    }
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def from_tokenizers_json(text: str) -> Tokenizer:
    """The tokenizer that `to_tokenizers_json` wrote, merges and all.

    Raises:
        ValueError: the text is no such file, down to the last key; `minillm.formats.tokenizer_json`
            reads those of others, though not as a list of merges.

    Example:
        >>> tokenizer = Tokenizer(((104, 105), (32, 256)), ("<|endoftext|>",))
        >>> from_tokenizers_json(to_tokenizers_json(tokenizer)) == tokenizer
        True
    """
    try:
        content = json.loads(text)
        vocab, merges = content["model"]["vocab"], content["model"]["merges"]
        pattern = content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
        specials = tuple(token["content"] for token in content["added_tokens"])
        pairs = tuple((vocab[left], vocab[right]) for left, right in merges)
        tokenizer = Tokenizer(pairs, specials, pattern)
        if json.loads(to_tokenizers_json(tokenizer)) == content:
            return tokenizer
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        pass
    raise ValueError(
        "this is no tokenizer.json as minillm writes it, so its merges cannot be shown one by one; "
        "`minillm train tokenizer` makes one"
    )


def save_tokenizers_json(tokenizer: Tokenizer, path: str | PathLike) -> None:
    """Write `to_tokenizers_json` to a file, whole or not at all; see there what is refused."""
    write_whole(path, to_tokenizers_json(tokenizer))


@cache
def byte_characters() -> tuple[str, ...]:
    """GPT-2's table: for each byte one printable character.

    A byte whose Latin-1 character is printable is that character; the others (control characters,
    the spaces, the soft hyphen) take the characters from U+0100 on, in order.

    Example:
        >>> byte_characters()[ord("a")], byte_characters()[ord(" ")], byte_characters()[0]
        ('a', 'Ġ', 'Ā')

    Paper: Radford et al. 2019, the released code (`bytes_to_unicode`).
    Differs: none.
    """
    table = []
    n_moved = 0
    for byte in range(256):
        if chr(byte).isprintable() and chr(byte) != " ":
            table.append(chr(byte))
        else:
            table.append(chr(256 + n_moved))
            n_moved += 1
    return tuple(table)


@cache
def disagreeing_code_points() -> frozenset[int]:
    """Find the code points that `regex` and tiktoken put into different classes of the pattern.

    One call an engine and class shows all of Unicode at once: tiktoken drops what a pattern does
    not match, so from the text of all code points it returns exactly those in the class.

    Returns:
        Code points, without surrogates; takes about a second the first time.

    Example:
        >>> ord("村") in disagreeing_code_points()
        False
    """
    everything = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    single_bytes = {bytes([byte]): byte for byte in range(256)}
    disagreeing: set[str] = set()
    for pattern in CLASSES:
        probe = tiktoken.Encoding(
            "probe", pat_str=pattern, mergeable_ranks=single_bytes, special_tokens={}
        )
        in_tiktoken = bytes(probe.encode_ordinary(everything)).decode("utf-8")
        disagreeing |= set(regex.findall(pattern, everything)) ^ set(in_tiktoken)
    return frozenset(map(ord, disagreeing))


def _check_each_token_is_itself(tokenizer: Tokenizer) -> None:
    for token in range(256, 256 + len(tokenizer.merges)):
        spelled = tokenizer.token_bytes(token)
        ids = merge_word(spelled, tokenizer.new_ids)
        if ids != [token]:
            raise ValueError(
                f"token {token} spells {spelled!r}, which encodes to {ids}: another engine would "
                "give other ids than ours. Training never makes such a token; use its merges as "
                "they are"
            )
