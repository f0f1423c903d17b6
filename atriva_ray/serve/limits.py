"""What stands between the network and the application: it refuses what is too much.

Everything here is bare ASGI, since every request goes through it.
"""

from __future__ import annotations

import asyncio
import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atriva_ray.errors import OverloadedError, RequestTooLargeError
from atriva_ray.serve.http_errors import (
    ClientGoneError,
    MethodNotAllowedError,
    error_answer,
)
from atriva_ray.serve.reception import LimitedReceive, RequestHead, read_head, receive_body
from atriva_ray.serve.request_limits import Limits

__all__ = ["Limits", "LimitsMiddleware", "receive_body"]

_METHODS = ("GET", "HEAD", "POST")

_log = logging.getLogger(__name__)


class LimitsMiddleware:
    """Keeps an ASGI application from requests that are too many, too large or too slow.

    What it refuses, and every error that the application lets through, is answered as the protocol
    has it: ``{"error": "..."}``. The application gets a `receive` that raises `SlowClientError` and
    `RequestTooLargeError`; both may just be let through.
    """

    def __init__(self, app: ASGIApp, limits: Limits | None = None) -> None:
        """Wrap an application."""
        self._app = app
        self._limits = limits or Limits()
        self._running_count = 0

    @property
    def running_count(self) -> int:
        """How many requests with a body are under way."""
        return self._running_count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sender = _Sender(send)
        reception = LimitedReceive(RequestHead(), receive, self._limits)
        try:
            reception.head = read_head(scope, self._limits)
            await self._run(scope, reception, sender)
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Not this request was cancelled, but something that it waited for.
            error = RuntimeError("what the request waited for was cancelled")
            error.__cause__ = cancelled
            await _answer(error, scope, reception, sender)
        except Exception as error:  # noqa: BLE001 - all end here
            await _answer(error, scope, reception, sender)
        finally:
            reception.close()

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, limits = scope["method"], self._limits
        if method not in _METHODS:
            raise MethodNotAllowedError(method, _METHODS)
        if method != "POST":
            # Not counted: whoever asks how the server is has to be told, above all now.
            await self._app(scope, receive, send)
            return
        if self._running_count >= limits.max_requests:
            raise OverloadedError(self._running_count, limits.max_requests, limits.retry_after_s)
        self._running_count += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._running_count -= 1


class _Sender:
    """An ASGI `send` that knows whether the answer has begun."""

    __slots__ = ("_send", "has_begun")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False

    async def __call__(self, message: Message) -> None:
        self.has_begun = True
        await self._send(message)


async def _answer(error: Exception, scope: Scope, reception: LimitedReceive, send: _Sender) -> None:
    if isinstance(error, ClientGoneError):
        return
    what = f"{scope['method'][:16]} {scope['path'][:200]!r}"
    if send.has_begun:
        # The server closes a connection whose answer is not whole, and so the client knows.
        _log.error("%s failed after its answer had begun", what, exc_info=error)
        return
    answer = error_answer(error, what=what)
    headers = list(answer.headers)
    is_too_large = isinstance(error, RequestTooLargeError)
    if reception.head.is_chunked and not reception.is_complete and not is_too_large:
        # No length says where it would end, so it need not.
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    if is_too_large and not reception.is_complete:
        await send({"type": "http.response.body", "body": answer.body, "more_body": True})
        await reception.drain()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    else:
        await send({"type": "http.response.body", "body": answer.body, "more_body": False})
