"""What a recipe reads: the town's documents, files, and one file from the net."""

import hashlib
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from minillm.recipes.data import LifeData, TextData, TownData

BODY = b"Mei sells plums.\n\nBao waits.\n\nThe mill stands still."
SHA256 = hashlib.sha256(BODY).hexdigest()
URL = "http://127.0.0.1:9/text"  # where nobody listens


def written(tmp_path, text):
    file = tmp_path / "letters.txt"
    file.write_text(text, encoding="utf-8")
    return str(file)


# --- by hand -----------------------------------------------------------------------------------
def test_documents_of_a_file_are_parted_by_blank_lines_and_the_last_are_held_out(tmp_path):
    file = written(tmp_path, "one\ntwo\n\n\nthree\n\n four \n\nfive\n")
    data = TextData(files=(file,), held_out=0.25)
    assert data.documents("train") == ["one\ntwo", "three", "four"]
    assert data.documents("held out") == ["five"]


def test_a_long_text_is_cut_once_by_letters_and_blank_lines_are_letters(tmp_path):
    file = written(tmp_path, "ab\n\ncdé习ghi")  # 11 letters; 0.7 of them are 7.7
    data = TextData(files=(file,), ends="file", held_out=0.3)
    assert data.documents("train") == ["ab\n\ncdé"]
    assert data.documents("held out") == ["习ghi"]


def test_files_of_a_long_text_follow_each_other(tmp_path):
    (tmp_path / "more.txt").write_text("wxyz", encoding="utf-8")
    files = (written(tmp_path, "abcd"), str(tmp_path / "more.txt"))
    data = TextData(files=files, ends="file", held_out=0.5)
    assert [data.documents(part) for part in ("train", "held out")] == [["abcd"], ["wxyz"]]
    assert TextData(files=files, held_out=0.5).documents("train") == ["abcd"]


def test_the_town_gives_stories_in_each_language_and_facts_in_all():
    data = TownData(story_blocks=2, fact_blocks=3, held_out_blocks=1)
    train, held_out = data.documents("train"), data.documents("held out")
    assert (len(train), len(held_out)) == (2 * 2 * 64 + 3 * 64, 2 * 64 + 64)
    assert train[0].isascii()
    assert not train[128].isascii()
    assert not set(train[:256]) & set(held_out[:128])
    assert TownData(world="Ann", story_blocks=1).documents("train")[0] != train[0]


SHORT_LIFE = LifeData(
    story_blocks=2,
    fact_blocks=3,
    market_blocks=1,
    worked_blocks=2,
    list_blocks=1,
    letter_blocks=0,
    held_out_blocks=1,
)


def test_the_life_of_a_town_is_stories_and_facts_and_all_else_in_each_language():
    train, held_out = (SHORT_LIFE.documents(part) for part in ("train", "held out"))
    same = TownData(story_blocks=2, fact_blocks=3, held_out_blocks=1)
    assert train[: 7 * 64] == same.documents("train")
    rest = train[7 * 64 :]
    assert [len(train), len(held_out)] == [(7 + 2 + 4 + 2) * 64, (3 + 2 + 2 + 2) * 64]
    assert [text.count("Steps: ") > 0 for text in rest[::64]] == [False] * 2 + [True] * 2 + [
        False
    ] * 4
    assert [text.count("步骤：") > 0 for text in rest[::64]] == [False] * 4 + [True] * 2 + [
        False
    ] * 2
    assert not set(rest) & set(held_out[3 * 64 :])


def test_a_tokenizer_learns_each_digit_and_each_chinese_name_by_itself():
    lines = SHORT_LIFE.to_learn_tokens_from("小梅买3个李子干，付20块。").split("\n")
    assert lines == ["小梅", "买3个", "李子干", "，付2", "0块。"]
    assert SHORT_LIFE.to_learn_tokens_from("20 plums") == "2\n0 plums"
    assert LifeData(world="Ann").to_learn_tokens_from("小梅本金") == "小梅\n本金"


STORY = "Mei sells plums.\n\nBao buys one."


@pytest.mark.parametrize("blank", ["", " ", "\t", "\u3000"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_documents_are_the_same_in_the_form_of_any_editor(tmp_path, blank, end):
    file = tmp_path / "letters.txt"
    text = f"\ufeffone\ntwo\n{blank}\nthree\n{blank}\n\n{blank}\nfour\n".replace("\n", end)
    file.write_bytes(text.encode())
    data = TextData(files=(str(file),), held_out=0.3)
    assert data.documents("train") + data.documents("held out") == ["one\ntwo", "three", "four"]


@pytest.mark.parametrize("line", ["<|endoftext|>\n", " <|endoftext|> \r\n"])
def test_lines_of_the_end_token_end_documents_and_blank_lines_are_text_then(tmp_path, line):
    file = written(tmp_path, f"\n{line}".join([f"{STORY}\n"] * 3) + line)
    plain = tmp_path / "plain.txt"
    plain.write_text(STORY, encoding="utf-8")
    data = TextData(files=(file, str(plain)), held_out=0.2)
    assert data.documents("train") == [STORY, STORY, STORY, "Mei sells plums."]
    assert data.documents("held out") == ["Bao buys one."]


@pytest.mark.parametrize("ends", ["blank line", "file"])
def test_an_end_token_within_a_text_is_never_learned_as_letters(tmp_path, ends):
    file = written(tmp_path, "Mei waits.<|endoftext|>Bao comes.\n\n" * 9)
    for part in ("train", "held out"):
        with pytest.raises(ValueError, match=r"letters\.txt spells <\|endoftext\|>, the token th"):
            TextData(files=(file,), ends=ends).documents(part)


# --- from the net ------------------------------------------------------------------------------
class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_):
        pass


@contextmanager
def serving():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def no_proxy_and_no_user_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("MINILLM_CACHE", str(tmp_path / "cache"))


def test_a_url_is_downloaded_once_and_kept(tmp_path):
    with serving() as (server, host):
        data = TextData(url=f"{host}/text", sha256=SHA256)
        assert server.asked == []  # a recipe is a value; making one asks nobody
        assert data.documents("train") == ["Mei sells plums.", "Bao waits."]
    assert server.asked == ["/text"]
    assert (tmp_path / "cache" / SHA256).read_bytes() == BODY
    assert data.documents("held out") == ["The mill stands still."]  # the server is down
    whole = TextData(url=data.url, sha256=SHA256, ends="file", held_out=0.5)
    assert "".join(whole.documents("train") + whole.documents("held out")) == BODY.decode()


# --- what stops it -----------------------------------------------------------------------------
def test_another_file_than_was_meant_is_refused():
    with serving() as (_, host), pytest.raises(ValueError, match="is not the file that was meant"):
        TextData(url=f"{host}/text", sha256="0" * 64).documents("train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, r"must be files, a list .*, or one url; got files = \(\) and url = None"),
        ({"files": "a.txt"}, "a list such as .*got files = 'a.txt'"),
        ({"files": ("a.txt",), "url": URL, "sha256": SHA256}, "or one url; got files = "),
        ({"url": URL}, "a url needs its file's sha256"),
        ({"files": ("a.txt",), "sha256": SHA256}, "and files need none"),
        ({"files": ("C:\tales\new.txt",)}, r"names 'C:\\tales\\new\.txt', which has a control ch"),
        ({"files": ("a.txt",), "ends": "line"}, 'ends must be "blank line" or "file"; got \'line'),
        ({"files": ("a.txt",), "held_out": 0.0}, "a share between 0 and 1; got 0.0"),
        ({"files": ("a.txt",), "held_out": 1.0}, "a share between 0 and 1; got 1.0"),
    ],
)
def test_what_is_nothing_to_read_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        TextData(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"story_blocks": 0}, "held_out_blocks must be at least 1; got 0 and 2"),
        ({"held_out_blocks": 0}, "held_out_blocks must be at least 1; got 100 and 0"),
        ({"fact_blocks": -1}, "fact_blocks must be at least 0; got -1"),
    ],
)
def test_less_than_nothing_of_a_town_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        TownData(**change)


@pytest.mark.parametrize("name", ["market", "worked", "list", "letter"])
def test_less_than_nothing_of_a_life_is_refused(name):
    with pytest.raises(ValueError, match=f"{name}_blocks must be at least 0; got -1"):
        LifeData(**{f"{name}_blocks": -1})
    with pytest.raises(ValueError, match="held_out_blocks must be at least 1; got 100 and 0"):
        LifeData(held_out_blocks=0)


def test_one_document_alone_cannot_be_held_out(tmp_path):
    file = written(tmp_path, "one\ntwo\n")
    with pytest.raises(ValueError, match=r"at least 2 documents.*letters\.txt has 1"):
        TextData(files=(file,)).documents("train")


@pytest.mark.parametrize("part", ["train", "held out"])
def test_one_letter_alone_cannot_be_held_out(tmp_path, part):
    data = TextData(files=(written(tmp_path, "a"),), ends="file")
    words = r"a text of 1 letters leaves none for one of the parts.*\.txt needs more text"
    with pytest.raises(ValueError, match=words):
        data.documents(part)


@pytest.mark.parametrize("ends", ["blank line", "file"])
def test_a_file_that_is_missing_is_named(tmp_path, ends):
    with pytest.raises(ValueError, match=r"no file or folder .*nowhere\.txt"):
        TextData(files=(str(tmp_path / "nowhere.txt"),), ends=ends).documents("train")
