"""Errors as HTTP answers, and those that only HTTP has."""

from __future__ import annotations

import logging
import math
import secrets
from dataclasses import dataclass
from typing import ClassVar

from atriva_ray.errors import RequestTooLargeError, UnauthorizedError
from atriva_ray.serve.protocol.rest_answer import encode_error
from atriva_ray.serve.statuses import INTERNAL, status_of

__all__ = [
    "ClientGoneError",
    "ContentCodingError",
    "ErrorAnswer",
    "ForbiddenOriginError",
    "FormRefusedError",
    "HttpRefusalError",
    "MethodNotAllowedError",
    "NoSuchPathError",
    "SlowClientError",
    "error_answer",
]

_log = logging.getLogger(__name__)


class HttpRefusalError(Exception):
    """What only clients of the HTTP port are told; no program that calls us ever sees one."""

    status: ClassVar[int]


class ClientGoneError(HttpRefusalError):
    """The client went away before its request was whole; nobody is left to be told."""

    status = 499  # never sent; for who counts statuses

    def __str__(self) -> str:
        return "the client closed the connection before its request was whole"


class SlowClientError(HttpRefusalError):
    """The request's body came too slowly, or stopped coming."""

    status = 408

    def __init__(self, received_bytes: int, waited_s: float) -> None:
        super().__init__(received_bytes, waited_s)
        self.received_bytes = received_bytes
        self.waited_s = waited_s

    def __str__(self) -> str:
        return (
            f"the request came too slowly: {self.received_bytes:,} bytes of its body, waited for "
            f"over {self.waited_s:.3g} s; send it again"
        )


class ContentCodingError(HttpRefusalError):
    """The body is packed in a way that this server cannot unpack."""

    status = 415


class FormRefusedError(HttpRefusalError):
    """A picture came as a field of a form."""

    status = 415

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return (
            "the body is to be the JPEG or PNG file itself, not a form that has it as a field: "
            f"curl --data-binary @picture.png http://SERVER{self.path[:200]}, without -F"
        )


class MethodNotAllowedError(HttpRefusalError):
    """No address of this server has that method."""

    status = 405

    def __init__(self, method: str, allowed: tuple[str, ...]) -> None:
        super().__init__(method, allowed)
        self.method = method
        self.allowed = allowed

    def __str__(self) -> str:
        return f"this server has no method {self.method!r}; it has {', '.join(self.allowed)}"


class NoSuchPathError(HttpRefusalError):
    """The server has nothing at that address."""

    status = 404

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"there is nothing at {self.path[:200]!r}; /docs says what there is"


class ForbiddenOriginError(HttpRefusalError):
    """A browser asks on behalf of another web site."""

    status = 403

    def __init__(self, what: str, value: str) -> None:
        super().__init__(what, value)
        self.what = what
        self.value = value

    def __str__(self) -> str:
        return (
            f"requests with the {self.what} {self.value[:200]!r} are not answered: a web site must "
            "not use the browser of who reads it to reach this server"
        )


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """What is sent for an error.

    Attributes:
        status: the HTTP one.
        headers: with those that go with the status; names are lower case.
        body: JSON, ``{"error": "..."}``.
    """

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def error_answer(error: Exception, *, what: str = "a request") -> ErrorAnswer:
    """Return what to send for an error.

    An error that nobody expected goes to the log, with its traceback; the client only gets a
    reference to that place.

    Args:
        error: which one.
        what: what failed, for the log.
    """
    status = status_of(error)
    http = error.status if isinstance(error, HttpRefusalError) else status.http
    message = str(error)
    if http == INTERNAL.http:
        reference = secrets.token_hex(4)
        _log.error("%s failed, reference %s", what, reference, exc_info=error)
        message = (
            "this request could not be answered; who runs the server finds the reason "
            f"in its log at reference {reference}"
        )
    body = encode_error(message)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
    ]
    if status.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(status.retry_after_s))))
    if isinstance(error, UnauthorizedError):
        headers.append((b"www-authenticate", b'Bearer realm="atriva"'))
    if isinstance(error, MethodNotAllowedError):
        headers.append((b"allow", ", ".join(error.allowed).encode()))
    if isinstance(error, RequestTooLargeError | SlowClientError):
        # What is still on its way cannot be told from the next request.
        headers.append((b"connection", b"close"))
    return ErrorAnswer(http, tuple(headers), body)
