"""Learn a tokenizer from files, and show the pieces of a sentence.

Chapter: app
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from minillm.formats.tokenizer_json import JsonTokenizer, read
from minillm.lab.text_file import read_text
from minillm.text.fast import from_tokenizers_json, save_tokenizers_json
from minillm.text.tokenizer import Tokenizer, split_specials

FILE = "tokenizer.json"
#: Background colours of neighbouring pieces, from the 256-colour palette, with black text on them.
GROUNDS = (153, 223, 157, 218)


def run(
    files: Sequence[Path], *, vocab_size: int, out: Path, special_tokens: tuple[str, ...]
) -> Tokenizer:
    """Learn a byte-pair vocabulary and write it as tokenizer.json.

    Args:
        files: text files or folders, UTF-8. A special token that they spell, such as the
            "<|endoftext|>" between TinyStories' documents, is no text to learn from.
        vocab_size: 256 bytes, the merges, and the special tokens.
        out: folder for the file; made if it is missing.
        special_tokens: such as "<|endoftext|>".

    Raises:
        ValueError: a file is missing, empty or not UTF-8; the vocabulary is too small or too large.
    """
    from tqdm import tqdm

    from minillm.data.corpus import read
    from minillm.text.bpe import train

    texts = [read(path) for path in files]
    out.mkdir(parents=True, exist_ok=True)  # now: a folder that cannot be made costs no training
    n_bytes = sum(len(text.encode()) for text in texts)
    print(f"{n_bytes / 1e6:.2f} MB of text; {vocab_size} tokens wanted")
    n_merges = max(0, vocab_size - 256 - len(special_tokens))
    with tqdm(total=n_merges, desc="merges", disable=not sys.stdout.isatty(), ncols=80) as bar:
        tokenizer = train(
            [part for text in texts for part in _between(text, special_tokens)],
            vocab_size,
            special_tokens=special_tokens,
            progress=lambda _: bar.update(),
        )
    save_tokenizers_json(tokenizer, out / FILE)
    n_tokens = sum(len(tokenizer.encode(text, tokenizer.special_ids)) for text in texts)
    print(f"{n_bytes / n_tokens:.2f} bytes a token on this text")
    print(f"{out / FILE}   also for tokenizers and transformers")
    print(f"next: minillm tokenize --tokenizer {out} 'some text'")
    return tokenizer


def _between(text: str, special_tokens: tuple[str, ...]) -> list[str]:
    """What stands between the special tokens that a text spells."""
    return split_specials(text, special_tokens, special_tokens)[::2]


def show_tokens(text: str, where: Path | None, *, trace: bool = False) -> None:
    """Print a text's pieces side by side in colours, their ids, and what they cost.

    Args:
        text: what to cut; special tokens in it are text like any other.
        where: a tokenizer.json or its folder, a model's too; None learns a tokenizer from the
            course's reader.
        trace: also print each word's merges, in the order in which they are replayed.

    Raises:
        ValueError: there is no such tokenizer; the text holds lone surrogates; a trace of a
            tokenizer that minillm did not make.
    """
    from minillm.text.escape import escape
    from minillm.text.pretokenize import pretokenize

    tokenizer = _from_reader() if where is None else _load(where, trace)
    ids = tokenizer.encode(text)
    tokens = [tokenizer.token_bytes(token) for token in ids]
    print(coloured(tokens) if _colours() else "|".join(escape(spelling) for spelling in tokens))
    print(" ".join(map(str, ids)))
    n_bytes = len(text.encode())
    rate = f", {n_bytes / len(ids):.2f} bytes a token" if ids else ""
    print(f"{len(text)} characters, {n_bytes} bytes, {len(ids)} tokens{rate}")
    if trace:
        for word in pretokenize(text, tokenizer.pattern):
            print(f"\n{word!r}")
            for step in tokenizer.trace(word):
                print(step)


def coloured(tokens: Sequence[bytes]) -> str:
    """Pieces as text for a terminal, each on a ground of its own; half characters as `\\xNN`.

    Example:
        >>> coloured([b"a", b"b"])
        '\\x1b[30;48;5;153ma\\x1b[0m\\x1b[30;48;5;223mb\\x1b[0m'
    """
    from minillm.text.escape import escape

    return "".join(
        f"\x1b[30;48;5;{GROUNDS[place % len(GROUNDS)]}m{escape(token)}\x1b[0m"
        for place, token in enumerate(tokens)
    )


def _colours() -> bool:
    """Colours for a terminal that has them; https://no-color.org is respected."""
    if "NO_COLOR" in os.environ:
        return False
    return sys.stdout.isatty() or os.environ.get("FORCE_COLOR", "") not in ("", "0")


def _load(where: Path, trace: bool) -> Tokenizer | JsonTokenizer:
    """Any tokenizer.json; for a trace one of ours, since it needs the list of merges."""
    path = where / FILE if where.is_dir() else where
    if not path.exists():
        raise ValueError(
            f"no tokenizer at {path}; make one: minillm train tokenizer FILES --out {where}"
        )
    tokenizer = read(path)
    return from_tokenizers_json(read_text(path)) if trace else tokenizer


def _from_reader() -> Tokenizer:
    """A small tokenizer of the course's own texts, English and Chinese, learned on the spot."""
    from minillm.data.corpus import reader
    from minillm.text.bpe import train

    print("a vocabulary of 1,024, learned just now from the course's reader:")
    return train([reader("en"), reader("zh")], 1024, special_tokens=("<|endoftext|>",))
