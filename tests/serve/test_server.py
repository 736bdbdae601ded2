"""OpenAI's own client against the server, on a free port of this machine."""

import html.parser
import http.client
import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import openai
import pytest
import uvicorn
from openai.types.chat import ChatCompletionChunk
from prometheus_client.parser import text_string_to_metric_families

from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.model.attention import AttentionConfig
from minillm.model.config import TransformerConfig
from minillm.recipes.serving import describe
from minillm.serve.engine import Engine, EngineConfig
from minillm.serve.request import Request
from minillm.serve.sample import SampleConfig, generate
from minillm.serve.served_model import ServedModel
from minillm.serve.server import PAGE, ServerConfig, app
from minillm.serve.template import ChatTemplate, Message, Role, encode
from minillm.text.fast import to_tokenizers_json
from minillm.text.tokenizer import Tokenizer
from minillm.tune import chat
from tests.serve.caller import TOOLS, caller

END = "<|end|>"
TOKENIZER = JsonTokenizer(
    json.loads(to_tokenizers_json(Tokenizer(((104, 105), (32, 256)), (END,))))
)
TOY = TransformerConfig(
    vocab_size=264, context_length=128, d_model=16, n_layers=2, mixer=AttentionConfig(n_heads=2)
)
MODEL = TOY.build(seed=0).double()  # so that a batch rounds nothing away
TEMPLATE = ChatTemplate(
    roles={"system": Role(suffix="\n"), "user": Role(suffix="\n"), "assistant": Role(end=END)},
    special_tokens=(END,),
)
SERVED = ServedModel(
    name="toy",
    tokenizer=TOKENIZER,
    context_length=MODEL.context_length,
    vocab_size=264,
    about='A toy of <b>"bytes"</b>.',
    stop_ids=(258,),
    suppress_tokens=tuple(range(259, 264)),
    chat_template=TEMPLATE,
)
HI = {"model": "toy", "messages": [{"role": "user", "content": "hi"}], "seed": 3}


@contextmanager
def serving(config=None, engine=None, served=SERVED):
    """The server, on a port of its own, and a client that does not try twice."""
    engine = engine or Engine(MODEL, TOKENIZER, EngineConfig(max_batch=4, block_size=4))
    application = app(engine, served, config)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application, log_config=None))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    port = listening.getsockname()[1]
    key = config.api_key if config and config.api_key else "none"
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key, max_retries=0)
    try:
        with client:
            yield SimpleNamespace(port=port, client=client, worker=application.state.worker)
    finally:
        server.should_exit = True
        thread.join(100)


@pytest.fixture(scope="module")
def toy():
    with serving() as running:
        yield running


def held(engine):
    """Let the engine take a step for each release, and no other; gives what to release."""
    step, gate = engine.step, threading.Semaphore(0)

    def wait_and_step():
        gate.acquire()
        return step()

    engine.step = wait_and_step
    return gate


def until(condition, then=lambda: None):
    """Wait, however busy the machine is, but not for ever."""
    end = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
        then()


def ask(port, method, path, body=None, **headers):
    """Status, headers and text of a plain HTTP request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
    try:
        connection.request(method, path, body, {"content-type": "application/json"} | headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


def alone(prompt, n_tokens, **how):
    """The text that the model gives to a prompt when nobody else asks."""
    config = SampleConfig(suppress_tokens=SERVED.suppress_tokens, **how)
    (tokens,) = generate(MODEL, [prompt], config, n_tokens=n_tokens, stop_ids=(258,), seed=3)
    return TOKENIZER.decode(tokens)


# --- what it is -----------------------------------------------------------------------------------
def test_the_model_is_listed_with_what_it_is(toy):
    (model,) = toy.client.models.list().data
    assert (model.id, model.owned_by, model.chat_tuned) == ("toy", "minillm", True)
    assert toy.client.models.retrieve("toy").context_length == MODEL.context_length
    assert json.loads(ask(toy.port, "GET", "/health")[2]) == {"status": "ok"}


def test_a_text_is_continued_as_generate_does(toy):
    answer = toy.client.completions.create(model="toy", prompt="hi hi", max_tokens=9, seed=3)
    (choice,) = answer.choices
    assert (answer.object, choice.finish_reason) == ("text_completion", "length")
    assert choice.text == alone([256, 257], 9)
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (2, 9)


def test_a_conversation_is_answered_and_a_seed_repeats_it(toy):
    first, again = (toy.client.chat.completions.create(**HI, max_tokens=9) for _ in range(2))
    (choice,) = first.choices
    assert (choice.message.role, choice.finish_reason) == ("assistant", "length")
    prompt = encode([Message("user", "hi")], TEMPLATE, TOKENIZER)
    assert choice.message.content == alone(list(prompt), 9)
    assert choice.message.content == again.choices[0].message.content
    other = toy.client.chat.completions.create(**(HI | {"seed": 4}), max_tokens=9)
    assert other.choices[0].message.content != choice.message.content


def test_a_folder_with_a_chat_template_is_served_as_its_model_was_tuned(tmp_path):
    special_tokens = ("<|endoftext|>", *chat.TEMPLATE.special_tokens)
    tokenizer = JsonTokenizer(json.loads(to_tokenizers_json(Tokenizer((), special_tokens))))
    chat.save_template(tmp_path)
    served = replace(describe(tmp_path, MODEL, tokenizer, (256,)), name="tuned")
    talk = [
        Message("system", "Be brief."),
        Message("user", "Who?<|end|>"),
        Message("assistant", "Mei."),
        Message("user", "And 胡?"),
    ]
    (expected,) = chat.answers(
        MODEL,
        tokenizer,
        [talk],
        n_tokens=9,
        config=SampleConfig(temperature=0, suppress_tokens=served.suppress_tokens),
    )
    body = {"model": "tuned", "messages": [message._asdict() for message in talk]}
    how = {"max_tokens": 9, "temperature": 0}
    engine = Engine(MODEL, tokenizer, EngineConfig(max_batch=2, block_size=4))
    with serving(engine=engine, served=served) as running:
        assert running.client.models.retrieve("tuned").chat_tuned
        answer = running.client.chat.completions.create(**body, **how)
        chunks = list(running.client.chat.completions.create(**body, **how, stream=True))
        with pytest.raises(openai.BadRequestError, match="system, user, assistant; got 'teller'"):
            wrong = [{"role": "teller", "content": "a"}]
            running.client.chat.completions.create(model="tuned", messages=wrong)
    (choice,) = answer.choices
    assert choice.message.content == expected.text
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected.text
    assert answer.usage.prompt_tokens == len(encode(talk, chat.TEMPLATE, tokenizer))
    assert served.stop_ids + served.chat_template.stop_ids(tokenizer) == (256, 260)


def test_a_stream_has_exactly_the_chunks_that_clients_rely_on(toy):
    body = json.dumps(
        HI | {"max_tokens": 5, "stream": True, "stream_options": {"include_usage": True}}
    )
    status, headers, text = ask(toy.port, "POST", "/v1/chat/completions", body)
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    *events, done, rest = text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    *shown, usage = chunks
    deltas = [chunk["choices"][0]["delta"] for chunk in shown]
    assert deltas[0] == {"role": "assistant", "content": "", "refusal": None}
    assert all(delta.keys() == {"content"} and delta["content"] for delta in deltas[1:-1])
    assert deltas[-1] == {}
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in shown]
    assert reasons == [None] * (len(shown) - 1) + ["length"]
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 5
    whole = toy.client.chat.completions.create(**HI, max_tokens=5).choices[0].message.content
    assert "".join(delta.get("content", "") for delta in deltas) == whole


def test_a_text_ends_before_a_stop_text_streamed_or_not(toy):
    how = {"model": "toy", "prompt": "hi", "max_tokens": 12, "seed": 3}
    text = toy.client.completions.create(**how).choices[0].text
    stop = text[3:5]
    (choice,) = toy.client.completions.create(**how, stop=[stop, "nobody"]).choices
    assert (choice.text, choice.finish_reason) == (text[: text.index(stop)], "stop")
    chunks = list(toy.client.completions.create(**how, stop=stop, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == choice.text
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_several_answers_to_several_prompts_come_in_order(toy):
    how = {"model": "toy", "max_tokens": 4, "seed": 3}
    answer = toy.client.completions.create(prompt=["hi", "h"], n=2, **how)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    texts = [choice.text for choice in answer.choices]
    assert texts[0] != texts[1]
    alone_ = [toy.client.completions.create(prompt=p, n=2, **how).choices for p in ("hi", [104])]
    assert texts == [choice.text for choices in alone_ for choice in choices]
    assert answer.usage.prompt_tokens == 2


def test_log_probabilities_are_those_of_the_model(toy):
    engine = Engine(MODEL, TOKENIZER)
    greedy = SampleConfig(temperature=0, suppress_tokens=SERVED.suppress_tokens)
    request = Request(prompt=(256,), n_tokens=3, config=greedy, n_logprobs=2)
    (expected,) = engine.run([request])
    how = {"model": "toy", "prompt": "hi", "max_tokens": 3, "temperature": 0}
    logprobs = toy.client.completions.create(**how, logprobs=2).choices[0].logprobs
    n_shown = len(logprobs.tokens)
    assert n_shown
    chosen = [each.chosen for each in expected.logprobs][:n_shown]
    assert logprobs.token_logprobs == pytest.approx(chosen)
    assert [len(top) for top in logprobs.top_logprobs] == [2] * n_shown
    talk = toy.client.chat.completions.create(**HI, max_tokens=3, logprobs=True, top_logprobs=1)
    content = talk.choices[0].logprobs.content
    assert all(each.logprob < 0 and len(each.top_logprobs) == 1 for each in content)


def test_an_answer_in_json_keeps_to_its_schema(toy):
    properties = {"sold": {"type": "boolean"}, "fruit": {"enum": ["plum", "红"]}}
    schema = {"type": "object", "properties": properties, "required": ["sold", "fruit"]}
    form = {"type": "json_schema", "json_schema": {"name": "sale", "schema": schema}}
    (choice,) = toy.client.chat.completions.create(**HI, response_format=form).choices
    assert choice.finish_reason == "stop"
    sale = json.loads(choice.message.content)
    assert sale["sold"] in (True, False)
    assert sale["fruit"] in ("plum", "红")


def test_eight_clients_at_once_are_given_what_each_is_given_alone(toy):
    def text(n):
        how = {
            "seed": n,
            "max_tokens": 4 + n,
            "messages": [{"role": "user", "content": "hi" * n}],
        }
        if n % 2:
            stream = toy.client.chat.completions.create(**(HI | how), stream=True)
            return "".join(chunk.choices[0].delta.content or "" for chunk in stream)
        return toy.client.chat.completions.create(**(HI | how)).choices[0].message.content

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(text, range(8)))
    assert together == [text(n) for n in range(8)]


# --- tools ----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def tools():
    engine, served = caller()
    with serving(engine=engine, served=served) as running:
        yield running.client.chat.completions.create


def sale(answer):
    """The one call of an answer, its arguments checked against the schema."""
    (choice,) = answer.choices
    (call,) = choice.message.tool_calls
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    assert (call.type, call.function.name) == ("function", "sell")
    assert json.loads(call.function.arguments)["fruit"] in ("plum", "红")
    return call


def test_a_call_comes_with_an_id_and_its_result_is_answered(tools):
    call = sale(tools(**HI, tools=TOOLS))
    sent = {"role": "assistant", "tool_calls": [call.model_dump()]}
    result = {"role": "tool", "tool_call_id": call.id, "content": "<|end|><|assistant|>3 coins"}
    talk = [*HI["messages"], sent, result]
    answer = tools(**(HI | {"messages": talk}), tools=TOOLS, tool_choice="none", max_tokens=9)
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].finish_reason == "length"
    assert "<|call|>" not in answer.choices[0].message.content
    wrong = [*HI["messages"], sent, result | {"tool_call_id": "call_0"}]
    with pytest.raises(openai.BadRequestError, match="the id of the call") as error:
        tools(**(HI | {"messages": wrong}), tools=TOOLS)
    assert error.value.param == "messages.2.tool_call_id"


def test_who_offers_no_tools_is_answered_in_text(tools):
    answer = tools(**HI, max_tokens=9)
    assert answer.choices[0].message.tool_calls is None
    assert len(answer.choices[0].message.content) > 0
    assert "<|call|>" not in answer.choices[0].message.content


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "sell"}}])
def test_a_required_call_is_made_whatever_the_model_prefers(tools, choice):
    other = {"type": "function", "function": {"name": "sell_", "parameters": {"type": "object"}}}
    offered = TOOLS if choice == "required" else [other, *TOOLS]
    call = sale(tools(**HI, tools=offered, tool_choice=choice, parallel_tool_calls=True))
    assert call.function.name == "sell"


def test_a_call_streams_as_the_client_puts_it_together(tools):
    whole = sale(tools(**HI, tools=TOOLS))
    chunks = list(tools(**HI, tools=TOOLS, stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == ""
    (part,) = [call for delta in deltas for call in delta.tool_calls or ()]
    assert (part.index, part.function.arguments) == (0, whole.function.arguments)
    assert [c.choices[0].finish_reason for c in chunks] == [None] * (len(chunks) - 1) + [
        "tool_calls"
    ]


def test_a_call_without_room_to_end_is_no_call(tools):
    (choice,) = tools(**HI, tools=TOOLS, max_tokens=20).choices
    assert (choice.finish_reason, choice.message.content) == ("length", "")
    assert choice.message.tool_calls is None


def test_a_schema_of_a_tool_that_cannot_be_kept_to_is_refused(tools):
    odd = {"type": "object", "properties": {"fruit": {"type": "string", "pattern": "p"}}}
    with pytest.raises(openai.BadRequestError, match="'pattern' is not supported") as error:
        tools(**HI, tools=[{"type": "function", "function": {"name": "sell", "parameters": odd}}])
    assert error.value.param == "tools"


# --- who goes away, and what is too much ----------------------------------------------------------
@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_all_blocks(stream):
    engine = Engine(MODEL, TOKENIZER, EngineConfig(block_size=4))
    gate = held(engine)
    with serving(engine=engine) as running:
        body = json.dumps({"model": "toy", "prompt": "hi", "max_tokens": 100, "stream": stream})
        connection = http.client.HTTPConnection("127.0.0.1", running.port)
        connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
        gate.release(2)
        if stream:
            assert connection.getresponse().readline().startswith(b"data: ")
        else:
            until(lambda: running.worker.load.n_running)
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
        until(lambda: not running.worker.n_open, then=gate.release)  # a step now and then
        gate.release(100)
        until(lambda: not running.worker.load.n_blocks_used)
        assert running.worker.counts["cancelled"] == 1
        assert running.worker.counts["completion_tokens"] < 100


def test_a_client_that_goes_away_in_the_middle_of_its_question_is_no_error(toy, caplog):
    connection = http.client.HTTPConnection("127.0.0.1", toy.port)
    connection.putrequest("POST", "/v1/completions")
    for name, value in (("content-type", "application/json"), ("content-length", "100")):
        connection.putheader(name, value)
    connection.endheaders(b'{"model": ')
    connection.close()
    assert ask(toy.port, "GET", "/health")[0] == 200
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_one_request_too_many_may_come_back_later():
    engine = Engine(MODEL, TOKENIZER)
    gate = held(engine)
    with serving(ServerConfig(most_open=2), engine) as running:
        how = {"model": "toy", "prompt": "hi", "max_tokens": 2}
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(running.client.completions.create, **how, n=2)
            until(lambda: running.worker.n_open == 2)
            with pytest.raises(openai.RateLimitError, match="2 requests are in the works") as error:
                running.client.completions.create(**how)
            gate.release(100)
            assert error.value.response.headers["retry-after"] == "1"
            assert len(first.result(100).choices) == 2
        with pytest.raises(openai.BadRequestError, match=r"is 3 answers, .* at 2 at most"):
            running.client.completions.create(**how, n=3)


def test_a_key_is_asked_for_where_there_is_one():
    with serving(ServerConfig(api_key="plum")) as running:
        assert running.client.models.list().data
        wrong = running.client.with_options(api_key="pear")
        with pytest.raises(openai.AuthenticationError, match="needs its key"):
            wrong.models.list()
        with pytest.raises(openai.AuthenticationError):
            wrong.chat.completions.create(**HI)
        assert ask(running.port, "GET", "/metrics")[0] == 401
        page = ask(running.port, "GET", "/", host="mei.org")
        assert page[0] == 200
        assert 'data-key="yes"' in page[2]


# --- refusals -------------------------------------------------------------------------------------
def test_each_refusal_is_the_clients_own_exception(toy):
    chat = toy.client.chat.completions.create
    with pytest.raises(openai.NotFoundError, match="this server has 'toy'"):
        chat(**(HI | {"model": "gpt-5"}))
    with pytest.raises(openai.BadRequestError, match="toy was not tuned to call tools") as error:
        chat(**HI, tools=TOOLS)
    assert (error.value.param, error.value.type) == ("tools", "invalid_request_error")
    limit = MODEL.context_length
    with pytest.raises(openai.BadRequestError, match=f"up to {limit} tokens .* has {limit + 9}"):
        toy.client.completions.create(model="toy", prompt="h" * (limit + 9))
    with pytest.raises(openai.BadRequestError, match="vocabulary"):
        toy.client.completions.create(model="toy", prompt=[264], max_tokens=2)
    with pytest.raises(openai.BadRequestError, match="pattern"):
        form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"pattern": "a"}}}
        chat(**HI, response_format=form)
    with pytest.raises(openai.APIStatusError, match="more than 1,048,576 bytes") as error:
        toy.client.completions.create(model="toy", prompt="h" * 2**21)
    assert error.value.status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("POST", "/v1/completions", "{", {}, 400),
        ("POST", "/v1/completions", '{"prompt": "\\ud800", "model": "toy"}', {}, 400),
        ("POST", "/v1/completions", '{"model": "\\ud800", "prompt": ""}', {}, 404),
        ("POST", "/v1/completions", "{}", {"content-type": "text/plain"}, 415),
        ("GET", "/v1/completions", None, {}, 405),
        ("GET", "/v2", None, {}, 404),
        ("GET", "/", None, {"host": "mei.org"}, 403),
    ],
)
def test_what_no_client_of_openai_sends_is_refused_in_its_form_too(
    toy, method, path, body, headers, status
):
    found, _, text = ask(toy.port, method, path, body, **headers)
    assert found == status
    assert json.loads(text)["error"]["message"]


def test_an_engine_that_fails_is_an_error_of_the_server_and_it_goes_on(caplog):
    engine = Engine(MODEL, TOKENIZER)
    step, n_steps = engine.step, []

    def fail_at_the_third():
        n_steps.append(1)
        if len(n_steps) in (1, 4):
            raise IndexError("no block")
        return step()

    engine.step = fail_at_the_third
    with serving(engine=engine) as running:
        chat = running.client.chat.completions.create
        with pytest.raises(openai.InternalServerError, match="IndexError: no block"):
            chat(**HI, max_tokens=5)
        stream = chat(**HI, max_tokens=5, stream=True)  # two steps, and then none
        with pytest.raises(openai.APIError, match="IndexError: no block"):
            list(stream)
        assert chat(**HI, max_tokens=5).choices[0].message.content
    assert "a step of the engine failed" in caplog.text


# --- the page and the metrics ---------------------------------------------------------------------
def test_metrics_are_counted_in_prometheus_form(toy):
    def metrics():
        text = ask(toy.port, "GET", "/metrics")[2]
        families = text_string_to_metric_families(text)
        return {(s.name, *s.labels.values()): s.value for f in families for s in f.samples}

    before = metrics()
    toy.client.completions.create(model="toy", prompt="hi hi", max_tokens=6, seed=3)
    with pytest.raises(openai.NotFoundError):
        toy.client.completions.create(model="gpt", prompt="hi")
    after = metrics()
    more = {key: after[key] - before.get(key, 0) for key in after}
    assert more["minillm_prompt_tokens_total",] == 2
    assert more["minillm_completion_tokens_total",] == 6
    assert more["minillm_requests_total", "length"] == 1
    assert more["minillm_refusals_total", "404"] == 1
    assert after["minillm_cache_blocks_used",] == after["minillm_open_requests",] == 0


class Page(html.parser.HTMLParser):
    """The tags of a page, with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_page_says_what_the_model_is_and_labels_all_that_can_be_set(toy):
    status, headers, text = ask(toy.port, "GET", "/")
    assert status == 200
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "<p>A toy of &lt;b&gt;&quot;bytes&quot;&lt;/b&gt;.</p>" in text
    assert "{{" not in text.partition("<script>")[0]
    tags = Page(text).tags
    labelled = {attributes["for"] for tag, attributes in tags if tag == "label"}
    fields = {attributes["id"] for tag, attributes in tags if tag in ("input", "textarea")}
    assert fields == labelled
    assert {"message", "temperature", "tokens", "system"} <= fields
    assert ("html", {"lang": "en"}) in tags
    (log,) = [attributes for tag, attributes in tags if attributes.get("id") == "conversation"]
    assert (log["role"], log["aria-live"]) == ("log", "polite")


def test_the_page_asks_nobody_else_and_takes_text_for_text():
    text = PAGE.read_text(encoding="utf-8")
    assert not re.findall(
        r"https?:|//[a-z]+\.|\bsrc=|innerHTML|insertAdjacent|document\.write", text
    )


def test_a_config_is_checked():
    with pytest.raises(ValueError, match="an empty key"):
        ServerConfig(api_key="")
    with pytest.raises(ValueError, match="the tokenizer lacks"):
        replace(SERVED, chat_template=replace(TEMPLATE, special_tokens=(END, "<|no|>")))
