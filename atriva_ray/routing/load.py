"""`Load`: what one client knows of one replica, and what it expects of it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Load", "Route"]

_SMOOTHING = 0.2
"""Weight of the newest service time in the moving average."""

_SURPRISE = 2.0
"""A replica that takes so many times as long as expected has become slow, rather than the request
being a hard one; it is believed sooner."""

_SURPRISED_SMOOTHING = 0.5

_RISING = 0.01
"""Weight of an overhead that is larger than it was found to be. Most often others' requests came
between, which is no property of the replica, so small ones are believed at once."""

_WINDOW_PER_SLOT = 2
"""Requests under way per slot: one that runs, one that is there when it ends."""

_MAX_WINDOW = 64

_FRESH_ROUNDS = 1.0
"""What an answer told of others' requests is believed for the time that one takes: that a replica
was empty then is no reason to send it everything later."""


@dataclass(frozen=True, slots=True)
class Route:
    """A replica that may be used.

    Attributes:
        replica_id: unique over the life of the cluster.
        label: ``node/device`` it runs on.
        slot_count: requests it runs at once.
        rank: AUTO's preference of its device, lower is better.
        is_home: whether the client is to use it first; others are for what its homes cannot take.
        service_time_s: what other clients found that a request takes it; None if none did.
    """

    replica_id: str
    label: str
    slot_count: int
    rank: int
    is_home: bool = True
    service_time_s: float | None = None


@dataclass(slots=True, eq=False)
class Load:
    """What one client knows of one replica.

    Attributes:
        route: which.
        service_time_s: moving average of what a request takes it; None: nobody knows yet.
        overhead_s: what a request takes beyond that, if nothing is before it: the journey of its
            data, and the threads at both ends; None: nobody knows yet.
        in_flight: requests of this client that are under way.
        others: other clients that have used the replica of late.
        wanted: requests that it would like to have for each slot, to run them together.
        ahead: requests of other clients that were there when it last answered.
        mean_ahead: moving average of that.
        seen_s: when that was.
        entry: number of its place in the order; one that has another number is of the past.
        newest: number of the request of this client that was sent last.
        begins_s: when that is expected to begin to run.
        due_s: when it is expected to be answered.
    """

    route: Route
    service_time_s: float | None = None
    overhead_s: float | None = None
    in_flight: int = 0
    others: int = 0
    wanted: int = 1
    ahead: int = 0
    mean_ahead: float = 0.0
    seen_s: float = 0.0
    entry: int = 0
    newest: int = 0
    begins_s: float = 0.0
    due_s: float = 0.0

    @property
    def is_mine(self) -> bool:
        """Whether this client may use it before it has to."""
        return self.route.is_home or not self.others

    def has_room(self, lasting_s: float) -> bool:
        """Whether one more may be under way; those of all clients are to last about that long.

        Clients that use a replica at the same time share its room, but each may have one there.
        """
        slots = self.route.slot_count
        share = self.in_flight * (1 + self.others)
        window = _WINDOW_PER_SLOT * slots
        if self.wanted > 1:
            window = max(window, min(_MAX_WINDOW, window * self.wanted))
        if share < window:
            return True
        if not self.service_time_s:
            return False
        return share < min(_MAX_WINDOW, slots * lasting_s / self.service_time_s)

    @property
    def takes_s(self) -> float:
        """What a request takes that nothing is before; 0 where nothing is known.

        So a replica that nobody has used is tried at once.
        """
        if self.service_time_s is None:
            return 0.0
        return self.service_time_s + (self.overhead_s or 0.0)

    @property
    def lasts_s(self) -> float:
        """How long the requests under way keep the replica busy; 0 where that is not known."""
        return (self.service_time_s or 0.0) * self.in_flight / self.route.slot_count

    @property
    def known_until_s(self) -> float:
        """Up to when what the last answer told of others' requests says more than their mean."""
        round_s = (self.service_time_s or 0.0) / self.route.slot_count
        return self.seen_s + max(_FRESH_ROUNDS, self.ahead - self.mean_ahead) * round_s

    def wait_s(self, now_s: float) -> float:
        """Return how long one more request would wait until it runs.

        Slots work in parallel: it waits for ``ahead / slots`` rounds of service. Others' requests
        that were seen there run meanwhile, and others follow, as many as there are on average.
        """
        if not self.service_time_s:
            return 0.0
        round_s = self.service_time_s / self.route.slot_count
        rounds = self.in_flight + 1 - self.route.slot_count
        if now_s < self.known_until_s:
            return max(0.0, (rounds + self.ahead) * round_s - (now_s - self.seen_s))
        return max(0.0, (rounds + self.mean_ahead) * round_s)

    def learn(
        self, service_time_s: float | None, took_s: float | None, queue_len: int, now_s: float
    ) -> None:
        """Take note of an answer.

        Args:
            service_time_s: what the device took; None for an answer that tells nothing.
            took_s: what the request took in all, if that is known.
            queue_len: requests, of all clients, that were left at the replica.
            now_s: the time.
        """
        self.ahead = max(0, queue_len - self.in_flight)
        self.mean_ahead += _SMOOTHING * (self.ahead - self.mean_ahead)
        self.seen_s = now_s
        if service_time_s is None:
            return
        before_s = self.service_time_s
        if before_s is None:
            self.service_time_s = service_time_s
        else:
            is_surprise = service_time_s > _SURPRISE * before_s
            weight = _SURPRISED_SMOOTHING if is_surprise else _SMOOTHING
            self.service_time_s = before_s + weight * (service_time_s - before_s)
        if took_s is not None and not self.in_flight and not self.ahead:
            beyond_s = max(0.0, took_s - service_time_s)
            if self.overhead_s is None or beyond_s < self.overhead_s:
                self.overhead_s = beyond_s
            else:
                self.overhead_s += _RISING * (beyond_s - self.overhead_s)
