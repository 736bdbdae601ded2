"""`minillm serve`: a model behind an OpenAI-style server, and a page to talk to it.

Chapter: app
"""

import errno
import importlib.util
import signal
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minillm.formats.tokenizer_json import JsonTokenizer
from minillm.model.transformer import Transformer
from minillm.serve import template
from minillm.serve.engine import Engine, EngineConfig
from minillm.serve.guard import is_loopback
from minillm.serve.served_model import ServedModel
from minillm.serve.server import ServerConfig, app
from minillm.zoo import checkpoints

SECONDS_TO_FINISH = 5  # after Ctrl-C, for answers that are being written
SECONDS_TO_CANCEL = 5  # afterwards at most, for the rest; it takes a fraction of one


def run(
    place: Path,
    *,
    host: str,
    port: int,
    api_key: str | None,
    max_batch: int,
    queue: int,
    threads: int,
) -> None:
    """Serve until Ctrl-C: answers in the works may finish for some seconds; again: at once.

    Args:
        place: a model's folder, or the name of a shipped one.
        host: the address to listen at.
        port: 0 for any that is free.
        api_key: what clients must show; None only where `host` is this machine's own.
        max_batch: requests that run at once.
        queue: requests that may wait beside them.
        threads: that torch computes with.

    Raises:
        ValueError: no server is installed; a host for others without a key; a port that is taken; a
            model that cannot be read.
    """
    import torch

    check_installed()
    check_host_and_key(host, api_key)
    with listen(host, port) as listening:
        torch.set_num_threads(threads)
        engine, served = open_served(place, EngineConfig(max_batch=max_batch))
        config = ServerConfig(api_key=api_key, most_open=max_batch + queue)
        print("\n".join(greeting(served, host, listening.getsockname()[1], api_key)), flush=True)
        _serve(app(engine, served, config), listening)


def _serve(application: Any, listening: socket.socket) -> None:
    """Run uvicorn in a thread, and leave the keyboard to this one."""
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(application, log_level="warning", access_log=False))
    ended = threading.Event()  # Python 3.11 takes a thread for dead if Ctrl-C comes during its join

    def run_server() -> None:
        try:
            server.run([listening])
        finally:
            ended.set()

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    threading.Thread(target=run_server, name="server", daemon=True).start()
    try:
        try:
            while not ended.wait(0.2):  # now and then, so that Windows too lets Ctrl-C in between
                pass
        except KeyboardInterrupt:
            # 1. no more connections; who is being answered may finish
            server.should_exit = True
            ended.wait(SECONDS_TO_FINISH)
            raise
    finally:
        # 2. what is left is cancelled and told so, and then connections end by themselves
        server.should_exit = True
        application.state.worker.stop(SECONDS_TO_CANCEL)
        ended.wait(SECONDS_TO_CANCEL)
        # 3. but for those whose clients do not listen
        server.force_exit = True
        ended.wait(1)
    raise ValueError("the server could not start; the reason stands above")


def check_installed(names: Sequence[str] = ("starlette", "uvicorn"), extra: str = "serve") -> None:
    """Refuse to go on where a package is missing.

    Args:
        names: of the packages.
        extra: of minillm, which brings them.

    Raises:
        ValueError: with what to type.
    """
    if missing := [name for name in names if importlib.util.find_spec(name) is None]:
        raise ValueError(
            f"this needs {' and '.join(missing)}; install them: pip install 'minillm[{extra}]'"
        )


def check_host_and_key(host: str, api_key: str | None) -> None:
    """Refuse to let other machines in without a key.

    Raises:
        ValueError: an empty key; none, where others can connect.
    """
    if api_key == "":
        raise ValueError(
            "the key of --api-key or MINILLM_API_KEY is empty; leave it out, or say one"
        )
    if api_key is None and not is_loopback(host):
        raise ValueError(
            f"--host {host} lets other machines in, so the server needs a key: set MINILLM_API_KEY "
            "(or say --api-key KEY, though other users of this machine can see that). With --host "
            "127.0.0.1, for this machine alone, it needs none"
        )


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ValueError: the port is taken, or the address is none of this machine's.
    """
    if not 0 <= port < 2**16:
        raise ValueError(f"a port is a number from 0 to 65535; got {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            why = f"port {port} is in use, perhaps by another server; take --port {port + 1}"
        else:
            why = f"cannot listen at {host}, port {port}: {error.strerror or error}"
        raise ValueError(why) from None


def open_served(place: Path, config: EngineConfig) -> tuple[Engine, ServedModel]:
    """A model in an engine, and what it is.

    Args:
        place: a model's folder, or the name of a shipped one.
        config: of the engine.

    Raises:
        ValueError: a model that cannot be read.
    """
    is_shipped = not place.exists() and str(place) in checkpoints.names()
    folder = checkpoints.folder(str(place)) if is_shipped else place
    model, tokenizer, end_ids = checkpoints.open_model(folder)
    served = describe(folder, model, tokenizer, end_ids)
    return Engine(model.eval(), tokenizer, config), served


def describe(
    folder: Path, model: Transformer, tokenizer: JsonTokenizer, end_ids: tuple[int, ...]
) -> ServedModel:
    """What clients are told of a model, and what its files say of its answers.

    Raises:
        ValueError: a chat template that is damaged.
    """
    stop_ids = end_ids or tuple(tokenizer.special_ids.values())
    return ServedModel(
        name=folder.resolve().name,
        tokenizer=tokenizer,
        context_length=model.context_length,
        vocab_size=len(model.embedding.weight),
        about=first_sentence(folder),
        stop_ids=stop_ids,
        suppress_tokens=checkpoints.ids_without_token(model, tokenizer, stop_ids),
        chat_template=template.load(folder, tokenizer),
    )


def first_sentence(folder: Path) -> str:
    """The first sentence of a model's card; "" where it has none.

    Example:
        >>> first_sentence(checkpoints.folder("town-1m"))[:35]
        'A storyteller of 923,008 parameters'
    """
    card = folder / "CARD.md"
    if not card.is_file():
        return ""
    lines = card.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#")).strip()
    sentence = " ".join(text.partition("\n\n")[0].split()).partition(". ")[0]
    return f"{sentence.rstrip('.')}." if sentence else ""


def greeting(served: ServedModel, host: str, port: int, api_key: str | None) -> list[str]:
    """What is printed: what is served, where, and how to ask it."""
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    header = "" if api_key is None else '  -H "Authorization: Bearer $MINILLM_API_KEY" \\\n'
    return [
        f"{served.name}: {served.description}",
        "",
        f"  {address}      a page to talk to it (Ctrl-C stops the server)",
        f"  {address}/v1   the API, for programs that speak OpenAI's",
        "",
        f"curl {address}/v1/completions -H 'Content-Type: application/json' \\\n{header}"
        f'  -d \'{{"model": "{served.name}", "prompt": "Mei", "max_tokens": 40}}\'',
    ]
