"""The replica's end of one lane: frames become jobs, results become frames."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from atriva_inference.binding import BoundInputs, max_input_bytes
from atriva_inference.ports import Port
from atriva_inference.tensor import Array
from atriva_ray.lanes import memory
from atriva_ray.lanes.errors import FrameError, encode_error
from atriva_ray.lanes.frames import (
    INLINE,
    SESSION,
    SPECIALISE,
    Frame,
    FrameReader,
    Kind,
    pack,
    packed_queue,
)
from atriva_ray.lanes.layout import (
    MAX_LAYOUT_BYTES,
    Layout,
    LayoutBook,
    LayoutTable,
    aligned,
    flat,
)
from atriva_ray.lanes.session_frames import (
    SessionCall,
    decode_call,
    max_call_bytes,
    state_buffers,
)
from atriva_ray.lanes.wire import Wire

__all__ = ["INLINE_BYTES", "Job", "Ports", "Result", "ServerLane"]

INLINE_BYTES = 16 * 1024
"""Arrays up to this size in all travel in the frame itself; larger ones in shared memory."""

MAX_SLOTS = 1024
_MAX_ATTACHED_BYTES = 64 * 2**30
_MAX_CACHED_VIEWS = 64
_MAX_WAITING = 256
_MAX_WAITING_BYTES = 256 * 2**20
_MAX_INPUT_BYTES = 16 * 2**30
"""A program with a higher limit than the replica's is not to lose its lane for it."""

_UNSENT_SHARE = 4
"""Answers that a client does not read may take this part of what may wait in all."""

_MAX_UNSENT_BUFFERS = 4096
"""Small ones take more memory than they have bytes."""

_MAX_READS = 16
_UINT8_MAX = 2**8 - 1
_UINT32_MAX = 2**32 - 1


class Ports:
    """What a lane has to know of the model.

    Attributes:
        inputs: what it takes.
        outputs: what it gives.
        static_outputs: how its outputs lie in memory, where that is the same for every request.
    """

    def __init__(self, model: str, inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
        self.model = model
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.static_outputs: Layout | None = None
        if all(port.dtype.kind not in "OSU" and not port.is_dynamic for port in outputs):
            self.static_outputs = Layout(
                [(port.dtype, port.shape or (), False) for port in outputs]
            )

    def check(self, layout: Layout) -> None:
        """Refuse a request's layout that does not fit the model.

        Raises:
            FrameError: it does not; a sound client has checked that before.
        """
        if len(layout.tensors) != len(self.inputs):
            raise FrameError(f"{len(layout.tensors)} inputs for a model of {len(self.inputs)}")
        limit_bytes = max(max_input_bytes(), _MAX_INPUT_BYTES)
        for port, tensor in zip(self.inputs, layout.tensors, strict=True):
            is_text = port.dtype.kind in "OSU" and tensor.dtype.kind in "SU"
            if not is_text and (tensor.dtype != port.dtype or tensor.is_object):
                raise FrameError(f"{tensor.dtype} for input {port.name!r} of {port.dtype}")
            if not port.accepts(tensor.shape) or 0 in tensor.shape:
                raise FrameError(f"shape {tensor.shape} for input {port}")
            if tensor.nbytes > limit_bytes:
                raise FrameError(f"{tensor.nbytes:,} bytes for input {port.name!r}")


@dataclass(slots=True, eq=False)
class _Slot:
    """Shared memory that holds the inputs of one request and, behind them, its outputs."""

    memory: mmap.mmap
    views: dict[Layout, tuple[dict[str, Array], dict[str, Array] | None]] = field(
        default_factory=dict
    )


@dataclass(slots=True, eq=False)
class Job:
    """One request on its way through the replica.

    Attributes:
        lane: whose it is.
        request: its number there.
        layout: how its inputs lie in memory.
        bound: its inputs.
        results: memory for large outputs by name, where there is room in the slot.
        slot: the shared memory it came in.
        session: number of the session on its lane that it is of; 0 for none.
        call: what is to be done with that session, if it is no request to the model.
        deadline_s: until when its answer is wanted, as `time.monotonic` counts; None for always.
    """

    lane: ServerLane
    request: int
    layout: Layout
    bound: BoundInputs
    results: dict[str, Array] | None = None
    slot: _Slot | None = None
    slot_number: int = INLINE
    session: int = 0
    call: SessionCall | None = None
    deadline_s: float | None = None


@dataclass(slots=True, eq=False)
class Result:
    """What became of a job: its outputs, or an error.

    Attributes:
        job: which.
        outputs: arrays by output name.
        error: why there are none.
        service_time_s: time the device took; 0 where that says nothing of other requests.
    """

    job: Job
    outputs: Mapping[str, Array] | None
    error: BaseException | None
    service_time_s: float = 0.0


class ServerLane:
    """One client's connection. `read` is for one thread at a time, `answer` for any."""

    def __init__(self, wire: Wire, ports: Ports) -> None:
        self.wire = wire
        self.is_closed = False
        self.is_paused = False
        self.unanswered = 0
        self.unanswered_bytes = 0
        self._ports = ports
        self._reader = FrameReader(self._check)
        self._layouts = LayoutTable()
        self._slots: dict[int, _Slot] = {}
        self._attached_bytes = 0
        self._answering = threading.Lock()
        self._book = LayoutBook()

    @property
    def is_full(self) -> bool:
        """Whether it has enough waiting for now, and is not to be read."""
        return (
            self.unanswered >= _MAX_WAITING
            or self.unanswered_bytes >= _MAX_WAITING_BYTES
            or self.wire.unsent_bytes >= _MAX_WAITING_BYTES // _UNSENT_SHARE
            or self.wire.unsent_count >= _MAX_UNSENT_BUFFERS
        )

    # -- requests ------------------------------------------------------------------------------

    def read(self) -> Iterator[Job]:
        """Yield the requests that have arrived.

        Raises:
            FrameError: what arrived is malformed.
            EOFError: the client is gone.
            OSError: the connection broke.
        """
        for _ in range(_MAX_READS):
            space = self._reader.space()
            count = self.wire.read_into(space)
            if count is None:
                return
            if count == 0:
                raise EOFError
            for frame in self._reader.received(count):
                if frame.kind == Kind.REQUEST:
                    yield self._request(frame)
                elif frame.kind == Kind.SESSION:
                    yield self._call(frame)
                elif frame.kind == Kind.LAYOUT:
                    layout = Layout.decode(frame.body)
                    self._ports.check(layout)
                    self._layouts.add(frame.layout, layout)
                else:
                    self._attach(frame)
            if (count < len(space) or self.is_full) and not self.wire.has_buffered:
                return

    def _check(self, header: Frame) -> int:
        if header.kind == Kind.REQUEST:
            layout = self._layouts.get(header.layout)
            if header.slot == INLINE:
                if header.body_size != layout.nbytes:
                    raise FrameError(f"{header.body_size} bytes for {layout.nbytes}")
                return layout.nbytes
            return 0
        if header.kind == Kind.LAYOUT:
            return MAX_LAYOUT_BYTES
        if header.kind == Kind.ATTACH:
            return 0
        if header.kind == Kind.SESSION:
            return max_call_bytes(header)
        raise FrameError(f"kind {header.kind}")

    def _attach(self, frame: Frame) -> None:
        if not self.wire.descriptors:
            raise FrameError("shared memory without a descriptor")
        descriptor = self.wire.descriptors.popleft()
        before = self._slots.pop(frame.slot, None)
        if before is not None:
            self._attached_bytes -= len(before.memory)
        self._attached_bytes += frame.request
        if frame.slot >= MAX_SLOTS or self._attached_bytes > _MAX_ATTACHED_BYTES:
            os.close(descriptor)
            raise FrameError(f"{self._attached_bytes:,} bytes of shared memory")
        self._slots[frame.slot] = _Slot(memory.attach(descriptor, frame.request))

    def _request(self, frame: Frame) -> Job:
        layout = self._layouts.get(frame.layout)
        slot = None
        results = None
        if frame.slot == INLINE:
            inputs = self._named(layout.views(frame.body))
        else:
            slot = self._slots.get(frame.slot)
            if slot is None:
                raise FrameError(f"slot {frame.slot} without memory")
            inputs, results = self._views(slot, layout)
        signature = None
        if frame.flags & SPECIALISE:
            signature = tuple(sorted((name, array.shape) for name, array in inputs.items()))
        session = 0
        if frame.flags & SESSION:
            session = frame.first
            if not session or signature is not None:
                raise FrameError("a request of session 0, or of a session and for its shape alone")
        bound = BoundInputs(inputs, signature)
        return Job(self, frame.request, layout, bound, results, slot, frame.slot, session)

    def _call(self, frame: Frame) -> Job:
        call = decode_call(frame)
        layout = Layout([(np.dtype(np.uint8), (frame.body_size,), False)])
        bound = BoundInputs({})
        return Job(self, frame.request, layout, bound, session=call.session, call=call)

    def _views(
        self, slot: _Slot, layout: Layout
    ) -> tuple[dict[str, Array], dict[str, Array] | None]:
        known = slot.views.get(layout)
        if known is not None:
            return known
        if layout.nbytes > len(slot.memory):
            raise FrameError(f"{layout.nbytes:,} bytes in a slot of {len(slot.memory):,}")
        inputs = self._named(layout.views(slot.memory))
        results = None
        outputs = self._ports.static_outputs
        start = aligned(layout.nbytes)
        if outputs is not None and INLINE_BYTES < outputs.nbytes <= len(slot.memory) - start:
            arrays = outputs.views(slot.memory, start)
            names = [port.name for port in self._ports.outputs]
            results = dict(zip(names, arrays, strict=True))
        if len(slot.views) >= _MAX_CACHED_VIEWS:
            slot.views.clear()
        slot.views[layout] = (inputs, results)
        return inputs, results

    def _named(self, arrays: Sequence[Array]) -> dict[str, Array]:
        return {port.name: array for port, array in zip(self._ports.inputs, arrays, strict=True)}

    # -- answers -------------------------------------------------------------------------------

    def answer(
        self, results: Sequence[Result], queue_len: int, others: int = 0, wanted: int = 1
    ) -> bool:
        """Send results; those of one call travel together.

        Args:
            results: what to send.
            queue_len: requests, of all clients, that are left.
            others: other clients that have used the replica of late.
            wanted: requests that should wait together, for the device's sake; a power of two.

        Returns:
            Whether everything has left; if not, `wire.flush` sends on.

        Raises:
            OSError: the connection broke.
        """
        with self._answering:
            if self.is_closed:
                return True
            buffers: list[Any] = []
            queue = packed_queue(queue_len, wanted)
            for result in results:
                if result.error is not None or result.outputs is None:
                    self._add_error(buffers, result, queue, min(_UINT8_MAX, others))
                elif result.job.call is not None:
                    state = dict(result.outputs)
                    buffers += state_buffers(result.job.request, state, queue, others)
                else:
                    self._add_outputs(buffers, result, queue, min(_UINT8_MAX, others))
            return self.wire.send(buffers)

    def _add_outputs(self, buffers: list[Any], result: Result, queue: int, others: int) -> None:
        job = result.job
        outputs = result.outputs or {}
        arrays: Sequence[Array] = [outputs[port.name] for port in self._ports.outputs]
        layout, is_new, arrays = self._book.look_up(arrays)
        if is_new:
            text = layout.encode()
            buffers += [pack(Kind.LAYOUT, layout=layout.number, body_size=len(text)), text]
        is_in_slot = outputs is job.results or self._place(job, layout, arrays)
        buffers.append(
            pack(
                Kind.ANSWER,
                flags=others,
                slot=job.slot_number if is_in_slot else INLINE,
                layout=layout.number,
                request=job.request,
                body_size=0 if is_in_slot else layout.nbytes,
                first=min(_UINT32_MAX, int(result.service_time_s * 1e6)),
                second=queue,
            )
        )
        if is_in_slot:
            return
        if layout.nbytes <= INLINE_BYTES and len(arrays) == 1:
            buffers[-1] += arrays[0].tobytes()  # one small buffer is sent sooner than two
        else:
            buffers += flat(layout, arrays)

    def _place(self, job: Job, layout: Layout, arrays: Sequence[Array]) -> bool:
        """Copy outputs whose size was not known before into the slot, if there is room."""
        if job.slot is None or layout.nbytes <= INLINE_BYTES:
            return False
        start = aligned(job.layout.nbytes)
        if layout.nbytes > len(job.slot.memory) - start:
            return False
        for view, array in zip(layout.views(job.slot.memory, start), arrays, strict=True):
            np.copyto(view, array)
        return True

    def _add_error(self, buffers: list[Any], result: Result, queue: int, others: int) -> None:
        error = result.error or RuntimeError("no outputs")
        text = encode_error(error, self._ports.model, "a replica")
        buffers += [
            pack(
                Kind.ERROR,
                flags=others,
                request=result.job.request,
                body_size=len(text),
                first=min(_UINT32_MAX, int(result.service_time_s * 1e6)),
                second=queue,
            ),
            text,
        ]

    def accept(self, job: Job) -> None:
        """Count a job that waits from now on; call it under the server's lock."""
        self.unanswered += 1
        self.unanswered_bytes += 0 if job.slot is not None else job.layout.nbytes

    def done(self, job: Job) -> None:
        """Count a job that was answered; call it under the server's lock."""
        self.unanswered -= 1
        self.unanswered_bytes -= 0 if job.slot is not None else job.layout.nbytes

    def close(self) -> None:
        """Close the connection and let go of the memory; jobs that run keep theirs until then."""
        with self._answering:
            if self.is_closed:
                return
            self.is_closed = True
            self.wire.close()
            self._slots = {}
