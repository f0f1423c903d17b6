"""What runs a model's requests: the seam between one process and a cluster."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from typing import Protocol, TypeVar

import numpy as np

from atriva_inference.answer import AnswerFuture
from atriva_inference.backend import CompiledModel, Slot
from atriva_inference.binding import BoundInputs, ShapeSignature
from atriva_inference.errors import (
    ClosedError,
    InferenceFailedError,
    TooManySessionsError,
)
from atriva_inference.local_session import LocalSession, max_sessions, variables_of
from atriva_inference.ports import Port
from atriva_inference.profiling import Profile
from atriva_inference.session import SessionExecutor
from atriva_inference.shape_cache import ShapeCache, ShapeCacheInfo
from atriva_inference.tensor import Array

__all__ = ["Executor", "LocalExecutor", "Outputs"]

Outputs = dict[str, Array]
"""Result arrays by output name."""

Value = TypeVar("Value")


class Executor(Protocol):
    """Runs fitted inputs; thread-safe. `Model` and everything made from it stand on this alone."""

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What the model takes."""
        ...

    @property
    def outputs(self) -> tuple[Port, ...]:
        """What the model gives."""
        ...

    @property
    def variables(self) -> tuple[Port, ...]:
        """What the model remembers within a session."""
        ...

    @property
    def device(self) -> str:
        """The device that the model was compiled for; of several, the most preferred."""
        ...

    @property
    def execution_devices(self) -> tuple[str, ...]:
        """All devices that really execute."""
        ...

    @property
    def parallelism(self) -> int:
        """How many requests run at once; more than these wait."""
        ...

    def run(self, bound: BoundInputs) -> Outputs:
        """Run one request and block until its answer is there."""
        ...

    def submit(self, bound: BoundInputs, wrap: Callable[[Outputs], Value]) -> AnswerFuture[Value]:
        """Queue one request; the arrays must not change until the future is done.

        Args:
            bound: fitted inputs.
            wrap: makes the future's result of the outputs; it is quick.
        """
        ...

    def open_session(self) -> SessionExecutor:
        """Return a new session."""
        ...

    def profile(self, bound: BoundInputs | None, runs: int) -> Profile:
        """Profile the model on these inputs, or on made-up ones."""
        ...

    def shape_cache_info(self) -> ShapeCacheInfo:
        """Return the state of the shape cache."""
        ...

    def close(self) -> None:
        """Finish what runs, refuse what waits, free everything; safe to call again."""
        ...


class _SlotPool:
    """Lends out a compiled model's slots, opening them as they are needed, first come first."""

    def __init__(self, compiled: CompiledModel) -> None:
        self.compiled = compiled
        self._idle: list[Slot] = []
        self._openable = compiled.slot_count
        self._waiting: deque[Future[Slot | None]] = deque()
        self._lock = threading.Lock()

    def run(self, bound: BoundInputs, memory: dict[str, Array] | None) -> Outputs:
        slot = self._acquire()
        try:
            return slot.infer(bound.arrays, memory)
        finally:
            self._pass_on(slot)

    def _acquire(self) -> Slot:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            turn: Future[Slot | None] = Future()
            if self._openable > 0:
                self._openable -= 1
                turn.set_result(None)
            else:
                self._waiting.append(turn)
        slot = self._await(turn)
        if slot is not None:
            return slot
        try:
            return self.compiled.open_slot()
        except BaseException:
            self._pass_on(None)
            raise

    def _await(self, turn: Future[Slot | None]) -> Slot | None:
        try:
            return turn.result()
        except BaseException:  # interrupted; what was meant for this thread must not get lost
            with self._lock:
                is_waiting = turn in self._waiting
                if is_waiting:
                    self._waiting.remove(turn)
            if not is_waiting:
                self._pass_on(turn.result())
            raise

    def _pass_on(self, slot: Slot | None) -> None:
        """Give a slot, or the right to open one, to the request that has waited longest."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set_result(slot)
            elif slot is None:
                self._openable += 1
            else:
                self._idle.append(slot)


class LocalExecutor:
    """Runs requests on one compiled model in this process.

    `run` infers on the calling thread; `submit` on one thread per slot, started at first use.

    Attributes:
        inputs: the model's inputs, also after `close`.
        outputs: the model's outputs, also after `close`.
        variables: what the model remembers within a session.
        device: the device that the model was compiled for.
        execution_devices: the devices that really execute.
        parallelism: how many requests run at once.
    """

    def __init__(self, model_name: str, compiled: CompiledModel) -> None:
        self.inputs = compiled.inputs
        self.outputs = compiled.outputs
        self.variables = variables_of(compiled)
        self.device = compiled.device
        self.execution_devices = compiled.execution_devices
        self.parallelism = compiled.slot_count
        self._model_name = model_name
        self._pool: _SlotPool | None = _SlotPool(compiled)
        self._shapes: ShapeCache[_SlotPool] = ShapeCache(
            lambda signature: _SlotPool(compiled.specialise(signature))
        )
        self._threads = ThreadPoolExecutor(
            max_workers=compiled.slot_count, thread_name_prefix=f"atriva-{model_name}"
        )
        self._changed = threading.Condition()
        self._running = 0
        self._sessions: set[LocalSession] = set()
        self._session_numbers = count(1)
        self._opening = 0

    def run(self, bound: BoundInputs, memory: dict[str, Array] | None = None) -> Outputs:
        """Run one request on the calling thread; blocks while every slot is taken.

        Args:
            bound: fitted inputs.
            memory: arrays that the outputs may be written to; see `Slot.infer`.
        """
        with self._using() as base:
            pool = base if bound.signature is None else self._shapes.get(bound.signature)
            return pool.run(bound, memory)

    def submit(self, bound: BoundInputs, wrap: Callable[[Outputs], Value]) -> AnswerFuture[Value]:
        """Queue one request."""
        answer: AnswerFuture[Value] = AnswerFuture()

        def refuse(done: Future[None]) -> None:
            if done.cancelled() and answer.set_running_or_notify_cancel():
                answer.set_exception(self._closed_error())

        with self._changed:
            if self._pool is None:
                raise self._closed_error()
            queued = self._threads.submit(self._fulfil, answer, bound, wrap)
        queued.add_done_callback(refuse)  # closing cancels what waits
        return answer

    def _fulfil(
        self, answer: Future[Value], bound: BoundInputs, wrap: Callable[[Outputs], Value]
    ) -> None:
        if not answer.set_running_or_notify_cancel():
            return
        try:
            value = wrap(self.run(bound))
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            answer.set_exception(error)
        else:
            answer.set_result(value)

    @property
    def session_count(self) -> int:
        """Sessions that are open."""
        return len(self._sessions)

    def open_session(self, number: int | None = None) -> LocalSession:
        """Open a session.

        Args:
            number: what messages call it; the next one of this executor when None.
        """
        with self._using() as base:
            limit = max_sessions()
            with self._changed:
                if len(self._sessions) + self._opening >= limit:
                    raise TooManySessionsError(self._model_name, self.device, limit)
                self._opening += 1
            try:
                session = LocalSession(
                    next(self._session_numbers) if number is None else number,
                    self._model_name,
                    base.compiled,
                    self._using,
                    self._start,
                    self._sessions.discard,
                )
                self._sessions.add(session)
            finally:
                with self._changed:
                    self._opening -= 1
            return session

    def _start(self, work: Callable[[], None]) -> Future[None]:
        with self._changed:
            if self._pool is None:
                raise self._closed_error()
            return self._threads.submit(work)

    def profile(self, bound: BoundInputs | None, runs: int) -> Profile:
        """Profile on the given inputs, or on ones where every dynamic dimension is 1."""
        with self._using() as base:
            arrays = bound.arrays if bound is not None else self._placeholder_arrays()
            return replace(base.compiled.profile(arrays, runs), model=self._model_name)

    def shape_cache_info(self) -> ShapeCacheInfo:
        """Return the state of the shape cache."""
        return self._shapes.info()

    def close(self) -> None:
        """Cancel what waits, finish what runs, drop the compiled models."""
        with self._changed:
            if self._pool is None:
                return
            self._pool = None
        # A callback that closes the model is on one of the threads, which cannot await itself.
        with suppress(RuntimeError):
            self._threads.shutdown(wait=True, cancel_futures=True)
        with self._changed:
            self._changed.wait_for(lambda: self._running == 0)
        for session in list(self._sessions):
            session.close()
        self._shapes = ShapeCache(self._refuse)

    @contextmanager
    def _using(self) -> Iterator[_SlotPool]:
        with self._changed:
            pool = self._pool
            if pool is None:
                raise self._closed_error()
            self._running += 1
        try:
            yield pool
        except InferenceFailedError as error:  # the backend knows the file's name only
            raise InferenceFailedError(
                self._model_name, error.device, error.reason
            ) from error.__cause__
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def _refuse(self, _signature: ShapeSignature) -> _SlotPool:
        raise self._closed_error()

    def _placeholder_arrays(self) -> Outputs:
        return {
            port.name: np.ones([max(dim, 1) for dim in port.shape or ()], port.dtype)
            for port in self.inputs
        }

    def _closed_error(self) -> ClosedError:
        return ClosedError(f"model {self._model_name!r}")
