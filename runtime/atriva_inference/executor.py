"""What runs a model's requests: the seam between one process and a cluster."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any, Protocol, TypeVar

import numpy as np

from atriva_inference import admission
from atriva_inference.answer import AnswerFuture
from atriva_inference.backend import CompiledModel
from atriva_inference.binding import BoundInputs, ShapeSignature
from atriva_inference.errors import (
    ClosedError,
    DeadlineExceededError,
    InferenceFailedError,
    TooManySessionsError,
)
from atriva_inference.expiry import Expiry, Ticket
from atriva_inference.local_session import LocalSession, max_sessions, variables_of
from atriva_inference.ports import Port
from atriva_inference.profiling import Profile
from atriva_inference.session import SessionExecutor
from atriva_inference.shape_cache import ShapeCache, ShapeCacheInfo
from atriva_inference.slot_pool import SlotPool, TooLateError
from atriva_inference.tensor import Array
from atriva_inference.terms import USUAL, Terms
from atriva_inference.waiting_queue import WaitingQueue

__all__ = ["Executor", "LocalExecutor", "Outputs"]

Outputs = dict[str, Array]
"""Result arrays by output name."""

Value = TypeVar("Value")

_WAITED = "while it waited for its turn"
_RAN = "while it ran"


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

    def run(self, bound: BoundInputs, *, terms: Terms = USUAL) -> Outputs:
        """Run one request and block until its answer is there, or its deadline has passed.

        Raises:
            DeadlineExceededError: it has, or it certainly would.
            OverloadedError: too many wait.
        """
        ...

    def submit(
        self, bound: BoundInputs, wrap: Callable[[Outputs], Value], *, terms: Terms = USUAL
    ) -> AnswerFuture[Value]:
        """Queue one request; the arrays must not change until the future is done.

        Args:
            bound: fitted inputs.
            wrap: makes the future's result of the outputs; it is quick.
            terms: until when the answer is wanted, and how urgent it is.

        Raises:
            DeadlineExceededError: it certainly cannot be answered in time.
            OverloadedError: too many wait.
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


@dataclass(slots=True, eq=False)
class _Submitted:
    bound: BoundInputs
    wrap: Callable[[Outputs], Any]
    answer: AnswerFuture[Any]
    terms: Terms
    ticket: Ticket[_Submitted] | None = None


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

    def __init__(
        self, model_name: str, compiled: CompiledModel, max_waiting: int | None = None
    ) -> None:
        """Take over a compiled model.

        Args:
            model_name: what errors call it.
            compiled: the model.
            max_waiting: requests that may wait for a slot; None: any number.
        """
        self.inputs = compiled.inputs
        self.outputs = compiled.outputs
        self.variables = variables_of(compiled)
        self.device = compiled.device
        self.execution_devices = compiled.execution_devices
        self.parallelism = compiled.slot_count
        self._model_name = model_name
        self._pool: SlotPool | None = SlotPool(compiled)
        self._shapes: ShapeCache[SlotPool] = ShapeCache(
            lambda signature: SlotPool(compiled.specialise(signature))
        )
        self._threads = ThreadPoolExecutor(
            max_workers=compiled.slot_count, thread_name_prefix=f"atriva-{model_name}"
        )
        self._changed = threading.Condition()
        self._running = 0
        self._sessions: set[LocalSession] = set()
        self._session_numbers = count(1)
        self._opening = 0
        self._here = threading.local()
        self._max_waiting = max_waiting
        self._waiting: WaitingQueue[_Submitted] = WaitingQueue()
        self._expiry: Expiry[_Submitted] = Expiry(self._expire, f"atriva-{model_name}-deadlines")

    def run(
        self, bound: BoundInputs, memory: dict[str, Array] | None = None, *, terms: Terms = USUAL
    ) -> Outputs:
        """Run one request on the calling thread; blocks while every slot is taken.

        One with a deadline runs on a thread of the executor, so that the caller can leave it;
        unless the caller is on such a thread, as callbacks are, which must not wait for another.

        Args:
            bound: fitted inputs.
            memory: arrays that the outputs may be written to; see `Slot.infer`.
            terms: until when the answer is wanted, and how urgent it is.

        Raises:
            DeadlineExceededError: it was not answered in time, or certainly would not be.
            OverloadedError: too many wait.
        """
        if terms.deadline_s is not None:
            if not getattr(self._here, "is_ours", False):
                return self.submit(bound, _as_they_are, terms=terms).result()
            with self._changed:
                self._check_deadline(self._pool, terms)
        with self._using(is_request=True) as base:
            pool = base if bound.signature is None else self._shapes.get(bound.signature)
            try:
                return pool.run(bound, memory, terms)
            except TooLateError:
                raise self._too_late(terms, _WAITED) from None

    def submit(
        self, bound: BoundInputs, wrap: Callable[[Outputs], Value], *, terms: Terms = USUAL
    ) -> AnswerFuture[Value]:
        """Queue one request.

        Raises:
            DeadlineExceededError: it certainly would not be answered in time.
            OverloadedError: too many wait.
        """
        has_deadline = terms.deadline_s is not None
        answer: AnswerFuture[Value] = AnswerFuture(self._expiry.post if has_deadline else None)
        request = _Submitted(bound, wrap, answer, terms)
        answer.on_cancel = partial(self._forget, request)
        with self._changed:
            if self._pool is None:
                raise self._closed_error()
            self._check_room(self._pool)
            if terms.deadline_s is not None:
                self._check_deadline(self._pool, terms)
                request.ticket = self._expiry.add(terms.deadline_s, request)
            self._threads.submit(self._fulfil_next)
            self._waiting.put(request, terms)
        return answer

    def _check_room(self, pool: SlotPool) -> None:
        """Refuse a request for which too many wait; call it under the lock."""
        if self._max_waiting is None:
            return
        under_way = len(self._waiting) + self._running
        waiting = under_way - self.parallelism
        if waiting >= self._max_waiting:
            drained_s = admission.expected_s(pool.service_time_s, self.parallelism, under_way)
            raise admission.overloaded(max(0, waiting), self._max_waiting, drained_s)

    def _check_deadline(self, pool: SlotPool | None, terms: Terms) -> None:
        """Refuse a request that cannot be answered in time; call it under the lock."""
        ahead = self._running + self._waiting.ahead_of(terms)
        service_time_s = None if pool is None else pool.service_time_s
        expected = admission.expected_s(service_time_s, self.parallelism, ahead)
        admission.check_deadline(self._model_name, terms, expected, time.monotonic())

    def _fulfil_next(self) -> None:
        """Run whichever request is the most urgent now."""
        self._here.is_ours = True
        with self._changed:
            if not self._waiting:  # the one that this was for was given up, or all were refused
                return
            request = self._waiting.take()
            pool = self._pool
            self._running += 1
        answer = request.answer
        try:
            value = request.wrap(self._run_taken(request, pool))
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            self._settle(request, partial(answer.set_exception, error))
        else:
            self._settle(request, partial(answer.set_result, value))

    def _run_taken(self, request: _Submitted, pool: SlotPool | None) -> Outputs:
        bound = request.bound
        try:
            if pool is None:
                raise self._closed_error()
            if bound.signature is not None:
                pool = self._shapes.get(bound.signature)
            return pool.run(bound, None, request.terms)
        except InferenceFailedError as error:
            raise self._named(error) from error.__cause__
        except TooLateError:
            raise self._too_late(request.terms, _WAITED) from None
        finally:
            self._finished()

    def _settle(self, request: _Submitted, settle: Callable[[], None]) -> None:
        if request.ticket is not None:
            request.ticket.forget()
        request.answer.on_cancel = None
        with suppress(InvalidStateError):  # it was given up meanwhile
            settle()

    def _forget(self, request: _Submitted) -> bool:
        """Take a request that was given up out of the queue; returns whether it waited there."""
        with self._changed:
            was_waiting = self._waiting.remove(request, request.terms)
        if request.ticket is not None:
            request.ticket.forget()
        return was_waiting

    def _expire(self, requests: list[_Submitted]) -> None:
        for request in requests:
            error = self._too_late(request.terms, _WAITED if self._forget(request) else _RAN)
            self._settle(request, partial(request.answer.set_exception, error))

    def _too_late(self, terms: Terms, stage: str) -> DeadlineExceededError:
        return DeadlineExceededError(self._model_name, terms.timeout_s or 0.0, None, stage)

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
        """Refuse what waits, finish what runs, drop the compiled models."""
        with self._changed:
            if self._pool is None:
                return
            self._pool = None
            waiting = self._waiting.clear()
        for request in waiting:
            self._settle(request, partial(request.answer.set_exception, self._closed_error()))
        # A callback that closes the model is on one of the threads, which cannot await itself.
        with suppress(RuntimeError):
            self._threads.shutdown(wait=True, cancel_futures=True)
        with self._changed:
            self._changed.wait_for(lambda: self._running == 0)
        for session in list(self._sessions):
            session.close()
        self._expiry.close()
        self._shapes = ShapeCache(self._refuse)

    @contextmanager
    def _using(self, *, is_request: bool = False) -> Iterator[SlotPool]:
        with self._changed:
            pool = self._pool
            if pool is None:
                raise self._closed_error()
            if is_request:
                self._check_room(pool)
            self._running += 1
        try:
            yield pool
        except InferenceFailedError as error:
            raise self._named(error) from error.__cause__
        finally:
            self._finished()

    def _finished(self) -> None:
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    def _named(self, error: InferenceFailedError) -> InferenceFailedError:
        """Return the error with the model's name; the backend knows the file's only."""
        return InferenceFailedError(self._model_name, error.device, error.reason)

    def _refuse(self, _signature: ShapeSignature) -> SlotPool:
        raise self._closed_error()

    def _placeholder_arrays(self) -> Outputs:
        return {
            port.name: np.ones([max(dim, 1) for dim in port.shape or ()], port.dtype)
            for port in self.inputs
        }

    def _closed_error(self) -> ClosedError:
        return ClosedError(f"model {self._model_name!r}")


def _as_they_are(outputs: Outputs) -> Outputs:
    return outputs
