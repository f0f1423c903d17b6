"""How a request's body gets here: counted, timed, unpacked, and copied once at most."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import numpy as np
from starlette.types import Message, Receive, Scope

from atriva_ray.errors import BadRequestError, RequestTooLargeError
from atriva_ray.serve.http_errors import ClientGoneError, SlowClientError
from atriva_ray.serve.inflate import PIECE_BYTES, Inflater
from atriva_ray.serve.request_limits import Limits

__all__ = ["LimitedReceive", "RequestHead", "read_head", "receive_body"]

_MOST_DIGITS = 18


@dataclass(slots=True)
class RequestHead:
    """What a request's headers say of its body.

    Attributes:
        size_bytes: of the body; None if they do not say.
        coding: how it is packed; empty if it is not.
        is_chunked: whether it comes in parts, and nobody knows how many.
    """

    size_bytes: int | None = None
    coding: str = ""
    is_chunked: bool = False


def read_head(scope: Scope, limits: Limits) -> RequestHead:
    """Look at a request's headers.

    Raises:
        BadRequestError: a length is no number, or longer than what it is a part of.
        RequestTooLargeError: what they announce is more than the limits allow.
    """
    head = RequestHead()
    json_bytes = 0
    for name, value in scope["headers"]:
        if name == b"content-length":
            head.size_bytes = _length("Content-Length", value)
        elif name == b"inference-header-content-length":
            # If it comes twice, none of them may be too large: the application takes the first.
            length = _length("Inference-Header-Content-Length", value)
            json_bytes = max(json_bytes, length)
        elif name == b"content-encoding":
            head.coding = _join(head.coding, value.decode("latin-1").strip().lower())
        elif name == b"transfer-encoding":
            head.is_chunked = True
    size_bytes = head.size_bytes
    if size_bytes is not None and size_bytes > limits.max_body_bytes:
        raise RequestTooLargeError(size_bytes, limits.max_body_bytes)
    if json_bytes:
        if json_bytes > limits.max_json_bytes:
            raise RequestTooLargeError(json_bytes, limits.max_json_bytes)
        if size_bytes is not None and json_bytes > size_bytes and not head.coding:
            raise BadRequestError(
                f"Inference-Header-Content-Length is {json_bytes:,}, "
                f"but the whole body has {size_bytes:,} bytes"
            )
    return head


class LimitedReceive:
    """An ASGI `receive` that counts the body of one request and gives up on a slow client.

    Only time spent waiting for the client counts, not what is done with a part of the body before
    the next one is asked for.
    """

    __slots__ = (
        "_cancelling_count",
        "_due_s",
        "_is_late",
        "_limits",
        "_receive",
        "_task",
        "_timer",
        "_waited_s",
        "head",
        "is_complete",
        "received_bytes",
    )

    def __init__(self, head: RequestHead, receive: Receive, limits: Limits) -> None:
        """Receive through `receive`."""
        self.head = head
        self.is_complete = False
        self.received_bytes = 0
        self._receive = receive
        self._limits = limits
        self._waited_s = 0.0
        self._due_s = 0.0
        self._is_late = False
        self._cancelling_count = 0
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def __call__(self) -> Message:
        """Return the next message.

        Raises:
            RequestTooLargeError: the body has become larger than it may.
            SlowClientError: the client has taken longer than it may.
        """
        if self.is_complete:
            return await self._receive()  # waits for the client to go away: as long as that takes
        message = await self._receive_in_time()
        if message["type"] == "http.request":
            self.received_bytes += len(message.get("body", b""))
            if self.received_bytes > self._limits.max_body_bytes:
                raise RequestTooLargeError(None, self._limits.max_body_bytes)
            if message.get("more_body", False):
                return message
        self.is_complete = True
        self.close()
        return message

    def close(self) -> None:
        """Stop the clock; what is asked for later starts it again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def drain(self) -> None:
        """Take in what still comes, for `Limits.linger_s` and as much as a body may have.

        A connection that is closed while the client still sends is reset, and the answer that was
        on its way is lost to the client.
        """
        size_bytes = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.linger_s):
                while not self.is_complete and size_bytes <= self._limits.max_body_bytes:
                    message = await self._receive()
                    size_bytes += len(message.get("body", b""))
                    self.is_complete = not message.get("more_body", False)

    async def _receive_in_time(self) -> Message:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a body is received by a task of asyncio")
        loop = task.get_loop()
        begun_s = loop.time()
        limits = self._limits
        left_s = (
            limits.body_grace_s + self.received_bytes / limits.min_body_bytes_per_s - self._waited_s
        )
        self._due_s = begun_s + min(limits.max_idle_s, left_s)
        # One timer for a whole body, which mostly goes off never: setting one up for every part
        # would cost more than the rest of this.
        if self._timer is None or self._timer.when() > self._due_s:
            self._set_timer(loop)
        self._cancelling_count = task.cancelling()
        self._task = task
        try:
            return await self._receive()
        except asyncio.CancelledError:
            self._task = None
            if self._is_late and task.uncancel() <= self._cancelling_count:
                waited_s = self._waited_s + loop.time() - begun_s
                raise SlowClientError(self.received_bytes, waited_s) from None
            raise
        finally:
            self._task = None
            self._waited_s += loop.time() - begun_s

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(self._due_s, self._go_off, loop)

    def _go_off(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if self._task is None:
            return  # nobody waits for the client; who does next sets it again
        if loop.time() < self._due_s:
            self._set_timer(loop)
            return
        self._is_late = True
        self._task.cancel()


async def receive_body(scope: Scope, receive: Receive, limits: Limits) -> bytes | memoryview:
    """Receive a request's body, unpacked.

    Args:
        scope: the request.
        receive: of the request, or what `LimitsMiddleware` has made of it.
        limits: how much, and how slowly.

    Returns:
        The body; not to be written to. It is copied once if it came in parts and not at all if it
        came in one.

    Raises:
        RequestTooLargeError: it is larger than it may be, packed or unpacked.
        SlowClientError: it came too slowly.
        BadRequestError: it is not packed as its header says, or shorter than it says.
        ClientGoneError: the client went away.
    """
    if isinstance(receive, LimitedReceive):
        return await _receive_whole(receive, limits)
    reception = LimitedReceive(read_head(scope, limits), receive, limits)
    try:
        return await _receive_whole(reception, limits)
    finally:
        reception.close()


async def _receive_whole(reception: LimitedReceive, limits: Limits) -> bytes | memoryview:
    if reception.head.coding not in {"", "identity"}:
        inflater = Inflater(reception.head.coding, limits.max_body_bytes)
        return await _receive_packed(reception, inflater)
    part = await _receive_part(reception)
    if reception.is_complete:
        return part
    if reception.head.size_bytes is None:
        parts = [part]
        while not reception.is_complete:
            parts.append(await _receive_part(reception))
        return b"".join(parts)
    return await _receive_into(reception, part, reception.head.size_bytes)


async def _receive_into(reception: LimitedReceive, part: bytes, size_bytes: int) -> memoryview:
    # Not a bytearray: that one would write zeros to all of it first, which takes time, and makes
    # the memory that a client merely announces real.
    body = np.empty(size_bytes, np.uint8).data
    end = 0
    while True:
        begin, end = end, end + len(part)
        if end > size_bytes:
            break
        body[begin:end] = part
        if reception.is_complete:
            break
        part = await _receive_part(reception)
    if end != size_bytes:
        raise BadRequestError(f"the body is not the {size_bytes:,} bytes of its Content-Length")
    return body.toreadonly()


async def _receive_packed(reception: LimitedReceive, inflater: Inflater) -> bytes:
    pieces: list[bytes] = []
    while not reception.is_complete:
        for piece in inflater.feed(await _receive_part(reception)):
            pieces.append(piece)
            if len(piece) == PIECE_BYTES:
                await asyncio.sleep(0)
    inflater.finish()
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def _receive_part(reception: LimitedReceive) -> bytes:
    message = await reception()
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    part: bytes = message.get("body", b"")
    return part


def _length(name: str, value: bytes) -> int:
    digits = value.strip()
    if not digits.isdigit() or len(digits) > _MOST_DIGITS:
        raise BadRequestError(f"{name} is {value[:40].decode('latin-1')!r}, which is no length")
    return int(digits)


def _join(first: str, second: str) -> str:
    return f"{first}, {second}" if first else second
