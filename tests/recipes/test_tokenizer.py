import pytest
from tokenizers import Tokenizer as TheirTokenizer
from tokenizers import decoders, models

from minillm.recipes.tokenizer import FILE, coloured, run, show_tokens
from minillm.text.fast import from_tokenizers_json

END = "<|endoftext|>"
TEXT = "Mei sells plums in the village. Mei lives in the village. 小梅住在村里。\n" * 20


@pytest.fixture
def trained(tmp_path):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    out = tmp_path / "made" / "here"
    special = ("<|endoftext|>",)
    return run([tmp_path / "text.txt"], vocab_size=290, out=out, special_tokens=special), out


def test_the_file_is_ours_and_that_of_the_tokenizers_library(trained):
    tokenizer, out = trained
    assert [path.name for path in out.iterdir()] == [FILE]
    assert from_tokenizers_json((out / FILE).read_text(encoding="utf-8")) == tokenizer
    theirs = TheirTokenizer.from_file(str(out / FILE))
    sentence = "Mei lives in the village, 小梅!"
    assert theirs.encode(sentence).ids == tokenizer.encode(sentence)


def test_the_run_says_what_it_made(tmp_path, capsys):
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    run([tmp_path / "text.txt"], vocab_size=270, out=tmp_path / "out", special_tokens=())
    out = capsys.readouterr().out
    assert "bytes a token on this text" in out
    assert FILE in out


def test_special_tokens_that_a_file_spells_are_no_text_to_learn(tmp_path):
    (tmp_path / "marked.txt").write_text((END * 50 + TEXT) * 2, encoding="utf-8")
    (tmp_path / "plain.txt").write_text(TEXT * 2, encoding="utf-8")
    learned = [
        run([tmp_path / name], vocab_size=300, out=tmp_path / "out", special_tokens=(END,))
        for name in ("marked.txt", "plain.txt")
    ]
    assert learned[0] == learned[1]


def test_pieces_ids_and_costs_are_shown(trained, capsys):
    _, out = trained
    capsys.readouterr()
    show_tokens("Mei!", out, trace=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].replace("|", "") == "Mei!"
    assert lines[2].startswith("4 characters, 4 bytes, ")
    assert any("M" in line and "→" in line for line in lines[3:])


def test_colours_come_only_where_they_are_wanted(trained, capsys, monkeypatch):
    _, out = trained
    monkeypatch.setenv("FORCE_COLOR", "1")
    show_tokens("Mei!", out)
    assert "\x1b[" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    show_tokens("Mei!", out)
    assert "\x1b[" not in capsys.readouterr().out


def test_half_a_character_is_shown_as_bytes():
    assert "\\xe6\\x9d" in coloured(["村".encode()[:2]])


def test_an_empty_text_has_no_pieces_and_no_rate(trained, capsys):
    _, out = trained
    capsys.readouterr()
    show_tokens("", out)
    assert capsys.readouterr().out.splitlines()[-1] == "0 characters, 0 bytes, 0 tokens"


def test_a_missing_tokenizer_says_how_to_make_one(tmp_path):
    with pytest.raises(ValueError, match="minillm train tokenizer FILES"):
        show_tokens("a", tmp_path)


def test_a_tokenizer_of_others_shows_its_pieces_but_no_merges(tmp_path, capsys):
    theirs = TheirTokenizer(models.BPE(vocab={"h": 0, "i": 1, "hi": 2}, merges=[("h", "i")]))
    theirs.decoder = decoders.ByteLevel()
    theirs.save(str(tmp_path / FILE))
    show_tokens("hih", tmp_path)
    assert capsys.readouterr().out.splitlines()[:2] == ["hi|h", "2 0"]
    with pytest.raises(ValueError, match="its merges cannot be shown"):
        show_tokens("hih", tmp_path, trace=True)


def test_an_old_file_says_how_to_make_a_new_one(tmp_path):
    old = tmp_path / "minillm-tokenizer.json"
    old.write_text('{"format": "minillm byte-level BPE", "version": 1}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"former format.*minillm train tokenizer FILES"):
        show_tokens("a", old)


def test_without_a_tokenizer_the_reader_teaches_one(capsys):
    show_tokens("I live in the village", None)
    assert "learned just now from the course's reader" in capsys.readouterr().out


def test_bytes_are_counted_not_characters_and_shared_among_the_tokens(trained, capsys):
    tokenizer, out = trained
    capsys.readouterr()
    show_tokens("村里", out)
    n_tokens = len(tokenizer.encode("村里"))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"2 characters, 6 bytes, {n_tokens} tokens, {6 / n_tokens:.2f} bytes a token"


def test_neighbouring_pieces_have_different_colours():
    first, second = coloured([b"a", b"b"]).split("\x1b[0m")[:2]
    assert first.replace("a", "") != second.replace("b", "")


def test_a_forced_colour_of_0_is_none(trained, capsys, monkeypatch):
    _, out = trained
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "0")
    show_tokens("Mei!", out)
    assert "\x1b[" not in capsys.readouterr().out
