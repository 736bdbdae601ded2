import hashlib
import socket
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from minillm.data import corpus
from minillm.data.corpus import (
    cache_folder,
    fetch,
    library_sources,
    python_documentation,
    read,
    reader,
    reader_passages,
)

BODY = "Mei sells red plums in the village. 我住在村里。\n".encode() * 5000  # more than one chunk
SHA256 = hashlib.sha256(BODY).hexdigest()


# --- what Python brings along ------------------------------------------------------------------


def test_pythons_documentation_is_long_english_and_the_same_each_time():
    text = python_documentation()
    assert len(text) > 200_000
    assert text.count(" the ") > 1000
    assert text == python_documentation()


def test_a_python_without_documentation_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(ValueError, match="came without its documentation"):
        python_documentation()


def test_library_sources_are_whole_lines_of_python_up_to_the_limit():
    short, long = library_sources(max_bytes=20_000), library_sources(max_bytes=60_000)
    assert 19_000 < len(short.encode()) <= 20_000
    assert long.startswith(short)
    assert short.endswith("\n")
    assert "import " in short


def test_library_sources_leave_out_tests_packages_and_this_machine(tmp_path, monkeypatch):
    for name, text in {
        "zlast.py": "z = 1\n",
        "email/a.py": "a = 1\r\n",
        "test/test_a.py": "no = 1\n",
        "email/tests/b.py": "no = 2\n",
        "site-packages/c.py": "no = 3\n",
        "_sysconfigdata_x.py": "no = 4\n",
        "notes.txt": "no = 5\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(text.encode())
    (tmp_path / "latin.py").write_bytes("# coding: latin-1\n# café\n".encode("latin-1"))
    monkeypatch.setattr(corpus.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    assert library_sources() == "a = 1\nz = 1\n"


def test_a_python_without_sources_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(ValueError, match="no library sources under"):
        library_sources()
    with pytest.raises(ValueError, match="max_bytes must be at least 1; got 0"):
        library_sources(max_bytes=0)


# --- the reader --------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    folder = tmp_path / "course" / "reader"
    folder.mkdir(parents=True)
    monkeypatch.setattr(corpus.project, "root", lambda: tmp_path)
    return folder


def test_a_passage_has_a_title_and_paragraphs(checkout):
    (checkout / "02_b.zh.txt").write_text("第二\n\n一。\n\n二。\n", encoding="utf-8")
    (checkout / "01_a.zh.txt").write_bytes("第一\r\n\r\n甲。\r\n乙。\r\n\r\n丙。\r\n".encode())
    (checkout / "01_a.en.txt").write_text("First\n\nOne.\n", encoding="utf-8")
    first, second = reader_passages("zh")
    assert (first.slug, first.title, first.paragraphs) == ("01_a", "第一", ("甲。\n乙。", "丙。"))
    assert second.slug == "02_b"
    assert reader("zh") == "第一\n\n甲。\n乙。\n\n丙。\n\n第二\n\n一。\n\n二。\n"
    assert reader("en") == "First\n\nOne.\n"


def test_the_reader_says_what_is_wrong(checkout):
    with pytest.raises(ValueError, match="got 'fr'"):
        reader("fr")
    with pytest.raises(ValueError, match="no passages"):
        reader("en")
    (checkout / "01_a.en.txt").write_text("A title alone\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"01_a\.en\.txt must have its title on the first line"):
        reader("en")
    (checkout / "01_a.en.txt").write_text("No title.\nBut lines.\n\nMore.", encoding="utf-8")
    with pytest.raises(ValueError, match="title on the first line"):
        reader("en")


# --- your own files ----------------------------------------------------------------------------


def test_a_file_is_read_as_it_stands_but_for_a_byte_order_mark_and_line_ends(tmp_path):
    path = tmp_path / "mei.anything"
    path.write_bytes(b"\xef\xbb\xbf" + "村\r\nplums \n".encode())
    assert read(path) == "村\nplums \n"
    assert read(str(path)) == read(path)


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path):
    for name in ("b.txt", "a/z.md", "a/y.txt", ".hidden/x.txt", "a/.x.txt", "c.csv", "d.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("" if name == "d.txt" else name, encoding="utf-8")
    assert read(tmp_path) == "a/y.txt\na/z.md\nb.txt"
    assert read(tmp_path, suffixes=[".csv"]) == "c.csv"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"plums\0", "is binary: it has a zero byte at position 5"),
        ("plums".encode("utf-16"), "is UTF-16"),
        (b"red\nplum\xe9s", r"not UTF-8: byte 0xe9 at position 8 \(line 2\)"),
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path, data, says):
    (tmp_path / "mei.txt").write_bytes(data)
    with pytest.raises(ValueError, match=rf"mei\.txt {says}|mei\.txt is {says}"):
        read(tmp_path / "mei.txt")


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no file or folder .*nowhere\.txt"):
        read(tmp_path / "nowhere.txt")
    with pytest.raises(ValueError, match=r"has no file that ends in \.txt, \.md, \.rst, \.py"):
        read(tmp_path)
    (tmp_path / "mei.txt").touch()
    with pytest.raises(ValueError, match=r"all 1 files in .* are empty"):
        read(tmp_path)
    with pytest.raises(ValueError, match="suffixes is a list"):
        read(tmp_path, suffixes=".txt")


def test_more_than_the_limit_is_refused_before_it_is_read(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("123456", encoding="utf-8")
    (tmp_path / "b.txt").write_text("123456", encoding="utf-8")
    monkeypatch.setattr(corpus, "MAX_BYTES", 10)
    monkeypatch.setattr(corpus.Path, "read_bytes", lambda path: pytest.fail("it was read"))
    with pytest.raises(ValueError, match="holds 12 bytes, more than the 10"):
        read(tmp_path)
    monkeypatch.setattr(corpus, "MAX_BYTES", 5)
    with pytest.raises(ValueError, match=r"a\.txt holds 6 bytes"):
        read(tmp_path / "a.txt")


# --- a download with a checksum ----------------------------------------------------------------


class Answers(BaseHTTPRequestHandler):
    """Answers by path; every request is counted."""

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path == "/gone":
            self.send_error(404)
            return
        if self.path in ("/leads", "/leads-to-ftp"):
            self.send_response(302)
            self.send_header("Location", "/text" if self.path == "/leads" else "ftp://host/text")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        if self.path == "/promises-much":  # and sends nothing: a reader would wait for ever
            self.send_header("Content-Length", str(10**15))
            self.end_headers()
            self.server.released.wait(5)
            return
        if self.path == "/hangs":
            self.end_headers()
            self.server.released.wait(5)
            return
        if self.path == "/truncated":
            self.send_header("Content-Length", str(len(BODY) + 5))
        elif self.path != "/no-length":
            self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *_):
        pass


@contextmanager
def serving():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.asked, server.released = [], threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def no_proxy_and_no_user_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("MINILLM_CACHE", str(tmp_path / "from-environment"))


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_a_second_call_needs_no_server(cache):
    with serving() as (server, host):
        path = fetch(f"{host}/text", SHA256, cache)
    assert server.asked == ["/text"]
    assert path.read_bytes() == BODY
    assert [kept.name for kept in cache.iterdir()] == [SHA256]
    assert fetch(f"{host}/text", SHA256.upper(), str(cache)) == path  # the server is down
    assert read(path) == BODY.decode()


def test_the_environment_moves_the_cache(tmp_path):
    with serving() as (_, host):
        path = fetch(f"{host}/no-length", SHA256)
    assert path == tmp_path / "from-environment" / SHA256


@pytest.mark.parametrize(
    ("platform", "variable", "place"),
    [
        ("win32", "LOCALAPPDATA", "{0}/minillm"),
        ("linux", "XDG_CACHE_HOME", "{0}/minillm"),
        ("darwin", None, "{home}/Library/Caches/minillm"),
        ("linux", None, "{home}/.cache/minillm"),
    ],
)
def test_each_system_has_its_place_for_caches(platform, variable, place, monkeypatch, tmp_path):
    for name in ("MINILLM_CACHE", "LOCALAPPDATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(corpus.Path, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(sys, "platform", platform)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path))
    expected = place.format(tmp_path.as_posix(), home=(tmp_path / "home").as_posix())
    assert cache_folder().as_posix() == expected


def test_a_redirect_is_followed_but_not_to_ftp(cache):
    with serving() as (server, host):
        assert fetch(f"{host}/leads", SHA256, cache).read_bytes() == BODY
        with pytest.raises(ValueError, match="leads to ftp://host/text, which is not http"):
            fetch(f"{host}/leads-to-ftp", "0" * 64, cache)
    assert server.asked == ["/leads", "/text", "/leads-to-ftp"]


def test_a_wrong_checksum_is_refused_and_nothing_is_kept(cache):
    with (
        serving() as (_, host),
        pytest.raises(ValueError, match=f"its sha256 is {SHA256}, not {'0' * 64}"),
    ):
        fetch(f"{host}/text", "0" * 64, cache)
    assert list(cache.iterdir()) == []


def test_a_damaged_copy_in_the_cache_is_downloaded_again(cache):
    cache.mkdir()
    (cache / SHA256).write_bytes(BODY[:-1])
    with serving() as (server, host):
        assert fetch(f"{host}/text", SHA256, cache).read_bytes() == BODY
    assert server.asked == ["/text"]


def test_a_file_put_there_by_hand_is_taken_without_asking_anyone(cache):
    cache.mkdir()
    (cache / SHA256).write_bytes(BODY)
    assert fetch("http://127.0.0.1:9/never-asked", SHA256, cache) == cache / SHA256


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/gone", r"/gone answered 404 \(Not Found\).*check the address"),
        ("/truncated", f"broke off after {len(BODY):,} of {len(BODY) + 5:,} bytes"),
    ],
)
def test_a_bad_answer_is_explained_and_nothing_is_kept(cache, path, says):
    with serving() as (_, host), pytest.raises(ConnectionError, match=says):
        fetch(host + path, SHA256, cache)
    assert list(cache.iterdir()) == []


def test_without_a_network_the_message_says_how_to_put_the_file_there_by_hand(cache):
    with socket.socket() as unused:  # bound, but nobody listens: the connection is refused
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/text"
        with pytest.raises(ConnectionError) as caught:
            fetch(url, SHA256, cache)
    message = str(caught.value)
    assert f"{url} cannot be reached" in message
    assert f"save it as {cache / SHA256}" in message
    assert f"sha256 {SHA256}" in message
    assert list(cache.iterdir()) == []


def test_a_server_that_says_nothing_is_given_up_on(cache):
    with serving() as (_, host), pytest.raises(ConnectionError, match=r"broke off \(timed out\)"):
        fetch(f"{host}/hangs", SHA256, cache, timeout_s=0.2)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "says"),
    [("/promises-much", "1,000,000,000,000,000 bytes long"), ("/no-length", "longer than it may")],
)
def test_too_long_a_file_is_refused_and_nothing_is_kept(cache, path, says):
    with serving() as (_, host), pytest.raises(ValueError, match=says):
        fetch(host + path, SHA256, cache, max_bytes=100_000, timeout_s=2.0)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "sha256", "says"),
    [
        ("file:///etc/hosts", SHA256, "url must be http"),
        ("ftp://host/text", SHA256, "url must be http"),
        ("http:///text", SHA256, "url must be http"),
        ("http://host/a b", SHA256, "no spaces"),
        ("http://host/text", SHA256[:-1], "64 hexadecimal digits"),
        ("http://host/text", "g" * 64, "64 hexadecimal digits"),
        ("http://host/text", "../" + "0" * 61, "64 hexadecimal digits"),
    ],
)
def test_an_address_or_checksum_that_is_none_is_refused(cache, url, sha256, says):
    with pytest.raises(ValueError, match=says):
        fetch(url, sha256, cache)
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write to the cache .*set MINILLM_CACHE"):
        fetch("http://127.0.0.1:9/text", SHA256, tmp_path / "file" / "cache")
