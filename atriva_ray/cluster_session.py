"""A session on a cluster: it stays on one replica, and travels on the lane like other requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import ray

from atriva_inference.answer import AnswerFuture
from atriva_inference.binding import BoundInputs
from atriva_inference.errors import (
    ClosedError,
    InferenceRuntimeError,
    SessionLostError,
    TooManySessionsError,
)
from atriva_inference.executor import Outputs
from atriva_inference.in_order import InOrder
from atriva_inference.state import State
from atriva_ray.errors import LaneError
from atriva_ray.lanes.session_frames import SessionCall, SessionOp
from atriva_ray.routing.balance import Route
from atriva_ray.routing.sessions import SessionSeat, session_order

__all__ = ["ClusterSession", "Desk", "Line", "lost_session", "open_session"]

_COUNT_TIMEOUT_S = 1.0
_NO_LANE = (
    "sessions need a lane, and its requests go as actor calls: run the program on a node of the "
    "cluster, without ATRIVA_LANES=off"
)

Value = TypeVar("Value")


class Line(Protocol):
    """A replica, and a connection to it."""

    route: Route
    actor: Any

    @property
    def has_lane(self) -> bool:
        """Whether the connection is a lane."""
        ...


AnyLine = TypeVar("AnyLine", bound=Line)
Line_contra = TypeVar("Line_contra", bound=Line, contravariant=True)


class Desk(Protocol[Line_contra]):
    """Sends requests of sessions on their lines; the dispatcher does."""

    def make_answer(self) -> AnswerFuture[Any]:
        """Return a future whose callbacks may block."""
        ...

    def hold(self, line: Line_contra, count: int) -> None:
        """Keep a line for one session more (1) or less (-1)."""
        ...

    def ask(
        self,
        line: Line_contra,
        session: int,
        work: BoundInputs | SessionCall,
        answer: AnswerFuture[Any],
        wrap: Callable[[Outputs], Any] | None = None,
        *,
        is_waited_for: bool = False,
    ) -> bool:
        """Send a request or a call, and maybe take in its reply on this thread.

        Returns:
            Whether `answer` will be settled; not if its caller has cancelled it.

        Raises:
            SessionLostError: the line is gone.
            ClosedError, ModelNotLoadedError, ClusterError: so is the model, or the cluster.
        """
        ...


def lost_session(model: str, session: int, route: Route, reason: str) -> SessionLostError:
    """Say that a session's replica is gone."""
    return SessionLostError(
        model,
        session,
        f"{route.label} (replica {route.replica_id})",
        reason,
        "create a new session, and set_state() what was saved",
    )


def open_session(
    desk: Desk[AnyLine],
    model: str,
    number: int,
    lines: Sequence[AnyLine],
    service_times_s: dict[str, float | None],
) -> ClusterSession[AnyLine]:
    """Open a session where one more is answered soonest; blocks until it is open.

    Raises:
        TooManySessionsError: no replica takes one more.
        LaneError: this program has no lane to any.
        SessionLostError: the replicas died meanwhile.
    """
    reachable = {line.route.replica_id: line for line in lines if line.has_lane}
    if not reachable:
        raise LaneError(lines[0].route.replica_id, _NO_LANE)
    counts = _session_counts(reachable)
    seats = [
        SessionSeat(
            replica_id,
            line.route.rank,
            line.route.slot_count,
            service_times_s.get(replica_id),
            counts.get(replica_id),
        )
        for replica_id, line in reachable.items()
    ]
    full: list[str] = []
    limit = 0
    failure: SessionLostError | None = None
    for replica_id in session_order(seats):
        line = reachable[replica_id]
        session = ClusterSession(desk, model, number, line)
        desk.hold(line, 1)
        try:
            session.call(SessionOp.OPEN)
        except TooManySessionsError as error:
            full.append(line.route.label)
            limit = max(limit, error.limit)
        except SessionLostError as error:
            failure = error
        except BaseException:
            desk.hold(line, -1)
            raise
        else:
            return session
        desk.hold(line, -1)
    if full or failure is None:
        raise TooManySessionsError(model, ", ".join(full), limit)
    raise failure


def _session_counts(lines: dict[str, AnyLine]) -> dict[str, int]:
    """Ask the replicas how many sessions they have, where there is a choice."""
    if len(lines) == 1:
        return dict.fromkeys(lines, 0)
    asked = {line.actor.session_count.remote(): name for name, line in lines.items()}
    told, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_COUNT_TIMEOUT_S)
    counts: dict[str, int] = {}
    for reply in told:
        with suppress(ray.exceptions.RayError):  # it has just died
            counts[asked[reply]] = ray.get(reply)
    return counts


class ClusterSession(Generic[AnyLine]):
    """One session; thread-safe, and what is asked of it is done in that order.

    Attributes:
        number: what it is called in messages, and on its lane.
    """

    def __init__(self, desk: Desk[AnyLine], model: str, number: int, line: AnyLine) -> None:
        self.number = number
        self._desk = desk
        self._model = model
        self._line = line
        self._order = InOrder()
        self._is_closed = False

    def run(self, bound: BoundInputs) -> Outputs:
        """Run one request and block for its answer."""
        return self._exchange(bound)

    def submit(self, bound: BoundInputs, wrap: Callable[[Outputs], Value]) -> AnswerFuture[Value]:
        """Queue one request."""
        self._check_open()
        answer: AnswerFuture[Value] = self._desk.make_answer()
        self._order.enter(partial(self._begin, bound, wrap, answer))
        return answer

    def state(self) -> State:
        """Return copies of what it remembers."""
        return self.call(SessionOp.GET)

    def set_state(self, state: State) -> None:
        """Give variables values that were checked."""
        self.call(SessionOp.SET, state)

    def reset(self) -> None:
        """Give all variables their initial values."""
        self.call(SessionOp.RESET)

    def close(self) -> None:
        """Finish what runs, refuse what waits, and have the replica forget it."""
        if self._is_closed:
            return
        self._is_closed = True
        work = SessionCall(SessionOp.CLOSE, self.number)
        try:
            with suppress(InferenceRuntimeError), self._order.turn():  # what is gone, has forgotten
                self._ask(work)
        finally:
            self._desk.hold(self._line, -1)

    def call(self, op: SessionOp, state: State | None = None) -> State:
        """Do something with the session on its replica, and block until it is done."""
        return self._exchange(SessionCall(op, self.number, state))

    def _exchange(self, work: BoundInputs | SessionCall) -> Outputs:
        with self._order.turn():
            self._check_open()
            return self._ask(work)

    def _ask(self, work: BoundInputs | SessionCall) -> Outputs:
        answer: AnswerFuture[Outputs] = self._desk.make_answer()
        self._desk.ask(self._line, self.number, work, answer, is_waited_for=True)
        return answer.result()

    def _begin(
        self, bound: BoundInputs, wrap: Callable[[Outputs], Value], answer: AnswerFuture[Value]
    ) -> bool:
        try:
            self._check_open()
            is_sent = self._desk.ask(self._line, self.number, bound, answer, wrap)
        except InferenceRuntimeError as error:
            if answer.set_running_or_notify_cancel():
                answer.set_exception(error)
            return False
        if is_sent:
            answer.add_prompt_callback(lambda _answer: self._order.leave())
        return is_sent

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClosedError(f"session {self.number} of model {self._model!r}")
