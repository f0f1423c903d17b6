"""A program's requests to one model that have no replica yet, and what is known of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from atriva_inference import admission
from atriva_inference.answer import AnswerFuture
from atriva_inference.binding import BoundInputs
from atriva_inference.errors import (
    DeadlineExceededError,
    InferenceFailedError,
    InferenceRuntimeError,
)
from atriva_inference.executor import Outputs
from atriva_inference.expiry import Expiry, Ticket
from atriva_inference.terms import USUAL, Terms
from atriva_inference.waiting_queue import WaitingQueue
from atriva_ray.lanes.session_frames import SessionCall
from atriva_ray.ray_errors import without_traceback

__all__ = ["Request", "Waiting", "refuse"]

Line = TypeVar("Line")


@dataclass(slots=True, eq=False)
class Request(Generic[Line]):
    """One request of this program, until it is answered.

    Attributes:
        bound: its inputs.
        wrap: makes what the caller gets of the outputs.
        answer: what the caller has.
        terms: until when the answer is wanted, and how urgent it is.
        attempts: how often it was sent.
        sent_s: when that was last.
        line: where it was sent last.
        left: where it was sent before and is to be taken back.
        failures: what devices said that failed on it, by replica.
        session: number of the session that it is of, and stays on its line; 0 for none.
        call: what is to be done with that session, if it is no request to the model.
        ticket: its place among the deadlines.
    """

    bound: BoundInputs
    wrap: Callable[[Outputs], Any]
    answer: AnswerFuture[Any]
    terms: Terms = USUAL
    attempts: int = 0
    sent_s: float = 0.0
    line: Line | None = None
    left: Line | None = None
    failures: dict[str, InferenceFailedError] | None = None
    session: int = 0
    call: SessionCall | None = None
    ticket: Ticket[Request[Line]] | None = None

    def is_wanted(self) -> bool:
        """Whether somebody waits for the answer still."""
        return not self.answer.done()

    def settle(self, model: str, outputs: Outputs | None, error: BaseException | None) -> None:
        """Give the caller what a replica said, unless the request was given up."""
        if isinstance(error, DeadlineExceededError):  # the replica knows what was left only
            error = self.too_late(model, error.stage)
        if error is not None or outputs is None:
            self.fail(error)
            return
        self._let_go()
        with suppress(InvalidStateError):
            self.answer.set_result(self.wrap(outputs))

    def fail(self, error: BaseException | None) -> None:
        """Give the caller an error, unless the request was given up."""
        self._let_go()
        with suppress(InvalidStateError):
            self.answer.set_exception(error)

    def too_late(self, model: str, stage: str) -> DeadlineExceededError:
        """Return the error of a request whose time is over."""
        return DeadlineExceededError(model, self.terms.timeout_s or 0.0, None, stage)

    def _let_go(self) -> None:
        self.answer.on_cancel = None
        if self.ticket is not None:
            self.ticket.forget()


class Waiting(Generic[Line]):
    """The requests that wait for a replica, the most urgent first, and all that have a deadline.

    Not thread-safe, apart from `close`.
    """

    def __init__(
        self,
        model_name: str,
        limit: int | None,
        wait_s: Callable[[int], float | None],
        on_expired: Callable[[list[Request[Line]]], None],
    ) -> None:
        """Make an empty queue.

        Args:
            model_name: what errors call the model.
            limit: how many may wait; None: any number.
            wait_s: when a request with so many ahead of it would be answered; None: nobody knows.
            on_expired: called by a thread of its own with requests whose time is over.
        """
        self._model_name = model_name
        self._limit = limit
        self._wait_s = wait_s
        self._queue: WaitingQueue[Request[Line]] = WaitingQueue()
        self._expiry: Expiry[Request[Line]] = Expiry(on_expired, f"atriva-{model_name}-deadlines")
        self.take = self._queue.take

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, request: Request[Line]) -> None:
        """Add a request.

        Raises:
            DeadlineExceededError: it cannot be answered in time.
        """
        terms = request.terms
        if terms.deadline_s is not None:
            now_s = time.monotonic()
            expected_s = self._wait_s(self._queue.ahead_of(terms))
            admission.check_deadline(self._model_name, terms, expected_s, now_s)
            request.ticket = self._expiry.add(terms.deadline_s, request)
        self._queue.put(request, terms)

    def check_room(self, request: Request[Line]) -> None:
        """Refuse a request that still waits after others were sent, and is one too many.

        Raises:
            OverloadedError: it is.
        """
        if self._limit is None or len(self._queue) <= self._limit or not self.remove(request):
            return
        if request.ticket is not None:
            request.ticket.forget()
        count = len(self._queue)
        raise admission.overloaded(count, self._limit, self._wait_s(count))

    def put_back(self, request: Request[Line]) -> None:
        """Add a request that was taken before, in front of its equals."""
        self._queue.put_back(request, request.terms)

    def remove(self, request: Request[Line]) -> bool:
        """Take a request out; returns whether it was there."""
        return self._queue.remove(request, request.terms)

    def clear(self) -> list[Request[Line]]:
        """Take all requests out."""
        return self._queue.clear()

    def close(self) -> None:
        """Watch no deadlines any more."""
        self._expiry.close()


def refuse(requests: Iterable[Request[Any]], error: InferenceRuntimeError) -> None:
    """Fail requests, each with an error of its own."""
    for request in requests:
        request.fail(without_traceback(error))
