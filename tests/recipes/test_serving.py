import http.client
import json
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.model.config import tiny
from minillm.recipes.serving import (
    check_host_and_key,
    check_installed,
    describe,
    first_sentence,
    greeting,
    listen,
    run,
)
from minillm.text.fast import to_tokenizers_json
from minillm.text.tokenizer import Tokenizer

USUAL = {"port": 0, "max_batch": 2, "queue": 2, "threads": 1}
#: A server whose every step takes a while, so that an answer is not done before Ctrl-C.
SLOW = """
import sys, time
from minillm.recipes import serving
from minillm.serve.engine import Engine

step = Engine.step
Engine.step = lambda self: time.sleep(0.1) or step(self)
serving.SECONDS_TO_FINISH = 0.3
sys.argv = ["minillm", "serve", "--model", "town-1m", "--port", "0"]
from minillm.cli import main
main()
"""


# --- by hand --------------------------------------------------------------------------------------
def test_other_machines_are_let_in_with_a_key_only():
    check_host_and_key("127.0.0.1", None)
    check_host_and_key("0.0.0.0", "plum")
    with pytest.raises(ValueError, match=r"--host 0\.0\.0\.0 lets other machines in"):
        run("town-1m", host="0.0.0.0", api_key=None, **USUAL)
    with pytest.raises(ValueError, match="is empty"):
        check_host_and_key("127.0.0.1", "")


def test_what_is_missing_is_named_with_what_to_type():
    check_installed()
    with pytest.raises(ValueError, match=r"needs no_such_package; .* 'minillm\[serve\]'"):
        check_installed(["json", "no_such_package"])


def test_a_port_that_is_taken_is_named():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} is in use, .*--port {port + 1}"):
            listen("127.0.0.1", port)
    with pytest.raises(ValueError, match="from 0 to 65535; got 70000"):
        listen("127.0.0.1", 70000)
    with pytest.raises(ValueError, match=r"cannot listen at 203\.0\.113\.7"):
        listen("203.0.113.7", 0)


def test_a_card_begins_with_what_the_model_is(tmp_path):
    assert first_sentence(tmp_path) == ""
    card = tmp_path / "CARD.md"
    card.write_text("# toy\n\nA toy of 0.1\nmillion. It knows\n\nnothing.", encoding="utf-8")
    assert first_sentence(tmp_path) == "A toy of 0.1 million."
    card.write_text("# toy\n", encoding="utf-8")
    assert first_sentence(tmp_path) == ""


def test_a_model_is_described_by_its_files(tmp_path):
    (tmp_path / "CARD.md").write_text("# toy\n\nA toy.", encoding="utf-8")
    tokenizer = JsonTokenizer(json.loads(to_tokenizers_json(Tokenizer((), ("<|a|>", "<|b|>")))))
    model = tiny(vocab_size=260).build(seed=0)
    plain = describe(tmp_path, model, tokenizer, ())
    assert (plain.name, plain.stop_ids, plain.suppress_tokens) == (
        tmp_path.name,
        (256, 257),
        (258, 259),
    )
    assert (
        plain.description == "A toy. It was not tuned for chat: it writes on where your text ends."
    )
    template = {"roles": {"assistant": {"end": "<|b|>"}}, "special_tokens": ["<|b|>"]}
    (tmp_path / "chat_template.json").write_text(json.dumps(template), encoding="utf-8")
    tuned = describe(tmp_path, model, tokenizer, (257,))
    assert (tuned.stop_ids, tuned.description) == ((257,), "A toy.")
    assert tuned.chat_template.roles["assistant"].end == "<|b|>"


def test_the_greeting_says_where_and_how_to_ask():
    served = SimpleNamespace(name="m", description="A toy.")
    text = "\n".join(greeting(served, "::1", 8000, None))
    assert "http://[::1]:8000/v1/completions" in text
    assert "Bearer" not in text
    assert "Bearer $MINILLM_API_KEY" in "\n".join(greeting(served, "0.0.0.0", 80, "plum"))


# --- as a program ---------------------------------------------------------------------------------
def test_ctrl_c_lets_who_is_answered_know_and_ends_without_a_traceback(tmp_path):
    output = tmp_path / "errors"
    with output.open("w") as errors:
        program = subprocess.Popen(
            [sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        lines = []
        while not lines or not lines[-1].startswith("  -d"):
            lines.append(program.stdout.readline())
            assert lines[-1] or program.poll() is None, output.read_text()
        assert lines[0].startswith("town-1m: A storyteller")
        port = int(lines[2].split()[0].rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
        body = {"model": "town-1m", "prompt": "Mei", "max_tokens": 100, "stream": True}
        headers = {"content-type": "application/json"}
        connection.request("POST", "/v1/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        assert answer.readline().startswith(b"data: {")
        program.send_signal(signal.SIGINT)
        *_, error, done = [line for line in answer.read().split(b"\n\n") if line]
        connection.close()
        assert b"the server is stopping" in error
        assert done == b"data: [DONE]"
        assert program.wait(100) == 130
    finally:
        program.kill()
        program.wait()
        program.stdout.close()
    assert output.read_text() == "\nminillm: stopped.\n"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
