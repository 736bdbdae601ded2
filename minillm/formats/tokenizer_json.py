"""Reading `tokenizer.json`: the tokenizers of others, run by the `tokenizers` library.

One file holds five parts, and a text passes through them in turn:

    normalizer       other characters: Unicode's composed form, or spaces as ▁
    pre_tokenizer    words, which no token may span: cut by a pattern, digits apart
    model            tokens: BPE's vocabulary and merges
    post_processor   tokens around the text: Llama's `<s>` or `<|begin_of_text|>` before it
    decoder          back to text: characters of GPT-2's table, or `<0xE6>`, to bytes; ▁ to spaces

GPT-2, Qwen, Llama 3 and SmolLM merge bytes; Llama 2, Mistral and Gemma merge characters (BPE as in
SentencePiece), with bytes for what their vocabulary lacks. The library runs the first three parts,
so that ids are those that the model was trained on. What is read here is what a model that writes
on needs beside: which ids begin a text, and the bytes of a single token, which streaming shows.

`minillm.text.fast` writes this format.

Chapter: 04
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from operator import index
from os import PathLike
from pathlib import Path
from typing import Any, final

import tokenizers

from minillm.formats.json_file import read_object
from minillm.text.fast import byte_characters
from minillm.text.tokenizer import check_specials, to_text

PARTS = ("normalizer", "pre_tokenizer", "model", "post_processor", "decoder")
KEYS = {*PARTS, "version", "truncation", "padding", "added_tokens"}
#: What a model may say of these alone; CLIP's ends of words need another decoder.
PLAIN = {
    "type": ("BPE", None),
    "dropout": (None, 0.0),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (None, ""),
}
MODEL_KEYS = {*PLAIN, "vocab", "merges", "unk_token", "fuse_unk", "byte_fallback", "ignore_merges"}
TOKEN_KEYS = {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"}
#: Keys that the library translates from older files, so that it does not say them itself.
FORMER_KEYS = {"str_rep", "add_prefix_space"}
#: What `minillm train tokenizer` once wrote beside tokenizer.json.
FORMER_FORMAT = "minillm byte-level BPE"
#: A byte as a token of SentencePiece.
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@final
class JsonTokenizer:
    """A tokenizer from a tokenizer.json: the methods of `Tokenizer`, with that file's ids.

    Special tokens are found where `allowed_special` names them. Added tokens with
    `"special": false`, such as Qwen's `<think>`, are found in every text, as the file asks.

    Args:
        content: the object that the file holds.

    Raises:
        ValueError: it is damaged, or of a kind that is not read here; what is other is named.

    Example:
        >>> from minillm.text.fast import to_tokenizers_json
        >>> from minillm.text.tokenizer import Tokenizer
        >>> ours = Tokenizer(((104, 105), (32, 256)), ("<|endoftext|>",))
        >>> tokenizer = JsonTokenizer(json.loads(to_tokenizers_json(ours)))
        >>> tokenizer.encode("hi hi<|endoftext|>", allowed_special={"<|endoftext|>"})
        [256, 257, 258]
        >>> tokenizer.decode([256, 257]), tokenizer.begin_ids
        ('hi hi', ())

    Differs: `tokenizers` finds special tokens in every text; here a stranger's text cannot hold a
        command. Bytes that are no UTF-8 become "�" as in Python; the library may write more of
        them where tokens such as `<0xE6>` are the bytes. `LlamaTokenizer` of transformers 5 puts no
        space before a text that begins with one, whatever the file says; here, as in SentencePiece,
        the file rules.
    """

    #: The id of each special token.
    special_ids: Mapping[str, int]
    #: The ids that stand before every text, such as Llama's `<s>`; often none.
    begin_ids: tuple[int, ...]

    def __init__(self, content: Mapping[str, Any]) -> None:
        _check_keys(content)
        engine = _engine(content, frozenset())
        _check_nothing_ignored(content, engine)
        spell, self._n_stripped = _decoding(content.get("decoder"))
        # By id, since Llama 2's normalizer changes added tokens too: `<think>` becomes `▁<think>`.
        self._spelling = {n: spell(engine.id_to_token(n)) for n in engine.get_vocab().values()}
        self.special_ids = {
            token["content"]: token["id"]
            for token in content.get("added_tokens") or []
            if token["special"]
        }
        self.begin_ids = _begin_ids(content.get("post_processor"))
        if unknown := [token for token in self.begin_ids if token not in self.ids]:
            raise ValueError(f"its post_processor begins with {unknown}, which are ids of no token")
        self.content = content
        self._engines = {frozenset(): engine}

    @property
    def ids(self) -> Collection[int]:
        """Every id that has a token; there may be gaps, and a model's table may be larger."""
        return self._spelling.keys()

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self.ids, default=-1) + 1

    def encode(self, text: str, allowed_special: Collection[str] = frozenset()) -> list[int]:
        """Turn text into ids, without `begin_ids`; see `Tokenizer.encode`.

        Raises:
            ValueError: `text` is no str or holds a lone surrogate; a token of `allowed_special`
                does not exist; the vocabulary has plain text as a special token.
        """
        check_specials(text, self.special_ids, allowed_special)
        allowed = frozenset(allowed_special)
        if allowed not in self._engines:
            self._engines[allowed] = _engine(self.content, allowed)
        ids = self._engines[allowed].encode(text, add_special_tokens=False).ids
        # A file may have its commands among the words of its vocabulary too.
        commands = set(self.special_ids) - allowed - {self.content["model"].get("unk_token")}
        if spelled := [token for token in commands if self.special_ids[token] in set(ids)]:
            raise ValueError(
                f"this vocabulary turns plain text into {spelled[0]!r}, which is a command to the "
                "model: name it in allowed_special, or take it out of the text"
            )
        return ids

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes that one id spells where it continues a text; see `Tokenizer`."""
        try:
            return self._spelling[index(token)]
        except (TypeError, KeyError):
            raise ValueError(
                f"there is no id {token!r}: this tokenizer has {len(self.ids):,} tokens, with ids "
                f"up to {self.vocab_size - 1}; ids must be decoded by the tokenizer that made them"
            ) from None

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Return the bytes that the ids spell where they continue a text; see `Tokenizer`."""
        return b"".join(map(self.token_bytes, ids))

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """Return the text that the ids spell; see `Tokenizer.decode`.

        Where the file puts a space before every text, that one is left out again.
        """
        data = self.decode_bytes(ids)
        n_spaces = len(data) - len(data.lstrip(b" "))
        return to_text(data[min(n_spaces, self._n_stripped) :], errors)


def read(path: str | PathLike) -> JsonTokenizer:
    """Read a tokenizer.json.

    Raises:
        ValueError: there is none; it is damaged, a pickle, or of a kind that is not read here.
    """
    path = Path(path)
    content = read_object(path)
    if content.get("format") == FORMER_FORMAT:
        raise ValueError(
            f"{path.name} is in minillm's former format, which is no longer read. Take the "
            "tokenizer.json that was written beside it, or make a new one: "
            "minillm train tokenizer FILES... --out DIR"
        )
    try:
        return JsonTokenizer(content)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None


# --- encoding -----------------------------------------------------------------------------------
def _engine(content: Mapping[str, Any], allowed: frozenset[str]) -> tokenizers.Tokenizer:
    """The library's tokenizer, for which special tokens are text unless they are allowed.

    An allowed one is no longer special to it, so that it is found like any added token. What stands
    around a text is left to `begin_ids`, as transformers leaves limits of length to the caller.
    """
    plain = {**content, "post_processor": None, "truncation": None, "padding": None}
    if allowed:
        plain["added_tokens"] = [
            token | {"special": token["special"] and token["content"] not in allowed}
            for token in content["added_tokens"]
        ]
    try:
        engine = tokenizers.Tokenizer.from_str(json.dumps(plain))
    except Exception as error:  # the library raises nothing narrower
        reason = re.sub(r" at line \d+ column \d+$", "", str(error))[:200]
        parts = ", ".join(f"{part} {_kind(content.get(part))}" for part in PARTS)
        raise ValueError(
            f"the tokenizers library cannot read it: {reason}. It is damaged, or newer than "
            f"tokenizers {tokenizers.__version__}; its parts are {parts}"
        ) from None
    engine.encode_special_tokens = True
    return engine


def _begin_ids(post_processor: Any) -> tuple[int, ...]:
    """The ids that a post_processor puts before a text."""
    match post_processor:
        case None | {"type": "ByteLevel"}:  # which moves offsets alone
            return ()
        case {"type": "Sequence", "processors": [*steps]}:  # the last one comes to stand first
            return tuple(token for step in reversed(steps) for token in _begin_ids(step))
        case {
            "type": "TemplateProcessing",
            "single": [*before, {"Sequence": {"id": "A"}}],
            "special_tokens": {**tokens},
        }:
            try:
                names = [piece["SpecialToken"]["id"] for piece in before]
                return tuple(index(token) for name in names for token in tokens[name]["ids"])
            except (TypeError, KeyError):
                pass
    raise ValueError(
        f"its post_processor, {_kind(post_processor)}, does something else than to put tokens "
        "before a text; minillm writes on after a text, so none may stand behind it"
    )


# --- decoding -----------------------------------------------------------------------------------
def _decoding(decoder: Any) -> tuple[Callable[[str], bytes], int]:
    """How a token becomes bytes, and how many spaces are left out before a whole text."""
    match decoder:
        case {"type": "ByteLevel"}:
            byte_of = {character: byte for byte, character in enumerate(byte_characters())}

            def from_characters(token: str) -> bytes:
                try:
                    return bytes(byte_of[character] for character in token)
                except KeyError:  # an added token with other characters
                    return token.encode()

            return from_characters, 0
        case {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": str(old)}, "content": str(new)},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *last,
            ],
        }:

            def from_piece(token: str) -> bytes:
                byte = BYTE.fullmatch(token)
                return bytes.fromhex(byte[1]) if byte else token.replace(old, new).encode()

            match last:
                case []:
                    return from_piece, 0
                case [{"type": "Strip", "content": " ", "start": int(n_spaces), "stop": 0}]:
                    return from_piece, n_spaces
    raise ValueError(
        f"its decoder is {_kind(decoder)}; minillm reads ByteLevel (as of GPT-2, Qwen, Llama 3) "
        "and the Sequence of Replace, ByteFallback, Fuse, and maybe Strip (as of Llama 2, Mistral)"
    )


# --- what can be wrong --------------------------------------------------------------------------
def _kind(part: Any) -> Any:
    """The type that a part says; what is no part stands for itself."""
    return part.get("type") if isinstance(part, dict) else part


def _check_keys(content: Mapping[str, Any]) -> None:
    """Refuse keys that nobody would read, and models of other kinds."""
    model = content.get("model")
    if not isinstance(model, dict):
        raise ValueError(f"its model must be an object, not {model!r}")
    for key, plain in PLAIN.items():
        if model.get(key) not in plain:
            raise ValueError(f"its model has {key} {model[key]!r}; minillm reads {plain[0]} only")
    for where, table, known in [("it", content, KEYS), ("its model", model, MODEL_KEYS)]:
        if unknown := set(table) - known:
            raise ValueError(f"{where} has keys that minillm does not know: {sorted(unknown)}")


def _check_nothing_ignored(content: Mapping[str, Any], engine: tokenizers.Tokenizer) -> None:
    """Refuse what the library would read as something else than the file says."""
    if not isinstance(engine.model, tokenizers.models.BPE):
        raise ValueError(f"its model is a {type(engine.model).__name__}; minillm reads BPE only")
    vocab = content["model"]["vocab"]
    if len(set(vocab.values())) < len(vocab):
        raise ValueError("two tokens of its vocabulary have one id")
    bytes_there = sum(f"<0x{byte:02X}>" in vocab for byte in range(256))
    if content["model"].get("byte_fallback") and bytes_there < 256:
        raise ValueError(
            "it says byte_fallback, so its vocabulary must have <0x00> to <0xFF>, all 256; "
            f"{256 - bytes_there} are missing, and what they stand for would be lost"
        )
    for token in content.get("added_tokens") or []:
        if engine.token_to_id(token["content"]) != token["id"]:
            raise ValueError(
                f"its added token {token['content']!r} has id {token['id']}, but the tokenizers "
                f"library gives it {engine.token_to_id(token['content'])}: ids of added tokens "
                "must follow the vocabulary without a gap"
            )
        if ignored := set(token) - TOKEN_KEYS:
            raise ValueError(f"an added token has keys that nobody reads: {sorted(ignored)}")
    for name in ("normalizer", "pre_tokenizer", "decoder"):
        part = getattr(engine, name)
        taken = part and json.loads(part.__getstate__())
        if ignored := _missing(content.get(name), taken) - FORMER_KEYS:
            raise ValueError(f"its {name} has keys that nobody reads: {sorted(ignored)}")


def _missing(content: Any, taken: Any) -> set[str]:
    """Keys of a JSON value, at any depth, that another one has not."""
    if isinstance(content, dict) and isinstance(taken, dict):
        deeper = (_missing(content[key], taken[key]) for key in content.keys() & taken.keys())
        return (content.keys() - taken.keys()).union(*deeper)
    if isinstance(content, list) and isinstance(taken, dict):  # fields without their names
        return {str(content)}
    if isinstance(content, list) and isinstance(taken, list):
        return set().union(*map(_missing, content, taken))
    return set()
