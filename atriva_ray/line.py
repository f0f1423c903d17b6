"""A replica that this program uses, and one way there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from atriva_ray.replica import ReplicaInfo
from atriva_ray.replica_use import ReplicaUse
from atriva_ray.routing.balance import Route
from atriva_ray.transport import Carrier
from atriva_ray.waiting import Request

__all__ = ["Line"]


@dataclass(slots=True, eq=False)
class Line:
    """A replica and one way there; a new connection to the same replica is another line."""

    route: Route
    info: ReplicaInfo
    actor: Any
    use: ReplicaUse = field(init=False)
    carrier: Carrier[Request[Line]] = field(init=False)
    is_lost: bool = False
    is_retired: bool = False
    under_way: int = 0
    newest: Request[Line] | None = None
    sessions: int = 0
    end: str = ""

    @property
    def has_lane(self) -> bool:
        """Whether requests go to its replica straight."""
        return self.carrier.kind != "actor calls"

    @property
    def is_over(self) -> bool:
        """Whether nothing will come on it any more."""
        return self.is_retired and not self.under_way and not self.sessions
