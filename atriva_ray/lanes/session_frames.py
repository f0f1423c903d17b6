"""What is asked about sessions on a lane, apart from their requests, and how a state travels."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from atriva_inference.state import State
from atriva_ray.lanes.errors import FrameError
from atriva_ray.lanes.frames import Frame, Kind, pack
from atriva_ray.lanes.layout import MAX_LAYOUT_BYTES, Layout, aligned, flat

__all__ = [
    "MAX_STATE_BYTES",
    "SessionCall",
    "SessionOp",
    "decode_call",
    "decode_state",
    "encode_state",
    "max_call_bytes",
    "state_buffers",
]

MAX_STATE_BYTES = 64 * 2**30
_LENGTH = struct.Struct("<I")


class SessionOp(IntEnum):
    """What is to be done with a session.

    Attributes:
        OPEN: make it; it ends with the lane at the latest.
        CLOSE: forget it.
        RESET: give all variables their initial values.
        GET: tell its state.
        SET: give variables values.
    """

    OPEN = 1
    CLOSE = 2
    RESET = 3
    GET = 4
    SET = 5


@dataclass(frozen=True, slots=True, eq=False)
class SessionCall:
    """Something to be done with a session.

    Attributes:
        op: what.
        session: its number, which the client chose; unique on its lane.
        state: for SET, the values.
    """

    op: SessionOp
    session: int
    state: State | None = None

    def buffers(self, request: int) -> list[Any]:
        """Write its frame."""
        body = [] if self.state is None else encode_state(self.state)
        header = pack(
            Kind.SESSION,
            layout=self.op,
            request=request,
            body_size=sum(memoryview(each).nbytes for each in body),
            first=self.session,
        )
        return [header, *body]


def max_call_bytes(header: Frame) -> int:
    """Return the largest body of such a frame.

    Raises:
        FrameError: it asks for something unknown.
    """
    try:
        op = SessionOp(header.layout)
    except ValueError:
        raise FrameError(f"session operation {header.layout}") from None
    return MAX_STATE_BYTES if op is SessionOp.SET else 0


def decode_call(frame: Frame) -> SessionCall:
    """Read what `SessionCall.buffers` wrote.

    Raises:
        FrameError: it is malformed.
    """
    if not frame.first:
        raise FrameError("session 0")
    op = SessionOp(frame.layout)
    return SessionCall(op, frame.first, decode_state(frame.body) if op is SessionOp.SET else None)


def state_buffers(request: int, state: State, queue: int, others: int) -> list[Any]:
    """Write the answer to a call; the last two are as in other answers."""
    body = encode_state(state)
    header = pack(
        Kind.STATE,
        flags=min(2**8 - 1, others),
        request=request,
        body_size=sum(memoryview(each).nbytes for each in body),
        second=queue,
    )
    return [header, *body]


def encode_state(state: State) -> list[Any]:
    """Write a state: the length of a text, the text (names and layout, as JSON), the values.

    The values are not copied; they must not change until the buffers have left.
    """
    arrays = [np.asarray(array, order="C") for array in state.values()]
    layout = Layout.of(arrays)
    text = json.dumps([list(state), layout.encode().decode()]).encode()
    head = _LENGTH.pack(len(text)) + text
    return [head + bytes(aligned(len(head)) - len(head)), *flat(layout, arrays)]


def decode_state(body: Any) -> State:
    """Read what `encode_state` wrote, into memory of its own.

    Raises:
        FrameError: it is malformed.
    """
    size_bytes = len(body)
    if size_bytes < _LENGTH.size:
        raise FrameError(f"a state of {size_bytes} bytes")
    (length,) = _LENGTH.unpack_from(body)
    start = aligned(_LENGTH.size + length)
    if length > 2 * MAX_LAYOUT_BYTES or start > size_bytes:
        raise FrameError(f"a state whose text has {length:,} bytes")
    names, layout = _described(bytes(body[_LENGTH.size : _LENGTH.size + length]))
    if layout.nbytes != size_bytes - start:
        raise FrameError(f"{size_bytes - start:,} bytes for a state of {layout.nbytes:,}")
    return {
        name: np.array(view) for name, view in zip(names, layout.views(body, start), strict=True)
    }


def _described(text: bytes) -> tuple[Sequence[str], Layout]:
    try:
        names, layout_text = json.loads(text)
        layout = Layout.decode(layout_text.encode())
        is_sound = isinstance(names, list) and all(isinstance(name, str) for name in names)
        is_sound = is_sound and len(set(names)) == len(names) == len(layout.tensors)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise FrameError(f"a state that cannot be read ({error})") from None
    if not is_sound:
        raise FrameError("a state whose names do not fit its values")
    return names, layout
