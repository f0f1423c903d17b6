"""OpenVINO's schedule policies over replicas, beside the balancer that is the default."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from atriva_ray.routing.auto import SchedulePolicy
from atriva_ray.routing.balance import Balancer
from atriva_ray.routing.load import Route

__all__ = ["DevicePriority", "RoundRobin", "Schedule", "make_schedule"]

_WINDOW_PER_SLOT = 2
"""Requests under way per slot: one that runs, one that is there when it ends."""

_SMOOTHING = 0.2


class Schedule(Protocol):
    """Chooses replicas for the requests of one client to one model. Not thread-safe."""

    def set_routes(self, routes: Iterable[Route]) -> set[str]:
        """Take over a new route table and return the ids of replicas that are gone from it."""
        ...

    def add(self, route: Route) -> None:
        """Use one more replica."""
        ...

    def forget(self, replica_id: str) -> None:
        """Stop using a replica, until it is added or a route table names it again."""
        ...

    def choose(self, now_s: float, cost: float = 1.0) -> str | None:
        """Return the replica for the next request; None while none has room."""
        ...

    def update(self, route: Route) -> None:
        """Take over what a newer table says of a replica that is in use; others are left out."""
        ...

    def started(self, replica_id: str, now_s: float) -> None:
        """Count a request that was sent."""
        ...

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
        """Count an answer; see `Balancer.finished`."""
        ...

    def wait_s(self, ahead: int) -> float | None:
        """Return how long a request would take with so many ahead of it; None: nobody knows."""
        ...

    def steal(self, now_s: float) -> tuple[str, str] | None:
        """Return from where to where the last request sent is to be moved; None: none is."""
        ...

    def moved(self, old_id: str, new_id: str, now_s: float) -> None:
        """Count a request as sent to another replica than before."""
        ...

    @property
    def lasts_s(self) -> float | None:
        """How long every replica that has requests stays busy; None if none has."""
        ...

    @property
    def service_times_s(self) -> dict[str, float | None]:
        """How long a request takes each replica, as far as that is known."""
        ...

    @property
    def parallelism(self) -> int:
        """Requests that run at once on all replicas together."""
        ...

    @property
    def in_flight(self) -> dict[str, int]:
        """Requests under way by replica."""
        ...


@dataclass(slots=True)
class _Load:
    route: Route
    in_flight: int = 0
    queue_len: int = 0
    service_time_s: float = 0.0

    @property
    def has_room(self) -> bool:
        return self.in_flight < _WINDOW_PER_SLOT * self.route.slot_count

    @property
    def has_idle_slot(self) -> bool:
        return max(self.in_flight, self.queue_len) < self.route.slot_count


class _Counting:
    """What schedules have in common: who is there, and what is under way."""

    def __init__(self) -> None:
        self._loads: dict[str, _Load] = {}

    def set_routes(self, routes: Iterable[Route]) -> set[str]:
        """Take over a new route table and return the ids of replicas that are gone from it."""
        wanted = {route.replica_id: route for route in routes}
        gone = set(self._loads) - set(wanted)
        for replica_id in gone:
            self.forget(replica_id)
        for replica_id, route in wanted.items():
            if replica_id in self._loads:
                self.update(route)
            else:
                self.add(route)
        return gone

    def add(self, route: Route) -> None:
        """Use one more replica."""
        self._loads[route.replica_id] = _Load(route)

    def update(self, route: Route) -> None:
        """Take over what a newer table says of a replica that is in use; others are left out."""
        if route.replica_id in self._loads:
            self._loads[route.replica_id].route = route

    def forget(self, replica_id: str) -> None:
        """Stop using a replica, until it is added or a route table names it again."""
        self._loads.pop(replica_id, None)

    def started(self, replica_id: str, now_s: float) -> None:  # noqa: ARG002 - a `Schedule`
        """Count a request that was sent.

        What others said of their queues gets old meanwhile, and would keep a replica idle for ever
        that nobody asks any more.
        """
        self._loads[replica_id].in_flight += 1
        for load in self._loads.values():
            if not load.in_flight:
                load.queue_len //= 2

    def finished(
        self,
        replica_id: str,
        now_s: float,  # noqa: ARG002 - a `Schedule`
        service_time_s: float | None = None,
        queue_len: int = 0,
        others: int = 0,  # noqa: ARG002 - a `Schedule`
        took_s: float | None = None,  # noqa: ARG002 - a `Schedule`
        wanted: int = 1,  # noqa: ARG002 - a `Schedule`
    ) -> None:
        """Count an answer; see `Balancer.finished`."""
        load = self._loads.get(replica_id)
        if load is None:
            return
        load.in_flight = max(0, load.in_flight - 1)
        load.queue_len = queue_len
        if service_time_s is not None:
            change_s = service_time_s - load.service_time_s
            load.service_time_s += change_s * (_SMOOTHING if load.service_time_s else 1)

    def wait_s(self, ahead: int) -> float | None:  # noqa: ARG002 - a `Schedule`
        """Return None: who goes by order does not know when a request is answered."""
        return None

    def steal(self, now_s: float) -> None:  # noqa: ARG002 - a `Schedule`
        """Return None: who goes by order keeps to it."""
        return

    def moved(self, old_id: str, new_id: str, now_s: float) -> None:
        """Count a request as sent to another replica than before."""
        self._loads[old_id].in_flight = max(0, self._loads[old_id].in_flight - 1)
        self.started(new_id, now_s)

    @property
    def lasts_s(self) -> float | None:
        """How long every replica that has requests stays busy; None if none has."""
        return min(
            (
                load.service_time_s * load.in_flight / load.route.slot_count
                for load in self._loads.values()
                if load.in_flight
            ),
            default=None,
        )

    @property
    def service_times_s(self) -> dict[str, float | None]:
        """How long a request takes each replica, as far as that is known."""
        return {key: load.service_time_s or None for key, load in self._loads.items()}

    @property
    def parallelism(self) -> int:
        """Requests that run at once on all replicas together."""
        return sum(load.route.slot_count for load in self._loads.values())

    @property
    def in_flight(self) -> dict[str, int]:
        """Requests under way by replica."""
        return {replica_id: load.in_flight for replica_id, load in self._loads.items()}


class DevicePriority(_Counting):
    """Fills the preferred devices before others get anything.

    A device is full when every slot of its replicas has a request. When all are, each slot gets one
    more to go on with, the preferred devices first again.
    """

    def choose(self, now_s: float, cost: float = 1.0) -> str | None:  # noqa: ARG002 - a `Schedule`
        """Return the replica for the next request; None while none has room."""
        with_room = [load for load in self._loads.values() if load.has_room]
        best = min(
            with_room,
            key=lambda load: (
                not load.has_idle_slot,
                load.route.rank,
                load.in_flight / load.route.slot_count,
            ),
            default=None,
        )
        return None if best is None else best.route.replica_id


class RoundRobin(_Counting):
    """Goes round the replicas, passing over those that are full, however fast each one is."""

    def __init__(self) -> None:
        super().__init__()
        self._order: list[str] = []

    def add(self, route: Route) -> None:
        """Use one more replica, after those that are there."""
        super().add(route)
        if route.replica_id not in self._order:
            self._order.append(route.replica_id)

    def forget(self, replica_id: str) -> None:
        """Stop using a replica, until it is added or a route table names it again."""
        super().forget(replica_id)
        if replica_id in self._order:
            self._order.remove(replica_id)

    def choose(self, now_s: float, cost: float = 1.0) -> str | None:  # noqa: ARG002 - a `Schedule`
        """Return the replica for the next request; None while none has room."""
        return next((each for each in self._order if self._loads[each].has_room), None)

    def started(self, replica_id: str, now_s: float) -> None:
        """Count a request that was sent; its replica's turn comes last now."""
        super().started(replica_id, now_s)
        self._order.remove(replica_id)
        self._order.append(replica_id)


def make_schedule(policy: SchedulePolicy, slack_s: float = 0.0) -> Schedule:
    """Return what chooses replicas.

    Args:
        policy: how.
        slack_s: how long the client may leave answers lying; only the default policy minds it.
    """
    match policy:
        case SchedulePolicy.DEVICE_PRIORITY:
            return DevicePriority()
        case SchedulePolicy.ROUND_ROBIN:
            return RoundRobin()
        case SchedulePolicy.EARLIEST:
            return Balancer(slack_s)
