"""The format of everything that travels on a lane, and the reader that takes it apart.

A frame is 32 bytes of header and a body of the size the header says::

    kind u8, flags u8, slot u16, layout u32, request u64, body_size u64, first u32, second u32

All numbers are little-endian. ``slot`` is a piece of shared memory, ``layout`` a description of
arrays sent before; which of the other fields mean something depends on the kind.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from atriva_ray.lanes.errors import FrameError

__all__ = [
    "HEADER_BYTES",
    "INLINE",
    "Frame",
    "FrameReader",
    "Kind",
    "pack",
    "packed_queue",
    "queue_of",
]

_HEADER = struct.Struct("<BBHIQQII")
HEADER_BYTES = _HEADER.size

INLINE = 0xFFFF
"""Stands for no slot: the arrays are the frame's body."""

SPECIALISE = 1
"""Flag of a request: run it on the model compiled for exactly its shapes."""

SESSION = 4
"""Flag of a request: it is one of the session whose number is ``first``."""

_QUEUE_BITS = 28
_QUEUE_MASK = (1 << _QUEUE_BITS) - 1

_BUFFER_BYTES = 64 * 1024
_DIRECT_BYTES = 32 * 1024
"""A body from this size on is received straight into memory of its own."""


class Kind(IntEnum):
    """What a frame is for.

    Attributes:
        LAYOUT: describes arrays (body) under a number (``layout``).
        ATTACH: hands over shared memory for ``slot``, ``request`` bytes long; the descriptor
            travels with the frame.
        REQUEST: arrays of ``layout``, in ``slot`` or in the body.
        ANSWER: the arrays of the answer to ``request``, likewise; ``first`` is the service time in
            microseconds, ``second`` the number of requests left at the replica and how many it
            would like to have for each slot (see `packed_queue`), ``flags`` how many
            other clients have used it of late.
        ERROR: the answer to ``request`` is an error (body); the rest as with ANSWER.
        SESSION: something is to be done with the session ``first``; ``layout`` says what (a
            `SessionOp`), the body is the state to give it.
        STATE: the answer to such a ``request``; the body is the session's state, the rest as with
            ANSWER.
    """

    LAYOUT = 1
    ATTACH = 2
    REQUEST = 3
    ANSWER = 4
    ERROR = 5
    SESSION = 8
    STATE = 9


class Frame(NamedTuple):
    """A frame as it was received; its body belongs to the receiver."""

    kind: int
    flags: int
    slot: int
    layout: int
    request: int
    body_size: int
    first: int
    second: int
    body: Any = b""


def pack(
    kind: int,
    *,
    flags: int = 0,
    slot: int = INLINE,
    layout: int = 0,
    request: int = 0,
    body_size: int = 0,
    first: int = 0,
    second: int = 0,
) -> bytes:
    """Write a header."""
    return _HEADER.pack(kind, flags, slot, layout, request, body_size, first, second)


def packed_queue(queue_len: int, wanted: int = 1) -> int:
    """Return an answer's ``second``.

    Args:
        queue_len: requests left at the replica.
        wanted: requests that it would like to have for each slot, a power of two.
    """
    return min(_QUEUE_MASK, queue_len) | (wanted.bit_length() - 1) << _QUEUE_BITS


def queue_of(frame: Frame) -> tuple[int, int]:
    """Return what was packed with `packed_queue`: queue length, and requests wanted."""
    return frame.second & _QUEUE_MASK, 1 << (frame.second >> _QUEUE_BITS)


class FrameReader:
    """Takes frames out of a stream of bytes, however these are cut.

    A large body is received straight into memory of its own; nothing is read ahead of it.
    """

    def __init__(self, check: Callable[[Frame], int]) -> None:
        """Make a reader.

        Args:
            check: called with every header as soon as it is there, before memory for the body is
                taken; returns the largest body that it may have, and raises `FrameError` to
                refuse the frame.
        """
        self._check = check
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._end = 0
        self._header: Frame | None = None
        self._body: Any = None
        self._body_view: memoryview | None = None
        self._body_end = 0

    def space(self) -> memoryview:
        """Return where the next bytes are to be received; never empty."""
        if self._body_view is not None:
            return self._body_view[self._body_end :]
        return self._view[self._end :]

    def received(self, count: int) -> Iterator[Frame]:
        """Take in `count` bytes that were put into `space`, and yield the frames now whole.

        Each frame has to be dealt with before the next is asked for, for `check` may need what it
        said; and all have to be asked for before `space` is.

        Raises:
            FrameError: what came is no sound frame.
        """
        if self._body_view is None:
            self._end += count
            yield from self._parse()
            return
        self._body_end += count
        if self._body_end == len(self._body_view):
            yield self._whole()

    def _parse(self) -> Iterator[Frame]:
        start = 0
        while self._end - start >= HEADER_BYTES:
            header = Frame(*_HEADER.unpack_from(self._buffer, start))
            size = header.body_size
            limit = self._check(header)
            if size > limit:
                raise FrameError(f"{size:,} bytes in a frame that may have {limit:,}")
            first = start + HEADER_BYTES
            if self._end - first >= size:
                start = first + size
                yield header._replace(body=self._buffer[first:start])
            elif size >= _DIRECT_BYTES:
                self._begin_body(header, self._view[first : self._end])
                start = self._end
            else:
                break
        rest = self._end - start
        if start and rest:
            self._buffer[:rest] = self._buffer[start : self._end]
        self._end = rest

    def _begin_body(self, header: Frame, beginning: memoryview) -> None:
        body = np.empty(header.body_size, np.uint8)
        view = body.data
        view[: len(beginning)] = beginning
        self._header, self._body, self._body_view = header, body, view
        self._body_end = len(beginning)

    def _whole(self) -> Frame:
        header, body = self._header, self._body
        assert header is not None  # noqa: S101 - for the type checker: a body has a header
        self._header = self._body = self._body_view = None
        return header._replace(body=body)
