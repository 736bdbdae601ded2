"""minillm.formats.tokenizer_json: the tokenizers of others give their own ids here."""

import copy
import json
import pickle

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from minillm.formats.tokenizer_json import JsonTokenizer, read
from minillm.serve.detokenize import stream_text
from minillm.text.bpe import train
from minillm.text.fast import save_tokenizers_json, to_tokenizers_json
from minillm.text.tokenizer import Tokenizer

SEEN = [
    "the hen sees the hens and the ten men. 村里的人看人，人人看村。 It's 2023 here!\n\n\tnaïve "
] * 20
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
WITH_PATTERN = pre_tokenizers.ByteLevel(add_prefix_space=False)


# --- replicas, made by the tokenizers library itself -------------------------------------------
def byte_level(*cut, normalizer=None, begin=(), **model):
    """As GPT-2: bytes are merged; special tokens come after the vocabulary."""
    theirs = tokenizers.Tokenizer(models.BPE(**model))
    theirs.pre_tokenizer = pre_tokenizers.Sequence(list(cut))
    theirs.decoder = decoders.ByteLevel()
    if normalizer:
        theirs.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    theirs.train_from_iterator(SEEN, trainer)
    theirs.add_special_tokens(["<|begin|>", "<|end|>"])
    theirs.add_tokens(["<think>"])
    steps = [processors.ByteLevel(trim_offsets=False)]
    if begin:
        known = [(token, theirs.token_to_id(token)) for token in begin]
        single = " ".join([*begin, "$A"])
        steps.append(processors.TemplateProcessing(single=single, special_tokens=known))
    theirs.post_processor = processors.Sequence(steps)
    return theirs


def llama3():
    """As Llama 3: words of the vocabulary that no merge makes, and a token before each text."""
    split = pre_tokenizers.Split(tokenizers.Regex(CL100K), "isolated")
    theirs = byte_level(split, BYTE_LEVEL, begin=["<|begin|>"], ignore_merges=True)
    content = json.loads(theirs.to_str())
    content["model"]["vocab"]["xyzzy"] = 300
    for token in content["added_tokens"]:
        token["id"] += 1
    content["post_processor"]["processors"][1]["special_tokens"]["<|begin|>"]["ids"] = [301]
    return tokenizers.Tokenizer.from_str(json.dumps(content))


def sentencepiece(*, normalizer=None, pre_tokenizer=None):
    """As Llama 2: characters are merged, spaces are ▁, and bytes stand for what is missing."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    theirs = tokenizers.Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    if normalizer:
        theirs.normalizer = normalizer
    if pre_tokenizer:
        theirs.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=pieces, show_progress=False)
    theirs.train_from_iterator([text.replace("\n", " ") for text in SEEN], trainer)
    theirs.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    theirs.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    content = json.loads(theirs.to_str())  # the trainer knows no bytes that are not special
    content["added_tokens"] = content["added_tokens"][:3]
    theirs = tokenizers.Tokenizer.from_str(json.dumps(content))
    theirs.add_tokens(["<think>"])
    return theirs


LLAMA2_SPACES = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
QWEN_SPLIT = pre_tokenizers.Split(tokenizers.Regex(CL100K), "isolated")
THEIRS = {
    "GPT-2": byte_level(WITH_PATTERN),
    "Qwen": byte_level(QWEN_SPLIT, BYTE_LEVEL, normalizer=normalizers.NFC()),
    "Llama 3": llama3(),
    "SmolLM": byte_level(pre_tokenizers.Digits(individual_digits=True), WITH_PATTERN),
    "Llama 2": sentencepiece(normalizer=LLAMA2_SPACES),
    "Mistral": sentencepiece(
        pre_tokenizer=pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    ),
}
OURS = {kind: JsonTokenizer(json.loads(theirs.to_str())) for kind, theirs in THEIRS.items()}
KINDS = pytest.mark.parametrize("kind", THEIRS)
PIECES = ["the", "hen", " ", "  ", "\n", "12345", "it's", "村", "é", "e\u0301", "🙂", "xyzzy", "▁",
          "<think>", "<s>", "<unk>", "<0x0A>", "<|begin|>", "<|end|>", "\x00"]  # fmt: skip
ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
TEXTS = st.lists(st.sampled_from(PIECES), max_size=10).map("".join) | ANY_TEXT


# --- by hand -----------------------------------------------------------------------------------
SMALL = Tokenizer(((104, 105), (32, 256)), ("<|end|>",))


def small(**parts):
    """The content of a small file, with some parts changed; those of its model by name."""
    content = json.loads(to_tokenizers_json(SMALL))
    return content | parts | {"model": content["model"] | parts.get("model", {})}


def test_a_file_of_ours_has_our_ids(tmp_path):
    save_tokenizers_json(SMALL, tmp_path / "tokenizer.json")
    tokenizer = read(tmp_path / "tokenizer.json")
    assert tokenizer.encode("hi hi<|end|>", allowed_special={"<|end|>"}) == [256, 257, 258]
    assert tokenizer.special_ids == {"<|end|>": 258}
    assert (tokenizer.vocab_size, len(tokenizer.ids), tokenizer.begin_ids) == (259, 259, ())
    assert tokenizer.decode([258, 257, 0xE6]) == "<|end|> hi�"
    assert tokenizer.decode_bytes([0xE6, 256]) == b"\xe6hi"
    assert tokenizer.token_bytes(257) == b" hi"


def test_a_strangers_text_holds_no_command():
    for tokenizer in OURS.values():
        commands = set(tokenizer.special_ids)
        plain = tokenizer.encode("".join(commands))
        assert not {tokenizer.special_ids[token] for token in commands} & set(plain)
        for command in commands:
            ids = tokenizer.encode("".join(commands), allowed_special={command})
            assert [i for i in ids if i in tokenizer.special_ids.values()] == [
                tokenizer.special_ids[command]
            ]


def test_a_vocabulary_that_has_a_command_among_its_words_does_not_give_it_to_a_stranger():
    content = small(
        model={"ignore_merges": True, "vocab": small()["model"]["vocab"] | {"END": 258}}
    )
    content["added_tokens"][0]["content"] = "END"
    tokenizer = JsonTokenizer(content)
    assert tokenizer.encode("hi END", allowed_special={"END"})[-1] == 258
    with pytest.raises(ValueError, match="turns plain text into 'END', which is a command"):
        tokenizer.encode("END")


def test_tokens_that_are_not_special_are_found_in_every_text():
    for kind, tokenizer in OURS.items():
        assert THEIRS[kind].token_to_id("<think>") in tokenizer.encode("a <think>b")
        assert "<think>" not in tokenizer.special_ids


def test_llama_3_has_words_that_no_merge_makes_and_one_token_before_each_text():
    tokenizer = OURS["Llama 3"]
    assert tokenizer.encode("xyzzy") == [300]
    assert len(OURS["Qwen"].encode("xyzzy")) > 1
    assert tokenizer.begin_ids == (301,)


def test_llama_2_puts_a_space_before_a_text_and_leaves_it_out_again():
    tokenizer = OURS["Llama 2"]
    ids = tokenizer.encode("the 里🙂")
    assert tokenizer.decode_bytes(ids) == " the 里🙂".encode()
    assert tokenizer.decode(ids) == "the 里🙂"
    assert [tokenizer.token_bytes(token) for token in ids[-4:]] == [
        b"\xf0",
        b"\x9f",
        b"\x99",
        b"\x82",
    ]
    assert tokenizer.begin_ids == (1,)


# --- reference ---------------------------------------------------------------------------------
@KINDS
def test_a_folder_gives_the_ids_that_transformers_gives_with_those_before_the_text(kind, tmp_path):
    fast = PreTrainedTokenizerFast(tokenizer_object=copy.deepcopy(THEIRS[kind]), pad_token="<pad>")
    fast("cut and filled", truncation=True, padding="max_length", max_length=20)
    fast.save_pretrained(tmp_path)
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path), read(tmp_path / "tokenizer.json")
    for text in (*SEEN[:1], "", " ", "  a\n ", "e\u0301 12345 <think>", "xyzzy 🙂", "I'll\r\n"):
        assert [*ours.begin_ids, *ours.encode(text)] == theirs(text)["input_ids"]


# --- law ---------------------------------------------------------------------------------------
@KINDS
@given(TEXTS)
@settings(deadline=None, max_examples=50)
def test_ids_and_text_are_those_of_the_tokenizers_library(kind, text):
    theirs, ours = THEIRS[kind], OURS[kind]
    found = theirs.encode(text, add_special_tokens=False).ids
    assert ours.encode(text, allowed_special=set(ours.special_ids)) == found
    assert ours.decode(found) == theirs.decode(found, skip_special_tokens=False)
    theirs.encode_special_tokens = True
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids
    theirs.encode_special_tokens = False


@KINDS
@given(TEXTS)
@settings(deadline=None, max_examples=50)
def test_what_is_streamed_after_a_text_is_what_it_adds_to_it(kind, text):
    tokenizer = OURS[kind]
    begin, ids = tokenizer.encode("the"), tokenizer.encode(text)
    streamed = "".join(stream_text(ids, tokenizer))
    assert tokenizer.decode([*begin, *ids]) == tokenizer.decode(begin) + streamed


@given(ANY_TEXT)
def test_where_nothing_is_normalised_any_text_comes_back(text):
    for kind in ("GPT-2", "SmolLM", "Llama 3"):
        assert OURS[kind].decode(OURS[kind].encode(text)) == text


def test_what_we_train_is_read_as_it_is(tmp_path):
    tokenizer = train(SEEN, 300, special_tokens=("<|end|>",))
    save_tokenizers_json(tokenizer, tmp_path / "tokenizer.json")
    ids = tokenizer.encode(SEEN[0])
    again = read(tmp_path / "tokenizer.json")
    assert again.encode(SEEN[0]) == ids
    assert [again.token_bytes(i) for i in range(300)] == [
        tokenizer.token_bytes(i) for i in range(300)
    ]


# --- bad input ---------------------------------------------------------------------------------
VOCAB, ADDED = small()["model"]["vocab"], small()["added_tokens"][0]
AFTER = processors.TemplateProcessing(single="$A <|end|>", special_tokens=[("<|end|>", 258)])
NO_TOKEN = processors.TemplateProcessing(single="a $A", special_tokens=[("a", 999)])
REFUSED = {
    "no model": (small() | {"model": None}, "its model must be an object, not None"),
    "unigram": (small(model={"type": "Unigram"}), "has type 'Unigram'; minillm reads BPE only"),
    "words": (
        small() | {"model": {"vocab": {"a": 0}, "unk_token": "a"}}, "reads BPE only|cannot read it"
    ),
    "dropout": (small(model={"dropout": 0.1}), r"has dropout 0\.1; minillm reads None only"),
    "suffix": (small(model={"end_of_word_suffix": "</w>"}), "end_of_word_suffix '</w>'"),
    "key": (small(extra=1), r"it has keys that minillm does not know: \['extra'\]"),
    "key of the model": (small(model={"ignore_merge": True}), r"its model .*\['ignore_merge'\]"),
    "key of a part": (small(normalizer={"type": "NFC", "form": 1}), r"normalizer .*\['form'\]"),
    "deep key": (
        small(normalizer={"type": "Sequence", "normalizers": [{"type": "NFC", "form": 1}]}),
        r"normalizer has keys that nobody reads: \['form'\]",
    ),
    "no keys": (
        small(normalizer={"type": "Sequence", "normalizers": [["plum"]]}),
        r"normalizer has .*\['plum'\]",
    ),
    "a byte": (small(model={"byte_fallback": True}), "all 256; 256 are missing, and what they"),
    "key of a token": (small(added_tokens=[ADDED | {"kind": 1}]), r"added token .*\['kind'\]"),
    "gap": (small(added_tokens=[ADDED | {"id": 300}]), "has id 300, but .* gives it 258: ids of"),
    "one id": (small(model={"vocab": VOCAB | {"hi": 3}}), "two tokens .* have one id"),
    "no list": (small(added_tokens=7), "the tokenizers library cannot read it: invalid type"),
    "a merge": (small(model={"merges": [["a", "§"]]}), "Token `a§` out of vocabulary"),
    "an id": (small(model={"vocab": VOCAB | {"!": -1}}), "cannot read it: invalid value"),
    "pattern": (
        small(pre_tokenizer={"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated",
                             "invert": False}),
        "cannot read it: Oniguruma error",
    ),
    "unheard of": (small(normalizer={"type": "NFQ"}), "parts are normalizer NFQ"),
    "decoder": (small(decoder=None), "its decoder is None; minillm reads ByteLevel"),
    "other decoder": (small(decoder={"type": "Fuse"}), "its decoder is Fuse; minillm reads"),
    "a token behind": (small(post_processor=json.loads(AFTER.__getstate__())), "none may stand"),
    "BERT": (small(post_processor={"type": "BertProcessing"}), "post_processor, BertProcessing, d"),
    "no such token": (
        small(post_processor=json.loads(NO_TOKEN.__getstate__())), r"begins with \[999\]"
    ),
    "no such entry": (
        small(post_processor=json.loads(NO_TOKEN.__getstate__()) | {"special_tokens": {}}),
        "does something else",
    ),
}  # fmt: skip


@pytest.mark.parametrize("content, message", REFUSED.values(), ids=REFUSED)
def test_what_is_other_is_named_and_refused(content, message, capfd):
    JsonTokenizer(small())
    with pytest.raises(ValueError, match=message):
        JsonTokenizer(content)
    assert capfd.readouterr() == ("", "")  # no traceback of Rust


@pytest.mark.parametrize(
    "data, message",
    [
        (b"{", r"tokenizer\.json is not JSON in UTF-8, or is cut off"),
        (pickle.dumps({"model": {}}), r"tokenizer\.json is a pickle"),
        (json.dumps(small(decoder=None)).encode(), r"^tokenizer\.json: its decoder is None"),
        (b'{"format": "minillm byte-level BPE", "version": 1}', "minillm train tokenizer FILES"),
    ],
)
def test_the_file_is_named(tmp_path, data, message):
    (tmp_path / "tokenizer.json").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("token", [259, -1, 1.5, "1", None])
def test_an_id_that_is_not_there_is_refused(token):
    with pytest.raises(ValueError, match=f"there is no id {token!r}"):
        JsonTokenizer(small()).decode([token])


def test_what_is_no_text_is_refused():
    for text, message in ((7, "text must be a str"), ("a\ud83d", "lone surrogate")):
        with pytest.raises(ValueError, match=message):
            JsonTokenizer(small()).encode(text)
