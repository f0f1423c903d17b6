"""Which replica gets the next request: earliest expected completion, bound as late as possible."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import count

from atriva_ray.routing.load import Load, Route
from atriva_ray.routing.order import Order
from atriva_ray.routing.queued import Queued

__all__ = ["Balancer", "Route"]

_TRAVEL_TIME_S = 1e-3
"""Time that the requests under way should last the replica, so that it never waits for a client;
those of a small model are many, and travel and run together."""

_LEAST_GAIN = 0.5
"""A request is moved only if it gains at least this part of what it takes where it goes: it may
have begun to run after all, and then it runs twice."""

_SLACK_SHARE = 3
"""How much longer they should last than a client may leave answers lying."""


class Balancer:
    """Load of the replicas of one model as one client knows it. Not thread-safe.

    A client keeps its requests until a replica has room for one: for a few for each of its slots,
    or for a share of these while other clients use it too. Of the replicas with room, the one gets
    it that is expected to answer first. The client's home replicas come before all others, unless
    nobody else uses those: were every client to look at every replica, all of them would rush to
    those that were idle a moment ago.
    """

    def __init__(self, slack_s: float = 0.0) -> None:
        """Know of no replica yet.

        Args:
            slack_s: how long the client may leave answers lying; so much more is kept under way.
        """
        self._loads: dict[str, Load] = {}
        self._lasting_s = max(_TRAVEL_TIME_S, _SLACK_SHARE * slack_s)
        numbers = count(1)
        self._mine = Order(numbers)
        self._far = Order(numbers)
        self._queued = Queued()
        self._only: Load | None = None

    def set_routes(self, routes: Iterable[Route]) -> set[str]:
        """Take over a new route table and return the ids of replicas that are gone from it."""
        wanted = {route.replica_id: route for route in routes}
        gone = set(self._loads) - set(wanted)
        for replica_id in gone:
            self.forget(replica_id)
        for replica_id, route in wanted.items():
            load = self._loads.get(replica_id)
            if load is None:
                self.add(route)
            else:
                self.update(route)
        return gone

    def update(self, route: Route) -> None:
        """Take over what a newer table says of a replica that is in use; others are left out."""
        load = self._loads.get(route.replica_id)
        if load is not None and load.route != route:
            load.route = route
            if load.service_time_s is None:
                load.service_time_s = route.service_time_s
            self._put(load, load.seen_s)

    def add(self, route: Route) -> None:
        """Use one more replica."""
        self.forget(route.replica_id)
        load = Load(route, route.service_time_s, others=0 if route.is_home else 1)
        self._loads[route.replica_id] = load
        if len(self._loads) == 1:
            self._only = load
            return
        before, self._only = self._only, None
        if before is not None:
            self._put(before, before.seen_s)
        self._put(load, 0.0)

    def forget(self, replica_id: str) -> None:
        """Stop using a replica, until it is added or a route table names it again."""
        load = self._loads.pop(replica_id, None)
        if load is not None:
            load.entry = load.newest = 0
            self._only = next(iter(self._loads.values())) if len(self._loads) == 1 else None

    def choose(self, now_s: float, cost: float = 1.0) -> str | None:
        """Return the replica for the next request; None while none has room.

        Ties go to the device that AUTO prefers, then to the replica with less under way.

        Args:
            now_s: the time.
            cost: what the request is expected to take, as a multiple of others.
        """
        only = self._only
        if only is not None:
            return only.route.replica_id if only.has_room(self._lasting_s) else None
        first = self._mine.first(now_s, cost) or self._far.first(now_s, cost)
        return None if first is None else first.route.replica_id

    def started(self, replica_id: str, now_s: float) -> None:
        """Count a request that was sent."""
        load = self._loads[replica_id]
        if self._only is None:
            self._queued.sent(load, now_s)
        load.in_flight += 1
        self._put(load, now_s)

    def steal(self, now_s: float) -> tuple[str, str] | None:
        """Return from where to where a request is to be moved; None: it would gain nothing.

        Call it when no request waits at the client. Of those that are under way, and have not begun
        to run as far as the client knows, the last one may be answered sooner by a replica that has
        room by now. Then take back the one that was sent there last, and call `moved`.
        """
        late = self._queued.latest(now_s)
        if late is None:
            return None
        first = self._mine.first(now_s) or self._far.first(now_s)
        if first is None or first is late or not first.service_time_s or first.wait_s(now_s):
            return None
        if now_s + (1 + _LEAST_GAIN) * first.takes_s > late.due_s:
            return None
        return late.route.replica_id, first.route.replica_id

    def moved(self, old_id: str, new_id: str, now_s: float) -> None:
        """Count a request as sent to another replica than before."""
        old = self._loads[old_id]
        old.in_flight = max(0, old.in_flight - 1)
        self._queued.taken(old)
        self._put(old, now_s)
        self.started(new_id, now_s)

    def finished(
        self,
        replica_id: str,
        now_s: float,
        service_time_s: float | None = None,
        queue_len: int = 0,
        others: int = 0,
        took_s: float | None = None,
        wanted: int = 1,
    ) -> None:
        """Count an answer.

        Args:
            replica_id: who answered; one that is gone meanwhile is ignored.
            now_s: the time.
            service_time_s: time the replica took, None for an answer that tells nothing.
            queue_len: requests, of all clients, left at the replica when it answered.
            others: other clients that have used the replica of late.
            took_s: time from sending it to its answer, None if that tells nothing.
            wanted: requests that it would like to have for each slot, to run them together.
        """
        load = self._loads.get(replica_id)
        if load is None:
            return
        load.in_flight = max(0, load.in_flight - 1)  # forgotten and back, it began anew at 0
        load.others = others
        if service_time_s is not None:
            load.wanted = wanted
        load.learn(service_time_s, took_s, queue_len, now_s)
        self._put(load, now_s)

    def _put(self, load: Load, now_s: float) -> None:
        if self._only is not None:  # for tiny models an order would be half of the work
            return
        load.entry = 0  # where it was, it is no more
        if load.has_room(self._lasting_s):
            (self._mine if load.is_mine else self._far).put(load, now_s)

    def wait_s(self, ahead: int) -> float | None:
        """Return when one more request would be answered at the earliest, from now.

        Args:
            ahead: requests that wait for a replica and go before it.

        Returns:
            None where nothing can be said: a replica has room, or is not known yet.
        """
        rate_per_s = under_way = 0.0
        shortest_s = math.inf
        for load in self._loads.values():
            if not load.service_time_s or load.has_room(self._lasting_s):
                return None
            shortest_s = min(shortest_s, load.service_time_s)
            rate_per_s += load.route.slot_count / load.service_time_s
            # Those that run are taken to be nearly done: who waits cannot be answered sooner.
            there = load.in_flight + min(load.ahead, load.mean_ahead)
            under_way += max(0.0, there - load.route.slot_count)
        if not rate_per_s:
            return None
        return max(shortest_s, (under_way + ahead + 1) / rate_per_s)

    @property
    def lasts_s(self) -> float | None:
        """How long every replica that has requests stays busy; None if none has."""
        return min((load.lasts_s for load in self._loads.values() if load.in_flight), default=None)

    @property
    def service_times_s(self) -> dict[str, float | None]:
        """How long a request takes each replica, as far as that is known."""
        return {replica_id: load.service_time_s for replica_id, load in self._loads.items()}

    @property
    def parallelism(self) -> int:
        """Requests that run at once on all replicas together."""
        return sum(load.route.slot_count for load in self._loads.values())

    @property
    def in_flight(self) -> dict[str, int]:
        """Requests under way by replica."""
        return {replica_id: load.in_flight for replica_id, load in self._loads.items()}
