"""minillm.text.tokenizer_file: tokenizers on disk."""

import json
import os
import pickle
import pydoc_data.topics

import pytest

from minillm.text.bpe import train
from minillm.text.fast import to_tokenizers_json
from minillm.text.tokenizer import Tokenizer
from minillm.text.tokenizer_file import MAX_BYTES, _checksum, load, save

REAL_TEXT = "\n".join(text for _, text in sorted(pydoc_data.topics.topics.items()))
TOKENIZER = train(
    [REAL_TEXT[:20_000], '村里 村里 村里 \x00\x00 \\\\ ""', b"\xff\xfe \xff\xfe"],
    None,
    special_tokens=("<|endoftext|>", "村\n"),
    min_count=2,
)


@pytest.fixture
def path(tmp_path):
    save(TOKENIZER, tmp_path / "tokenizer.minillm.json")
    return tmp_path / "tokenizer.minillm.json"


def edit(path, **changes):
    """Change the content and make the checksum right again."""
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    content["sha256"] = _checksum(content)
    path.write_text(json.dumps(content), encoding="utf-8")


# --- by hand ---


def test_a_person_can_read_the_file(tmp_path):
    save(Tokenizer(((32, 0xE6), (104, 105)), ("<|end|>",), r"\S+|\s+"), tmp_path / "t.json")
    lines = (tmp_path / "t.json").read_text(encoding="utf-8").splitlines()
    assert lines[:-2] == [
        "{",
        '  "format": "minillm byte-level BPE",',
        '  "version": 1,',
        '  "n_vocab": 259,',
        r'  "pattern": "\\S+|\\s+",',
        '  "special_tokens": ["<|end|>"],',
        '  "merges": [',
        r'    [256, " ", "\\xe6"],',
        '    [257, "h", "i"]',
        "  ],",
    ]


def test_a_character_stands_in_the_file_as_itself(path):
    assert len(TOKENIZER.encode("村里")) == 1
    merges = [line for line in path.read_text(encoding="utf-8").splitlines() if '"村' in line]
    assert len(merges) >= 1


# --- law ---


def test_what_is_saved_is_loaded(path):
    assert load(path) == TOKENIZER
    assert load(str(path)).encode(REAL_TEXT[:5000]) == TOKENIZER.encode(REAL_TEXT[:5000])


def test_a_tokenizer_without_merges_is_saved_too(tmp_path):
    save(Tokenizer(()), tmp_path / "t.json")
    assert load(tmp_path / "t.json") == Tokenizer(())


def test_the_same_tokenizer_makes_the_same_file(path, tmp_path):
    save(load(path), tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()


def test_white_space_is_no_part_of_the_content(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content, indent=4), encoding="utf-8")
    assert load(path) == TOKENIZER


def test_a_failed_save_leaves_the_old_file_and_nothing_else(path, monkeypatch):
    def full(_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        save(Tokenizer(()), path)
    assert load(path) == TOKENIZER
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


# --- bad input: each its own message ---


@pytest.mark.parametrize("share", [0.0005, 0.3, 0.9, 0.99])
def test_a_truncated_file_is_called_cut_off(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match="cut off after"):
        load(path)


def test_half_a_character_at_the_end_is_no_text(path):
    data = path.read_bytes()
    path.write_bytes(data[: data.index("村".encode()) + 1])
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        load(path)


def test_an_edited_file_is_noticed(path):
    text = path.read_text(encoding="utf-8")
    assert text.count('"in"') > 0
    path.write_text(text.replace('"in"', '"im"'), encoding="utf-8")
    with pytest.raises(ValueError, match="was edited or damaged: its content has SHA-256"):
        load(path)


def test_every_single_changed_line_is_noticed(tmp_path):
    save(Tokenizer(((104, 105), (32, 256)), ("<|end|>",)), tmp_path / "t.json")
    lines = (tmp_path / "t.json").read_text(encoding="utf-8").splitlines(keepends=True)
    for i in range(len(lines)):
        (tmp_path / "t.json").write_text("".join(lines[:i] + lines[i + 1 :]), encoding="utf-8")
        with pytest.raises(ValueError, match=r"t\.json cannot be loaded"):
            load(tmp_path / "t.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b"hello", "is not JSON"),
        (b"[1, 2]", "no tokenizer of ours"),
        (b'{"a": 1}', "no tokenizer of ours"),
        (b"[" * 100_000, "is not JSON"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        (pickle.dumps({"merges": []}), "is a pickle"),
        (b"PK\x03\x04 a zip, as torch.save writes", "is a pickle or an archive"),
        (to_tokenizers_json(TOKENIZER).encode(), r"looks like a tokenizer\.json"),
    ],
    ids=["empty", "text", "list", "object", "nested", "binary", "pickle", "zip", "tokenizers"],
)
def test_a_foreign_file_is_refused(path, content, message):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load(path)


def test_a_pickle_is_never_executed(path, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="is a pickle"):
        load(path)
    assert not (tmp_path / "sprung").exists()


def test_another_version_is_refused(path):
    edit(path, version=2)
    with pytest.raises(ValueError, match=r"has version 2 .* reads version 1"):
        load(path)


def test_unknown_and_missing_keys_are_refused(path):
    edit(path, comment="mine")
    with pytest.raises(ValueError, match=r"missing \[\], unknown \['comment'\]"):
        load(path)


@pytest.mark.parametrize("n_vocab", [10**12, 255, -1, "many", None])
def test_an_impossible_declared_size_is_refused(path, n_vocab):
    edit(path, n_vocab=n_vocab)
    with pytest.raises(ValueError, match=r"declares n_vocab .*; possible are"):
        load(path)


def test_a_wrong_declared_size_is_refused(path):
    edit(path, n_vocab=TOKENIZER.n_vocab + 1)
    with pytest.raises(ValueError, match=r"declares n_vocab .* but holds"):
        load(path)


def test_a_huge_file_is_refused_before_it_is_read(path):
    with open(path, "wb") as file:
        file.truncate(MAX_BYTES + 1)  # sparse: takes no room on the disk
    with pytest.raises(ValueError, match="larger than 64 MiB"):
        load(path)


@pytest.mark.parametrize(
    ("merges", "message"),
    [
        ([[256, "a", "bc"]], "not .256, left, right"),  # bc does not exist yet
        ([[256, "a"]], "not .256, left, right"),
        ([[256, "a", 5]], "not .256, left, right"),
        ([5], "not .256, left, right"),
        ([[256, "a", "\\q"]], "not .256, left, right"),
        ([[257, "a", "b"]], "should have id 256"),
        ([[256, "a", "b"], [257, "a", "b"]], "a spelling of its own"),
        ({"256": ["a", "b"]}, "must be lists"),
    ],
)
def test_an_impossible_merge_is_refused(path, merges, message):
    edit(path, merges=merges, n_vocab=258)
    with pytest.raises(ValueError, match=message):
        load(path)


def test_a_tokenizer_that_would_not_come_back_is_not_saved(tmp_path):
    twice = Tokenizer(((97, 98), (98, 99), (256, 99), (97, 257)))  # ab+c and a+bc
    with pytest.raises(ValueError, match="a spelling of its own"):
        save(twice, tmp_path / "t.json")
    assert list(tmp_path.iterdir()) == []


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        load(tmp_path / "none.json")
    with pytest.raises(ValueError, match="there is no folder"):
        save(TOKENIZER, tmp_path / "none" / "t.json")
