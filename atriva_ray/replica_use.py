"""What a program did with one replica."""

from __future__ import annotations

from dataclasses import dataclass

from atriva_ray.replica import ReplicaInfo
from atriva_ray.routing.balance import Route

__all__ = ["ReplicaUse"]


@dataclass(slots=True)
class ReplicaUse:
    """What this client did with one replica.

    Attributes:
        route: its id, ``node/device``, slots and rank.
        info: what it says of itself: threads, process, node.
        carrier: how requests get there: ``unix lane``, ``tcp lane`` or ``actor calls``.
        answered: requests of this client that it has answered.
    """

    route: Route
    info: ReplicaInfo
    carrier: str
    answered: int = 0
