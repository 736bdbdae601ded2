"""An OpenAI-style server (推理服务器) around an engine: what speaks the protocol can use the model.

    GET  /                         a page to talk to the model
    GET  /v1/models                what is served
    POST /v1/completions           write on after a text
    POST /v1/chat/completions      answer a conversation
    GET  /health, /metrics         is it alive, how busy is it

**Whose thread.** One event loop reads and writes for all clients. The engine lives in a thread of
its own (`minillm.serve.worker`); between the two there are queues:

    client ── body ──▶ call ──▶ requests ──▶ worker ──▶ events ──▶ chunks ──▶ client
    client goes away ───── close ─────────────▶  its blocks are free for others

Who may ask at all is checked in `minillm.serve.guard`, what is asked in `minillm.serve.protocol`.

Paper: none; OpenAI's API reference for the forms, Prometheus' text format for the metrics.
Differs: see `minillm.serve.protocol` and `minillm.serve.replies`.

Chapter: 17
"""

import asyncio
import html
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from minillm.serve.engine import Engine
from minillm.serve.guard import check_host, check_key, read_json
from minillm.serve.protocol import parse
from minillm.serve.refusal import RequestError
from minillm.serve.replies import DONE, Reply, server_sent
from minillm.serve.request import Event, Request
from minillm.serve.served_model import ServedModel
from minillm.serve.worker import Failed, Full, Worker

# Starlette's, which is an extra: its Starlette, Request and Response.
Application = HttpRequest = Response = Any
Handler = Callable[[HttpRequest], Awaitable[Response]]

PAGE = Path(__file__).with_name("page.html")
#: What the page may do: nothing but talk to this server.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self';"
    " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
OUTCOMES = ("stop", "length", "cancelled", "refused", "failed")
GONE = 499  # the status that nobody reads any more


@final
@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """To whom a model is served, and how many.

    Args:
        api_key: what clients must show; None where only this machine can connect.
        most_open: requests that may wait or run at once; one more is refused (429).
        max_bytes: of a body; a larger one is refused (413).

    Raises:
        ValueError: an empty key, or no room for a byte.
    """

    api_key: str | None = None
    most_open: int = 64
    max_bytes: int = 2**20

    def __post_init__(self):
        if self.api_key == "" or self.max_bytes < 1:
            raise ValueError(
                "api_key must be None or have a character, and max_bytes be at least 1; got "
                f"{'an empty key' if self.api_key == '' else 'a key or None'}, {self.max_bytes}"
            )


def app(engine: Engine, served: ServedModel, config: ServerConfig | None = None) -> Application:
    """The application, for any ASGI server such as uvicorn; it starts and stops `state.worker`.

    Args:
        engine: with the served model and its tokenizer; from now on the application's own.
        served: what it is.
        config: to whom; None for this machine alone.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.routing import Route

    server = _Server(engine, served, ServerConfig() if config is None else config)

    @asynccontextmanager
    async def lifespan(application: Application) -> AsyncIterator[None]:
        server.worker.start()
        yield
        await asyncio.to_thread(server.worker.stop)

    routes = [
        ("GET", "/", server.page, False),
        ("GET", "/health", server.health, False),
        ("GET", "/metrics", server.metrics, True),
        ("GET", "/v1/models", server.models, True),
        ("GET", "/v1/models/{name:path}", server.model, True),
        ("POST", "/v1/completions", server.completions, True),
        ("POST", "/v1/chat/completions", server.chat_completions, True),
    ]
    application = Starlette(
        routes=[
            Route(path, server.guarded(handle, needs_key), methods=[method])
            for method, path, handle, needs_key in routes
        ],
        exception_handlers={HTTPException: _http_error, Exception: _unexpected},
        lifespan=lifespan,
    )
    application.state.worker = server.worker
    return application


@final
class _Server:
    """What the routes share."""

    def __init__(self, engine: Engine, served: ServedModel, config: ServerConfig):
        self.served, self.config = served, config
        self.worker = Worker(engine, config.most_open)
        self.refusals: Counter[int] = Counter()  # by status

    def guarded(self, handle: Handler, needs_key: bool) -> Handler:
        """A handler that asks who it is, and answers refusals in OpenAI's form."""
        from starlette.requests import ClientDisconnect

        async def answer(request: HttpRequest) -> Response:
            try:
                if self.config.api_key is None:
                    check_host(request.headers)
                elif needs_key:
                    check_key(request.headers, self.config.api_key)
                return await handle(request)
            except ClientDisconnect:  # before its body had come
                return _json({}, GONE)
            except RecursionError:
                error = RequestError("the body is nested too deeply")
            except RequestError as refusal:
                error = refusal
            self.refusals[error.status] += 1
            return _error(error)

        return answer

    # --- what it is -----------------------------------------------------------------------------
    async def page(self, request: HttpRequest) -> Response:
        """The page, with what is known of the model."""
        from starlette.responses import HTMLResponse

        facts = {
            "name": self.served.name,
            "about": self.served.description,
            "context": f"{self.served.context_length:,}",
            "key": "no" if self.config.api_key is None else "yes",
        }
        text = PAGE.read_text(encoding="utf-8")
        for name, value in facts.items():
            text = text.replace(f"{{{{{name}}}}}", html.escape(value))
        headers = {"content-security-policy": POLICY, "x-content-type-options": "nosniff"}
        return HTMLResponse(text, headers=headers)

    async def models(self, request: HttpRequest) -> Response:
        """The list of the one model."""
        return _json({"object": "list", "data": [self.served.as_object()]})

    async def model(self, request: HttpRequest) -> Response:
        """The one model."""
        self.served.check_name(request.path_params["name"])
        return _json(self.served.as_object())

    async def health(self, request: HttpRequest) -> Response:
        """200 while the engine works, else 503."""
        failed = self.worker.error is not None
        return _json({"status": "failed" if failed else "ok"}, 503 if failed else 200)

    async def metrics(self, request: HttpRequest) -> Response:
        """Counters and gauges, in Prometheus' text format."""
        from starlette.responses import PlainTextResponse

        load, counts = self.worker.load, self.worker.counts
        outcomes = {f'{{outcome="{each}"}}': counts[each] for each in OUTCOMES}
        refusals = {f'{{status="{each}"}}': n for each, n in sorted(self.refusals.items())}
        families = [
            ("prompt_tokens_total", "Tokens of prompts.", counts["prompt_tokens"]),
            ("completion_tokens_total", "Tokens written.", counts["completion_tokens"]),
            ("requests_total", "Answers, by how they ended.", outcomes),
            ("refusals_total", "HTTP requests that were refused, by status.", refusals),
            ("preemptions_total", "Answers stopped for lack of blocks.", load.n_preemptions),
            ("shared_tokens_total", "Prompt tokens found in the cache.", load.n_shared_tokens),
            ("open_requests", "Answers that wait or run.", self.worker.n_open),
            ("waiting_requests", "Answers that wait in the engine.", load.n_waiting),
            ("running_requests", "Answers that run.", load.n_running),
            ("cache_blocks", "Blocks of the cache.", load.n_blocks),
            ("cache_blocks_used", "Blocks that are held.", load.n_blocks_used),
        ]
        lines = []
        for name, meaning, values in families:
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP minillm_{name} {meaning}", f"# TYPE minillm_{name} {kind}"]
            series = values if isinstance(values, dict) else {"": values}
            lines += [f"minillm_{name}{labels} {value}" for labels, value in series.items()]
        return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")

    # --- answers --------------------------------------------------------------------------------
    async def completions(self, request: HttpRequest) -> Response:
        """Write on after a text."""
        return await self._answer(request, chat=False)

    async def chat_completions(self, request: HttpRequest) -> Response:
        """Answer a conversation."""
        return await self._answer(request, chat=True)

    async def _answer(self, request: HttpRequest, chat: bool) -> Response:
        from starlette.responses import StreamingResponse

        # 1. what is asked
        body = await read_json(request.headers, request.stream(), self.config.max_bytes)
        call = parse(body, chat=chat)
        self.served.check_name(call.model)
        requests = await asyncio.to_thread(self.served.requests, call)
        n_prompt_tokens = sum(len(each.prompt) for each in requests[:: call.n])
        reply = Reply(call, self.served.tokenizer, n_prompt_tokens, self.served.call_id)
        # 2. what the engine gives; up to its first event an error has a status of its own
        events = self._events(request, requests)
        first = await anext(events, None)
        if first is not None and call.stream:
            chunks = self._stream(reply, first, events)
            headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
            return StreamingResponse(chunks, media_type="text/event-stream", headers=headers)
        if first is not None:
            reply.add(*first)
            async for choice, event in events:
                reply.add(choice, event)
        # 3. all at once, unless the client went away before the end
        return _json(reply.whole() if reply.finished else {}, 200 if reply.finished else GONE)

    async def _events(
        self, request: HttpRequest, requests: Sequence[Request]
    ) -> AsyncIterator[tuple[int, Event]]:
        """What each choice is given, until all are finished or the client has gone.

        Raises:
            RequestError: 429, there is no room; 400, the engine refuses; 500 or 503, it failed.
        """
        queue: asyncio.Queue = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def deliver(*given: Any) -> None:  # called in the worker's thread
            with suppress(RuntimeError):  # the loop has ended, and with it all clients
                loop.call_soon_threadsafe(queue.put_nowait, given)

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            self.worker.close(job)
            queue.put_nowait(None)

        job = self._open(requests, deliver)
        watching = asyncio.create_task(watch())
        try:
            n_open = len(requests)
            while n_open and (given := await queue.get()) is not None:
                choice, event = given
                if isinstance(event, Exception):
                    raise _as_refusal(event)
                n_open -= event.finish_reason is not None
                yield choice, event
        finally:
            watching.cancel()
            self.worker.close(job)

    def _open(self, requests: Sequence[Request], deliver: Callable[..., None]) -> Any:
        if len(requests) > self.config.most_open:
            raise RequestError(
                f"n times the prompts is {len(requests)} answers, and this server works at "
                f"{self.config.most_open} at most; ask for fewer",
                param="n",
            )
        try:
            return self.worker.open(requests, deliver)
        except (Full, Failed) as error:
            raise _as_refusal(error) from None

    async def _stream(
        self, reply: Reply, first: tuple[int, Event], events: AsyncIterator[tuple[int, Event]]
    ) -> AsyncIterator[str]:
        """The chunks of a reply as server-sent events; an error is the last but [DONE]."""
        for chunk in [*reply.begin(), *reply.add(*first)]:
            yield server_sent(chunk)
        try:
            async for choice, event in events:
                for chunk in reply.add(choice, event):
                    yield server_sent(chunk)
            if reply.finished:
                for chunk in reply.end():
                    yield server_sent(chunk)
        except RequestError as error:
            yield server_sent(error.as_object())
        yield DONE


# --- forms of answers -----------------------------------------------------------------------------
def _json(
    content: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """As ASCII: what came from outside may hold half a character, which UTF-8 has no bytes for."""
    from starlette.responses import Response as Answer

    return Answer(json.dumps(content), status, headers, media_type="application/json")


def _error(error: RequestError) -> Response:
    headers = {429: {"retry-after": "1"}, 401: {"www-authenticate": "Bearer"}}
    return _json(error.as_object(), error.status, headers.get(error.status))


def _as_refusal(error: Exception) -> RequestError:
    """What a client is told of an error of the worker."""
    if isinstance(error, Full):
        return RequestError(f"{error}; try again in a second", status=429, code="queue_full")
    if isinstance(error, ValueError):
        return RequestError(str(error))
    if isinstance(error, Failed):
        return RequestError(str(error), status=503)
    return RequestError("the request failed; the server's own output says why", status=500)


async def _http_error(request: HttpRequest, error: Any) -> Response:
    """No such path, or no such method."""
    message = f"{error.detail}: {request.method} {request.url.path} is not served here"
    return _json(
        RequestError(message, status=error.status_code).as_object(),
        error.status_code,
        error.headers,
    )


async def _unexpected(request: HttpRequest, error: Exception) -> Response:
    """An error of ours; the ASGI server prints where."""
    return _error(RequestError("an error in the server; its own output says which", status=500))
