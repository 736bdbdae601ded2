"""What a client of an OpenAI-style server is told in place of an answer.

    {"error": {"message": …, "type": "invalid_request_error", "param": "n", "code": null}}

The form is OpenAI's, so their client raises the right exception. The message says what was
required, what was received, and how to mend it.

Paper: OpenAI's API reference, "Error codes", as its client's types state it.
Differs: none.

Chapter: 17
"""

from typing import Any


class RequestError(ValueError):
    """What a client is told in place of an answer.

    Args:
        message: what was required, what was received, how to mend it.
        param: the field that is wrong, such as "messages.0.role".
        status: of HTTP.
        code: a word for programs.

    Example:
        >>> RequestError("n must be 1", param="n").as_object()["error"]["type"]
        'invalid_request_error'
    """

    def __init__(
        self, message: str, *, param: str | None = None, status: int = 400, code: str | None = None
    ):
        super().__init__(message)
        self.param, self.status, self.code = param, status, code

    def as_object(self) -> dict[str, Any]:
        """The JSON object of OpenAI's form."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {
            "error": {
                "message": str(self),
                "type": "rate_limit_error" if self.status == 429 else kind,
                "param": self.param,
                "code": self.code,
            }
        }


def shown(value: Any) -> str:
    """A value in a message; it came from outside and may be long.

    Example:
        >>> shown("plum"), len(shown("plum" * 1000))
        ("'plum'", 78)
    """
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
