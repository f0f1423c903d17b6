"""The client's end of one lane: requests become frames, frames become replies."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from atriva_inference.binding import BoundInputs
from atriva_inference.executor import Outputs
from atriva_inference.tensor import Array
from atriva_ray.lanes import memory
from atriva_ray.lanes.errors import MAX_ERROR_BYTES, FrameError, decode_error
from atriva_ray.lanes.frames import (
    INLINE,
    SESSION,
    SPECIALISE,
    Frame,
    FrameReader,
    Kind,
    pack,
    queue_of,
)
from atriva_ray.lanes.layout import (
    MAX_LAYOUT_BYTES,
    Layout,
    LayoutBook,
    LayoutTable,
    aligned,
    flat,
)
from atriva_ray.lanes.server_lane import INLINE_BYTES, MAX_SLOTS, Ports
from atriva_ray.lanes.session_frames import MAX_STATE_BYTES, SessionCall, decode_state
from atriva_ray.lanes.wire import Wire

__all__ = ["ClientLane", "LaneClosedError", "Reply", "Request"]

_PAGE_BYTES = mmap.PAGESIZE
_MAX_ANSWER_BYTES = 64 * 2**30
_MAX_READS = 16
_MAX_CACHED_VIEWS = 64


class LaneClosedError(Exception):
    """Nothing is sent on this lane any more."""


class Request(Protocol):
    """What a lane has to know of a request."""

    @property
    def bound(self) -> BoundInputs:
        """Its inputs."""
        ...

    @property
    def session(self) -> int:
        """Number of the session that it is of; 0 for none."""
        ...

    @property
    def call(self) -> SessionCall | None:
        """What is to be done with that session, if it is no request to the model."""
        ...


AnyRequest = TypeVar("AnyRequest", bound=Request)


@dataclass(slots=True, eq=False)
class Reply(Generic[AnyRequest]):
    """What a replica said to a request.

    Attributes:
        request: which.
        outputs: arrays by output name, owned by the caller; None if it failed.
        error: why it failed.
        service_time_s: time the device took, without waiting for its turn; None if that is unknown
            or says nothing of other requests.
        queue_len: requests, of all clients, left at the replica.
        others: other clients that have used the replica of late.
        wanted: requests that it would like to have for each slot, to run them together.
    """

    request: AnyRequest
    outputs: Outputs | None
    error: BaseException | None = None
    service_time_s: float | None = None
    queue_len: int = 0
    others: int = 0
    wanted: int = 1


@dataclass(slots=True, eq=False)
class _Slot:
    number: int
    memory: mmap.mmap
    views: dict[Layout, list[Array]] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Sent(Generic[AnyRequest]):
    request: AnyRequest
    layout: Layout
    slot: _Slot | None


class ClientLane(Generic[AnyRequest]):
    """One connection to one replica. `send` is for any thread, `read` for who holds `reading`.

    Attributes:
        wire: the connection.
        reading: held by the thread that reads.
        is_read_elsewhere: whether a thread reads that waits for an answer, and not the loop's.
    """

    def __init__(
        self,
        wire: Wire,
        ports: Ports,
        on_replies: Callable[[list[Reply[AnyRequest]]], None],
        on_lost: Callable[[list[AnyRequest], str], None],
    ) -> None:
        """Take over a connection on which both ends have proved themselves.

        Args:
            wire: the connection.
            ports: the model's inputs and outputs.
            on_replies: called by `read`, with those that came together.
            on_lost: called once, with the requests that will not be answered and the reason, when
                the connection breaks; not when it is closed from here.
        """
        self.wire = wire
        self.reading = threading.Lock()
        self.is_read_elsewhere = False
        self._ports = ports
        self._input_names = [port.name for port in ports.inputs]
        self._output_names = [port.name for port in ports.outputs]
        self._on_replies = on_replies
        self._on_lost = on_lost
        self._lock = threading.Lock()
        self._is_closed = False
        self._book = LayoutBook()
        self._reader = FrameReader(self._check)
        self._layouts = LayoutTable()
        self._sent: dict[int, _Sent[AnyRequest]] = {}
        self._number = 0
        self._free: list[_Slot] = []
        self._slot_count = 0
        static = ports.static_outputs
        self._static_output_bytes = 0 if static is None else static.nbytes

    @property
    def is_open(self) -> bool:
        """Whether requests are taken."""
        return not self._is_closed

    # -- requests ------------------------------------------------------------------------------

    def send(self, requests: Sequence[AnyRequest]) -> bool:
        """Send requests; they travel together.

        Large inputs are copied into shared memory here, and are free to change afterwards; others
        must not change until they are answered.

        Returns:
            Whether everything has left; if not, `wire.flush` sends on.

        Raises:
            LaneClosedError: it is closed; none was sent.
            OSError: the connection broke; `lose` will tell of these requests too.
        """
        with self._lock:
            if self._is_closed:
                raise LaneClosedError
            sent = [_Sent(request, _NO_LAYOUT, None) for request in requests]
            numbers = range(self._number + 1, self._number + 1 + len(sent))
            self._number += len(sent)
            self._sent.update(zip(numbers, sent, strict=True))  # first, so that none is forgotten
            buffers: list[Any] = []
            for number, each in zip(numbers, sent, strict=True):
                self._add(buffers, each, number)
            return self.wire.send(buffers)

    def _add(self, buffers: list[Any], sent: _Sent[AnyRequest], number: int) -> None:
        call, session = sent.request.call, sent.request.session
        if call is not None:
            buffers += call.buffers(number)
            return
        bound = sent.request.bound
        arrays: Sequence[Array] = [bound.arrays[name] for name in self._input_names]
        layout, is_new, arrays = self._book.look_up(arrays)
        sent.layout = layout
        if is_new:
            text = layout.encode()
            buffers += [pack(Kind.LAYOUT, layout=layout.number, body_size=len(text)), text]
        flags = (0 if bound.signature is None else SPECIALISE) | (SESSION if session else 0)
        output_bytes = layout.answer_bytes or self._static_output_bytes
        is_large = max(layout.nbytes, output_bytes) > INLINE_BYTES
        if is_large and self.wire.is_unix:
            slot = self._slot_for(buffers, aligned(layout.nbytes) + output_bytes)
            if slot is not None:
                sent.slot = slot
                views = slot.views.get(layout)
                if views is None:
                    if len(slot.views) >= _MAX_CACHED_VIEWS:
                        slot.views.clear()
                    views = slot.views[layout] = layout.views(slot.memory)
                for view, array in zip(views, arrays, strict=True):
                    np.copyto(view, array)
                buffers.append(
                    pack(
                        Kind.REQUEST,
                        flags=flags,
                        slot=slot.number,
                        layout=layout.number,
                        request=number,
                        first=session,
                    )
                )
                return
        header = pack(
            Kind.REQUEST,
            flags=flags,
            layout=layout.number,
            request=number,
            body_size=layout.nbytes,
            first=session,
        )
        if layout.nbytes <= INLINE_BYTES and len(arrays) == 1:
            buffers.append(header + arrays[0].tobytes())
        else:
            buffers.append(header)
            buffers += flat(layout, arrays)

    def _slot_for(self, buffers: list[Any], needed_bytes: int) -> _Slot | None:
        """Return a free slot that is large enough, made larger or new; None if there are too many.

        What was written so far is sent before the descriptor, which needs a message of its own.
        """
        for index in range(len(self._free) - 1, -1, -1):
            if len(self._free[index].memory) >= needed_bytes:
                return self._free.pop(index)
        # An answer may give back another slot meanwhile, so the one to replace is taken out first.
        replaced = self._free.pop() if self._free else None
        number = self._slot_count if replaced is None else replaced.number
        if number >= MAX_SLOTS:
            return None
        self.wire.send(buffers)
        buffers.clear()
        size_bytes = -(-needed_bytes // _PAGE_BYTES) * _PAGE_BYTES
        try:
            mapped, descriptor = memory.create(size_bytes)
        except OSError:  # no memory or no descriptors; the frame itself can carry it, only slower
            if replaced is not None:
                self._free.append(replaced)
            return None
        self._slot_count = max(self._slot_count, number + 1)
        self.wire.send([pack(Kind.ATTACH, slot=number, request=size_bytes)], descriptor)
        return _Slot(number, mapped)

    # -- answers -------------------------------------------------------------------------------

    def read(self) -> None:
        """Take in what has arrived and pass the replies on.

        Raises:
            FrameError: what arrived is malformed.
            EOFError: the replica is gone.
            OSError: the connection broke.
        """
        replies: list[Reply[AnyRequest]] = []
        try:
            for _ in range(_MAX_READS):
                space = self._reader.space()
                count = self.wire.read_into(space)
                if count is None:
                    return
                if count == 0:
                    raise EOFError
                for frame in self._reader.received(count):
                    if frame.kind == Kind.LAYOUT:
                        self._learn(frame)
                    else:
                        replies.append(self._reply(frame))
                if count < len(space) and not self.wire.has_buffered:
                    return
        finally:
            if replies:
                self._on_replies(replies)

    def _check(self, header: Frame) -> int:
        if header.kind == Kind.LAYOUT:
            return MAX_LAYOUT_BYTES
        if header.kind not in (Kind.ANSWER, Kind.ERROR, Kind.STATE):
            raise FrameError(f"kind {header.kind}")
        sent = self._sent.get(header.request)
        if sent is None:
            raise FrameError(f"an answer to request {header.request}, which does not wait for one")
        if header.kind == Kind.ERROR:
            return MAX_ERROR_BYTES
        return self._check_answer(header, sent)

    def _check_answer(self, header: Frame, sent: _Sent[AnyRequest]) -> int:
        if (header.kind == Kind.STATE) != (sent.request.call is not None):
            raise FrameError(f"kind {header.kind} for a request that asked for something else")
        if header.kind == Kind.STATE:
            return MAX_STATE_BYTES
        layout = self._layouts.get(header.layout)
        if header.slot == INLINE:
            if header.body_size != layout.nbytes:
                raise FrameError(f"{header.body_size} bytes for {layout.nbytes}")
            return layout.nbytes
        slot = sent.slot
        if slot is None or slot.number != header.slot:
            raise FrameError(f"an answer in slot {header.slot}")
        if aligned(sent.layout.nbytes) + layout.nbytes > len(slot.memory):
            raise FrameError(f"{layout.nbytes:,} bytes in a slot of {len(slot.memory):,}")
        return 0

    def _learn(self, frame: Frame) -> None:
        layout = Layout.decode(frame.body)
        if len(layout.tensors) != len(self._output_names) or layout.nbytes > _MAX_ANSWER_BYTES:
            raise FrameError(f"{len(layout.tensors)} outputs of {layout.nbytes:,} bytes")
        self._layouts.add(frame.layout, layout)

    def _reply(self, frame: Frame) -> Reply[AnyRequest]:
        sent = self._sent.get(frame.request)
        if sent is None:  # lost, on another thread, since its header was checked
            raise EOFError
        outputs = error = None
        if frame.kind == Kind.ERROR:
            error = decode_error(frame.body)
        elif frame.kind == Kind.STATE:
            outputs = decode_state(frame.body)
        else:
            layout = self._layouts.get(frame.layout)
            if frame.slot == INLINE:
                arrays = layout.views(frame.body)
            else:
                start = aligned(sent.layout.nbytes)
                views = layout.views(sent.slot.memory, start) if sent.slot is not None else []
                arrays = [np.array(view) for view in views]
            outputs = dict(zip(self._output_names, layout.restored(arrays), strict=True))
            sent.layout.answer_bytes = layout.nbytes
        if self._sent.pop(frame.request, None) is None:
            raise EOFError
        if sent.slot is not None:
            self._free.append(sent.slot)
        service_time_s = frame.first * 1e-6 if frame.first else None
        queue_len, wanted = queue_of(frame)
        return Reply(sent.request, outputs, error, service_time_s, queue_len, frame.flags, wanted)

    # -- the end -------------------------------------------------------------------------------

    def lose(self, reason: str) -> None:
        """Close the connection and tell which requests will not be answered."""
        if self._shut():
            lost = []
            while self._sent:  # one by one: an answer that just arrived takes its request itself
                with suppress(KeyError):
                    lost.append(self._sent.popitem()[1].request)
            self._on_lost(lost[::-1], reason)

    def close(self) -> None:
        """Close the connection; nobody waits for answers any more."""
        self._shut()
        self._sent.clear()

    def _shut(self) -> bool:
        with self._lock:
            if self._is_closed:
                return False
            self._is_closed = True
            self.wire.close()
            self._free.clear()
            return True


_NO_LAYOUT = Layout([])
