"""The slots of one compiled model, lent to one request each, the most urgent first."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future

from atriva_inference.admission import smoothed
from atriva_inference.backend import CompiledModel, Slot
from atriva_inference.binding import BoundInputs
from atriva_inference.tensor import Array
from atriva_inference.terms import USUAL, Terms
from atriva_inference.waiting_queue import WaitingQueue

__all__ = ["SlotPool", "TooLateError"]


class TooLateError(Exception):
    """A request's deadline passed before it had a slot."""


class SlotPool:
    """Lends out a compiled model's slots, opening them as they are needed, in turn. Thread-safe.

    Attributes:
        compiled: the model.
        service_time_s: moving average of what a request takes; None before the first one.
    """

    def __init__(self, compiled: CompiledModel) -> None:
        self.compiled = compiled
        self._idle: list[Slot] = []
        self._openable = compiled.slot_count
        self._waiting: WaitingQueue[Future[Slot | None]] = WaitingQueue()
        self._lock = threading.Lock()
        self.service_time_s: float | None = None

    def run(
        self, bound: BoundInputs, memory: dict[str, Array] | None, terms: Terms = USUAL
    ) -> dict[str, Array]:
        """Run one request on this thread; blocks while every slot is taken.

        Args:
            bound: fitted inputs.
            memory: arrays that the outputs may be written to; see `Slot.infer`.
            terms: whose turn it is, and until when it is to begin.

        Raises:
            TooLateError: its deadline had passed when its turn came.
        """
        slot = self._acquire(terms)
        try:
            began_s = time.monotonic()
            if terms.deadline_s is not None and began_s >= terms.deadline_s:
                raise TooLateError
            outputs = slot.infer(bound.arrays, memory)
            newest_s = time.monotonic() - began_s
            self.service_time_s = smoothed(self.service_time_s, newest_s)
        finally:
            self._pass_on(slot)
        return outputs

    def _acquire(self, terms: Terms) -> Slot:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            turn: Future[Slot | None] = Future()
            if self._openable > 0:
                self._openable -= 1
                turn.set_result(None)
            else:
                self._waiting.put(turn, terms)
        slot = self._await(turn, terms)
        if slot is not None:
            return slot
        try:
            return self.compiled.open_slot()
        except BaseException:
            self._pass_on(None)
            raise

    def _await(self, turn: Future[Slot | None], terms: Terms) -> Slot | None:
        try:
            return turn.result()
        except BaseException:  # interrupted; what was meant for this thread must not get lost
            with self._lock:
                is_waiting = self._waiting.remove(turn, terms)
            if not is_waiting:
                self._pass_on(turn.result())
            raise

    def _pass_on(self, slot: Slot | None) -> None:
        """Give a slot, or the right to open one, to the request whose turn it is."""
        with self._lock:
            if self._waiting:
                self._waiting.take().set_result(slot)
            elif slot is None:
                self._openable += 1
            else:
                self._idle.append(slot)
