"""Which replica gets the next request: earliest expected completion, bound as late as possible."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Balancer", "Route"]

_SMOOTHING = 0.2
"""Weight of the newest service time in the moving average."""

_WINDOW_PER_SLOT = 2
"""Requests under way per slot: one that runs, one that is there when it ends."""

_TRAVEL_TIME_S = 1e-3
"""Time that the requests under way should last the replica, so that it never waits for a client;
those of a small model are many, and travel and run together."""

_SLACK_SHARE = 3
"""How much longer they should last than a client may leave answers lying."""

_MAX_WINDOW = 64


@dataclass(frozen=True, slots=True)
class Route:
    """A replica that may be used.

    Attributes:
        replica_id: unique over the life of the cluster.
        label: ``node/device`` it runs on.
        slot_count: requests it runs at once.
        rank: AUTO's preference of its device, lower is better.
    """

    replica_id: str
    label: str
    slot_count: int
    rank: int


@dataclass(slots=True)
class _Load:
    route: Route
    in_flight: int = 0
    queue_len: int = 0
    service_time_s: float | None = None

    def has_room(self, lasting_s: float) -> bool:
        """Whether one more may be under way; all of them are to last about that long."""
        slots = self.route.slot_count
        window = _WINDOW_PER_SLOT * slots
        if self.in_flight < window or not self.service_time_s:
            return self.in_flight < window
        return self.in_flight < min(_MAX_WINDOW, slots * lasting_s / self.service_time_s)

    @property
    def lasts_s(self) -> float:
        """How long the requests under way keep the replica busy; 0 where that is not known."""
        return (self.service_time_s or 0.0) * self.in_flight / self.route.slot_count

    @property
    def expected_completion_s(self) -> float:
        """When one more request would be answered, from now.

        An unknown service time counts as none, so every new replica is tried at once. Slots work in
        parallel: a request waits for ``ahead / slots`` rounds of service before its own.
        """
        if self.service_time_s is None:
            return 0.0
        ahead = max(self.in_flight, self.queue_len)
        slots = self.route.slot_count
        return self.service_time_s * (1 + max(0, ahead + 1 - slots) / slots)


class Balancer:
    """Load of the replicas of one model as one client knows it. Not thread-safe."""

    def __init__(self, slack_s: float = 0.0) -> None:
        """Know of no replica yet.

        Args:
            slack_s: how long the client may leave answers lying; so much more is kept under way.
        """
        self._loads: dict[str, _Load] = {}
        self._lasting_s = max(_TRAVEL_TIME_S, _SLACK_SHARE * slack_s)

    def set_routes(self, routes: Iterable[Route]) -> set[str]:
        """Take over a new route table and return the ids of replicas that are gone from it."""
        wanted = {route.replica_id: route for route in routes}
        gone = set(self._loads) - set(wanted)
        for replica_id in gone:
            del self._loads[replica_id]
        for replica_id, route in wanted.items():
            if replica_id in self._loads:
                self._loads[replica_id].route = route
            else:
                self._loads[replica_id] = _Load(route)
        return gone

    def add(self, route: Route) -> None:
        """Use one more replica."""
        self._loads[route.replica_id] = _Load(route)

    def forget(self, replica_id: str) -> None:
        """Stop using a replica, until it is added or a route table names it again."""
        self._loads.pop(replica_id, None)

    def choose(self) -> str | None:
        """Return the replica for the next request; None while none has room.

        Ties go to the device that AUTO prefers, then to the replica with less under way.
        """
        best = min(
            (load for load in self._loads.values() if load.has_room(self._lasting_s)),
            key=lambda load: (
                load.expected_completion_s,
                load.route.rank,
                load.in_flight / load.route.slot_count,
            ),
            default=None,
        )
        return None if best is None else best.route.replica_id

    def started(self, replica_id: str) -> None:
        """Count a request that was sent.

        What others said of their queues gets old meanwhile, and would keep a replica idle for ever
        that nobody asks any more.
        """
        self._loads[replica_id].in_flight += 1
        for load in self._loads.values():
            if not load.in_flight:
                load.queue_len //= 2

    def finished(
        self, replica_id: str, service_time_s: float | None = None, queue_len: int = 0
    ) -> None:
        """Count an answer.

        Args:
            replica_id: who answered; one that is gone meanwhile is ignored.
            service_time_s: time the replica took, None for an answer that tells nothing.
            queue_len: requests, of all clients, left at the replica when it answered.
        """
        load = self._loads.get(replica_id)
        if load is None:
            return
        load.in_flight = max(0, load.in_flight - 1)  # forgotten and back, it began anew at 0
        load.queue_len = queue_len
        if service_time_s is not None:
            before = load.service_time_s
            load.service_time_s = (
                service_time_s
                if before is None
                else before + _SMOOTHING * (service_time_s - before)
            )

    def wait_s(self, ahead: int) -> float | None:
        """Return when one more request would be answered at the earliest, from now.

        Args:
            ahead: requests that wait for a replica and go before it.

        Returns:
            None where nothing can be said: a replica has room, or is not known yet.
        """
        rate_per_s = 0.0
        shortest_s = math.inf
        under_way = 0
        for load in self._loads.values():
            if not load.service_time_s or load.has_room(self._lasting_s):
                return None
            shortest_s = min(shortest_s, load.service_time_s)
            rate_per_s += load.route.slot_count / load.service_time_s
            # Those that run are taken to be nearly done: who waits cannot be answered sooner.
            under_way += max(0, max(load.in_flight, load.queue_len) - load.route.slot_count)
        if not rate_per_s:
            return None
        return max(shortest_s, (under_way + ahead + 1) / rate_per_s)

    @property
    def lasts_s(self) -> float | None:
        """How long every replica that has requests stays busy; None if none has."""
        return min((load.lasts_s for load in self._loads.values() if load.in_flight), default=None)

    @property
    def parallelism(self) -> int:
        """Requests that run at once on all replicas together."""
        return sum(load.route.slot_count for load in self._loads.values())

    @property
    def in_flight(self) -> dict[str, int]:
        """Requests under way by replica."""
        return {replica_id: load.in_flight for replica_id, load in self._loads.items()}
