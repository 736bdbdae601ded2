"""Who may ask a server, and in what form: what is checked before a body is even read.

**Without a key** a server answers to names of this machine alone (`localhost`, `127.0.0.1`). A web
page of a stranger can make your browser connect to your own machine, under a name that it has
pointed there (DNS rebinding): then the header `Host` has that name.

**With a key** whoever has the key may ask. Keys are compared in a time that does not depend on how
many characters are right.

**A body** must say that it is JSON, which no page of another site may send unasked, and end within
a number of bytes. One that is too large is read on for a while and forgotten: who still writes does
not listen for an answer.

Paper: none.
Differs: none.

Chapter: 17
"""

import hmac
import ipaddress
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from minillm.lab.text_file import parse_json
from minillm.serve.refusal import RequestError

PATIENCE = 64  # times the largest body, read and forgotten before the connection is closed


def is_loopback(host: str | None) -> bool:
    """Whether a name or an address is this machine's own, for itself alone.

    Example:
        >>> [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "mei.org")]
        [True, True, True, False, False]
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def check_host(headers: Mapping[str, str]) -> None:
    """Refuse a client that knows this server under a name that is not this machine's own.

    Raises:
        RequestError: 403.

    Example:
        >>> check_host({"host": "localhost:8000"})
    """
    try:
        host = urlsplit(f"//{headers.get('host', '')}").hostname
    except ValueError:  # such as half an IPv6 address
        host = None
    if not is_loopback(host):
        raise RequestError(
            f"without a key this server answers to localhost and 127.0.0.1 only; got {host!r}",
            status=403,
        )


def check_key(headers: Mapping[str, str], key: str) -> None:
    """Refuse a client that does not show the key.

    Raises:
        RequestError: 401.

    Example:
        >>> check_key({"authorization": "Bearer plum"}, "plum")
    """
    given = headers.get("authorization", "").encode("latin-1", "replace")
    if not hmac.compare_digest(given, f"Bearer {key}".encode()):
        raise RequestError(
            "this server needs its key: the header Authorization: Bearer KEY.",
            status=401,
            code="invalid_api_key",
        )


async def read_json(
    headers: Mapping[str, str], chunks: AsyncIterator[bytes], max_bytes: int
) -> Any:
    """The JSON value of a body.

    Args:
        headers: with names in lower case.
        chunks: of the body, as they come.
        max_bytes: of a body.

    Raises:
        RequestError: 415, it is not said to be JSON; 413, it is too large; 400, it is no JSON.
    """
    kind = headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise RequestError(
            f"the body must be JSON: send the header Content-Type: application/json; got {kind!r}",
            status=415,
        )
    data, n_bytes = bytearray(), 0
    async for chunk in chunks:
        n_bytes += len(chunk)
        if n_bytes <= max_bytes:
            data += chunk
        elif n_bytes > PATIENCE * max_bytes:
            break
    if n_bytes > max_bytes:
        raise RequestError(f"the body has more than {max_bytes:,} bytes", status=413)
    try:
        return parse_json(data.decode())
    except ValueError as error:
        raise RequestError(f"the body must be JSON in UTF-8: {error}") from None
