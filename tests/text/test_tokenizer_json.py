import json

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from minillm.text.bpe import train
from minillm.text.fast import save_tokenizers_json, to_tokenizers_json
from minillm.text.tokenizer import Tokenizer
from minillm.text.tokenizer_json import GPT2_PATTERN, Renumbered, from_object, read

END = "<|endoftext|>"
TEXT = "the hen sees the hens and the ten men. 村里的人看人，人人看村。 It's 2023 here!\n\n\tnaïve "
TEXTS = [
    TEXT,
    "",
    " ",
    "  \n ",
    "éé e\u0301 \u1100\u1161",
    "12345 and 6",
    "🙂👩‍🚀",
    "I'll don't\r\n",
    "न\u092e",
]
SEEN = [TEXT] * 20


def trained(pre_tokenizer, normalizer=None, specials=(END,), n_vocab=300):
    """A tokenizer of the tokenizers library, as its own trainer makes one: special tokens first."""
    theirs = tokenizers.Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizer
    theirs.decoder = decoders.ByteLevel()
    if normalizer is not None:
        theirs.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=n_vocab,
        special_tokens=list(specials),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    theirs.train_from_iterator(SEEN, trainer)
    return theirs


CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split(pattern):
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


THEIRS = {
    "as GPT-2": trained(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "as Qwen": trained(split(CL100K), normalizers.NFC(), ("<|im_start|>", END)),
    "no special": trained(split(GPT2_PATTERN), specials=()),
}
ALL = pytest.mark.parametrize("theirs", THEIRS.values(), ids=THEIRS)


def ours(theirs):
    return from_object(json.loads(theirs.to_str()))


KEEPING = [ours(THEIRS["as GPT-2"]), ours(THEIRS["no special"])]  # no NFC: nothing is lost


# --- by hand -----------------------------------------------------------------------------------
SMALL = Tokenizer(((104, 105), (32, 256)), (END,))
ROTATED = Renumbered(SMALL, (*range(1, 259), 0))


def test_tokens_have_the_numbers_of_the_file():
    assert ROTATED.encode("hi hi") == [257, 258]
    assert ROTATED.encode(f"hi{END}", allowed_special={END}) == [257, 0]
    assert ROTATED.encode(f"hi{END}")[1:] != [0]
    assert ROTATED.special_ids == {END: 0}
    assert ROTATED.n_vocab == 259
    assert ROTATED.token_bytes(258) == b" hi"
    assert ROTATED.decode([0, 258, 257]) == f"{END} hihi"
    assert ROTATED.decode_bytes([256, 257]) == b"\xffhi"
    assert ROTATED.decode([256]) == "�"


def test_composed_text_is_one_letter_where_the_file_asks_for_it():
    identity = tuple(range(259))
    assert Renumbered(SMALL, identity).encode("e\u0301") == [0x65, 0xCC, 0x81]
    assert Renumbered(SMALL, identity, nfc=True).encode("e\u0301") == [0xC3, 0xA9]


def test_ids_may_leave_gaps():
    gaps = Renumbered(SMALL, (*range(258), 1000))
    assert gaps.n_vocab == 1001
    with pytest.raises(
        ValueError, match="there is no id 500: this tokenizer has 259 tokens, with i"
    ):
        gaps.decode([500])


# --- twin --------------------------------------------------------------------------------------
def test_what_we_write_is_read_back_as_it_was(tmp_path):
    tokenizer = train(SEEN, 300, special_tokens=(END, "<s>"))
    save_tokenizers_json(tokenizer, tmp_path / "tokenizer.json")
    again = read(tmp_path / "tokenizer.json")
    assert again.tokenizer == tokenizer
    assert again.ids == tuple(range(300))
    assert again.nfc is False


# --- reference ---------------------------------------------------------------------------------
@ALL
def test_ids_are_those_of_the_tokenizers_library(theirs):
    tokenizer = ours(theirs)
    assert tokenizer.n_vocab == theirs.get_vocab_size() == 300
    assert tokenizer.special_ids.items() <= theirs.get_vocab().items()
    for text in TEXTS:
        ids = theirs.encode(text).ids
        assert tokenizer.encode(text) == ids
        assert tokenizer.decode(ids) == theirs.decode(ids)
    marked = TEXT.join(tokenizer.special_ids) + f"{TEXT}{END}"
    specials = tokenizer.special_ids.keys()
    assert tokenizer.encode(marked, allowed_special=specials) == theirs.encode(marked).ids


@ALL
def test_what_transformers_makes_of_it_is_read(theirs, tmp_path):
    fast = PreTrainedTokenizerFast(tokenizer_object=theirs)
    fast.add_special_tokens({"pad_token": "<pad>"})
    fast.add_tokens(["<think>"])
    fast("cut and filled", truncation=True, padding="max_length", max_length=20)
    fast.save_pretrained(tmp_path)
    tokenizer = read(tmp_path / "tokenizer.json")
    assert {"<pad>": 300, "<think>": 301}.items() <= tokenizer.special_ids.items()
    for text in TEXTS:
        assert tokenizer.encode(text) == fast(text)["input_ids"]


def test_merges_may_stand_as_older_versions_wrote_them():
    content = json.loads(THEIRS["as GPT-2"].to_str())
    content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
    assert from_object(content) == ours(THEIRS["as GPT-2"])


# --- law ---------------------------------------------------------------------------------------
@given(st.text(st.characters(codec="utf-8"), max_size=30))
def test_any_text_comes_back(text):
    assert ROTATED.decode(ROTATED.encode(text)) == text
    for tokenizer in KEEPING:
        assert tokenizer.decode(tokenizer.encode(text)) == text


# --- bad input ---------------------------------------------------------------------------------
def changed(**parts):
    return json.loads(to_tokenizers_json(SMALL)) | parts


def without(token):
    return {name: number for name, number in VOCAB.items() if name != token}


def model(**parts):
    content = json.loads(to_tokenizers_json(SMALL))
    return content | {"model": content["model"] | parts}


VOCAB = json.loads(to_tokenizers_json(SMALL))["model"]["vocab"]
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
SPLIT = {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False}
BOS = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, 258)])
ADDED = changed()["added_tokens"][0]
REFUSED = {
    "WordPiece": (model(type="WordPiece"), "its model is WordPiece; .* with BPE there"),
    "no model": (changed(model=None), "its model is missing"),
    "unigram": (changed(model={"type": "Unigram"}), "its model is Unigram"),
    "lower case": (changed(normalizer={"type": "Lowercase"}), "normalizer is Lowercase; .* NFC"),
    "a first token": (
        changed(post_processor=json.loads(BOS.__getstate__())),
        "its post_processor is TemplateProcessing",
    ),
    "metaspace": (changed(decoder={"type": "Metaspace"}), "its decoder is Metaspace"),
    "dropout": (model(dropout=0.1), r"its model has dropout 0\.1; minillm reads None only"),
    "fallback": (model(byte_fallback=True), "byte_fallback True; minillm reads False only"),
    "whole words": (model(ignore_merges=True), "ignore_merges True"),
    "suffix": (model(end_of_word_suffix="</w>"), "end_of_word_suffix '</w>'"),
    "characters": (model(vocab=VOCAB | {"▁the": 300}), r"1 of its tokens .* as \['▁the'\]"),
    "a byte": (model(vocab=without("!")), r"vocab lacks 1 .*'!'"),
    "a merge": (model(vocab=without("hi")), r"vocab lacks 1 .*'hi'"),
    "no vocab": (model(vocab=[]), r"needs a vocab \(an object\), merges and added"),
    "no merges": (model(merges=None), "needs a vocab"),
    "too early": (model(merges=[["Ġ", "hi"], ["h", "i"]]), r"merge 0 is \['Ġ', 'hi'\], not two"),
    "three": (model(merges=[["a", "b", "c"]]), "its merge 0 is .*, not two tokens"),
    "a number": (model(merges=[7]), "its merge 0 is 7, not two tokens"),
    "two ways": (
        model(
            merges=[["h", "i"], ["i", "i"], ["hi", "i"], ["h", "ii"]],
            vocab=VOCAB | {"ii": 300, "hii": 301},
        ),
        "two of its merges make 'hii'",
    ),
    "ids": (model(vocab=VOCAB | {"!": "0"}), "its ids must be whole numbers"),
    "below": (model(vocab=VOCAB | {"!": -1}), "its ids must be whole numbers"),
    "twice": (model(vocab=VOCAB | {"!": 34}), "259 ids, 258 of them different"),
    "greedy": (changed(added_tokens=[ADDED | {"lstrip": True}]), f"'{ADDED['content']}' has lstr"
               .replace("|", r"\|")),
    "nameless": (changed(added_tokens=[{"id": 7}]), "an added token needs a content and an id"),
    "no cut": (changed(pre_tokenizer=None), "its pre_tokenizer is neither ByteLevel nor"),
    "white space": (changed(pre_tokenizer={"type": "Whitespace"}), "its pre_tokenizer is neither"),
    "a space first": (
        changed(pre_tokenizer=BYTE_LEVEL | {"use_regex": True, "add_prefix_space": True}),
        "without add_prefix_space",
    ),
    "uncut": (changed(pre_tokenizer=BYTE_LEVEL), "its pre_tokenizer is neither"),
    "two cuts": (
        changed(pre_tokenizer={"type": "Sequence", "pretokenizers": [SPLIT, SPLIT, BYTE_LEVEL]}),
        "its pre_tokenizer is neither",
    ),
    "removed": (
        changed(
            pre_tokenizer={
                "type": "Sequence",
                "pretokenizers": [SPLIT | {"behavior": "Removed"}, BYTE_LEVEL],
            }
        ),
        "its pre_tokenizer is neither",
    ),
    "an odd sequence": (changed(pre_tokenizer={"type": "Sequence"}), "its pre_tokenizer is neit"),
    "a bad pattern": (
        changed(
            pre_tokenizer={
                "type": "Sequence",
                "pretokenizers": [SPLIT | {"pattern": {"Regex": "("}}, BYTE_LEVEL],
            }
        ),
        "is not a regular expression",
    ),
}  # fmt: skip


@pytest.mark.parametrize("content, message", REFUSED.values(), ids=REFUSED)
def test_another_kind_is_named_and_refused(content, message):
    with pytest.raises(ValueError, match=message):
        from_object(content)


def test_what_is_refused_would_have_been_read_unchanged():
    assert from_object(changed()).tokenizer == from_object(model()).tokenizer == SMALL


def test_the_file_is_named(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(ValueError, match=r"there is no file .*tokenizer\.json"):
        read(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"tokenizer\.json is not JSON in UTF-8, or is cut off"):
        read(path)
    path.write_text(json.dumps(model(type="WordLevel")), encoding="utf-8")
    with pytest.raises(ValueError, match=r"^tokenizer\.json: its model is WordLevel"):
        read(path)


@pytest.mark.parametrize("token", [259, -1, 1.5, "1", None])
def test_an_id_that_is_not_there_is_refused(token):
    for call in (
        ROTATED.token_bytes,
        lambda t: ROTATED.decode([t]),
        lambda t: ROTATED.decode_bytes([t]),
    ):
        with pytest.raises(ValueError, match=f"there is no id {token!r}"):
            call(token)


@pytest.mark.parametrize("nfc", [False, True])
@pytest.mark.parametrize(
    "text, message", [(7, "text must be a str"), ("a\ud83d", "lone surrogate")]
)
def test_what_is_no_text_is_refused(nfc, text, message):
    with pytest.raises(ValueError, match=message):
        Renumbered(SMALL, tuple(range(259)), nfc=nfc).encode(text)


def test_each_token_needs_an_id_of_its_own():
    with pytest.raises(ValueError, match="each of the 259 tokens needs an id of its own; got 258"):
        Renumbered(SMALL, tuple(range(258)))
    with pytest.raises(ValueError, match="got 259 ids, 258 of them different"):
        Renumbered(SMALL, (*range(258), 0))
