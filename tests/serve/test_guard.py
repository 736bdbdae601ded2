import asyncio

import pytest

from minillm.serve.guard import check_host, check_key, is_loopback, read_json
from minillm.serve.refusal import RequestError

JSON = {"content-type": "application/json; charset=utf-8"}


def read(*chunks, headers=JSON, max_bytes=20):
    taken = []

    async def body():
        for chunk in chunks:
            taken.append(chunk)
            yield chunk

    return asyncio.run(read_json(headers, body(), max_bytes)), taken


@pytest.mark.parametrize(
    "host", ["localhost:8000", "127.0.0.1", "127.9.9.9:1", "[::1]:8000", "LOCALHOST"]
)
def test_names_of_this_machine_are_let_in(host):
    check_host({"host": host})


@pytest.mark.parametrize(
    "host", ["mei.org", "127.0.0.1.mei.org", "localhost.mei.org:80", "", "[::1"]
)
def test_other_names_are_not(host):
    with pytest.raises(RequestError, match="answers to localhost") as error:
        check_host({"host": host})
    assert error.value.status == 403
    assert not is_loopback(host)


@pytest.mark.parametrize(
    "given", [None, "", "plum", "Bearer plu", "Bearer plum ", "Bearer pflaume\xe9"]
)
def test_another_key_is_refused(given):
    with pytest.raises(RequestError) as error:
        check_key({} if given is None else {"authorization": given}, "plum")
    assert (error.value.status, error.value.code) == (401, "invalid_api_key")


def test_the_key_is_let_in():
    check_key({"authorization": "Bearer plum"}, "plum")
    check_key({"authorization": "Bearer 红".encode().decode("latin-1")}, "红")


def test_a_body_may_come_in_parts():
    assert read(b'{"a": "', "红".encode()[:1], "红".encode()[1:], b'"}')[0] == {"a": "红"}


@pytest.mark.parametrize(
    ("chunks", "headers", "status", "words"),
    [
        ([b"{}"], {}, 415, "Content-Type: application/json"),
        ([b"{}"], {"content-type": "text/plain"}, 415, "got 'text/plain'"),
        ([b" " * 10, b" " * 11], JSON, 413, "more than 20 bytes"),
        ([b'{"a": 1, "a": 2}'], JSON, 400, "stands twice"),
        ([b"\xff"], JSON, 400, "must be JSON in UTF-8"),
        ([b'{"a": '], JSON, 400, "must be JSON in UTF-8"),
        ([b"[" * 20], JSON, 400, "must be JSON in UTF-8"),
    ],
)
def test_what_is_no_small_json_is_refused(chunks, headers, status, words):
    with pytest.raises(RequestError, match=words) as error:
        read(*chunks, headers=headers)
    assert error.value.status == status


def test_a_body_without_an_end_is_left():
    taken = []

    async def body():
        while True:
            taken.append(1)
            yield b" " * 10

    with pytest.raises(RequestError):
        asyncio.run(read_json(JSON, body(), 20))
    assert len(taken) == 64 * 2 + 1
