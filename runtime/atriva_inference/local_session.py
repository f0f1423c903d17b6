"""A session in this process: an infer request of its own, whose requests run one by one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import TypeVar

from atriva_inference.answer import AnswerFuture
from atriva_inference.backend import CompiledModel, SessionSlot, Slot, StatefulModel
from atriva_inference.binding import BoundInputs
from atriva_inference.errors import (
    ClosedError,
    InferenceFailedError,
    InferenceRuntimeError,
    OptionError,
    SessionLostError,
)
from atriva_inference.in_order import InOrder
from atriva_inference.ports import Port
from atriva_inference.state import State
from atriva_inference.tensor import Array

__all__ = ["LocalSession", "max_sessions", "open_session_slot", "variables_of"]

Value = TypeVar("Value")

MAX_SESSIONS_VARIABLE = "ATRIVA_MAX_SESSIONS"
DEFAULT_MAX_SESSIONS = 256


def max_sessions() -> int:
    """Return how many sessions one compiled model may have open at once.

    Raises:
        OptionError: ``ATRIVA_MAX_SESSIONS`` is no number.
    """
    text = os.environ.get(MAX_SESSIONS_VARIABLE)
    if text is None:
        return DEFAULT_MAX_SESSIONS
    try:
        return int(text)
    except ValueError:
        raise OptionError(MAX_SESSIONS_VARIABLE, text, "a whole number") from None


def variables_of(compiled: CompiledModel) -> tuple[Port, ...]:
    """Return what a model remembers; nothing where its backend knows no state."""
    return compiled.variables if isinstance(compiled, StatefulModel) else ()


def open_session_slot(compiled: CompiledModel) -> SessionSlot:
    """Return an infer request for one session; of a model without state, an ordinary one."""
    if isinstance(compiled, StatefulModel) and compiled.variables:
        return compiled.open_session_slot()
    return _Forgetful(compiled.open_slot())


class _Forgetful:
    """An infer request that has nothing to remember."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot

    def infer(
        self, arrays: Mapping[str, Array], memory: dict[str, Array] | None = None
    ) -> dict[str, Array]:
        return self._slot.infer(arrays, memory)

    def state(self) -> State:
        return {}

    def set_state(self, state: State) -> None:
        """There is nothing that could be in it."""

    def reset(self) -> None:
        """There is nothing to forget."""


class LocalSession:
    """One session of a model; thread-safe, and what is asked of it is done in that order.

    Attributes:
        number: what it is called in messages.
    """

    def __init__(
        self,
        number: int,
        model_name: str,
        compiled: CompiledModel,
        using: Callable[[], AbstractContextManager[object]],
        start: Callable[[Callable[[], None]], Future[None]],
        on_close: Callable[[LocalSession], None],
    ) -> None:
        """Open an infer request.

        Args:
            number: what it is called in messages.
            model_name: likewise.
            compiled: whose infer request.
            using: keeps the model open inside the block, and raises ClosedError if it is closed.
            start: runs a function on another thread, and raises RuntimeError if it cannot.
            on_close: called once, when the session closes.
        """
        self.number = number
        self._model_name = model_name
        self._device = ",".join(compiled.execution_devices)
        self._has_state = bool(variables_of(compiled))
        self._slot: SessionSlot | None = open_session_slot(compiled)
        self._using = using
        self._start = start
        self._on_close = on_close
        self._order = InOrder()
        self._is_closed = False
        self._failure: str | None = None

    def run(self, bound: BoundInputs, memory: dict[str, Array] | None = None) -> dict[str, Array]:
        """Run one request on the calling thread, after all that was asked for before."""
        with self._order.turn():
            return self._infer(bound, memory)

    def submit(
        self, bound: BoundInputs, wrap: Callable[[dict[str, Array]], Value]
    ) -> AnswerFuture[Value]:
        """Queue one request."""
        if self._is_closed:
            raise self._closed_error()
        answer: AnswerFuture[Value] = AnswerFuture()
        self._order.enter(partial(self._begin, answer, bound, wrap))
        return answer

    def state(self) -> State:
        """Return copies of the values of the variables that do not have their initial ones."""
        with self._order.turn(), self._using():
            return self._sound_slot().state()

    def set_state(self, state: State) -> None:
        """Give variables values that were checked."""
        with self._order.turn(), self._using():
            self._sound_slot().set_state(state)

    def reset(self) -> None:
        """Give all variables their initial values, also after a request failed."""
        with self._order.turn(), self._using():
            self._open_slot().reset()
            self._failure = None

    def close(self) -> None:
        """Finish what runs, refuse what waits, and let go of the infer request."""
        self.abandon()
        with self._order.turn():  # it comes when what was asked for before is over
            return

    def abandon(self) -> None:
        """Close it without blocking: what runs is finished by whoever runs it."""
        self._is_closed = True
        self._order.enter(self._let_go)

    def _let_go(self) -> bool:
        if self._slot is not None:
            self._slot = None
            self._on_close(self)
        return False

    def _infer(self, bound: BoundInputs, memory: dict[str, Array] | None) -> dict[str, Array]:
        with self._using():
            slot = self._sound_slot()
            try:
                return slot.infer(bound.arrays, memory)
            except BaseException as error:  # also an interrupt, which may come at any point
                if self._has_state:
                    self._failure = (
                        error.reason if isinstance(error, InferenceFailedError) else repr(error)
                    )
                raise

    def _begin(
        self,
        answer: AnswerFuture[Value],
        bound: BoundInputs,
        wrap: Callable[[dict[str, Array]], Value],
    ) -> bool:
        try:
            queued = self._start(partial(self._fulfil, answer, bound, wrap))
        except (RuntimeError, InferenceRuntimeError):  # the model was closed meanwhile
            self._refuse(answer)
            return False
        queued.add_done_callback(partial(self._was_cancelled, answer))
        return True

    def _was_cancelled(self, answer: AnswerFuture[Value], queued: Future[None]) -> None:
        if queued.cancelled():  # the model was closed before it began
            self._refuse(answer)
            self._order.leave()

    def _fulfil(
        self,
        answer: AnswerFuture[Value],
        bound: BoundInputs,
        wrap: Callable[[dict[str, Array]], Value],
    ) -> None:
        is_wanted = answer.set_running_or_notify_cancel()
        outputs = error = None
        try:
            if is_wanted:
                outputs = self._infer(bound, None)
        except BaseException as failure:  # noqa: BLE001 - it is raised where the result is asked for
            error = failure
        self._order.leave()  # first, so that a callback may run requests itself
        if not is_wanted:
            return
        try:
            if error is not None or outputs is None:
                answer.set_exception(error)
            else:
                answer.set_result(wrap(outputs))
        except BaseException as failure:  # noqa: BLE001 - likewise
            answer.set_exception(failure)

    def _refuse(self, answer: AnswerFuture[Value]) -> None:
        if answer.set_running_or_notify_cancel():
            answer.set_exception(self._closed_error())

    def _sound_slot(self) -> SessionSlot:
        slot = self._open_slot()
        if self._failure is not None:
            raise SessionLostError(
                self._model_name,
                self.number,
                self._device,
                f"a request failed and may have changed half of its state ({self._failure})",
                "reset() it, and then set_state() what was saved",
            )
        return slot

    def _open_slot(self) -> SessionSlot:
        if self._slot is None or self._is_closed:
            raise self._closed_error()
        return self._slot

    def _closed_error(self) -> ClosedError:
        with suppress(ClosedError), self._using():  # a closed model is said to be that
            return ClosedError(f"session {self.number} of model {self._model_name!r}")
        return ClosedError(f"model {self._model_name!r}")
