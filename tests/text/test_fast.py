"""minillm.text.fast: our merges inside tiktoken and tokenizers."""

import json
import pydoc_data.topics
import random
import sysconfig
from pathlib import Path

import pytest
import regex
import tiktoken
import tokenizers

from minillm.text.bpe import train
from minillm.text.fast import (
    FastTokenizer,
    byte_characters,
    disagreeing_code_points,
    from_tokenizers_json,
    save_tokenizers_json,
    to_tiktoken,
    to_tokenizers_json,
)
from minillm.text.pretokenize import CLASSES
from minillm.text.tokenizer import Tokenizer

DOCUMENTATION = "\n".join(text for _, text in sorted(pydoc_data.topics.topics.items()))
SOURCE = "\n".join(
    (Path(sysconfig.get_paths()["stdlib"]) / name).read_text(encoding="utf-8")
    for name in ("argparse.py", "json/decoder.py", "textwrap.py")
)
CHINESE = (
    "我住在村里。人工智能能写诗吗？大模型把文字切成词元，再一个一个地预测下一个词元。"
    "今天（2023年10月）村里有三百二十一个人，梅姐卖红李子，每斤五元！"
)
SCRIPTS = "नमस्ते दुनिया। สวัสดีชาวโลก Привет, мир! שָׁלוֹם مرحبا naïve café Ελλάδα 안녕하세요 こんにちは "
EMOJI = ["🙂", "👩‍🚀", "👨‍👩‍👧", "🇨🇳", "👍🏽", "❤️", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "1️⃣", "😀😀", " 🎉", "☃", "✔"]
END = "<|endoftext|>"
TOKENIZER = train(
    [DOCUMENTATION[:200_000], SOURCE[:60_000], CHINESE * 100, SCRIPTS * 100, "".join(EMOJI) * 100],
    1500,
    special_tokens=(END, "<|end|>", "<|end|>!"),
)
FAST = FastTokenizer(TOKENIZER)
RUST = tokenizers.Tokenizer.from_str(to_tokenizers_json(TOKENIZER))
RUST.encode_special_tokens = True  # "special tokens are text", as our default


def some_strings(n: int) -> list[str]:
    """Strings from eight sources in turn, each from a fresh random place."""
    rng = random.Random(0)
    planes = [*range(0xD800), *range(0xE000, 0x110000)]

    def slice_of(text, longest=200):
        start = rng.randrange(len(text))
        return text[start : start + rng.randint(1, longest)]

    sources = [
        lambda: slice_of(DOCUMENTATION),
        lambda: slice_of(SOURCE),
        lambda: "".join(rng.choices([*EMOJI, " ", "a", "!"], k=rng.randint(1, 12))),
        lambda: slice_of(CHINESE, 40) + "".join(map(chr, rng.choices(range(0x4E00, 0x9FA6), k=5))),
        lambda: slice_of(SCRIPTS, 40),
        lambda: rng.randbytes(rng.randint(1, 60)).decode("utf-8", "replace"),
        lambda: "".join(map(chr, rng.choices(planes, k=rng.randint(1, 20)))),
        lambda: "".join(
            rng.choices([*" \t\n\r'0123sdmtlv=(){}:é²Ⅷ", "\r\n", END, "'ll", "    "], k=20)
        ),
    ]
    drop = dict.fromkeys(disagreeing_code_points())
    return [sources[i % len(sources)]().translate(drop) for i in range(n)]


# --- by hand ---


def test_a_rank_is_an_id():
    encoding = to_tiktoken(Tokenizer(((104, 105), (32, 256)), (END,)), "by hand")
    assert encoding.name == "by hand"
    assert encoding.n_vocab == 259
    assert encoding.encode_ordinary("hi hi h") == [256, 257, 32, 104]
    assert encoding.encode(END, allowed_special={END}) == [258]


def test_a_byte_is_written_as_a_printable_character():
    assert byte_characters()[ord("!")] == "!"
    assert byte_characters()[ord(" ")] == "Ġ"
    assert byte_characters()[ord("\n")] == "Ċ"
    assert set(byte_characters()) == set(tokenizers.pre_tokenizers.ByteLevel.alphabet())


# --- twin ---


def test_ids_are_the_same_in_three_engines_on_ten_thousand_strings():
    strings = some_strings(10_000)
    assert len(set(strings)) > 8_000
    ours = list(map(TOKENIZER.encode, strings))
    assert list(map(FAST.encode, strings)) == ours
    assert [encoding.ids for encoding in RUST.encode_batch_fast(strings)] == ours
    assert len({token for ids in ours for token in ids}) > 1_000  # the merges were really used


@pytest.mark.parametrize("allowed", [set(), {END}, {"<|end|>"}, {"<|end|>", "<|end|>!", END}])
def test_special_tokens_are_treated_as_in_the_plain_tokenizer(allowed):
    for text in (f"a{END}b", "<|end|>!<|end|>", f"{END}{END}", "", "<|end", f"<|end|>{END}!"):
        ids = FAST.encode(text, allowed_special=allowed)
        assert ids == TOKENIZER.encode(text, allowed_special=allowed)
        assert FAST.decode(ids) == text


def test_decoding_is_the_same():
    ids = [*FAST.encode("村里 hi"), 0xE6]
    assert FAST.decode(ids) == TOKENIZER.decode(ids) == "村里 hi�"
    assert FAST.decode_bytes(ids) == "村里 hi".encode() + b"\xe6"
    assert FAST.encoding.decode_bytes(ids) == FAST.decode_bytes(ids)
    assert FAST.vocab_size == TOKENIZER.vocab_size == RUST.get_vocab_size()


def test_a_tokenizer_comes_back_from_its_file_merges_and_all():
    assert from_tokenizers_json(to_tokenizers_json(TOKENIZER)) == TOKENIZER


# --- reference ---


def test_tokenizers_finds_special_tokens_and_decodes(tmp_path):
    save_tokenizers_json(TOKENIZER, tmp_path / "tokenizer.json")
    rust = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = f"I live{END} in 我住在村里 🙂"
    ids = rust.encode(text).ids
    assert ids == TOKENIZER.encode(text, allowed_special={END})
    assert rust.decode(ids, skip_special_tokens=False) == text


def test_the_exported_file_has_every_token_once():
    content = json.loads(to_tokenizers_json(TOKENIZER))
    vocabulary = content["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(256 + len(TOKENIZER.merges)))
    assert [token["id"] for token in content["added_tokens"]] == [1497, 1498, 1499]


def in_tiktoken(pattern: str, text: str) -> set[str]:
    ranks = {bytes([byte]): byte for byte in range(256)}
    probe = tiktoken.Encoding("p", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return set(probe.decode(probe.encode_ordinary(text)))


EVERYTHING = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))


def test_some_thousands_of_rare_code_points_divide_the_engines():
    # 17,559 with regex 2026.11.15 and tiktoken 0.14.0
    assert 17_000 <= len(disagreeing_code_points()) <= 18_000


def test_the_engines_disagree_only_on_what_the_older_table_does_not_know():
    unassigned = in_tiktoken(r"\p{Cn}", EVERYTHING)
    assert {chr(point) for point in disagreeing_code_points()} <= unassigned


def test_tokenizers_has_the_same_classes_as_tiktoken():
    # It is slow, so: the first plane, and wherever the others disagree.
    text = EVERYTHING[:0xF800] + "".join(map(chr, sorted(disagreeing_code_points())))
    for pattern in CLASSES:
        split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(f"(?:{pattern})+"), "removed")
        rest = "".join(piece for piece, _ in split.pre_tokenize_str(text))
        assert set(text) - set(rest) == in_tiktoken(pattern, text)


def test_outside_those_code_points_each_character_has_one_class():
    agreed = EVERYTHING[:0x1F800].translate(dict.fromkeys(disagreeing_code_points()))
    for pattern in CLASSES:
        assert set(regex.findall(pattern, agreed)) == in_tiktoken(pattern, agreed)


def test_on_a_disagreeing_code_point_the_ids_do_differ_but_the_text_comes_back():
    letter = next(
        chr(point)
        for point in sorted(disagreeing_code_points())
        if regex.fullmatch(r"\p{L}", chr(point))
    )
    text = f"{letter}a"
    tokenizer = train(text, None)
    fast = FastTokenizer(tokenizer)
    assert len(tokenizer.encode(text)) == 1  # one word for regex
    assert len(fast.encode(text)) > 1  # punctuation, then a word, for tiktoken
    assert fast.decode(fast.encode(text)) == text


# --- law ---


def test_one_line_of_ten_megabytes_is_encoded():
    line = "the village " * 833_334
    assert len(line) > 10_000_000
    ids = FAST.encode(line)
    assert (
        FAST.decode_bytes(ids[:100_000]) == line.encode()[: len(FAST.decode_bytes(ids[:100_000]))]
    )
    assert len(ids) == len(FAST.encode("the village the village")) // 2 * 833_334 + 1


# --- bad input ---


def test_a_lone_surrogate_is_refused_before_tiktoken_replaces_it():
    assert FAST.encoding.encode_ordinary("\ud83d") == FAST.encode("�")  # what would happen silently
    with pytest.raises(ValueError, match=r"lone surrogate, U\+D83D, at position 2"):
        FAST.encode("ab\ud83d")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: FAST.encode(b"a"), "not bytes"),
        (lambda: FAST.encode("a", allowed_special={"<|pad|>"}), "special tokens are"),
        (lambda: FAST.decode([1500]), r"no id 1500: .* 0 to 1499"),
    ],
)
def test_errors_are_those_of_the_plain_tokenizer(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", to_tokenizers_json(TOKENIZER).replace("1.0", "1.1")]
)
def test_a_file_of_another_form_has_no_merges_for_us(text):
    with pytest.raises(ValueError, match=r"no tokenizer\.json as minillm writes it"):
        from_tokenizers_json(text)


@pytest.mark.parametrize("export", [to_tiktoken, to_tokenizers_json, FastTokenizer])
def test_merges_that_another_engine_would_read_otherwise_are_refused(export):
    twice = Tokenizer(((97, 98), (98, 99), (256, 99), (97, 257)))  # abc is ab+c, never a+bc
    with pytest.raises(ValueError, match="token 259 spells b'abc', which encodes to"):
        export(twice)
