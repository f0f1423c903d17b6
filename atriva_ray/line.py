"""Requests of a client, and its ways to the replicas that answer them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from atriva_inference.answer import AnswerFuture
from atriva_inference.binding import BoundInputs
from atriva_inference.errors import InferenceFailedError
from atriva_inference.executor import Outputs
from atriva_ray.lanes.session_frames import SessionCall
from atriva_ray.replica import ReplicaInfo
from atriva_ray.replica_use import ReplicaUse
from atriva_ray.routing.balance import Route
from atriva_ray.transport import Carrier

__all__ = ["ClientRequest", "Line", "as_they_are", "is_wanted"]


@dataclass(slots=True, eq=False)
class ClientRequest:
    """One request, until it is answered.

    Attributes:
        bound: fitted inputs.
        wrap: makes the answer of the outputs.
        answer: where it goes.
        attempts: how many replicas it was sent to.
        sent_s: when it was sent the last time.
        line: the last way it was sent.
        failures: what devices said that failed on it, by replica.
        session: number of the session it belongs to; 0 for none.
        call: what it asks of the session.
    """

    bound: BoundInputs
    wrap: Callable[[Outputs], Any]
    answer: AnswerFuture[Any]
    attempts: int = 0
    sent_s: float = 0.0
    line: Line | None = None
    failures: dict[str, InferenceFailedError] | None = None
    session: int = 0
    call: SessionCall | None = None


@dataclass(slots=True, eq=False)
class Line:
    """A replica and one way there; a new connection to the same replica is another line."""

    route: Route
    info: ReplicaInfo
    actor: Any
    use: ReplicaUse = field(init=False)
    carrier: Carrier[ClientRequest] = field(init=False)
    is_lost: bool = False
    is_retired: bool = False
    under_way: int = 0
    sessions: int = 0
    end: str = ""

    @property
    def has_lane(self) -> bool:
        """Whether requests go over a lane."""
        return self.carrier.kind != "actor calls"

    @property
    def is_over(self) -> bool:
        """Whether nothing will come on it any more."""
        return self.is_retired and not self.under_way and not self.sessions


def is_wanted(answer: AnswerFuture[Any]) -> bool:
    """Whether a request is to be run, also again: not if its caller cancelled it, or it is done."""
    return answer.running() or (not answer.done() and answer.set_running_or_notify_cancel())


def as_they_are(outputs: Outputs) -> Outputs:
    """Return the outputs."""
    return outputs
